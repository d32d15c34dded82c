//! Restores from real backups: the newest whole one, into the place of what was there, closed, and nothing is deleted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use regent_agent::driver::backup::{BackupKind, BackupOptions, Over};
use regent_agent::driver::elsewhere::FenceAt;
use regent_agent::driver::postgres::{Postgres, PostgresOptions};
use regent_agent::driver::redis::{Redis, RedisCheck, RedisOptions};
use regent_agent::driver::scratch::{Check, ScratchOptions};
use regent_agent::driver::{Driver, Rehearsal, Role};

use crate::postgres::{BIN, Server, folder, marker, run};
use crate::redis;

pub(crate) fn backups(kind: BackupKind, from: PathBuf) -> Option<BackupOptions> {
    let options = serde_json::json!({ "kind": "rdb", "from": from });
    Some(BackupOptions { kind, ..serde_json::from_value(options).unwrap() })
}

pub(crate) fn scratch(folder: &Path) -> Option<ScratchOptions> {
    Some(ScratchOptions { directory: folder.join("scratch"), settings: std::collections::BTreeMap::default() })
}

fn made_before(path: &Path, ago: Duration) {
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| made_before(&entry.unwrap().path(), ago));
    }
    std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - ago).unwrap();
}

/// A dump of the server's database in this format.
fn dump(server: &Server, to: &Path, format: &str) {
    let port = server.port.to_string();
    let target = to.display().to_string();
    let program = format!("{BIN}/pg_dump");
    run(&program, &["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-F", format, "-f", &target, "app"], "postgres");
}

async fn rows(server: &Server, count: usize) {
    for _ in 0..count {
        server.accepts_write("app").await.unwrap();
    }
}

fn set_aside(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.data.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("data.")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_of_every_form_are_restored_and_one_that_breaks_off_is_passed_over() {
    let a = Server::primary("");
    rows(&a, 3).await;
    for (format, name) in [("p", "whole.sql"), ("c", "whole.dump"), ("d", "whole.dir")] {
        let place = folder();
        let from = place.path().join("backups");
        std::fs::create_dir(&from).unwrap();
        std::os::unix::fs::chown(
            &from,
            Some(nix::unistd::User::from_name("postgres").unwrap().unwrap().uid.as_raw()),
            None,
        )
        .unwrap();
        dump(&a, &from.join(name), format);
        // A newer one that is not at its end yet.
        let half = from.join("half");
        if format == "d" {
            std::fs::create_dir(&half).unwrap();
            std::fs::write(half.join("1.dat.gz"), "x").unwrap();
        } else {
            let text = std::fs::read(from.join(name)).unwrap();
            std::fs::write(&half, &text[..text.len() - 40]).unwrap();
        }
        made_before(&from.join(name), Duration::from_secs(60));
        let b = Server::primary("");
        let mut options = b.options(&[]);
        options.backups = backups(BackupKind::Dump, from.clone());
        options.scratch = scratch(place.path());
        options.checks = vec![Check { query: "SELECT count(*) FROM rows".into(), expect: Some("3".into()) }];
        let driver = Postgres::new(options, "b");
        let done = driver.rehearse(Rehearsal::Restore, 7).await.unwrap();
        println!("{format}: {}", done.message);
        assert!(done.message.contains(name) && done.message.contains("half"), "{}", done.message);
        assert!(done.message.contains("(3 in 1 tables as in the dump)"), "{}", done.message);
        assert!(done.message.contains("checksums of its pages are right"), "{}", done.message);
        assert!(driver.rehearse(Rehearsal::Restore, 7).await.unwrap().already);
        assert!(driver.rehearse(Rehearsal::Verify, 7).await.unwrap().message.contains("answers 1 checks"));
        assert!(!driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap().already);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_takes_the_place_of_what_was_there() {
    let a = Server::primary("");
    rows(&a, 3).await;
    let place = folder();
    let globals = place.path().join("globals.sql");
    let port = a.port.to_string();
    let target = globals.display().to_string();
    run(
        &format!("{BIN}/pg_dumpall"),
        &["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "--globals-only", "-f", &target],
        "postgres",
    );
    dump(&a, &place.path().join("app.dump"), "c");
    let b = Server::primary("");
    rows(&b, 1).await;
    let mut options: PostgresOptions = b.options(&[]);
    let named = backups(BackupKind::Dump, place.path().join("*.dump")).unwrap();
    options.backups = Some(BackupOptions { globals: Some(globals), ..named });
    options.checks = vec![Check { query: "SELECT count(*) FROM rows".into(), expect: Some("3".into()) }];
    let driver = Postgres::new(options.clone(), "b");
    driver.guard(&marker("b")).await.unwrap();
    let refused = driver.restore(7).await.unwrap_err();
    assert_eq!(refused.code, "restore-writable", "{refused}");
    assert!(set_aside(&b).is_empty());
    b.accepts_write("app").await.unwrap();

    b.stop();
    let refused = driver.restore(7).await.unwrap_err();
    assert_eq!(refused.code, "restore-not-empty", "{refused}");
    assert!(set_aside(&b).is_empty() && b.data.join("PG_VERSION").exists(), "nothing was begun");
    let backups = options.backups.take().unwrap();
    options.backups = Some(BackupOptions { over: Over::SetAside, ..backups });
    let driver = Postgres::new(options, "b");
    let done = driver.restore(7).await.unwrap();
    println!("{}", done.message);
    let aside = set_aside(&b);
    assert!(aside.len() == 1 && aside[0].starts_with("data.regent-set-aside-"), "{aside:?}");
    let probe = driver.probe().await;
    assert_eq!((probe.role, probe.writable), (Role::Standby, false), "it is closed: {probe:?}");
    assert!(b.accepts_write("app").await.is_err());
    assert!(driver.restore(7).await.unwrap().already, "the same step again");
    // What a failover does next.
    driver.promote(None).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows").await, "3");
    b.accepts_write("app").await.unwrap();
    assert_eq!(driver.restore(8).await.unwrap_err().code, "restore-writable");
    assert_eq!(set_aside(&b).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_is_restored_to_the_end_of_its_wal_or_to_a_time() {
    let place = folder();
    let wal = place.path().join("wal");
    std::fs::create_dir(&wal).unwrap();
    let owner = nix::unistd::User::from_name("postgres").unwrap().unwrap().uid.as_raw();
    std::os::unix::fs::chown(&wal, Some(owner), None).unwrap();
    let archive = format!("archive_mode = on\narchive_command = 'cp %p {}/%f'", wal.display());
    let a = Server::primary(&archive);
    rows(&a, 1).await;
    let base = place.path().join("base");
    let source = format!("host=127.0.0.1 port={} user=replicator password=replicator", a.port);
    run(
        &format!("{BIN}/pg_basebackup"),
        &["-D", base.to_str().unwrap(), "-d", &source, "-c", "fast", "-X", "stream"],
        "",
    );
    rows(&a, 2).await;
    let until = a.value("SELECT clock_timestamp()").await;
    rows(&a, 4).await;
    let segment = a.value("SELECT pg_walfile_name(pg_switch_wal())").await;
    crate::until("the archive", async || wal.join(&segment).exists()).await;

    let b = Server::primary("");
    let mut options = b.options(&[]);
    let named = backups(BackupKind::Base, base.clone()).unwrap();
    options.scratch = scratch(place.path());
    for (until, expected) in [(Some(until), "3"), (None, "7")] {
        options.backups = Some(BackupOptions { wal: Some(wal.clone()), until, ..named.clone() });
        options.checks = vec![Check { query: "SELECT count(*) FROM rows".into(), expect: Some(expected.into()) }];
        let driver = Postgres::new(options.clone(), "b");
        let done = driver.rehearse(Rehearsal::Restore, 7).await.unwrap();
        println!("{}", done.message);
        assert!(done.message.contains("its pages have no checksums"), "{}", done.message);
        driver.rehearse(Rehearsal::Verify, 7).await.unwrap();
        driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap();
    }
    // In earnest, where nothing is but what the agent puts there: the marker of another cluster does not come along.
    b.stop();
    let driver = Postgres::new(options.clone(), "b");
    assert_eq!(driver.restore(7).await.unwrap_err().code, "restore-not-empty");
    std::fs::rename(&b.data, b.data.with_file_name("away")).unwrap();
    std::fs::create_dir(&b.data).unwrap();
    std::os::unix::fs::chown(&b.data, Some(owner), None).unwrap();
    driver.guard(&marker("b")).await.unwrap();
    assert!(b.data.join("standby.signal").exists(), "it is closed at rest while it is empty");
    // Its configuration comes with the backup, but for its place.
    let place = format!("-c port={} -c unix_socket_directories={}", b.port, b.socket.display());
    options.start.extend(["-o".to_owned(), place]);
    let driver = Postgres::new(options.clone(), "b");
    driver.restore(7).await.unwrap();
    assert!(driver.restore(7).await.unwrap().already, "what it has restored itself is no obstacle");
    assert_eq!(driver.restore(8).await.unwrap_err().code, "restore-not-empty", "to another run it is one");
    assert!(set_aside(&b).is_empty());
    assert!(std::fs::read_to_string(b.data.join("regent.marker")).unwrap().contains("\"b\""));
    assert_eq!(driver.probe().await.system_id, a.driver("a", &[]).probe().await.system_id);
    driver.promote(None).await.unwrap();
    assert_eq!(b.value("SELECT count(*) FROM rows").await, "7");

    // One without its manifest, or with a file that was changed since, is none.
    let damaged = std::fs::read_dir(base.join("base/1")).unwrap().map(|entry| entry.unwrap().path());
    let mut damaged = damaged.filter(|path| path.metadata().unwrap().len() > 8192);
    let damaged = damaged.next().unwrap();
    let mut text = std::fs::read(&damaged).unwrap();
    text[5000] ^= 0xff;
    std::fs::write(&damaged, text).unwrap();
    let refused = driver.rehearse(Rehearsal::Restore, 8).await.unwrap_err();
    assert_eq!(refused.code, "backup-missing", "{refused}");
    println!("{refused}");
    std::fs::remove_file(base.join("backup_manifest")).unwrap();
    assert!(driver.rehearse(Rehearsal::Restore, 8).await.unwrap_err().message.contains("manifest"));
}

/// Statements as the owner of the application's database.
fn psql(server: &Server, statements: &str) {
    let port = server.port.to_string();
    let target =
        ["-h", "127.0.0.1", "-p", &port, "-U", "app", "-d", "app", "-v", "ON_ERROR_STOP=1", "-qXc", statements];
    run(&format!("{BIN}/psql"), &target, "app");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_arrive_are_missed() {
    let a = Server::primary("");
    rows(&a, 3).await;
    // Loading one table takes a row away from another: every program succeeds, and a row is missing.
    psql(
        &a,
        "CREATE FUNCTION public.forget() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
             DELETE FROM public.rows WHERE n = (SELECT min(n) FROM public.rows); RETURN true; END $$;
         CREATE TABLE public.zz (n int CHECK (public.forget())); INSERT INTO public.zz VALUES (1)",
    );
    let place = folder();
    let b = Server::primary("");
    let mut options = b.options(&[]);
    options.scratch = scratch(place.path());
    for (format, name) in [("p", "a.sql"), ("c", "a.dump"), ("d", "a.dir")] {
        let from = place.path().join(name);
        dump(&a, &from, format);
        options.backups = backups(BackupKind::Dump, from);
        let refused = Postgres::new(options.clone(), "b").rehearse(Rehearsal::Restore, 7).await.unwrap_err();
        println!("{format}: {refused}");
        assert_eq!(refused.code, "restore-rows-differ", "{refused}");
        assert!(refused.message.contains("public.rows has 1 rows, the dump has 2"), "{refused}");
    }
    // In earnest, nothing takes the place of what was there.
    b.stop();
    options.backups = options.backups.map(|named| BackupOptions { over: Over::SetAside, ..named });
    let refused = Postgres::new(options.clone(), "b").restore(7).await.unwrap_err();
    assert_eq!(refused.code, "restore-rows-differ", "{refused}");
    assert!(!set_aside(&b).iter().any(|name| name.contains("set-aside")) && b.data.join("PG_VERSION").exists());
    // What a dump writes by INSERT cannot be counted so.
    let from = place.path().join("inserts.sql");
    let (port, target) = (a.port.to_string(), from.display().to_string());
    let words = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "--inserts", "-f", &target, "app"];
    run(&format!("{BIN}/pg_dump"), &words, "postgres");
    options.backups = backups(BackupKind::Dump, from);
    let driver = Postgres::new(options, "b");
    let done = driver.rehearse(Rehearsal::Restore, 8).await.unwrap();
    assert!(done.message.contains("not compared with the dump"), "{}", done.message);
    driver.rehearse(Rehearsal::CleanUp, 8).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_page_that_nothing_reads_is_found() {
    let a = Server::primary("");
    a.stop();
    run(&format!("{BIN}/pg_checksums"), &["--enable", "-D", a.data.to_str().unwrap()], "");
    a.start();
    // Long values lie in pages of their own, which a count of rows does not touch.
    psql(&a, "INSERT INTO rows (said) SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) AS n");
    let file = a.value("SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE oid = 'rows'::regclass").await;
    let place = folder();
    let base = place.path().join("base");
    let source = format!("host=127.0.0.1 port={} user=replicator password=replicator", a.port);
    // The manifest knows sizes only: whether a page was damaged before it was copied, it never knows.
    let words =
        ["-D", base.to_str().unwrap(), "-d", &source, "-c", "fast", "-X", "stream", "--manifest-checksums=NONE"];
    run(&format!("{BIN}/pg_basebackup"), &words, "");
    let flip = || {
        let mut page = std::fs::read(base.join(&file)).unwrap();
        page[5000] ^= 0xff;
        std::fs::write(base.join(&file), page).unwrap();
    };
    flip();
    let b = Server::primary("");
    let mut options = b.options(&[]);
    options.scratch = scratch(place.path());
    options.backups = backups(BackupKind::Base, base.clone());
    let driver = Postgres::new(options, "b");
    let refused = driver.rehearse(Rehearsal::Restore, 7).await.unwrap_err();
    println!("{refused}");
    assert_eq!(refused.code, "restore-damaged", "{refused}");
    b.stop();
    std::fs::rename(&b.data, b.data.with_file_name("away")).unwrap();
    assert_eq!(driver.restore(8).await.unwrap_err().code, "restore-damaged");
    assert!(!b.data.exists(), "it has not taken the place");
    flip();
    let done = driver.rehearse(Rehearsal::Restore, 9).await.unwrap();
    assert!(done.message.contains("the checksums of its pages are right"), "{}", done.message);
    assert!(driver.rehearse(Rehearsal::Verify, 9).await.unwrap().message.contains("1 rows"), "it runs again");
    driver.rehearse(Rehearsal::CleanUp, 9).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_streams_is_not_put_back() {
    let a = Server::primary("");
    let b = Server::standby_of(&a);
    let place = folder();
    dump(&a, &place.path().join("app.dump"), "c");
    let mut options = b.options(&[("a", &a)]);
    options.backups = backups(BackupKind::Dump, place.path().join("app.dump"));
    let driver = Postgres::new(options.clone(), "b");
    driver.guard(&marker("b")).await.unwrap();
    crate::until("it streams", async || driver.probe().await.upstream.is_some_and(|upstream| upstream.connected)).await;
    let refused = driver.restore(7).await.unwrap_err();
    assert_eq!(refused.code, "restore-follows", "{refused}");
    assert!(set_aside(&b).is_empty());

    // Nor is one whose processes are on another machine: whether anybody works in its files is not seen from here.
    b.stop();
    let driver = Postgres::new(PostgresOptions { fence: FenceAt::Remote, ..options }, "b");
    assert_eq!(driver.restore(8).await.unwrap_err().code, "unsupported");
    assert!(set_aside(&b).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_takes_the_place_of_what_redis_had() {
    let a = redis::Server::new("");
    for key in ["a", "b", "c"] {
        a.cli(&["SET", key, "1"]);
    }
    a.cli(&["SAVE"]);
    let place = folder();
    std::fs::copy(a.folder.path().join("dump.rdb"), place.path().join("whole.rdb")).unwrap();
    let text = std::fs::read(place.path().join("whole.rdb")).unwrap();
    made_before(&place.path().join("whole.rdb"), Duration::from_secs(60));
    std::fs::write(place.path().join("half.rdb"), &text[..text.len() - 9]).unwrap();
    let b = redis::Server::new("");
    b.cli(&["SET", "old", "1"]);
    let options = RedisOptions {
        backups: backups(BackupKind::Rdb, place.path().join("*.rdb")),
        scratch: scratch(place.path()),
        // The fence leaves the user on that the listed command stops it as.
        clients: Vec::new(),
        ..b.options(&[])
    };
    let driver = Redis::new(options.clone(), "b");
    let done = driver.rehearse(Rehearsal::Restore, 7).await.unwrap();
    println!("{}", done.message);
    assert!(done.message.contains("3 keys") && done.message.contains("half.rdb"), "{}", done.message);
    driver.rehearse(Rehearsal::CleanUp, 7).await.unwrap();

    assert_eq!(driver.restore(7).await.unwrap_err().code, "restore-writable");
    driver.guard(&marker("b")).await.unwrap();
    driver.fence().await.unwrap();
    assert_eq!(driver.restore(7).await.unwrap_err().code, "restore-not-empty");
    assert_eq!(b.cli(&["EXISTS", "old"]), "1");
    let named = options.backups.clone().unwrap();
    let over = RedisOptions { backups: Some(BackupOptions { over: Over::SetAside, ..named }), ..options.clone() };
    let check = |words: &[&str], expect: Option<&str>| RedisCheck {
        command: words.iter().map(|&word| word.to_owned()).collect(),
        expect: expect.map(str::to_owned),
    };
    for (check, code) in [
        (check(&["GET", "a"], Some("2")), "scratch-check"),
        (check(&["EXISTS", "d"], None), "scratch-check"),
        (check(&["FLUSHALL"], None), "redis-config"),
    ] {
        let driver = Redis::new(RedisOptions { checks: vec![check], ..over.clone() }, "b");
        let refused = driver.restore(7).await.unwrap_err();
        println!("{refused}");
        assert_eq!((refused.code, refused.retryable), (code, false), "{refused}");
        assert_eq!(b.cli(&["EXISTS", "old"]), "1", "nothing has taken its place");
    }
    let checks = vec![check(&["GET", "a"], Some("1")), check(&["MGET", "a", "c"], Some("1\n1"))];
    let driver = Redis::new(RedisOptions { checks, ..over }, "b");
    driver.rehearse(Rehearsal::Restore, 8).await.unwrap();
    let verified = driver.rehearse(Rehearsal::Verify, 8).await.unwrap();
    assert!(verified.message.contains("3 keys and answers 2 checks"), "{}", verified.message);
    driver.rehearse(Rehearsal::CleanUp, 8).await.unwrap();
    let done = driver.restore(7).await.unwrap();
    assert!(done.message.contains("2 checks"), "{}", done.message);
    println!("{}", done.message);
    assert!(done.message.contains("regent-set-aside"), "{}", done.message);
    let probe = driver.probe().await;
    assert!(!probe.writable && probe.role == Role::Primary, "{probe:?}");
    assert!(driver.restore(7).await.unwrap().already);
    driver.promote(None).await.unwrap();
    assert_eq!(b.cli(&["MGET", "a", "b", "c"]).lines().collect::<Vec<_>>(), ["1", "1", "1"]);
    assert_eq!(b.cli(&["EXISTS", "old"]), "0");
    assert_eq!(b.cli(&["SET", "new", "1"]), "OK");

    // Where nothing is, nothing has to be said or set aside.
    let c = redis::Server::new("");
    let options = RedisOptions { backups: options.backups, clients: Vec::new(), ..c.options(&[]) };
    let driver = Redis::new(options, "c");
    driver.guard(&marker("c")).await.unwrap();
    driver.fence().await.unwrap();
    let done = driver.restore(7).await.unwrap();
    assert!(!done.message.contains("regent-set-aside"), "{}", done.message);
    driver.promote(None).await.unwrap();
    assert_eq!(c.cli(&["MGET", "a", "b", "c"]).lines().collect::<Vec<_>>(), ["1", "1", "1"]);
}
