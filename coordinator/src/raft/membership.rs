//! Who belongs to the group: one member at a time, through joint consensus (safety.md, "Terms").

use std::collections::BTreeSet;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{BasicNode, ChangeMembers};
use regent_core::id::CoordinatorId;

use super::types::{Raft, Types};

/// Why the membership did not change.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader changes it.
    #[error("{}", match leader {
        Some(leader) => format!("this coordinator does not lead: ask coordinator {leader}"),
        None => "there is no leader: try again when one is elected".to_owned(),
    })]
    NotLeader {
        /// Who leads, if known.
        leader: Option<CoordinatorId>,
    },
    /// It must be known to the group before it may vote.
    #[error("coordinator {0} is not a learner: add it first")]
    NotALearner(CoordinatorId),
    /// It is already so.
    #[error("coordinator {0} is already a voter")]
    AlreadyVoter(CoordinatorId),
    /// It does not vote.
    #[error("coordinator {0} is not a voter")]
    NotAVoter(CoordinatorId),
    /// Raft refuses.
    #[error("the membership does not change: {0}")]
    Refused(String),
    /// This node cannot write its log.
    #[error("storage failed: {0}")]
    Storage(String),
}

/// Changes of the membership, at the leader.
#[derive(Clone)]
pub struct Membership {
    pub(super) raft: Raft,
}

impl Membership {
    /// Voters, and learners that do not vote yet, as this node knows them.
    #[must_use]
    pub fn members(&self) -> (BTreeSet<CoordinatorId>, BTreeSet<CoordinatorId>) {
        let voters = self.raft.voter_ids().map(CoordinatorId).collect();
        (voters, self.raft.learner_ids().map(CoordinatorId).collect())
    }

    /// Adds a coordinator that does not vote, and waits until it has caught up.
    ///
    /// # Errors
    /// If this node does not lead, or cannot commit it.
    pub async fn add_learner(&self, id: CoordinatorId, address: &str) -> Result<(), MembershipError> {
        self.raft.add_learner(id.0, BasicNode::new(address), true).await.map(|_| ()).map_err(explain)
    }

    /// As [`Self::add_learner`], without waiting until it has caught up.
    ///
    /// # Errors
    /// As there.
    pub async fn begin_learner(&self, id: CoordinatorId, address: &str) -> Result<(), MembershipError> {
        self.raft.add_learner(id.0, BasicNode::new(address), false).await.map(|_| ()).map_err(explain)
    }

    /// Gives a learner a vote; for one that has it in a joint membership, ends that. Harmless if it is so already.
    ///
    /// # Errors
    /// If this node does not lead, or cannot commit it.
    pub async fn make_voter(&self, id: CoordinatorId) -> Result<(), MembershipError> {
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0]))).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// If it is no learner, this node does not lead, or cannot commit it.
    pub async fn add_voter(&self, id: CoordinatorId) -> Result<(), MembershipError> {
        let (voters, learners) = self.members();
        if voters.contains(&id) {
            return Err(MembershipError::AlreadyVoter(id));
        }
        if !learners.contains(&id) {
            return Err(MembershipError::NotALearner(id));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0]))).await
    }

    /// Takes a coordinator out of the group, whether it votes or not.
    ///
    /// # Errors
    /// If it does not belong to it, this node does not lead, or cannot commit it.
    pub async fn remove(&self, id: CoordinatorId) -> Result<(), MembershipError> {
        let (voters, learners) = self.members();
        if voters.contains(&id) {
            return self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0]))).await;
        }
        if learners.contains(&id) {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))).await;
        }
        Err(MembershipError::NotAVoter(id))
    }

    /// Asks another voter to take over. It has when the leadership says so.
    ///
    /// # Errors
    /// If this node does not lead, or the other one does not vote.
    pub async fn transfer_leader(&self, to: CoordinatorId) -> Result<(), MembershipError> {
        if !self.members().0.contains(&to) {
            return Err(MembershipError::NotAVoter(to));
        }
        if !self.raft.is_leader() {
            let leader = self.raft.current_leader().await.map(CoordinatorId);
            return Err(MembershipError::NotLeader { leader });
        }
        self.raft.trigger().transfer_leader(to.0).await.map_err(|fatal| MembershipError::Storage(fatal.to_string()))
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), MembershipError> {
        self.raft.change_membership(change, false).await.map(|_| ()).map_err(explain)
    }
}

fn explain(error: RaftError<Types, ClientWriteError<Types>>) -> MembershipError {
    match error {
        RaftError::Fatal(fatal) => MembershipError::Storage(fatal.to_string()),
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            MembershipError::NotLeader { leader: forward.leader_id.map(CoordinatorId) }
        }
        RaftError::APIError(other) => MembershipError::Refused(other.to_string()),
    }
}
