//! Between the wire and the agent's own types.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::OnCoordinatorLoss;
use regent_core::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, InstallationId, LogIndex, NameError, ResourceId, Token,
};
use regent_core::lease::TimeBound;
use regent_core::terms::{Listed, Terms};
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;

use crate::journal::Peer;

/// Terms as they came down, with what the agent needs to reach the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Of which application.
    pub application: ApplicationId,
    /// The terms.
    pub terms: Terms,
    /// Where the listed agents are.
    pub peers: BTreeMap<ClusterId, Peer>,
}

/// Why a message cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A name breaks the rules.
    #[error("a name in it breaks the rules for names")]
    Name(#[from] NameError),
    /// Something is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
}

/// A token.
#[must_use]
pub const fn token(token: &wire::Token) -> Token {
    Token { restoration: token.restoration, index: LogIndex(token.index) }
}

/// A token for the wire.
#[must_use]
pub const fn wire_token(token: Token) -> wire::Token {
    wire::Token { restoration: token.restoration, index: token.index.0 }
}

/// Terms.
///
/// # Errors
/// If a name breaks the rules, or the number, the primary, a sensible bound or the voters are missing.
pub fn terms(update: &wire::TermsUpdate) -> Result<Offered, WireError> {
    let mut clusters = BTreeMap::new();
    let mut peers = BTreeMap::new();
    for listed in &update.clusters {
        let cluster = ClusterId::new(&listed.cluster)?;
        let installation = (!listed.installation.is_empty()).then(|| InstallationId(listed.installation.clone()));
        clusters.insert(cluster.clone(), Listed { installation, excluded: listed.excluded });
        let peer = Peer { address: listed.peer_address.clone(), witness_key: listed.witness_key.clone() };
        peers.insert(cluster, peer);
    }
    let bound = TimeBound {
        fail_over_after: Span::from_millis(update.fail_over_after_ms),
        fence_budget: Span::from_millis(update.fence_budget_ms),
    };
    if bound.lease() == Span::ZERO || bound.fence_budget == Span::ZERO {
        return Err(WireError::Missing("a lease within failoverAfter"));
    }
    let number = update.number.as_ref().map(token).ok_or(WireError::Missing("the number"))?;
    let guarded = update.guarded.iter().map(|name| ResourceId::new(name)).collect::<Result<BTreeSet<_>, _>>()?;
    let set = |set: &wire::VoterSet| set.coordinators.iter().copied().map(CoordinatorId).collect();
    let voters: Vec<BTreeSet<_>> = update.voters.iter().map(set).collect();
    // No grant could ever make a lease of them; better said than waited for.
    if voters.is_empty() || voters.iter().any(BTreeSet::is_empty) {
        return Err(WireError::Missing("the set of voters"));
    }
    let on_coordinator_loss = if update.failsafe { OnCoordinatorLoss::Failsafe } else { OnCoordinatorLoss::Fence };
    let terms = Terms {
        number,
        epoch: Epoch(update.epoch),
        primary: ClusterId::new(&update.primary)?,
        bound,
        clusters,
        guarded,
        voters,
        on_coordinator_loss,
        paused: update.paused,
    };
    Ok(Offered { application: ApplicationId::new(&update.application)?, terms, peers })
}

/// Stored terms for the wire: what a restored group goes by.
#[must_use]
pub fn wire_terms(application: &ApplicationId, terms: &Terms) -> wire::TermsUpdate {
    let cluster = |(cluster, listed): (&ClusterId, &Listed)| wire::ListedCluster {
        cluster: cluster.to_string(),
        installation: listed.installation.as_ref().map(ToString::to_string).unwrap_or_default(),
        excluded: listed.excluded,
        ..wire::ListedCluster::default()
    };
    let voters = |set: &BTreeSet<CoordinatorId>| wire::VoterSet { coordinators: set.iter().map(|id| id.0).collect() };
    wire::TermsUpdate {
        application: application.to_string(),
        number: Some(wire_token(terms.number)),
        epoch: terms.epoch.0,
        primary: terms.primary.to_string(),
        fail_over_after_ms: terms.bound.fail_over_after.millis(),
        fence_budget_ms: terms.bound.fence_budget.millis(),
        clusters: terms.clusters.iter().map(cluster).collect(),
        guarded: terms.guarded.iter().map(ToString::to_string).collect(),
        failsafe: terms.on_coordinator_loss == OnCoordinatorLoss::Failsafe,
        paused: terms.paused,
        voters: terms.voters.iter().map(voters).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(voters: &[&[u64]]) -> wire::TermsUpdate {
        wire::TermsUpdate {
            application: "shop".to_owned(),
            number: Some(wire::Token { restoration: 0, index: 7 }),
            epoch: 1,
            primary: "eu".to_owned(),
            fail_over_after_ms: 10_000,
            fence_budget_ms: 1_000,
            voters: voters.iter().map(|set| wire::VoterSet { coordinators: set.to_vec() }).collect(),
            ..wire::TermsUpdate::default()
        }
    }

    #[test]
    fn both_sets_of_a_joint_consensus_arrive() {
        let offered = terms(&update(&[&[1, 2, 3], &[2, 3, 4]])).unwrap();
        assert_eq!(offered.terms.voters, [[1, 2, 3], [2, 3, 4]].map(|set| set.map(CoordinatorId).into()));
    }

    #[test]
    fn what_is_stored_goes_up_as_it_came_down() {
        let mut came = update(&[&[1, 2, 3]]);
        came.clusters = vec![wire::ListedCluster {
            cluster: "eu".to_owned(),
            installation: "i".to_owned(),
            excluded: true,
            ..wire::ListedCluster::default()
        }];
        let offered = terms(&came).unwrap();
        assert_eq!(wire_terms(&offered.application, &offered.terms), came);
    }

    #[test]
    fn terms_without_voters_are_refused() {
        for voters in [&[][..], &[&[1, 2, 3][..], &[]]] {
            assert!(matches!(terms(&update(voters)), Err(WireError::Missing(_))), "{voters:?}");
        }
    }
}
