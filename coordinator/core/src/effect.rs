//! What applied entries ask of the shell. Closed; the shell decides nothing.

use serde::{Deserialize, Serialize};

use crate::id::{ApplicationId, ClusterId, CoordinatorId, LogIndex, ResourceId, RunId, StepId};

/// Something that an applied entry changed and that the shell must act on or show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// New terms: every coordinator pushes them down its agents' streams.
    TermsChanged(ApplicationId),
    /// A vote stands; the local time of this moment counts for the decision.
    VoteStands {
        /// On which cluster.
        cluster: ClusterId,
        /// Whose.
        observer: CoordinatorId,
        /// Its name.
        index: LogIndex,
    },
    /// A vote stands no more.
    VoteWithdrawn {
        /// On which cluster.
        cluster: ClusterId,
        /// Whose.
        observer: CoordinatorId,
    },
    /// A DNS answer changed.
    AnswerChanged(ApplicationId, ResourceId),
    /// An intent is committed: the leader dispatches it.
    Dispatch(RunId, StepId),
    /// A run began, moved or ended.
    RunChanged(RunId),
    /// A coordinator has joined, moved or left: agents are told whom to dial.
    CoordinatorsChanged,
    /// An audit record was written.
    Audited,
}
