//! Looks on demand: all of them anew, one round at a time, and whoever asks meanwhile is answered with one that begins behind it.

use std::sync::atomic::Ordering;

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::*;

use super::coordinator::{Coordinator, Mode};
use super::world::{DB, Member, coordinators, terms, until};
use super::{D, all};

fn ask(coordinator: &Coordinator, number: u64) {
    coordinator.send("a", Body::LookNow(LookNow { number }));
}

/// Until the agent has heard all that was said to it before.
async fn heard(coordinator: &Coordinator) {
    let said = coordinator.beats_heard("a") as u64;
    let named = || coordinator.control().beats["a"].last().is_some_and(|beat| beat.receipt > said);
    until("a receipt that was sent after it", named).await;
}

/// The newest question of this coordinator that is answered, and what was found of the database up to then.
fn answered(coordinator: &Coordinator) -> (u64, Vec<String>) {
    let control = coordinator.control();
    let beats = control.beats.get("a").map(Vec::as_slice).unwrap_or_default();
    let looked = beats.last().map_or(0, |beat| beat.looked);
    let count = beats.iter().position(|beat| beat.looked == looked).map_or(0, |first| first + 1);
    let facts = beats[..count].iter().filter_map(|beat| beat.report.as_ref()).flat_map(|report| &report.facts);
    (looked, facts.filter(|fact| fact.resource == DB).map(|fact| fact.problem.clone()).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_on_demand_is_made_at_once_and_who_asks_meanwhile_is_answered_by_another() {
    let group = coordinators().await;
    let a = Member::new("a", &group).await;
    // Of the second database there is nothing to be found out.
    a.driver.finds.store(true, Ordering::Relaxed);
    let _guard = a.guard().await;
    all(&group, Mode::Withhold);
    let first = terms(10, 1, "a", D, &[&a]);
    group.iter().for_each(|coordinator| coordinator.set_terms(&first));
    let running = a.start().await;
    until("the agent at two coordinators", || group.iter().take(2).all(|one| one.beats_heard("a") > 0)).await;

    ask(&group[0], 5);
    until("an answer", || answered(&group[0]).0 == 5).await;
    let looks = a.driver.count("facts");
    let (_, found) = answered(&group[0]);
    assert_eq!(found.last(), Some(&format!("look {looks}")), "told before the answer or with it: {found:?}");
    assert_eq!(answered(&group[1]).0, 0, "it has not asked");

    // The next one by itself is a minute away.
    a.driver.slow_facts.store(true, Ordering::Relaxed);
    ask(&group[0], 6);
    until("the look", || a.driver.count("facts") == looks + 1).await;
    ask(&group[1], 2);
    ask(&group[0], 7);
    heard(&group[0]).await;
    heard(&group[1]).await;
    assert_eq!((answered(&group[0]).0, answered(&group[1]).0), (5, 0), "the look is under way");
    a.driver.slow_facts.store(false, Ordering::Relaxed);
    until("an answer to all", || answered(&group[0]).0 == 7 && answered(&group[1]).0 == 2).await;
    // The look that was under way may have seen what was before they asked.
    assert_eq!(a.driver.count("facts"), looks + 2, "one more look for both of them");
    for coordinator in group.iter().take(2) {
        let (_, found) = answered(coordinator);
        assert_eq!(found.last(), Some(&format!("look {}", looks + 2)));
    }
    running.end().await;
}
