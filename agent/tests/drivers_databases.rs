//! The database drivers against real servers. What holds is asked of the servers by sessions of the tests' own.

#[path = "drivers_databases/drills.rs"]
mod drills;
#[path = "drivers_databases/facts.rs"]
mod facts;
#[path = "drivers_databases/kept_closed.rs"]
mod kept_closed;
#[path = "drivers_databases/managers.rs"]
mod managers;
#[path = "drivers_databases/permissions.rs"]
mod permissions;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "drivers_databases/postgres_in_place.rs"]
mod postgres_in_place;
#[path = "drivers_databases/postgres_moves.rs"]
mod postgres_moves;
#[path = "support/redis.rs"]
mod redis;
#[path = "drivers_databases/redis_histories.rs"]
mod redis_histories;
#[path = "drivers_databases/redis_restarts.rs"]
mod redis_restarts;
#[path = "drivers_databases/redis_server.rs"]
mod redis_server;
#[path = "drivers_databases/rejoins_unsaved.rs"]
mod rejoins_unsaved;
#[path = "drivers_databases/restores.rs"]
mod restores;
#[path = "drivers_databases/restores_again.rs"]
mod restores_again;
#[path = "drivers_databases/restores_whole.rs"]
mod restores_whole;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::{Driver, Health, Role};

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
