//! Without space nothing is acknowledged and nothing is damaged; with space it goes on.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use tempfile::TempDir;

use super::{Store, entry};

struct Small(TempDir);

impl Small {
    fn mount(bytes: u64) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let size = format!("size={bytes}");
        match mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str())) {
            Ok(()) => Some(Self(folder)),
            Err(error) => {
                eprintln!("SKIPPED: a small file system cannot be mounted here: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
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
    store.writer.join().unwrap();

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
