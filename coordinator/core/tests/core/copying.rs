//! Two streams, two processes, two machines under one agent's name: what an observer makes of them.

use std::collections::BTreeMap;

use regent_core::entry::Entry;
use regent_core::id::{CoordinatorId, Epoch, Incarnation, InstallationId};
use regent_core::observer::Observer;
use regent_core::time::{Moment, Span};

use crate::fixture::*;

const START: u64 = 1_000_000;

#[test]
fn a_heartbeat_that_was_overtaken_takes_no_grant_back() {
    let world = World::protected();
    let mut observer = Observer::new(CoordinatorId(1), Incarnation(1), Moment(START));
    let epochs = BTreeMap::from([(app(), Epoch(1))]);
    let installation = InstallationId("iw".into());
    let beat = |observer: &mut Observer, at: u64| {
        let answer = observer.heard(&world.state, Moment(at), &by(&installation, 0, &epochs));
        assert_eq!(answer.grants, vec![(app(), Epoch(1))]);
    };
    beat(&mut observer, START + 100);
    // It read the clock before the other one did, and came to the lock after it.
    beat(&mut observer, START);
    let on_west = |entry: &Entry| matches!(entry, Entry::Vote { cluster, .. } if *cluster == west());
    let mut now = START;
    let word = loop {
        now += 50;
        let words = observer.tick(&world.state, Moment(now), true);
        if let Some(word) = words.into_iter().find(on_west) {
            break word;
        }
        assert!(now < START + 10_000, "nobody votes");
    };
    let silence = Span::from_millis(now - START - 100);
    assert_eq!(word, vote(1, 1, &west(), 1, silence), "since the last grant");
}
