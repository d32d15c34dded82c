//! Terms: what a primary's agent counts by (safety.md, "Terms").

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::application::OnCoordinatorLoss;
use crate::id::{ClusterId, CoordinatorId, Epoch, InstallationId, ResourceId, Token};
use crate::lease::TimeBound;
use crate::planted::{self, Mistake};
use crate::time::Span;

/// One numbered set of terms. Every listed agent stores the newest, standbys too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The entry that made them.
    pub number: Token,
    /// The epoch they belong to.
    pub epoch: Epoch,
    /// The primary of that epoch.
    pub primary: ClusterId,
    /// D and F.
    pub bound: TimeBound,
    /// The listed clusters.
    pub clusters: BTreeMap<ClusterId, Listed>,
    /// What is fenced.
    pub guarded: BTreeSet<ResourceId>,
    /// The voters whose grants count; in joint consensus both sets.
    pub voters: Vec<BTreeSet<CoordinatorId>>,
    /// What the agent does without a majority of grants.
    pub on_coordinator_loss: OnCoordinatorLoss,
    /// The application or everything is paused: the agent does not fence, nothing is decided.
    pub paused: bool,
}

/// A listed cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its registered installation; none if no agent has registered yet.
    pub installation: Option<InstallationId>,
    /// No candidate, and asked for no promise.
    pub excluded: bool,
}

/// What must hold over all terms from the last confirmed to the newest (safety.md, "Unconfirmed terms"): the
/// primary's agent may be cut off and count by any of them.
pub struct Window<'a> {
    terms: &'a [Terms],
}

impl<'a> Window<'a> {
    /// The terms from the last confirmed to the newest.
    #[must_use]
    pub const fn new(terms: &'a [Terms]) -> Self {
        Self { terms }
    }

    /// The largest D counts.
    #[must_use]
    pub fn fail_over_after(&self) -> Span {
        self.terms.iter().map(|terms| terms.bound.fail_over_after).max().unwrap_or(Span::ZERO)
    }

    /// True if the observers are a majority of every set of voters in every terms.
    #[must_use]
    pub fn is_majority(&self, observers: &BTreeSet<CoordinatorId>) -> bool {
        !self.terms.is_empty() && self.terms.iter().all(|terms| is_majority(&terms.voters, observers))
    }

    /// True if the cluster is listed with this installation and not excluded in every terms.
    #[must_use]
    pub fn lists(&self, cluster: &ClusterId, installation: &InstallationId) -> bool {
        !self.terms.is_empty()
            && self.terms.iter().all(|terms| {
                terms
                    .clusters
                    .get(cluster)
                    .is_some_and(|listed| !listed.excluded && listed.installation.as_ref() == Some(installation))
            })
    }

    /// Resources that are guarded in every terms; only these may be promoted.
    #[must_use]
    pub fn guarded_in_each(&self) -> BTreeSet<ResourceId> {
        let mut sets = self.terms.iter().map(|terms| &terms.guarded);
        let first = sets.next().cloned().unwrap_or_default();
        sets.fold(first, |all, one| all.intersection(one).cloned().collect())
    }

    /// Resources that are guarded in any terms; a fence must cover all of these.
    #[must_use]
    pub fn guarded_in_any(&self) -> BTreeSet<ResourceId> {
        self.terms.iter().flat_map(|terms| terms.guarded.iter().cloned()).collect()
    }

    /// True if any of the terms is paused: then nothing is decided as `Lost`.
    #[must_use]
    pub fn any_paused(&self) -> bool {
        self.terms.iter().any(|terms| terms.paused)
    }
}

/// True if the observers are a majority of each of the sets. No set: no majority.
#[must_use]
pub fn is_majority(voters: &[BTreeSet<CoordinatorId>], observers: &BTreeSet<CoordinatorId>) -> bool {
    let counts = |set: &BTreeSet<CoordinatorId>| if planted::makes(Mistake::DecideByOneVote) { 1 } else { set.len() };
    !voters.is_empty() && voters.iter().all(|set| set.intersection(observers).count() * 2 > counts(set))
}
