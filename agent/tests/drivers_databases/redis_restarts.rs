//! What a restarted Redis has lost, and what its replica keeps then.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use nix::sys::signal::Signal;
use regent_agent::driver::redis::Redis;
use regent_agent::driver::{Driver, Health, Rejoin, Role};

use crate::postgres::marker;
use crate::redis::Server;
use crate::until;

/// A primary A, opened by its driver, and its replica B, which has what A has.
struct Pair {
    a: Server,
    b: Server,
    driver_a: Redis,
    driver_b: Redis,
}

impl Pair {
    async fn new(extra: &str) -> Self {
        let (a, b) = (Server::new(extra), Server::new(extra));
        let driver_a = a.driver("a", &[("b", &b)]).with_record(record(&a));
        let driver_b = b.driver("b", &[("a", &a)]).with_record(record(&b));
        let pair = Self { a, b, driver_a, driver_b };
        for (driver, cluster) in [(&pair.driver_a, "a"), (&pair.driver_b, "b")] {
            driver.guard(&marker(cluster)).await.unwrap();
            driver.fence().await.unwrap();
        }
        pair.driver_a.unfence().await.unwrap();
        pair.driver_b.rejoin(&to("a")).await.unwrap();
        assert_eq!(pair.a.cli(&["SET", "k", "v"]), "OK");
        until("B has it", async || pair.b.cli(&["GET", "k"]) == "v").await;
        pair.seen().await;
        pair
    }

    /// A was looked at since it was last written, and that is on record.
    async fn seen(&self) {
        let position = self.driver_a.probe().await.position.unwrap();
        self.recorded("offset", position).await;
        until("all of it is written", async || self.a.is_written()).await;
    }

    /// Looks at A until its record has at least this.
    async fn recorded(&self, field: &str, wanted: u64) {
        until(&format!("{field} is on record"), async || {
            self.driver_a.probe().await;
            let text = std::fs::read(record(&self.a)).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
            record[field].as_u64().is_some_and(|has| has >= wanted)
        })
        .await;
    }

    /// By hand, or by whatever restarts it.
    fn restart(&self, signal: Signal) {
        self.a.end(signal);
        self.a.start();
    }

    /// B has asked A for all that it has, and gets nothing.
    async fn asked(&self) {
        until("B waits for a copy", async || self.a.cli(&["INFO", "replication"]).contains("state=wait_bgsave")).await;
    }
}

fn record(server: &Server) -> PathBuf {
    server.folder.path().join("record.json")
}

fn to(cluster: &str) -> Rejoin {
    Rejoin { upstream_cluster: cluster.into(), allow_rewind: true, allow_reclone: false, covered: None }
}

fn is_closed(answer: &str) -> bool {
    answer.contains("NOREPLICAS")
}

/// `save ""`: kill -9 or not, it comes back empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_came_back_with_less_is_not_opened_and_its_replica_keeps_what_it_has() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let pair = Pair::new("").await;
        pair.restart(signal);
        pair.asked().await;
        assert_eq!(pair.a.cli(&["GET", "k"]), "");
        let error = pair.driver_a.unfence().await.unwrap_err();
        assert_eq!((error.code, error.retryable), ("redis-data-lost", false), "{error}");
        assert_eq!(pair.driver_a.promote(None).await.unwrap_err().code, "redis-data-lost");
        let probe = pair.driver_a.probe().await;
        assert_eq!((probe.health, probe.role), (Health::Failed, Role::Unknown), "{probe:?}");
        assert!(probe.detail.contains("less than before") && probe.detail.contains("record.json"), "{}", probe.detail);
        assert!(is_closed(&pair.a.cli(&["SET", "k", "w"])));
        // An agent that was restarted with it knows it, too.
        let other = pair.a.driver("a", &[]).with_record(record(&pair.a));
        assert_eq!(other.unfence().await.unwrap_err().code, "redis-data-lost");
        assert_eq!(pair.b.cli(&["GET", "k"]), "v");
        assert_eq!(pair.a.cli(&["CONFIG", "GET", "repl-diskless-sync-delay"]).lines().last(), Some("2147483647"));

        // It is as good as dead: it is fenced, and the other side takes over with what it has.
        pair.driver_a.fence().await.unwrap();
        pair.driver_b.promote(None).await.unwrap();
        assert_eq!(pair.b.cli(&["GET", "k"]), "v");
        assert_eq!(pair.b.cli(&["SET", "k", "w"]), "OK");
        // Empty, it has nothing to lose.
        pair.driver_a.rejoin(&to("b")).await.unwrap();
        until("A has it", async || pair.a.cli(&["GET", "k"]) == "w").await;
        let probe = pair.driver_a.probe().await;
        assert_eq!((probe.health, probe.role), (Health::Healthy, Role::Standby), "{probe:?}");
        assert_eq!(pair.a.cli(&["CONFIG", "GET", "repl-diskless-sync-delay"]).lines().last(), Some("0"));
        // What it had is not its own any more.
        assert!(!record(&pair.a).exists());
        // It died between the link and the end of that step.
        pair.a.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "2147483647"]);
        pair.driver_a.rejoin(&to("b")).await.unwrap();
        assert_eq!(pair.a.cli(&["CONFIG", "GET", "repl-diskless-sync-delay"]).lines().last(), Some("0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_it_opened_as_it_is() {
    let pair = Pair::new("").await;
    pair.restart(Signal::SIGKILL);
    assert_eq!(pair.driver_a.unfence().await.unwrap_err().code, "redis-data-lost");
    std::fs::remove_file(record(&pair.a)).unwrap();
    assert_eq!(pair.driver_a.probe().await.health, Health::Healthy);
    assert!(!pair.driver_a.unfence().await.unwrap().already);
    assert!(pair.driver_a.unfence().await.unwrap().already);
    assert_eq!(pair.a.cli(&["SET", "new", "1"]), "OK");
    // That was the word: from here on B has what A has.
    until("B follows", async || pair.b.cli(&["GET", "new"]) == "1").await;
    assert_eq!(pair.b.cli(&["GET", "k"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_nothing_is_opened_again_and_followed() {
    // What it keeps, how it ends, and whether it then has what it had.
    let cases = [
        ("appendonly yes", Signal::SIGKILL, true),
        ("appendonly yes", Signal::SIGTERM, true),
        // Saved as it ends; killed, it has what it last saved.
        ("save 3600 1", Signal::SIGTERM, true),
        ("save 3600 1", Signal::SIGKILL, false),
    ];
    for (extra, signal, whole) in cases {
        let pair = Pair::new(extra).await;
        pair.restart(signal);
        if !whole {
            pair.asked().await;
            assert_eq!(pair.driver_a.unfence().await.unwrap_err().code, "redis-data-lost", "{extra}, {signal}");
            assert_eq!(pair.b.cli(&["GET", "k"]), "v");
            continue;
        }
        assert!(!pair.driver_a.unfence().await.unwrap().already, "{extra}, {signal}");
        assert_eq!(pair.a.cli(&["GET", "k"]), "v");
        assert_eq!(pair.a.cli(&["SET", "k", "w"]), "OK");
        until("B follows", async || pair.b.cli(&["GET", "k"]) == "w").await;
        let probe = pair.driver_a.probe().await;
        assert_eq!((probe.health, probe.writable), (Health::Healthy, true), "{probe:?}");
    }
}

/// An append-only file that is there and has less: its folder was emptied, or restored from an older copy.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_that_is_shorter_is_no_reason_to_open() {
    let pair = Pair::new("appendonly yes").await;
    // More than a new one has.
    pair.recorded("appended", 90).await;
    pair.a.end(Signal::SIGKILL);
    std::fs::remove_dir_all(pair.a.folder.path().join("appendonlydir")).unwrap();
    pair.a.start();
    pair.asked().await;
    let error = pair.driver_a.unfence().await.unwrap_err();
    assert_eq!(error.code, "redis-data-lost", "{error}");
    assert_eq!(pair.b.cli(&["GET", "k"]), "v");
}

/// What a rewrite has made shorter lacks nothing; and none begins before what was loaded was looked at.
#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_that_was_rewritten_is_opened() {
    let pair = Pair::new("appendonly yes\nauto-aof-rewrite-percentage 70").await;
    for _ in 0..50 {
        assert_eq!(pair.a.cli(&["SET", "k", "v"]), "OK");
    }
    pair.recorded("base", 1).await;
    pair.recorded("appended", 1000).await;
    pair.a.cli(&["BGREWRITEAOF"]);
    let manifest = pair.a.folder.path().join("appendonlydir/appendonly.aof.manifest");
    until("it is rewritten", async || std::fs::read_to_string(&manifest).unwrap().contains("seq 2 type b")).await;
    pair.restart(Signal::SIGKILL);
    let percentage = || pair.a.cli(&["CONFIG", "GET", "auto-aof-rewrite-percentage"]);
    assert_eq!(percentage().lines().last(), Some("0"));
    pair.driver_a.unfence().await.unwrap();
    assert_eq!(percentage().lines().last(), Some("70"));
    assert_eq!(pair.a.cli(&["GET", "k"]), "v");
}

/// Without a replica a snapshot names no history.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_one_is_opened_with_all_that_it_has_saved_and_not_with_less() {
    let server = Server::new("save 3600 1");
    let driver = server.driver("a", &[]).with_record(record(&server));
    driver.guard(&marker("a")).await.unwrap();
    driver.unfence().await.unwrap();
    assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
    until("its keys are on record", async || {
        driver.probe().await;
        recorded(&server)["keys"] == true
    })
    .await;
    assert_eq!(recorded(&server)["backlog"], false);
    // Saved as it ends.
    server.end(Signal::SIGTERM);
    server.start();
    assert!(!driver.unfence().await.unwrap().already);
    assert_eq!(server.cli(&["GET", "k"]), "v");
    // Not saved, and seen behind the last save.
    let saved = std::fs::metadata(server.folder.path().join("dump.rdb")).unwrap().modified().unwrap();
    let saved = saved.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    until("a later look is on record", async || {
        server.cli(&["SET", "k", "w"]);
        driver.probe().await;
        recorded(&server)["unsaved"].as_u64().is_some_and(|at| u128::from(at) > saved)
    })
    .await;
    server.end(Signal::SIGKILL);
    server.start();
    assert_eq!(server.cli(&["GET", "k"]), "v");
    let error = driver.unfence().await.unwrap_err();
    assert_eq!(error.code, "redis-data-lost", "{error}");
    // Nothing at all is less, whatever the time says.
    server.end(Signal::SIGKILL);
    std::fs::remove_file(server.folder.path().join("dump.rdb")).unwrap();
    server.start();
    assert_eq!(driver.unfence().await.unwrap_err().code, "redis-data-lost");
}

fn recorded(server: &Server) -> serde_json::Value {
    let text = std::fs::read(record(server)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
