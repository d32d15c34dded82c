//! Rights that run for a time: grants of coordinators and promises of agents.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::id::CoordinatorId;
use regent_core::planted::{self, Mistake};
use regent_core::time::Span;

use crate::lease::clock::{Deadline, Reading};

/// A right that began with a sending of this agent's own and runs for the smallest T stored since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// When the message that was granted was sent, by this agent's own memory, never by an echo.
    pub from: Reading,
    /// How long it runs.
    pub span: Span,
}

impl Right {
    /// When it ends.
    #[must_use]
    pub const fn until(self) -> Deadline {
        self.from.after(self.span)
    }

    /// A lower T shrinks what runs already; a higher one stretches nothing (safety.md, "The quorum lease").
    pub fn cap(&mut self, span: Span) {
        self.span = self.span.min(span);
    }
}

/// The grant until whose end a majority of each set of voters grants; none without such a majority.
#[must_use]
pub fn majority(voters: &[BTreeSet<CoordinatorId>], grants: &BTreeMap<CoordinatorId, Right>) -> Option<Right> {
    let mut weakest: Option<Right> = None;
    for set in voters {
        let mut of_set: Vec<Right> = set.iter().filter_map(|voter| grants.get(voter).copied()).collect();
        of_set.sort_by_key(|right| std::cmp::Reverse(right.until()));
        let others = if planted::makes(Mistake::LeaseByOneGrant) { 0 } else { set.len() / 2 };
        let last_needed = *of_set.get(others)?;
        weakest = Some(match weakest {
            Some(weakest) if weakest.until() <= last_needed.until() => weakest,
            _ => last_needed,
        });
    }
    weakest
}

#[cfg(test)]
mod tests {
    use regent_core::time::Moment;

    use super::*;

    fn right(at: u64) -> Right {
        Right { from: Reading { boottime: Moment(at), raw: Moment(at) }, span: Span::from_millis(100) }
    }

    fn set(ids: &[u64]) -> BTreeSet<CoordinatorId> {
        ids.iter().copied().map(CoordinatorId).collect()
    }

    #[test]
    fn the_majority_ends_with_its_weakest_grant() {
        let grants = BTreeMap::from([(CoordinatorId(1), right(10)), (CoordinatorId(2), right(30))]);
        assert_eq!(majority(&[set(&[1, 2, 3])], &grants), Some(right(10)));
        assert_eq!(majority(&[set(&[1, 2, 3, 4])], &grants), None, "two of four are no majority");
        assert_eq!(majority(&[set(&[1])], &grants), Some(right(10)));
        assert_eq!(majority(&[], &grants), None, "no voters, no majority");
    }

    #[test]
    fn joint_consensus_needs_both_sets() {
        let mut grants = BTreeMap::from([(CoordinatorId(1), right(10)), (CoordinatorId(2), right(30))]);
        let joint = [set(&[1, 2, 3]), set(&[2, 4, 5])];
        assert_eq!(majority(&joint, &grants), None);
        grants.insert(CoordinatorId(4), right(5));
        assert_eq!(majority(&joint, &grants), Some(right(5)));
    }
}
