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
/// If a name breaks the rules, or the number, the primary or a sensible bound is missing.
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
    let voters: BTreeSet<_> = update.voters.iter().copied().map(CoordinatorId).collect();
    let on_coordinator_loss = if update.failsafe { OnCoordinatorLoss::Failsafe } else { OnCoordinatorLoss::Fence };
    let terms = Terms {
        number,
        epoch: Epoch(update.epoch),
        primary: ClusterId::new(&update.primary)?,
        bound,
        clusters,
        guarded,
        voters: vec![voters],
        on_coordinator_loss,
        paused: update.paused,
    };
    Ok(Offered { application: ApplicationId::new(&update.application)?, terms, peers })
}
