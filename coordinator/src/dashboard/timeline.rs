//! A run as bars over time, from the moment service went away. Drawn with percentages, so that it needs no script
//! and no inline style.

use maud::{Markup, html};

use super::format;
use super::parts::{State, icon};
use crate::view::{RunState, RunView, StepPhase, StepView};

/// Milliseconds from the left edge to the right.
struct Scale {
    /// How long before the beginning of the run the left edge is.
    before: u64,
    total: u64,
}

impl Scale {
    fn of(run: &RunView) -> Self {
        let before =
            if run.recovery.measured_from == "last-contact" { run.last_contact_before_ms.unwrap_or(0) } else { 0 };
        let ends = run.steps.iter().filter_map(|step| Some(step.started_after_ms? + step.duration_ms.unwrap_or(0)));
        let after = ends.max().unwrap_or(0).max(if run.ended.is_none() { run.duration_ms } else { 0 });
        // A little air at the right, so that a running bar does not touch the edge.
        let total = before.saturating_add(after).max(1);
        Self { before, total: total.saturating_add(total / 40).max(100) }
    }

    /// A place, in thousandths of the width.
    fn place(&self, after_start: u64) -> u64 {
        (self.before.saturating_add(after_start)).saturating_mul(1000) / self.total
    }

    fn width(&self, length: u64) -> u64 {
        (length.saturating_mul(1000) / self.total).max(4)
    }
}

fn percent(thousandths: u64) -> String {
    format!("{}.{}%", thousandths / 10, thousandths % 10)
}

/// The steps that are part of the story: those that undo are, once something is undone.
pub(super) fn shown(run: &RunView) -> impl Iterator<Item = &StepView> {
    let undoing = matches!(run.state, RunState::Undoing | RunState::Undone);
    run.steps
        .iter()
        .filter(move |step| undoing || !step.undo || !matches!(step.state, StepPhase::Pending | StepPhase::Skipped))
}

pub(super) fn draw(run: &RunView) -> Markup {
    let scale = Scale::of(run);
    let mut stage = None;
    html! {
        ol.timeline {
            @if scale.before > 0 { (silence(run, &scale)) }
            @for step in shown(run) {
                @let starts_stage = stage.replace(step.stage) != Some(step.stage);
                li.first[starts_stage] {
                    span.step {
                        strong { (step.title()) }
                        span.kind { (step.cluster) @if step.detached { " · not awaited" } }
                    }
                    span class={ "badge " (step.state.tone().as_str()) } { (icon(step.state.tone())) span { (step.state.word()) } }
                    (bar(step, run, &scale))
                    span.took.number { (step.duration_ms.map_or_else(String::new, format::duration)) }
                }
            }
            (axis(&scale))
        }
    }
}

/// Before the run: nobody hears the primary, and D passes.
fn silence(run: &RunView, scale: &Scale) -> Markup {
    html! {
        li.first {
            span.step { strong { "silence" } span.kind { (run.from) } }
            span.badge.idle { (icon(super::parts::Tone::Idle)) span { "time bound" } }
            svg.bar aria-hidden="true" {
                rect.track x="0" y="30%" width="100%" height="40%" rx="3" {}
                rect.silence x="0" y="30%" width=(percent(scale.width(scale.before))) height="40%" rx="3" {}
            }
            span.took.number { (format::duration(scale.before)) }
        }
    }
}

fn bar(step: &StepView, run: &RunView, scale: &Scale) -> Markup {
    html! {
        svg.bar aria-hidden="true" {
            rect.track x="0" y="30%" width="100%" height="40%" rx="3" {}
            @if let Some(start) = step.started_after_ms {
                @let length = step.duration_ms.unwrap_or(0);
                rect class={ "fill " (step.state.tone().as_str()) } x=(percent(scale.place(start)))
                    y="20%" width=(percent(scale.width(length))) height="60%" rx="3" {}
            }
            @if let Some(decision) = &run.decision {
                rect.decision x=(percent(scale.place(decision.after_ms))) y="0" width="1.5" height="100%" {}
            }
        }
    }
}

fn axis(scale: &Scale) -> Markup {
    let quarter = |part: u64| format::duration(scale.total * part / 4);
    html! {
        li.axis aria-hidden="true" {
            span.step {} span {}
            span.ticks.number { span { "0" } span { (quarter(1)) } span { (quarter(2)) } span { (quarter(3)) } }
            span.took {}
        }
    }
}
