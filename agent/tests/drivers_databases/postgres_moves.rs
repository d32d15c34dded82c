//! PostgreSQL between two sides: promoted, caught up, rejoined.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::postgres::Postgres;
use regent_agent::driver::{Driver, Health, Rejoin, Role};
use tokio_postgres::error::SqlState;

use crate::postgres::{Server, marker};
use crate::{code, insert, until};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fails_over_and_the_old_primary_rejoins() {
    let a = Server::primary("");
    let b = Server::standby_of(&a);
    let driver_a = a.driver("a", &[("b", &b)]);
    let driver_b = b.driver("b", &[("a", &a)]);
    driver_a.guard(&marker("a")).await.unwrap();
    driver_b.guard(&marker("b")).await.unwrap();
    a.accepts_write("app").await.unwrap();
    let position = driver_a.probe().await.position.unwrap();
    driver_b.catch_up(position).await.unwrap();
    let probe = driver_b.probe().await;
    let upstream = probe.upstream.clone().unwrap();
    assert_eq!((probe.role, probe.writable, upstream.connected), (Role::Standby, false, true), "{probe:?}");
    assert!(upstream.last_heard.is_some(), "{upstream:?}");
    assert_eq!(probe.system_id, driver_a.probe().await.system_id);

    // A standby is not opened, and not promoted before the position.
    assert_eq!(driver_b.unfence().await.unwrap_err().code, "postgres-standby");
    assert_eq!(driver_b.promote(Some(u64::MAX)).await.unwrap_err().code, "postgres-behind");
    let rejoin_b = Rejoin { upstream_cluster: "a".into(), allow_rewind: true, allow_reclone: false, covered: None };
    assert!(driver_b.rejoin(&rejoin_b).await.unwrap().already);

    // Rows that only A has, then its death at the very moment of the promotion.
    for process in a.processes().iter().filter(|process| process.title().contains("walsender")) {
        process.signal(Signal::SIGSTOP).unwrap();
    }
    let lost = a.connect("app").await.unwrap();
    insert(&lost, "lost").await.unwrap();
    a.kill();
    let began = Instant::now();
    let done = driver_b.promote(Some(position)).await.unwrap();
    println!("promote: {:?}, {}", began.elapsed(), done.message);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!((done.already, done.timeline), (false, 2));
    assert!(driver_b.promote(Some(position)).await.unwrap().already);
    b.accepts_write("app").await.unwrap();
    assert!(b.data.join("standby.signal").exists());
    assert_eq!(b.value("SHOW primary_conninfo").await, "");
    assert_eq!(driver_b.rejoin(&rejoin_b).await.unwrap_err().code, "postgres-writable");

    // A comes back, crashed and diverged.
    assert!(driver_a.fence().await.is_ok());
    let rejoin_a = Rejoin { upstream_cluster: "b".into(), allow_rewind: true, allow_reclone: false, covered: None };
    // Without an operator's command it is measured, and left as it is.
    let by_itself = Rejoin { allow_rewind: false, ..rejoin_a.clone() };
    let kept = driver_a.rejoin(&by_itself).await.unwrap_err();
    println!("{kept}");
    assert_eq!((kept.code, kept.retryable), ("rejoin-diverged", false), "{kept}");
    assert!(kept.message.contains("1 commits, 1 changed rows"), "{kept}");
    let left = driver_a.probe().await;
    assert!(!left.writable && left.health == Health::Healthy, "it runs, closed: {left:?}");
    let told = driver_a.divergence("b").await.unwrap().expect("it diverged");
    assert!(told.contains("1 commits, 1 changed rows"), "{told}");
    let began = Instant::now();
    let done = driver_a.rejoin(&rejoin_a).await.unwrap();
    println!("rejoin: {:?}, {}", began.elapsed(), done.message);
    let saved = done.message.split("saved in ").nth(1).expect("what was given up was saved");
    let dump = std::process::Command::new(format!("{}/pg_waldump", crate::postgres::BIN))
        .args(["--path", saved, "--timeline=1", "--stats=record"])
        .arg(format!("--start={}", kept.message.split(" at ").nth(1).unwrap().split(' ').next().unwrap()))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&dump.stdout).contains("Transaction/COMMIT"), "{dump:?}");
    assert!(done.message.contains("rewound") && done.message.contains("Heap INSERT"), "{}", done.message);
    assert_eq!(driver_a.divergence("b").await.unwrap(), None, "it follows");
    assert!(driver_a.rejoin(&rejoin_a).await.unwrap().already);
    b.accepts_write("app").await.unwrap();
    let position = driver_b.probe().await.position.unwrap();
    driver_a.catch_up(position).await.unwrap();
    assert_eq!(a.value("SELECT count(*) FROM rows WHERE said = 'lost'").await, "0");
    let count = b.value("SELECT count(*) FROM rows").await;
    assert_eq!(a.value("SELECT count(*) FROM rows").await, count);
    let error = a.accepts_write("app").await.unwrap_err();
    assert_eq!(code(&error), SqlState::READ_ONLY_SQL_TRANSACTION.code());
    assert_eq!(driver_a.unfence().await.unwrap_err().code, "postgres-standby");

    // And back again, planned: fence, catch up, promote, rejoin.
    let fenced = driver_b.fence().await.unwrap();
    driver_a.catch_up(fenced.position.unwrap()).await.unwrap();
    driver_a.guard(&marker("a")).await.unwrap();
    let done = driver_a.promote(fenced.position).await.unwrap();
    assert_eq!(done.timeline, 3);
    let done = driver_b.rejoin(&rejoin_b).await.unwrap();
    println!("rejoin after a switchover: {}", done.message);
    assert!(done.message.contains("followed as it was"), "{}", done.message);
    a.accepts_write("app").await.unwrap();
    driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();

    // As after an attempt that was broken off once the server was started: what it has is the upstream's own timeline.
    b.kill_and_wait();
    let done = driver_b.rejoin(&Rejoin { allow_rewind: false, ..rejoin_b.clone() }).await.unwrap();
    assert!(done.message.contains("an earlier attempt had got so far"), "{}", done.message);
    driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();
    assert!(b.data.join("regent.following").exists());

    // Once more, with a shutdown checkpoint behind the fork: rewound, and it is said that no row went with it.
    let fenced = driver_a.fence().await.unwrap();
    driver_b.catch_up(fenced.position.unwrap()).await.unwrap();
    driver_b.guard(&marker("b")).await.unwrap();
    driver_b.promote(fenced.position).await.unwrap();
    assert!(!b.data.join("regent.following").exists(), "it has a history of its own");
    a.stop();
    let done = driver_a.rejoin(&rejoin_a).await.unwrap();
    println!("rejoin after a shutdown: {}", done.message);
    assert!(done.message.contains("rewound") && done.message.contains("no data, only"), "{}", done.message);
    b.accepts_write("app").await.unwrap();
    driver_a.catch_up(driver_b.probe().await.position.unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_promotes_fast_however_the_primary_dies() {
    for round in 0..4 {
        let a = Server::primary("");
        let b = Server::standby_of(&a);
        let driver = b.driver("b", &[]);
        driver.guard(&marker("b")).await.unwrap();
        until("it streams", async || driver.probe().await.upstream.is_some_and(|upstream| upstream.connected)).await;
        let killer = tokio::task::spawn_blocking(move || {
            a.kill();
            a
        });
        let began = Instant::now();
        driver.promote(None).await.unwrap();
        println!("round {round}: {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        b.accepts_write("app").await.unwrap();
        killer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_reclone_sets_the_old_data_aside() {
    let a = Server::primary("");
    let driver_a = a.driver("a", &[]);
    driver_a.guard(&marker("a")).await.unwrap();
    // B has a history of its own: its WAL is at another place than A's, and A has thrown away what a rewind needs.
    let b = Server::standby_of(&a);
    let driver_b = b.driver("b", &[("a", &a)]);
    driver_b.guard(&marker("b")).await.unwrap();
    driver_b.promote(None).await.unwrap();
    insert(&b.connect("app").await.unwrap(), "only on b").await.unwrap();
    driver_b.fence().await.unwrap();
    // Without the WAL since the fork there is nothing to rewind by.
    b.stop();
    for entry in std::fs::read_dir(b.data.join("pg_wal")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("00000001") && path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let mut rejoin = Rejoin { upstream_cluster: "a".into(), allow_rewind: true, allow_reclone: false, covered: None };
    let error = driver_b.rejoin(&rejoin).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("rewind-failed", false), "{error}");
    println!("{error}");
    assert!(b.data.join("standby.signal").exists());
    rejoin.allow_reclone = true;
    let done = driver_b.rejoin(&rejoin).await.unwrap();
    println!("{}", done.message);
    let aside: Vec<_> = std::fs::read_dir(b.data.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("data.regent-set-aside"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(aside[0].starts_with("data.regent-set-aside-"), "{aside:?}");
    assert!(driver_b.rejoin(&rejoin).await.unwrap().already);
    a.accepts_write("app").await.unwrap();
    driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows").await, "1");
}

/// A was fenced, and B took over with everything.
struct Switched {
    a: Server,
    b: Server,
    driver_a: Postgres,
    driver_b: Postgres,
}

impl Switched {
    async fn new() -> Self {
        let a = Server::primary("");
        let b = Server::standby_of(&a);
        let driver_a = a.driver("a", &[("b", &b)]);
        let driver_b = b.driver("b", &[("a", &a)]);
        driver_a.guard(&marker("a")).await.unwrap();
        driver_b.guard(&marker("b")).await.unwrap();
        a.accepts_write("app").await.unwrap();
        let fenced = driver_a.fence().await.unwrap();
        driver_b.catch_up(fenced.position.unwrap()).await.unwrap();
        driver_b.promote(fenced.position).await.unwrap();
        Self { a, b, driver_a, driver_b }
    }
}

/// The server makes segments beforehand, and they are empty: whichever of them is met first must not hide what the WAL says.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_follows_as_it_was_beside_segments_made_beforehand() {
    let Switched { a, b, driver_a, driver_b } = Switched::new().await;
    for number in 0x10..0x30 {
        let segment = a.data.join(format!("pg_wal/0000000100000000000000{number:02X}"));
        crate::postgres::run("truncate", &["--size=16M", segment.to_str().unwrap()], "");
    }
    let by_itself = Rejoin { upstream_cluster: "b".into(), allow_rewind: false, allow_reclone: false, covered: None };
    let done = driver_a.rejoin(&by_itself).await.unwrap();
    assert!(done.message.contains("followed as it was, nothing lay behind the fork"), "{}", done.message);
    b.accepts_write("app").await.unwrap();
    driver_a.catch_up(driver_b.probe().await.position.unwrap()).await.unwrap();
}

/// `pg_rewind` takes the timeline from the control file, where a promotion alone does not put it.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_dies_soon_after_its_promotion_is_rewound() {
    let Switched { a, b, driver_a, driver_b } = Switched::new().await;
    let rejoin = |upstream: &str| Rejoin {
        upstream_cluster: upstream.into(),
        allow_rewind: true,
        allow_reclone: false,
        covered: None,
    };
    driver_a.rejoin(&rejoin("b")).await.unwrap();
    until("there was a checkpoint in the new timeline", async || {
        driver_b.probe().await;
        b.value("SELECT timeline_id FROM pg_control_checkpoint()").await == "2"
    })
    .await;

    // Rows that only B has, and its death.
    until("A has all", async || driver_a.catch_up(driver_b.probe().await.position.unwrap()).await.is_ok()).await;
    for process in b.processes().iter().filter(|process| process.title().contains("walsender")) {
        process.signal(Signal::SIGSTOP).unwrap();
    }
    let lost = b.connect("app").await.unwrap();
    insert(&lost, "lost").await.unwrap();
    b.kill();
    driver_a.promote(None).await.unwrap();
    driver_a.guard(&marker("a")).await.unwrap();
    driver_b.fence().await.unwrap();
    let done = driver_b.rejoin(&rejoin("a")).await.unwrap();
    assert!(done.message.contains("rewound") && done.message.contains("Heap INSERT"), "{}", done.message);
    a.accepts_write("app").await.unwrap();
    driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows WHERE said = 'lost'").await, "0");
}
