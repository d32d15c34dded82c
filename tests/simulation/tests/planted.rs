//! Known mistakes, put back into the real code one at a time: each is found by the simulation.
//!
//! The table names a seed that is known to find each. Where the code has changed so much that it no longer does, the
//! seeds are searched, and what is found is told: it belongs into the table then.

#![allow(clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

use std::ops::Range;
use std::time::Instant;

use regent_core::planted::Mistake;
use regent_simulation::Failure;

/// Each must be found within these.
const SEEDS: Range<u64> = 0..2_000;

/// Who finds it, and by which promise.
const KNOWN: &[(Mistake, u64, &str)] = &[];

#[test]
fn every_mistake_is_found() {
    let begun = Instant::now();
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        let known = KNOWN.iter().find(|(known, ..)| *known == mistake);
        let at_once = known.and_then(|(_, seed, _)| regent_simulation::run_with(*seed, mistake, false).result.err());
        let searched = at_once.is_none();
        match at_once.or_else(|| regent_simulation::search(mistake, SEEDS, jobs)) {
            Some(Failure { seed, promise, how, .. }) => {
                let new = if searched { " (new: put it into the table)" } else { "" };
                println!("{mistake:?}: seed {seed}{new}: {promise}: {how}");
            }
            None => missed.push(mistake),
        }
    }
    println!("{} mistakes, {:?}", Mistake::ALL.len(), begun.elapsed());
    assert!(missed.is_empty(), "not found in {SEEDS:?}: {missed:?}");
}

#[test]
fn the_seeds_of_the_table_find_nothing_without_a_mistake() {
    for (_, seed, _) in KNOWN {
        if let Err(failure) = regent_simulation::run(*seed, false).result {
            panic!("{failure}");
        }
    }
}
