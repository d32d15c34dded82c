//! The harness itself, against real servers: what it starts is what it says, and nothing of it stays behind.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regent_deploy::demo::DemoConfig;
use regent_deploy::keeper::{Exit, Keeper, Program};
use regent_deploy::knot::{Knot, Zone};
use regent_deploy::ports::{ADDRESSES, Ports};
use regent_deploy::postgres::{self, Postgres};
use regent_deploy::redis::{self, Redis};
use regent_deploy::script::Gate;
use regent_deploy::writer::resolve::ask;
use regent_deploy::writer::{Writer, WriterOptions};
use regent_deploy::{place, tree, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder that PostgreSQL's user can get to.
fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("regent-").tempdir_in("/var/tmp")?;
    place::passable(folder.path())?;
    Ok(folder)
}

fn ports() -> Result<Ports> {
    Ports::new(place::cache()?.join("ports"))
}

fn pair(keepers: [&Arc<Keeper>; 2], folder: &Path, ports: &mut Ports) -> Result<(Postgres, Postgres)> {
    let (port, passwords) = (ports.pick()?, postgres::Passwords::random());
    let server = |keeper: &Arc<Keeper>, name: &str, address| {
        Postgres::new(Arc::clone(keeper), &folder.join(name), address, port, passwords.clone(), Gate::default())
    };
    Ok((server(keepers[0], "pg-a", ADDRESSES[1])?, server(keepers[1], "pg-b", ADDRESSES[2])?))
}

fn redis_pair(keepers: [&Arc<Keeper>; 2], folder: &Path, ports: &mut Ports) -> Result<(Redis, Redis)> {
    let (port, passwords) = (ports.pick()?, redis::Passwords::random());
    let server = |keeper: &Arc<Keeper>, name: &str, address| {
        Redis::new(Arc::clone(keeper), &folder.join(name), address, port, passwords.clone(), Gate::default())
    };
    Ok((server(keepers[0], "redis-a", ADDRESSES[1]), server(keepers[1], "redis-b", ADDRESSES[2])))
}

#[tokio::test]
async fn a_postgres_pair_streams_and_a_kill_stays_a_kill() -> Result<()> {
    let folder = folder()?;
    let keeper = Arc::new(Keeper::start("pair", folder.path())?);
    let (primary, standby) = pair([&keeper, &keeper], folder.path(), &mut ports()?)?;
    primary.create_primary().await?;
    standby.create_standby(&primary).await?;
    wait::until("a streaming standby", PATIENCE, || async {
        ensure!(primary.streaming().await? == 1, "none streams");
        Ok(())
    })
    .await?;
    ensure!(!primary.is_in_recovery().await? && standby.is_in_recovery().await?);
    primary.insert(7).await?;
    wait::until("the row at the standby", PATIENCE, || async {
        ensure!(standby.rows().await?.contains(&7), "it is not there");
        Ok(())
    })
    .await?;
    ensure!(standby.insert(8).await.is_err(), "a standby took a row");

    let postmaster = primary.pid().expect("it runs");
    let all = tree::descendants(postmaster);
    primary.kill_and_switch_off().await?;
    wait::until("the death of the backends", PATIENCE, || async {
        ensure!(all.iter().all(|pid| !tree::is_running(*pid)), "one lives");
        Ok(())
    })
    .await?;
    let refused = primary.start().await.expect_err("it is switched off");
    ensure!(format!("{refused:#}").contains("switched off"), "it said {refused:#}");
    primary.switch_on()?;
    primary.start().await?;
    ensure!(primary.rows().await?.contains(&7));
    primary.stop().await?;
    primary.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_redis_pair_is_linked_and_closed_at_rest() -> Result<()> {
    let folder = folder()?;
    let keeper = Arc::new(Keeper::start("pair", folder.path())?);
    let (primary, standby) = redis_pair([&keeper, &keeper], folder.path(), &mut ports()?)?;
    primary.create_primary().await?;
    standby.create_standby(&primary).await?;
    primary.set("row:1", "1").await?;
    ensure!(standby.set("row:2", "1").await.is_err(), "a replica took a write");
    primary.kill_and_switch_off().await?;
    ensure!(primary.start().await.is_err(), "it is switched off");
    primary.switch_on()?;
    primary.start().await?;
    let refused = primary.set("row:3", "1").await.expect_err("it is closed at rest");
    ensure!(format!("{refused:#}").contains("NOREPLICAS"), "it said {refused:#}");
    primary.open().await?;
    primary.set("row:3", "1").await
}

#[tokio::test]
async fn a_writer_follows_the_name_to_a_standby_promoted_by_hand() -> Result<()> {
    let folder = folder()?;
    let mut ports = ports()?;
    let west = Arc::new(Keeper::start("west", &folder.path().join("west"))?);
    let east = Arc::new(Keeper::start("east", &folder.path().join("east"))?);
    let (primary, standby) = pair([&west, &east], folder.path(), &mut ports)?;
    let (cache, replica) = redis_pair([&west, &east], folder.path(), &mut ports)?;
    primary.create_primary().await?;
    cache.create_primary().await?;
    standby.create_standby(&primary).await?;
    replica.create_standby(&cache).await?;

    let port = ports.pick()?;
    for (keeper, postgres, redis) in [(&west, &primary, &cache), (&east, &standby, &replica)] {
        let address = postgres.address().0;
        let config = demo(folder.path(), port, postgres, redis)?;
        let command = [place::binary("regent-demo")?.display().to_string(), "start".into(), "--config".into(), config];
        keeper.run(Program::new(&format!("demo-{address}"), folder.path(), command), PATIENCE).await?;
    }
    let zone = Zone { name: "example.test.".into(), record: "app".into(), address: ADDRESSES[1] };
    let (knot, silent) = (Knot::start(&east, &folder.path().join("knot"), ports.pick()?, &zone).await?, ports.pick()?);

    // The first server never answers: a client asks the next.
    let servers = vec![SocketAddr::new(ADDRESSES[0], silent), knot.address()];
    let writer = Writer::start(WriterOptions::new("app.example.test.", port, servers))?;
    writer.acknowledged_anew(PATIENCE).await?;
    let count = west.kill_all().await?;
    ensure!(count > 5, "only {count} processes were killed");
    ensure!(west.processes().is_empty());

    let admin = standby.connect_as_agent().await?;
    admin.execute("SELECT pg_promote(false)", &[]).await?;
    wait::until("the end of recovery", PATIENCE, || async {
        ensure!(!standby.is_in_recovery().await?, "it is a standby");
        Ok(())
    })
    .await?;
    let mut connection = replica.connect_as_agent().await?;
    ::redis::cmd("REPLICAOF").arg("NO").arg("ONE").query_async::<()>(&mut connection).await?;
    replica.open().await?;
    knot.point_to("app", ADDRESSES[2]).await?;
    ensure!(IpAddr::V4(ask(knot.address(), "app.example.test.").await?.address) == ADDRESSES[2]);

    let first = writer.acknowledged_when("a write at the other side", PATIENCE, |row| row.by == ADDRESSES[2]).await?;
    let record = writer.stop().await?;
    let gap = record.longest_gap().expect("more than one was acknowledged");
    ensure!(gap.before.by == ADDRESSES[1] && gap.after.by == ADDRESSES[2], "the gap is elsewhere: {gap:?}");
    ensure!(gap.after.n <= first.n && gap.after.n == gap.before.n + 1, "numbers were left out");
    let rows = standby.rows().await?;
    let missing = record.missing(&rows);
    // Replication is asynchronous: what is missing can only be the last before the loss.
    ensure!(missing.iter().all(|n| *n <= gap.before.n), "missing {missing:?} after {}", gap.before.n);
    ensure!(rows.contains(&first.n));
    Ok(())
}

fn demo(folder: &Path, port: u16, postgres: &Postgres, redis: &Redis) -> Result<String> {
    let address = postgres.address().0;
    let config = DemoConfig {
        listen: SocketAddr::new(address, port),
        postgres: postgres.client_conninfo(),
        redis: redis.client_url(),
        pid_file: folder.join(format!("demo-{address}.pid")),
        log: folder.join(format!("demo-{address}.out")),
    };
    let path = folder.join(format!("demo-{address}.yaml"));
    place::write_secret(&path, &serde_saphyr::to_string(&config)?)?;
    Ok(path.display().to_string())
}

#[tokio::test]
async fn a_daemon_dies_with_its_keeper() -> Result<()> {
    let folder = folder()?;
    let keeper = Keeper::start("daemons", folder.path())?;
    let script = "setsid sh -c 'sleep 1000 & echo $! > daemon.pid; wait' & sleep 0.01";
    let program = Program::new("daemon", folder.path(), ["/bin/sh", "-c", script]);
    keeper.run(program, PATIENCE).await?;
    let daemon = daemon_of(folder.path()).await?;
    keeper.end().await?;
    ensure!(!tree::is_running(daemon), "it lives on");
    Ok(())
}

#[tokio::test]
async fn a_killed_keeper_ends_what_it_started_and_a_frozen_process_can_be_killed() -> Result<()> {
    let folder = folder()?;
    let keeper = Keeper::start("kept", folder.path())?;
    let one = keeper.spawn(Program::new("one", folder.path(), ["/bin/sleep", "1000"])).await?;
    let two = keeper.spawn(Program::new("two", folder.path(), ["/bin/sleep", "1000"])).await?;
    // A child is bound to its keeper's life by the program that then becomes it.
    wait::until("both programs", PATIENCE, || async {
        for process in [&one, &two] {
            ensure!(std::fs::read_link(format!("/proc/{}/exe", process.pid()))?.ends_with("sleep"), "not yet");
        }
        Ok(())
    })
    .await?;
    one.freeze();
    one.kill();
    ensure!(one.ended(PATIENCE).await? == Exit::Signal(Signal::SIGKILL as i32));
    kill(Pid::from_raw(keeper.mark().pid), Signal::SIGKILL)?;
    two.ended(PATIENCE).await?;
    wait::until("the end of the other", PATIENCE, || async {
        ensure!(!tree::is_running(two.pid()), "it lives on");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named() -> Result<()> {
    let folder = folder()?;
    let keeper = Keeper::start("names", folder.path())?;
    let error = keeper.run(Program::new("nothing", folder.path(), ["/does/not/exist"]), PATIENCE).await;
    let error = format!("{:#}", error.expect_err("there is no such program"));
    ensure!(error.contains("nothing") && error.contains("/does/not/exist"), "it said {error}");
    let error =
        keeper.run(Program::new("slow", folder.path(), ["/bin/sleep", "1000"]), Duration::from_millis(50)).await;
    ensure!(format!("{:#}", error.expect_err("it is slow")).contains("slow still runs"));
    Ok(())
}

#[tokio::test]
async fn a_detached_keeper_outlives_the_harness_until_it_is_ended() -> Result<()> {
    let folder = folder()?;
    let keeper = Keeper::start("left", folder.path())?;
    let process = keeper.spawn(Program::new("one", folder.path(), ["/bin/sleep", "1000"])).await?;
    let mark = keeper.detach().await?;
    ensure!(tree::is_running(process.pid()));
    mark.end().await?;
    wait::until("the end of what it kept", PATIENCE, || async {
        ensure!(!tree::is_running(process.pid()), "it lives on");
        Ok(())
    })
    .await?;
    // Ending what has ended is no mistake.
    mark.end().await
}

async fn daemon_of(folder: &Path) -> Result<Pid> {
    wait::until("the daemon", PATIENCE, || async {
        let pid = Pid::from_raw(std::fs::read_to_string(folder.join("daemon.pid"))?.trim().parse()?);
        if tree::is_running(pid) { Ok(pid) } else { bail!("it has ended") }
    })
    .await
}
