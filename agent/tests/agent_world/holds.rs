//! What was told to be quiet, and what the agent says of its fence.

use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::*;

use super::coordinator::Mode;
use super::world::{CACHE, command, until};
use super::{all, ended, leading_without_promises};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_to_be_quiet_hides_no_self_fence() {
    let (group, _members, running) = leading_without_promises().await;
    // It fails, and its record stands: it was stored before.
    let quiet = StepCommand { resource: CACHE.to_owned(), ..command(50, 1, StepKind::Quiesce) };
    group[0].send("a", Body::Step(quiet));
    until("its end", || ended(&group[0], 50).is_some()).await;
    let beats = group[0].control().beats["a"].len();
    until("another heartbeat", || group[0].control().beats["a"].len() > beats + 1).await;
    assert_eq!(group[0].last("a").unwrap().fence(), FenceState::Open, "no terms guard it");
    all(&group, Mode::Withhold);
    until("that it says so", || group[0].last("a").is_some_and(|beat| beat.fence() == FenceState::Self_)).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commanded_fence_hides_no_lapsed_lease() {
    let (group, _members, running) = leading_without_promises().await;
    group[0].send("a", Body::Step(command(50, 1, StepKind::Fence)));
    until("that it says so", || group[0].last("a").is_some_and(|beat| beat.fence() == FenceState::Commanded)).await;
    all(&group, Mode::Withhold);
    until("the lapse", || group[0].last("a").is_some_and(|beat| beat.lease() == LeaseState::Lacked)).await;
    until("that it says so", || group[0].last("a").is_some_and(|beat| beat.fence() == FenceState::Self_)).await;
    running.end().await;
}
