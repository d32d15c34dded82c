//! Readiness as of now: the agents are asked, each that answers is told of, and who does not is named.

use regent_core::id::CoordinatorId;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use regent_proto::operator::v1::look_anew_response::Body;
use regent_proto::tls::Identity;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ann;
use crate::world::{Authority, World, coordinator, hear, shop_state};

/// Whom it tells of, in the order in which it does, and its last word.
async fn anew(channel: &Channel, application: &str) -> Result<(Vec<wire::AgentLook>, wire::ReadinessResponse), Status> {
    let question = wire::LookAnewRequest { application: application.to_owned() };
    let mut answers = ApplicationServiceClient::new(channel.clone()).look_anew(question).await?.into_inner();
    let mut looks = Vec::new();
    while let Some(answer) = answers.message().await? {
        match answer.body.unwrap() {
            Body::Look(look) => looks.push(look),
            Body::Readiness(readiness) => {
                assert!(answers.message().await?.is_none(), "the notes come last");
                return Ok((looks, readiness));
            }
        }
    }
    panic!("it ended without its notes")
}

fn lacking(readiness: &wire::ReadinessResponse) -> Vec<(&str, &str)> {
    let lacking = readiness.notes.iter().filter(|note| note.code == "permission-missing");
    lacking.map(|note| (note.cluster.as_str(), note.detail.as_str())).collect()
}

#[tokio::test]
async fn agents_are_asked_and_who_cannot_be_is_named() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    hear(&world.node);
    world.finds_lacking("eu-west-1", "a right");
    let channel = world.channel(&authority.tls(&ann()));
    let (mut looks, readiness) = anew(&channel, "shop").await.unwrap();
    assert_eq!(lacking(&readiness), [("eu-west-1", "a right")]);
    let note = readiness.notes.iter().find(|note| note.code == "permission-missing").unwrap();
    assert!(note.age.is_some_and(|age| age.seconds < 20), "{note:?}");
    let told: Vec<(&str, &str)> =
        readiness.looks.iter().map(|look| (look.cluster.as_str(), look.problem.as_str())).collect();
    assert_eq!(told, [("eu-west-1", ""), ("eu-central-1", "its agent has no stream to coordinator 1")]);
    // As it became known; the last word has the document's order.
    looks.sort_by_key(|look| look.cluster != "eu-west-1");
    assert_eq!(looks, readiness.looks);

    // Once more, and both.
    world.finds_lacking("eu-central-1", "another");
    let (_, readiness) = anew(&channel, "shop").await.unwrap();
    assert_eq!(lacking(&readiness), [("eu-central-1", "another"), ("eu-west-1", "a right")]);
    assert!(readiness.looks.iter().all(|look| look.problem.is_empty() && look.took.is_some()), "{readiness:?}");

    assert_eq!(anew(&channel, "nil").await.unwrap_err().code(), Code::NotFound);
    for identity in [Identity::Agent("eu-west-1".into()), Identity::Coordinator(2)] {
        let denied = anew(&world.channel(&authority.tls(&identity)), "shop").await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied, "{identity}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_follower_hands_on_what_the_leader_hears_or_asks_itself() {
    let authority = Authority::new("dev");
    let leader = World::start(&authority, 1, Some(1), shop_state()).await;
    hear(&leader.node);
    leader.finds_lacking("eu-west-1", "a right");
    let mut state = shop_state();
    state.coordinators.insert(CoordinatorId(1), coordinator(1, "eu-west", &leader.address));
    let follower = World::start(&authority, 2, Some(1), state).await;
    hear(&follower.node);
    follower.finds_lacking("eu-central-1", "another");
    let channel = follower.channel(&authority.tls(&ann()));

    let (looks, readiness) = anew(&channel, "shop").await.unwrap();
    assert_eq!(lacking(&readiness), [("eu-west-1", "a right")]);
    assert_eq!((looks.len(), readiness.view.unwrap().coordinator), (2, 1));
    assert_eq!(anew(&channel, "nil").await.unwrap_err().code(), Code::NotFound);

    leader.stop().await;
    let (_, readiness) = anew(&channel, "shop").await.unwrap();
    assert_eq!(lacking(&readiness), [("eu-central-1", "another")]);
    let view = readiness.view.unwrap();
    assert!(view.coordinator == 2 && view.notice.contains("did not answer"), "{}", view.notice);
    follower.stop().await;
}
