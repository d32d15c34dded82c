//! Rejoins of a side that diverged, where the WAL at the fork is only in an archive any more.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nix::sys::signal::Signal;
use regent_agent::driver::{Driver, Health, Rejoin};

use crate::insert;
use crate::postgres::{Server, folder, marker};

fn beside(server: &Server, begin: &str) -> Vec<String> {
    let entries = std::fs::read_dir(server.data.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(begin)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_diverged_is_not_given_up_without_its_beginning() {
    for allow_reclone in [false, true] {
        let archive = folder();
        // pg_rewind goes on by it where pg_wal has nothing.
        let a = Server::primary(&format!("restore_command = 'cp {}/%f %p'", archive.path().display()));
        let b = Server::standby_of(&a);
        let driver_a = a.driver("a", &[("b", &b)]);
        let driver_b = b.driver("b", &[("a", &a)]);
        driver_a.guard(&marker("a")).await.unwrap();
        driver_b.guard(&marker("b")).await.unwrap();
        a.accepts_write("app").await.unwrap();
        driver_b.catch_up(driver_a.probe().await.position.unwrap()).await.unwrap();
        for process in a.processes().iter().filter(|process| process.title().contains("walsender")) {
            process.signal(Signal::SIGSTOP).unwrap();
        }
        // Rows that only A has, the first of them in the segment of the fork, which a crash does not need any more.
        let fork = a.value("SELECT pg_walfile_name(pg_current_wal_lsn())").await;
        let lost = a.connect("app").await.unwrap();
        insert(&lost, "lost").await.unwrap();
        let superuser = a.connect("postgres").await.unwrap();
        superuser.batch_execute("SELECT pg_switch_wal()").await.unwrap();
        insert(&lost, "lost too").await.unwrap();
        superuser.batch_execute("CHECKPOINT").await.unwrap();
        a.kill_and_wait();
        driver_b.promote(None).await.unwrap();
        let (segment, archived) = (a.data.join("pg_wal").join(&fork), archive.path().join(&fork));
        std::fs::rename(&segment, &archived).unwrap();
        driver_a.fence().await.unwrap();

        let rejoin = Rejoin { upstream_cluster: "b".into(), allow_rewind: true, allow_reclone, covered: None };
        if allow_reclone {
            let done = driver_a.rejoin(&rejoin).await.unwrap();
            println!("{}", done.message);
            assert!(done.message.contains("fresh copy") && done.message.contains(&fork), "{}", done.message);
            assert_eq!(beside(&a, "data.regent-set-aside-").len(), 1, "all that there was is kept");
        } else {
            let refused = driver_a.rejoin(&rejoin).await.unwrap_err();
            println!("{refused}");
            assert_eq!((refused.code, refused.retryable), ("rejoin-unsaved", false), "{refused}");
            assert!(refused.message.contains(&fork), "{refused}");
            let left = driver_a.probe().await;
            assert!(!left.writable && left.health == Health::Healthy, "it runs, closed: {left:?}");
            assert!(beside(&a, "data.regent-diverged-").is_empty(), "it is not called saved");
            // What is asked for is done.
            a.stop();
            std::fs::rename(&archived, &segment).unwrap();
            let done = driver_a.rejoin(&rejoin).await.unwrap();
            println!("{}", done.message);
            assert!(done.message.contains("rewound") && done.message.contains("saved in"), "{}", done.message);
            let saved = beside(&a, "data.regent-diverged-");
            assert_eq!(saved.len(), 1, "{saved:?}");
            assert!(a.data.with_file_name(&saved[0]).join(&fork).exists(), "with its beginning");
        }
        b.accepts_write("app").await.unwrap();
        driver_a.catch_up(driver_b.probe().await.position.unwrap()).await.unwrap();
        assert_eq!(a.value("SELECT count(*) FROM rows WHERE said LIKE 'lost%'").await, "0");
    }
}
