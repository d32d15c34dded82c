//! Who leads, and whether a majority is in contact: from raft's metrics and from what the leader says.
//!
//! Openraft keeps naming a leader that has been silent for long, and a leader without a majority keeps calling
//! itself one. Here neither counts: a leader is one that a majority has answered, and a follower knows of one
//! only while it hears it.

use regent_proto::watch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::Instant as _;
use openraft::RaftMetrics;
use regent_core::id::CoordinatorId;
use tokio::time::Instant;

use super::peers::Peers;
use super::types::{Raft, Types};
use crate::replica::{Leadership, Shared};

/// What the peer server and the network tell about contact.
#[derive(Default)]
pub(crate) struct Pulse(Mutex<Contacts>);

#[derive(Default, Clone, Copy)]
struct Contacts {
    /// A follower: when the leader last spoke.
    leader_at: Option<Instant>,
    /// When a majority last answered the leader, as far as this node knows.
    quorum_at: Option<Instant>,
}

impl Pulse {
    /// The leader spoke, and said how long ago a majority answered it.
    pub(crate) fn heard(&self, quorum_age: Option<Duration>) {
        let now = Instant::now();
        let mut contacts = self.lock();
        contacts.leader_at = Some(now);
        contacts.quorum_at = contacts.quorum_at.max(quorum_age.and_then(|age| now.checked_sub(age)));
    }

    pub(super) fn quorum_age(&self) -> Option<Duration> {
        self.lock().quorum_at.map(|at| at.elapsed())
    }

    fn lead(&self, quorum_at: Option<Instant>) {
        let mut contacts = self.lock();
        contacts.quorum_at = contacts.quorum_at.max(quorum_at);
    }

    fn contacts(&self) -> Contacts {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Contacts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows raft until it ends, and tells how it ended.
pub(super) struct Follow {
    pub(super) me: CoordinatorId,
    pub(super) peers: Arc<Peers>,
    pub(super) raft: Raft,
    pub(super) shared: Arc<Shared>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) heartbeat: Duration,
    /// For so long a contact counts.
    pub(super) lease: Duration,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) failed: watch::Sender<Option<String>>,
}

impl Follow {
    pub(super) async fn run(self) {
        let mut metrics = self.raft.metrics();
        let mut last = Leadership::default();
        loop {
            let now = metrics.borrow_and_update().clone();
            if let Err(fatal) = &now.running_state {
                self.tell(Leadership { me: self.me, term: now.current_term, ..Leadership::default() });
                if !matches!(fatal, openraft::errors::Fatal::Stopped) {
                    tracing::error!(error = %fatal, "Replication has stopped on this coordinator");
                }
                self.failed.send_replace(Some(fatal.to_string()));
                return;
            }
            let next = self.judge(&now);
            if (next.leader, next.term) != (last.leader, last.term) {
                let leader = next.leader.map(|leader| leader.0);
                tracing::info!(term = next.term, leader, "Leadership changed");
            }
            if next != last {
                self.tell(next.clone());
                last = next;
            }
            // Contact also ends by time passing, which raft does not report.
            if let Ok(Err(_)) = tokio::time::timeout(self.heartbeat, metrics.changed()).await {
                self.failed.send_replace(Some("raft ended".to_owned()));
                return;
            }
        }
    }

    fn tell(&self, leadership: Leadership) {
        self.leadership.send_replace(leadership.clone());
        self.shared.lead(leadership);
    }

    fn judge(&self, metrics: &RaftMetrics<Types>) -> Leadership {
        let fresh = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < self.lease);
        let mut next = Leadership { me: self.me, term: metrics.current_term, ..Leadership::default() };
        if metrics.state.is_leader() {
            let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
            let acknowledged = metrics.last_quorum_acked.and_then(|at| Instant::now().checked_sub(at.elapsed()));
            let alone = voters.len() == 1 && voters.contains(&self.me.0);
            let quorum_at = if alone { Some(Instant::now()) } else { acknowledged };
            self.pulse.lead(quorum_at);
            if fresh(quorum_at) {
                next.leader = Some(self.me);
            }
            next.heard = heard(metrics, &voters, self.me);
        } else if fresh(self.pulse.contacts().leader_at) {
            next.leader = metrics.current_leader.map(CoordinatorId).filter(|leader| *leader != self.me);
        }
        next.quorum_at = self.pulse.contacts().quorum_at;
        next.round_trips = self.peers.distances().round_trips();
        next.heartbeat = Some(self.heartbeat);
        next
    }
}

fn heard(metrics: &RaftMetrics<Types>, voters: &BTreeSet<u64>, me: CoordinatorId) -> BTreeMap<CoordinatorId, Instant> {
    let now = Instant::now();
    let mut heard = BTreeMap::new();
    for (id, at) in metrics.heartbeat.iter().flatten() {
        if let Some(at) = at.and_then(|at| now.checked_sub(at.elapsed())).filter(|_| voters.contains(id)) {
            heard.insert(CoordinatorId(*id), at);
        }
    }
    if voters.contains(&me.0) {
        heard.insert(me, now);
    }
    heard
}
