//! The breaker: which clusters count, what it holds up, and when it lifts itself.

use regent_core::breaker;
use regent_core::decide::decide;
use regent_core::entry::Entry;
use regent_core::time::{Moment, Span};

use crate::deciding::{held, ripe, seen, voted};
use crate::fixture::*;

/// A third cluster, listed or retired, was lost for good before the west is.
fn lost_beside_north(listed: bool) -> World {
    let mut world = World::protected();
    let north = cluster("north-1");
    world.done(Entry::AgentRegistered(agent(&north, "in")));
    let mut document = document();
    document.clusters.push(north.clone());
    world.done(Entry::Applied { application: Box::new(document.clone()), by: "ann".into() });
    for observer in [1, 2] {
        world.vote(observer, &north, 1, Span::ZERO);
    }
    if !listed {
        document.clusters.pop();
        world.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    }
    for observer in [1, 2] {
        world.vote(observer, &west(), 1, Span::ZERO);
    }
    world
}

#[test]
fn two_of_three_lost_at_once_are_too_many() {
    assert!(!breaker::is_calm(&lost_beside_north(true).state));
}

#[test]
fn a_cluster_that_was_retired_while_it_stood_lost_does_not_count() {
    assert!(breaker::is_calm(&lost_beside_north(false).state));
}

#[test]
fn several_lost_at_once_freeze_everything() {
    let (mut world, votes) = voted();
    world.vote(1, &central(), 1, Span::ZERO);
    world.vote(2, &central(), 1, Span::ZERO);
    let entries = decide(&world.state, &seen(&votes, ripe()), view(ripe(), &world));
    assert!(matches!(entries.first(), Some(Entry::Frozen { .. })), "{entries:?}");
    world.done(entries[0].clone());
    assert!(held(&world, &seen(&votes, ripe()), ripe()).contains(&"frozen".to_owned()));
}

#[test]
fn several_lost_at_once_decide_nothing_in_the_very_look_that_sees_it() {
    let (mut world, votes) = voted();
    world.vote(1, &central(), 1, Span::ZERO);
    world.vote(2, &central(), 1, Span::ZERO);
    let entries = decide(&world.state, &seen(&votes, ripe()), view(ripe(), &world));
    assert!(entries.iter().all(|entry| !matches!(entry, Entry::Decide { .. })), "{entries:?}");
    let frozen = entries.into_iter().find(|entry| matches!(entry, Entry::Frozen { .. })).unwrap();
    world.done(frozen);
    // A human has looked: it does not freeze again for the same clusters.
    world.done(Entry::Acknowledged { application: None, by: "ann".into() });
    let again = decide(&world.state, &seen(&votes, ripe()), view(ripe(), &world));
    assert!(!again.iter().any(|entry| matches!(entry, Entry::Frozen { .. })), "{again:?}");
    assert!(!held(&world, &seen(&votes, ripe()), ripe()).contains(&"frozen".to_owned()));
}

#[test]
fn the_breaker_lifts_itself_d_after_its_condition_has() {
    let (mut world, votes) = voted();
    world.vote(1, &central(), 1, Span::ZERO);
    world.vote(2, &central(), 1, Span::ZERO);
    let frozen = decide(&world.state, &seen(&votes, ripe()), view(ripe(), &world));
    world.done(frozen.into_iter().find(|entry| matches!(entry, Entry::Frozen { .. })).unwrap());
    world.done(withdraw(1, 1, &central(), 2));
    assert!(breaker::is_calm(&world.state));
    let thaws = |world: &World, since: Option<Moment>, now: Moment| {
        let mut evidence = seen(&votes, now);
        evidence.calm_since = since;
        decide(&world.state, &evidence, view(now, world)).contains(&Entry::Thawed)
    };
    let bound = Span::from_secs(10);
    assert!(!thaws(&world, None, ripe()), "this leader has not looked yet");
    assert!(!thaws(&world, Some(ripe()), ripe().after(bound.minus(Span::from_millis(1)))));
    assert!(thaws(&world, Some(ripe()), ripe().after(bound)));
    // Until then it holds, though fewer are lost than made it close.
    assert!(held(&world, &seen(&votes, ripe()), ripe()).contains(&"frozen".to_owned()));
    world.done(Entry::Thawed);
    assert!(!held(&world, &seen(&votes, ripe()), ripe()).contains(&"frozen".to_owned()));
    // What is lost again closes it again, at once.
    world.vote(1, &central(), 3, Span::ZERO);
    assert!(!thaws(&world, Some(ripe()), ripe().after(bound)));
}
