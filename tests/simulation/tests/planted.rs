//! Known mistakes, put back into the real code one at a time: each is found by the simulation.
//!
//! The table names a seed that finds each, and the promise that it breaks there. Where the code has changed so much that
//! it no longer does, the seeds are searched, and what is found is told: it belongs into the table then. Seeds from
//! 2,000,000,000 on are of runs that are aimed at one rule each.

#![allow(clippy::panic, clippy::print_stdout, missing_docs, reason = "tests")]

use std::ops::Range;

use regent_core::planted::Mistake;
use regent_simulation::breaks_a_promise;

/// Each must be found within these, or as many that are aimed at one rule each.
const SEEDS: Range<u64> = 0..2_000;

/// A test for each line: the mistake, a seed that finds it, and the promise that it breaks there.
macro_rules! found {
    ($($test:ident: $mistake:ident, $seed:literal, $promise:literal;)*) => {
        const KNOWN: &[Mistake] = &[$(Mistake::$mistake),*];
        $(
            #[test]
            fn $test() {
                find(Mistake::$mistake, $seed, $promise);
            }
        )*
    };
}

found! {
    a_lease_that_runs_for_the_whole_bound: LeaseForWholeBound, 149, "S1, one writer";
    a_lease_by_one_grant: LeaseByOneGrant, 39, "S1, one writer";
    a_guard_that_sleeps: GuardAsleep, 7, "S1, one writer";
    a_guard_that_is_not_started_again: GuardNotStarted, 204, "L1";
    a_promise_that_was_forgotten: PromiseForgotten, 257, "S1, one writer";
    a_promise_that_is_too_short: PromiseTooShort, 257, "S1, one writer";
    nobody_asked_for_promises: FailsafeUnasked, 21, "S6, coordinator trouble alone changes nothing";
    a_fence_that_is_never_lifted: FenceNeverLifted, 6, "L1";
    a_closed_database_that_stays_closed: ClosedStaysClosed, 89, "L1";
    a_grant_that_was_not_noted: GrantNotNoted, 7, "S1, one writer";
    a_vote_that_is_never_withdrawn: NeverWithdrawn, 3, "L1";
    a_decision_at_once: DecideAtOnce, 20, "S1, one writer";
    a_decision_by_one_vote: DecideByOneVote, 36, "L1";
    an_epoch_that_stays: EpochStays, 0, "S2, epochs only rise";
    an_old_side_that_is_not_excluded: OldSideEligible, 35, "S1, no acknowledged row missing beyond the report";
    a_name_that_stays: AnswerStays, 0, "L1";
    a_log_that_is_not_written: LogNotWritten, 12, "L1";
    a_copied_disk_that_is_taken: CopiedDiskTaken, 1, "an old disk is refused";
    a_restored_group_below_the_agents: EpochOfBackup, 29, "S2, a restored group goes on above all epochs";
    a_pause_that_holds_nothing: PauseIgnored, 42, "a pause holds";
    a_rogue_that_is_left: RogueLeft, 223, "a rogue writer is fenced and told";
    a_rewind_without_a_word: RewindUnasked, 15, "S5, nothing is deleted";
    a_coordinator_that_is_not_dialled_again: NeverRedialled, 6, "L1";
    a_step_that_is_dispatched_once: DispatchedOnce, 101, "L1";
    a_grant_from_its_receipt: GrantFromReceipt, 2_000_000_000, "S1, one writer";
    an_opening_without_the_lease: OpenWithoutLease, 2_000_000_001, "S1, one writer";
    a_fence_that_is_assumed: FenceAssumed, 2_000_000_002, "S1, one writer";
    a_grant_beside_a_vote: GrantBesideVote, 2_000_000_003, "S1, one writer";
    a_grant_before_the_withdrawal: WithdrawalUnapplied, 2_000_000_014, "S1, one writer";
}

/// The seed breaks the promise with the mistake, and none without it.
fn find(mistake: Mistake, seed: u64, promise: &str) {
    let with = regent_simulation::run_with(seed, mistake, false).result.err().filter(breaks_a_promise);
    match with.filter(|failure| failure.promise == promise) {
        Some(failure) => println!("{mistake:?}: {}: {}", failure.promise, failure.how),
        None => {
            let jobs = std::thread::available_parallelism().map_or(2, usize::from);
            let Some(failure) = regent_simulation::search(mistake, SEEDS, jobs) else {
                panic!("{mistake:?} is not found in {SEEDS:?}");
            };
            panic!(
                "seed {seed} no longer finds {mistake:?} by {promise:?}; seed {} does: put it into the table: {}: {}",
                failure.seed, failure.promise, failure.how
            );
        }
    }
    if let Err(failure) = regent_simulation::run(seed, false).result {
        panic!("without {mistake:?}: {failure}");
    }
}

#[test]
fn every_mistake_has_its_line() {
    let mut missing = Mistake::ALL.to_vec();
    missing.retain(|mistake| !KNOWN.contains(mistake));
    assert!(missing.is_empty(), "no seed is known that finds {missing:?}: `simulate --mutations --seeds 0..2000`");
}
