//! The breaker: which clusters count.

use regent_core::breaker;
use regent_core::entry::Entry;
use regent_core::time::Span;

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
