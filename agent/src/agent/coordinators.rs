//! Which coordinators are dialled: those that agent.yaml names, and those that the group says it has.
//!
//! The group may have replaced all that agent.yaml names, so what it last said is kept over restarts. No coordinator is
//! dialled twice: it takes a second stream of an agent for a new one, and drops the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use regent_core::id::{CoordinatorId, Token};
use regent_proto::agent::v1::{Coordinators, Hello};
use regent_proto::watch;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::agent::Agent;
use crate::journal::{KnownCoordinator, Record};
use crate::settings::Dial;
use crate::uplink::{self, LinkEvent, LinkId, Pace, convert};

/// What a link is dialled with.
pub(super) struct Dialling {
    dial: Dial,
    hello: watch::Receiver<Arc<Hello>>,
    pace: watch::Receiver<Pace>,
    links: mpsc::UnboundedSender<(LinkId, LinkEvent)>,
    /// As agent.yaml writes them; the number of a link is the place here.
    configured: Vec<String>,
    /// Who answered there last.
    named: BTreeMap<LinkId, CoordinatorId>,
    /// Dialled beside those.
    learned: BTreeMap<CoordinatorId, Learned>,
    next: LinkId,
    /// How far the log was applied where the last list came from.
    as_of: Option<Token>,
}

struct Learned {
    address: String,
    link: LinkId,
    task: AbortHandle,
}

impl Dialling {
    /// Dials what agent.yaml names.
    pub(super) fn begin(
        configured: &[String],
        dial: Dial,
        hello: watch::Receiver<Arc<Hello>>,
        pace: watch::Receiver<Pace>,
        links: mpsc::UnboundedSender<(LinkId, LinkEvent)>,
    ) -> Self {
        let dialling = Self {
            dial,
            hello,
            pace,
            links,
            configured: configured.to_vec(),
            named: BTreeMap::new(),
            learned: BTreeMap::new(),
            next: configured.len(),
            as_of: None,
        };
        for (link, address) in configured.iter().enumerate() {
            drop(dialling.spawn(link, address));
        }
        dialling
    }

    /// How many are dialled.
    pub(super) fn count(&self) -> usize {
        self.configured.len() + self.learned.len()
    }

    /// False for a link that was given up: what it still says came too late.
    pub(super) fn knows(&self, link: LinkId) -> bool {
        link < self.configured.len() || self.learned.values().any(|learned| learned.link == link)
    }

    fn spawn(&self, link: LinkId, address: &str) -> AbortHandle {
        let (hello, pace) = (self.hello.clone(), self.pace.clone());
        let keeping = uplink::keep(link, address.to_owned(), self.dial.clone(), hello, pace, self.links.clone());
        tokio::spawn(keeping).abort_handle()
    }

    /// A coordinator answered. Gives the links that are given up for it.
    pub(super) fn answered(&mut self, link: LinkId, coordinator: CoordinatorId) -> Vec<LinkId> {
        if link < self.configured.len() {
            self.named.insert(link, coordinator);
            return self.give_up(|id, _| *id == coordinator);
        }
        // Another one lives at that address now.
        self.give_up(|id, learned| learned.link == link && *id != coordinator)
    }

    /// Whether a list is as new as the last one. A new coordinator does not know itself at first: by its list the
    /// agent would give up the link on which it heard it.
    pub(super) fn is_news(&mut self, as_of: Token) -> bool {
        let news = self.as_of.is_none_or(|last| last <= as_of);
        if news {
            self.as_of = Some(as_of);
        }
        news
    }

    /// The group has these. Gives the links that are given up.
    pub(super) fn learn(&mut self, known: &[KnownCoordinator]) -> Vec<LinkId> {
        let wanted: BTreeMap<CoordinatorId, &str> = known
            .iter()
            .filter(|one| !one.address.is_empty() && !self.configured.contains(&one.address))
            .filter(|one| !self.named.values().any(|named| *named == one.id))
            .map(|one| (one.id, one.address.as_str()))
            .collect();
        let given_up = self.give_up(|id, learned| wanted.get(id) != Some(&learned.address.as_str()));
        for (id, address) in wanted {
            if self.learned.contains_key(&id) {
                continue;
            }
            let (link, address) = (self.next, address.to_owned());
            self.next += 1;
            tracing::info!(coordinator = id.0, address, "the group has a coordinator that agent.yaml does not name");
            let task = self.spawn(link, &address);
            self.learned.insert(id, Learned { address, link, task });
        }
        given_up
    }

    fn give_up(&mut self, which: impl Fn(&CoordinatorId, &Learned) -> bool) -> Vec<LinkId> {
        let mut links = Vec::new();
        self.learned.retain(|id, learned| {
            let gone = which(id, learned);
            if gone {
                learned.task.abort();
                links.push(learned.link);
            }
            !gone
        });
        links
    }
}

impl Agent {
    /// Those of before the start.
    pub(super) fn dial_remembered(&mut self) {
        let known = self.journal.view().coordinators.clone();
        let given_up = self.dialling.learn(&known);
        self.forget_links(given_up);
    }

    pub(super) fn note_coordinator(&mut self, link: LinkId, coordinator: CoordinatorId) {
        let given_up = self.dialling.answered(link, coordinator);
        self.forget_links(given_up);
    }

    /// The group says whom it has; an empty list says nothing.
    pub(super) fn hear_coordinators(&mut self, said: &Coordinators) {
        let as_of = said.applied.as_ref().map(convert::token).unwrap_or_default();
        if said.coordinators.is_empty() || !self.dialling.is_news(as_of) {
            return;
        }
        let known: Vec<KnownCoordinator> = said
            .coordinators
            .iter()
            .map(|one| KnownCoordinator { id: CoordinatorId(one.id), address: one.address.clone() })
            .collect();
        if self.journal.view().coordinators != known {
            // Not awaited: it only spares a configuration that fell behind.
            drop(tokio::spawn(self.journal.append(vec![Record::Coordinators { coordinators: known.clone() }])));
        }
        let given_up = self.dialling.learn(&known);
        self.forget_links(given_up);
    }

    /// Another process of this agent is registered: this one is the copy, or it is the one that was copied.
    pub(super) fn hear_doubled(&mut self) {
        let now = self.clock.reading();
        let applications: Vec<_> = self.leases.keys().cloned().collect();
        for application in applications {
            self.with(&application, |lease| lease.doubled(now));
        }
    }

    fn forget_links(&mut self, links: Vec<LinkId>) {
        for link in links {
            self.links.remove(&link);
            self.round_trips.remove(&link);
        }
    }
}

#[cfg(test)]
mod tests {
    use regent_core::id::LogIndex;

    use super::*;
    use crate::settings::DialError;

    fn dialling(configured: &[&str]) -> Dialling {
        let dial: Dial = Arc::new(|address, _, _| Err(DialError::Address { address: address.to_owned() }));
        let (hello, pace) = (watch::Sender::new(Arc::new(Hello::default())), watch::Sender::new(Pace::default()));
        let (links, _) = mpsc::unbounded_channel();
        let configured: Vec<String> = configured.iter().map(|address| (*address).to_owned()).collect();
        Dialling::begin(&configured, dial, hello.subscribe(), pace.subscribe(), links)
    }

    fn known(id: u64, address: &str) -> KnownCoordinator {
        KnownCoordinator { id: CoordinatorId(id), address: address.to_owned() }
    }

    #[tokio::test]
    async fn what_agent_yaml_does_not_name_is_dialled_once_and_given_up_when_it_has_left() {
        let mut dialling = dialling(&["one:1", "two:1"]);
        assert!(dialling.learn(&[known(1, "one:1"), known(2, "two:1"), known(4, "four:1")]).is_empty());
        assert_eq!(dialling.count(), 3);
        assert!(dialling.knows(2) && !dialling.knows(3));
        // The same one under another name: agent.yaml's own link stays.
        assert_eq!(dialling.learn(&[known(4, "four:1"), known(2, "alias:1")]), Vec::<LinkId>::new());
        assert_eq!(dialling.answered(1, CoordinatorId(2)), vec![3]);
        assert!(dialling.learn(&[known(4, "four:1"), known(2, "alias:1")]).is_empty());
        assert_eq!(dialling.count(), 3);
        // It moved, then it left.
        assert_eq!(dialling.learn(&[known(4, "four:2")]), vec![2]);
        assert_eq!(dialling.learn(&[known(5, "five:1")]), vec![4]);
        assert_eq!(dialling.answered(5, CoordinatorId(9)), vec![5], "another one answers there");
        assert_eq!(dialling.count(), 2);
    }

    #[tokio::test]
    async fn a_list_that_is_behind_is_no_news() {
        let mut dialling = dialling(&["one:1"]);
        let at = |restoration, index| Token { restoration, index: LogIndex(index) };
        assert!(dialling.is_news(at(0, 9)));
        assert!(!dialling.is_news(at(0, 8)), "a new coordinator that is not in its own list yet");
        assert!(dialling.is_news(at(0, 9)));
        assert!(dialling.is_news(at(1, 3)), "a restored group counts anew");
        assert!(!dialling.is_news(at(0, 12)));
    }
}
