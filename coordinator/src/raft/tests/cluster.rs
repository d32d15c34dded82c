use std::time::Instant;

use regent_core::id::{ClusterId, CoordinatorId};
use regent_proto::agent::v1::StepCommand;
use regent_proto::peer::v1 as proto;
use regent_proto::peer::v1::peer_service_client::PeerServiceClient;
use regent_proto::tls::{ChannelOptions, Identity};
use tokio::net::TcpListener;
use tonic::Code;

use super::group::{Group, until};
use super::record;
use crate::raft::{MembershipError, PeerError};
use crate::replica::ProposeError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_elect_and_agree() {
    let group = Group::of(&[1, 2, 3]).await;
    let leader = group.leader().await;
    let follower = group.follower(leader);
    let first = group.propose(leader, "a").await;
    let second = group.propose(follower, "b").await;
    assert!(second > first);
    group.all_apply(second).await;
    let voters = group.members[&follower].handle.replica().read(|state| state.voters.clone());
    assert_eq!(voters, [[1, 2, 3].map(CoordinatorId).into()]);

    // A reader that asks after a write sees it, wherever it asks.
    let third = group.propose(leader, "c").await;
    for id in [1, 2, 3] {
        group.members[&id].handle.replica().linearize().await.unwrap();
        assert!(group.applied(id) >= third);
    }

    let leadership = group.members[&leader].handle.replica().leadership();
    until("all voters are heard", || leadership.borrow().heard.len() == 3).await;
    let leadership = group.members[&follower].handle.replica().leadership();
    until("a follower knows of the quorum", || leadership.borrow().quorum_at.is_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_and_comes_back() {
    let mut group = Group::of(&[1, 2, 3]).await;
    let old = group.leader().await;
    let before = group.propose(old, "a").await;
    group.stop(old).await;
    let begun = Instant::now();
    let other = *group.members.keys().next().unwrap();
    // Asked at once: it waits for the election.
    let after = group.propose(other, "b").await;
    println!("a proposal went through {:?} after the leader died", begun.elapsed());
    assert!(after > before);
    let new = group.leader().await;
    assert_ne!(new, old);

    group.start(old).await;
    group.all_apply(after).await;
    assert_eq!(group.leader().await, new, "who comes back does not depose the leader");
    assert_eq!(group.members[&old].handle.incarnation().0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_taken() {
    let mut group = Group::of(&[1, 2, 3]).await;
    let leader = group.leader().await;
    for id in [1, 2, 3] {
        if id != leader {
            group.stop(id).await;
        }
    }
    let replica = group.members[&leader].handle.replica();
    until("the leader knows that it leads no more", || replica.leadership().borrow().leader.is_none()).await;
    let (proposed, read) = tokio::join!(replica.propose(record("a", "test")), replica.linearize());
    assert!(matches!(proposed, Err(ProposeError::NoQuorum)), "{proposed:?}");
    assert!(matches!(read, Err(ProposeError::NoQuorum)), "{read:?}");
    let term = replica.leadership().borrow().term;

    let back = *group.addresses.keys().find(|id| id.0 != leader).unwrap();
    group.start(back.0).await;
    let index = group.propose(back.0, "b").await;
    group.all_apply(index).await;
    let now = replica.leadership().borrow().term;
    assert!(now <= term + 2, "Pre-Vote keeps the term from climbing: {term} to {now}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lags_far_behind_gets_a_snapshot() {
    let mut group = Group::new();
    group.snapshot_every = 50;
    group.begin(&[1, 2, 3]).await;
    let leader = group.leader().await;
    let late = group.follower(leader);
    group.stop(late).await;
    let mut last = group.propose(leader, "first").await;
    let begun = Instant::now();
    for number in 0..200 {
        last = group.propose(leader, &format!("r{number}")).await;
    }
    println!("an entry took {:?} on average, one after the other", begun.elapsed() / 200);
    let raft = group.members[&leader].handle.raft.clone();
    until("the log is compacted", || {
        use openraft::async_runtime::watch::WatchReceiver;
        raft.metrics().borrow_watched().purged.is_some_and(|purged| purged.index > 100)
    })
    .await;
    group.start(late).await;
    group.all_apply(last).await;
    let state = |id: u64| group.members[&id].handle.replica().read(Clone::clone);
    assert_eq!(state(late), state(leader));
    assert!(group.data(late).join("snapshot").exists());
    let last = group.propose(late, "after").await;
    group.all_apply(last).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_hands_over() {
    let group = Group::of(&[1, 2, 3]).await;
    let leader = group.leader().await;
    let heir = group.follower(leader);
    let refused = group.members[&heir].handle.membership().transfer_leader(CoordinatorId(leader)).await;
    assert!(matches!(refused, Err(MembershipError::NotLeader { leader: Some(id) }) if id.0 == leader), "{refused:?}");
    let begun = Instant::now();
    group.members[&leader].handle.membership().transfer_leader(CoordinatorId(heir)).await.unwrap();
    let leadership = group.members[&heir].handle.replica().leadership();
    until("the heir leads", || leadership.borrow().is_leader()).await;
    println!("the leadership was handed over in {:?}", begun.elapsed());
    assert_eq!(group.leader().await, heir);
    group.propose(leader, "a").await;
}

/// The leader hears nothing of what this coordinator observes.
async fn denied(group: &Group, from: u64, leader: u64) -> bool {
    let observed = proto::ObserveRequest { coordinator: from, ..Default::default() };
    match group.members[&from].handle.peers().observe(CoordinatorId(leader), observed).await {
        Ok(()) => false,
        Err(PeerError::Status { status, .. }) if status.code() == Code::PermissionDenied => true,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_joins_and_a_first_leaves() {
    let mut group = Group::of(&[1, 2, 3]).await;
    let leader = group.leader().await;
    // What the group began with is committed once the first entry of this leader is.
    group.propose(leader, "first").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    group.addresses.insert(CoordinatorId(4), address.clone());
    group.serve(4, listener, group.addresses.clone()).await.unwrap();
    let stranger = denied(&group, 4, leader).await;
    assert!(stranger, "it has a certificate, and was not added");
    let membership = group.members[&leader].handle.membership();
    assert!(matches!(membership.add_voter(CoordinatorId(4)).await, Err(MembershipError::NotALearner(_))));
    membership.add_learner(CoordinatorId(4), &address).await.unwrap();
    membership.add_voter(CoordinatorId(4)).await.unwrap();
    let gone = group.follower(leader);
    membership.remove(CoordinatorId(gone)).await.unwrap();
    assert!(denied(&group, gone, leader).await, "it was removed");
    assert!(!denied(&group, 4, leader).await);
    group.stop(gone).await;
    let index = group.propose(4, "a").await;
    group.all_apply(index).await;
    let voters = group.members[&4].handle.replica().read(|state| state.voters.clone());
    assert_eq!(voters.len(), 1);
    assert!(voters[0].contains(&CoordinatorId(4)) && !voters[0].contains(&CoordinatorId(gone)), "{voters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_coordinator_under_its_old_id_is_refused() {
    let mut group = Group::of(&[1, 2, 3]).await;
    group.introduce_all().await;
    let leader = group.leader().await;
    let (wiped, third) = {
        let mut others = [1, 2, 3].into_iter().filter(|id| *id != leader);
        (others.next().unwrap(), others.next().unwrap())
    };
    group.stop(wiped).await;
    std::fs::remove_dir_all(group.data(wiped)).unwrap();
    group.start(wiped).await;

    // The majority goes on; nothing reaches the wiped one, not even with its consent.
    let index = group.propose(leader, "a").await;
    let handle = &group.members[&wiped].handle;
    let fresh = handle.identity().clone();
    let asked = handle.peers().observe(CoordinatorId(leader), proto::ObserveRequest::default()).await;
    assert!(
        matches!(&asked, Err(PeerError::Status { status, .. }) if status.code() == Code::FailedPrecondition),
        "{asked:?}"
    );
    let asked = group.members[&leader].handle.peers().relay(CoordinatorId(wiped), proto::RelayRequest::default()).await;
    assert!(
        matches!(&asked, Err(PeerError::Status { status, .. }) if status.code() == Code::FailedPrecondition),
        "{asked:?}"
    );

    // Without the third, the leader has only the wiped one: that is no majority, and it elects nobody.
    group.stop(third).await;
    let replica = group.members[&leader].handle.replica();
    until("the wiped one does not count", || replica.leadership().borrow().leader.is_none()).await;
    let proposed = replica.propose(record("b", "test")).await;
    assert!(matches!(proposed, Err(ProposeError::NoQuorum)), "{proposed:?}");
    assert_eq!(group.applied(wiped).0, 0, "it was told nothing");
    assert!(group.members[&wiped].handle.replica().leadership().borrow().leader.is_none());

    // It does not found another group either, though it may bootstrap; with the third the old one goes on.
    group.start(third).await;
    let later = group.propose(third, "c").await;
    assert!(later > index);
    assert_eq!(group.members[&wiped].handle.identity(), &fresh);
    assert_eq!(group.applied(wiped).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_coordinators_get_in() {
    let group = Group::of(&[1]).await;
    let address = &group.addresses[&CoordinatorId(1)];
    for (identity, code) in [
        (Identity::Agent("eu-west-1".into()), Code::PermissionDenied),
        (Identity::Operator("ann".into()), Code::PermissionDenied),
        // A coordinator's certificate, without saying who it is.
        (Identity::Coordinator(2), Code::PermissionDenied),
    ] {
        let tls = group.authority.issue(group.folder.path(), &identity);
        let mut client = PeerServiceClient::new(tls.channel(address, ChannelOptions::default()).unwrap());
        let status = client.propose(proto::ProposeRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), code, "{identity}: {status}");
        let status = client.vote(proto::VoteRequest::default()).await.unwrap_err();
        assert_eq!(status.code(), code, "{identity}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observations_and_steps_reach_the_hooks() {
    let group = Group::of(&[1, 2, 3]).await;
    let from = &group.members[&2].handle;
    let observed = proto::ObserveRequest { coordinator: 2, ..Default::default() };
    from.peers().observe(CoordinatorId(1), observed.clone()).await.unwrap();
    assert_eq!(*group.members[&1].heard.observed.lock().unwrap(), [(CoordinatorId(2), observed)]);
    let another = proto::ObserveRequest { coordinator: 3, ..Default::default() };
    assert!(from.peers().observe(CoordinatorId(1), another).await.is_err());

    let step = StepCommand::default();
    let relay = proto::RelayRequest { cluster: "eu-west-1".into(), step: Some(step.clone()) };
    assert!(from.peers().relay(CoordinatorId(1), relay).await.unwrap());
    let cluster = ClusterId::new("eu-west-1").unwrap();
    assert_eq!(*group.members[&1].heard.relayed.lock().unwrap(), [(cluster, step)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_waits_for_all_its_first_members() {
    let mut group = Group::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    group.addresses.insert(CoordinatorId(3), listener.local_addr().unwrap().to_string());
    // The third does not serve yet: the port is taken and nobody answers.
    group.begin(&[1, 2]).await;
    tokio::time::timeout(std::time::Duration::from_secs(1), async {
        let mut applied = group.members[&1].handle.replica().leadership();
        applied.wait_for(|leadership| leadership.term > 0).await.unwrap();
    })
    .await
    .expect_err("no election without a group");
    group.serve(3, listener, group.addresses.clone()).await.unwrap();
    group.leader().await;
}
