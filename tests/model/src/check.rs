//! Searching a world to its end, or to the first state that must not be.

use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use super::healing::continuation;
use super::mistake::Mistake;
use super::protocol::{GOES_ON, Protocol};
use super::story::tell;
use super::world::World;

/// What a search saw.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states.
    pub states: usize,
    /// The longest of the shortest ways to one.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// It did not end for having tried enough.
    pub complete: bool,
    /// In some state another cluster has taken over: the search has seen what it is about.
    pub taken_over: bool,
    /// The shortest way to each broken promise.
    pub broken: Vec<Broken>,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which.
    pub promise: &'static str,
    /// How, step by step.
    pub trace: Vec<String>,
}

/// Searches all states of a world, each promise in each; or with a mistake to the first broken promise.
///
/// It ends early when `most` ways to states were tried. With one thread the first trace found is a shortest one.
#[must_use]
pub fn search(world: World, mistake: Option<Mistake>, threads: usize, most: usize) -> Report {
    let begun = Instant::now();
    let protocol = Protocol::new(world, mistake);
    let checker = protocol.clone().checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.target_state_count(most).spawn_bfs().join();
    let mut broken = Vec::new();
    for (promise, path) in checker.discoveries() {
        let path = path.into_vec();
        let steps = path.iter().zip(path.iter().skip(1));
        let told = steps.filter_map(|((before, action), (after, _))| Some(tell(before, action.as_ref()?, after)));
        let mut trace: Vec<String> = told.collect();
        if let Some((last, _)) = path.last().filter(|_| promise == GOES_ON) {
            trace.extend(continuation(&protocol.world, mistake, last));
        }
        broken.push(Broken { promise, trace });
    }
    Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: begun.elapsed(),
        complete: checker.state_count() < most,
        taken_over: protocol.has_seen_another_open(),
        broken,
    }
}
