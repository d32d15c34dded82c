//! Why a run begins, what was known then, and on what a change of primary rests.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::application::default;
use crate::id::{LogIndex, ResourceId, RunId};
use crate::switchover::Purpose;
use crate::time::{Span, Timestamp};

/// Why a run began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// The region is lost.
    RegionLost,
    /// A guarded resource failed while its agent talks.
    ResourceFailed {
        /// Which.
        resource: ResourceId,
        /// What was seen.
        detail: String,
    },
    /// The agent reaches some coordinator but not a majority, and its database lives.
    AgentUnreachable,
    /// The agent talks and has fenced its primaries itself: what would let it serve again does not come.
    SelfFenced,
    /// An operator's planned switchover.
    Switchover {
        /// Who.
        by: String,
        /// Without a decision so long after writes were first kept out, everything is undone.
        #[serde(default = "default::max_write_outage")]
        max_write_outage: Span,
        /// A switchover, the way back, or a rollback.
        #[serde(default)]
        purpose: Purpose,
    },
    /// An operator's failover.
    Forced {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// An operator takes a cluster back as a standby. It moves no primary.
    Rejoin {
        /// Who.
        by: String,
        /// A fresh copy is allowed.
        reclone: bool,
    },
    /// The group was restored from a backup: the primary that the agents had stored is opened again.
    Recovered,
    /// A failover is rehearsed in isolation. It moves no primary.
    Drill {
        /// Who.
        by: String,
    },
}

impl Cause {
    /// Nobody asked for it: it counts for the cool-down and for the blast radius.
    #[must_use]
    pub const fn is_automatic(&self) -> bool {
        match self {
            Self::RegionLost | Self::ResourceFailed { .. } | Self::AgentUnreachable | Self::SelfFenced => true,
            Self::Switchover { .. }
            | Self::Forced { .. }
            | Self::Rejoin { .. }
            | Self::Recovered
            | Self::Drill { .. } => false,
        }
    }

    /// It moves a primary that serves, on somebody's wish: nothing is lost, and until its decision it can be undone.
    #[must_use]
    pub const fn is_planned(&self) -> bool {
        match self {
            Self::Switchover { .. } => true,
            Self::RegionLost
            | Self::ResourceFailed { .. }
            | Self::AgentUnreachable
            | Self::SelfFenced
            | Self::Forced { .. }
            | Self::Rejoin { .. }
            | Self::Recovered
            | Self::Drill { .. } => false,
        }
    }

    /// The run moves the primary, so service is away for a while and writes may be lost.
    #[must_use]
    pub const fn moves_primary(&self) -> bool {
        match self {
            Self::RegionLost
            | Self::ResourceFailed { .. }
            | Self::AgentUnreachable
            | Self::SelfFenced
            | Self::Switchover { .. }
            | Self::Forced { .. } => true,
            Self::Rejoin { .. } | Self::Recovered | Self::Drill { .. } => false,
        }
    }
}

/// What the proposer knew: for reports and audit, never a ground. The plan of a failover goes by what the new side has: it
/// restores no database of which a position is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Finding {
    /// Sentences, most important first.
    pub reasons: Vec<String>,
    /// When the primary was last heard, by the proposer's wall clock; none if never.
    pub last_contact: Option<Timestamp>,
    /// Of each database with a position: what may be lost.
    pub gaps: BTreeMap<ResourceId, Gap>,
}

/// The distance between the last known position of the primary and the candidate's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Last position that the primary reported, in bytes; none if unknown.
    pub primary: Option<u64>,
    /// How old that was at the decision.
    pub primary_age: Option<Span>,
    /// The candidate's position; none if unknown.
    pub candidate: Option<u64>,
    /// How far behind the candidate said it was, in time; none if unknown.
    pub lag: Option<Span>,
    /// Position in the engine's own writing, primary's and candidate's; or that the candidate has nothing but a backup.
    pub text: String,
}

/// On what a change of primary rests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// A majority of voters lost contact and D has passed since.
    Lost {
        /// The log index of each vote.
        votes: BTreeSet<LogIndex>,
    },
    /// Commanded fences with committed success cover every guarded resource.
    Fenced {
        /// The run whose fences these are.
        run: RunId,
    },
    /// The same, plus catch-up to the final position.
    Switched {
        /// The run whose fences and catch-ups these are.
        run: RunId,
    },
    /// Break-glass.
    Forced {
        /// Who.
        operator: String,
        /// The second person.
        second: Option<String>,
        /// That the primary is off.
        attestation: String,
        /// Why.
        reason: String,
    },
    /// After a restoration: what all agents had stored. It changes no primary.
    Recovered,
}
