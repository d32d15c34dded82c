//! What agents find that changes seldom: versions, settings, slots, backups. It decides nothing; readiness is made of it.

mod findings;

use std::collections::BTreeMap;

use crate::id::ClusterId;
use crate::time::{Moment, Span, Timestamp};

pub use self::findings::{AuthorityFacts, DnsFacts, Findings, Listed, ResolverFacts};

/// What an agent says of a service whose state it has no command to ask for.
pub const NO_STATUS_COMMAND: &str = "no status command is listed in agent.yaml";

/// Of one resource in one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When they were looked for, by this coordinator's clock.
    pub at: Moment,
    /// Between two looks.
    pub interval: Span,
    /// Of PostgreSQL.
    pub postgres: Option<PostgresFacts>,
    /// Of Redis.
    pub redis: Option<RedisFacts>,
    /// Of its backups, if agent.yaml names any.
    pub backup: Option<BackupFacts>,
    /// Whether what a rejoin needs of the other clusters answers; what was said if not.
    pub reaches: BTreeMap<ClusterId, Result<(), String>>,
    /// Why its settings could not be looked at; empty if they could, or the agent does not say.
    pub problem: String,
    /// What was found out by trying.
    pub findings: Findings,
}

impl Facts {
    /// Older than three intervals they are unknown.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.at) <= self.interval.times(3)
    }
}

/// Of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PostgresFacts {
    /// As `server_version_num`, e.g. 150006.
    pub version: u64,
    /// E.g. `replica`.
    pub wal_level: String,
    /// How many may stream.
    pub max_wal_senders: u64,
    /// How many do.
    pub wal_senders: u64,
    /// WAL that is kept in any case.
    pub wal_keep_bytes: u64,
    /// `wal_log_hints` or checksums are on.
    pub rewindable: bool,
    /// A standby answers.
    pub hot_standby: bool,
    /// A commit waits for a standby.
    pub synchronous: bool,
    /// Replication slots.
    pub slots: Vec<SlotFacts>,
    /// How much WAL a slot may hold back.
    pub slot_limit: SlotLimit,
    /// `max_wal_size`: about how much is written between two checkpoints; 0 if unknown.
    pub max_wal_bytes: u64,
    /// The WAL file whose archiving failed last, and was not made up for; empty if there is none.
    pub archive_fails: String,
    /// Settings that both sides should share.
    pub settings: BTreeMap<String, String>,
    /// How long a quiesce lets transactions end, by agent.yaml; none: the agent does not say.
    pub grace: Option<Span>,
}

/// `max_slot_wal_keep_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotLimit {
    /// The agent does not say.
    #[default]
    Unknown,
    /// There is none.
    Unlimited,
    /// In bytes. Beyond it the WAL goes, and the slot is lost.
    Bytes(u64),
}

/// A replication slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotFacts {
    /// Its name.
    pub name: String,
    /// Somebody reads from it.
    pub active: bool,
    /// WAL that is kept for it; none: unknown.
    pub retained_bytes: Option<u64>,
    /// The WAL that it needs is gone.
    pub lost: bool,
}

/// Of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisFacts {
    /// E.g. `7.0.15`.
    pub version: String,
    /// Settings that both sides should share.
    pub settings: BTreeMap<String, String>,
}

/// Of the backups of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BackupFacts {
    /// The newest; none if there is none.
    pub newest: Option<NewestBackup>,
    /// The newest must not be older.
    pub max_age: Span,
    /// Of those before; none if there are too few to tell.
    pub median_bytes: Option<u64>,
    /// Why backups cannot be looked for; empty if they can.
    pub problem: String,
}

/// The newest backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewestBackup {
    /// Its path.
    pub name: String,
    /// How old it was when it was looked at.
    pub age: Span,
    /// Its size.
    pub bytes: u64,
    /// Whether it is whole, or why not; none while it has not been read to its end.
    pub whole: Option<Result<(), String>>,
}

/// Between two words of an agent on its machine; a coordinator says more.
const NODE_INTERVAL: Span = Span::from_secs(60);

/// Until when a coordinator's certificates are good, as it loaded them; none: unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Papers {
    /// Its own.
    pub certificate_until: Option<Timestamp>,
    /// The authority's that it trusts.
    pub authority_until: Option<Timestamp>,
}

/// Of the machine of an agent or a coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFacts {
    /// When it was told.
    pub at: Moment,
    /// How far its wall clock was ahead of this coordinator's; below zero: behind. The way here counts as behind.
    pub ahead_ms: i64,
    /// When its certificate expires; none: unknown.
    pub certificate_until: Option<Timestamp>,
}

impl NodeFacts {
    /// Older than three intervals they are unknown.
    #[must_use]
    pub fn is_fresh(&self, now: Moment) -> bool {
        now.since(self.at) <= NODE_INTERVAL.times(3)
    }
}
