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
        let before = last_contact_before_ms(run).unwrap_or(0);
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
    let undo_is_stuck = run.steps.iter().any(|step| step.undo && step.state == StepPhase::Stuck);
    let undoing = undo_is_stuck || matches!(run.state, RunState::Undoing | RunState::Undone);
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
                li.first[starts_stage].aside[step.detached] {
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
        (legend(run))
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

/// Three to eight round numbers below the bars.
fn axis(scale: &Scale) -> Markup {
    let step = round_step(scale.total);
    let ticks = (0..).map(|count| step * count).take_while(|at| at + step / 3 < scale.total);
    html! {
        li.axis aria-hidden="true" {
            span.step {} span {}
            svg.ticks {
                @for at in ticks {
                    text x=(percent(at * 1000 / scale.total)) y="80%" { (tick(at)) }
                }
            }
            span.took {}
        }
    }
}

/// 1, 2 or 5 of a power of ten milliseconds, or whole minutes and hours, so that the whole has at most eight.
fn round_step(total: u64) -> u64 {
    const STEPS: [u64; 22] = [
        20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
        1_200_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 43_200_000, 86_400_000,
    ];
    STEPS.into_iter().find(|step| total / step < 7).unwrap_or(total / 6)
}

fn tick(ms: u64) -> String {
    if ms == 0 { "0".to_owned() } else { format::setting(ms) }
}

/// How long before the run the primary was last heard, if service is counted as away since then.
fn last_contact_before_ms(run: &RunView) -> Option<u64> {
    let counted = run.recovery.as_ref().is_some_and(|recovery| recovery.measured_from == "last-contact");
    run.last_contact_before_ms.filter(|_| counted)
}

fn legend(run: &RunView) -> Markup {
    html! {
        @if let Some(decision) = &run.decision {
            p.note.legend {
                svg.mark aria-hidden="true" { rect.decision x="45%" y="0" width="1.5" height="100%" {} }
                span {
                    "point of no return: "
                    @if let Some(before) = last_contact_before_ms(run) {
                        (format::duration(before + decision.after_ms)) " after the last contact; "
                    }
                    (decision.ground_detail)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_a_few_round_numbers() {
        for total in [100, 950, 1_400, 20_000, 59_000, 61_000, 3_599_000, 86_399_000, 900_000_000] {
            let count = total / round_step(total);
            assert!((2..=7).contains(&count), "{total}: {count}");
        }
    }

    #[test]
    fn places_stay_on_the_sheet() {
        let scale = Scale { before: 10_000, total: 20_000 };
        assert_eq!((scale.place(0), scale.place(10_000), scale.width(0)), (500, 1000, 4));
        assert_eq!(percent(505), "50.5%");
    }
}
