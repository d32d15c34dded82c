//! The safety protocol, searched: no promise is broken in any state of any world, and every known mistake breaks the one
//! that it is said to.
//!
//! The long form, and the way to look at one world or one mistake: `cargo run -p regent-model -- --help`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

use std::collections::VecDeque;
use std::sync::Mutex;

use regent_model::{Mistake, Report, World, search};

/// More than any of these searches takes.
const MOST: usize = 100_000_000;

/// A test for each world, so that each has its own time.
macro_rules! worlds {
    ($($name:ident),*) => {
        $(
            #[test]
            fn $name() {
                no_promise_is_broken_in(stringify!($name));
            }
        )*

        #[test]
        fn each_world_is_searched() {
            let searched = [$(stringify!($name)),*];
            let all: Vec<&str> = World::all().iter().map(|world| world.name).collect();
            assert_eq!(searched.as_slice(), all.as_slice());
        }
    };
}

worlds!(
    votes,
    decisions,
    lease,
    across,
    lowered,
    voters,
    joining,
    pause,
    resources,
    adoption,
    promises,
    clusters,
    evidence,
    numbers,
    promotion,
    fences,
    machines,
    disks,
    restoration,
    backup
);

fn no_promise_is_broken_in(name: &str) {
    let report = search(World::named(name).expect("a world"), None, 2, MOST);
    println!("{name}: {} states, {} steps deep, {:?}", report.states, report.depth, report.took);
    assert!(report.broken.is_empty(), "{name}\n{}", told(&report));
    assert!(report.complete, "{name}: given up before the end");
    assert!(report.taken_over, "{name}: no state was seen in which another cluster takes over");
    if name == "machines" {
        assert!(report.states > 1_000_000, "{} states are few", report.states);
    }
}

#[test]
fn every_known_mistake_is_found() {
    let queue = Mutex::new(VecDeque::from(Mistake::ALL));
    let missed = Mutex::new(Vec::new());
    // A search for a shortest trace has one thread; the machine has two.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(mistake) = { queue.lock().unwrap().pop_front() } {
                    let world = World::named(mistake.world()).expect("each mistake belongs to a world");
                    let report = search(world, Some(mistake), 1, MOST);
                    println!(
                        "{}, in {} of {} states:\n{}",
                        mistake.name(),
                        mistake.world(),
                        report.states,
                        told(&report)
                    );
                    let promise = mistake.promise();
                    if !report.broken.iter().any(|broken| broken.promise == promise && !broken.trace.is_empty()) {
                        missed.lock().unwrap().push((mistake.name(), promise));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Each broken promise, and the way to it.
fn told(report: &Report) -> String {
    let mut text = String::new();
    for broken in &report.broken {
        text.push_str(&format!("  broken: {}\n", broken.promise));
        for (number, line) in (1..).zip(&broken.trace) {
            text.push_str(&format!("  {number:>3}. {line}\n"));
        }
    }
    text
}
