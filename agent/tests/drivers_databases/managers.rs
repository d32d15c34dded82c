//! Other managers of the same databases, found by what they keep there: a session that calls itself Patroni, and a Sentinel.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Child, Command, Stdio};

use regent_agent::driver::Driver;
use tokio_postgres::NoTls;

use crate::postgres::{Server, free_port};
use crate::{redis, until};

/// The other managers that are found, one line each.
async fn managers(driver: &dyn Driver) -> Vec<String> {
    driver.facts().await.unwrap().findings.managed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_calls_itself_patroni_gives_another_manager_away_while_it_lasts() {
    let server = Server::primary("");
    let driver = server.driver("a", &[]);
    let mut config = server.config("app", "app");
    let (other, connection) = config.application_name("billing").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(managers(&driver).await, Vec::<String>::new());

    let (client, connection) = config.application_name("Patroni restapi").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let told = managers(&driver).await;
    assert_eq!(told, [r#"Patroni (its sessions: "Patroni restapi")"#]);
    drop(client);
    until("its session is gone", async || managers(&driver).await.is_empty()).await;
    drop(other);
}

/// Ends with the test.
struct Sentinel(Child);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One that watches this server.
fn sentinel(server: &redis::Server, folder: &std::path::Path) -> Sentinel {
    let config = folder.join("sentinel.conf");
    let text = format!(
        "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\n",
        free_port(),
        folder.display(),
        server.port
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(config).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Sentinel(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_watches_redis_is_found_while_it_does() {
    let server = redis::Server::new("");
    let driver = server.driver("a", &[]);
    assert_eq!(managers(&driver).await, Vec::<String>::new());
    let folder = tempfile::tempdir().unwrap();
    let sentinel = sentinel(&server, folder.path());
    until("the Sentinel is found", async || {
        let told = managers(&driver).await;
        told.len() == 1 && told[0].starts_with("Redis Sentinel (its connections: sentinel-") && told[0].contains("-cmd")
    })
    .await;
    drop(sentinel);
    until("it is gone", async || managers(&driver).await.is_empty()).await;

    // Without the right to look, that it is lacking is told, and of managers nothing is known.
    let rights = server.cli(&["ACL", "SETUSER", "blind", "on", ">blind", "~*", "&*", "+@all", "-client|list"]);
    assert_eq!(rights, "OK");
    let mut options = server.options(&[]);
    (options.user, options.password) = ("blind".into(), regent_agent::secret::Secret::new("blind"));
    let found = regent_agent::driver::redis::Redis::new(options, "a").facts().await.unwrap().findings;
    assert_eq!(found.managed, Vec::<String>::new());
    assert!(found.lacks.len() == 1 && found.lacks[0].contains("blind lacks +client|list;"), "{:?}", found.lacks);
}
