//! Carries out a committed change of the members, while this coordinator leads.
//!
//! What has to be done follows from the applied state and from raft's membership, so a new leader goes on where the old
//! one stopped. The rules stand in [`regent_core::members`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::entry::Entry;
use regent_core::id::CoordinatorId;
use regent_core::members::{self, MemberStep};
use regent_core::why::Rule;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::node::Node;
use crate::proposals::Proposals;
use crate::raft::{Membership, MembershipError};

/// Between two looks while a change is under way.
const AGAIN: Duration = Duration::from_millis(100);

/// What the change that is under way waits for, as the leader sees it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Awaited(Arc<Mutex<Option<Rule>>>);

impl Awaited {
    /// None: nothing is under way here, or nothing holds it.
    #[must_use]
    pub fn rule(&self) -> Option<Rule> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is(&self, rule: Option<Rule>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != rule {
            if let Some(rule) = &rule {
                info!(rule = rule.code, detail = rule.detail, "a change of the members waits");
            }
            *known = rule;
        }
    }
}

/// Works until told to stop.
pub async fn run(node: Node, proposals: Proposals, membership: Membership, awaited: Awaited, stop: CancellationToken) {
    let mut applied = node.replica.applied();
    let mut leadership = node.replica.leadership();
    loop {
        let open = leadership.borrow_and_update().is_leader() && node.replica.read(|state| state.changing.is_some());
        if open {
            take_step(&node, &proposals, &membership, &awaited).await;
        } else {
            awaited.is(None);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = applied.changed(), if !open => if changed.is_err() { return },
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if open => {}
        }
    }
}

async fn take_step(node: &Node, proposals: &Proposals, membership: &Membership, awaited: &Awaited) {
    let (_, learners) = membership.members();
    let now = node.now();
    let step = node.replica.read(|state| node.see(|evidence| members::next(state, evidence, now, node.id, &learners)));
    let done = match step {
        None => return awaited.is(None),
        Some(MemberStep::Wait(rule)) => return awaited.is(Some(rule)),
        Some(MemberStep::Learner { id, address }) => membership.begin_learner(id, &address).await,
        Some(MemberStep::Voter(id)) => membership.make_voter(id).await,
        Some(MemberStep::Remove(id)) => membership.remove(id).await,
        Some(MemberStep::HandOver(others)) => hand_over(node, membership, &others).await,
        Some(MemberStep::End(id)) => {
            proposals.offer(Entry::MemberChangeEnded { id });
            Ok(())
        }
    };
    match done {
        Ok(()) => awaited.is(None),
        Err(error) => {
            let error = error.to_string();
            warn!(error, "the membership did not change; again");
            awaited.is(Some(Rule { code: "membership-not-changed".to_owned(), detail: error }));
        }
    }
}

/// To one that was heard last: it goes on with the change.
async fn hand_over(
    node: &Node,
    membership: &Membership,
    others: &BTreeSet<CoordinatorId>,
) -> Result<(), MembershipError> {
    let heard = node.replica.leadership().borrow().heard.clone();
    let Some(to) = others.iter().copied().max_by_key(|one| heard.get(one).copied()) else { return Ok(()) };
    membership.transfer_leader(to).await
}
