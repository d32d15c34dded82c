//! What holds at this moment, as the loop publishes it to its leaf tasks.

use std::collections::BTreeMap;

use regent_core::id::{ApplicationId, Epoch};
use regent_core::time::Span;

use crate::lease::{Deadline, Reading};
use crate::steps::order::Order;

/// By application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// What holds for each.
    pub applications: BTreeMap<ApplicationId, Standing>,
}

/// What holds for one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Epoch and end of a lease that runs, with the guard armed.
    pub lease: Option<(Epoch, Deadline)>,
    /// Nothing is fenced: the lease may be signed for.
    pub open: bool,
    /// Highest epoch seen.
    pub seen: Epoch,
    /// This cluster is primary at that epoch.
    pub primary: bool,
    /// F.
    pub fence_budget: Span,
}

impl Word {
    /// Whether the lease of the order's epoch runs.
    ///
    /// # Errors
    /// Why not.
    pub fn lease(&self, order: &Order, now: Reading) -> Result<(), &'static str> {
        let standing = self.applications.get(&order.application).ok_or("there are no terms of the application")?;
        match standing.lease {
            Some((epoch, until)) if epoch == order.epoch && !until.passed(now) => Ok(()),
            Some((epoch, _)) if epoch != order.epoch => Err("it runs for another epoch"),
            Some(_) | None if !standing.primary => Err("the stored terms name another primary"),
            Some(_) | None => Err("it does not run"),
        }
    }

    /// Leases that run at this moment and are not fenced.
    pub fn signed_for(&self, now: Reading) -> impl Iterator<Item = (String, u64)> + '_ {
        self.applications.iter().filter_map(move |(application, standing)| {
            let (epoch, until) = standing.lease?;
            (standing.open && !until.passed(now)).then(|| (application.to_string(), epoch.0))
        })
    }

    /// Highest epoch seen.
    #[must_use]
    pub fn seen(&self, application: &ApplicationId) -> Epoch {
        self.applications.get(application).map_or(Epoch(0), |standing| standing.seen)
    }

    /// This cluster is primary of the highest epoch seen.
    #[must_use]
    pub fn is_primary(&self, application: &ApplicationId) -> bool {
        self.applications.get(application).is_some_and(|standing| standing.primary)
    }

    /// F; two seconds before any terms are known.
    #[must_use]
    pub fn fence_budget(&self, application: &ApplicationId) -> Span {
        let known = self.applications.get(application).map(|standing| standing.fence_budget);
        known.filter(|budget| *budget > Span::ZERO).unwrap_or(Span::from_secs(2))
    }
}
