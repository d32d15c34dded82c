//! Known mistakes that can be put back into the code, to show that the simulation sees them. Without the feature
//! `planted`, which no build of the product has, every one is constantly absent and its site compiles to nothing.

/// The mistakes, each with its one site; where a rule is looked at when an entry is proposed and when it is applied, with both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mistake {
    /// A grant runs for D instead of T.
    LeaseForWholeBound,
    /// One grant is a majority.
    LeaseByOneGrant,
    /// A grant counts from its receipt instead of the sending of the heartbeat.
    GrantFromReceipt,
    /// The guard does not act at its deadline.
    GuardAsleep,
    /// A guard that is gone is not started a second time.
    GuardNotStarted,
    /// A step that opens writes does not wait for the lease.
    OpenWithoutLease,
    /// A promotion does not wait for a promise that was given.
    PromiseForgotten,
    /// A promise is held for no time.
    PromiseTooShort,
    /// Without coordinators nobody is asked for promises.
    FailsafeUnasked,
    /// A commanded fence that was not confirmed is reported as done, with the position that the database has then.
    FenceAssumed,
    /// A self-fence is never lifted.
    FenceNeverLifted,
    /// A database that came up closed is not opened again.
    ClosedStaysClosed,
    /// A coordinator that fell silent is not dialled again.
    NeverRedialled,
    /// A coordinator grants while its own vote is out.
    GrantBesideVote,
    /// A coordinator does not note when it granted, and claims too much silence.
    GrantNotNoted,
    /// A coordinator grants again before its withdrawal is applied.
    WithdrawalUnapplied,
    /// A coordinator never withdraws a vote.
    NeverWithdrawn,
    /// A decision does not wait for D.
    DecideAtOnce,
    /// One vote is a majority.
    DecideByOneVote,
    /// The epoch does not rise with the decision.
    EpochStays,
    /// The old primary is not excluded by the decision.
    OldSideEligible,
    /// The name does not follow the primary.
    AnswerStays,
    /// A step is dispatched when its intent is applied, and never again: not in time, to an agent that connects, or by a new
    /// leader.
    DispatchedOnce,
    /// Raft acknowledges entries that are not on the disk.
    LogNotWritten,
    /// A disk that was copied back is taken.
    CopiedDiskTaken,
    /// A restored group goes on from the epoch of its backup, whatever the agents have seen.
    EpochOfBackup,
    /// A database that somebody opened by hand is told, and left open.
    RogueLeft,
    /// A pause holds no failover.
    PauseIgnored,
    /// A rejoin rewinds though nobody gave the word.
    RewindUnasked,
}

impl Mistake {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::LeaseForWholeBound,
        Self::LeaseByOneGrant,
        Self::GrantFromReceipt,
        Self::GuardAsleep,
        Self::GuardNotStarted,
        Self::OpenWithoutLease,
        Self::PromiseForgotten,
        Self::PromiseTooShort,
        Self::FailsafeUnasked,
        Self::FenceAssumed,
        Self::FenceNeverLifted,
        Self::ClosedStaysClosed,
        Self::NeverRedialled,
        Self::GrantBesideVote,
        Self::GrantNotNoted,
        Self::WithdrawalUnapplied,
        Self::NeverWithdrawn,
        Self::DecideAtOnce,
        Self::DecideByOneVote,
        Self::EpochStays,
        Self::OldSideEligible,
        Self::AnswerStays,
        Self::DispatchedOnce,
        Self::LogNotWritten,
        Self::CopiedDiskTaken,
        Self::EpochOfBackup,
        Self::RogueLeft,
        Self::PauseIgnored,
        Self::RewindUnasked,
    ];
}

/// True if this thread makes the mistake.
#[cfg(not(feature = "planted"))]
#[must_use]
pub const fn makes(_mistake: Mistake) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use thread::{makes, plant};

#[cfg(feature = "planted")]
mod thread {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// From now on this thread makes this mistake, and no other.
    pub fn plant(mistake: Option<Mistake>) {
        PLANTED.set(mistake);
    }

    /// True if this thread makes the mistake.
    #[must_use]
    pub fn makes(mistake: Mistake) -> bool {
        PLANTED.get() == Some(mistake)
    }
}
