//! Why a failover would, or would not, start now; to where; with what loss.

use maud::{Markup, html};

use super::format;
use super::parts::{Tone, badge};
use crate::view::{ApplicationView, View};

pub(super) fn draw(view: &View, application: &ApplicationView) -> Markup {
    let why = &application.why;
    html! {
        section.card {
            h2 { "Would a failover start now?" }
            p.answer {
                @if why.would_start {
                    (badge(Tone::Live, "yes"))
                    @if let Some(earliest) = why.earliest_ms {
                        " promotion in " strong.number { (format::duration(earliest)) } " at the earliest"
                    }
                } @else {
                    (badge(Tone::Idle, "no"))
                }
                " "
                (super::overview::verdict(why.verdict))
            }
            @if !why.held_by.is_empty() {
                h3 { "What holds it" }
                ul.rules {
                    @for rule in &why.held_by { li { code { (rule.code) } " " (rule.detail) } }
                }
            }
            @if let (Some(earliest), false) = (why.earliest_ms, why.would_start) {
                p { "The time bound would allow a promotion in " span.number { (format::duration(earliest)) } "." }
            }
            @if let (None, Some(bound)) = (why.earliest_ms, why.if_lost_now_ms) {
                p { "Lost this moment, it would be promoted after " span.number { (format::duration(bound)) } " at the earliest." }
            }
            @for note in &why.notes {
                p.note { strong { (note.severity.as_str()) } " " code { (note.code) } " " (note.detail) }
            }
            h3 { "To where" }
            p {
                @match &why.target {
                    Some(target) => strong { (target) },
                    None => span.none { "no cluster can take over now" },
                }
            }
            @if let Some(expected) = &why.expected {
                h3 { "In what time" }
                p { "From then on " (expected) " until service is back, by earlier runs." }
            }
            @if !why.expected_loss.is_empty() {
                h3 { "Expected loss" }
                ul { @for sentence in &why.expected_loss { li { (sentence) } } }
            }
            @if !why.others.is_empty() {
                h3 { "Why not elsewhere" }
                ul { @for (cluster, reason) in &why.others { li { strong { (cluster) } ": " (reason) } } }
            }
            @if !why.complete {
                p.note {
                    "Judged by what coordinator " (view.me.id) " sees itself. The leader"
                    @if let Some(leader) = view.quorum.leader { ", coordinator " (leader) "," }
                    " is told what all others see."
                }
            }
        }
    }
}
