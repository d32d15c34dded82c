//! What the agent lacks for a fence, a promotion or a rejoin, found without one.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use regent_agent::driver::Driver;
use regent_agent::driver::postgres::Postgres;
use regent_agent::driver::redis::Redis;
use regent_agent::secret::Secret;

use crate::postgres::{BIN, Server};
use crate::redis;

/// What is lacking, one line each.
async fn lacks(driver: &dyn Driver) -> Option<Vec<String>> {
    Some(driver.facts().await?.findings.lacks)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_does_not_let_the_agent_do_is_named() {
    let primary = Server::primary("");
    let standby = Server::standby_of(&primary);
    let found = primary.driver("a", &[("b", &standby)]).facts().await.unwrap();
    assert_eq!(found.findings.lacks, Vec::<String>::new());
    assert_eq!(found.reaches, [("b".to_owned(), Ok(()))].into());

    let mut options = primary.options(&[("b", &standby)]);
    (options.user, options.password) = ("app".into(), Secret::new("app"));
    let told = lacks(&Postgres::new(options, "a")).await.unwrap();
    assert!(told.len() == 1 && told[0].contains("ALTER ROLE app SUPERUSER"), "{told:?}");

    let mut options = primary.options(&[("b", &standby)]);
    let plain = format!("host=127.0.0.1 port={} user=app password=app dbname=app", standby.port);
    options.upstreams.insert("b".into(), Secret::new(plain));
    let found = Postgres::new(options, "a").facts().await.unwrap();
    let told = &found.findings.lacks;
    let named = ["upstreams.b", "pg_ls_dir(text,boolean,boolean)", "CHECKPOINT"];
    assert!(told.len() == 1 && named.iter().all(|word| told[0].contains(word)), "{told:?}");
    assert!(!told[0].contains("pg_control_system"), "everybody may that: {told:?}");
    assert_eq!(found.reaches["b"], Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_login_of_a_standby_is_tried_in_replication_mode() {
    let primary = Server::primary("");
    let standby = Server::standby_of(&primary);
    let tried = async |replication: Option<&str>| {
        let mut options = primary.options(&[("b", &standby)]);
        options.replication.clear();
        let target = format!("host=127.0.0.1 port={}", standby.port);
        options.replication.extend(replication.map(|who| ("b".to_owned(), Secret::new(format!("{target} {who}")))));
        Postgres::new(options, "a").facts().await.unwrap().reaches["b"].clone()
    };
    assert_eq!(tried(Some("user=replicator password=replicator")).await, Ok(()));
    let why = tried(Some("user=replicator password=hunter2")).await.unwrap_err();
    assert!(why.contains("replication.b") && why.contains("password authentication failed"), "{why}");
    assert!(!why.contains("hunter2"), "{why}");
    // It may log in, and not replicate.
    let why = tried(Some("user=app password=app")).await.unwrap_err();
    assert!(why.contains("replication role"), "{why}");
    let why = tried(None).await.unwrap_err();
    assert!(why.contains("no usable replication.b"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_let_in_is_not_tried_every_time_and_one_that_was_not_is() {
    let (one, other) = (Server::primary(""), Server::primary(""));
    let allow = async |rights: &str| {
        let admin = other.connect("postgres").await.unwrap();
        admin.batch_execute(&format!("ALTER ROLE replicator {rights}")).await.unwrap();
    };
    let reaches = async |driver: &Postgres| driver.facts().await.unwrap().reaches["b"].clone();
    let driver = one.driver("a", &[("b", &other)]);
    assert_eq!(reaches(&driver).await, Ok(()));
    allow("NOLOGIN").await;
    assert_eq!(reaches(&driver).await, Ok(()), "it would take a connection that replication needs");
    driver.look_anew();
    assert!(reaches(&driver).await.is_err(), "who asks for a new look is told what is so now");
    let later = one.driver("a", &[("b", &other)]);
    assert!(reaches(&later).await.is_err());
    allow("LOGIN").await;
    assert_eq!(reaches(&later).await, Ok(()), "what was refused is tried again");
    // Once the other side was away, nothing is taken for granted.
    allow("NOLOGIN").await;
    other.stop();
    assert!(reaches(&driver).await.is_err());
    other.start();
    assert!(reaches(&driver).await.unwrap_err().contains("replication.b"));
}

/// A password for a key that nobody reads here: what counts is where it goes.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_a_key_is_on_no_command_line() {
    let (one, other) = (Server::primary(""), Server::primary(""));
    let folder = crate::postgres::folder();
    let seen = folder.path().join("seen");
    // In the place of psql: it writes down what others could read, and what it alone is given.
    let program = folder.path().join("psql");
    let script = format!("#!/bin/sh\necho \"$@\" > {0}\ncat \"$PGSERVICEFILE\" >> {0}.own\n", seen.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut options = one.options(&[("b", &other)]);
    options.bin_directory = Some(folder.path().to_owned());
    let login = format!("host=127.0.0.1 port={} user=replicator sslpassword=hunter2", other.port);
    options.replication.insert("b".into(), Secret::new(login));
    assert_eq!(Postgres::new(options, "a").facts().await.unwrap().reaches["b"], Ok(()));
    let told = std::fs::read_to_string(&seen).unwrap();
    assert!(
        told.contains("service=regent") && told.contains("replication=true") && !told.contains("hunter2"),
        "{told}"
    );
    let own = std::fs::read_to_string(folder.path().join("seen.own")).unwrap();
    assert_eq!(own, "[regent]\nsslpassword=hunter2\n");
    let beside = std::fs::read_dir(one.data.parent().unwrap()).unwrap();
    let left: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("regent-service")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_postgres_that_cannot_be_started_are_named() {
    let primary = Server::primary("");
    let empty = tempfile::tempdir().unwrap();
    let mut options = primary.options(&[("b", &primary)]);
    options.start = vec!["/nowhere/start-it".into()];
    options.stop = vec![primary.data.join("PG_VERSION").display().to_string()];
    options.bin_directory = Some(empty.path().to_owned());
    let told = lacks(&Postgres::new(options.clone(), "a")).await.unwrap();
    let named = ["start: there is no program /nowhere/start-it", "is not executable", "pg_rewind", "pg_basebackup"];
    assert!(named.iter().all(|word| told.iter().any(|line| line.contains(word))), "{told:?}");
    assert_eq!(told.len(), 5, "{told:?}");

    // Its processes are looked for in another folder.
    options.data_directory = empty.path().to_owned();
    options.bin_directory = Some(PathBuf::from(BIN));
    let told = lacks(&Postgres::new(options, "a")).await.unwrap();
    assert!(told.iter().any(|line| line.starts_with("the hard fence: ") && line.contains("dataDirectory")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_acl_of_redis_does_not_let_the_agent_do_is_named() {
    let (one, other) = (redis::Server::new(""), redis::Server::new(""));
    assert_eq!(lacks(&one.driver("a", &[("b", &other)])).await, Some(vec![]));

    let rights = one.cli(&["ACL", "SETUSER", "weak", "on", ">weak", "~*", "&*", "+@all", "-replicaof", "-config|set"]);
    assert_eq!(rights, "OK");
    let mut options = one.options(&[("b", &other)]);
    (options.user, options.password) = ("weak".into(), Secret::new("weak"));
    let before = one.cli(&["INFO", "replication"]);
    let told = lacks(&Redis::new(options.clone(), "a")).await.unwrap();
    assert!(told.len() == 1 && told[0].contains("weak lacks +config|set +replicaof;"), "{told:?}");
    assert!(before.contains("role:master") && one.cli(&["INFO", "replication"]).contains("role:master"));
    assert_eq!(one.cli(&["CONFIG", "GET", "min-replicas-to-write"]).lines().last(), Some("0"), "it was a dry run");

    assert_eq!(one.cli(&["ACL", "SETUSER", "weak", "-acl"]), "OK");
    let told = lacks(&Redis::new(options, "a")).await.unwrap();
    assert!(told.len() == 1 && told[0].contains("weak lacks +acl;"), "{told:?}");

    // The login that a replica uses there.
    assert_eq!(other.cli(&["ACL", "SETUSER", "replicator", "-info", "-replconf"]), "OK");
    let told = lacks(&one.driver("a", &[("b", &other)])).await.unwrap();
    assert!(told.len() == 1 && told[0].contains("upstreams.b lacks +info +replconf"), "{told:?}");
}

/// What a server before Redis 6 says of ACL at all, and one before Redis 7 of a dry run: an error that is no refusal.
#[tokio::test(flavor = "multi_thread")]
async fn where_redis_cannot_be_asked_for_rights_they_are_not_called_known() {
    let (able, unable) = (redis::Server::new(""), redis::Server::new("rename-command ACL \"\""));
    let known = able.driver("a", &[]).facts().await.unwrap().findings;
    assert_eq!((known.rights_unknown.as_str(), known.lacks), ("", vec![]));
    let found = unable.driver("a", &[]).facts().await.unwrap();
    assert!(found.redis.is_some() && found.findings.lacks.is_empty(), "{found:?}");
    let why = found.findings.rights_unknown;
    assert!(why.contains("the ACL user regent") && why.contains("ACL DRYRUN") && why.contains("ERR"), "{why}");
    // One that does not answer is told of elsewhere.
    unable.end(Signal::SIGKILL);
    assert_eq!(unable.driver("a", &[]).facts().await.unwrap().findings.rights_unknown, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_redis_and_a_process_that_is_not_found_are_named() {
    let server = redis::Server::new("");
    let mut options = server.options(&[]);
    options.start = vec!["no-such-program".into()];
    options.pid_file = server.folder.path().join("another-pid");
    // Its own word on its process is not asked for where the login fails.
    options.password = Secret::new("hunter2");
    let told = lacks(&Redis::new(options, "a")).await.unwrap();
    let named = ["start: there is no program no-such-program", "the hard fence: "];
    assert!(named.iter().all(|word| told.iter().any(|line| line.starts_with(word))), "{told:?}");
    assert!(told.len() == 2 && !told.iter().any(|line| line.contains("hunter2")), "{told:?}");
    server.end(Signal::SIGKILL);
}
