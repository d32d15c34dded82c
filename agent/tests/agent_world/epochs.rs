//! A higher epoch, however it was heard of, is known after a restart (S2).

use regent_agent::journal::{FILE, JournalFile, Record};
use regent_core::id::Epoch;
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::peer_agent_service_client::PeerAgentServiceClient;
use regent_proto::agent::v1::*;

use super::coordinator::Mode;
use super::world::{Member, SHOP, command, coordinators, names, terms, until};
use super::{D, all, ended, held};

/// What a process that starts now would know.
fn stored(member: &Member) -> Epoch {
    let view = JournalFile::peek(&member.directory.path().join("data").join(FILE)).unwrap();
    view.applications[&names().0].seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_command_that_was_refused() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let running = b.start().await;
    until("the terms", || group[0].last("b").is_some_and(|beat| beat.epoch == 1)).await;
    let nowhere = StepCommand { resource: "nowhere".to_owned(), ..command(20, 4, StepKind::Verify) };
    group[0].send("b", Body::Step(nowhere));
    until("the refusal", || ended(&group[0], 20).is_some()).await;
    assert_eq!(stored(&b), Epoch(4), "before anybody is told");
    running.end().await;

    group[0].control().beats.clear();
    let running = b.start().await;
    until("the new stream", || group[0].last("b").is_some()).await;
    group[0].send("b", Body::Step(command(30, 3, StepKind::Verify)));
    until("the refusal", || ended(&group[0], 30).is_some()).await;
    assert_eq!(ended(&group[0], 30).unwrap().code, "stale-epoch");
    running.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_the_answer_to_a_question() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    let seen = Record::Seen { application: names().0, epoch: Epoch(2) };
    b.journal().await.append(vec![seen]).await.unwrap();
    let _guard = a.guard().await;
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let (running_a, running_b) = (a.start().await, b.start().await);
    held(&group, "a", 10).await;
    until("that b runs", || group[0].last("b").is_some()).await;
    all(&group, Mode::Withhold);
    until("the fence", || a.driver.count("fenced") > 0).await;
    until("that it is on the disk", || stored(&a) == Epoch(2)).await;
    running_a.end().await;
    running_b.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_question() {
    let group = coordinators().await;
    let (a, b) = (Member::new("a", &group).await, Member::new("b", &group).await);
    group.iter().for_each(|coordinator| coordinator.set_terms(&terms(10, 1, "a", D, &[&a, &b])));
    let ask = async |epoch: u64| {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", b.address)).unwrap();
        let mut client = PeerAgentServiceClient::new(endpoint.connect().await.unwrap());
        let request = PromiseRequest {
            cluster: "a".to_owned(),
            installation: a.installation.clone(),
            application: SHOP.to_owned(),
            epoch,
            terms: Some(Token { restoration: 0, index: 10 }),
            fail_over_after_ms: D,
        };
        client.promise(request).await.unwrap().into_inner()
    };
    let running = b.start().await;
    until("the terms", || group[0].last("b").is_some_and(|beat| beat.epoch == 1)).await;
    let newer = ask(3).await;
    assert!(!newer.promised, "{newer:?}");
    assert_eq!(stored(&b), Epoch(3), "before the asker is told");
    let older = ask(1).await;
    assert_eq!((older.promised, older.epoch), (false, 3), "a higher epoch ends promising at once");
    running.end().await;
    let running = b.start().await;
    let older = ask(1).await;
    assert_eq!((older.promised, older.epoch), (false, 3), "and for good");
    running.end().await;
}
