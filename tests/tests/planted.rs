//! Known mistakes, put back into the real code one at a time: each is found by the simulation.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use regent_core::planted::Mistake;
use regent_tests::simulation;

/// Each must be found within these.
const SEEDS: Range<u64> = 0..2_000;

#[test]
fn every_mistake_is_found() {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        let (next, found) = (AtomicU64::new(SEEDS.start), AtomicU64::new(u64::MAX));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= SEEDS.end || seed > found.load(Ordering::Relaxed) {
                            break;
                        }
                        if let Err(failure) = simulation::run_with(seed, mistake).result
                            && found.fetch_min(seed, Ordering::Relaxed) > seed
                        {
                            println!("{mistake:?}: seed {seed}: {}: {}", failure.promise, failure.how);
                        }
                    }
                });
            }
        });
        if found.into_inner() == u64::MAX {
            missed.push(mistake);
        }
    }
    assert!(missed.is_empty(), "not found in {SEEDS:?}: {missed:?}");
}
