//! The quorum lease of one application, as its agent sees it: pure, no I/O, time as an argument.
//!
//! ```text
//!  terms ── StoreTerms ──► stored ──► a majority grants ──► ArmGuard ──► WriteGuarded ──► held ──► NameTerms
//!                                                              ▲                           │
//!                             LiftSelfFence ◄── held again ────┘          lapse, void ─► FenceSelf ─► FenceHard
//! ```
//!
//! Every method takes in one fact and returns the exact list of commands that follow from all facts. What holds:
//! - The lease never runs beyond the end of the rights that a majority of V granted, or all others promised, and
//!   never beyond what the guard has acknowledged: without the guard nothing is extended.
//! - A heartbeat's grant counts from the agent's own send time, for the smallest T stored since.
//! - Until the first lease the agent touches nothing. From the write of journal and marker on the cluster is guarded
//!   for good, and only then the terms are named. Terms that guard more are named once that is written of all of it.
//! - The moment the lease does not hold, the fence begins; a higher epoch voids it at once.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::id::{ApplicationId, ClusterId, CoordinatorId, Epoch, InstallationId, ResourceId, Token};
use regent_core::terms::Terms;
use regent_core::time::Span;
use serde::{Deserialize, Serialize};

pub mod clock;
pub mod facts;
mod right;
mod settle;

#[cfg(test)]
mod doubled_tests;
#[cfg(test)]
mod fence_tests;
#[cfg(test)]
mod guarding_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use clock::{Deadline, Reading};
pub use right::{Right, majority};

/// How many heartbeats in flight are remembered for one coordinator; older ones can no longer be granted.
const IN_FLIGHT: usize = 64;

/// What the shell must do. Closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Send a heartbeat to every coordinator now.
    Heartbeat,
    /// Store these terms with fsync, then call [`Lease::terms_stored`].
    StoreTerms(Box<Terms>),
    /// Name these terms in every heartbeat from now on.
    NameTerms(Token),
    /// Let the guard count by this; it answers with [`Lease::guard_armed`].
    ArmGuard(Arm),
    /// The gentle fence begins: the guard waits until then, once.
    MoveGuard {
        /// Lapse + F/2.
        until: Deadline,
    },
    /// The fence is confirmed, or nothing of ours can be open: the guard forgets the application.
    DisarmGuard,
    /// Write journal and marker of these guarded resources with fsync, then call [`Lease::guarded_written`].
    WriteGuarded {
        /// The epoch that leads from here on.
        epoch: Epoch,
        /// All that the terms guard; under a running lease, those that newer terms added.
        resources: BTreeSet<ResourceId>,
    },
    /// Ask these clusters' agents to refuse promotions.
    AskPromises(Question),
    /// Fence every guarded resource gently, then call [`Lease::fenced`].
    FenceSelf {
        /// Not confirmed by then: hard.
        confirm_by: Deadline,
    },
    /// End every guarded resource hard, then call [`Lease::fenced`].
    FenceHard,
    /// Open again what the self-fence closed, then call [`Lease::lifted`].
    LiftSelfFence,
    /// Tell a human.
    Alert(Alert),
}

/// What a human should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// The wall clock jumped forward: grants are void.
    ClockForward,
    /// The wall clock jumped backward.
    ClockBackward,
    /// A hard fence failed.
    FenceUnconfirmed,
}

/// What the guard counts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arm {
    /// Epoch of the lease.
    pub epoch: Epoch,
    /// The terms it was calculated by.
    pub terms: Token,
    /// Lease end; zero in a pause without a lease.
    pub until: Deadline,
    /// How long the lease ran from the sending that carries it.
    pub span: Span,
    /// In a pause the guard does not fence.
    pub paused: bool,
    /// That this cluster leads the epoch is not stored yet: the guard does not fence, and no lease is held by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub early: bool,
}

/// A question for failsafe promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Names the question; answers come back under it.
    pub number: u64,
    /// Refuse promotions above this epoch.
    pub epoch: Epoch,
    /// Newest terms stored.
    pub terms: Token,
    /// The asker's D.
    pub fail_over_after: Span,
    /// Whose agents are asked.
    pub clusters: BTreeSet<ClusterId>,
}

/// What the journal says at the start of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remembered {
    /// Newest terms stored.
    pub terms: Option<Terms>,
    /// Highest epoch seen in any form.
    pub seen: Epoch,
    /// Journal and marker are written.
    pub guarded: bool,
    /// Resources of which they are.
    pub marked: BTreeSet<ResourceId>,
    /// The highest epoch for which this cluster has held a lease; 0 for none.
    pub led: Epoch,
}

/// What the guard says at the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardWord {
    /// It knows nothing of the application.
    Nothing,
    /// It counts by this.
    Armed(Arm),
    /// It counts, and a gentle fence has begun; or it is fencing.
    Fencing(Arm),
    /// It has fenced hard at this epoch, and nothing was opened since.
    Fired(Arm),
}

/// Fence of the application by the agent itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Nothing was opened under a lease here.
    None,
    /// Something may be open: without a lease it is fenced.
    Open,
    /// A fence runs.
    Closing {
        /// Epoch of the lease that lapsed.
        epoch: Epoch,
        /// Not confirmed by then: hard.
        confirm_by: Deadline,
        /// The hard fence runs.
        hard: bool,
    },
    /// Confirmed.
    Closed {
        /// Epoch of the lease that lapsed.
        epoch: Epoch,
    },
    /// Even the hard fence failed; it is repeated.
    Unconfirmed {
        /// Epoch of the lease that lapsed.
        epoch: Epoch,
        /// When the next attempt begins.
        retry: Deadline,
        /// An attempt runs.
        running: bool,
    },
    /// Being opened again.
    Lifting {
        /// When the next attempt begins; none while one runs.
        retry: Option<Deadline>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Guard {
    alive: bool,
    /// Sent and not acknowledged, and when.
    asked: Option<(Arm, Reading)>,
    /// Acknowledged.
    armed: Option<Arm>,
    /// False after it was lost: what it had acknowledged is said again before more rests on it.
    confirmed: bool,
}

/// The lease of one application.
#[derive(Debug, Clone)]
pub struct Lease {
    application: ApplicationId,
    cluster: ClusterId,
    installation: InstallationId,

    terms: Option<Terms>,
    storing: Option<Terms>,
    /// They could not be stored: when that is tried again.
    store_again: Option<Deadline>,
    seen: Epoch,
    named: Option<Token>,
    /// The terms named last were paused; or those found stored at the start.
    pause_in_force: bool,
    guarded: bool,
    /// Marked and closed at rest.
    marked: BTreeSet<ResourceId>,
    led: Epoch,
    writing: bool,
    /// Stored that this cluster leads, and no lease has been held since.
    fresh: bool,

    sent: BTreeMap<CoordinatorId, BTreeMap<u64, Right>>,
    grants: BTreeMap<CoordinatorId, Right>,
    asked: BTreeMap<u64, Right>,
    promised: BTreeMap<ClusterId, Right>,
    /// With no other cluster listed there is nobody to ask: the question to no one is answered by asking.
    alone: Option<Right>,
    /// When a coordinator last refused this process because another one is registered; see [`Lease::doubled`].
    doubled: Option<Reading>,
    /// The guard's running deadline found at the start, or what is left after a jump of the wall clock.
    carried: Option<Right>,
    /// Since a jump no fresh majority has come.
    ask_at_once: bool,
    next_question: u64,
    last_asked: Option<Reading>,

    guard: Guard,
    fence: Fence,
    /// Where the lease last ended or will end.
    last_end: Option<Deadline>,
    /// A commanded fence or quiesce is stored, or on its way.
    commanded: bool,
    /// Commanded fences of everything stand, each seen confirmed.
    closed: bool,
    /// A step that opens runs.
    opening: bool,
    /// One ran under the lease while a fence of this agent's own was under way or stood.
    touched: bool,
    /// Resources that this agent has a driver for; none while nobody has said.
    here: Option<BTreeSet<ResourceId>>,
    healthy: bool,
    round_trip: Span,
}

impl Lease {
    /// From what journal and guard remember. Call [`Lease::tick`] next: it may fence at once.
    #[must_use]
    pub fn new(
        application: ApplicationId,
        cluster: ClusterId,
        installation: InstallationId,
        remembered: Remembered,
        word: GuardWord,
        now: Reading,
    ) -> Self {
        let seen = remembered.terms.as_ref().map_or(remembered.seen, |terms| terms.epoch.max(remembered.seen));
        let mut lease = Self {
            application,
            cluster,
            installation,
            pause_in_force: remembered.terms.as_ref().is_some_and(|terms| terms.paused),
            terms: remembered.terms,
            storing: None,
            store_again: None,
            seen,
            named: None,
            guarded: remembered.guarded,
            marked: remembered.marked,
            led: remembered.led,
            writing: false,
            fresh: false,
            sent: BTreeMap::new(),
            grants: BTreeMap::new(),
            asked: BTreeMap::new(),
            promised: BTreeMap::new(),
            alone: None,
            doubled: None,
            carried: None,
            ask_at_once: false,
            next_question: 1,
            last_asked: None,
            guard: Guard::default(),
            fence: Fence::None,
            last_end: None,
            commanded: false,
            closed: false,
            opening: false,
            touched: false,
            here: None,
            healthy: false,
            round_trip: Span::ZERO,
        };
        lease.take_over(word, now);
        lease
    }

    /// Within the boot the guard's deadline *is* the running lease of its epoch for an agent that restarts
    /// (safety.md, "Fences that last"); anything else that may be open without a lease is fenced at once.
    fn take_over(&mut self, word: GuardWord, now: Reading) {
        let leads = self.is_primary() && self.led == self.epoch();
        self.fence = match word {
            // No lease was ever held by it. Where the guard counts in earnest and the journal knows of no lease, the
            // journal is another one: what may be open is fenced below.
            GuardWord::Armed(arm) if arm.early && !leads => {
                self.guard.armed = Some(arm);
                Fence::None
            }
            GuardWord::Armed(arm) if arm.early => {
                self.guard.armed = Some(arm);
                self.fresh = true;
                Fence::None
            }
            GuardWord::Armed(arm) if leads && arm.epoch == self.epoch() && !arm.until.passed(now) => {
                self.guard.armed = Some(arm);
                let mut carried = Right { from: arm.until.minus(arm.span).as_reading(), span: arm.span };
                // Terms may have been stored and the process have died before the guard heard of them.
                carried.cap(self.terms.as_ref().map_or(Span::ZERO, |terms| terms.bound.lease()));
                self.carried = Some(carried);
                // The process before may have died between a fence and its lifting: opening again is idempotent.
                Fence::Lifting { retry: Some(now.after(Span::ZERO)) }
            }
            GuardWord::Armed(arm) if leads && arm.epoch == self.epoch() && arm.paused => {
                self.guard.armed = Some(arm);
                Fence::Open
            }
            GuardWord::Armed(_) | GuardWord::Fencing(_) => Fence::Open,
            GuardWord::Fired(arm) => Fence::Closed { epoch: arm.epoch },
            GuardWord::Nothing if leads && self.guarded => Fence::Open,
            GuardWord::Nothing => Fence::None,
        };
    }

    /// Guarded by the stored terms, and not known to this agent: it can neither be fenced nor be seen fenced.
    #[must_use]
    pub fn missing(&self) -> BTreeSet<ResourceId> {
        let (Some(here), Some(terms)) = (&self.here, &self.terms) else { return BTreeSet::new() };
        terms.guarded.difference(here).cloned().collect()
    }

    /// Guarded by the stored terms, and not yet marked and closed at rest: a start of it would come up open.
    #[must_use]
    pub fn unmarked(&self) -> BTreeSet<ResourceId> {
        let Some(terms) = &self.terms else { return BTreeSet::new() };
        terms.guarded.difference(&self.marked).cloned().collect()
    }

    /// The application.
    #[must_use]
    pub const fn application(&self) -> &ApplicationId {
        &self.application
    }

    /// Newest terms stored.
    #[must_use]
    pub const fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref()
    }

    /// Epoch of the newest terms stored; 0 without terms.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.terms.as_ref().map_or(Epoch(0), |terms| terms.epoch)
    }

    /// Highest epoch seen anywhere: whoever has seen a higher one refuses (S2).
    #[must_use]
    pub const fn seen(&self) -> Epoch {
        self.seen
    }

    /// Newest terms named.
    #[must_use]
    pub const fn named(&self) -> Option<Token> {
        self.named
    }

    /// Journal and marker are written.
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// The guard answers.
    #[must_use]
    pub const fn guard_alive(&self) -> bool {
        self.guard.alive
    }

    /// The fence by the agent itself.
    #[must_use]
    pub const fn fence(&self) -> Fence {
        self.fence
    }

    /// True if the newest stored terms name this cluster and installation, and no higher epoch was seen.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| {
            terms.epoch == self.seen
                && terms.primary == self.cluster
                && terms
                    .clusters
                    .get(&self.cluster)
                    .and_then(|listed| listed.installation.as_ref())
                    .is_none_or(|installation| *installation == self.installation)
        })
    }

    /// Where the lease ends; none if there is none or it has lapsed.
    #[must_use]
    pub fn end(&self, now: Reading) -> Option<Deadline> {
        self.rights_end(now).filter(|end| !end.minus(self.lead()).passed(now))
    }

    /// Epoch and end of a lease that steps may rely on: it runs, and the guard answers.
    #[must_use]
    pub fn running(&self, now: Reading) -> Option<(Epoch, Deadline)> {
        self.end(now).filter(|_| self.guard.alive).map(|end| (self.epoch(), end.minus(self.lead())))
    }

    /// True while the lease runs and nothing commands or carries out a fence: what was opened stays open.
    #[must_use]
    pub fn keeps_open(&self, now: Reading) -> bool {
        let opens = matches!(self.fence, Fence::Open | Fence::Lifting { .. });
        opens && !self.commanded && self.running(now).is_some()
    }

    /// The lease runs on by failsafe promises alone.
    #[must_use]
    pub fn by_promises(&self, now: Reading) -> bool {
        self.end(now).is_some() && self.grants_end().is_none_or(|end| end.passed(now))
    }

    /// True if nothing of ours is open by the agent's own fence.
    #[must_use]
    pub const fn is_self_fenced(&self) -> bool {
        matches!(self.fence, Fence::Closing { .. } | Fence::Closed { .. } | Fence::Unconfirmed { .. })
    }
}
