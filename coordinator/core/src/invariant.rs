//! The promises S1–S6 as functions over states, called by tests, simulation and the debug endpoint.
//!
//! They look at the replicated side only; that no two databases accept writes is seen by an oracle at the databases.

use std::collections::BTreeSet;

use crate::application::Action;
use crate::id::{ApplicationId, Epoch, RunId};
use crate::run::{Run, RunStatus, StepKind, StepState, UNDO_STAGE};
use crate::state::State;

/// A promise that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise} is broken: {detail}")]
pub struct Violation {
    /// S1 … S6.
    pub promise: &'static str,
    /// Where and how.
    pub detail: String,
}

fn broken(promise: &'static str, detail: impl Into<String>) -> Violation {
    Violation { promise, detail: detail.into() }
}

/// Everything that must hold of one state.
#[must_use]
pub fn of_state(state: &State) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, known) in &state.applications {
        if (known.epoch == Epoch(0)) != known.primary.is_none() {
            violations.push(broken("S2", format!("{id} has epoch {} and primary {:?}", known.epoch, known.primary)));
        }
        if known.primary.as_ref().is_some_and(|primary| known.excluded.contains_key(primary)) {
            violations.push(broken("S1", format!("{id}: the primary is quarantined")));
        }
        let numbers: Vec<_> = known.terms.iter().map(|terms| terms.number).collect();
        if !numbers.is_sorted_by(|before, after| before < after) {
            violations.push(broken("S2", format!("{id}: terms do not rise: {numbers:?}")));
        }
        if let Some(newest) = known.terms.last()
            && (newest.epoch != known.epoch || Some(&newest.primary) != known.primary.as_ref())
        {
            violations.push(broken("S2", format!("{id}: the newest terms are not those of epoch {}", known.epoch)));
        }
        // Beside the one run only the clean-up of a drill that it replaced may go on.
        let counts = |run: &&Run| !run.is_cleaning_up() || known.run == Some(run.id);
        let open: Vec<RunId> = open_runs(state, id).filter(counts).map(|run| run.id).collect();
        if open.len() > 1 || open.first() != known.run.as_ref() {
            violations.push(broken("S4", format!("{id}: open runs {open:?}, noted {:?}", known.run)));
        }
    }
    violations.extend(state.runs.values().filter_map(of_run));
    violations
}

fn open_runs<'a>(state: &'a State, id: &'a ApplicationId) -> impl Iterator<Item = &'a Run> {
    state.runs.values().filter(move |run| run.application == *id && !run.status.is_final())
}

fn of_run(run: &Run) -> Option<Violation> {
    for (step, progress) in run.walk() {
        let begun = !matches!(progress.state, StepState::Pending | StepState::Skipped) && step.kind != StepKind::Decide;
        let by_rule = progress.failure.as_ref().is_some_and(|(code, _)| code == "dns-would-be-empty");
        if begun && progress.token.is_none() && !by_rule {
            return Some(broken("S3", format!("step {} of run {} has an effect and no intent", step.id, run.id)));
        }
        let plan_is_drill =
            matches!(step.kind, StepKind::Rehearse(_) | StepKind::Action(Action::Approve | Action::Wait));
        if run.is_drill() && !plan_is_drill {
            return Some(broken("S1", format!("step {} of the drill {} is no rehearsal", step.id, run.id)));
        }
        let opens = matches!(step.kind, StepKind::Action(Action::Promote | Action::Activate | Action::Redirect));
        let undoes = step.stage == UNDO_STAGE && step.cluster == run.from;
        // No name leads elsewhere by it.
        let stays = step.is_ttl_alone() && step.cluster == run.from;
        if opens && !undoes && !stays && progress.token.is_some() && run.decided.is_none() {
            return Some(broken("S1", format!("step {} of run {} opens before the decision", step.id, run.id)));
        }
    }
    if run.status == RunStatus::Undone && run.decided.is_some() {
        return Some(broken("S1", format!("run {} was undone after its decision", run.id)));
    }
    None
}

/// Everything that must hold from one state to a later one.
#[must_use]
pub fn of_change(before: &State, after: &State) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (id, old) in &before.applications {
        let Some(new) = after.applications.get(id) else {
            violations.push(broken("S5", format!("{id} has vanished")));
            continue;
        };
        if new.epoch < old.epoch {
            violations.push(broken("S2", format!("{id}: epoch {} after {}", new.epoch, old.epoch)));
        }
        if new.primary != old.primary && new.epoch == old.epoch {
            violations.push(broken("S2", format!("{id}: another primary in epoch {}", new.epoch)));
        }
    }
    for (id, old) in &before.runs {
        let Some(new) = after.runs.get(id) else { continue };
        if old.steps != new.steps {
            violations.push(broken("S4", format!("the plan of run {id} has changed")));
        }
        for ((step, was), (_, is)) in old.walk().zip(new.walk()) {
            if was.state == StepState::Succeeded && is.attempts != was.attempts {
                violations.push(broken("S4", format!("step {} of run {id} was done again", step.id)));
            }
        }
    }
    if after.dns_serial < before.dns_serial {
        violations.push(broken("S2", "the serial of the zone fell".to_owned()));
    }
    let tokens = |state: &State| -> BTreeSet<_> {
        state.runs.values().flat_map(|run| run.progress.iter().filter_map(|progress| progress.token)).collect()
    };
    let highest = tokens(before).last().copied();
    if tokens(after).difference(&tokens(before)).any(|token| Some(*token) <= highest) {
        violations.push(broken("S2", "a token was given out that is not above all earlier ones".to_owned()));
    }
    violations
}
