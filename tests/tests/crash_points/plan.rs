//! The points, from the plans of the core for the document of the world.

use std::collections::BTreeMap;
use std::fmt;

use regent_core::application::Action;
use regent_core::entry::Cause;
use regent_core::id::ClusterId;
use regent_core::plan::{self, Begins};
use regent_core::run::{Step, StepKind, UNDO_STAGE};
use regent_core::switchover::Purpose;
use regent_core::time::Span;
use regent_deploy::world::REGIONS;
use regent_tests::gate::Place;
use regent_tests::rehearsal::{protected_application, quiesced_application};
use regent_tests::stage::{CENTRAL, WEST};

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By plan.
    Switchover,
    /// The same where the runbook stops the service first: of that step.
    Quiesced,
    /// A switchover where the new side does not catch up.
    Undo,
    /// From a region whose PostgreSQL died.
    Failover,
    /// From a region that died.
    Loss,
    /// Of the side that was left.
    Rejoin,
    /// With copies, beside a primary that serves.
    Drill,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Switchover, Self::Quiesced, Self::Undo, Self::Failover, Self::Loss, Self::Rejoin, Self::Drill];

    fn steps(self) -> Vec<Step> {
        let known = match self {
            Self::Quiesced => quiesced_application(),
            Self::Switchover | Self::Undo | Self::Failover | Self::Loss | Self::Rejoin | Self::Drill => {
                protected_application()
            }
        };
        let known = known.expect("a protected application");
        let cluster = |region: usize| ClusterId::new(REGIONS[region].1.expect("it has one")).expect("a name");
        let (from, to) = (cluster(WEST), cluster(CENTRAL));
        let of = |cause: Cause, begins: Begins| {
            plan::of(&known, &cause, &to, begins, &BTreeMap::new()).expect("there is a primary")
        };
        let switched = || {
            let (by, max_write_outage, purpose) = (String::new(), Span::ZERO, Purpose::Switchover);
            of(Cause::Switchover { by, max_write_outage, purpose }, Begins::Before)
        };
        let undoes = |step: &Step| step.stage == UNDO_STAGE;
        match self {
            Self::Switchover | Self::Quiesced => switched(),
            Self::Undo => {
                return switched().into_iter().filter(undoes).collect();
            }
            Self::Failover => of(Cause::AgentUnreachable, Begins::Before),
            // Nobody is there whose fence could be begun.
            Self::Loss => {
                let steps = of(Cause::RegionLost, Begins::Decided).into_iter();
                return steps.filter(|step| step.cluster == to).collect();
            }
            Self::Rejoin => plan::rejoin(&known.document, &from, true),
            Self::Drill => plan::drill(&known.document, &to),
        }
        .into_iter()
        .filter(|step| !undoes(step))
        .collect()
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Leader,
    Agent,
    Both,
    /// Another one leads, and commands the step again.
    Nobody,
}

/// One point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) kind: Kind,
    /// Its number in the plan.
    pub(crate) step: u64,
    /// The acting agent is the old side's.
    pub(crate) at_old_side: bool,
    pub(crate) place: Place,
    pub(crate) victim: Victim,
}

impl Point {
    /// The agent is killed at another step than the rejoin of this database, which may go on side by side with it.
    pub(crate) fn may_break_off(self, resource: &str) -> bool {
        let (steps, Some(held)) = (self.kind.steps(), self.held()) else { return false };
        let rejoins = |step: &&Step| {
            let of_it = step.resource.as_ref().is_some_and(|own| own.as_str() == resource);
            step.kind == StepKind::Action(Action::Rejoin) && of_it
        };
        // The next stage does not wait for one that is detached.
        let beside = |step: &Step| step.id != held.id && step.cluster == held.cluster && step.stage <= held.stage;
        let dies = matches!(self.victim, Victim::Agent | Victim::Both);
        dies && steps.iter().find(rejoins).is_some_and(beside)
    }

    /// The agent is killed when it has run a listed command and has not stored that. No driver can read in reality that it
    /// was run, so it is run once more.
    pub(crate) fn repeats_a_command(self) -> bool {
        let dies = self.place == Place::After && matches!(self.victim, Victim::Agent | Victim::Both);
        dies && self.held().is_some_and(|step| step.kind == StepKind::Action(Action::Run))
    }

    /// The step that is held.
    fn held(self) -> Option<Step> {
        self.kind.steps().into_iter().find(|step| step.id.0 == self.step)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = format!("{:?}", self.kind).to_lowercase();
        write!(f, "{kind} {} {:?} {:?}", self.step, self.place, self.victim)
    }
}

/// All of a kind, in the order of the plan.
pub(crate) fn points(kind: Kind) -> Vec<Point> {
    let west = REGIONS[WEST].1.unwrap_or_default();
    // The decision is no agent's: before it is after what comes before, and after it is before what follows. A wait is
    // nobody's: the rehearsal ends the leader at each of its moments.
    let acts = |step: &Step| !matches!(step.kind, StepKind::Decide | StepKind::Action(Action::Wait | Action::Approve));
    // All the others are those of a switchover.
    let own = |step: &Step| kind != Kind::Quiesced || step.kind == StepKind::Action(Action::Quiesce);
    let steps = kind.steps().into_iter().filter(acts).filter(own);
    let of_step = |step: Step| {
        let at = move |(place, victim)| Point {
            kind,
            step: step.id.0,
            at_old_side: step.cluster.as_str() == west,
            place,
            victim,
        };
        // Nobody waits for the outcome of what is detached.
        let ways = ways().into_iter().filter(move |(place, _)| !(step.detached && *place == Place::Outcome));
        ways.map(at)
    };
    steps.flat_map(of_step).collect()
}

fn ways() -> Vec<(Place, Victim)> {
    let victims = |place: Place| match place {
        // The agent has not heard of it, or has said what it did: to kill it alone is as good as at the next place.
        Place::Intent | Place::Outcome => vec![Victim::Leader, Victim::Both],
        Place::Before | Place::After => vec![Victim::Leader, Victim::Agent, Victim::Both, Victim::Nobody],
    };
    Place::ALL.into_iter().flat_map(|place| victims(place).into_iter().map(move |victim| (place, victim))).collect()
}
