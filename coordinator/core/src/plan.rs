//! From a document to the immutable steps of a run. The order is the document's; only what safety implies is added.
//!
//! ```text
//!  after Lost:    (fence old side, never awaited)  ║ lines of the runbook …
//!  by Fenced:     fence old side → Decide          ║ lines of the runbook …      (undo: unfence)
//!  switchover:    quiesce … → fence old side → catchUp → Decide ║ lines … → rejoin    (undo: unfence, activate)
//!                                     point of no return
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::application::{Action, Application, Line, Manner, OnFailure, ResourceKind, default};
use crate::entry::Cause;
use crate::id::{ClusterId, ResourceId, StepId};
use crate::run::{Step, StepKind, UNDO_STAGE};
use crate::time::Span;

/// The runbook of a switchover.
pub const SWITCHOVER: &str = "switchover";

/// Attempts at fencing a side that talks, before a human is asked. Each is bounded by the fence budget.
const FENCE_RETRIES: u32 = 5;

/// From where to where, and why.
pub struct Route<'a> {
    /// Why the run begins.
    pub cause: &'a Cause,
    /// The old primary.
    pub from: &'a ClusterId,
    /// The new one.
    pub to: &'a ClusterId,
    /// Guarded resources that all unconfirmed terms agree on; no other may be promoted.
    pub promotable: &'a BTreeSet<ResourceId>,
}

/// Plans a failover. The same arguments always give the same plan.
#[must_use]
pub fn failover(document: &Application, route: &Route<'_>) -> Vec<Step> {
    let fenced_first = match route.cause {
        Cause::ResourceFailed { .. } | Cause::AgentUnreachable | Cause::SelfFenced | Cause::Switchover { .. } => true,
        Cause::RegionLost | Cause::Forced { .. } | Cause::Rejoin { .. } => false,
    };
    let mut planning = Planning { document, route, fenced_first, steps: Vec::new(), stage: 0 };
    planning.fence(fenced_first);
    if fenced_first {
        planning.decide();
    }
    let lines = document.runbooks.get("failover").map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    for line in lines.iter().filter(|line| line.when != Some(Manner::Graceful)) {
        planning.line(line);
    }
    if fenced_first {
        planning.undo();
    }
    planning.steps
}

/// Plans a switchover, by the lines of its own runbook: those up to the last `catchUp` come before the point of no
/// return, at the old epoch, with an undo. The fence is implied before the first `catchUp`.
#[must_use]
pub fn switchover(document: &Application, route: &Route<'_>) -> Vec<Step> {
    let mut planning = Planning { document, route, fenced_first: true, steps: Vec::new(), stage: 0 };
    let lines = document.runbooks.get(SWITCHOVER).map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    let lines: Vec<&Line> = lines.iter().filter(|line| line.when != Some(Manner::Ungraceful)).collect();
    // Without a database nothing has to catch up: the new side begins where it is told to open.
    let opens = |line: &&Line| matches!(line.action, Action::Promote | Action::Activate | Action::Redirect);
    let turning = lines.iter().rposition(|line| line.action == Action::CatchUp).map(|last| last + 1);
    let turning = turning.or_else(|| lines.iter().position(opens)).unwrap_or(lines.len());
    let (before, after) = lines.split_at(turning);
    let fence = before.iter().position(|line| line.action == Action::CatchUp).unwrap_or(before.len());
    for (index, line) in before.iter().enumerate() {
        if index == fence {
            planning.fence(true);
        }
        planning.line(line);
    }
    if fence == before.len() {
        planning.fence(true);
    }
    for step in &mut planning.steps {
        // Up to here every step has an undo, and a failure undoes them: no document can make half of it count.
        let may_fail = step.on_failure == OnFailure::Continue
            && !matches!(step.kind, StepKind::Action(Action::Fence | Action::CatchUp));
        step.detached = false;
        step.on_failure = if may_fail { OnFailure::Continue } else { OnFailure::Undo };
    }
    planning.decide();
    let decided = planning.steps.len();
    for line in after {
        planning.line(line);
    }
    for step in planning.steps.iter_mut().skip(decided) {
        // A side that dies now is not waited for; but a switchover has ended when the old side follows.
        step.detached &= step.kind != StepKind::Action(Action::Rejoin);
    }
    planning.undo();
    planning.undo_services(before);
    planning.steps
}

/// The steps that make a cluster's databases follow the primary, side by side. A fresh copy takes as long as a restore;
/// a `rejoin` line of a runbook that gives a database more time is heeded.
#[must_use]
pub fn rejoin(document: &Application, cluster: &ClusterId, reclone: bool) -> Vec<Step> {
    let usual = default::timeout(if reclone { Action::Restore } else { Action::Rejoin }, None);
    let step = |(number, resource): (usize, ResourceId)| {
        let lines = document.runbooks.values().flat_map(|runbook| &runbook.lines);
        let said = lines.filter(|line| line.action == Action::Rejoin && line.resources.contains(&resource));
        Step {
            id: StepId(number as u64),
            stage: 0,
            after: Vec::new(),
            kind: StepKind::Action(Action::Rejoin),
            timeout: said.map(|line| line.timeout).max().map_or(usual, |said| said.max(usual)),
            resource: Some(resource),
            cluster: cluster.clone(),
            retries: default::retries(Action::Rejoin),
            on_failure: OnFailure::Stuck,
            detached: false,
            command: String::new(),
            duration: Span::ZERO,
            question: String::new(),
        }
    };
    document.guarded().into_iter().enumerate().map(step).collect()
}

struct Planning<'a> {
    document: &'a Application,
    route: &'a Route<'a>,
    fenced_first: bool,
    steps: Vec<Step>,
    stage: u32,
}

impl Planning<'_> {
    fn push(&mut self, mut step: Step) -> StepId {
        let id = StepId(self.steps.len() as u64);
        step.id = id;
        self.steps.push(step);
        id
    }

    fn step(&self, kind: StepKind, resource: Option<&ResourceId>, cluster: &ClusterId) -> Step {
        Step {
            id: StepId(0),
            stage: self.stage,
            after: Vec::new(),
            kind,
            resource: resource.cloned(),
            cluster: cluster.clone(),
            timeout: self.document.automation.bound.fail_over_after,
            retries: FENCE_RETRIES,
            on_failure: OnFailure::Stuck,
            detached: false,
            command: String::new(),
            duration: Span::ZERO,
            question: String::new(),
        }
    }

    /// Fencing comes before any promotion: awaited where the old side talks, tried where it is lost.
    fn fence(&mut self, awaited: bool) {
        for resource in self.document.guarded() {
            let mut step = self.step(StepKind::Action(Action::Fence), Some(&resource), self.route.from);
            step.detached = !awaited;
            self.push(step);
        }
        self.stage += 1;
    }

    fn decide(&mut self) {
        let step = self.step(StepKind::Decide, None, self.route.to);
        self.push(step);
        self.stage += 1;
    }

    fn undo(&mut self) {
        for resource in self.document.guarded() {
            let mut step = self.step(StepKind::Unfence, Some(&resource), self.route.from);
            step.stage = UNDO_STAGE;
            self.push(step);
        }
    }

    /// What was stopped on the old side starts again, once its databases are open.
    fn undo_services(&mut self, lines: &[&Line]) {
        let opened: Vec<StepId> =
            self.steps.iter().filter(|step| step.stage == UNDO_STAGE).map(|step| step.id).collect();
        let stops = |line: &&&Line| matches!(line.action, Action::Quiesce | Action::Deactivate);
        let stopped: BTreeSet<&ResourceId> = lines.iter().filter(stops).flat_map(|line| &line.resources).collect();
        for resource in stopped {
            let kind = self.document.resources.get(resource).map(|spec| spec.kind);
            if !kind.is_some_and(ResourceKind::is_service) {
                continue;
            }
            let mut step = self.step(StepKind::Action(Action::Activate), Some(resource), self.route.from);
            step.stage = UNDO_STAGE;
            step.after.clone_from(&opened);
            step.timeout = default::timeout(Action::Activate, None);
            self.push(step);
        }
    }

    fn line(&mut self, line: &Line) {
        // Implied above; a document may spell it out.
        if line.action == Action::Fence {
            return;
        }
        let (cluster, detached) = match line.action {
            // What concerns the old side is tried and never awaited: it may be gone.
            Action::Quiesce | Action::Deactivate | Action::Rejoin => (self.route.from, true),
            Action::Fence
            | Action::CatchUp
            | Action::Promote
            | Action::Activate
            | Action::Redirect
            | Action::Verify
            | Action::Restore
            | Action::Run
            | Action::Approve
            | Action::Wait => (self.route.to, false),
        };
        let mut ids: BTreeMap<ResourceId, StepId> = BTreeMap::new();
        let resources: Vec<Option<&ResourceId>> =
            if line.resources.is_empty() { vec![None] } else { line.resources.iter().map(Some).collect() };
        for resource in resources {
            if line.action == Action::Promote && resource.is_some_and(|id| self.is_unpromotable(id)) {
                continue;
            }
            let mut step = self.step(StepKind::Action(line.action), resource, cluster);
            step.timeout = line.timeout;
            if line.action == Action::Promote && !self.fenced_first {
                // A promise to the old side may hold it for D; that is no failure of the promotion.
                step.timeout = step.timeout.plus(self.document.automation.bound.fail_over_after);
            }
            step.retries = line.retries;
            step.on_failure = line.on_failure;
            step.detached = detached;
            step.command.clone_from(&line.command);
            step.question.clone_from(&line.question);
            step.duration = line.duration.unwrap_or(Span::ZERO);
            let id = self.push(step);
            if let Some(resource) = resource {
                ids.insert(resource.clone(), id);
            }
        }
        self.order_within_line(&ids);
        self.stage += 1;
    }

    /// A database that some unconfirmed terms do not guard may still be written by the old primary.
    fn is_unpromotable(&self, resource: &ResourceId) -> bool {
        let guarded = self.document.resources.get(resource).is_some_and(|spec| spec.kind.is_guarded());
        guarded && !self.route.promotable.contains(resource)
    }

    /// `after`, as far as both stand in the same line; through resources that do not stand in it, too.
    fn order_within_line(&mut self, ids: &BTreeMap<ResourceId, StepId>) {
        for (resource, id) in ids {
            let mut first = BTreeSet::new();
            let mut open: Vec<&ResourceId> =
                self.document.resources.get(resource).into_iter().flat_map(|spec| &spec.after).collect();
            let mut seen = BTreeSet::new();
            while let Some(before) = open.pop() {
                if !seen.insert(before) {
                    continue;
                }
                match ids.get(before) {
                    Some(step) => {
                        first.insert(*step);
                    }
                    None => open.extend(self.document.resources.get(before).into_iter().flat_map(|spec| &spec.after)),
                }
            }
            if let Some(step) = self.steps.iter_mut().find(|step| step.id == *id) {
                step.after = first.into_iter().collect();
            }
        }
    }
}
