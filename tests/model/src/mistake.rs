//! The known mistakes: each breaks one rule of the protocol, and the model must find what follows.

use super::protocol::{EPOCHS_RISE, GOES_ON, ONE_WRITER};

/// What is done wrong. Each variant is asked for at one place of the model, but for one: that a target opens without a
/// lease is two things, that the agent opens it and that its guard does not close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// A restarted coordinator reads up to the commit index, and commits no start of its own.
    ReadBarrier,
    /// The state machine takes a vote that it has held before.
    DoubledVote,
    /// The state machine drops what it has seen, and not what was overtaken.
    WithdrawalOvertakesVote,
    /// A coordinator votes anew while its withdrawal is in flight, and takes that for its last word.
    RevoteBeforeWithdrawal,
    /// A decision rests on any majority of votes that stands when it is applied.
    DecideWithoutNamedVotes,
    /// An agent keeps a promise for the asker's T.
    PromiseForLease,
    /// An agent keeps a promise for its own D, though the asker's is larger.
    PromisersOwnBound,
    /// What was granted or promised before a larger T was stored runs for the larger one.
    GrantStretched,
    /// A decision is judged by the terms that it names, though newer ones exist.
    DecideAcrossTerms,
    /// The newest D counts, confirmed or not.
    LoweredBound,
    /// A target need be listed in the newest terms only.
    ClusterAdded,
    /// What the newest terms guard is promoted.
    ResourceAdded,
    /// Only the last confirmed and the newest terms count.
    IntermediateTerms,
    /// A majority of the newest voters is enough.
    VotersChanged,
    /// A pause ends when it is lifted, not when that is confirmed.
    Unpause,
    /// A target opens without the lease of its epoch.
    PromotionWithoutLease,
    /// A self-fence counts as the success of a commanded one.
    SelfFenceConfirms,
    /// A fence is undone after the decision that rests on it.
    UndoAfterDecide,
    /// A database comes up as it went down.
    RebootOpen,
    /// A coordinator that lost its disk takes part again under its id.
    WipedCoordinator,
    /// After a restoration numbers go on from the backup's index.
    IndexReused,
    /// An agent that restarts within a boot counts its heartbeats from the beginning.
    IncarnationPerBoot,
    /// The first terms are named before the lease, the guard and the marker.
    NamedBeforeGuarding,
    /// An agent that fenced itself still signs that it lives.
    SigningWhileFenced,
    /// The state machine compares a vote's number with those on other clusters.
    SharedNumbers,
    /// A grant counts from its arrival.
    CountedFromReceipt,

    /// T = D − F: no margin for clocks. Shows that clocks matter here.
    NoMargin,
    /// Steps are taken in the order of their arrival. Shows that late messages matter here.
    TokensIgnored,
    /// The guard does not fence for an agent that died.
    NoGuard,
    /// An answer that names a higher epoch is ignored, and what it asks for is done.
    HigherEpochIgnored,
    /// New terms are named while the lease rests on what was granted under older ones.
    NamedByOldRight,
    /// A restored group grants before it has recovered.
    GrantsWhileRecovering,
    /// After a restoration the primary is whom the backup names, above the epoch that was reported.
    BackupsPrimary,
    /// A restored group recovers by the first report, and waits for no other.
    RecoveredEarly,
}

impl Mistake {
    /// Those that safety.md lists, in its order; then those that show that the model can see at all.
    pub const ALL: [Self; 34] = [
        Self::ReadBarrier,
        Self::DoubledVote,
        Self::WithdrawalOvertakesVote,
        Self::RevoteBeforeWithdrawal,
        Self::DecideWithoutNamedVotes,
        Self::PromiseForLease,
        Self::PromisersOwnBound,
        Self::GrantStretched,
        Self::DecideAcrossTerms,
        Self::LoweredBound,
        Self::ClusterAdded,
        Self::ResourceAdded,
        Self::IntermediateTerms,
        Self::VotersChanged,
        Self::Unpause,
        Self::PromotionWithoutLease,
        Self::SelfFenceConfirms,
        Self::UndoAfterDecide,
        Self::RebootOpen,
        Self::WipedCoordinator,
        Self::IndexReused,
        Self::IncarnationPerBoot,
        Self::NamedBeforeGuarding,
        Self::SigningWhileFenced,
        Self::SharedNumbers,
        Self::CountedFromReceipt,
        Self::NoMargin,
        Self::TokensIgnored,
        Self::NoGuard,
        Self::HigherEpochIgnored,
        Self::NamedByOldRight,
        Self::GrantsWhileRecovering,
        Self::BackupsPrimary,
        Self::RecoveredEarly,
    ];

    /// In words, for a terminal and for the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadBarrier => "read-barrier-instead-of-the-start-entry",
            Self::DoubledVote => "doubled-vote",
            Self::WithdrawalOvertakesVote => "withdrawal-overtakes-vote",
            Self::RevoteBeforeWithdrawal => "revote-before-the-withdrawal-is-applied",
            Self::DecideWithoutNamedVotes => "decide-without-named-votes",
            Self::PromiseForLease => "promise-for-t-instead-of-d",
            Self::PromisersOwnBound => "promisers-own-d",
            Self::GrantStretched => "grant-stretched-by-a-new-t",
            Self::DecideAcrossTerms => "decide-across-a-change-of-terms",
            Self::LoweredBound => "lowered-d-unconfirmed",
            Self::ClusterAdded => "cluster-added-unconfirmed",
            Self::ResourceAdded => "resource-added-unconfirmed",
            Self::IntermediateTerms => "intermediate-terms-ignored",
            Self::VotersChanged => "voters-changed-unconfirmed",
            Self::Unpause => "unpause-unconfirmed",
            Self::PromotionWithoutLease => "promotion-without-a-lease",
            Self::SelfFenceConfirms => "self-fence-taken-as-confirmation",
            Self::UndoAfterDecide => "undo-after-the-decide",
            Self::RebootOpen => "reboot-of-an-unfenced-primary",
            Self::WipedCoordinator => "wiped-coordinator-under-its-old-id",
            Self::IndexReused => "index-reused-after-a-restore",
            Self::IncarnationPerBoot => "incarnation-per-boot",
            Self::NamedBeforeGuarding => "terms-named-before-guarding",
            Self::SigningWhileFenced => "signing-while-fenced",
            Self::SharedNumbers => "vote-numbers-shared-by-clusters",
            Self::CountedFromReceipt => "grants-counted-from-receipt",
            Self::NoMargin => "no-margin-for-clocks",
            Self::TokensIgnored => "tokens-ignored",
            Self::NoGuard => "no-guard",
            Self::HigherEpochIgnored => "higher-epoch-ignored",
            Self::NamedByOldRight => "named-by-the-right-of-older-terms",
            Self::GrantsWhileRecovering => "grants-while-recovering",
            Self::BackupsPrimary => "backups-primary-stays",
            Self::RecoveredEarly => "recovered-without-all-reports",
        }
    }

    /// A proposal that has no effect may have one later. Without a mistake what was overtaken stays so.
    #[must_use]
    pub const fn revives(self) -> bool {
        matches!(
            self,
            Self::DoubledVote
                | Self::WithdrawalOvertakesVote
                | Self::DecideWithoutNamedVotes
                | Self::DecideAcrossTerms
                | Self::SharedNumbers
        )
    }

    /// The promise that it breaks.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::WipedCoordinator | Self::HigherEpochIgnored => EPOCHS_RISE,
            Self::SigningWhileFenced | Self::SharedNumbers => GOES_ON,
            Self::ReadBarrier
            | Self::DoubledVote
            | Self::WithdrawalOvertakesVote
            | Self::RevoteBeforeWithdrawal
            | Self::DecideWithoutNamedVotes
            | Self::PromiseForLease
            | Self::PromisersOwnBound
            | Self::GrantStretched
            | Self::DecideAcrossTerms
            | Self::LoweredBound
            | Self::ClusterAdded
            | Self::ResourceAdded
            | Self::IntermediateTerms
            | Self::VotersChanged
            | Self::Unpause
            | Self::PromotionWithoutLease
            | Self::SelfFenceConfirms
            | Self::UndoAfterDecide
            | Self::RebootOpen
            | Self::IndexReused
            | Self::IncarnationPerBoot
            | Self::NamedBeforeGuarding
            | Self::CountedFromReceipt
            | Self::NoMargin
            | Self::TokensIgnored
            | Self::NoGuard
            | Self::NamedByOldRight
            | Self::GrantsWhileRecovering
            | Self::BackupsPrimary
            | Self::RecoveredEarly => ONE_WRITER,
        }
    }

    /// The world in which it is found.
    #[must_use]
    pub const fn world(self) -> &'static str {
        match self {
            Self::ReadBarrier | Self::DoubledVote | Self::WithdrawalOvertakesVote | Self::RevoteBeforeWithdrawal => {
                "votes"
            }
            Self::DecideWithoutNamedVotes => "decisions",
            Self::IncarnationPerBoot | Self::CountedFromReceipt | Self::NoMargin | Self::NoGuard => "lease",
            Self::DecideAcrossTerms => "across",
            Self::LoweredBound | Self::IntermediateTerms => "lowered",
            Self::VotersChanged | Self::NamedByOldRight => "voters",
            Self::Unpause => "pause",
            Self::ResourceAdded => "resources",
            Self::NamedBeforeGuarding => "adoption",
            Self::PromiseForLease | Self::PromisersOwnBound | Self::GrantStretched => "promises",
            Self::ClusterAdded => "clusters",
            Self::SigningWhileFenced => "evidence",
            Self::SharedNumbers => "numbers",
            Self::PromotionWithoutLease => "promotion",
            Self::SelfFenceConfirms | Self::UndoAfterDecide | Self::TokensIgnored | Self::HigherEpochIgnored => {
                "fences"
            }
            Self::RebootOpen => "machines",
            Self::WipedCoordinator => "disks",
            Self::IndexReused => "restoration",
            Self::GrantsWhileRecovering | Self::BackupsPrimary | Self::RecoveredEarly => "backup",
        }
    }
}
