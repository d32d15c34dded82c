//! A rejoin whose run was aborted: its agent is not told, finishes it, and begins no other one beside it.

use std::sync::atomic::Ordering;

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::{StepCommand, StepKind, StepPhase, StepStatus};

use super::world::{Member, command, coordinators, terms, until};
use super::{D, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_rejoin_waits_for_one_that_is_under_way_and_a_higher_epoch_ends_it() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let running = b.start().await;
    until("the terms", || group[0].last("b").is_some_and(|beat| beat.epoch == 1)).await;
    let rejoin = |run: u64, token: u64| StepCommand {
        run,
        step: 0,
        upstream_cluster: "a".to_owned(),
        ..command(token, 1, StepKind::Rejoin)
    };
    let rejoins = || b.driver.calls().into_iter().filter(|call| call.starts_with("rejoin")).collect::<Vec<_>>();

    b.driver.slow_rejoin.store(true, Ordering::Relaxed);
    group[0].send("b", Body::Step(rejoin(7, 20)));
    until("that it is at work", || rejoins() == ["rejoin"]).await;
    // The run was aborted, and the operator has it rejoin again.
    group[0].send("b", Body::Step(rejoin(8, 30)));
    let waits = || {
        let control = group[0].control();
        let of_the_next = |status: &&StepStatus| status.run == 8;
        control.statuses.iter().filter(of_the_next).any(|status| status.message.contains("waits for another step"))
    };
    until("that the next one waits", waits).await;
    assert_eq!(rejoins(), ["rejoin"], "two at once would work in the same files");
    assert!(ended(&group[0], 20).is_none());
    b.driver.slow_rejoin.store(false, Ordering::Relaxed);
    until("the end of both", || [20, 30].iter().all(|token| ended(&group[0], *token).is_some())).await;
    for token in [20, 30] {
        assert_eq!(ended(&group[0], token).unwrap().phase(), StepPhase::Succeeded);
    }
    assert_eq!(rejoins(), ["rejoin", "rejoined", "rejoin", "rejoined"]);

    // What the next failover commands does not wait for it.
    b.driver.slow_rejoin.store(true, Ordering::Relaxed);
    group[0].send("b", Body::Step(rejoin(9, 40)));
    until("that it is at work", || rejoins().len() == 5).await;
    group[0].send("b", Body::Step(command(50, 2, StepKind::Verify)));
    until("the end of both", || [40, 50].iter().all(|token| ended(&group[0], *token).is_some())).await;
    let superseded = ended(&group[0], 40).unwrap();
    assert_eq!((superseded.code.as_str(), superseded.retryable), ("superseded", false), "{superseded:?}");
    assert_eq!(ended(&group[0], 50).unwrap().phase(), StepPhase::Succeeded);
    assert_eq!(rejoins().last(), Some(&"rejoin"), "it was ended in the middle");
    running.end().await;
}
