//! What operators say to runs and applications: who may say what when, and what it leaves.

use regent_core::application::Action;
use regent_core::entry::Cause;
use regent_core::id::RunId;
use regent_core::run::StepKind;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use regent_proto::tls::Identity;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::ann;
use crate::moving::{advance, complete, keep_hearing, movable};
use crate::world::{Authority, World};

pub(crate) type Runs = RunServiceClient<Channel>;

/// A coordinator over the movable application, and ann's connection to it.
async fn world(options: &str) -> (Authority, World, Runs) {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), movable(options)).await;
    keep_hearing(&world.node);
    let runs = RunServiceClient::new(world.channel(&authority.tls(&ann())));
    (authority, world, runs)
}

fn switchover(id: &str) -> wire::SwitchoverRequest {
    wire::SwitchoverRequest { request_id: id.into(), application: "shop".into(), ..Default::default() }
}

fn rule(status: &Status) -> String {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn the_document_says_how_long_writes_may_be_kept_out_and_the_command_for_one_run() {
    let (_authority, world, mut runs) = world("maxWriteOutage: 7s").await;
    let outage = |world: &World, run: u64| {
        world.node.replica.read(|state| match state.runs[&RunId(run)].cause {
            Cause::Switchover { max_write_outage, .. } => max_write_outage,
            ref other => panic!("{other:?}"),
        })
    };
    let by_document = runs.switchover(switchover("one")).await.unwrap().into_inner();
    assert_eq!((outage(&world, by_document.run), by_document.to.as_str()), (Span::from_secs(7), "eu-central-1"));
    let abort = wire::AbortRequest { request_id: "two".into(), run: by_document.run, reason: "not yet".into() };
    let aborted = runs.abort(abort).await.unwrap().into_inner();
    assert_eq!(aborted.advice.unwrap().state, "undone", "nothing had been touched");
    let for_once = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let by_command = wire::SwitchoverRequest { max_write_outage: for_once, ..switchover("three") };
    let by_command = runs.switchover(by_command).await.unwrap().into_inner();
    assert_eq!(outage(&world, by_command.run), Span::from_secs(2));
    world.stop().await;
}

#[tokio::test]
async fn an_abort_undoes_before_the_decision_and_is_refused_after_it() {
    let (_authority, world, mut runs) = world("maxWriteOutage: 7s").await;
    let run = runs.switchover(switchover("one")).await.unwrap().into_inner().run;
    let abort = |id: &str, run, reason: &str| wire::AbortRequest { request_id: id.into(), run, reason: reason.into() };
    let silent = runs.abort(abort("two", run, " ")).await.unwrap_err();
    assert_eq!(silent.get_details_bad_request().unwrap().field_violations[0].field, "reason");
    assert_eq!(runs.abort(abort("three", 99, "why")).await.unwrap_err().code(), Code::NotFound);

    advance(&world, run, StepKind::Action(Action::CatchUp));
    let mut copy = world.node.replica.read(Clone::clone);
    let advice = runs.abort(abort("four", run, "not now")).await.unwrap().into_inner().advice.unwrap();
    assert_eq!(advice.state, "undoing");
    assert!(advice.next.contains("eu-west-1 serves again"), "{}", advice.next);
    let again = runs.abort(abort("five", run, "not now")).await.unwrap_err();
    assert_eq!(rule(&again), "no-effect");
    let seen = runs.get(wire::RunServiceGetRequest { run, stale_ok: true }).await.unwrap().into_inner().run.unwrap();
    let word = seen.abort.unwrap();
    assert_eq!((word.by.as_str(), word.reason.as_str()), ("ann", "not now"));

    // The same run on another coordinator, where the decision came first.
    let authority = Authority::new("dev");
    let terms = copy.applications[&crate::world::shop()].terms.last().unwrap().number;
    let ground = regent_core::entry::Ground::Switched { run: RunId(run) };
    let (from, to) = (regent_core::id::Epoch(1), crate::world::cluster("eu-central-1"));
    let finding = regent_core::entry::Finding::default();
    let application = crate::world::shop();
    crate::world::commit(
        &mut copy,
        regent_core::entry::Entry::Decide { application, from, to, terms, ground, finding },
    );
    let decided = World::start(&authority, 1, Some(1), copy).await;
    let mut runs = RunServiceClient::new(decided.channel(&authority.tls(&ann())));
    let late = runs.abort(abort("six", run, "too late")).await.unwrap_err();
    assert_eq!(rule(&late), "point-of-no-return");
    assert!(late.message().contains("clear what is stuck"), "{}", late.message());
    world.stop().await;
    decided.stop().await;
}

#[tokio::test]
async fn a_pause_and_its_end_are_answered_with_where_things_stand_then() {
    let (authority, world, _runs) = world("maxWriteOutage: 7s").await;
    let mut cluster = regent_proto::operator::v1::cluster_service_client::ClusterServiceClient::new(
        world.channel(&authority.tls(&ann())),
    );
    let pause = |id: &str, application: &str| wire::PauseRequest {
        request_id: id.into(),
        application: application.into(),
        reason: "the network is moved".into(),
    };
    let resume =
        |id: &str, application: &str| wire::ResumeRequest { request_id: id.into(), application: application.into() };
    let paused = cluster.pause(pause("one", "shop")).await.unwrap().into_inner().advice.unwrap();
    assert_eq!(paused.state, "paused");
    assert!(paused.next.contains("regentctl resume shop"), "{paused:?}");
    let whole = cluster.pause(pause("two", "")).await.unwrap().into_inner().advice.unwrap();
    assert_eq!(whole.state, "paused");
    assert!(whole.next.contains("regentctl resume --all"), "{whole:?}");
    let part = cluster.resume(resume("three", "")).await.unwrap().into_inner().advice.unwrap();
    assert_eq!(part.state, "paused-by-themselves");
    assert!(part.next.contains("regentctl resume shop"), "{part:?}");
    let resumed = cluster.resume(resume("four", "shop")).await.unwrap().into_inner().advice.unwrap();
    assert_eq!(resumed.state, "steady");
    world.stop().await;
}

#[tokio::test]
async fn an_undo_that_is_stuck_is_told_with_the_ways_out_of_it() {
    let (_authority, world, mut runs) = world("maxWriteOutage: 7s").await;
    let run = runs.switchover(switchover("one")).await.unwrap().into_inner().run;
    advance(&world, run, StepKind::Action(Action::Fence));
    let abort = wire::AbortRequest { request_id: "two".into(), run, reason: "not now".into() };
    assert_eq!(runs.abort(abort).await.unwrap().into_inner().advice.unwrap().state, "undoing");
    let get = wire::RunServiceGetRequest { run, stale_ok: true };
    let seen = runs.get(get).await.unwrap().into_inner().run.unwrap();
    assert_eq!(seen.status(), wire::RunStatus::Undoing);
    let step = seen.steps.iter().find(|step| step.kind == "unfence").unwrap();
    assert!(step.remedies.is_empty(), "{step:?}");
    let (id, message) = (step.id, "silence".to_owned());
    let outcome = regent_core::entry::Outcome::Failed { code: "no-report".into(), message, retryable: false };
    for entry in crate::world::attempt(run, id, 1, outcome) {
        world.apply(entry);
    }
    let seen = runs.get(get).await.unwrap().into_inner().run.unwrap();
    assert_eq!((seen.status(), seen.advice.unwrap().state.as_str()), (wire::RunStatus::Stuck, "undo-stuck"));
    let step = seen.steps.iter().find(|step| step.id == id).unwrap();
    let command = format!("regentctl clear {run} --step {id} --retry");
    assert_eq!(step.remedies, [wire::Remedy { what: "try again".into(), command }]);
    let retry = wire::ClearRequest {
        request_id: "three".into(),
        run,
        step: id,
        how: wire::Clearing::Retry.into(),
        reason: String::new(),
    };
    assert_eq!(runs.clear(retry).await.unwrap().into_inner().advice.unwrap().state, "undoing");
    world.stop().await;
}

fn plan(kind: wire::PlanKind) -> wire::PlanRequest {
    wire::PlanRequest { application: "shop".into(), kind: kind.into(), ..Default::default() }
}

#[tokio::test]
async fn the_plan_that_was_seen_is_the_run_that_begins() {
    let (_authority, world, mut runs) = world("maxWriteOutage: 7s").await;
    let before = world.node.replica.read(Clone::clone);
    let seen = runs.plan(plan(wire::PlanKind::Switchover)).await.unwrap().into_inner().plan.unwrap();
    assert_eq!(world.node.replica.read(Clone::clone), before, "looking changes nothing");
    assert!(seen.notes.iter().all(|note| note.severity() != wire::Severity::Blocker), "{:?}", seen.notes);
    assert_eq!((seen.kind.as_str(), seen.from.as_str(), seen.to.as_str()), ("switchover", "eu-west-1", "eu-central-1"));

    let other = wire::SwitchoverRequest { plan: "0123456789abcdef".into(), ..switchover("one") };
    assert_eq!(rule(&runs.switchover(other).await.unwrap_err()), "plan-changed");
    let garbled = wire::SwitchoverRequest { plan: "latest".into(), ..switchover("two") };
    let garbled = runs.switchover(garbled).await.unwrap_err();
    assert_eq!(garbled.get_details_bad_request().unwrap().field_violations[0].field, "plan");
    // The document says 7 s.
    let longer = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let longer =
        wire::SwitchoverRequest { plan: seen.digest.clone(), max_write_outage: longer, ..switchover("seen-for-less") };
    assert_eq!(rule(&runs.switchover(longer).await.unwrap_err()), "plan-changed");
    let exactly = wire::SwitchoverRequest { plan: seen.digest.clone(), ..switchover("three") };
    let run = runs.switchover(exactly).await.unwrap().into_inner().run;
    let begun = runs.get(wire::RunServiceGetRequest { run, stale_ok: true }).await.unwrap().into_inner().run.unwrap();
    let shown: Vec<_> =
        seen.steps.iter().map(|step| (step.id, step.stage, &step.kind, &step.resource, &step.cluster)).collect();
    let steps: Vec<_> =
        begun.steps.iter().map(|step| (step.id, step.stage, &step.kind, &step.resource, &step.cluster)).collect();
    assert_eq!(steps, shown);

    let failover = runs.plan(plan(wire::PlanKind::Failover)).await.unwrap().into_inner().plan.unwrap();
    let blockers: Vec<&str> = failover
        .notes
        .iter()
        .filter(|note| note.severity() == wire::Severity::Blocker)
        .map(|note| note.code.as_str())
        .collect();
    assert!(blockers.contains(&"primary-not-lost"), "{blockers:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_switchover_can_be_rolled_back_until_it_is_committed() {
    let (authority, world, mut runs) = world("commitWithin: 1h").await;
    let rollback =
        |id: &str| wire::RollbackRequest { request_id: id.into(), application: "shop".into(), ..Default::default() };
    let commit = |id: &str| wire::CommitRequest { request_id: id.into(), application: "shop".into() };
    assert_eq!(rule(&runs.rollback(rollback("early")).await.unwrap_err()), "no-commit-window");
    assert_eq!(rule(&runs.commit(commit("early-too")).await.unwrap_err()), "no-commit-window");

    let first = runs.switchover(switchover("one")).await.unwrap().into_inner().run;
    complete(&world, first);
    let mut applications = regent_proto::operator::v1::application_service_client::ApplicationServiceClient::new(
        world.channel(&authority.tls(&ann())),
    );
    let get = wire::ApplicationServiceGetRequest { application: "shop".into(), stale_ok: true };
    let shown = applications.get(get.clone()).await.unwrap().into_inner().application.unwrap();
    let window = shown.commit_window.unwrap();
    assert_eq!((window.run, window.back_to.as_str()), (first, "eu-west-1"));
    assert!(window.left.is_some_and(|left| left.seconds > 3_500));
    assert_eq!(shown.advice.unwrap().state, "commit-window");

    let back = runs.rollback(rollback("two")).await.unwrap().into_inner();
    let again = runs.rollback(rollback("two")).await.unwrap().into_inner();
    assert_eq!((back.run, back.to.as_str()), (again.run, "eu-west-1"));
    assert_eq!(rule(&runs.commit(commit("three")).await.unwrap_err()), "run-under-way");
    complete(&world, back.run);
    let seen = runs.get(wire::RunServiceGetRequest { run: back.run, stale_ok: true }).await.unwrap().into_inner();
    let cause = seen.run.unwrap().cause.unwrap();
    assert_eq!((cause.kind.as_str(), cause.by.as_str()), ("rollback", "ann"));
    assert!(applications.get(get.clone()).await.unwrap().into_inner().application.unwrap().commit_window.is_none());

    let second = runs.switchover(switchover("four")).await.unwrap().into_inner().run;
    complete(&world, second);
    let committed = runs.commit(commit("five")).await.unwrap().into_inner();
    assert_eq!(committed.run, second);
    assert_eq!(runs.commit(commit("five")).await.unwrap().into_inner().index, committed.index);
    assert_eq!(rule(&runs.rollback(rollback("six")).await.unwrap_err()), "no-commit-window");
    let home = wire::FailbackRequest { request_id: "seven".into(), application: "shop".into(), ..Default::default() };
    let home = runs.failback(home).await.unwrap().into_inner();
    assert_eq!(home.to, "eu-west-1");
    world.stop().await;
}

#[tokio::test]
async fn a_way_back_is_begun_by_the_plan_that_was_seen_or_not() {
    let (_authority, world, mut runs) = world("commitWithin: 1h").await;
    let first = runs.switchover(switchover("one")).await.unwrap().into_inner().run;
    complete(&world, first);
    let seen = runs.plan(plan(wire::PlanKind::Rollback)).await.unwrap().into_inner().plan.unwrap();
    let other = "0123456789abcdef".to_owned();
    let rollback = |id: &str, plan: &str| wire::RollbackRequest {
        request_id: id.into(),
        application: "shop".into(),
        plan: plan.into(),
        ..Default::default()
    };
    let failback = |id: &str, plan: &str| wire::FailbackRequest {
        request_id: id.into(),
        application: "shop".into(),
        plan: plan.into(),
        ..Default::default()
    };
    assert_eq!(rule(&runs.rollback(rollback("two", &other)).await.unwrap_err()), "plan-changed");
    assert_eq!(rule(&runs.failback(failback("three", &other)).await.unwrap_err()), "plan-changed");
    let garbled = runs.failback(failback("four", "latest")).await.unwrap_err();
    assert_eq!(garbled.get_details_bad_request().unwrap().field_violations[0].field, "plan");
    let back = runs.rollback(rollback("five", &seen.digest)).await.unwrap().into_inner();
    complete(&world, back.run);

    // The way there and the way back once more, now to the preferred cluster: what was seen before is another plan.
    let second = runs.switchover(switchover("six")).await.unwrap().into_inner().run;
    complete(&world, second);
    assert_eq!(rule(&runs.failback(failback("seven", &seen.digest)).await.unwrap_err()), "plan-changed");
    let seen = runs.plan(plan(wire::PlanKind::Failback)).await.unwrap().into_inner().plan.unwrap();
    assert_eq!(runs.failback(failback("eight", &seen.digest)).await.unwrap().into_inner().to, "eu-west-1");
    world.stop().await;
}

#[tokio::test]
async fn whoever_says_that_a_step_was_done_by_hand_says_what_was_done() {
    let (_authority, world, mut runs) = world("maxWriteOutage: 7s").await;
    let run = runs.switchover(switchover("one")).await.unwrap().into_inner().run;
    let clear = |id: &str, how: wire::Clearing, reason: &str| wire::ClearRequest {
        request_id: id.into(),
        run,
        step: 0,
        how: how.into(),
        reason: reason.into(),
    };
    let unsaid = runs.clear(clear("two", wire::Clearing::Done, " ")).await.unwrap_err();
    assert_eq!(unsaid.get_details_bad_request().unwrap().field_violations[0].field, "reason");
    assert_eq!(rule(&runs.clear(clear("three", wire::Clearing::Done, "by hand")).await.unwrap_err()), "not-stuck");
    assert_eq!(rule(&runs.clear(clear("four", wire::Clearing::Retry, "")).await.unwrap_err()), "not-stuck");
    world.stop().await;
}

#[tokio::test]
async fn a_held_application_is_not_moved_on_plan() {
    let (_authority, world, mut runs) = world("commitWithin: 1h").await;
    let home =
        |id: &str| wire::FailbackRequest { request_id: id.into(), application: "shop".into(), ..Default::default() };
    assert_eq!(rule(&runs.failback(home("one")).await.unwrap_err()), "at-preferred");
    let hold = wire::HoldRequest { request_id: "two".into(), application: "shop".into(), reason: "quarter".into() };
    runs.hold(hold).await.unwrap();
    let held = runs.switchover(switchover("three")).await.unwrap_err();
    assert_eq!(rule(&held), "held");
    assert!(held.message().contains("by ann: quarter"), "{}", held.message());
    let unhold = |id: &str| wire::UnholdRequest { request_id: id.into(), application: "shop".into() };
    runs.unhold(unhold("four")).await.unwrap();
    assert_eq!(rule(&runs.unhold(unhold("five")).await.unwrap_err()), "no-effect");
    runs.switchover(switchover("six")).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn what_goes_beyond_the_rules_needs_two_certificates() {
    let (authority, world, mut runs) = world("twoPerson: true").await;
    let mut bobs = RunServiceClient::new(world.channel(&authority.tls(&Identity::Operator("bob".into()))));
    let order = |id: &str, allow: &str| wire::FailoverRequest {
        request_id: id.into(),
        application: "shop".into(),
        to: "eu-central-1".into(),
        allow_data_loss: allow.into(),
        ..Default::default()
    };
    let nowhere = wire::FailoverRequest { to: "eu-west-1".into(), ..order("zero", "") };
    assert_eq!(rule(&runs.failover(nowhere).await.unwrap_err()), "same-cluster");
    let plain = runs.failover(order("one", "")).await.unwrap().into_inner();
    assert!(!plain.asks_second_person && plain.way.contains("told to fence"), "{plain:?}");
    assert_eq!(rule(&runs.failover(order("two", "")).await.unwrap_err()), "order-stands");
    let back = wire::AbortRequest { request_id: "three".into(), run: plain.order, reason: "not needed".into() };
    assert_eq!(runs.abort(back).await.unwrap().into_inner().advice.unwrap().state, "steady");

    let beyond = runs.failover(order("four", "agreed with the CTO")).await.unwrap().into_inner();
    assert!(beyond.asks_second_person);
    let yes = |id: &str, order| wire::ApproveRequest {
        request_id: id.into(),
        order,
        reason: "by phone".into(),
        ..Default::default()
    };
    assert_eq!(rule(&runs.approve(yes("five", beyond.order)).await.unwrap_err()), "same-person");
    assert_eq!(rule(&bobs.approve(yes("six", beyond.order + 1)).await.unwrap_err()), "no-order");
    bobs.approve(yes("seven", beyond.order)).await.unwrap();
    let by_name = wire::ApproveRequest { order: 0, application: "shop".into(), ..yes("eight", 0) };
    assert_eq!(rule(&bobs.approve(by_name).await.unwrap_err()), "no-effect");
    let known = world.node.replica.read(|state| state.applications[&crate::world::shop()].order.clone()).unwrap();
    assert_eq!((known.second(), known.wish().unwrap().by.as_str()), (Some("bob"), "ann"));
    world.stop().await;
}
