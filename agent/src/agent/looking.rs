//! Looks on demand: a coordinator asks, every look that is made about once a minute is made anew, and the heartbeat that
//! carries the last of what was found says so.
//!
//! ```text
//!  LookNow ─► a round begins, unless one is under way ─► every resource is looked at ─► Heartbeat { report, looked }
//!     └ while one is under way: another begins behind it
//! ```
//!
//! There is one round at a time, and one more at most behind it: all who ask meanwhile join that one, since a look of the round
//! under way may have been made before they asked. Looks change nothing. Probes are not made sooner: how many fail in a row
//! decides something, so nobody who only reads may hasten them.

use std::collections::BTreeMap;

use regent_core::id::{ApplicationId, ResourceId};
use regent_proto::watch;

use crate::agent::Agent;
use crate::facts::Looked;
use crate::guard::Drivers;
use crate::uplink::LinkId;

/// Which round is under way, and who has ended the looks of it.
pub(super) struct Looking {
    /// The newest round: whoever looks begins anew when it rises.
    rounds: watch::Sender<u64>,
    begun: u64,
    ended: u64,
    /// Somebody has asked since the round under way began.
    another: bool,
    /// The round in which each look that has ended was begun; where there is nothing to be found, nobody is waited for.
    looks: BTreeMap<(ApplicationId, ResourceId), u64>,
}

impl Looking {
    pub(super) fn new(drivers: &Drivers) -> Self {
        let mut looks = BTreeMap::new();
        for (application, resources) in drivers {
            looks.extend(resources.keys().map(|resource| ((application.clone(), resource.clone()), 0)));
        }
        Self { rounds: watch::Sender::new(0), begun: 0, ended: 0, another: false, looks }
    }

    /// What looks follow.
    pub(super) const fn rounds(&self) -> &watch::Sender<u64> {
        &self.rounds
    }

    /// Begins a round; while one is under way, another is to begin behind it. True if one has begun.
    fn begin(&mut self) -> bool {
        self.another = self.begun != self.ended;
        if !self.another {
            self.begun += 1;
            self.rounds.send_replace(self.begun);
        }
        !self.another
    }

    /// Begins the round that was asked for during the one that has ended; false if nobody has.
    fn begin_another(&mut self) -> bool {
        self.another && self.begin()
    }

    fn note(&mut self, looked: &Looked) {
        let name = (looked.application.clone(), looked.resource.clone());
        if looked.last {
            self.looks.remove(&name);
        } else if let Some(round) = self.looks.get_mut(&name) {
            *round = looked.round;
        }
    }

    /// True once for each round: when the last look of it has ended.
    fn ends(&mut self) -> bool {
        let ends = self.ended < self.begun && self.looks.values().all(|round| *round >= self.begun);
        if ends {
            self.ended = self.begun;
        }
        ends
    }
}

impl Agent {
    /// A coordinator asks for a look at everything.
    pub(super) fn hear_look(&mut self, id: LinkId, number: u64) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.asked_to_look = link.asked_to_look.max(number);
        if self.looking.begin() {
            self.round_has_begun();
        }
        self.end_round();
    }

    /// A look has ended.
    pub(super) fn hear_looked(&mut self, looked: Looked) {
        self.looking.note(&looked);
        if let Some(fact) = looked.fact {
            self.hear_fact(fact);
        }
        self.end_round();
    }

    /// It answers what was asked up to now.
    fn round_has_begun(&mut self) {
        self.links.values_mut().for_each(|link| link.looking_for = link.asked_to_look);
    }

    /// All who had asked when it began are answered, with the next heartbeat to each.
    fn end_round(&mut self) {
        while self.looking.ends() {
            self.links.values_mut().for_each(|link| link.looked = link.looking_for);
            self.beat_now = true;
            if self.looking.begin_another() {
                self.round_has_begun();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(resource: &str) -> (ApplicationId, ResourceId) {
        (ApplicationId::new("shop").unwrap(), ResourceId::new(resource).unwrap())
    }

    fn looking(resources: &[&str]) -> Looking {
        let looks = resources.iter().map(|resource| (name(resource), 0)).collect();
        Looking { rounds: watch::Sender::new(0), begun: 0, ended: 0, another: false, looks }
    }

    fn looked(resource: &str, round: u64, last: bool) -> Looked {
        let (application, resource) = name(resource);
        Looked { application, resource, round, fact: None, last }
    }

    #[test]
    fn a_round_ends_with_the_last_look_that_was_begun_in_it() {
        let mut looking = looking(&["db", "cache"]);
        assert!(!looking.ends(), "nobody has asked");
        assert!(looking.begin());
        assert_eq!(*looking.rounds().borrow(), 1);
        looking.note(&looked("db", 1, false));
        // It was begun before the question.
        looking.note(&looked("cache", 0, false));
        assert!(!looking.ends());
        looking.note(&looked("cache", 1, false));
        assert!(looking.ends());
        assert!(!looking.ends(), "once");
        assert!(!looking.begin_another(), "nobody has asked meanwhile");
        assert!(looking.begin());
        assert_eq!(*looking.rounds().borrow(), 2);
        assert!(!looking.ends(), "what was seen in the first round is not anew");
    }

    #[test]
    fn who_asks_during_a_round_is_answered_by_another_behind_it() {
        let mut looking = looking(&["db", "cache"]);
        assert!(looking.begin());
        looking.note(&looked("db", 1, false));
        for _ in 0..3 {
            assert!(!looking.begin(), "the database was looked at before the question");
        }
        assert_eq!(*looking.rounds().borrow(), 1, "one round at a time");
        looking.note(&looked("cache", 1, false));
        assert!(looking.ends());
        assert!(looking.begin_another());
        assert_eq!(*looking.rounds().borrow(), 2);
        assert!(!looking.ends(), "every look of it is still to be made");
        looking.note(&looked("db", 2, false));
        looking.note(&looked("cache", 2, false));
        assert!(looking.ends());
        assert!(!looking.begin_another(), "one for all who had asked");
    }

    #[test]
    fn nobody_waits_for_what_cannot_be_found() {
        let mut looking = looking(&["checks"]);
        assert!(looking.begin());
        assert!(!looking.ends());
        looking.note(&looked("checks", 1, true));
        assert!(looking.ends());
        assert!(looking.begin());
        assert!(looking.ends());
    }
}
