//! What changes seldom, as the agent finds it in real servers.

use std::collections::BTreeMap;

use regent_agent::driver::Driver;
use regent_agent::driver::postgres::Postgres;
use regent_agent::driver::redis::Redis;
use regent_agent::secret::Secret;
use regent_core::facts::{SlotFacts, SlotLimit};
use regent_core::time::Span;

use crate::postgres::Server;
use crate::{redis, until};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tells_of_its_settings_and_of_slots_that_are_idle_or_lost() {
    let server = Server::primary("wal_level = logical\nwal_keep_size = 0\nmax_slot_wal_keep_size = 1MB");
    let driver = server.driver("a", &[]);
    let admin = server.connect("postgres").await.unwrap();
    admin.batch_execute("SELECT pg_create_physical_replication_slot('gone', true)").await.unwrap();
    for _ in 0..4 {
        server.accepts_write("app").await.unwrap();
        admin.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    }
    until("the WAL of the slot is gone", async || {
        admin.batch_execute("CHECKPOINT").await.unwrap();
        server.value("SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'gone'").await == "lost"
    })
    .await;
    admin.batch_execute("SELECT pg_create_physical_replication_slot('idle', true)").await.unwrap();
    server.accepts_write("app").await.unwrap();

    let found = driver.facts().await.unwrap();
    let facts = found.postgres.unwrap();
    assert_eq!(facts.version / 10_000, 15);
    assert_eq!((facts.wal_level.as_str(), facts.wal_keep_bytes), ("logical", 0));
    assert_eq!((facts.max_wal_senders, facts.wal_senders), (10, 0));
    assert!(facts.rewindable && facts.hot_standby && !facts.synchronous, "{facts:?}");
    assert_eq!(facts.grace, Some(Span::from_millis(100)), "of its configuration");
    assert_eq!(facts.settings["max_connections"], "50");
    assert_eq!(facts.settings["wal_level"], "logical");
    assert_eq!((facts.slot_limit, facts.max_wal_bytes), (SlotLimit::Bytes(1 << 20), 1 << 30));
    assert_eq!(facts.archive_fails, "", "nothing is archived");
    let mut slots: BTreeMap<String, SlotFacts> =
        facts.slots.into_iter().map(|slot| (slot.name.clone(), slot)).collect();
    let (gone, idle) = (slots.remove("gone").unwrap(), slots.remove("idle").unwrap());
    assert!(slots.is_empty(), "{slots:?}");
    assert!(gone.lost && !gone.active, "{gone:?}");
    assert!(!idle.lost && !idle.active && idle.retained_bytes.is_some_and(|bytes| bytes > 0), "{idle:?}");
    assert!(found.reaches.is_empty() && found.backup.is_none() && found.redis.is_none());

    // Of the server, not of the agent's own sessions, which never wait for a standby.
    admin.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("commits wait for a standby", async || driver.facts().await.unwrap().postgres.unwrap().synchronous).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_postgres_tell_what_they_should_share_and_whether_the_other_answers() {
    let primary = Server::primary("");
    let standby = Server::standby_of(&primary);
    let conf = standby.data.join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("{text}\nmax_connections = 60\n")).unwrap();
    standby.restart();
    until("the standby streams", async || {
        primary.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").await == "1"
    })
    .await;

    let here = primary.driver("a", &[("b", &standby)]).facts().await.unwrap();
    let there = standby.driver("b", &[("a", &primary)]).facts().await.unwrap();
    assert_eq!(here.reaches, [("b".to_owned(), Ok(()))].into());
    assert_eq!(there.reaches, [("a".to_owned(), Ok(()))].into());
    let (here, there) = (here.postgres.unwrap(), there.postgres.unwrap());
    assert_eq!(here.wal_senders, 1);
    let differ: Vec<&String> =
        here.settings.keys().filter(|name| here.settings.get(*name) != there.settings.get(*name)).collect();
    assert_eq!(differ, ["max_connections"]);
    assert_eq!((here.settings["max_connections"].as_str(), there.settings["max_connections"].as_str()), ("50", "60"));

    let mut options = primary.options(&[("b", &standby)]);
    let wrong = format!("host=127.0.0.1 port={} user=regent password=hunter2 dbname=postgres", standby.port);
    options.upstreams.insert("b".to_owned(), Secret::new(wrong));
    let found = Postgres::new(options, "a").facts().await.unwrap();
    let why = found.reaches["b"].clone().unwrap_err();
    assert!(why.contains("password authentication failed") && !why.contains("hunter2"), "{why}");
    assert!(found.postgres.is_some(), "the own server answers all the same");
    standby.stop();
    let found = primary.driver("a", &[("b", &standby)]).facts().await.unwrap();
    assert!(found.reaches["b"].is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_cannot_be_archived_is_told_until_it_is() {
    let server = Server::primary("archive_mode = on\narchive_command = 'false'");
    let driver = server.driver("a", &[]);
    let admin = server.connect("postgres").await.unwrap();
    let found = async || driver.facts().await.unwrap().postgres.unwrap();
    let first = found().await;
    assert_eq!((first.archive_fails.as_str(), first.slot_limit), ("", SlotLimit::Unlimited));
    let file = server.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await;
    server.accepts_write("app").await.unwrap();
    admin.batch_execute("SELECT pg_switch_wal()").await.unwrap();
    until("the archiver fails", async || !found().await.archive_fails.is_empty()).await;
    assert_eq!(found().await.archive_fails, file);
    admin.batch_execute("ALTER SYSTEM SET archive_command = 'true'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("the archiver goes on", async || found().await.archive_fails.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_of_postgres_tell_what_would_let_a_standby_stop_or_lose_writes() {
    let primary = Server::primary("");
    let standby = Server::standby_of(&primary);
    let conf = standby.data.join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let own = "max_wal_senders = 12\nwal_log_hints = off\nsynchronous_commit = local\nsynchronous_standby_names = 'a'";
    std::fs::write(&conf, format!("{text}\n{own}\n")).unwrap();
    standby.restart();
    let here = primary.driver("a", &[]).facts().await.unwrap().postgres.unwrap();
    let there = standby.driver("b", &[]).facts().await.unwrap().postgres.unwrap();
    let differ: Vec<&String> =
        here.settings.keys().filter(|name| here.settings.get(*name) != there.settings.get(*name)).collect();
    // Which standbys are named is each side's own affair.
    assert_eq!(differ, ["max_wal_senders", "synchronous_commit", "wal_log_hints"]);
    assert_eq!(here.settings["data_checksums"], there.settings["data_checksums"]);
    assert!(!here.synchronous && !there.synchronous, "local waits for nobody");
    let admin = standby.connect("postgres").await.unwrap();
    admin.batch_execute("ALTER SYSTEM SET synchronous_commit = 'on'").await.unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    until("it would wait for a standby", async || {
        standby.driver("b", &[]).facts().await.unwrap().postgres.unwrap().synchronous
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_tells_of_its_settings_and_whether_the_other_side_answers() {
    let (one, other) = (redis::Server::new("maxmemory 64mb\nmaxmemory-policy allkeys-lru"), redis::Server::new(""));
    let here = one.driver("a", &[("b", &other)]).facts().await.unwrap();
    let there = other.driver("b", &[("a", &one)]).facts().await.unwrap();
    assert_eq!(here.reaches, [("b".to_owned(), Ok(()))].into());
    let (here, there) = (here.redis.unwrap(), there.redis.unwrap());
    assert!(one.cli(&["INFO", "server"]).contains(&format!("redis_version:{}", here.version)), "{}", here.version);
    assert_eq!(here.version, there.version);
    let shown = |facts: &regent_core::facts::RedisFacts| {
        (facts.settings["maxmemory"].clone(), facts.settings["maxmemory-policy"].clone())
    };
    assert_eq!(shown(&here), ("67108864".to_owned(), "allkeys-lru".to_owned()));
    assert_eq!(shown(&there), ("0".to_owned(), "noeviction".to_owned()));

    let mut options = one.options(&[("b", &other)]);
    options.upstreams.get_mut("b").unwrap().password = Some(Secret::new("hunter2"));
    let found = Redis::new(options, "a").facts().await.unwrap();
    let why = found.reaches["b"].clone().unwrap_err();
    assert!(why.contains("WRONGPASS") && !why.contains("hunter2"), "{why}");
    other.end(nix::sys::signal::Signal::SIGKILL);
    assert!(one.driver("a", &[("b", &other)]).facts().await.unwrap().reaches["b"].is_err());
    one.end(nix::sys::signal::Signal::SIGKILL);
    assert!(one.driver("a", &[]).facts().await.unwrap().redis.is_none(), "what does not answer is not known");
}
