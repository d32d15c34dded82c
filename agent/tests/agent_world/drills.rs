//! Steps of drills beside real ones: neither ends the other or makes it look old, and a clean-up comes through always.

use std::sync::atomic::Ordering;

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::{StepCommand, StepKind, StepPhase};

use super::world::{Member, command, coordinators, terms, until};
use super::{D, ended, leading};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_and_real_steps_have_nothing_to_do_with_each_other() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let running = b.start().await;
    until("the terms", || group[0].last("b").is_some_and(|beat| beat.epoch == 1)).await;
    let send = |body: StepCommand| group[0].send("b", Body::Step(body));
    let code = |token| ended(&group[0], token).map(|end| (end.phase(), end.code));
    let succeeded = Some((StepPhase::Succeeded, String::new()));
    let refused = |code: &str| Some((StepPhase::Failed, code.to_owned()));

    b.driver.slow_copy.store(true, Ordering::Relaxed);
    send(command(20, 1, StepKind::RehearsePromote));
    until("the copying", || b.driver.count("copy") == 1).await;
    // A real step with a lower token, on the same resource: it is neither old nor held up.
    b.driver.position.store(100, Ordering::Relaxed);
    send(StepCommand { position: Some(100), ..command(15, 1, StepKind::CatchUp) });
    until("the real step", || code(15).is_some()).await;
    assert_eq!(code(15), succeeded);
    assert_eq!(code(20), None, "a real step has ended the drill");

    // The clean-up ends what still copies.
    send(command(30, 1, StepKind::RehearseCleanUp));
    until("the clean-up", || code(30).is_some()).await;
    assert_eq!((code(20), code(30)), (refused("superseded"), succeeded.clone()));
    assert_eq!(b.driver.count("clean_up"), 1);
    b.driver.slow_copy.store(false, Ordering::Relaxed);
    // A copy that was commanded before, and was under way for long.
    send(command(25, 1, StepKind::RehearsePromote));
    until("the refusal", || code(25).is_some()).await;
    assert_eq!((code(25), b.driver.count("copy")), (refused("stale-token"), 1));
    running.end().await;

    // All of it is known after a restart, too.
    group.iter().for_each(|coordinator| coordinator.control().statuses.clear());
    let heard = group[0].beats_heard("b");
    let running = b.start().await;
    until("the new process", || group[0].beats_heard("b") > heard).await;
    send(command(30, 1, StepKind::RehearseCleanUp));
    send(command(26, 1, StepKind::RehearsePromote));
    until("both answers", || code(30).is_some() && code(26).is_some()).await;
    assert_eq!((code(30), code(26)), (succeeded.clone(), refused("stale-token")));
    assert_eq!((b.driver.count("copy"), b.driver.count("clean_up")), (1, 1));

    // Of a higher epoch it has heard meanwhile, by a real step with a token below those of the drill.
    send(StepCommand { position: Some(100), ..command(16, 2, StepKind::CatchUp) });
    until("the step of the higher epoch", || code(16).is_some()).await;
    assert_eq!(code(16), succeeded);
    send(command(40, 1, StepKind::RehearsePromote));
    send(command(41, 1, StepKind::RehearseCleanUp));
    until("both answers", || code(40).is_some() && code(41).is_some()).await;
    assert_eq!((code(40), code(41)), (refused("stale-epoch"), succeeded));
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_copied_where_the_primary_is() {
    let (group, a, running) = leading(1).await;
    group[0].send("a", Body::Step(command(20, 1, StepKind::RehearsePromote)));
    until("the refusal", || ended(&group[0], 20).is_some()).await;
    assert_eq!(ended(&group[0], 20).unwrap().code, "drill-primary");
    assert_eq!(a.driver.count("copy"), 0);
    running.end().await;
}
