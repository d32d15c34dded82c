//! What operators say to runs and applications: who may say what when, and what it leaves.

use regent_core::application::Action;
use regent_core::entry::Cause;
use regent_core::id::RunId;
use regent_core::run::StepKind;
use regent_core::time::Span;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::ann;
use crate::moving::{advance, keep_hearing, movable};
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
    let late = runs.abort(abort("one", run, "too late")).await.unwrap_err();
    assert_eq!(rule(&late), "point-of-no-return");
    assert!(late.message().contains("clear what is stuck"), "{}", late.message());
    world.stop().await;
    decided.stop().await;
}
