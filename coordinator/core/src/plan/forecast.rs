//! How long a plan is expected to take: each step as long as the same one took in earlier runs, by the median. What was
//! never done here is not guessed; the sum then is a lower bound, and says so.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::application::Action;
use crate::id::{ApplicationId, ResourceId, StepId};
use crate::run::{Run, Step, StepKind, StepState, UNDO_STAGE};
use crate::state::State;
use crate::time::Span;

/// What is expected of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// Of each step of the plan that was done before: how long, and in how many runs that was seen.
    pub steps: BTreeMap<StepId, (Span, usize)>,
    /// From the first step to the end of the last one that is awaited.
    pub total: Estimate,
    /// From the first step that keeps writes out, or from the first one where nothing does, until service is back.
    pub outage: Estimate,
    /// From the first step that keeps writes out to the decision; zero where nothing does.
    pub until_decided: Estimate,
}

/// A length of time that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Estimate {
    /// The sum of what is known.
    pub span: Span,
    /// Steps of which nothing is known: with any, it takes longer.
    pub unknown: usize,
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.unknown {
            0 => write!(f, "about {}", self.span),
            1 => write!(f, "more than {} (one step was never done here)", self.span),
            more => write!(f, "more than {} ({more} steps were never done here)", self.span),
        }
    }
}

/// Looks the steps of a plan up in the runs that are remembered.
#[must_use]
pub fn forecast(state: &State, application: &ApplicationId, steps: &[Step]) -> Forecast {
    let past = Past::of(state, application);
    let known: BTreeMap<StepId, (Span, usize)> =
        steps.iter().filter_map(|step| Some((step.id, past.median(step)?))).collect();
    let stages = stages(steps, &known);
    let first = stages.iter().position(|stage| stage.keeps_out).unwrap_or(0);
    let back = stages.iter().rposition(|stage| stage.brings_back).map_or(stages.len(), |last| last + 1);
    let decided = stages.iter().position(|stage| stage.decides).filter(|_| stages.iter().any(|one| one.keeps_out));
    Forecast {
        total: sum(&stages),
        outage: sum(stages.get(first..back).unwrap_or_default()),
        until_decided: sum(decided.and_then(|last| stages.get(first..last)).unwrap_or_default()),
        steps: known,
    }
}

struct Stage {
    took: Estimate,
    keeps_out: bool,
    brings_back: bool,
    decides: bool,
}

fn sum(stages: &[Stage]) -> Estimate {
    stages.iter().fold(Estimate::default(), |sum, stage| Estimate {
        span: sum.span.plus(stage.took.span),
        unknown: sum.unknown + stage.took.unknown,
    })
}

/// Of each stage what is awaited: side by side, but for what comes after something else.
fn stages(steps: &[Step], known: &BTreeMap<StepId, (Span, usize)>) -> Vec<Stage> {
    let mut numbers: Vec<u32> = steps.iter().map(|step| step.stage).filter(|stage| *stage != UNDO_STAGE).collect();
    numbers.dedup();
    let mut ends: BTreeMap<StepId, Span> = BTreeMap::new();
    let stage = |number: u32| {
        let awaited: Vec<&Step> = steps.iter().filter(|step| step.stage == number && !step.detached).collect();
        let mut took = Estimate::default();
        // A step comes after earlier ones of the document, not of the plan: as often as there are steps is enough.
        for _ in &awaited {
            for step in &awaited {
                let begins = step.after.iter().filter_map(|before| ends.get(before)).max().copied().unwrap_or_default();
                let own = known.get(&step.id).map_or(Span::ZERO, |(span, _)| *span);
                ends.insert(step.id, begins.plus(own));
            }
        }
        for step in &awaited {
            took.span = took.span.max(ends.get(&step.id).copied().unwrap_or_default());
            took.unknown += usize::from(!known.contains_key(&step.id) && step.kind != StepKind::Decide);
        }
        let any = |is: fn(StepKind) -> bool| awaited.iter().any(|step| is(step.kind));
        Stage {
            took,
            keeps_out: any(keeps_out),
            brings_back: any(brings_back),
            decides: any(|kind| kind == StepKind::Decide),
        }
    };
    numbers.into_iter().map(stage).collect()
}

/// From then on the old side takes no more writes.
pub(crate) const fn keeps_out(kind: StepKind) -> bool {
    matches!(kind, StepKind::Action(Action::Quiesce | Action::Deactivate | Action::Fence))
}

const fn brings_back(kind: StepKind) -> bool {
    matches!(
        kind,
        StepKind::Action(Action::Promote | Action::Activate | Action::Redirect | Action::Verify | Action::Restore)
    )
}

/// What makes two steps alike: the same thing done to the same resource, wherever. To shorten a TTL is not to redirect.
type Like = (StepKind, Option<ResourceId>, String, bool);

/// How long each kind of step has taken.
struct Past(BTreeMap<Like, Vec<Span>>);

impl Past {
    fn of(state: &State, application: &ApplicationId) -> Self {
        let mut past: BTreeMap<Like, Vec<Span>> = BTreeMap::new();
        for run in state.runs.values().filter(|run| run.application == *application) {
            for (like, took) in done(run) {
                past.entry(like).or_default().push(took);
            }
        }
        past.values_mut().for_each(|spans| spans.sort_unstable());
        Self(past)
    }

    fn median(&self, step: &Step) -> Option<(Span, usize)> {
        if step.kind == StepKind::Action(Action::Wait) {
            return Some((step.duration, 0));
        }
        let spans = self.0.get(&like(step))?;
        let middle = spans.len() / 2;
        let upper = *spans.get(middle)?;
        let even = spans.len().is_multiple_of(2);
        let lower = if even { *spans.get(middle.checked_sub(1)?)? } else { upper };
        Some((lower.plus(upper).divided(2), spans.len()))
    }
}

fn like(step: &Step) -> Like {
    (step.kind, step.resource.clone(), step.command.clone(), step.is_ttl_alone())
}

/// What was really done: a repetition that found reality as asked, or a word of an operator, tells nothing.
fn done(run: &Run) -> impl Iterator<Item = (Like, Span)> + '_ {
    run.walk().filter_map(|(step, progress)| {
        let (began, ended) = progress.started.zip(progress.ended)?;
        let by_agent = progress.token.is_some() && step.kind != StepKind::Action(Action::Approve);
        let real = progress.report.as_ref().is_some_and(|report| !report.already);
        (progress.state == StepState::Succeeded && by_agent && real).then(|| (like(step), ended.since(began)))
    })
}
