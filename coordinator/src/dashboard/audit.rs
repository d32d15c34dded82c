//! The audit: what was decided, voted, refused and commanded, by whom.

use maud::{Markup, html};

use super::format;
use super::page::Filter;
use super::parts::{application_link, run_link, time};
use crate::view::{AuditView, View};

pub(super) fn draw(view: &View, filter: &Filter) -> Markup {
    let wanted = |record: &&AuditView| {
        filter.application.is_empty() || record.application.as_deref() == Some(filter.application.as_str())
    };
    html! {
        div.title { h1 { "Audit" } }
        nav.filter aria-label="Filter by application" {
            a href="/audit" aria-current=[filter.application.is_empty().then_some("true")] { "everything" }
            @for application in &view.applications {
                a href={ "/audit?application=" (application.name) }
                    aria-current=[(filter.application == application.name).then_some("true")] { (application.name) }
            }
        }
        section.card {
            (table(view.audit.iter().filter(wanted)))
            p.note { "The newest " (crate::view::AUDIT_SHOWN) " records of this coordinator's applied state, newest first." }
        }
    }
}

pub(super) fn table<'a>(records: impl Iterator<Item = &'a AuditView>) -> Markup {
    let mut records = records.peekable();
    html! {
        @if records.peek().is_none() {
            p.empty { "Nothing yet." }
        } @else {
            table.stacked.audit {
                thead { tr {
                    th scope="col" { "When" } th scope="col" { "Event" } th scope="col" { "Application" }
                    th scope="col" { "Run" } th scope="col" { "Who" } th scope="col" { "What" }
                } }
                tbody { @for record in records {
                    tr {
                        td.number data-label="When" { span.kind { (format::day(&record.at)) " " } (time(&record.at)) }
                        td data-label="Event" { code { (record.event) } }
                        td data-label="Application" { @if let Some(name) = &record.application { (application_link(name)) } }
                        td data-label="Run" { @if let Some(run) = record.run { (run_link(run)) } }
                        td data-label="Who" { (record.actor) }
                        td data-label="What" { (record.detail) }
                    }
                } }
            }
        }
    }
}
