//! A damaged directory is an error that names the file, never a fresh start.

use std::fs;
use std::path::Path;

use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use regent_core::id::CoordinatorId;
use tempfile::TempDir;

use super::{Store, entry, log_id};
use crate::raft::ondisk::{Directory, DiskError};

/// A directory with a log of 40 entries, a snapshot up to 29, and nothing before 20.
async fn filled() -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut store = Store::of(folder.path()).unwrap();
    store.append((0..40).map(entry).collect()).await.unwrap();
    let committed = (0..30).map(|index| Ok((entry(index), None)));
    store.machine.apply(futures::stream::iter(committed)).await.unwrap();
    store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    store.log.purge(log_id(1, 19)).await.unwrap();
    store.close().await;
    folder
}

fn error(folder: &Path) -> DiskError {
    match Store::of(folder) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_was_written_is_there() {
    let folder = filled().await;
    let mut store = Store::of(folder.path()).unwrap();
    assert_eq!(store.entries().await, (20..40).map(entry).collect::<Vec<_>>());
    assert_eq!(store.machine.applied_state().await.unwrap().0, Some(log_id(1, 29)));
    assert_eq!(store.machine.shared().read(|state| state.applied.0), 29);
    store.close().await;
}

#[tokio::test]
async fn an_incarnation_is_never_used_twice() {
    let folder = TempDir::new().unwrap();
    let mut identity = None;
    for expected in 1..5 {
        let store = Store::of(folder.path()).unwrap();
        assert_eq!(store.owner.incarnation.0, expected);
        assert_eq!(*identity.get_or_insert(store.owner.identity.clone()), store.owner.identity);
        store.close().await;
    }
}

#[tokio::test]
async fn a_directory_serves_one_process_and_one_coordinator() {
    let folder = filled().await;
    let store = Store::of(folder.path()).unwrap();
    assert!(matches!(error(folder.path()), DiskError::Locked { path } if path == folder.path()));
    store.close().await;
    let other = Directory::open(folder.path(), CoordinatorId(2)).unwrap_err();
    assert!(matches!(other, DiskError::OtherCoordinator { found: 1, own: 2, .. }), "{other}");
}

#[tokio::test]
async fn a_copy_is_refused_and_the_original_is_not() {
    let folder = filled().await;
    let born = |folder: &Path| fs::metadata(folder.join("log.redb")).unwrap().created().unwrap();
    let copy = loop {
        let copy = TempDir::new().unwrap();
        for name in ["lock", "log.redb", "snapshot"] {
            fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
        }
        // Their clock moves on by some milliseconds at a time.
        if born(copy.path()) != born(folder.path()) {
            break copy;
        }
    };
    let error = error(copy.path());
    assert!(matches!(&error, DiskError::Copied { path } if path.ends_with("log.redb")), "{error:?}");
    assert!(error.to_string().contains("add it anew"), "{error}");
    Store::of(folder.path()).unwrap().close().await;
    let moved = copy.path().join("moved");
    fs::create_dir(&moved).unwrap();
    for name in ["lock", "log.redb", "snapshot"] {
        fs::rename(folder.path().join(name), moved.join(name)).unwrap();
    }
    Store::of(&moved).unwrap().close().await;
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = filled().await;
    fs::remove_file(folder.path().join("snapshot")).unwrap();
    assert!(matches!(error(folder.path()), DiskError::Missing { path } if path.ends_with("snapshot")));
    fs::remove_file(folder.path().join("log.redb")).unwrap();
    assert!(matches!(error(folder.path()), DiskError::Missing { path } if path.ends_with("log.redb")));

    let folder = filled().await;
    fs::remove_file(folder.path().join("log.redb")).unwrap();
    fs::remove_file(folder.path().join("lock")).unwrap();
    assert!(matches!(error(folder.path()), DiskError::Missing { path } if path.ends_with("log.redb")));
}

#[test]
fn a_directory_with_something_else_is_left_alone() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    assert!(matches!(error(folder.path()), DiskError::Foreign { found, .. } if found == "notes.txt"));
}

#[tokio::test]
async fn a_creation_that_was_cut_short_is_begun_anew() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("log.redb.creating"), "half").unwrap();
    fs::write(folder.path().join("lock"), "").unwrap();
    Store::of(folder.path()).unwrap().close().await;
}

#[tokio::test]
async fn a_file_of_another_kind_or_length_is_named() {
    let folder = filled().await;
    let log = folder.path().join("log.redb");
    let good = fs::read(&log).unwrap();
    for bytes in [b"not a database".to_vec(), Vec::new(), good[..good.len() / 2].to_vec(), good[..4096].to_vec()] {
        fs::write(&log, &bytes).unwrap();
        let error = error(folder.path());
        assert!(matches!(&error, DiskError::Corrupt { path, .. } if *path == log), "{error:?}");
        assert!(error.to_string().contains("log.redb") && error.to_string().contains("add it anew"), "{error}");
    }
}

#[tokio::test]
async fn flipped_bytes_are_found() {
    let folder = filled().await;
    for name in ["log.redb", "snapshot"] {
        let path = folder.path().join(name);
        let good = fs::read(&path).unwrap();
        let used: Vec<usize> = good.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
        let step = (used.len() / 120).max(1);
        let mut found = 0;
        for at in used.iter().step_by(step) {
            let mut bad = good.clone();
            bad[*at] ^= 0x55;
            fs::write(&path, &bad).unwrap();
            match Store::of(folder.path()) {
                Err(
                    DiskError::Corrupt { path: named, .. }
                    | DiskError::Format { path: named, .. }
                    | DiskError::Older { path: named, .. },
                ) => {
                    assert_eq!(named, path);
                    found += 1;
                }
                Err(other) => panic!("byte {at} of {name}: {other:?}"),
                // Free pages and padding carry nothing; then nothing may have changed.
                Ok(mut store) => {
                    assert_eq!(store.entries().await, (20..40).map(entry).collect::<Vec<_>>(), "byte {at} of {name}");
                    store.close().await;
                }
            }
        }
        assert!(found > 20, "{name}: only {found} of {} flips were found", used.len() / step);
        fs::write(&path, &good).unwrap();
    }
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_is_named() {
    let folder = filled().await;
    let path = folder.path().join("snapshot");
    let good = fs::read(&path).unwrap();
    for length in [0, 7, 20, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(error(folder.path()), DiskError::Corrupt { path: named, .. } if named == path));
    }
}
