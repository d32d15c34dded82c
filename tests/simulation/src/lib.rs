//! The real coordinator and agent code in a simulated world, the same for the same seed.
//!
//! ```text
//!  true time ──► step ──► network delivers ──► each process runs up to its machine's time ──► databases, clients
//!                  ▲                                                                              │
//!                  └──────── faults of the seed ◄──────────── invariants look at everything ◄─────┘
//! ```
//!
//! *Real* are: raft with openraft on redb, observer, engine, relay and gRPC services of the coordinator; loop, leases,
//! uplinks, steps, witness, journal and guard of the agent. *Modelled* are: the network under gRPC (as ordered streams
//! that can be cut, held and reset), machines with their clocks and power, databases and the name behind the `Driver`
//! trait, and clients. TLS is not there: whom a certificate would name is said by the network.
//!
//! What makes it deterministic
//! - One thread. Every process has a paused tokio runtime of its own, stepped in turn up to its machine's local time.
//!   Nothing passes between processes but through the network and the databases, in an order that the world chooses.
//! - No thread writes: raft's log and the journal are written in place, on a file system in memory.
//! - Clocks are given; instants and timers are the runtime's. Election time-outs are drawn from a seeded source. What
//!   stays random (UUIDs, keys, nonces) has a fixed size and orders nothing.
//! - Selects look at their branches in a fixed order.
//!
//! `tests/simulation.rs` runs seeds twice and compares the hash of everything that happened.

#![allow(clippy::expect_used, reason = "a world that cannot be built is a failure of the test")]

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

pub mod client;
pub mod clock;
pub mod database;
pub mod dice;
pub mod fault;
pub mod invariant;
pub mod network;
pub mod program;
pub mod trace;

mod carrier;
mod process;
mod world;

/// From this seed on there are two applications in the world. Seeds below it are what they were without the second one.
pub const SEVERAL: u64 = 1_000_000_000;

/// From this seed on each run is aimed at one rule: see [`fault::Aim`]. There is one application in its world.
pub const AIMED: u64 = 2_000_000_000;

/// How a run ended well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The epoch in the end.
    pub epoch: u64,
    /// That of the second application; none if there is none.
    pub other: Option<u64>,
    /// Why the application is not served, by name; none if it is.
    pub held: Option<String>,
    /// How long the run was in the world's time.
    pub virtual_millis: u64,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In which run.
    pub seed: u64,
    /// Which promise.
    pub promise: String,
    /// How.
    pub how: String,
    /// The known mistake that was in the code, by its name.
    pub mistake: Option<String>,
    /// The last of what happened.
    pub lines: Vec<String>,
}

/// The command that runs one seed again: with the known mistake that was in the code, and twice where the two runs are
/// to be compared.
#[must_use]
pub fn command(seed: u64, mistake: Option<&str>, twice: bool) -> String {
    let features = if mistake.is_some() { " --features regent-simulation/planted" } else { "" };
    let mutation = mistake.map(|name| format!(" --mutation {name}")).unwrap_or_default();
    let twice = if twice { " --twice" } else { "" };
    format!("cargo run{features} --bin simulate -- --seeds {seed}..{}{mutation}{twice} --aloud", seed + 1)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, promise, how, mistake, lines } = self;
        for line in lines.iter().rev().take(60).rev() {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "seed {seed}: {promise}: {how}")?;
        write!(f, "repeat it: {}", command(*seed, mistake.as_deref(), false))
    }
}

/// What came of one seed.
#[derive(Debug)]
pub struct Outcome {
    /// Of everything that happened.
    pub hash: u64,
    /// How much that was.
    pub events: u64,
    /// How many faults of each kind began; a kind that never did is not in it.
    pub began: BTreeMap<fault::Kind, u64>,
    /// How it ended.
    pub result: Result<Settled, Failure>,
}

/// As [`run`], with a known mistake in the code.
#[cfg(feature = "planted")]
#[must_use]
pub fn run_with(seed: u64, mistake: regent_core::planted::Mistake, aloud: bool) -> Outcome {
    regent_core::planted::plant(Some(mistake));
    let mut outcome = run(seed, aloud);
    regent_core::planted::plant(None);
    if let Err(failure) = &mut outcome.result {
        failure.mistake = Some(format!("{mistake:?}"));
    }
    outcome
}

/// True if a failure shows that a promise of the product was broken. A world that did not come up and a panic show only
/// that something is wrong.
#[must_use]
pub fn breaks_a_promise(failure: &Failure) -> bool {
    !["setup", "simulation", "no panic"].contains(&failure.promise.as_str())
}

/// The first seed that finds a known mistake, by the promise that it breaks. Of the runs that are aimed at one rule as many
/// are tried, by turns.
#[cfg(feature = "planted")]
#[must_use]
pub fn search(mistake: regent_core::planted::Mistake, seeds: std::ops::Range<u64>, jobs: usize) -> Option<Failure> {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, PoisonError};

    let both = seeds.end <= SEVERAL;
    let turns = (seeds.end - seeds.start) * if both { 2 } else { 1 };
    let seed_of = |turn: u64| match (both, turn % 2) {
        (false, _) => seeds.start + turn,
        (true, 0) => seeds.start + turn / 2,
        (true, _) => AIMED + seeds.start + turn / 2,
    };
    let (next, found) = (AtomicU64::new(0), Mutex::new(None::<(u64, Failure)>));
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= lock().as_ref().map_or(turns, |(known, _)| *known) {
                        break;
                    }
                    let failed = run_with(seed_of(turn), mistake, false).result.err();
                    if let Some(failure) = failed.filter(breaks_a_promise) {
                        let mut found = lock();
                        if found.as_ref().is_none_or(|(known, _)| turn < *known) {
                            *found = Some((turn, failure));
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.map(|(_, failure)| failure)
}

/// Runs one seed on this thread.
#[must_use]
pub fn run(seed: u64, aloud: bool) -> Outcome {
    regent_coordinator::raft::seed_this_thread(dice::Dice::of(seed, "raft").any());
    let place = tempfile::Builder::new().prefix("regent-simulation").tempdir_in(memory());
    let place = match place {
        Ok(place) => place,
        Err(error) => return broken(seed, &format!("no place for the disks: {error}")),
    };
    let mut world = world::World::new(seed, place.path(), aloud);
    let ran = catch_unwind(AssertUnwindSafe(|| world.run()));
    let (hash, events) = (world.trace().hash(), world.trace().events());
    let result = ran.unwrap_or_else(|_| {
        let lines = world.trace().lines();
        let (promise, how) = ("no panic".to_owned(), "something panicked".to_owned());
        Err(Failure { seed, promise, how, mistake: None, lines })
    });
    Outcome { hash, events, began: world.began().clone(), result }
}

fn broken(seed: u64, how: &str) -> Outcome {
    let (promise, how) = ("simulation".to_owned(), how.to_owned());
    let failure = Failure { seed, promise, how, mistake: None, lines: Vec::new() };
    Outcome { hash: 0, events: 0, began: BTreeMap::new(), result: Err(failure) }
}

/// A file system in memory, where there is one: a thousand worlds wear out no disk.
fn memory() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new("/tmp") }
}

#[cfg(test)]
mod tests {
    use super::{Failure, command};

    #[test]
    fn a_failure_tells_the_command_that_repeats_it() {
        let failure = |mistake: Option<&str>| Failure {
            seed: 7,
            promise: "S1".to_owned(),
            how: "two".to_owned(),
            mistake: mistake.map(str::to_owned),
            lines: Vec::new(),
        };
        let plain = "seed 7: S1: two\nrepeat it: cargo run --bin simulate -- --seeds 7..8 --aloud";
        assert_eq!(failure(None).to_string(), plain);
        assert_eq!(
            failure(Some("DoubledVote")).to_string(),
            "seed 7: S1: two\nrepeat it: cargo run --features regent-simulation/planted --bin simulate -- --seeds 7..8 \
             --mutation DoubledVote --aloud"
        );
        assert_eq!(command(7, None, true), "cargo run --bin simulate -- --seeds 7..8 --twice --aloud");
    }
}
