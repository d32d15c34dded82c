//! What follows from outcomes that are about to be proposed: it goes to the log in the same round as they do, so that a
//! run costs one round for each stage, and a switchover none of its own for the decision.
//!
//! ```text
//!  last catchUp ends ──► [ StepOutcome, Decide, StepIntent promote … ]      one round instead of three
//! ```
//!
//! Every entry is checked on its own when it is applied, by the state that those before it have left. A wrong guess is
//! harmless: a decision without its ground is refused, and an intent whose turn has not come is ignored.

use super::{Viewpoint, follow};
use crate::cause::{self, Standing};
use crate::entry::{Entry, Outcome};
use crate::evidence::Evidence;
use crate::id::{Attempt, RunId, StepId};
use crate::run::{self, Decided, Proposal, Run};
use crate::state::State;
use crate::switchover;
use crate::verdict::Scene;

/// The outcome of an attempt, not applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Which step.
    pub step: StepId,
    /// Which try.
    pub attempt: Attempt,
    /// How it ended.
    pub outcome: Outcome,
}

/// What can be proposed together with these outcomes, behind them; in this order.
#[must_use]
pub fn foresee(state: &State, evidence: &Evidence, view: Viewpoint, run: RunId, endings: &[Ending]) -> Vec<Entry> {
    let Some(mut run) = state.runs.get(&run).cloned() else { return Vec::new() };
    for ending in endings {
        if run.settle(ending.step, ending.attempt, &ending.outcome, view.wall).is_err() {
            return Vec::new();
        }
    }
    let application = run.application.clone();
    let Some(scene) = Scene::new(state, evidence, view.now, view.me, &application) else { return Vec::new() };
    // What is seen of its cause has to be looked at with the outcomes in the state.
    if cause::of(&scene, &run, view.wall) != Standing::Holds {
        return Vec::new();
    }
    if switchover::gives_up(&scene, &run, scene.waits(view.wall)).is_some() {
        return Vec::new();
    }
    let mut entries = intents(&scene, &run, view);
    if let Some(decision) = switched(&scene, &run, view)
        && let Entry::Decide { ground, finding, from, .. } = &decision
    {
        let decided =
            Decided { index: state.applied.next(), at: view.wall, ground: ground.clone(), epoch: from.next() };
        run.pass(decided, finding.clone());
        entries.push(decision);
        entries.extend(intents(&scene, &run, view));
    }
    entries
}

/// Only that of a switchover: it rests on what the steps themselves reported. Any other rests on evidence, too, which is
/// looked at when the outcomes stand.
fn switched(scene: &Scene<'_>, run: &Run, view: Viewpoint) -> Option<Entry> {
    if !run.cause.is_planned() {
        return None;
    }
    let due = run::next(run, scene.waits(view.wall)).contains(&Proposal::Decide);
    due.then(|| follow::decide_switched(scene, run)).flatten()
}

fn intents(scene: &Scene<'_>, run: &Run, view: Viewpoint) -> Vec<Entry> {
    let entries = run::next(run, scene.waits(view.wall)).into_iter().filter_map(|proposal| match proposal {
        Proposal::Entry(entry) => Some(*entry),
        Proposal::Decide => None,
    });
    entries.filter(|entry| matches!(entry, Entry::StepIntent { .. })).collect()
}
