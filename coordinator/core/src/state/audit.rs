//! The audit: what was decided, voted, refused and commanded, by whom.

use serde::{Deserialize, Serialize};

use crate::id::{ApplicationId, LogIndex, RunId};
use crate::time::Timestamp;

/// How many records the state keeps.
pub const AUDIT_LIMIT: usize = 10_000;

/// One line of the audit. Written by `apply` only, never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The entry it tells of.
    pub index: LogIndex,
    /// Wall clock of its proposer.
    pub at: Timestamp,
    /// Stable code, e.g. `decided`.
    pub event: String,
    /// Concerning which application, if one.
    pub application: Option<ApplicationId>,
    /// Concerning which run, if one.
    pub run: Option<RunId>,
    /// Who: a coordinator, an agent or an operator.
    pub actor: String,
    /// For humans.
    pub detail: String,
}
