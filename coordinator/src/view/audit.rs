//! The audit, as it is shown.

use regent_core::state::AuditRecord;
use serde::Serialize;

use super::rfc3339;

/// One line of the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditView {
    /// Log index of the entry it tells of.
    pub index: u64,
    /// Wall clock of its proposer.
    pub at: String,
    /// Stable code, e.g. `decided`.
    pub event: String,
    /// Concerning which application, if one.
    pub application: Option<String>,
    /// Concerning which run, if one.
    pub run: Option<u64>,
    /// Who.
    pub actor: String,
    /// For humans.
    pub detail: String,
}

impl AuditView {
    pub(super) fn build(record: &AuditRecord) -> Self {
        Self {
            index: record.index.0,
            at: rfc3339(record.at),
            event: record.event.clone(),
            application: record.application.as_ref().map(ToString::to_string),
            run: record.run.map(|run| run.0),
            actor: record.actor.clone(),
            detail: record.detail.clone(),
        }
    }
}
