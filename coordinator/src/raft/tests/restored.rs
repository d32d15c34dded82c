//! A group that begins from a backup: its log goes on behind it, and all members get it.

use regent_core::id::{CoordinatorId, GroupId, LogIndex};
use regent_core::state::State;
use regent_core::time::Timestamp;

use super::group::{Group, until};
use crate::raft::{RestoreError, restore};

fn backup() -> State {
    State { group: GroupId("lost".to_owned()), applied: LogIndex(4711), ..State::default() }
}

#[tokio::test]
async fn a_restored_group_elects_a_leader_and_everyone_has_the_backup() {
    let mut group = Group::new();
    let mut listeners = Vec::new();
    for id in 1..=3 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        group.addresses.insert(CoordinatorId(id), listener.local_addr().unwrap().to_string());
        listeners.push((id, listener));
    }
    let made = restore(&group.data(1), CoordinatorId(1), &group.addresses, &backup(), Timestamp(5)).unwrap();
    assert_eq!((made.applied, made.restoration), (LogIndex(1_000_000), 1));
    for (id, listener) in listeners {
        group.serve(id, listener, group.addresses.clone()).await.unwrap();
    }
    let leader = group.leader().await;
    let index = group.propose(leader, "first").await;
    assert!(index > LogIndex(1_000_000), "{index}");
    group.all_apply(index).await;
    for member in group.members.values() {
        member.handle.replica().read(|state| {
            assert_eq!((state.group.0.as_str(), state.restoration), ("lost", 1));
            assert_eq!(state.audit.front().map(|record| record.event.as_str()), Some("group-restored"));
        });
    }
    // What is on the disk is as good as what was made: after a restart of all it goes on.
    for id in 1..=3 {
        group.stop(id).await;
    }
    for id in 1..=3 {
        group.start(id).await;
    }
    let leader = group.leader().await;
    let next = group.propose(leader, "second").await;
    assert!(next > index);
    group.all_apply(next).await;
    until("the same state everywhere", || {
        let states: Vec<State> =
            group.members.values().map(|member| member.handle.replica().read(State::clone)).collect();
        states.windows(2).all(|pair| pair[0] == pair[1])
    })
    .await;
}

#[test]
fn a_directory_in_use_and_another_coordinator_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let peers = [1, 2, 3].map(|id| (CoordinatorId(id), format!("127.0.0.1:{id}"))).into();
    let made = |id: u64, name: &str| {
        restore(&folder.path().join(name), CoordinatorId(id), &peers, &backup(), Timestamp(5)).map(drop)
    };
    assert!(matches!(made(2, "two"), Err(RestoreError::NotTheFirst { first: CoordinatorId(1) })));
    made(1, "one").unwrap();
    assert!(matches!(made(1, "one"), Err(RestoreError::Occupied(_))));
}
