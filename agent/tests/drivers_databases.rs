//! The database drivers against real servers. What holds is asked of the servers by sessions of the tests' own.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::postgres::PostgresOptions;
use regent_agent::driver::process::table::family;
use regent_agent::driver::redis::RedisOptions;
use regent_agent::driver::{Driver, Health, Rejoin, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::error::SqlState;

use postgres::{Server, marker};

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn code(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned())
}

async fn insert(client: &tokio_postgres::Client, said: &str) -> Result<u64, tokio_postgres::Error> {
    client.execute("INSERT INTO rows (said) VALUES ($1)", &[&said]).await
}

#[test]
fn postgres_options_read_as_documented() {
    let text = r#"{
        "dataDirectory": "/d", "host": "127.0.0.1", "port": 5432, "socketDirectory": "/s", "user": "regent",
        "password": "hunter2", "owner": "app", "database": "app", "binDirectory": "/usr/lib/postgresql/15/bin",
        "osUser": "postgres", "start": ["/start", "now"], "stop": ["/stop"],
        "upstreams": { "eu-central-1": "host=h password=hunter2" }, "replication": { "eu-central-1": "host=h" } }"#;
    let options: PostgresOptions = serde_json::from_str(text).unwrap();
    assert!(!format!("{options:?}").contains("hunter2"));
    assert!(serde_json::from_str::<PostgresOptions>(&text.replace("osUser", "osuser")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_closed_at_rest_and_opened_by_the_agent_alone() {
    let server = Server::primary("");
    let driver = server.driver("a", &[]);
    let probe = driver.probe().await;
    assert_eq!((probe.health, probe.role, probe.writable, probe.timeline), (Health::Healthy, Role::Primary, true, 1));
    assert!(!probe.system_id.is_empty() && probe.position.is_some() && probe.upstream.is_none(), "{probe:?}");

    assert!(!driver.guard(&marker("a")).await.unwrap().already);
    assert!(driver.guard(&marker("a")).await.unwrap().already);
    server.accepts_write("app").await.unwrap();

    server.restart();
    for user in ["app", "postgres"] {
        assert_eq!(code(&server.accepts_write(user).await.unwrap_err()), SqlState::READ_ONLY_SQL_TRANSACTION.code());
    }
    let probe = driver.probe().await;
    assert_eq!((probe.role, probe.writable), (Role::Standby, false), "{probe:?}");
    let done = driver.unfence().await.unwrap();
    assert_eq!((done.already, done.timeline), (false, 2));
    server.accepts_write("app").await.unwrap();
    assert!(driver.unfence().await.unwrap().already);
    assert_eq!(driver.probe().await.timeline, 2);

    // A crash, and a start by hand.
    server.kill_and_wait();
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Failed, "{probe:?}");
    server.start();
    for user in ["app", "postgres"] {
        assert_eq!(code(&server.accepts_write(user).await.unwrap_err()), SqlState::READ_ONLY_SQL_TRANSACTION.code());
    }
    server.stop();
    // It does not run: unfence starts it.
    driver.unfence().await.unwrap();
    server.accepts_write("app").await.unwrap();
    assert!(server.data.join("standby.signal").exists());
    assert!(!std::fs::read_to_string(server.data.join("pg_hba.conf")).unwrap().contains("reject"));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fence_cuts_and_refuses_everybody() {
    let primary = Server::primary("");
    let standby = Server::standby_of(&primary);
    let driver = primary.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    assert!(driver.probe().await.writable);

    let owner = primary.connect("app").await.unwrap();
    let superuser = primary.connect("postgres").await.unwrap();
    insert(&owner, "before").await.unwrap();
    superuser.batch_execute("BEGIN; INSERT INTO rows (said) VALUES ('open transaction')").await.unwrap();
    // One that has said nothing yet, and one that stalls in the middle of its login.
    let mut silent = tokio::net::TcpStream::connect(("127.0.0.1", primary.port)).await.unwrap();
    let mut stalled = tokio::net::TcpStream::connect(("127.0.0.1", primary.port)).await.unwrap();
    let startup = b"\0\0\0\x1f\0\x03\0\0user\0app\0database\0app\0\0";
    stalled.write_all(startup).await.unwrap();
    assert_eq!(stalled.read_u8().await.unwrap(), b'R');
    let mut writers = Vec::new();
    for _ in 0..5 {
        let writer = primary.connect("app").await.unwrap();
        writers.push(tokio::spawn(async move {
            let mut acknowledged = 0_u64;
            while insert(&writer, "writer").await.is_ok() {
                acknowledged += 1;
            }
            (acknowledged, Instant::now())
        }));
    }
    until("writers write", async || {
        primary.value("SELECT count(*) >= 20 FROM rows WHERE said = 'writer'").await == "t"
    })
    .await;

    let began = Instant::now();
    let done = driver.fence().await.unwrap();
    let took = began.elapsed();
    let confirmed = Instant::now();
    println!("fence: {took:?}, {}", done.message);
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert!(!done.already);

    let mut acknowledged = 0;
    for writer in writers {
        let (count, ended) = writer.await.unwrap();
        assert!(ended < confirmed);
        acknowledged += count;
    }
    assert!(insert(&owner, "after").await.is_err());
    assert!(superuser.batch_execute("COMMIT").await.is_err());
    for user in ["app", "postgres", "regent"] {
        assert_eq!(code(&primary.accepts_write(user).await.unwrap_err()), "28000", "{user}");
    }
    let mut rest = Vec::new();
    let late = b"\0\0\0\x1f\0\x03\0\0user\0app\0database\0app\0\0";
    let _ = silent.write_all(late).await;
    let _ = silent.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"R"), "{rest:?}");
    rest.clear();
    let _ = stalled.read_to_end(&mut rest).await;
    assert!(!rest.windows(5).any(|w| w == b"Z\0\0\0\x05"), "{rest:?}");

    // Replication goes on, up to the position that the fence gave.
    let follower = standby.driver("b", &[]);
    let caught = follower.catch_up(done.position.unwrap()).await.unwrap();
    assert!(caught.position >= done.position);
    assert_eq!(standby.value("SELECT count(*) FROM rows WHERE said = 'writer'").await, acknowledged.to_string());

    let probe = driver.probe().await;
    assert_eq!((probe.health, probe.role, probe.writable), (Health::Healthy, Role::Primary, false), "{probe:?}");
    let again = driver.fence().await.unwrap();
    assert!(again.already);
    assert!(driver.quiesce().await.unwrap().already);
    assert!(!driver.unfence().await.unwrap().already);
    primary.accepts_write("app").await.unwrap();
    assert!(driver.unfence().await.unwrap().already);

    // Quiesce is as firm; a fence survives a restart by hand, together with the closed start.
    insert(&primary.connect("app").await.unwrap(), "once more").await.unwrap();
    assert!(!driver.quiesce().await.unwrap().already);
    assert_eq!(code(&primary.accepts_write("app").await.unwrap_err()), "28000");
    primary.stop();
    assert!(driver.fence().await.unwrap().already);
    primary.start();
    assert_eq!(code(&primary.accepts_write("postgres").await.unwrap_err()), "28000");
    driver.unfence().await.unwrap();
    primary.accepts_write("app").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_fence_does_not_wait_for_a_lost_synchronous_standby() {
    let primary = Server::primary("synchronous_standby_names = '*'");
    let driver = primary.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    let writer = primary.connect("app").await.unwrap();
    let waiting = tokio::spawn(async move { insert(&writer, "waits for ever").await });
    until("the commit waits", async || {
        primary.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await == "1"
    })
    .await;
    let began = Instant::now();
    driver.fence().await.unwrap();
    println!("fence without a synchronous standby: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(300));
    let _ = waiting.await.unwrap();
    driver.unfence().await.unwrap();
    assert!(driver.probe().await.writable);
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_hard_fence_leaves_no_backend() {
    let server = Server::primary("");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    let busy = server.connect("app").await.unwrap();
    let work = tokio::spawn(async move { busy.simple_query("SELECT pg_sleep(600)").await.is_err() });
    until("the backend is busy", async || {
        server.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'").await == "1"
    })
    .await;
    // Orphans: stopped backends do not notice that their postmaster is gone.
    let postmaster = server.postmaster();
    for process in server.processes().iter().filter(|process| process.pid != postmaster.pid) {
        process.signal(Signal::SIGSTOP).unwrap();
    }
    postmaster.signal(Signal::SIGKILL).unwrap();
    until("the postmaster is gone", async || !postmaster.still_lives()).await;
    assert!(!server.processes().is_empty());

    let began = Instant::now();
    let done = driver.fence_hard().await.unwrap();
    println!("hard fence: {:?}, {}", began.elapsed(), done.message);
    assert!(!done.already);
    assert!(family(&["postgres"], &[&server.data]).is_gone());
    assert!(work.await.unwrap());
    assert!(driver.fence_hard().await.unwrap().already);
    let fenced = driver.fence().await.unwrap();
    println!("fence of a dead server: {}", fenced.message);
    assert!(driver.fence().await.unwrap().already);

    // From a running server, too.
    driver.unfence().await.unwrap();
    server.accepts_write("app").await.unwrap();
    assert!(!driver.fence_hard().await.unwrap().already);
    assert!(server.processes().is_empty());
    assert_eq!(driver.probe().await.health, Health::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_unknown_and_can_be_killed() {
    let server = Server::primary("");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    for process in server.processes() {
        process.signal(Signal::SIGSTOP).unwrap();
    }
    let probe = driver.probe().await;
    assert_eq!((probe.health, probe.role), (Health::Unknown, Role::Unknown), "{probe:?}");
    let error = driver.fence().await.unwrap_err();
    assert!(error.retryable, "{error}");
    assert!(!driver.fence_hard().await.unwrap().already);
    assert!(server.processes().is_empty());

    let server = redis::Server::new("");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    server.process().unwrap().signal(Signal::SIGSTOP).unwrap();
    assert_eq!(driver.probe().await.health, Health::Unknown);
    assert!(driver.fence().await.unwrap_err().retryable);
    assert!(!driver.fence_hard().await.unwrap().already);
    assert!(server.process().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_is_full_is_fenced_too() {
    let server = Server::primary("max_connections = 12\nsuperuser_reserved_connections = 3");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = server.connect("app").await {
        clients.push(client);
    }
    assert!(clients.len() > 5);
    let began = Instant::now();
    driver.fence().await.unwrap();
    println!("fence of a full server: {:?}", began.elapsed());
    assert!(clients.iter().all(tokio_postgres::Client::is_closed));
    assert_eq!(code(&server.accepts_write("app").await.unwrap_err()), "28000");
}

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
    let rejoin_b = Rejoin { upstream_cluster: "a".into(), allow_reclone: false };
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
    let rejoin_a = Rejoin { upstream_cluster: "b".into(), allow_reclone: false };
    let began = Instant::now();
    let done = driver_a.rejoin(&rejoin_a).await.unwrap();
    println!("rejoin: {:?}, {}", began.elapsed(), done.message);
    assert!(done.message.contains("rewound"), "{}", done.message);
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
    a.accepts_write("app").await.unwrap();
    driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();
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
    let mut rejoin = Rejoin { upstream_cluster: "a".into(), allow_reclone: false };
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
        .filter(|name| name.starts_with("data."))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(aside[0].starts_with("data.regent-set-aside-"), "{aside:?}");
    assert!(driver_b.rejoin(&rejoin).await.unwrap().already);
    a.accepts_write("app").await.unwrap();
    driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows").await, "1");
}

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
    let server = redis::Server::new("replicaof 127.0.0.1 1");
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
        assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
    }
    server.end(Signal::SIGKILL);
    assert!(driver.fence().await.unwrap().already);
    driver.unfence().await.unwrap();
    assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_fence_cuts_and_refuses_everybody() {
    let server = redis::Server::new("");
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

    let began = Instant::now();
    assert!(!driver.fence_hard().await.unwrap().already);
    println!("redis hard fence: {:?}", began.elapsed());
    assert!(server.process().is_none());
    assert!(driver.fence_hard().await.unwrap().already);
    assert!(driver.fence().await.unwrap().already);
    // A guard that never met the server goes by the pid file.
    driver.unfence().await.unwrap();
    assert!(!server.driver("a", &[]).fence_hard().await.unwrap().already);
    assert!(server.process().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_fails_over_and_the_old_primary_rejoins() {
    let a = redis::Server::new("");
    let b = redis::Server::new("");
    let driver_a = a.driver("a", &[("b", &b)]);
    let driver_b = b.driver("b", &[("a", &a)]);
    driver_a.guard(&marker("a")).await.unwrap();
    assert_eq!(a.cli(&["SET", "k", "1"]), "OK");
    let to_a = Rejoin { upstream_cluster: "a".into(), allow_reclone: false };
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

    // Planned: nothing is lost, and A goes on as a replica without a copy.
    let fenced = driver_a.fence().await.unwrap();
    driver_b.catch_up(fenced.position.unwrap()).await.unwrap();
    let began = Instant::now();
    driver_b.promote(fenced.position).await.unwrap();
    println!("redis promote: {:?}", began.elapsed());
    assert_eq!(b.cli(&["SET", "k", "2"]), "OK");
    let to_b = Rejoin { upstream_cluster: "b".into(), allow_reclone: false };
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
    assert_eq!((error.code, error.retryable), ("rejoin-needs-reclone", false));
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
