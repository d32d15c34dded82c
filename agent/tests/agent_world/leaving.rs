//! Agent and guard are told to end: whoever goes last leaves nothing open that nobody would fence.

use regent_proto::agent::v1::*;
use tokio_util::sync::CancellationToken;

use crate::coordinator::Coordinator;
use crate::world::{Member, Running, coordinators, terms, until};

/// The end of no lease comes within a test.
const LONG: u64 = 60_000;

async fn leading() -> ([Coordinator; 3], Member, Running, CancellationToken, std::thread::JoinHandle<()>) {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    let stop = CancellationToken::new();
    let guard = a.guard_apart(stop.clone()).await;
    let first = terms(10, 1, "a", LONG, &[&a]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&first));
    let running = a.start().await;
    crate::held(&group, "a", 10).await;
    (group, a, running, stop, guard)
}

async fn ended(guard: std::thread::JoinHandle<()>) {
    until("the guard's end", || guard.is_finished()).await;
    guard.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_is_ended_without_an_agent_fences_what_counts() {
    let (_group, a, running, stop, guard) = leading().await;
    running.end().await;
    assert_eq!(a.driver.count("fenced") + a.driver.count("fence_hard"), 0, "the guard counts on");
    stop.cancel();
    ended(guard).await;
    assert_eq!(a.driver.count("fence_hard"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_guard_was_ended_fences_before_it_ends() {
    let (group, a, running, stop, guard) = leading().await;
    stop.cancel();
    ended(guard).await;
    until("that it says so", || group[0].last("a").is_some_and(|beat| !beat.guard_alive)).await;
    assert_eq!(a.driver.count("fenced") + a.driver.count("fence_hard"), 0, "its lease runs, and it is there");
    running.end().await;
    assert_eq!((a.driver.count("fenced"), a.driver.count("fence_hard")), (1, 0));
}
