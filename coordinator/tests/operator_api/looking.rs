//! Readiness as of now: the agents are asked, each that answers is told of, and who does not is named.

use regent_core::id::CoordinatorId;
use regent_proto::agent::v1::connect_response;
use regent_proto::operator::v1 as wire;
use regent_proto::operator::v1::application_service_client::ApplicationServiceClient;
use regent_proto::operator::v1::look_anew_response::Body;
use regent_proto::tls::Identity;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::ann;
use crate::world::{Authority, DEADLINE, World, answer_look, cluster, coordinator, hear, shop_state};

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
    let ages: Vec<bool> = readiness.looks.iter().map(|look| look.age.is_some_and(|age| age.seconds < 20)).collect();
    assert_eq!(ages, [true, false], "of the other nothing was ever looked at");
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

/// What was looked at before somebody asked is no answer to him, though its answer comes after.
#[tokio::test]
async fn who_asks_while_a_question_is_under_way_is_answered_by_the_next() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    hear(&world.node);
    let (sender, mut heard) = tokio::sync::mpsc::channel(16);
    world.post.attach(&cluster("eu-west-1"), sender);
    let mut question = async || loop {
        let message = tokio::time::timeout(DEADLINE, heard.recv()).await.expect("a question").unwrap().unwrap();
        if let Some(connect_response::Body::LookNow(asked)) = message.body {
            return asked.number;
        }
    };
    let channel = world.channel(&authority.tls(&ann()));
    let asking = channel.clone();
    let first = tokio::spawn(async move { anew(&asking, "shop").await.unwrap().1 });
    let under_way = question().await;
    // The agent has looked, and has not answered yet; something is mended; two more ask.
    let mut others = Vec::new();
    for _ in 0..2 {
        let request = wire::LookAnewRequest { application: "shop".into() };
        let mut answers = ApplicationServiceClient::new(channel.clone()).look_anew(request).await.unwrap().into_inner();
        // That the other agent cannot be asked is told once all are.
        let Some(Body::Look(look)) = answers.message().await.unwrap().unwrap().body else { panic!("no look") };
        assert_eq!(look.cluster, "eu-central-1");
        others.push(answers);
    }
    answer_look(&world.post, "eu-west-1", under_way, "before");
    assert_eq!(lacking(&first.await.unwrap()), [("eu-west-1", "before")]);
    let next = question().await;
    assert!(next > under_way);
    answer_look(&world.post, "eu-west-1", next, "after");
    for mut answers in others {
        let Some(Body::Look(look)) = answers.message().await.unwrap().unwrap().body else { panic!("no look") };
        assert_eq!((look.cluster.as_str(), look.problem.as_str()), ("eu-west-1", ""));
        let Some(Body::Readiness(readiness)) = answers.message().await.unwrap().unwrap().body else {
            panic!("no notes")
        };
        assert_eq!(lacking(&readiness), [("eu-west-1", "after")]);
    }
    world.stop().await;
}
