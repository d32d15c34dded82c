//! Whether an application could be moved now, and what will hurt on the day it must be.

use maud::{Markup, html};

use super::parts::{Tone, badge};
use crate::view::ApplicationView;

pub(super) fn draw(application: &ApplicationView) -> Markup {
    html! {
        section.card {
            h2 { "Readiness" }
            @if application.readiness.is_empty() {
                p { (badge(Tone::Good, "ready")) " Nothing speaks against a move." }
            } @else {
                ul.rules {
                    @for note in &application.readiness {
                        li {
                            (badge(tone(note.severity), note.severity))
                            " " code { (note.code) } " "
                            @if let Some(resource) = &note.resource { strong { (resource) } " " }
                            @if let Some(cluster) = &note.cluster { "in " strong { (cluster) } ": " }
                            (note.detail)
                        }
                    }
                }
            }
            @for (cluster, at, run, took) in &application.drills {
                p.note { strong { (cluster) } " was last drilled at " (super::parts::time(at)) ", run "
                    (super::parts::run_link(*run)) ": a failover would have taken " (super::format::duration(*took)) "." }
            }
        }
    }
}

fn tone(severity: &str) -> Tone {
    match severity {
        "blocker" => Tone::Bad,
        "warning" => Tone::Warn,
        _ => Tone::Idle,
    }
}
