//! What a human may do with a step that waits for one, and whose word counts for what: the state machine goes by it, and so
//! does whoever tells an operator what to type.
//!
//! ```text
//!  it asks ─────────► approve
//!  it is stuck ─┬───► clear --retry
//!               ├───► clear --done: where nothing but the word can show it, and nothing rests on it
//!               └───► approve, if it is a question
//! ```

use super::{Progress, Run, RunStatus, Step, StepKind, StepState};
use crate::application::Action;
use crate::state::{ApplicationState, State};
use crate::verdict::rule;
use crate::why::Rule;

/// What a human may do with a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// `yes`, `ask again`, `try again` or `done by hand`.
    pub what: &'static str,
    /// What to type; words in capitals are the operator's own.
    pub command: String,
}

impl Run {
    /// Where it stands for whoever looks: an undo or a clean-up goes on only in name while a step of it is stuck.
    #[must_use]
    pub fn standing(&self) -> RunStatus {
        let is_stuck = || self.walk().any(|(_, progress)| progress.state == StepState::Stuck);
        if self.status == RunStatus::Undoing && is_stuck() { RunStatus::Stuck } else { self.status }
    }

    /// The step asks a human just now. While the run is undone an answer would change nothing.
    #[must_use]
    pub fn asks(&self, step: &Step, progress: &Progress) -> bool {
        step.kind == StepKind::Action(Action::Approve)
            && progress.state == StepState::Running
            && matches!(self.status, RunStatus::Running | RunStatus::Stuck)
    }
}

/// What a human may do with a step now, the first thing first. Empty unless it waits for a human.
#[must_use]
pub fn remedies(state: &State, run: &Run, step: &Step, progress: &Progress) -> Vec<Remedy> {
    let (id, number) = (run.id, step.id);
    let yes = || Remedy { what: "yes", command: format!("regentctl approve {id} {number} --reason WHY") };
    let retry = |what| Remedy { what, command: format!("regentctl clear {id} --step {number} --retry") };
    if run.asks(step, progress) {
        return vec![yes()];
    }
    if progress.state != StepState::Stuck {
        return Vec::new();
    }
    if step.kind == StepKind::Action(Action::Approve) {
        return vec![yes(), retry("ask again")];
    }
    let mut all = vec![retry("try again")];
    if heeds_done(state.applications.get(&run.application), step).is_ok() {
        let command = format!("regentctl clear {id} --step {number} --done --reason WHAT");
        all.push(Remedy { what: "done by hand", command });
    }
    all
}

/// Whether somebody's word that the step was done by hand is taken for it.
///
/// # Errors
/// The rule that speaks against it, and what to do instead.
pub(super) fn heeds_done(known: Option<&ApplicationState>, step: &Step) -> Result<(), Rule> {
    match step.kind {
        StepKind::Action(Action::Fence) => Err(rule(
            "fence-by-word",
            "a fence counts only when it was seen; retry it, or attest that the primary is off",
        )),
        StepKind::Action(Action::Promote) | StepKind::Unfence => Err(rule(
            "open-by-word",
            "the agent must know that it opened the database, or it never opens it again; open it by hand and retry",
        )),
        StepKind::Action(Action::Rejoin) => Err(rule(
            "rejoin-by-word",
            "a cluster is taken back only when it was seen following; retry it, or begin another rejoin",
        )),
        StepKind::Action(Action::Approve) => Err(rule(
            "answer-by-word",
            "it is a question: `regentctl approve` answers it, and the audit keeps who did and why",
        )),
        StepKind::Action(Action::Redirect) if leads_elsewhere(known, step) => Err(rule(
            "redirect-by-word",
            format!(
                "the group itself still gives another cluster's address for the name; give the resource its addresses \
                 in agent.yaml of {}, restart that agent, and retry",
                step.cluster
            ),
        )),
        StepKind::Action(
            Action::Quiesce
            | Action::CatchUp
            | Action::Activate
            | Action::Deactivate
            | Action::Redirect
            | Action::Verify
            | Action::Restore
            | Action::Run
            | Action::Wait,
        )
        | StepKind::Decide
        | StepKind::Rehearse(_) => Ok(()),
    }
}

/// The answer that the group gives changes with the intent of the redirect. Where none was committed, because the answer
/// would have been empty, nothing that is done outside changes it.
fn leads_elsewhere(known: Option<&ApplicationState>, step: &Step) -> bool {
    let answer = known.zip(step.resource.as_ref()).and_then(|(known, name)| known.answers.get(name));
    answer.is_some_and(|answer| answer.cluster != step.cluster)
}
