//! Asks agents to look at everything anew, at once, and hears that they have. Looks alone: nothing is decided by it.
//!
//! An agent has one question of this process at a time: however many callers there are, they fill no stream that grants go
//! down. Who comes while one is under way waits for it, and then for the next one, which all share who have come meanwhile.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use regent_core::id::ClusterId;
use regent_proto::agent::v1::LookNow;
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::watch;
use tokio::time::Instant;

use super::{Post, lock};

/// A question that is not answered is put again after so long: the stream that it went down may have ended. An agent that
/// still looks answers the first one all the same, and looks once more behind it.
pub const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The questions of this process, and how far each agent has answered them.
pub(super) struct Looks {
    asked: Mutex<Asked>,
    answered: watch::Sender<BTreeMap<ClusterId, u64>>,
}

#[derive(Default)]
struct Asked {
    /// The number of the last question to anybody.
    last: u64,
    /// The last one to each agent, and when it was sent.
    of: BTreeMap<ClusterId, (u64, Instant)>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { asked: Mutex::default(), answered: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Asked {
    /// The question that an agent works on; none if it has answered, or is to be asked again.
    fn under_way(&self, cluster: &ClusterId, answered: u64, now: Instant) -> Option<u64> {
        let (number, at) = self.of.get(cluster)?;
        (*number > answered && now.saturating_duration_since(*at) < ASK_AGAIN).then_some(*number)
    }
}

impl Looks {
    fn answered(&self, cluster: &ClusterId) -> u64 {
        self.answered.borrow().get(cluster).copied().unwrap_or_default()
    }

    /// An agent has ended its looks for this question; 0: for none.
    pub(super) fn note(&self, cluster: &ClusterId, number: u64) {
        self.answered.send_if_modified(|answered| {
            let news = answered.get(cluster).copied().unwrap_or_default() < number;
            if news {
                answered.insert(cluster.clone(), number);
            }
            news
        });
    }
}

impl Post {
    /// Asks the agent of a cluster to look at everything anew, at once, unless a question is under way; its number. None if
    /// no stream of it ends here.
    #[must_use]
    pub fn ask_to_look(&self, cluster: &ClusterId) -> Option<u64> {
        let looks = &self.inner.looks;
        let (answered, now) = (looks.answered(cluster), Instant::now());
        let mut asked = lock(&looks.asked);
        let hears = lock(&self.inner.streams).contains_key(cluster);
        if let Some(number) = asked.under_way(cluster, answered, now).filter(|_| hears) {
            return Some(number);
        }
        asked.last += 1;
        let number = asked.last;
        let sent = self.send(cluster, Body::LookNow(LookNow { number }));
        if sent {
            asked.of.insert(cluster.clone(), (number, now));
        }
        sent.then_some(number)
    }

    /// The number of the last question to any agent. Whoever comes now is answered by a later one alone: the looks for this
    /// one may have been made already.
    #[must_use]
    pub fn last_question(&self) -> u64 {
        lock(&self.inner.looks.asked).last
    }

    /// The newest question that an agent has answered; 0: none.
    #[must_use]
    pub fn answered(&self, cluster: &ClusterId) -> u64 {
        self.inner.looks.answered(cluster)
    }

    /// Until the agent has answered that question, or a later one; what it found is noted by then.
    pub async fn looked(&self, cluster: &ClusterId, number: u64) {
        let mut answered = self.inner.looks.answered.subscribe();
        let reached = |answered: &BTreeMap<ClusterId, u64>| answered.get(cluster).is_some_and(|last| *last >= number);
        // It cannot close while this post is there.
        let _ = answered.wait_for(reached).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_rise_and_each_agent_has_its_own() {
        let looks = Looks::default();
        let [one, two] = ["eu-west-1", "eu-central-1"].map(|name| ClusterId::new(name).unwrap());
        looks.note(&one, 0);
        assert!(looks.answered.borrow().is_empty(), "it has not been asked");
        looks.note(&one, 7);
        looks.note(&one, 0);
        looks.note(&two, 3);
        assert_eq!((looks.answered(&one), looks.answered(&two)), (7, 3));
    }

    #[test]
    fn a_question_is_joined_until_it_is_answered_or_grows_old() {
        let [one, two] = ["eu-west-1", "eu-central-1"].map(|name| ClusterId::new(name).unwrap());
        let sent = Instant::now();
        let asked = Asked { last: 4, of: [(one.clone(), (4, sent))].into() };
        assert_eq!(asked.under_way(&one, 3, sent), Some(4));
        assert_eq!(asked.under_way(&one, 4, sent), None, "it is answered");
        assert_eq!(asked.under_way(&one, 3, sent + ASK_AGAIN), None, "it may have been lost");
        assert_eq!(asked.under_way(&two, 0, sent), None, "another agent");
    }
}
