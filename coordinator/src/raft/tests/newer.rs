//! A group in which one coordinator is of another release: those that do not know its entries stop, and say what to do.

use regent_core::entry::{FORMAT, OLDEST_ENTRY};

use super::group::{Group, PATIENCE, until};
use super::{Store, entry, record};
use crate::raft::types::Proposal;
use crate::raft::writer::Writing;

const NEWER: u16 = FORMAT + 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_a_newer_release_stops_a_coordinator() {
    let mut group = Group::of(&[1, 2, 3]).await;
    let leader = group.leader().await;
    let before = group.propose(leader, "before").await;
    group.all_apply(before).await;
    let older: Vec<u64> = group.members.keys().copied().filter(|id| *id != leader).collect();
    let failed: Vec<_> = older.iter().map(|id| group.members[id].handle.failed()).collect();

    let mut newer = record("newer", "test");
    newer.format = NEWER;
    let raft = group.members[&leader].handle.raft.clone();
    let proposed = tokio::spawn(async move { raft.client_write(Proposal(Ok(newer))).await });
    for reason in failed {
        let reason = tokio::time::timeout(PATIENCE, reason).await.unwrap();
        assert!(reason.contains(&format!("format {NEWER}")) && reason.contains("upgrade this coordinator"), "{reason}");
    }
    for id in &older {
        assert_eq!(group.applied(*id), before, "it has applied nothing behind it");
        group.stop(*id).await;
    }
    proposed.abort();
    // They have not stored it: of its own release the group would go on where it was.
    for id in older {
        let mut store = Store::open(&group.data(id), regent_core::id::CoordinatorId(id), Writing::ByThread).unwrap();
        assert!(store.entries().await.iter().all(|entry| entry.log_id.index <= before.0));
        store.close().await;
    }
    group.stop(leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_proposal_stops_nobody() {
    let group = Group::of(&[1, 2, 3]).await;
    let leader = group.leader().await;
    let follower = group.follower(leader);
    let mut newer = record("newer", "test");
    newer.format = NEWER;
    let refused = group.members[&follower].handle.replica().propose(newer).await;
    assert!(refused.is_err(), "{refused:?}");
    let after = group.propose(leader, "after").await;
    group.all_apply(after).await;
    until("the leader leads", || group.members[&leader].handle.replica().leadership().borrow().is_leader()).await;
}

/// What a coordinator says whose log has an entry of this format.
async fn refusal(folder: &std::path::Path, format: u16) -> String {
    let mut store = Store::of(folder).unwrap();
    let mut last = entry(1);
    if let openraft::EntryPayload::Normal(Proposal(Ok(record))) = &mut last.payload {
        record.format = format;
    }
    store.append(vec![entry(0), last]).await.unwrap();
    store.close().await;
    Store::of(folder).err().unwrap().to_string()
}

#[tokio::test]
async fn a_log_of_a_newer_release_is_not_begun_with() {
    let folder = tempfile::TempDir::new().unwrap();
    let error = refusal(folder.path(), NEWER).await;
    assert!(error.contains(&format!("format {NEWER}")) && error.contains("install a newer release"), "{error}");
}

#[tokio::test]
async fn a_log_of_an_earlier_build_is_not_begun_with() {
    let folder = tempfile::TempDir::new().unwrap();
    let error = refusal(folder.path(), OLDEST_ENTRY - 1).await;
    let says = |what: &str| assert!(error.contains(what), "{what} is missing: {error}");
    says(&format!("the data directory {} has an entry of format {}", folder.path().display(), OLDEST_ENTRY - 1));
    says("`regentctl backup`");
    says("--restore");
}
