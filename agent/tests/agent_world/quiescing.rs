//! A quiesce that lets transactions end gives way to its undo, which opens when that has ended and never before.

use std::sync::atomic::Ordering;

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::*;

use super::coordinator::Coordinator;
use super::world::{Member, command, until};
use super::{ended, held, leading};

/// Its undo has opened, behind it.
async fn opened_behind_it(coordinator: &Coordinator, member: &Member, undo: u64) {
    until("the end of the undo", || ended(coordinator, undo).is_some()).await;
    assert_eq!(ended(coordinator, undo).unwrap().phase(), StepPhase::Succeeded);
    let driver = &member.driver;
    assert_eq!(driver.count("broken_off"), driver.count("quiesce"), "none goes on: {:?}", driver.calls());
    assert!(driver.last("unfence") > driver.last("broken_off"), "{:?}", driver.calls());
    assert!(driver.writable.load(Ordering::Relaxed), "closed behind it: {:?}", driver.calls());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiesce_that_lets_transactions_end_is_broken_off_by_its_undo() {
    let (group, a, running) = leading(1).await;
    a.driver.busy.store(true, Ordering::Relaxed);
    group[0].send("a", Body::Step(command(20, 1, StepKind::Quiesce)));
    until("that it lets transactions end", || a.driver.count("quiesce") == 1).await;
    let unfenced = a.driver.count("unfence");
    // By another stream.
    group[1].send("a", Body::Step(command(30, 1, StepKind::Unfence)));
    opened_behind_it(&group[0], &a, 30).await;
    assert_eq!(a.driver.count("unfence"), unfenced + 1);
    until("the end of the quiesce", || ended(&group[0], 20).is_some()).await;
    let quiesce = ended(&group[0], 20).unwrap();
    assert_eq!((quiesce.phase(), quiesce.code.as_str()), (StepPhase::Failed, "recorder"), "by its own word");

    // One that was overtaken by the undo on its way does not begin.
    group[2].send("a", Body::Step(command(25, 1, StepKind::Quiesce)));
    until("the refusal", || ended(&group[0], 25).is_some()).await;
    assert_eq!(ended(&group[0], 25).unwrap().code, "stale-token");
    assert_eq!(a.driver.count("quiesce"), 1);
    assert!(a.driver.writable.load(Ordering::Relaxed));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiesce_that_is_only_about_to_begin_comes_before_its_undo() {
    let (group, a, running) = leading(1).await;
    a.driver.busy.store(true, Ordering::Relaxed);
    let said = |token: u64, text: &str| {
        let control = group[0].control();
        let of_it = |status: &&StepStatus| status.token.is_some_and(|named| named.index == token);
        control.statuses.iter().filter(of_it).any(|status| status.message.contains(text))
    };
    // Something else is at work with the resource.
    group[0].send("a", Body::Step(StepCommand { position: Some(100), ..command(15, 1, StepKind::CatchUp) }));
    until("the step before", || a.driver.count("catch_up") == 1).await;
    group[0].send("a", Body::Step(command(20, 1, StepKind::Quiesce)));
    until("that it waits", || said(20, "another step")).await;
    group[0].send("a", Body::Step(command(30, 1, StepKind::Unfence)));
    until("the undo", || said(30, "begun")).await;
    assert_eq!(a.driver.count("quiesce"), 0);
    a.driver.position.store(100, Ordering::Relaxed);
    opened_behind_it(&group[0], &a, 30).await;
    assert_eq!(a.driver.count("quiesce"), 1);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiesce_that_is_repeated_at_the_start_is_broken_off_by_its_undo() {
    let (group, a, running) = leading(1).await;
    a.driver.busy.store(true, Ordering::Relaxed);
    let short = StepCommand { timeout_ms: 200, ..command(20, 1, StepKind::Quiesce) };
    group[0].send("a", Body::Step(short));
    until("its end", || ended(&group[0], 20).is_some()).await;
    assert_eq!(ended(&group[0], 20).unwrap().code, "timeout", "its record stands");
    assert_eq!(a.driver.count("quiesce"), 1);
    running.end().await;

    group.iter().for_each(|coordinator| coordinator.control().beats.clear());
    let running = a.start().await;
    held(&group, "a", 10).await;
    until("that it is repeated", || a.driver.count("quiesce") == 2).await;
    assert_eq!(a.driver.count("broken_off"), 0);
    group[0].send("a", Body::Step(command(30, 1, StepKind::Unfence)));
    until("the end of the undo", || ended(&group[0], 30).is_some()).await;
    assert_eq!(ended(&group[0], 30).unwrap().phase(), StepPhase::Succeeded);
    // The first one was ended by its time-out.
    assert_eq!(a.driver.count("broken_off"), 1);
    assert!(a.driver.last("unfence") > a.driver.last("broken_off"), "{:?}", a.driver.calls());
    assert!(a.driver.writable.load(Ordering::Relaxed), "closed behind it: {:?}", a.driver.calls());
    running.end().await;
}
