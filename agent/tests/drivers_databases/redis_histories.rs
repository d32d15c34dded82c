//! The old side of a switchover follows: without a copy where that can be, by a copy only where nothing is lost by it,
//! and what it has beyond the other side's history is counted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::redis::Redis;
use regent_agent::driver::{Driver, Rejoin};

use crate::postgres::marker;
use crate::redis::Server;
use crate::until;

/// A fence leaves the agent's user alone.
const AGENT: [&str; 5] = ["--user", "regent", "--pass", "regent", "--no-auth-warning"];

/// After a switchover from A to B: A is fenced, B has all of it and is open.
struct Switched {
    a: Server,
    b: Server,
    driver_a: Redis,
    driver_b: Redis,
    /// What A reported after its fence.
    fenced_at: u64,
}

impl Switched {
    /// Both with these settings; A has a key `kept`, and one that expires soon after its fence.
    async fn new(extra: &str) -> Self {
        let (a, b) = (Server::new(extra), Server::new(extra));
        let (driver_a, driver_b) = (a.driver("a", &[("b", &b)]), b.driver("b", &[("a", &a)]));
        for (driver, cluster) in [(&driver_a, "a"), (&driver_b, "b")] {
            driver.guard(&marker(cluster)).await.unwrap();
            driver.fence().await.unwrap();
        }
        driver_a.unfence().await.unwrap();
        driver_b.rejoin(&to("a", None)).await.unwrap();
        assert_eq!(a.cli(&["SET", "kept", "1"]), "OK");
        assert_eq!(a.cli(&["SET", "soon", "gone", "PX", "700"]), "OK");
        let began = Instant::now();
        let fenced_at = driver_a.fence().await.unwrap().position.unwrap();
        driver_b.catch_up(fenced_at).await.unwrap();
        driver_b.promote(Some(fenced_at)).await.unwrap();
        until("all of it is written", async || {
            let told = a.cli(&[&AGENT[..], &["INFO", "persistence"]].concat());
            told.contains("aof_enabled:0") || told.contains("aof_buffer_length:0")
        })
        .await;
        until("the key has expired", async || began.elapsed() > Duration::from_millis(800)).await;
        assert_eq!(b.cli(&["SET", "new", "2"]), "OK");
        Self { a, b, driver_a, driver_b, fenced_at }
    }

    /// The last step of the switchover.
    async fn follows(&self) -> Result<String, regent_agent::driver::DriverError> {
        self.driver_a.rejoin(&to("b", Some(self.fenced_at))).await.map(|done| done.message)
    }

    fn as_agent(&self, words: &[&str]) -> String {
        self.a.cli(&[&AGENT[..], words].concat())
    }

    /// Somebody opens A, writes, and closes it again.
    fn write_by_hand(&self) {
        self.as_agent(&["CLIENT", "UNPAUSE"]);
        // From here on nothing is left to expire.
        assert_eq!(self.as_agent(&["EXISTS", "soon"]), "0");
        assert_eq!(self.as_agent(&["CONFIG", "SET", "min-replicas-to-write", "0"]), "OK");
        assert_eq!(self.as_agent(&["SET", "only", "here"]), "OK");
        assert_eq!(self.as_agent(&["CONFIG", "SET", "min-replicas-to-write", "65535"]), "OK");
    }

    /// It is as it was, and nothing of it was put anywhere.
    fn is_untouched(&self) {
        assert_eq!(self.as_agent(&["ROLE"]).lines().next(), Some("master"));
        assert_eq!(self.as_agent(&["GET", "kept"]), "1");
        assert_eq!(aside(&self.a), Vec::<String>::new());
    }

    async fn has_what_is_new(&self) {
        until("A has it", async || self.a.cli(&["GET", "new"]) == "2").await;
    }

    fn full_copies(&self) -> u64 {
        number(&self.b, "sync_full")
    }
}

fn to(cluster: &str, covered: Option<u64>) -> Rejoin {
    Rejoin { upstream_cluster: cluster.into(), allow_rewind: true, allow_reclone: false, covered }
}

fn aside(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".regent-set-aside-")).collect()
}

/// Of `INFO`.
fn number(server: &Server, key: &str) -> u64 {
    let told = server.cli(&[&AGENT[..], &["INFO"]].concat());
    let mut lines = told.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
    lines.next().unwrap().parse().unwrap()
}

/// How far A's history goes beyond where B's began.
fn beyond(switched: &Switched) -> (u64, u64) {
    let fork = number(&switched.b, "second_repl_offset") - 1;
    (fork, number(&switched.a, "master_repl_offset") - fork)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_go_on_takes_no_copy() {
    let switched = Switched::new("").await;
    assert_eq!(beyond(&switched), (switched.fenced_at, 0));
    let told = switched.driver_a.divergence("b").await.unwrap().unwrap();
    assert!(told.starts_with("nothing lies beyond the history of b"), "{told}");
    let message = switched.follows().await.unwrap();
    assert!(message.contains("went on from where it was"), "{message}");
    switched.has_what_is_new().await;
    assert_eq!((switched.full_copies(), number(&switched.b, "sync_partial_ok")), (0, 1));
    assert_eq!(aside(&switched.a), Vec::<String>::new());
    assert_eq!(switched.driver_a.divergence("b").await.unwrap(), None, "it follows");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_after_the_fence_is_counted_and_not_overwritten_by_itself() {
    let switched = Switched::new("").await;
    switched.write_by_hand();
    let (fork, bytes) = beyond(&switched);
    assert!(fork == switched.fenced_at && bytes > 0, "{bytes} beyond {fork}");
    let refused = switched.follows().await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), ("rejoin-diverged", false), "{refused}");
    assert!(refused.message.contains(&format!("at offset {fork}: beyond it lie {bytes} bytes")), "{refused}");
    switched.is_untouched();
    assert_eq!(switched.as_agent(&["GET", "only"]), "here");
    let told = switched.driver_a.divergence("b").await.unwrap().unwrap();
    assert_eq!(told, format!("parted from b at offset {fork}: {bytes} bytes, an unknown number of keys"));

    let allowed = Rejoin { allow_reclone: true, ..to("b", Some(switched.fenced_at)) };
    let done = switched.driver_a.rejoin(&allowed).await.unwrap();
    assert!(done.message.contains(&format!("beyond it lie {bytes} bytes")), "{}", done.message);
    switched.has_what_is_new().await;
    assert_eq!(switched.a.cli(&["GET", "only"]), "");
    assert_eq!(aside(&switched.a).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restarted_is_copied_by_itself_where_offsets_show_that_nothing_is_lost() {
    for (extra, signal) in [("appendonly yes", Signal::SIGKILL), ("save 3600 1", Signal::SIGTERM)] {
        let switched = Switched::new(extra).await;
        switched.a.end(signal);
        switched.a.start();
        let refused = switched.driver_a.rejoin(&to("b", None)).await.unwrap_err();
        assert_eq!(refused.code, "rejoin-needs-reclone", "{extra}: {refused}");
        switched.is_untouched();
        // What expired meanwhile is no write.
        let message = switched.follows().await.unwrap();
        println!("{extra}: {message}");
        let end = format!("has its history up to {}", switched.fenced_at);
        assert!(message.contains(&end) && message.contains(".regent-set-aside-"), "{extra}: {message}");
        switched.has_what_is_new().await;
        assert_eq!((switched.full_copies(), aside(&switched.a).len()), (1, 1), "{extra}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_restarted_and_written_is_not_copied_over_by_itself() {
    // Whether a look of the agent has to have seen it, whether it was restarted once more, and what it is called then.
    let cases = [
        ("appendonly yes", Signal::SIGKILL, true, false, "rejoin-needs-reclone"),
        ("save 3600 1", Signal::SIGTERM, false, false, "rejoin-diverged"),
        ("save 3600 1", Signal::SIGTERM, false, true, "rejoin-needs-reclone"),
    ];
    for (extra, signal, seen, again, code) in cases {
        let switched = Switched::new(extra).await;
        switched.a.end(signal);
        switched.a.start();
        if seen {
            assert_eq!(switched.as_agent(&["CONFIG", "SET", "min-replicas-to-write", "0"]), "OK");
            assert!(switched.driver_a.probe().await.writable, "{extra}");
        }
        switched.write_by_hand();
        if again {
            switched.a.end(signal);
            switched.a.start();
        }
        let refused = switched.follows().await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), (code, false), "{extra}: {refused}");
        switched.is_untouched();
        assert_eq!(switched.as_agent(&["GET", "only"]), "here");
        let told = switched.driver_a.divergence("b").await.unwrap().unwrap();
        println!("{extra}: {told}");
        assert!(told.contains("an unknown number of") && !told.contains("nothing"), "{extra}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_has_lost_what_it_took_over_overwrites_nothing() {
    let switched = Switched::new("").await;
    // Without what it had received as a replica it comes back empty, closed, and knows of no history before.
    switched.b.end(Signal::SIGKILL);
    std::fs::remove_file(switched.b.folder.path().join("dump.rdb")).unwrap();
    switched.b.start();
    let refused = switched.follows().await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), ("redis-upstream", true), "{refused}");
    switched.is_untouched();
    // Somebody opens it as it is, and writes: it names no history that A could know.
    assert_eq!(switched.b.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]), "OK");
    for _ in ["empty", "with a key"] {
        let refused = switched.follows().await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), ("rejoin-needs-reclone", false), "{refused}");
        switched.is_untouched();
        assert_eq!(switched.b.cli(&["SET", "new", "2"]), "OK");
    }
    let told = switched.driver_a.divergence("b").await.unwrap().unwrap();
    assert!(told.contains("an unknown number of bytes and keys"), "{told}");
    assert_eq!(switched.full_copies(), 0);
    drop(switched.driver_b);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_empty_server_has_not_loaded_is_kept() {
    let (a, b) = (Server::new(""), Server::new(""));
    let driver_a = a.driver("a", &[("b", &b)]);
    assert_eq!(a.cli(&["SET", "k", "v"]), "OK");
    assert_eq!(a.cli(&["SAVE"]), "OK");
    let snapshot = std::fs::read(a.folder.path().join("dump.rdb")).unwrap();
    // The foot-gun of an append-only file that is switched on in the file alone: the snapshot is not loaded.
    a.end(Signal::SIGKILL);
    std::fs::write(a.config(), std::fs::read_to_string(a.config()).unwrap() + "appendonly yes\n").unwrap();
    a.start();
    assert_eq!(a.cli(&["DBSIZE"]), "0");
    driver_a.guard(&marker("a")).await.unwrap();
    driver_a.fence().await.unwrap();
    let message = driver_a.rejoin(&to("b", None)).await.unwrap().message;
    let kept = aside(&a);
    let [kept] = kept.as_slice() else { panic!("{kept:?}: {message}") };
    assert!(message.contains(kept), "{message}");
    assert_eq!(std::fs::read(a.folder.path().join(kept)).unwrap(), snapshot);

    // Functions are data, too.
    let c = Server::new("");
    let driver_c = c.driver("c", &[("b", &b)]);
    let library = "#!lua name=l\nredis.register_function('f', function() return 1 end)";
    assert_eq!(c.cli(&["FUNCTION", "LOAD", library]), "l");
    driver_c.guard(&marker("c")).await.unwrap();
    driver_c.fence().await.unwrap();
    assert_eq!(driver_c.rejoin(&to("b", None)).await.unwrap_err().code, "rejoin-needs-reclone");
}
