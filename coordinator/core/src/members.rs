//! Who belongs to the group changes one member at a time (safety.md, "Terms").
//!
//! ```text
//!  MemberChange ─► learner ─► joined, hears the primaries' agents ─► voter (joint, then alone) ─► MemberChangeEnded
//!  MemberChange ─► voter no more (joint, then alone) ─► MemberChangeEnded: its id is used up
//! ```
//!
//! The wish is committed before raft's membership changes, so that a new leader goes on with it, and so that the state
//! machine can refuse the next one until every primary's agent has confirmed terms with the present voters: one that
//! is cut off counts by the voters it last heard of, and a majority of those must be there to be asked. What the leader
//! has to see before it takes the next step is [`hold`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::evidence::Evidence;
use crate::id::{ApplicationId, CoordinatorId};
use crate::lease;
use crate::state::{ApplicationState, State};
use crate::time::Moment;
use crate::verdict::rule;
use crate::why::Rule;

/// A change of the members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// It becomes a voter.
    Add {
        /// Raft id, never used before.
        id: CoordinatorId,
        /// host:port of its gRPC server.
        address: String,
    },
    /// It leaves for good.
    Remove {
        /// Raft id.
        id: CoordinatorId,
    },
}

impl MemberChange {
    /// Whom it concerns.
    #[must_use]
    pub const fn id(&self) -> CoordinatorId {
        match self {
            Self::Add { id, .. } | Self::Remove { id } => *id,
        }
    }
}

/// What the leader does next about a change that was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStep {
    /// Take it in without a vote, so that it catches up and joins.
    Learner {
        /// Who.
        id: CoordinatorId,
        /// Where.
        address: String,
    },
    /// Give it a vote; of a joint membership: end that.
    Voter(CoordinatorId),
    /// Take its vote, or its place, away; of a joint membership: end that.
    Remove(CoordinatorId),
    /// Hand over leadership first, to one of these: a leader does not remove itself.
    HandOver(BTreeSet<CoordinatorId>),
    /// Propose that it has ended.
    End(CoordinatorId),
    /// Not yet.
    Wait(Rule),
}

/// The next step. `learners` are raft's, which the state does not know.
#[must_use]
pub fn next(
    state: &State,
    evidence: &Evidence,
    now: Moment,
    me: CoordinatorId,
    learners: &BTreeSet<CoordinatorId>,
) -> Option<MemberStep> {
    let change = state.changing.as_ref()?;
    let joint = state.voters.len() > 1;
    let voters: BTreeSet<CoordinatorId> = state.voters.last().cloned().unwrap_or_default();
    let step = match change {
        MemberChange::Add { id, .. } if voters.contains(id) => {
            if joint {
                MemberStep::Voter(*id)
            } else {
                MemberStep::End(*id)
            }
        }
        MemberChange::Add { id, address } if !learners.contains(id) => {
            MemberStep::Learner { id: *id, address: address.clone() }
        }
        MemberChange::Add { id, .. } => match hold(state, evidence, now, me, change) {
            Some(rule) => MemberStep::Wait(rule),
            None => MemberStep::Voter(*id),
        },
        MemberChange::Remove { id } if voters.contains(id) => {
            let others: BTreeSet<_> = voters.iter().copied().filter(|one| one != id).collect();
            match hold(state, evidence, now, me, change) {
                Some(rule) => MemberStep::Wait(rule),
                None if *id == me => MemberStep::HandOver(others),
                None => MemberStep::Remove(*id),
            }
        }
        MemberChange::Remove { id } if joint || learners.contains(id) => MemberStep::Remove(*id),
        MemberChange::Remove { id } => MemberStep::End(*id),
    };
    Some(step)
}

/// What still speaks against taking the step that changes the voters: who is added must hear the agents of all primaries
/// before its grant is needed, and without it (or whoever leaves) a majority must be there.
#[must_use]
pub fn hold(state: &State, evidence: &Evidence, now: Moment, me: CoordinatorId, change: &MemberChange) -> Option<Rule> {
    let id = change.id();
    let mut voters: BTreeSet<CoordinatorId> = state.voters.last().cloned().unwrap_or_default();
    let old = voters.clone();
    match change {
        MemberChange::Add { .. } => voters.insert(id),
        MemberChange::Remove { .. } => voters.remove(&id),
    };
    let recent = lease::heartbeat(longest_bound(state)).times(3);
    let is_heard = |one: &CoordinatorId| {
        *one == me || evidence.voters_heard.get(one).is_some_and(|heard| now.since(*heard) <= recent)
    };
    let heard: BTreeSet<CoordinatorId> = old.iter().copied().filter(|one| *one != id && is_heard(one)).collect();
    // One alone has no other to lean on: the second must count from its beginning.
    let leaned_on = usize::from(old.len() == 1 && matches!(change, MemberChange::Add { .. }));
    if (heard.len() + leaned_on) * 2 <= voters.len() {
        let silent: Vec<String> =
            old.iter().filter(|one| **one != id && !is_heard(one)).map(ToString::to_string).collect();
        return Some(rule(
            "majority-too-thin",
            format!(
                "of the {} voters that there would be, {} are heard now (silent: {}); bring them back or remove one that \
                 is lost for good first",
                voters.len(),
                heard.len(),
                silent.join(", ")
            ),
        ));
    }
    if matches!(change, MemberChange::Remove { .. }) {
        return None;
    }
    if !state.coordinators.contains_key(&id) {
        return Some(rule("not-joined", format!("coordinator {id} has not caught up and joined yet; is it running?")));
    }
    let seen = evidence.relayed.get(&id);
    for (application, known) in &state.applications {
        let Some(primary) = &known.primary else { continue };
        let interval = lease::heartbeat(known.document.automation.bound.fail_over_after).times(3);
        let fresh = |at: Option<Moment>| at.is_some_and(|at| now.since(at) <= interval);
        if !fresh(evidence.last_two_way(primary)) {
            // Nobody hears it: it holds its lease by promises, or none. It counts by the old voters until it is back.
            continue;
        }
        if !fresh(seen.and_then(|clusters| clusters.get(primary)).and_then(|contact| contact.two_way)) {
            return Some(rule(
                "agent-not-heard",
                format!("coordinator {id} does not hear the agent of {primary}, primary of {application}, yet"),
            ));
        }
    }
    None
}

fn longest_bound(state: &State) -> crate::time::Span {
    let bounds = state.applications.values().map(|known| known.document.automation.bound.fail_over_after);
    bounds.max().unwrap_or(lease::DEFAULT_FAIL_OVER_AFTER)
}

/// Applications whose primary's agent may count by other voters than the present ones.
pub fn unconfirmed(state: &State) -> impl Iterator<Item = &ApplicationId> {
    let confirmed = |known: &ApplicationState| {
        known.primary.is_none() || (known.confirmed && known.terms.iter().all(|terms| terms.voters == state.voters))
    };
    state.applications.iter().filter(move |(_, known)| !confirmed(known)).map(|(id, _)| id)
}
