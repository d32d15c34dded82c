//! Which group of coordinators this agent belongs to: the first that welcomes it, once that is on the disk.
//!
//! ```text
//!  Welcome ─► group known? ── same ──► listened to
//!                 │   └── another ──► refused
//!                 └─ none ─► stored with fsync, what the stream says meanwhile is kept ─► known
//! ```
//!
//! Until it is stored no heartbeat is sent: two groups that welcome an agent in the same moment would else both count
//! it, and both could grant.

use std::collections::BTreeMap;

use regent_core::id::GroupId;

use crate::agent::{Agent, Event};
use crate::journal::Record;
use crate::uplink::{LinkEvent, LinkId};

/// What the streams said before it was known whether they are listened to.
#[derive(Debug, Default)]
pub(super) struct Joining {
    /// The group that is being stored.
    group: Option<GroupId>,
    waiting: BTreeMap<LinkId, Vec<LinkEvent>>,
}

/// What becomes of a Welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Belongs {
    /// To the stored group.
    Yes,
    /// To this other one.
    No(GroupId),
    /// It waits for the disk; the group is to be stored if none is being stored yet.
    Waits { store: bool },
}

impl Joining {
    /// Decides on a Welcome of `group`; `known` is what is stored.
    pub(super) fn welcomed(&mut self, known: Option<&GroupId>, group: &GroupId) -> Belongs {
        match known.or(self.group.as_ref()) {
            Some(other) if other != group => Belongs::No(other.clone()),
            Some(_) if known.is_some() => Belongs::Yes,
            Some(_) => Belongs::Waits { store: false },
            None => {
                self.group = Some(group.clone());
                Belongs::Waits { store: true }
            }
        }
    }

    /// Keeps what a waiting stream says; hands it back if the stream does not wait.
    pub(super) fn keep(&mut self, link: LinkId, event: LinkEvent) -> Option<LinkEvent> {
        match (self.waiting.get_mut(&link), &event) {
            (None, _) | (Some(_), LinkEvent::Doubled) => Some(event),
            (Some(_), LinkEvent::Down) => {
                self.waiting.remove(&link);
                Some(event)
            }
            (Some(kept), LinkEvent::Up { .. } | LinkEvent::Heard(_)) => {
                kept.push(event);
                None
            }
        }
    }

    /// The group is stored, or could not be: then the next Welcome begins anew.
    fn ended(&mut self) -> BTreeMap<LinkId, Vec<LinkEvent>> {
        self.group = None;
        std::mem::take(&mut self.waiting)
    }
}

impl Agent {
    /// True if the stream may be listened to now. The streams of any other group never are.
    pub(super) fn belongs(&mut self, link: LinkId, event: &LinkEvent) -> bool {
        let LinkEvent::Up { welcome, say } = event else { return false };
        if welcome.group.is_empty() {
            return false;
        }
        let (known, group) = (self.journal.view().group.clone(), GroupId(welcome.group.clone()));
        match self.joining.welcomed(known.as_ref(), &group) {
            Belongs::Yes => return true,
            Belongs::No(known) => tracing::error!(
                known = known.0,
                group = group.0,
                "a coordinator of another group answers; correct the addresses in agent.yaml"
            ),
            Belongs::Waits { store } => {
                let up = LinkEvent::Up { welcome: welcome.clone(), say: say.clone() };
                self.joining.waiting.insert(link, vec![up]);
                if store {
                    let (joined, events) = (self.journal.append(vec![Record::Joined { group }]), self.events.clone());
                    tokio::spawn(async move {
                        let _ = events.send(Event::GroupStored(joined.await.is_ok()));
                    });
                }
            }
        }
        false
    }

    /// What waited is heard, in its order.
    pub(super) fn group_stored(&mut self, stored: bool) {
        let waited = self.joining.ended();
        if !stored {
            tracing::error!("the group could not be stored; it will be tried at the next stream");
            return;
        }
        for (link, events) in waited {
            events.into_iter().for_each(|event| self.hear_link(link, event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_is_stored_and_the_second_is_refused_before_it_is() {
        let [one, two] = ["one", "two"].map(|group| GroupId(group.to_owned()));
        let mut joining = Joining::default();
        assert_eq!(joining.welcomed(None, &one), Belongs::Waits { store: true });
        assert_eq!(joining.welcomed(None, &one), Belongs::Waits { store: false });
        assert_eq!(joining.welcomed(None, &two), Belongs::No(one.clone()));
        joining.ended();
        assert_eq!(joining.welcomed(Some(&one), &one), Belongs::Yes);
        assert_eq!(joining.welcomed(Some(&one), &two), Belongs::No(one));
        let mut failed = Joining::default();
        assert_eq!(failed.welcomed(None, &two), Belongs::Waits { store: true });
        failed.ended();
        assert_eq!(failed.welcomed(None, &two), Belongs::Waits { store: true }, "it was not stored: tried again");
    }
}
