//! From a document to the immutable steps of a run. The order is the document's; only what safety implies is added.
//!
//! ```text
//!  after Lost:    (fence old side, never awaited)  ║ lines of the runbook …
//!  by Fenced:     fence old side → Decide          ║ lines of the runbook …      (undo: unfence)
//!  switchover:    shorten TTL → wait TTL → quiesce … → fence old side → catchUp → Decide ║ lines … → rejoin
//!                                                                    (undo: TTL, unfence, activate)
//!                                     point of no return
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::application::{Action, Application, Line, Manner, OnFailure, ResourceKind, default};
use crate::entry::{Cause, Gap};
use crate::id::{ClusterId, ResourceId, StepId};
use crate::run::{Step, StepKind, UNDO_STAGE};
use crate::state::ApplicationState;
use crate::terms::Window;
use crate::time::Span;

mod digest;
mod drill;
mod forecast;
mod names;
mod planned;
mod shown;
mod spared;

pub use digest::{Digest, DigestError};
pub use drill::{DRILL, drill};
pub(crate) use forecast::keeps_out;
pub use forecast::{Estimate, Forecast, forecast};
pub(crate) use planned::planned;
pub(crate) use shown::assessed;
pub use shown::{Asked, Shown, failover as show_failover, ordered as show_ordered, switchover as show_switchover};
pub(crate) use spared::outdated;

/// The runbook of a switchover.
pub const SWITCHOVER: &str = "switchover";

/// Attempts at fencing a side that talks, before a human is asked. Each is bounded by the fence budget.
const FENCE_RETRIES: u32 = 5;

/// How a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// At the present epoch, before the decision: what it fences or catches up is the ground of that.
    Before,
    /// With its decision.
    Decided,
}

/// From where to where.
pub(crate) struct Route<'a> {
    /// The old primary.
    pub(crate) from: &'a ClusterId,
    /// The new one.
    pub(crate) to: &'a ClusterId,
    /// Guarded resources that all unconfirmed terms agree on; no other may be promoted.
    pub(crate) promotable: &'a BTreeSet<ResourceId>,
    /// Other standbys, which follow the new primary from then on.
    pub(crate) followers: &'a [ClusterId],
}

/// The plan of a change of primary. What is shown and what is carried out both come from here: the same state and
/// arguments always give the same plan. None before there is a primary. What is known of the new side's databases decides
/// which of them a failover restores; nothing else of the plan goes by it.
#[must_use]
pub fn of(
    known: &ApplicationState,
    cause: &Cause,
    to: &ClusterId,
    begins: Begins,
    gaps: &BTreeMap<ResourceId, Gap>,
) -> Option<Vec<Step>> {
    let promotable = Window::new(&known.terms).guarded_in_each();
    let from = known.primary.as_ref()?;
    let followers = followers(known, from, to);
    let route = Route { from, to, promotable: &promotable, followers: &followers };
    Some(if cause.is_planned() {
        switchover(&known.document, &route)
    } else {
        failover(&known.document, &route, begins == Begins::Before, gaps)
    })
}

/// The listed standbys beside the two, but those in quarantine.
fn followers(known: &ApplicationState, from: &ClusterId, to: &ClusterId) -> Vec<ClusterId> {
    let others = known.document.clusters.iter().filter(|cluster| *cluster != from && *cluster != to);
    others.filter(|cluster| !known.excluded.contains_key(*cluster)).cloned().collect()
}

/// Plans a failover.
fn failover(
    document: &Application,
    route: &Route<'_>,
    fenced_first: bool,
    gaps: &BTreeMap<ResourceId, Gap>,
) -> Vec<Step> {
    let spared = spared::of(document, gaps);
    let mut planning = Planning { document, route, fenced_first, spared, steps: Vec::new(), stage: 0 };
    planning.fence(fenced_first);
    if fenced_first {
        planning.decide();
    }
    let lines = document.runbooks.get("failover").map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    for line in lines.iter().filter(|line| line.when != Some(Manner::Graceful)) {
        if let Some(line) = planning.without_spared(line) {
            planning.line(&line);
        }
    }
    planning.follow();
    if fenced_first {
        planning.undo();
    }
    planning.steps
}

/// Plans a switchover, by the lines of its own runbook: those up to the last `catchUp` come before the point of no
/// return, at the old epoch, with an undo. The fence is implied before the first `catchUp`, and before the first step that
/// keeps writes out a wait: whoever has asked for the name before the run began may hold the old side's address for the TTL,
/// and would go there all through the outage. From the beginning of the run on it is answered without one; where another
/// server answers, its TTL is shortened before the wait (`names`).
fn switchover(document: &Application, route: &Route<'_>) -> Vec<Step> {
    let spared = BTreeSet::new();
    let mut planning = Planning { document, route, fenced_first: true, spared, steps: Vec::new(), stage: 0 };
    let (lines, last) = switchover_lines(document);
    // Without a database nothing has to catch up: the new side begins where it is told to open.
    // A command cannot be undone either.
    let opens =
        |line: &&Line| matches!(line.action, Action::Promote | Action::Activate | Action::Redirect | Action::Run);
    let turning = last.map(|last| last + 1).or_else(|| lines.iter().position(opens)).unwrap_or(lines.len());
    let (before, after) = lines.split_at(turning);
    let fence = before.iter().position(|line| line.action == Action::CatchUp).unwrap_or(before.len());
    let closes = |line: &&Line| matches!(line.action, Action::Quiesce | Action::Deactivate);
    let closing = before.iter().position(closes).unwrap_or(before.len());
    // Where nothing keeps anybody out, an old answer leads to nobody's harm.
    let awaited: &[&Line] = if closing == before.len() && document.guarded().is_empty() { &[] } else { &lines };
    for (index, line) in before.iter().enumerate() {
        if index == closing.min(fence) {
            planning.expire(awaited);
        }
        if index == fence {
            planning.fence(true);
        }
        planning.line(line);
    }
    if fence == before.len() {
        if closing == before.len() {
            planning.expire(awaited);
        }
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
    planning.follow();
    planning.undo();
    planning.undo_services(before);
    planning.undo_names(awaited);
    planning.steps
}

/// The lines that a switchover goes by, and where the last `catchUp` stands among them: all up to it comes before the point of
/// no return.
pub(crate) fn switchover_lines(document: &Application) -> (Vec<&Line>, Option<usize>) {
    let lines = document.runbooks.get(SWITCHOVER).map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    let lines: Vec<&Line> = lines.iter().filter(|line| line.when != Some(Manner::Ungraceful)).collect();
    let last = lines.iter().rposition(|line| line.action == Action::CatchUp);
    (lines, last)
}

/// Plans the end of a recovery: what the primary had open is opened again at the new epoch, and names and services are
/// where the failover's runbook would have them. Nothing is restored, run or asked: nobody takes over.
#[must_use]
pub(crate) fn recovery(document: &Application, route: &Route<'_>) -> Vec<Step> {
    let spared = BTreeSet::new();
    let mut planning = Planning { document, route, fenced_first: false, spared, steps: Vec::new(), stage: 0 };
    for resource in document.guarded() {
        let mut step = planning.step(StepKind::Action(Action::Promote), Some(&resource), route.to);
        step.timeout = default::timeout(Action::Promote, None).plus(document.automation.bound.fail_over_after);
        step.retries = default::retries(Action::Promote);
        planning.push(step);
    }
    planning.stage += 1;
    let lines = document.runbooks.get("failover").map(|runbook| runbook.lines.as_slice()).unwrap_or_default();
    let repeated = |line: &&Line| {
        let serves = matches!(line.action, Action::Activate | Action::Redirect | Action::Verify);
        serves && line.when != Some(Manner::Graceful)
    };
    for line in lines.iter().filter(repeated) {
        planning.line(line);
    }
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
    /// Databases that are promoted as they are, though the runbook would restore them.
    spared: BTreeSet<&'a ResourceId>,
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

    /// Nothing is touched meanwhile.
    fn wait(&mut self, duration: Span) {
        if duration == Span::ZERO {
            return;
        }
        let mut step = self.step(StepKind::Action(Action::Wait), None, self.route.to);
        step.timeout = default::timeout(Action::Wait, Some(duration));
        step.retries = default::retries(Action::Wait);
        step.duration = duration;
        self.push(step);
        self.stage += 1;
    }

    fn decide(&mut self) {
        let step = self.step(StepKind::Decide, None, self.route.to);
        self.push(step);
        self.stage += 1;
    }

    /// The standbys that were no target follow the new primary: tried, and never awaited. Nothing is rewound for it; one
    /// whose history parts from the new primary's says so, and is quarantined.
    fn follow(&mut self) {
        for cluster in self.route.followers {
            for resource in self.document.guarded() {
                let mut step = self.step(StepKind::Action(Action::Rejoin), Some(&resource), cluster);
                step.timeout = default::timeout(Action::Rejoin, None);
                step.retries = default::retries(Action::Rejoin);
                step.on_failure = OnFailure::Continue;
                step.detached = true;
                self.push(step);
            }
        }
        self.stage += 1;
    }

    fn undo(&mut self) {
        for resource in self.document.guarded() {
            let mut step = self.step(StepKind::Unfence, Some(&resource), self.route.from);
            step.stage = UNDO_STAGE;
            self.push(step);
        }
    }

    /// What was stopped on the old side starts again, once its databases are open: each after what it depends on.
    fn undo_services(&mut self, lines: &[&Line]) {
        let opened: Vec<StepId> =
            self.steps.iter().filter(|step| step.stage == UNDO_STAGE).map(|step| step.id).collect();
        let stopped: BTreeSet<&ResourceId> =
            lines.iter().filter(|line| stops(line.action)).flat_map(|line| &line.resources).collect();
        let mut ids = BTreeMap::new();
        for resource in stopped {
            let kind = self.document.resources.get(resource).map(|spec| spec.kind);
            if !kind.is_some_and(ResourceKind::is_service) {
                continue;
            }
            let mut step = self.step(StepKind::Action(Action::Activate), Some(resource), self.route.from);
            step.stage = UNDO_STAGE;
            step.after.clone_from(&opened);
            step.timeout = default::timeout(Action::Activate, None);
            ids.insert(resource.clone(), self.push(step));
        }
        self.order(Action::Activate, &ids);
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
        self.order(line.action, &ids);
        self.stage += 1;
    }

    /// A database that some unconfirmed terms do not guard may still be written by the old primary.
    fn is_unpromotable(&self, resource: &ResourceId) -> bool {
        let guarded = self.document.resources.get(resource).is_some_and(|spec| spec.kind.is_guarded());
        guarded && !self.route.promotable.contains(resource)
    }

    /// `after`, as far as both are among these; through resources that are not, too. What is stopped goes the other way:
    /// what depends on others stops before them.
    fn order(&mut self, action: Action, ids: &BTreeMap<ResourceId, StepId>) {
        for (resource, id) in ids {
            for before in self.depends_on(resource, ids) {
                let (first, then) = if stops(action) { (*id, before) } else { (before, *id) };
                if let Some(step) = self.steps.iter_mut().find(|step| step.id == then) {
                    step.after.push(first);
                }
            }
        }
    }

    fn depends_on(&self, resource: &ResourceId, ids: &BTreeMap<ResourceId, StepId>) -> BTreeSet<StepId> {
        let after = |of: &ResourceId| self.document.resources.get(of).into_iter().flat_map(|spec| &spec.after);
        let (mut first, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<&ResourceId> = after(resource).collect();
        while let Some(before) = open.pop() {
            if !seen.insert(before) {
                continue;
            }
            match ids.get(before) {
                Some(step) => _ = first.insert(*step),
                None => open.extend(after(before)),
            }
        }
        first
    }
}

/// Takes service away: in the order opposite to that in which it is given.
const fn stops(action: Action) -> bool {
    match action {
        Action::Quiesce | Action::Deactivate => true,
        Action::Fence
        | Action::CatchUp
        | Action::Promote
        | Action::Activate
        | Action::Redirect
        | Action::Verify
        | Action::Rejoin
        | Action::Restore
        | Action::Run
        | Action::Approve
        | Action::Wait => false,
    }
}
