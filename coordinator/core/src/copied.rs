//! Two machines under one agent's name: a restarted one cannot be told from a copy of one that still runs.
//!
//! ```text
//!  another boot asks to be registered   refused while the registered one shows that it lives, to any coordinator
//!  it is registered in an epoch         in that epoch nothing is granted before D has passed (observer.rs)
//! ```
//!
//! The first keeps a copy from pushing out an agent that is well; it looks at what happens to be heard. The second keeps
//! two leases apart that coordinators grant, and rests on nothing but the log and each coordinator's own clock. Neither
//! closes a database: in a pause an agent does not fence when its lease lapses, and one that is cut off from every
//! coordinator and has no other cluster to ask goes on by itself (SAFETY.md, "What is not covered").

use crate::entry::Agent;
use crate::evidence::Evidence;
use crate::id::ClusterId;
use crate::lease;
use crate::observer::smallest_bound;
use crate::state::State;
use crate::time::{Moment, Span};

/// Why a process in another boot must not follow the registered one, if it must not: that one lives. It was heard, by
/// this coordinator or by one that relays to it; or it is seen to hold a lease, which no other process can yet.
#[must_use]
pub fn lives(state: &State, evidence: &Evidence, now: Moment, cluster: &ClusterId, boot: &str) -> Option<String> {
    let known = state.agents.get(cluster).filter(|known| !known.boot.is_empty() && known.boot != boot)?;
    let recent = three_intervals(state, cluster);
    let fresh = |at: Option<Moment>| at.is_some_and(|at| now.since(at) <= recent);
    let beats = evidence
        .contacts_of(cluster)
        .filter(|contact| contact.incarnation == known.incarnation)
        .filter_map(|contact| contact.last_beat);
    let sign = if fresh(beats.max()) {
        "is heard"
    } else if fresh(evidence.last_asked(cluster)) {
        "asks the other agents for promises"
    } else {
        return None;
    };
    Some(format!("process {} of the agent of {cluster} {sign} from another boot: is this a copy?", known.incarnation))
}

/// The same for the leader, which commits it: what others hear it knows only when they have had the time to tell it.
#[must_use]
pub fn refuses(state: &State, evidence: &Evidence, now: Moment, agent: &Agent) -> Option<String> {
    let cluster = &agent.cluster;
    let known = state.agents.get(cluster).filter(|known| !known.boot.is_empty() && known.boot != agent.boot)?;
    let looked = evidence.leading_since.is_some_and(|since| now.since(since) > three_intervals(state, cluster));
    if !looked {
        return Some(format!(
            "the leader does not know yet whether process {} of the agent of {cluster} is heard elsewhere",
            known.incarnation
        ));
    }
    lives(state, evidence, now, cluster, &agent.boot)
}

fn three_intervals(state: &State, cluster: &ClusterId) -> Span {
    lease::heartbeat(smallest_bound(state, cluster)).times(3)
}

/// Takes a process of the registered installation for the newest. True if nothing but the process is another one.
pub(crate) fn take(state: &mut State, agent: &Agent) -> bool {
    let Some(before) = state.agents.insert(agent.cluster.clone(), agent.clone()) else { return false };
    // Without a boot the one before was registered by nobody yet, or by a release that did not name it.
    if !before.boot.is_empty() && before.boot != agent.boot {
        for known in state.applications.values_mut().filter(|known| known.primary.as_ref() == Some(&agent.cluster)) {
            known.rebooted = known.epoch;
        }
    }
    Agent { incarnation: agent.incarnation, boot: agent.boot.clone(), ..before } == *agent
}
