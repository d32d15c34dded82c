//! How far the other coordinators are, and whether the heartbeat suits that.
//!
//! Raft gives each of its calls one heartbeat: where an answer takes longer, followers count as silent, and elections
//! follow each other without end. Its own calls cannot tell, because they are cut off then; so each coordinator asks
//! every other one a small question of its own, which may take as long as it takes. What does not answer at all has
//! no distance: it is not far but gone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_core::id::CoordinatorId;
use regent_proto::peer::v1 as proto;
use tokio::time::Instant;

use super::peers::{Lane, Peers};

/// Between two questions.
const PACE: Duration = Duration::from_millis(250);
/// So many answers are remembered of each.
const REMEMBERED: usize = 200;
/// With fewer nothing is said: one slow answer would be the slowest in a hundred.
const ENOUGH: usize = 100;

/// The round trips of the last minute, by coordinator.
#[derive(Default)]
pub(super) struct Distances(Mutex<BTreeMap<CoordinatorId, Distance>>);

#[derive(Default)]
struct Distance {
    samples: VecDeque<Duration>,
    /// It has been said that it is too far.
    warned: bool,
}

/// What a sample changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    TooFar(Duration),
    NearAgain(Duration),
}

/// Asks everyone again and again. Ends with the task.
pub(super) async fn measure(peers: Arc<Peers>) {
    let mut asked = BTreeMap::new();
    let mut tick = tokio::time::interval(PACE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for id in peers.others() {
            // One question at a time: a slow answer is not hidden behind faster ones, nor piled up.
            if asked.get(&id).is_none_or(tokio::task::JoinHandle::is_finished) {
                asked.insert(id, tokio::spawn(ask(peers.clone(), id)));
            }
        }
    }
}

async fn ask(peers: Arc<Peers>, id: CoordinatorId) {
    let Ok(mut client) = peers.client(id, Lane::Control) else { return };
    let begun = Instant::now();
    let call = client.introduce(peers.request(id, proto::IntroduceRequest {}));
    if peers.call(id, peers.options().rpc_timeout, call).await.is_err() {
        return;
    }
    let heartbeat = peers.options().heartbeat;
    match peers.distances().note(id, begun.elapsed(), heartbeat) {
        Change::None => {}
        Change::TooFar(took) => tracing::warn!(
            coordinator = id.0,
            round_trip_ms = millis(took),
            heartbeat_ms = millis(heartbeat),
            "Answers of a coordinator take longer than a heartbeat: raise `raft.heartbeat` in every coordinator.yaml"
        ),
        Change::NearAgain(took) => tracing::info!(
            coordinator = id.0,
            round_trip_ms = millis(took),
            heartbeat_ms = millis(heartbeat),
            "Answers of a coordinator come within a heartbeat again"
        ),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Distances {
    /// But for the slowest in a hundred; those that have answered often enough.
    pub(super) fn round_trips(&self) -> BTreeMap<CoordinatorId, Duration> {
        let distances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        distances.iter().filter_map(|(id, distance)| Some((*id, distance.slowest_but_one_percent()?))).collect()
    }

    fn note(&self, id: CoordinatorId, took: Duration, heartbeat: Duration) -> Change {
        let mut distances = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let distance = distances.entry(id).or_default();
        distance.samples.push_back(took);
        if distance.samples.len() > REMEMBERED {
            distance.samples.pop_front();
        }
        let Some(slow) = distance.slowest_but_one_percent() else { return Change::None };
        let far = slow >= heartbeat;
        match (std::mem::replace(&mut distance.warned, far), far) {
            (false, true) => Change::TooFar(slow),
            (true, false) => Change::NearAgain(slow),
            (false, false) | (true, true) => Change::None,
        }
    }
}

impl Distance {
    /// In whole milliseconds, so that what is shown of it does not change with every answer.
    fn slowest_but_one_percent(&self) -> Option<Duration> {
        if self.samples.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<Duration> = self.samples.iter().copied().collect();
        sorted.sort_unstable();
        let slower = sorted.len().div_ceil(100);
        sorted.iter().rev().nth(slower).map(|took| Duration::from_millis(millis(*took)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_millis(100);
    const PEER: CoordinatorId = CoordinatorId(2);

    fn note(distances: &Distances, millis: u64) -> Change {
        distances.note(PEER, Duration::from_millis(millis), HEARTBEAT)
    }

    #[test]
    fn one_slow_answer_is_no_distance() {
        let distances = Distances::default();
        assert_eq!(note(&distances, 900), Change::None);
        for _ in 0..REMEMBERED {
            assert_eq!(note(&distances, 3), Change::None);
        }
        assert_eq!(distances.round_trips(), BTreeMap::from([(PEER, Duration::from_millis(3))]));
        assert_eq!(note(&distances, 900), Change::None);
    }

    #[test]
    fn slow_answers_are_told_once_and_so_is_their_end() {
        let distances = Distances::default();
        let mut changes: Vec<Change> = (0..ENOUGH + 20).map(|_| note(&distances, 140)).collect();
        changes.extend((0..REMEMBERED).map(|_| note(&distances, 40)));
        changes.retain(|change| *change != Change::None);
        let [far, near] = [140, 40].map(Duration::from_millis);
        assert_eq!(changes, [Change::TooFar(far), Change::NearAgain(near)]);
    }

    #[test]
    fn who_has_hardly_answered_has_no_distance_yet() {
        let distances = Distances::default();
        for _ in 1..ENOUGH {
            assert_eq!(note(&distances, 500), Change::None);
        }
        assert!(distances.round_trips().is_empty());
    }
}
