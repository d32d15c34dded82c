//! What closes a database at rest is put back when somebody has taken it out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nix::sys::signal::Signal;
use regent_agent::driver::Driver;
use tokio_postgres::error::SqlState;

use crate::{code, postgres, redis, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_whose_signal_was_taken_away_comes_up_closed_again() {
    let server = postgres::Server::primary("");
    let driver = server.driver("a", &[]);
    driver.guard(&postgres::marker("a")).await.unwrap();
    assert!(!driver.keep_closed().await.unwrap());
    std::fs::remove_file(server.data.join("standby.signal")).unwrap();
    assert!(driver.keep_closed().await.unwrap());
    assert!(!driver.keep_closed().await.unwrap());
    server.accepts_write("app").await.unwrap();
    server.kill_and_wait();
    // Without any agent.
    server.start();
    let refused = server.accepts_write("app").await.unwrap_err();
    assert_eq!(code(&refused), SqlState::READ_ONLY_SQL_TRANSACTION.code());
    driver.unfence().await.unwrap();
    server.accepts_write("app").await.unwrap();
    assert!(!driver.keep_closed().await.unwrap(), "an opening puts it back by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_rewritten_is_closed_again_before_it_is_needed() {
    let server = redis::Server::new("appendonly yes\nrepl-diskless-sync no");
    let driver = server.driver("a", &[]);
    driver.guard(&postgres::marker("a")).await.unwrap();
    driver.promote(None).await.unwrap();
    assert!(!driver.keep_closed().await.unwrap());
    for _ in 0..2 {
        assert_eq!(server.cli(&["SET", "k", "v"]), "OK");
        assert_eq!(server.cli(&["CONFIG", "REWRITE"]), "OK");
        let text = std::fs::read_to_string(server.config()).unwrap();
        assert!(!text.contains("min-replicas-to-write 65535"), "{text}");
        assert!(driver.keep_closed().await.unwrap());
        assert!(!driver.keep_closed().await.unwrap());
        assert!(driver.probe().await.writable, "what runs is not touched");
        until("all of it is written", async || server.is_written()).await;
        server.end(Signal::SIGKILL);
        // Without any agent.
        server.start();
        let answer = server.cli(&["SET", "k", "w"]);
        assert!(answer.contains("NOREPLICAS"), "{answer}");
        // A file that was rewritten while it was closed is as good.
        assert_eq!(server.cli(&["CONFIG", "REWRITE"]), "OK");
        assert!(!driver.keep_closed().await.unwrap());
        driver.unfence().await.unwrap();
        assert_eq!(server.cli(&["GET", "k"]), "v");
    }
}
