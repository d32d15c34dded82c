//! The simulation of the real code: many seeds, and the same seed twice. The module says what is real in it.
//!
//! `REGENT_SEEDS=0..2000` says which; without it there are as many as fit beside the other tests. The
//! command for a million is `simulate --seeds 0..1000000`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use regent_simulation::fault::Kind;
use regent_simulation::{AIMED, Outcome, SEVERAL};

/// In the seeds of an ordinary run each kind of fault begins at least so often.
const AT_LEAST: u64 = 10;

fn seeds(otherwise: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("REGENT_SEEDS") else { return otherwise };
    let parsed = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.unwrap_or_else(|| panic!("REGENT_SEEDS is {text:?}; write FIRST..LAST"))
}

/// Runs seeds on as many threads as there are cores.
fn each(seeds: Range<u64>, look: impl Fn(u64, Outcome) + Sync) {
    let (next, end) = (AtomicU64::new(seeds.start), seeds.end);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    look(seed, regent_simulation::run(seed, false));
                }
            });
        }
    });
}

#[test]
fn every_promise_holds_for_every_seed() {
    let (seeds, began) = (seeds(0..2_000), Instant::now());
    let (settled, held) = (AtomicU64::new(0), AtomicU64::new(0));
    let faults = Mutex::new(BTreeMap::<Kind, u64>::new());
    each(seeds.clone(), |_, outcome| match outcome.result {
        Ok(end) => {
            let mut faults = faults.lock().expect("no thread has panicked");
            for (kind, count) in outcome.began {
                *faults.entry(kind).or_default() += count;
            }
            settled.fetch_add(1, Ordering::Relaxed);
            held.fetch_add(u64::from(end.held.is_some()), Ordering::Relaxed);
        }
        Err(failure) => panic!("{failure}"),
    });
    let (settled, held) = (settled.into_inner(), held.into_inner());
    println!("{settled} seeds in {:?}; {held} of them not served in the end, by a name", began.elapsed());
    let faults = faults.into_inner().expect("no thread has panicked");
    let count = |kind: &Kind| faults.get(kind).copied().unwrap_or_default();
    for kind in Kind::ALL {
        println!("{:>7} x {kind:?}", count(kind));
    }
    assert_eq!(settled, seeds.end - seeds.start);
    if settled >= 2_000 {
        let rare: Vec<&Kind> = Kind::ALL.iter().filter(|kind| count(kind) < AT_LEAST).collect();
        assert!(rare.is_empty(), "these faults began less than {AT_LEAST} times: {rare:?}");
    }
    assert!(held * 4 < settled, "a check of what is never served checks little");
}

#[test]
fn every_promise_holds_for_each_of_two_applications() {
    let (seeds, moved) = (SEVERAL..SEVERAL + 200, AtomicU64::new(0));
    each(seeds.clone(), |_, outcome| match outcome.result {
        Ok(end) => {
            moved.fetch_add(u64::from(end.other.is_some_and(|epoch| epoch > 1)), Ordering::Relaxed);
        }
        Err(failure) => panic!("{failure}"),
    });
    let moved = moved.into_inner();
    println!("the second application has moved in {moved} of {} seeds", seeds.end - seeds.start);
    assert!(moved > 0, "it never moved: little was shown");
}

#[test]
fn every_promise_holds_where_one_rule_is_aimed_at() {
    let (seeds, moved) = (AIMED..AIMED + 200, AtomicU64::new(0));
    each(seeds.clone(), |_, outcome| match outcome.result {
        Ok(end) => {
            moved.fetch_add(u64::from(end.epoch > 1), Ordering::Relaxed);
        }
        Err(failure) => panic!("{failure}"),
    });
    let (moved, all) = (moved.into_inner(), seeds.end - seeds.start);
    println!("the application has moved in {moved} of {all} seeds");
    assert!(moved * 2 > all, "most of them should bring about a failover");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let again = |seed: u64, first: Outcome| {
        let second = regent_simulation::run(seed, false);
        assert!(first.events > 1_000, "seed {seed}: nothing happened");
        let (first, second) = ((first.hash, first.events), (second.hash, second.events));
        let command = regent_simulation::command(seed, None, true);
        assert_eq!(first, second, "seed {seed} was not the same twice; repeat it: {command}");
    };
    each(0..24, again);
    each(SEVERAL..SEVERAL + 8, again);
    each(AIMED..AIMED + 10, again);
    let other = regent_simulation::run(1, false);
    assert_ne!(regent_simulation::run(0, false).hash, other.hash, "seeds differ");
}
