//! Restores that would look well and lack something, or would be built again for nothing: refused, and nothing takes the place
//! of anything.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use regent_agent::driver::backup::{BackupKind, BackupOptions, Over};
use regent_agent::driver::postgres::Postgres;
use regent_agent::driver::redis::{Redis, RedisCheck, RedisOptions};
use regent_agent::driver::scratch::Check;
use regent_agent::driver::{Driver, Rehearsal, Role};

use crate::postgres::{BIN, Server, folder, marker, run};
use crate::redis;
use crate::restores::{backups, scratch};

/// Of the template's servers.
const SEGMENT: u64 = 16 << 20;

fn count(expected: &str) -> Vec<Check> {
    vec![Check { query: "SELECT count(*) FROM rows".into(), expect: Some(expected.into()) }]
}

/// A folder that the server can write to.
fn given_to_postgres(path: &Path) {
    std::fs::create_dir(path).unwrap();
    let owner = nix::unistd::User::from_name("postgres").unwrap().unwrap().uid.as_raw();
    std::os::unix::fs::chown(path, Some(owner), None).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_is_not_restored_short_of_its_archive() {
    let place = folder();
    let wal = place.path().join("wal");
    given_to_postgres(&wal);
    let a = Server::primary(&format!("archive_mode = on\narchive_command = 'cp %p {}/%f'", wal.display()));
    a.accepts_write("app").await.unwrap();
    let base = place.path().join("base");
    let source = format!("host=127.0.0.1 port={} user=replicator password=replicator", a.port);
    run(
        &format!("{BIN}/pg_basebackup"),
        &["-D", base.to_str().unwrap(), "-d", &source, "-c", "fast", "-X", "stream"],
        "",
    );
    let mut segments = Vec::new();
    for _ in 0..5 {
        a.accepts_write("app").await.unwrap();
        segments.push(a.value("SELECT pg_walfile_name(pg_switch_wal())").await);
    }
    let last = wal.join(&segments[4]);
    crate::until("the archive", async || std::fs::metadata(&last).is_ok_and(|file| file.len() == SEGMENT)).await;

    let b = Server::primary("");
    b.stop();
    std::fs::rename(&b.data, b.data.with_file_name("away")).unwrap();
    let mut options = b.options(&[]);
    options.checks = count("6");
    let named = backups(BackupKind::Base, base).unwrap();
    options.backups = Some(BackupOptions { wal: Some(wal.clone()), ..named });
    let there = format!("-c port={} -c unix_socket_directories={}", b.port, b.socket.display());
    options.start.extend(["-o".to_owned(), there]);
    let driver = Postgres::new(options, "b");
    let refused = async |run: u64, why: &str| {
        let refused = driver.restore(run).await.unwrap_err();
        println!("{refused}");
        assert_eq!((refused.code, refused.retryable), ("restore-incomplete", false), "{refused}");
        assert!(refused.message.contains(why), "{refused}");
        assert!(!b.data.exists(), "nothing has taken the place");
    };

    // One of the middle is lost.
    let (middle, kept) = (wal.join(&segments[2]), place.path().join("kept"));
    std::fs::rename(&middle, &kept).unwrap();
    refused(7, &format!("{} is missing", segments[2])).await;
    // It is somebody else's.
    std::fs::rename(&kept, &middle).unwrap();
    let mode = |mode: u32| std::fs::set_permissions(&middle, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    refused(8, &format!("{} cannot be read", segments[2])).await;
    mode(0o600);
    // It is there, and holds nothing: only how far recovery came tells it.
    let whole = std::fs::read(&middle).unwrap();
    std::fs::write(&middle, vec![0; whole.len()]).unwrap();
    refused(9, "recovery ended at").await;
    // It is half copied.
    std::fs::write(&middle, &whole[..whole.len() / 2]).unwrap();
    refused(10, &format!("{} has not the size", segments[2])).await;

    std::fs::write(&middle, &whole).unwrap();
    let done = driver.restore(11).await.unwrap();
    println!("{}", done.message);
    assert!(done.message.contains("to the end of its WAL, ") && done.message.contains("1 checks"), "{}", done.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_its_checks_is_kept_and_not_built_again() {
    let place = folder();
    let a = Server::primary("");
    for _ in 0..3 {
        a.accepts_write("app").await.unwrap();
    }
    let from = place.path().join("app.dump");
    let port = a.port.to_string();
    let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-F", "c", "-f", from.to_str().unwrap(), "app"];
    run(&format!("{BIN}/pg_dump"), &words, "postgres");
    let b = Server::primary("");
    b.stop();
    let mut options = b.options(&[]);
    options.scratch = scratch(place.path());
    let named = backups(BackupKind::Dump, from).unwrap();
    options.backups = Some(BackupOptions { over: Over::SetAside, ..named });
    let built = b.data.with_file_name("data.regent-restoring").join("new/data/PG_VERSION");
    for check in [
        Check { query: "SELECT count(*) FROM rows".into(), expect: Some("4".into()) },
        Check { query: "SELECT nothing FROM rows".into(), expect: None },
    ] {
        options.checks = vec![check];
        let driver = Postgres::new(options.clone(), "b");
        let refused = driver.restore(7).await.unwrap_err();
        println!("{refused}");
        assert_eq!((refused.code, refused.retryable), ("scratch-check", false), "{refused}");
        assert!(refused.message.contains("is kept in"), "{refused}");
        assert!(built.exists() && b.data.join("PG_VERSION").exists(), "it can be looked at, and has taken no place");
        driver.rehearse(Rehearsal::Restore, 8).await.unwrap();
        let drilled = driver.rehearse(Rehearsal::Verify, 8).await.unwrap_err();
        assert_eq!((drilled.code, drilled.retryable), ("scratch-check", false), "{drilled}");
        driver.rehearse(Rehearsal::CleanUp, 8).await.unwrap();
    }
    options.checks = count("3");
    let done = Postgres::new(options, "b").restore(7).await.unwrap();
    assert!(done.message.contains("1 checks"), "{}", done.message);
    assert!(!built.exists(), "what was kept has made room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_dump_finds_every_role_that_it_names() {
    let place = folder();
    let a = Server::primary("");
    a.accepts_write("app").await.unwrap();
    let client = a.connect("postgres").await.unwrap();
    let granted =
        "CREATE ROLE granter; CREATE ROLE \"odd name\"; CREATE ROLE watcher; CREATE ROLE maker; CREATE ROLE heir;
        CREATE ROLE miser; CREATE ROLE \"Keeper\"; CREATE ROLE member;
        GRANT SELECT ON rows TO granter WITH GRANT OPTION;
        SET ROLE granter; GRANT SELECT ON rows TO member; RESET ROLE;
        GRANT INSERT ON rows TO \"odd name\";
        ALTER TABLE rows ENABLE ROW LEVEL SECURITY;
        CREATE POLICY seen ON rows FOR SELECT TO watcher USING (true);
        ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA public GRANT SELECT ON TABLES TO heir;
        ALTER DEFAULT PRIVILEGES FOR ROLE miser REVOKE ALL ON TABLES FROM miser;
        CREATE SCHEMA kept AUTHORIZATION \"Keeper\"";
    client.batch_execute(granted).await.unwrap();
    let from = place.path().join("app.sql");
    let port = a.port.to_string();
    let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-F", "p", "-f", from.to_str().unwrap(), "app"];
    run(&format!("{BIN}/pg_dump"), &words, "postgres");
    let text = std::fs::read_to_string(&from).unwrap();
    let wanted =
        ["TO granter WITH GRANT OPTION;", "TO \"odd name\";", "TO watcher USING", "FOR ROLE maker", "FROM miser;"];
    assert!(wanted.iter().all(|words| text.contains(words)), "the dump tries all of them: {text}");

    let b = Server::primary("");
    let mut options = b.options(&[]);
    options.scratch = scratch(place.path());
    options.backups = backups(BackupKind::Dump, from);
    options.checks = vec![Check {
        query: "SELECT string_agg(rolname, ', ' ORDER BY rolname COLLATE \"C\") FROM pg_roles
            WHERE rolname !~ '^pg_' AND rolname <> 'regent'"
            .into(),
        expect: Some("Keeper, app, granter, heir, maker, member, miser, odd name, watcher".into()),
    }];
    let driver = Postgres::new(options, "b");
    let done = driver.rehearse(Rehearsal::Restore, 7).await.unwrap();
    println!("{}", done.message);
    assert!(done.message.contains("no globals are listed"), "{}", done.message);
    driver.rehearse(Rehearsal::Verify, 7).await.unwrap();
    driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_comes_up_in_an_emptied_place_with_the_operators_configuration_only() {
    let place = folder();
    let a = Server::primary("");
    for _ in 0..3 {
        a.accepts_write("app").await.unwrap();
    }
    let (from, globals) = (place.path().join("app.dump"), place.path().join("globals.sql"));
    let port = a.port.to_string();
    let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-F", "c", "-f", from.to_str().unwrap(), "app"];
    run(&format!("{BIN}/pg_dump"), &words, "postgres");
    let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "--globals-only", "-f", globals.to_str().unwrap()];
    run(&format!("{BIN}/pg_dumpall"), &words, "postgres");
    let b = Server::primary("");
    b.stop();
    let away = b.data.with_file_name("away");
    std::fs::rename(&b.data, &away).unwrap();
    given_to_postgres(&b.data);
    let mut options = b.options(&[]);
    options.checks = count("3");
    let named = backups(BackupKind::Dump, from).unwrap();
    options.backups = Some(BackupOptions { globals: Some(globals), ..named });
    let driver = Postgres::new(options, "b");
    driver.guard(&marker("b")).await.unwrap();
    let shelf = b.data.with_file_name("data.regent-config");
    let refused = async |wanted: &str| {
        let refused = driver.restore(7).await.unwrap_err();
        println!("{refused}");
        assert_eq!((refused.code, refused.retryable), ("restore-unconfigured", false), "{refused}");
        assert!(refused.message.contains(&format!("put {wanted} into {}", shelf.display())), "{refused}");
        let begun = b.data.with_file_name("data.regent-restoring").exists() || b.data.join("PG_VERSION").exists();
        assert!(!begun, "nothing was begun");
    };
    refused("postgresql.conf and pg_hba.conf").await;
    given_to_postgres(&shelf);
    std::fs::copy(away.join("postgresql.conf"), shelf.join("postgresql.conf")).unwrap();
    refused("pg_hba.conf").await;
    std::fs::copy(away.join("pg_hba.conf"), shelf.join("pg_hba.conf")).unwrap();
    let done = driver.restore(7).await.unwrap();
    println!("{}", done.message);
    assert!(!shelf.exists(), "it is used");
    driver.promote(None).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows").await, "3");
    assert_eq!(b.value("SHOW port").await, b.port.to_string());
    b.accepts_write("app").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_takes_the_place_of_an_append_only_file() {
    let a = redis::Server::new("");
    a.cli(&["MSET", "a", "1", "b", "1", "c", "1"]);
    a.cli(&["SAVE"]);
    let place = folder();
    let whole = place.path().join("whole.rdb");
    std::fs::copy(a.folder.path().join("dump.rdb"), &whole).unwrap();
    let b = redis::Server::new("appendonly yes");
    b.cli(&["SET", "old", "1"]);
    let named = backups(BackupKind::Rdb, whole).unwrap();
    let options = RedisOptions {
        backups: Some(BackupOptions { over: Over::SetAside, ..named }),
        // The fence leaves the user on that the listed command stops it as.
        clients: Vec::new(),
        checks: vec![RedisCheck { command: vec!["GET".into(), "a".into()], expect: Some("1".into()) }],
        ..b.options(&[])
    };
    let driver = Redis::new(options, "b");
    driver.guard(&marker("b")).await.unwrap();
    // It is seen open, with more in its append-only file than the snapshot has.
    for _ in 0..200 {
        b.cli(&["SET", "old", "1"]);
    }
    crate::until("it is written", async || b.is_written()).await;
    assert!(driver.probe().await.writable);
    driver.fence().await.unwrap();
    let done = driver.restore(7).await.unwrap();
    println!("{}", done.message);
    assert!(done.message.contains("3 keys, 1 checks") && done.message.contains("regent-set-aside"), "{}", done.message);
    let probe = driver.probe().await;
    assert!(!probe.writable && probe.role == Role::Primary, "{probe:?}");
    let names = std::fs::read_dir(b.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let kept = names.iter().filter(|name| name.starts_with("appendonlydir.regent-set-aside-")).count();
    assert!(kept == 1 && !names.iter().any(|name| name == "regent-restoring"), "{names:?}");
    assert!(driver.restore(7).await.unwrap().already);
    driver.promote(None).await.unwrap();
    assert_eq!(b.cli(&["MGET", "a", "b", "c"]).lines().collect::<Vec<_>>(), ["1", "1", "1"]);
    assert_eq!(b.cli(&["EXISTS", "old"]), "0");

    // It goes on keeping one: a crash takes nothing away.
    assert_eq!(b.cli(&["CONFIG", "GET", "appendonly"]).lines().next_back(), Some("yes"));
    assert_eq!(b.cli(&["SET", "new", "1"]), "OK");
    crate::until("it is written", async || b.is_written()).await;
    b.end(Signal::SIGKILL);
    b.start();
    assert_eq!(b.cli(&["MGET", "a", "new"]).lines().collect::<Vec<_>>(), ["1", "1"]);
}
