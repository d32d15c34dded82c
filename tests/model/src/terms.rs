//! Terms, and what must hold over all of them that the primary's agent may count by (safety.md, "Terms").

use super::id::{Cluster, FENCE, Few, MARGIN, Number, Ticks};
use super::mistake::Mistake;

/// What a primary's agent counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Terms {
    /// The entry that made them.
    pub number: Number,
    /// The epoch they belong to.
    pub epoch: u8,
    /// Its primary.
    pub primary: Cluster,
    /// D.
    pub bound: Ticks,
    /// The clusters that are listed and not excluded.
    pub clusters: Few,
    /// The databases that are guarded.
    pub resources: Few,
    /// The coordinators whose grants count.
    pub voters: Few,
    /// Nothing is decided, and the agent does not fence.
    pub paused: bool,
}

/// T = D − F − M.
#[must_use]
pub fn lease(bound: Ticks, mistake: Option<Mistake>) -> Ticks {
    let margin = if mistake == Some(Mistake::NoMargin) { 0 } else { MARGIN };
    bound - FENCE - margin
}

/// The terms from the last confirmed to the newest.
#[derive(Clone, Copy)]
pub struct Window<'a> {
    terms: &'a [Terms],
    mistake: Option<Mistake>,
}

impl<'a> Window<'a> {
    /// Over these terms.
    #[must_use]
    pub const fn new(terms: &'a [Terms], mistake: Option<Mistake>) -> Self {
        Self { terms, mistake }
    }

    fn all(self) -> impl Iterator<Item = &'a Terms> {
        let last = self.terms.len().saturating_sub(1);
        let all = self.mistake != Some(Mistake::IntermediateTerms);
        self.terms.iter().enumerate().filter(move |(at, _)| all || *at == 0 || *at == last).map(|(_, terms)| terms)
    }

    /// All of them, or by a mistake the newest alone.
    fn unless(self, mistake: Mistake) -> impl Iterator<Item = &'a Terms> {
        let skipped = if self.mistake == Some(mistake) { self.terms.len().saturating_sub(1) } else { 0 };
        self.all().skip(skipped)
    }

    /// The largest D counts.
    #[must_use]
    pub fn bound(self) -> Ticks {
        self.unless(Mistake::LoweredBound).map(|terms| terms.bound).max().unwrap_or(0)
    }

    /// A majority in each V.
    #[must_use]
    pub fn is_majority(self, observers: Few) -> bool {
        self.unless(Mistake::VotersChanged).all(|terms| observers.is_majority_of(terms.voters))
    }

    /// Listed and not excluded in each.
    #[must_use]
    pub fn lists(self, cluster: Cluster) -> bool {
        self.unless(Mistake::ClusterAdded).all(|terms| terms.clusters.has(cluster.0))
    }

    /// What may be promoted: guarded in each.
    #[must_use]
    pub fn promotable(self) -> Few {
        self.unless(Mistake::ResourceAdded).fold(Few(u8::MAX), |all, terms| all.and(terms.resources))
    }

    /// Paused in any: then nothing is decided.
    #[must_use]
    pub fn is_paused(self) -> bool {
        self.unless(Mistake::Unpause).any(|terms| terms.paused)
    }
}
