//! Without space nothing is acknowledged and nothing is damaged; with space it goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use regent_core::id::CoordinatorId;
use regent_core::state::Applied;
use tempfile::TempDir;

use super::group::{Group, PATIENCE, until};
use super::{Store, entry, record};
use crate::replica::ProposeError;

struct Small(PathBuf, Option<TempDir>);

impl Small {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mut small = Self::mount_at(folder.path(), bytes)?;
        small.1 = Some(folder);
        Some(small)
    }

    fn mount_at(folder: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let size = format!("size={bytes}");
        match mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())) {
            Ok(()) => Some(Self(folder.to_owned(), None)),
            Err(error) => {
                eprintln!("SKIPPED: a small file system cannot be mounted here: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn fill(&self) {
        let mut ballast = File::create(self.path().join("ballast")).unwrap();
        for chunk in [vec![7; 64 << 10], vec![7; 4 << 10]] {
            while ballast.write_all(&chunk).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn the_log_stops_and_goes_on() {
    let Some(disk) = Small::mount(16 << 20) else { return };
    let folder = disk.path().join("data");
    let mut store = Store::of(&folder).unwrap();
    store.append((0..50).map(entry).collect()).await.unwrap();
    disk.fill();

    let mut next = 50;
    let error = loop {
        match store.append((next..next + 100).map(entry).collect()).await {
            Ok(()) => next += 100,
            Err(error) => break error,
        }
        assert!(next < 1_000_000, "the disk is never full");
    };
    assert!(error.to_string().contains("log.redb"), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    // A hole must not come: after a write that failed there is none that succeeds.
    disk.empty();
    let after = store.append(vec![entry(next + 100)]).await.unwrap_err();
    assert!(after.to_string().contains("log.redb"), "{after}");
    drop(store.log);
    drop(store.machine);
    store.writer.unwrap().join().unwrap();

    let mut store = Store::of(&folder).unwrap();
    let entries = store.entries().await;
    let last = u64::try_from(entries.len()).unwrap();
    assert!(last >= next, "{next} were acknowledged, {last} are there");
    assert_eq!(entries, (0..last).map(entry).collect::<Vec<_>>());
    store.append(vec![entry(last)]).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_old_snapshot_stays() {
    let Some(disk) = Small::mount(16 << 20) else { return };
    let folder = disk.path().join("data");
    let mut store = Store::of(&folder).unwrap();
    let apply = |from: u64, to: u64| futures::stream::iter((from..to).map(|index| Ok((entry(index), None))));
    store.machine.apply(apply(0, 10)).await.unwrap();
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    disk.fill();
    store.machine.apply(apply(10, 20)).await.unwrap();
    let error = store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap_err();
    assert!(error.to_string().contains("snapshot"), "{error}");
    disk.empty();
    store.close().await;

    let mut store = Store::of(&folder).unwrap();
    assert_eq!(store.machine.applied_state().await.unwrap().0.unwrap().index, 9);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_space_steps_down_and_comes_back() {
    let mut group = Group::new();
    let Some(disk) = Small::mount_at(&group.data(1), 16 << 20) else { return };
    group.begin(&[1, 2, 3]).await;
    if group.leader().await != 1 {
        let old = group.leader().await;
        group.members[&old].handle.membership().transfer_leader(CoordinatorId(1)).await.unwrap();
        let leadership = group.members[&1].handle.replica().leadership();
        until("the first leads", || leadership.borrow().is_leader()).await;
        group.leader().await;
    }
    let mut acknowledged = group.propose(1, "before").await;
    disk.fill();
    let failed = group.members[&1].handle.failed();
    let mut number = 0;
    let error = loop {
        let large = record(&format!("large-{number}"), &"x".repeat(20_000));
        match group.members[&1].handle.replica().propose(large).await {
            Ok(Applied::Done(index)) => acknowledged = index,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(error, ProposeError::Storage(_)), "{error}");
    let reason = tokio::time::timeout(PATIENCE, failed).await.unwrap();
    assert!(reason.contains("log.redb") && reason.contains("No space left"), "{reason}");
    assert!(group.members[&1].handle.replica().leadership().borrow().leader.is_none());

    // The others go on with all that was acknowledged.
    let after = group.propose(2, "after").await;
    assert!(after > acknowledged);
    disk.empty();
    group.stop(1).await;
    group.start(1).await;
    group.all_apply(after).await;
    let state = |id: u64| group.members[&id].handle.replica().read(Clone::clone);
    assert_eq!(state(1), state(2));
    group.stop(1).await;
}
