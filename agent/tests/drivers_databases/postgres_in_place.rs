//! PostgreSQL where it is: closed at rest, opened, fenced and ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use regent_agent::driver::postgres::{Postgres, PostgresOptions};
use regent_agent::driver::process::table::family;
use regent_agent::driver::{Driver, Health, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::error::SqlState;

use crate::postgres::{Server, marker};
use crate::{code, insert, until};

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
    assert_eq!(options.grace, Duration::from_millis(100));
    let with_grace =
        |grace| serde_json::from_str::<PostgresOptions>(&text.replacen('{', &format!("{{ \"grace\": \"{grace}\","), 1));
    assert_eq!(with_grace("30s").unwrap().grace, Duration::from_secs(30));
    assert_eq!(with_grace("0s").unwrap().grace, Duration::ZERO);
    let refused = with_grace("30s1ms").unwrap_err().to_string();
    assert!(refused.contains("30s1ms") && refused.contains("at most 30s"), "{refused}");
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
async fn postgres_lets_transactions_end_within_the_grace_alone() {
    let grace = Duration::from_secs(2);
    let server = Server::primary("");
    let driver = Arc::new(Postgres::new(PostgresOptions { grace, ..server.options(&[]) }, "a"));
    driver.guard(&marker("a")).await.unwrap();
    let write = |said: &'static str| {
        let client = server.connect("app");
        async move {
            let client = client.await.unwrap();
            client.batch_execute(&format!("BEGIN; INSERT INTO rows (said) VALUES ('{said}')")).await.unwrap();
            client
        }
    };
    let (short, long) = (write("short").await, write("long").await);
    let refuses = async || server.accepts_write("app").await.is_err_and(|error| code(&error) == "28000");

    let quiescing = Arc::clone(&driver);
    let began = Instant::now();
    let quiescing = tokio::spawn(async move { quiescing.quiesce().await });
    until("new logins are refused", &refuses).await;
    while began.elapsed() < grace / 2 {
        assert!(refuses().await, "a new login while others may finish");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    short.batch_execute("COMMIT").await.unwrap();
    assert!(began.elapsed() < grace, "this machine is too slow for what is tried here");
    while !quiescing.is_finished() {
        assert!(refuses().await, "a new login while others may finish");
        assert!(began.elapsed() < 2 * grace, "the grace did not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let done = quiescing.await.unwrap().unwrap();
    println!("quiesce: {:?}, {}", began.elapsed(), done.message);
    assert!(began.elapsed() >= grace, "the long one was not waited for");
    assert!(!done.already);
    assert!(long.batch_execute("COMMIT").await.is_err(), "it outlived the grace");
    assert!(refuses().await);
    driver.unfence().await.unwrap();
    assert_eq!(server.value("SELECT count(*) FROM rows WHERE said = 'short'").await, "1");
    assert_eq!(server.value("SELECT count(*) FROM rows WHERE said = 'long'").await, "0");

    // Nobody is waited for once nothing is left of the work; and a fence waits for nobody.
    let began = Instant::now();
    driver.quiesce().await.unwrap();
    assert!(began.elapsed() < grace, "{:?}", began.elapsed());
    driver.unfence().await.unwrap();
    let long = write("fenced").await;
    let began = Instant::now();
    driver.fence().await.unwrap();
    assert!(began.elapsed() < grace, "{:?}", began.elapsed());
    assert!(long.batch_execute("COMMIT").await.is_err());
    driver.unfence().await.unwrap();
    assert_eq!(server.value("SELECT count(*) FROM rows WHERE said = 'fenced'").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_breaks_a_quiesce_off_where_it_lets_transactions_end() {
    let grace = Duration::from_secs(20);
    let server = Server::primary("");
    let driver = Arc::new(Postgres::new(PostgresOptions { grace, ..server.options(&[]) }, "a"));
    driver.guard(&marker("a")).await.unwrap();
    // One that begins later is not meant.
    driver.break_off();
    let long = server.connect("app").await.unwrap();
    long.batch_execute("BEGIN; INSERT INTO rows (said) VALUES ('long')").await.unwrap();
    let refuses = async || server.accepts_write("app").await.is_err_and(|error| code(&error) == "28000");

    let quiescing = Arc::clone(&driver);
    let quiescing = tokio::spawn(async move { quiescing.quiesce().await });
    until("new logins are refused", &refuses).await;
    assert!(!quiescing.is_finished(), "a transaction is open");
    let word = Instant::now();
    driver.break_off();
    let error = quiescing.await.unwrap().unwrap_err();
    println!("broken off: {:?}, {error}", word.elapsed());
    assert!(word.elapsed() < Duration::from_secs(1), "{:?}", word.elapsed());
    assert_eq!((error.code, error.retryable), ("postgres-quiesce-broken-off", false));
    assert!(refuses().await, "only its undo opens");
    driver.unfence().await.unwrap();
    println!("open again: {:?}", word.elapsed());
    for _ in 0..20 {
        server.accepts_write("app").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!std::fs::read_to_string(server.data.join("pg_hba.conf")).unwrap().contains("reject"));
    // Nobody was cut.
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(server.value("SELECT count(*) FROM rows WHERE said = 'long'").await, "1");

    // A fence waits for nobody, so there is nothing of it to break off; and the next quiesce is another one.
    long.batch_execute("BEGIN; INSERT INTO rows (said) VALUES ('fenced')").await.unwrap();
    driver.break_off();
    driver.fence().await.unwrap();
    assert!(long.batch_execute("COMMIT").await.is_err());
    driver.unfence().await.unwrap();
    assert!(!driver.quiesce().await.unwrap().already);
    driver.unfence().await.unwrap();
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
async fn postgres_stays_closed_after_the_crash_of_a_backend() {
    let server = Server::primary("");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    server.restart();
    driver.unfence().await.unwrap();
    // What asked for the promotion would ask again when the server comes up after the crash.
    assert!(!server.data.join("promote").exists());
    let client = server.connect("app").await.unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let closed = loop {
        match server.accepts_write("app").await {
            Err(error) if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => break true,
            // A promotion takes the file away.
            Ok(()) if !server.data.join("standby.signal").exists() => break false,
            _ => assert!(Instant::now() < deadline, "the server did not come up again"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(closed, "it opened itself");
    assert!(server.data.join("standby.signal").exists());
    driver.unfence().await.unwrap();
    server.accepts_write("app").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_with_a_subscription_is_not_fenced_gently() {
    let server = Server::primary("");
    let driver = server.driver("a", &[]);
    driver.guard(&marker("a")).await.unwrap();
    let admin = server.connect("postgres").await.unwrap();
    let subscribe = "CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1 port=1 dbname=app' PUBLICATION feed \
                     WITH (connect = false, slot_name = 'feed')";
    admin.batch_execute(subscribe).await.unwrap();
    admin.batch_execute("ALTER SUBSCRIPTION feed ENABLE").await.unwrap();
    let refused = driver.fence().await.unwrap_err();
    assert_eq!(refused.code, "postgres-fence-unconfirmed");
    assert!(refused.message.contains("feed"), "{}", refused.message);
    // The hard one knows no exception.
    driver.fence_hard().await.unwrap();
    assert!(family(&["postgres"], &[&server.data]).is_gone());
}
