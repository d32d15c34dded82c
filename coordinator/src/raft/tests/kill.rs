//! A process that appends is killed at any moment; what it had acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use openraft::storage::{RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine};
use tempfile::TempDir;

use super::{Store, entry, log_id};

const FOLDER: &str = "REGENT_TEST_APPEND_IN";
const ROUNDS: u32 = 24;

/// Not a test of its own: the process that [`nothing_acknowledged_is_lost`] kills.
#[tokio::test]
async fn child() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let mut store = Store::of(&folder).unwrap();
    let mut next = store.entries().await.last().map_or(0, |last| last.log_id.index + 1);
    let (mut applied, _) = store.machine.applied_state().await.unwrap();
    loop {
        let until = next + 1 + next % 7;
        store.append((next..until).map(entry).collect()).await.unwrap();
        next = until;
        println!("acknowledged {}", next - 1);
        std::io::stdout().flush().unwrap();
        let first = applied.map_or(0, |id| id.index + 1);
        let committed = (first..next).map(|index| Ok((entry(index), None)));
        store.machine.apply(futures::stream::iter(committed)).await.unwrap();
        applied = Some(log_id(1, next - 1));
        store.log.save_committed(applied).await.unwrap();
        if next % 5 == 0 {
            store.machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
            store.log.purge(log_id(1, next - 1 - (next - 1).min(40))).await.unwrap();
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged: Option<u64> = None;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "raft::tests::kill::child", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let life = Duration::from_micros(seed >> 33 & 0x3_ffff);
        let mut begun: Option<Instant> = None;
        for line in lines {
            let Some(index) = line.unwrap().split_once("acknowledged ").map(|(_, index)| index.parse().unwrap()) else {
                continue;
            };
            assert!(acknowledged < Some(index), "round {round}: {index} was acknowledged twice");
            acknowledged = Some(index);
            // What it still says after this is read to the end, and counts.
            if begun.get_or_insert_with(Instant::now).elapsed() >= life {
                let _ = child.kill();
            }
        }
        child.wait().unwrap();
        let acknowledged = acknowledged.expect("the child appended something");

        let mut store = Store::of(folder.path()).unwrap();
        let entries = store.entries().await;
        let first = store.log.get_log_state().await.unwrap().last_purged_log_id.map_or(0, |purged| purged.index + 1);
        let last = entries.last().map(|last| last.log_id.index).unwrap();
        assert!(last >= acknowledged, "round {round}: {last} is the last, {acknowledged} was acknowledged");
        assert_eq!(entries, (first..=last).map(entry).collect::<Vec<_>>(), "round {round}");
        let (applied, _) = store.machine.applied_state().await.unwrap();
        assert!(applied.map_or(0, |id| id.index + 1) >= first, "round {round}: a hole before {first}");
        assert_eq!(store.owner.incarnation.0, u64::from(round) * 2 + 2);
        store.close().await;
    }
}
