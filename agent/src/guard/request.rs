//! What agent and guard say to each other. One JSON document a line.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::id::{ApplicationId, ResourceId};
use serde::{Deserialize, Serialize};

use crate::guard::Watched;
use crate::lease::{Arm, Deadline};

/// What an agent asks of the guard. One JSON document a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// Nothing: shows that the guard answers.
    Status {},
    /// Count by this.
    Arm {
        /// Application.
        application: ApplicationId,
        /// What to end.
        resources: BTreeSet<ResourceId>,
        /// The lease.
        arm: Arm,
    },
    /// The gentle fence has begun.
    Move {
        /// Application.
        application: ApplicationId,
        /// New deadline.
        until: Deadline,
    },
    /// Forget the application.
    Disarm {
        /// Application.
        application: ApplicationId,
    },
    /// End, if nothing is armed.
    End {},
}

/// The guard's answer to every request: everything it counts by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reply {
    /// By application.
    pub entries: BTreeMap<ApplicationId, Watched>,
    /// Why the request was refused: this guard could not end these, for lack of a driver, or of a process that is found
    /// and may be ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<ApplicationId, BTreeSet<ResourceId>>,
}
