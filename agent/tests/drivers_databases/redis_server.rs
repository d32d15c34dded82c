//! Redis, where it is and between two sides.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::redis::{Redis, RedisOptions};
use regent_agent::driver::{Driver, Health, Rejoin, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::postgres::marker;
use crate::redis::Server;
use crate::until;

fn is_refused(answer: &str) -> bool {
    ["NOREPLICAS", "READONLY", "NOAUTH"].iter().any(|word| answer.contains(word))
}

#[test]
fn redis_options_read_as_documented() {
    let text = r#"{
        "host": "127.0.0.1", "port": 6379, "user": "regent", "password": "hunter2", "clients": ["default"],
        "pidFile": "/p", "start": ["/start"], "stop": ["/stop"], "upstreams": {
            "eu-central-1": { "host": "127.0.0.1", "port": 6380, "user": "replicator", "password": "hunter2" } } }"#;
    let options: RedisOptions = serde_json::from_str(text).unwrap();
    assert!(!format!("{options:?}").contains("hunter2"));
    assert!(serde_json::from_str::<RedisOptions>(&text.replace("pidFile", "pidfile")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_closed_at_rest_and_opened_by_the_agent_alone() {
    // An upstream of long ago: a primary must not take over its data at the next start.
    let server = Server::new("replicaof 127.0.0.1 1\nappendonly yes");
    let driver = server.driver("a", &[]);
    assert_eq!(driver.probe().await.role, Role::Standby);
    assert!(!driver.guard(&marker("a")).await.unwrap().already);
    assert!(driver.guard(&marker("a")).await.unwrap().already);
    assert!(is_refused(&server.cli(&["SET", "k", "v"])));
    assert_eq!(driver.unfence().await.unwrap_err().code, "redis-standby");
    assert!(!driver.promote(None).await.unwrap().already);
    assert!(driver.promote(None).await.unwrap().already);
    assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
    let probe = driver.probe().await;
    assert_eq!((probe.health, probe.role, probe.writable), (Health::Healthy, Role::Primary, true), "{probe:?}");

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        server.end(signal);
        // The last thread may close the socket a moment after the process counts as dead.
        until("it is seen dead", async || driver.probe().await.health == Health::Failed).await;
        server.start();
        let answer = server.cli(&["SET", "k", "v"]);
        assert!(is_refused(&answer), "{answer}");
        assert_eq!(server.cli(&["ROLE"]).lines().next(), Some("master"));
        assert!(!driver.probe().await.writable);
        assert!(!driver.unfence().await.unwrap().already);
        assert!(driver.unfence().await.unwrap().already);
        assert_eq!(server.cli(&["GET", "k"]), "v", "it is opened with what it had");
        assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
    }
    server.end(Signal::SIGKILL);
    assert!(driver.fence().await.unwrap().already);
    driver.unfence().await.unwrap();
    assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_fence_cuts_and_refuses_everybody() {
    let server = Server::new("appendonly yes");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    driver.probe().await;
    let mut writers = Vec::new();
    for _ in 0..4 {
        let mut writer = tokio::net::TcpStream::connect(("127.0.0.1", server.port)).await.unwrap();
        writers.push(tokio::spawn(async move {
            let mut answer = [0; 64];
            let mut count = 0_u64;
            loop {
                writer.write_all(b"INCR count\r\n").await.unwrap_or_default();
                match writer.read(&mut answer).await {
                    Ok(length) if length > 0 && answer[0] == b':' => count += 1,
                    // Refused: goes on asking until it is cut.
                    Ok(length) if length > 0 => {}
                    _ => return (count, Instant::now()),
                }
            }
        }));
    }
    until("writers write", async || server.cli(&["GET", "count"]).parse().unwrap_or(0) > 200).await;
    let began = Instant::now();
    let done = driver.fence().await.unwrap();
    println!("redis fence: {:?}, {}", began.elapsed(), done.message);
    assert!(began.elapsed() < Duration::from_millis(300));
    assert!(!done.already);
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap().0;
    }
    for login in [vec![], vec!["--user", "regent", "--pass", "regent", "--no-auth-warning"]] {
        let answer = server.cli(&[&login[..], &["SET", "k", "v"]].concat());
        assert!(is_refused(&answer), "{answer}");
    }
    assert!(!driver.probe().await.writable);
    assert!(driver.fence().await.unwrap().already);
    assert!(driver.quiesce().await.unwrap().already);
    assert!(!driver.unfence().await.unwrap().already);
    assert_eq!(server.cli(&["GET", "count"]), acknowledged.to_string());
    until("all of it is written", async || server.is_written()).await;

    let began = Instant::now();
    assert!(!driver.fence_hard().await.unwrap().already);
    println!("redis hard fence: {:?}", began.elapsed());
    assert!(server.process().is_none());
    assert!(driver.fence_hard().await.unwrap().already);
    assert!(driver.fence().await.unwrap().already);
    // A guard that never met the server goes by the pid file.
    driver.unfence().await.unwrap();
    assert_eq!(server.cli(&["GET", "count"]), acknowledged.to_string());
    assert!(!server.driver("a", &[]).fence_hard().await.unwrap().already);
    assert!(server.process().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_fails_over_and_the_old_primary_rejoins() {
    let a = Server::new("");
    let b = Server::new("");
    let driver_a = a.driver("a", &[("b", &b)]);
    let driver_b = b.driver("b", &[("a", &a)]);
    driver_a.guard(&marker("a")).await.unwrap();
    assert_eq!(a.cli(&["SET", "k", "1"]), "OK");
    let to_a = Rejoin { upstream_cluster: "a".into(), allow_rewind: true, allow_reclone: false, covered: None };
    // Open as it is, B is nobody's replica.
    assert_eq!(driver_b.rejoin(&to_a).await.unwrap_err().code, "redis-writable");
    driver_b.guard(&marker("b")).await.unwrap();
    driver_b.fence().await.unwrap();
    assert!(!driver_b.rejoin(&to_a).await.unwrap().already);
    assert!(driver_b.rejoin(&to_a).await.unwrap().already);
    let position = driver_a.probe().await.position.unwrap();
    driver_b.catch_up(position).await.unwrap();
    assert_eq!(b.cli(&["GET", "k"]), "1");
    let probe = driver_b.probe().await;
    assert_eq!((probe.role, probe.writable), (Role::Standby, false));
    assert!(probe.upstream.as_ref().is_some_and(|upstream| upstream.connected), "{probe:?}");
    assert_eq!(driver_b.promote(Some(u64::MAX)).await.unwrap_err().code, "redis-behind");

    // Planned: nothing is lost, and A goes on as a replica without a copy. What expires after the fence does not part
    // their histories.
    assert_eq!(a.cli(&["SET", "soon", "gone", "PX", "400"]), "OK");
    let fenced = driver_a.fence().await.unwrap();
    driver_b.catch_up(fenced.position.unwrap()).await.unwrap();
    let began = Instant::now();
    driver_b.promote(fenced.position).await.unwrap();
    println!("redis promote: {:?}", began.elapsed());
    assert_eq!(b.cli(&["SET", "k", "2"]), "OK");
    until("it expires", async || b.cli(&["EXISTS", "soon"]) == "0").await;
    until("a round of expiry has passed", async || began.elapsed() > Duration::from_secs(1)).await;
    assert_eq!(driver_a.probe().await.position, fenced.position);
    let to_b = Rejoin { upstream_cluster: "b".into(), allow_rewind: true, allow_reclone: false, covered: None };
    println!("{}", driver_a.rejoin(&to_b).await.unwrap().message);
    until("A has it", async || a.cli(&["GET", "k"]) == "2").await;
    assert!(is_refused(&a.cli(&["SET", "k", "v"])));

    // Unplanned: B dies with a row that A lacks; A takes over, B comes back with a history of its own.
    b.cli(&["CLIENT", "PAUSE", "0"]);
    let position = driver_b.probe().await.position.unwrap();
    driver_a.catch_up(position).await.unwrap();
    assert_eq!(a.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    assert!(is_refused(&a.cli(&["SET", "k", "by hand"])));
    assert_eq!(b.cli(&["SET", "lost", "row"]), "OK");
    driver_b.fence().await.unwrap();
    driver_a.promote(None).await.unwrap();
    assert_eq!(a.cli(&["SET", "k", "3"]), "OK");
    let error = driver_b.rejoin(&to_a).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("rejoin-diverged", false), "{error}");
    let allowed = Rejoin { allow_reclone: true, ..to_a };
    let done = driver_b.rejoin(&allowed).await.unwrap();
    println!("{}", done.message);
    assert!(driver_b.rejoin(&allowed).await.unwrap().already);
    assert_eq!(b.cli(&["GET", "lost"]), "");
    until("B has it", async || b.cli(&["GET", "k"]) == "3").await;
    let aside = std::fs::read_dir(b.folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains(".regent-set-aside-"));
    assert_eq!(aside.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_rejoined_starts_as_a_replica_until_it_is_promoted() {
    let (a, b) = (Server::new(""), Server::new(""));
    let (driver_a, driver_b) = (a.driver("a", &[("b", &b)]), b.driver("b", &[("a", &a)]));
    for (driver, cluster) in [(&driver_a, "a"), (&driver_b, "b")] {
        driver.guard(&marker(cluster)).await.unwrap();
        driver.fence().await.unwrap();
    }
    driver_b.promote(None).await.unwrap();
    let to_b = Rejoin { upstream_cluster: "b".into(), allow_rewind: true, allow_reclone: false, covered: None };
    driver_a.rejoin(&to_b).await.unwrap();
    assert!(driver_a.rejoin(&to_b).await.unwrap().already);
    assert!(driver_a.guard(&marker("a")).await.is_ok());

    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // By hand, or by whatever restarts it: the agent has no part in it.
        a.end(signal);
        a.start();
        assert_eq!(a.cli(&["ROLE"]).lines().next(), Some("slave"));
        assert!(is_refused(&a.cli(&["SET", "k", "v"])));
    }
    assert_eq!(b.cli(&["SET", "k", "1"]), "OK");
    until("it replicates again", async || a.cli(&["GET", "k"]) == "1").await;
    // A Redis that came back empty would have nothing to lose.
    assert_eq!(b.cli(&["SAVE"]), "OK");

    let position = driver_b.fence().await.unwrap().position;
    driver_a.catch_up(position.unwrap()).await.unwrap();
    driver_a.promote(position).await.unwrap();

    // A restart takes the old primary its history's name. Where all of it is known to be at the other side, that is no
    // reason to ask a human; the data is set aside all the same.
    b.end(Signal::SIGKILL);
    b.start();
    let to_a = Rejoin { upstream_cluster: "a".into(), allow_rewind: true, allow_reclone: false, covered: None };
    assert_eq!(driver_b.rejoin(&to_a).await.unwrap_err().code, "rejoin-needs-reclone");
    let done = driver_b.rejoin(&Rejoin { covered: position, ..to_a }).await.unwrap();
    assert!(done.message.contains(".regent-set-aside-"), "{}", done.message);
    until("it has the data", async || b.cli(&["GET", "k"]) == "1").await;

    a.end(Signal::SIGKILL);
    a.start();
    assert_eq!(a.cli(&["ROLE"]).lines().next(), Some("master"), "a primary follows nobody");
    assert!(is_refused(&a.cli(&["SET", "k", "v"])));
    let config = std::fs::read_to_string(a.config()).unwrap();
    assert!(!config.contains("masterauth"), "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_and_has_no_known_file_is_not_taken_into_guard() {
    let server = Server::new("");
    server.end(Signal::SIGKILL);
    let driver = server.driver("a", &[]);
    until("it is seen dead", async || driver.probe().await.health == Health::Failed).await;
    let refused = driver.guard(&marker("a")).await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), ("redis-no-config-file", true), "{refused}");
    server.start();
    driver.guard(&marker("a")).await.unwrap();
    server.end(Signal::SIGKILL);
    server.start();
    let answer = server.cli(&["SET", "k", "v"]);
    assert!(is_refused(&answer), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_closes_the_file_beside() {
    let server = Server::new("");
    let driver = server.driver("a", &[]);
    driver.fence().await.unwrap();
    let closed = || std::fs::read_to_string(server.config()).unwrap().contains("min-replicas-to-write 65535");
    until("the file is closed", async || closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_redis_could_be_ended_is_shown_before_it_is_needed() {
    let server = Server::new("");
    let named = server.options(&[]);
    let lost = RedisOptions { pid_file: server.folder.path().join("elsewhere"), ..named.clone() };
    // By its own word, though no file names it; and that is remembered when it does not answer any more.
    let driver = Redis::new(lost.clone(), "a");
    driver.can_end().await.unwrap();
    server.process().unwrap().signal(Signal::SIGSTOP).unwrap();
    driver.can_end().await.unwrap();
    // One that never heard it cannot find it.
    assert_eq!(Redis::new(lost, "a").can_end().await.unwrap_err().code, "redis-hidden");
    Redis::new(named.clone(), "a").can_end().await.unwrap();
    server.end(Signal::SIGKILL);
    let driver = Redis::new(named, "a");
    until("nothing is left to be ended", async || driver.can_end().await.is_ok()).await;
}
