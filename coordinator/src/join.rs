//! A process becomes part of the group: the first leader creates it, everyone binds its raft id to its identity.

use std::time::Duration;

use regent_core::entry::{Coordinator, Entry, FORMAT, Record};
use regent_core::id::GroupId;
use regent_core::state::Applied;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::admin::{Latch, Readiness};
use crate::node::Node;

/// Between two tries while there is no quorum.
const AGAIN: Duration = Duration::from_millis(200);

/// Works until this coordinator has joined, or is refused.
pub async fn run(node: Node, myself: Coordinator, readiness: Readiness, stop: CancellationToken) {
    loop {
        if let Some(entry) = missing(&node, &myself) {
            let record = Record { format: FORMAT, at: node.wall(), request: None, entry };
            match node.replica.propose(record).await {
                Ok(Applied::Done(_) | Applied::Repeated(_) | Applied::Ignored(_)) => continue,
                Ok(Applied::Refused { rule, detail }) => {
                    error!(rule, detail, "this coordinator is refused by the group");
                    return;
                }
                Err(_) => {}
            }
        } else if node.replica.read(|state| state.coordinators.get(&node.id) == Some(&myself)) {
            info!("joined");
            readiness.set(Latch::MemberKnown);
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// The entry that is missing and that this node may propose.
fn missing(node: &Node, myself: &Coordinator) -> Option<Entry> {
    let leads = node.replica.leadership().borrow().is_leader();
    node.replica.read(|state| {
        if state.group.0.is_empty() {
            return leads.then(|| Entry::GroupCreated { group: GroupId(uuid::Uuid::new_v4().to_string()) });
        }
        (state.coordinators.get(&node.id) != Some(myself)).then(|| Entry::CoordinatorJoined(myself.clone()))
    })
}
