//! Restores that are begun again, or not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nix::sys::signal::Signal;
use regent_agent::driver::backup::BackupKind;
use regent_agent::driver::postgres::Postgres;
use regent_agent::driver::redis::{Redis, RedisOptions};
use regent_agent::driver::{Driver, Rehearsal, Role};

use crate::postgres::{Server, folder, marker};
use crate::redis;
use crate::restores::{backups, scratch};

/// What a run notes beside the data.
fn note_of(run: u64) -> String {
    serde_json::json!({ "run": run, "message": "whole.rdb was restored", "rehearsed_ms": null }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_redis_that_died_in_the_middle_goes_on() {
    let a = redis::Server::new("");
    a.cli(&["MSET", "a", "1", "b", "1"]);
    a.cli(&["SAVE"]);
    let place = folder();
    let whole = place.path().join("whole.rdb");
    std::fs::copy(a.folder.path().join("dump.rdb"), &whole).unwrap();
    let closed = async |cluster: &str| {
        let server = redis::Server::new("");
        let options = RedisOptions {
            backups: backups(BackupKind::Rdb, whole.clone()),
            clients: Vec::new(),
            ..server.options(&[])
        };
        let driver = Redis::new(options, cluster);
        driver.guard(&marker(cluster)).await.unwrap();
        driver.fence().await.unwrap();
        (server, driver)
    };
    // It died between the exchange and the word of it: the snapshot is there, and nothing runs.
    let (b, driver) = closed("b").await;
    let file = |name: &str| b.folder.path().join(name);
    b.end(Signal::SIGKILL);
    std::fs::copy(&whole, file("dump.rdb")).unwrap();
    std::fs::write(file("regent.restoring"), note_of(7)).unwrap();
    let refused = driver.restore(8).await.unwrap_err();
    assert_eq!(refused.code, "restore-not-empty", "what another run was about to do says nothing: {refused}");
    assert!(file("regent.restoring").exists() && !file("regent.restored").exists());
    let done = driver.restore(7).await.unwrap();
    assert!(done.already && done.message == "whole.rdb was restored", "{done:?}");
    assert!(!file("regent.restoring").exists() && file("regent.restored").exists());
    assert!(driver.restore(7).await.unwrap().already, "and it is remembered");
    assert_eq!(driver.restore(8).await.unwrap_err().code, "restore-not-empty");
    let probe = driver.probe().await;
    assert!(!probe.writable && probe.role == Role::Primary, "{probe:?}");
    driver.promote(None).await.unwrap();
    assert_eq!(b.cli(&["MGET", "a", "b"]).lines().collect::<Vec<_>>(), ["1", "1"]);

    // It died between the note and the exchange: the copy still waits, and the work is done from its beginning.
    let (c, driver) = closed("c").await;
    let file = |name: &str| c.folder.path().join(name);
    c.end(Signal::SIGKILL);
    std::fs::write(file("dump.regent-new"), "half").unwrap();
    std::fs::write(file("regent.restoring"), note_of(7)).unwrap();
    let done = driver.restore(7).await.unwrap();
    assert!(!done.already && done.message.contains("2 keys"), "{done:?}");
    assert!(!file("regent.restoring").exists() && !file("dump.regent-new").exists());
    driver.promote(None).await.unwrap();
    assert_eq!(c.cli(&["MGET", "a", "b"]).lines().collect::<Vec<_>>(), ["1", "1"]);

    // So it is where somebody has written meanwhile: that the exchange was about to be made excuses nothing.
    let (d, driver) = closed("d").await;
    let file = |name: &str| d.folder.path().join(name);
    d.end(Signal::SIGKILL);
    std::fs::copy(&whole, file("dump.rdb")).unwrap();
    std::fs::write(file("dump.regent-new"), "half").unwrap();
    std::fs::write(file("regent.restoring"), note_of(7)).unwrap();
    assert_eq!(driver.restore(7).await.unwrap_err().code, "restore-not-empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_of_another_version_is_refused_by_name() {
    let place = folder();
    let base = place.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for (name, text) in [("PG_VERSION", "14\n"), ("backup_manifest", "{}")] {
        std::fs::write(base.join(name), text).unwrap();
    }
    let b = Server::primary("");
    let mut options = b.options(&[]);
    options.scratch = scratch(place.path());
    options.backups = backups(BackupKind::Base, base);
    let driver = Postgres::new(options, "b");
    let refused = driver.rehearse(Rehearsal::Restore, 7).await.unwrap_err();
    assert_eq!(refused.code, "postgres-programs", "{refused}");
    assert!(refused.message.contains("of PostgreSQL 14") && refused.message.contains("15"), "{refused}");
    // Where nothing is, what starts the server tells its version.
    b.stop();
    std::fs::rename(&b.data, b.data.with_file_name("away")).unwrap();
    let refused = driver.restore(8).await.unwrap_err();
    assert_eq!(refused.code, "postgres-programs", "{refused}");
    assert!(!b.data.exists() && !b.data.with_file_name("data.regent-restoring").exists(), "nothing was begun");
}
