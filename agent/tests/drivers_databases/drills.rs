//! Drills beside real standbys: copies are promoted in isolation, the originals go on, and nothing is left.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use regent_agent::driver::process::table::family;
use regent_agent::driver::scratch::{Check, ScratchOptions};
use regent_agent::driver::{Driver, Rehearsal, Role};
use regent_agent::driver::{postgres::Postgres, redis::Redis};

use crate::postgres::{Server, folder, marker};
use crate::{redis, until};

fn scratch(folder: &Path) -> Option<ScratchOptions> {
    Some(ScratchOptions { directory: folder.join("scratch"), settings: std::collections::BTreeMap::default() })
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder.join("scratch")).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_postgres_standby_is_promoted_and_the_standby_goes_on() {
    let a = Server::primary("");
    let b = Server::standby_of(&a);
    let place = folder();
    a.accepts_write("app").await.unwrap();
    let mut options = b.options(&[("a", &a)]);
    options.scratch = scratch(place.path());
    let check = |query: &str, expect: Option<&str>| Check { query: query.into(), expect: expect.map(Into::into) };
    options.checks = vec![check("SELECT count(*) FROM rows", Some("1")), check("SELECT true", None)];
    let driver = Postgres::new(options.clone(), "b");
    driver.guard(&marker("b")).await.unwrap();
    until("it streams", async || driver.probe().await.upstream.is_some_and(|upstream| upstream.connected)).await;
    let position = a.driver("a", &[]).probe().await.position.unwrap();
    driver.catch_up(position).await.unwrap();

    let nothing = driver.rehearse(Rehearsal::Verify, 7).await.unwrap_err();
    assert_eq!(nothing.code, "scratch-check", "{nothing}");
    let done = driver.rehearse(Rehearsal::Promote, 7).await.unwrap();
    println!("{}", done.message);
    assert!(!done.already && done.message.contains("1 rows in 1 tables"), "{}", done.message);
    assert!(done.rehearsed.is_some_and(|took| took.as_secs() < 5));
    assert!(driver.rehearse(Rehearsal::Promote, 7).await.unwrap().already, "it is there");
    let verified = driver.rehearse(Rehearsal::Verify, 7).await.unwrap();
    assert!(verified.message.contains("answers 2 checks"), "{}", verified.message);
    assert_eq!(driver.rehearse(Rehearsal::Verify, 8).await.unwrap_err().code, "scratch-check", "another drill's copy");

    // The original is what it was, and still follows.
    let probe = driver.probe().await;
    assert_eq!((probe.role, probe.writable, probe.timeline), (Role::Standby, false, 1));
    a.accepts_write("app").await.unwrap();
    driver.catch_up(a.driver("a", &[]).probe().await.position.unwrap()).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows").await, "2");
    assert_eq!(a.value("SELECT count(*) FROM pg_replication_slots").await, "0", "a slot was made");
    assert_eq!(b.value("SELECT count(*) FROM pg_replication_slots").await, "0", "a slot was made");

    // A query that is answered otherwise fails the check; the copy has not seen the second row.
    options.checks = vec![check("SELECT count(*) FROM rows", Some("2"))];
    let strict = Postgres::new(options, "b");
    let wrong = strict.rehearse(Rehearsal::Verify, 7).await.unwrap_err();
    assert!(wrong.message.contains("gives 1, expected is 2"), "{wrong}");

    let cleaned = driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap();
    assert!(!cleaned.already);
    assert!(is_empty(place.path()));
    let data = place.path().join("scratch/copy/data");
    assert!(family(&["postgres"], &[&data]).members.is_empty());
    assert!(driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap().already);
    assert_eq!(driver.probe().await.role, Role::Standby);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_not_copied_for_a_drill_and_without_a_folder_nothing_is() {
    let a = Server::primary("");
    let place = folder();
    let refused = a.driver("a", &[]).rehearse(Rehearsal::Promote, 7).await.unwrap_err();
    assert_eq!((refused.code, refused.retryable), ("scratch-missing", false), "{refused}");
    let mut options = a.options(&[]);
    options.scratch = scratch(place.path());
    let driver = Postgres::new(options.clone(), "a");
    assert_eq!(driver.rehearse(Rehearsal::Promote, 7).await.unwrap_err().code, "postgres-not-standby");
    options.scratch =
        Some(ScratchOptions { directory: a.data.join("scratch"), settings: std::collections::BTreeMap::default() });
    let within = Postgres::new(options, "a").rehearse(Rehearsal::CleanUp, 7).await.unwrap_err();
    assert_eq!(within.code, "postgres-config", "{within}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_redis_replica_is_promoted_and_the_replica_goes_on() {
    let a = redis::Server::new("");
    let b = redis::Server::new("");
    let place = folder();
    assert_eq!(a.cli(&["SET", "k", "1"]), "OK");
    b.cli(&["REPLICAOF", "127.0.0.1", &a.port.to_string()]);
    until("it follows", async || b.cli(&["GET", "k"]) == "1").await;
    let mut options = b.options(&[("a", &a)]);
    options.scratch = scratch(place.path());
    let driver = Redis::new(options, "b");
    let done = driver.rehearse(Rehearsal::Promote, 7).await.unwrap();
    println!("{}", done.message);
    assert!(!done.already && done.message.contains("1 keys"), "{}", done.message);
    assert!(driver.rehearse(Rehearsal::Promote, 7).await.unwrap().already);
    assert!(driver.rehearse(Rehearsal::Verify, 7).await.unwrap().message.contains("1 keys"));
    let probe = driver.probe().await;
    assert_eq!((probe.role, probe.writable), (Role::Standby, false));
    assert_eq!(a.cli(&["SET", "k", "2"]), "OK");
    until("it still follows", async || b.cli(&["GET", "k"]) == "2").await;
    assert!(!driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap().already);
    assert!(is_empty(place.path()));
    let data = place.path().join("scratch/copy/data");
    assert!(family(&["redis-server"], &[&data]).members.is_empty());
    let primary =
        Redis::new(regent_agent::driver::redis::RedisOptions { scratch: scratch(place.path()), ..a.options(&[]) }, "a");
    assert_eq!(primary.rehearse(Rehearsal::Promote, 7).await.unwrap_err().code, "redis-not-standby");
}
