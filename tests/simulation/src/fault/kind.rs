//! The kinds of faults, to count which of them a set of seeds has really played.

use super::Fault;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident,)+) => {
        /// What sort of thing went wrong, without its place and time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)+
        }

        impl Kind {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$kind,)+];
        }
    };
}

kinds! {
    /// Nothing passes in either direction.
    PartitionBothWays,
    /// One direction is lost, the other passes.
    PartitionOneWay,
    /// See [`Fault::Flapping`].
    Flapping,
    /// See [`Fault::Severed`].
    Severed,
    /// See [`Fault::Link`].
    Link,
    /// See [`Fault::Slow`].
    Slow,
    /// See [`Fault::SlowAnswers`].
    SlowAnswers,
    /// See [`Fault::Kill`].
    Kill,
    /// See [`Fault::Stop`].
    Stop,
    /// See [`Fault::PowerOff`].
    PowerOff,
    /// See [`Fault::Crash`].
    Crash,
    /// See [`Fault::PromotedByHand`].
    PromotedByHand,
    /// See [`Fault::Sluggish`].
    Sluggish,
    /// See [`Fault::SlowOpening`].
    SlowOpening,
    /// See [`Fault::WallClock`].
    WallClock,
    /// See [`Fault::Transfer`].
    Transfer,
    /// See [`Fault::DiskLoss`].
    DiskLoss,
    /// See [`Fault::OldDisk`].
    OldDisk,
    /// See [`Fault::Backup`].
    Backup,
    /// See [`Fault::Restored`].
    Restored,
    /// See [`Fault::Paused`].
    Paused,
    /// See [`Fault::Switchover`].
    Switchover,
    /// See [`Fault::Rejoin`].
    Rejoin,
    /// See [`Fault::Replace`].
    Replace,
}

impl Fault {
    /// Of which kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Partition { outward: true, inward: true, .. } => Kind::PartitionBothWays,
            Self::Partition { .. } => Kind::PartitionOneWay,
            Self::Flapping { .. } => Kind::Flapping,
            Self::Severed { .. } => Kind::Severed,
            Self::Link { .. } => Kind::Link,
            Self::Slow { .. } => Kind::Slow,
            Self::SlowAnswers { .. } => Kind::SlowAnswers,
            Self::Kill { .. } => Kind::Kill,
            Self::Stop { .. } => Kind::Stop,
            Self::PowerOff { .. } => Kind::PowerOff,
            Self::Crash { .. } => Kind::Crash,
            Self::PromotedByHand { .. } => Kind::PromotedByHand,
            Self::Sluggish { .. } => Kind::Sluggish,
            Self::SlowOpening { .. } => Kind::SlowOpening,
            Self::WallClock { .. } => Kind::WallClock,
            Self::Transfer { .. } => Kind::Transfer,
            Self::DiskLoss { .. } => Kind::DiskLoss,
            Self::OldDisk { .. } => Kind::OldDisk,
            Self::Backup => Kind::Backup,
            Self::Restored => Kind::Restored,
            Self::Paused => Kind::Paused,
            Self::Switchover { .. } => Kind::Switchover,
            Self::Rejoin { .. } => Kind::Rejoin,
            Self::Replace { .. } => Kind::Replace,
        }
    }
}
