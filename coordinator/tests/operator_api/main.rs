//! The operators' services over the wire, with mutual TLS, as a client sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "in a test they are the assertion")]

use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use regent_proto::operator::v1::audit_service_client::AuditServiceClient;
use regent_proto::operator::v1::cluster_service_client::ClusterServiceClient;
use regent_proto::operator::v1::run_service_client::RunServiceClient;
use regent_proto::tls::Identity;
use tonic::{Code, Request};
use tonic_types::StatusExt;

mod looking;
mod moving;
mod verbs;
mod world;

use world::{Authority, World, finish, hear, shop_state};

pub(crate) fn ann() -> Identity {
    Identity::Operator("ann".into())
}

fn pause(id: &str) -> wire::PauseRequest {
    wire::PauseRequest { request_id: id.into(), application: "shop".into(), reason: "moving disks".into() }
}

#[tokio::test]
async fn a_mutation_names_its_operator_and_takes_effect_once() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let channel = world.channel(&authority.tls(&ann()));
    let mut cluster = ClusterServiceClient::new(channel.clone());

    let first = cluster.pause(pause("one")).await.unwrap().into_inner();
    let again = cluster.pause(pause("one")).await.unwrap().into_inner();
    assert_eq!(first, again);
    let status = cluster.status(wire::StatusRequest {}).await.unwrap().into_inner().status.unwrap();
    let paused = status.applications[0].paused.clone().unwrap();
    assert_eq!((paused.by.as_str(), paused.reason.as_str()), ("ann", "moving disks"));

    let mut audit = AuditServiceClient::new(channel);
    let request = wire::AuditServiceListRequest { application: "shop".into(), ..Default::default() };
    let records = audit.list(request).await.unwrap().into_inner().records;
    let pauses: Vec<_> = records.iter().filter(|record| record.event == "paused").collect();
    assert_eq!(pauses.len(), 1, "{records:#?}");
    assert_eq!((pauses[0].actor.as_str(), pauses[0].index), ("ann", first.index));
    world.stop().await;
}

#[tokio::test]
async fn a_document_that_is_sent_again_is_applied_once() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), regent_core::state::State::default()).await;
    let mut applications = ApplicationServiceClient::new(world.channel(&authority.tls(&ann())));
    let document = include_str!("../../core/src/application/sample.yaml").to_owned();
    let request = |id: &str, document: &str| wire::ApplyRequest {
        request_id: id.into(),
        document: document.into(),
        dry_run: false,
    };
    let first = applications.apply(request("one", &document)).await.unwrap().into_inner();
    let again = applications.apply(request("one", &document)).await.unwrap().into_inner();
    assert_eq!(first, again);
    assert!(first.created && first.revision == 1);
    let unchanged = applications.apply(request("two", &document)).await.unwrap().into_inner();
    assert_eq!((unchanged.index, unchanged.revision, unchanged.created), (0, 1, false));

    let bad = document.replace("mode: automatic", "mode: sometimes").replace("[www]", "[wwww]");
    let status = applications.apply(request("three", &bad)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let violations = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["spec.automation.mode", "spec.runbooks.failover[1].redirect[0]"]);
    assert!(violations[0].description.ends_with("(line 15, column 11)"), "{violations:?}");
    let validated = applications.validate(wire::ValidateRequest { document: bad }).await.unwrap().into_inner();
    assert_eq!((validated.mistakes[0].line, validated.mistakes[0].column), (15, 11));
    let schema = applications.schema(wire::SchemaRequest {}).await.unwrap().into_inner().json_schema;
    assert!(schema.contains("failoverAfter"));
    world.stop().await;
}

#[tokio::test]
async fn bad_requests_say_which_field() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let mut cluster = ClusterServiceClient::new(world.channel(&authority.tls(&ann())));

    let no_id = cluster.pause(pause("")).await.unwrap_err();
    let no_reason = cluster.pause(wire::PauseRequest { reason: " ".into(), ..pause("two") }).await.unwrap_err();
    for (status, field) in [(no_id, "request_id"), (no_reason, "reason")] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field);
    }
    let unknown = cluster.pause(wire::PauseRequest { application: "nil".into(), ..pause("three") }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unknown.get_details_resource_info().unwrap().resource_name, "nil");
    world.stop().await;
}

#[tokio::test]
async fn only_operators_change_things_and_agents_may_nothing() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    for identity in [Identity::Agent("eu-west-1".into()), Identity::Coordinator(2)] {
        let channel = world.channel(&authority.tls(&identity));
        let mut cluster = ClusterServiceClient::new(channel.clone());
        let codes = [
            cluster.pause(pause("one")).await.unwrap_err().code(),
            cluster.status(wire::StatusRequest {}).await.unwrap_err().code(),
            ApplicationServiceClient::new(channel.clone())
                .list(wire::ApplicationServiceListRequest::default())
                .await
                .unwrap_err()
                .code(),
            RunServiceClient::new(channel).list(wire::RunServiceListRequest::default()).await.unwrap_err().code(),
        ];
        assert_eq!(codes, [Code::PermissionDenied; 4], "{identity}");
    }
    // A coordinator passes on reads only.
    let mut forwarding = ClusterServiceClient::new(world.channel(&authority.tls(&Identity::Coordinator(2))));
    let mut read = Request::new(wire::StatusRequest {});
    read.metadata_mut().insert("regent-forwarded", "1".parse().unwrap());
    assert!(forwarding.status(read).await.is_ok());
    let mut change = Request::new(pause("one"));
    change.metadata_mut().insert("regent-forwarded", "1".parse().unwrap());
    assert_eq!(forwarding.pause(change).await.unwrap_err().code(), Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_gets_no_answer() {
    let (authority, foreign) = (Authority::new("dev"), Authority::new("dev"));
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let mut cluster = ClusterServiceClient::new(world.channel(&foreign.tls(&ann())));
    assert!(cluster.status(wire::StatusRequest {}).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn without_a_quorum_status_answers_and_changes_do_not() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, None, shop_state()).await;
    let channel = world.channel(&authority.tls(&ann()));
    let mut cluster = ClusterServiceClient::new(channel.clone());

    let refused = cluster.pause(pause("one")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.get_details_error_info().unwrap().reason, "no-quorum");
    let view = cluster.status(wire::StatusRequest {}).await.unwrap().into_inner().status.unwrap().view.unwrap();
    assert!(!view.quorum);
    assert!(view.notice.contains("no quorum"), "{}", view.notice);

    let mut applications = ApplicationServiceClient::new(channel);
    let list = |stale_ok| wire::ApplicationServiceListRequest { stale_ok };
    assert_eq!(applications.list(list(false)).await.unwrap_err().code(), Code::Unavailable);
    let stale = applications.list(list(true)).await.unwrap().into_inner();
    assert_eq!(stale.applications.len(), 1);
    assert!(!stale.view.unwrap().quorum);
    world.stop().await;
}

#[tokio::test]
async fn a_follower_answers_by_the_leaders_evidence_or_by_its_own() {
    let authority = Authority::new("dev");
    let leader = World::start(&authority, 1, Some(1), shop_state()).await;
    hear(&leader.node);
    let mut state = shop_state();
    state.coordinators.insert(regent_core::id::CoordinatorId(1), world::coordinator(1, "eu-west", &leader.address));
    let follower = World::start(&authority, 2, Some(1), state).await;
    let channel = follower.channel(&authority.tls(&ann()));
    let mut cluster = ClusterServiceClient::new(channel.clone());
    let mut applications = ApplicationServiceClient::new(channel);
    let explain = wire::ExplainRequest { application: "shop".into() };

    let status = cluster.status(wire::StatusRequest {}).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.view.unwrap().coordinator, 1);
    assert_eq!(status.applications[0].placements[0].lease(), wire::LeaseState::Held);
    let explained = applications.explain(explain.clone()).await.unwrap().into_inner();
    assert_eq!(explained.view.unwrap().coordinator, 1);

    leader.stop().await;
    let status = cluster.status(wire::StatusRequest {}).await.unwrap().into_inner().status.unwrap();
    let view = status.view.unwrap();
    assert_eq!(view.coordinator, 2);
    assert!(view.notice.contains("did not answer"), "{}", view.notice);
    assert_eq!(status.applications[0].placements[0].lease(), wire::LeaseState::Unknown);
    let explained = applications.explain(explain).await.unwrap().into_inner();
    assert_eq!(explained.view.unwrap().coordinator, 2);
    follower.stop().await;
}

#[tokio::test]
async fn two_coordinators_that_take_each_other_for_the_leader_do_not_loop() {
    let authority = Authority::new("dev");
    let first = World::start(&authority, 1, Some(2), shop_state()).await;
    let second = World::start(&authority, 2, Some(1), shop_state()).await;
    for world in [&first, &second] {
        world.shared.write(|state| {
            state
                .coordinators
                .insert(regent_core::id::CoordinatorId(1), world::coordinator(1, "eu-west", &first.address));
            state
                .coordinators
                .insert(regent_core::id::CoordinatorId(2), world::coordinator(2, "eu-central", &second.address));
            ((), Vec::new())
        });
    }
    let mut cluster = ClusterServiceClient::new(first.channel(&authority.tls(&ann())));
    let view = cluster.status(wire::StatusRequest {}).await.unwrap().into_inner().status.unwrap().view.unwrap();
    assert_eq!(view.coordinator, 2);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_run_is_followed_to_its_end() {
    let authority = Authority::new("dev");
    let (world, run) = World::with_run(&authority).await;
    let channel = world.channel(&authority.tls(&ann()));
    let mut runs = RunServiceClient::new(channel);
    let mut stream = runs.watch(wire::RunServiceWatchRequest { run }).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap().run.unwrap();
    assert_eq!(first.status(), wire::RunStatus::Running);
    finish(run, &world);
    let mut last = first;
    while let Some(message) = stream.message().await.unwrap() {
        last = message.run.unwrap();
    }
    assert_eq!(last.status(), wire::RunStatus::Succeeded);
    assert!(last.steps.iter().filter(|step| !step.detached).all(|step| step.ended.is_some()));

    let report = runs.report(wire::ReportRequest { run, stale_ok: false }).await.unwrap().into_inner().report.unwrap();
    assert_eq!(report.rto.unwrap().judgement(), wire::Judgement::Met);
    assert_eq!(report.losses[0].bytes, Some(4096));
    assert!(report.audit.iter().any(|record| record.event == "decided"));
    world.stop().await;
}

#[tokio::test]
async fn a_watched_status_changes_with_the_log_and_ends_with_the_process() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let channel = world.channel(&authority.tls(&ann()));
    let mut cluster = ClusterServiceClient::new(channel);
    let interval = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let mut stream = cluster.watch(wire::ClusterServiceWatchRequest { interval }).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().status.unwrap().paused.is_none());
    cluster.pause(wire::PauseRequest { application: String::new(), ..pause("one") }).await.unwrap();
    assert!(stream.message().await.unwrap().unwrap().status.unwrap().paused.is_some());
    world.stop().await;
    assert!(!matches!(stream.message().await, Ok(Some(_))));
}

#[tokio::test]
async fn leadership_is_handed_over_by_the_leader() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let mut cluster = ClusterServiceClient::new(world.channel(&authority.tls(&ann())));
    let to = |to| wire::TransferLeaderRequest { request_id: "one".into(), to };
    assert_eq!(cluster.transfer_leader(to(9)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(cluster.transfer_leader(to(2)).await.unwrap().into_inner().leader, 2);
    assert_eq!(*world.log.transferred.lock().unwrap(), [regent_core::id::CoordinatorId(2)]);
    world.stop().await;
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };

    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let channel = world.channel(&authority.tls(&ann()));
    for service in ["", "regent.operator.v1.ClusterService"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut stream = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(ask))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(listed)) = stream.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for name in ["ApplicationService", "RunService", "ClusterService", "AuditService"] {
        assert!(names.contains(&format!("regent.operator.v1.{name}")), "{names:?}");
    }
    world.stop().await;
}
