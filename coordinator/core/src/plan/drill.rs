//! The steps of a drill: the lines of its runbook with copies in the place of databases, and at the end, always, the
//! clean-up.

use std::collections::BTreeSet;

use crate::application::{Action, Application, Line, Manner, OnFailure, ResourceKind};
use crate::id::{ClusterId, ResourceId, StepId};
use crate::run::{CLEAN_UP_STAGE, Rehearsal, Step, StepKind};
use crate::time::Span;

/// The runbook of a drill.
pub const DRILL: &str = "drill";

/// For one attempt at taking a copy away.
const CLEAN_UP: Span = Span::from_secs(120);
/// Attempts after the first: a clean-up that is given up leaves something running.
const CLEAN_UP_RETRIES: u32 = 5;

/// Plans a drill in a standby's cluster. The same arguments always give the same plan.
#[must_use]
pub fn drill(document: &Application, cluster: &ClusterId) -> Vec<Step> {
    let lines = document.runbooks.get(DRILL).map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    let mut planning = Planning { document, cluster, steps: Vec::new(), stage: 0 };
    // It rehearses a failover.
    let lines = || lines.iter().filter(|line| line.when != Some(Manner::Graceful));
    for line in lines().filter(|line| !line.always) {
        planning.line(line);
    }
    planning.clean_up(lines().filter(|line| line.always));
    planning.steps
}

struct Planning<'a> {
    document: &'a Application,
    cluster: &'a ClusterId,
    steps: Vec<Step>,
    stage: u32,
}

impl Planning<'_> {
    fn push(&mut self, kind: StepKind, resource: Option<&ResourceId>, line: Option<&Line>) -> StepId {
        let id = StepId(self.steps.len() as u64);
        self.steps.push(Step {
            id,
            stage: self.stage,
            after: Vec::new(),
            kind,
            resource: resource.cloned(),
            cluster: self.cluster.clone(),
            timeout: line.map_or(CLEAN_UP, |line| line.timeout),
            retries: line.map_or(CLEAN_UP_RETRIES, |line| line.retries),
            on_failure: line.map_or(OnFailure::Stuck, |line| line.on_failure),
            detached: false,
            command: line.map(|line| line.command.clone()).unwrap_or_default(),
            duration: line.and_then(|line| line.duration).unwrap_or(Span::ZERO),
            question: line.map(|line| line.question.clone()).unwrap_or_default(),
        });
        id
    }

    fn line(&mut self, line: &Line) {
        let Some(kind) = rehearsed(line.action) else { return };
        if line.resources.is_empty() {
            self.push(kind, None, Some(line));
        }
        for resource in &line.resources {
            self.push(kind, Some(resource), Some(line));
        }
        self.stage += 1;
    }

    /// Side by side, so that one that fails holds up no other; the document's own lines one after the other.
    fn clean_up<'l>(&mut self, always: impl Iterator<Item = &'l Line>) {
        let copied: BTreeSet<ResourceId> = self
            .steps
            .iter()
            .filter(|step| matches!(step.kind, StepKind::Rehearse(Rehearsal::Promote | Rehearsal::Restore)))
            .filter_map(|step| step.resource.clone())
            .collect();
        self.stage = CLEAN_UP_STAGE;
        let mut before = None;
        for line in always {
            let id = self.push(StepKind::Rehearse(Rehearsal::Run), line.resources.first(), Some(line));
            if let (Some(before), Some(step)) = (before.replace(id), self.steps.last_mut()) {
                step.after = vec![before];
            }
        }
        for resource in copied.iter().filter(|resource| self.is_database(resource)).collect::<Vec<_>>() {
            self.push(StepKind::Rehearse(Rehearsal::CleanUp), Some(resource), None);
        }
    }

    fn is_database(&self, resource: &ResourceId) -> bool {
        self.document.resources.get(resource).map(|spec| spec.kind).is_some_and(ResourceKind::is_guarded)
    }
}

/// What a drill makes of a line; none of what only concerns the real things, which no valid document names here.
const fn rehearsed(action: Action) -> Option<StepKind> {
    Some(match action {
        Action::Promote => StepKind::Rehearse(Rehearsal::Promote),
        Action::Restore => StepKind::Rehearse(Rehearsal::Restore),
        Action::Verify => StepKind::Rehearse(Rehearsal::Verify),
        Action::Run => StepKind::Rehearse(Rehearsal::Run),
        Action::Approve | Action::Wait => StepKind::Action(action),
        Action::Fence
        | Action::Quiesce
        | Action::CatchUp
        | Action::Activate
        | Action::Deactivate
        | Action::Redirect
        | Action::Rejoin => return None,
    })
}
