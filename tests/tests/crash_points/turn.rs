//! One run with one crash in it, and the comparison with what a run without one does.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use regent_deploy::config::APPLICATION;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_tests::alone;
use regent_tests::crew::Way;
use regent_tests::gate::{Gate, Mark};
use regent_tests::scratch;
use regent_tests::stage::{NORTH, Stage};

use super::effects::{Copies, Effects};
use super::plan::{Kind, Point, Victim};
use super::rebuilt::Rebuilt;

const PATIENCE: Duration = Duration::from_secs(60);

/// True if the primary has moved.
pub(crate) async fn turn(stage: &mut Stage, gate: &Gate, point: Point, sides: [usize; 2]) -> Result<bool> {
    match point.kind {
        Kind::Switchover | Kind::Quiesced => switchover(stage, gate, point, sides).await.map(|()| true),
        Kind::Undo => undo(stage, gate, point, sides).await.map(|()| false),
        Kind::Drill => drill(stage, gate, point, sides).await.map(|()| false),
        Kind::Failover | Kind::Loss | Kind::Rejoin => failover(stage, gate, point, sides).await.map(|()| true),
    }
}

async fn switchover(stage: &Stage, gate: &Gate, point: Point, [from, to]: [usize; 2]) -> Result<()> {
    let (before, newest) = (settled(stage, from).await?, newest_run(stage).await?);
    let rebuilt = Rebuilt::so_far(stage).await?;
    gate.close(&mark(point, newest))?;
    begin_switchover(stage, to, &[], newest).await?;
    crash(stage, gate, point, [from, to]).await?;
    run_ends(stage, newest, "succeeded").await?;
    same(stage, to, moved(before, point)).await?;
    stage.world.protected(stage.region(to), stage.region(from)).await?;
    Rebuilt::counted(stage)?.repeats_nothing(point, rebuilt)?;
    // It is told to stop, and nobody waits for that; the next run finds it stopped.
    stage.world.stop_service(stage.region(from)).await
}

async fn undo(stage: &Stage, gate: &Gate, point: Point, [from, to]: [usize; 2]) -> Result<()> {
    let (before, newest) = (settled(stage, from).await?, newest_run(stage).await?);
    let standby = stage.region(to).cluster()?.postgres.connect_as_agent().await?;
    standby.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    gate.close(&mark(point, newest))?;
    begin_switchover(stage, to, &["--max-write-outage", "1s"], newest).await?;
    crash(stage, gate, point, [from, to]).await?;
    run_ends(stage, newest, "undone").await?;
    standby.execute("SELECT pg_wal_replay_resume()", &[]).await?;
    stage.crew.writes_to(NORTH, &stage.world, from, PATIENCE).await?;
    same(stage, from, before).await?;
    stage.world.protected(stage.region(from), stage.region(to)).await
}

/// Nothing real notices, every copy is taken once, and nothing is left.
async fn drill(stage: &Stage, gate: &Gate, point: Point, [from, to]: [usize; 2]) -> Result<()> {
    let (before, newest) = (settled(stage, from).await?, newest_run(stage).await?);
    let standby = stage.region(to).cluster()?;
    let copies = Copies::so_far(stage.region(to)).await?;
    gate.close(&mark(point, newest))?;
    accepted(stage, &["drill", APPLICATION, "--in", &standby.name], newest).await?;
    crash(stage, gate, point, [from, to]).await?;
    run_ends(stage, newest, "succeeded").await?;
    same(stage, from, before).await?;
    scratch::is_empty(stage.region(to))?;
    let (found, wanted) = (Copies::counted(standby)?, copies.after_a_drill());
    ensure!(found == wanted, "one drill takes one copy of each: {wanted:?}, and not {found:?}");
    stage.world.protected(stage.region(from), stage.region(to)).await
}

/// A failover, and the rejoin of the side that was left.
async fn failover(stage: &mut Stage, gate: &Gate, point: Point, sides: [usize; 2]) -> Result<()> {
    let [from, to] = sides;
    let (before, newest) = (settled(stage, from).await?, newest_run(stage).await?);
    let rebuilt = Rebuilt::so_far(stage).await?;
    stage.cut_off_from_now();
    let in_rejoin = point.kind == Kind::Rejoin;
    if !in_rejoin {
        gate.close(&mark(point, newest))?;
    }
    fails(stage, point.kind, sides).await?;
    if !in_rejoin {
        crash(stage, gate, point, sides).await?;
    }
    run_ends(stage, newest, "succeeded").await?;
    stage.crew.writes_to(NORTH, &stage.world, to, PATIENCE).await?;
    same(stage, to, moved(before, point)).await?;

    if point.kind == Kind::Loss {
        stage.bring_back(from).await?;
    } else {
        let left = stage.region(from).cluster()?;
        left.postgres.switch_on()?;
        left.postgres.start().await?;
        if in_rejoin {
            left.redis.switch_on()?;
            left.redis.start().await?;
        }
    }
    let (before, newest) = (settled(stage, to).await?, newest_run(stage).await?);
    if in_rejoin {
        gate.close(&mark(point, newest))?;
    }
    let name = stage.region(from).cluster()?.name.clone();
    accepted(stage, &["rejoin", APPLICATION, &name, "--reclone"], newest).await?;
    if in_rejoin {
        crash(stage, gate, point, sides).await?;
    }
    run_ends(stage, newest, "succeeded").await?;
    stage.world.protected(stage.region(to), stage.region(from)).await?;
    same(stage, to, before).await?;
    Rebuilt::counted(stage)?.repeats_nothing(point, rebuilt)?;
    stage.world.stop_service(stage.region(from)).await?;
    // The next failover is looked at as if it were the first: neither cool-down nor the limit of failovers within an hour.
    stage.world.ctl().run(&["ack", APPLICATION]).await?;
    stage.world.ctl().run(&["ack", "--all"]).await?;
    Ok(())
}

/// What there is when the primary has moved.
fn moved(before: Effects, point: Point) -> Effects {
    let moved = before.after_a_move();
    if point.repeats_a_command() { moved.with_one_more_command() } else { moved }
}

/// What the failover is from.
async fn fails(stage: &Stage, kind: Kind, [from, to]: [usize; 2]) -> Result<()> {
    let left = stage.region(from);
    if kind == Kind::Loss {
        left.lose().await?;
        return Ok(());
    }
    let cluster = left.cluster()?;
    if kind != Kind::Rejoin {
        return cluster.postgres.kill_and_switch_off().await;
    }
    // So that its rejoin has something to give up: rows that the other side never gets, and a Redis that has lost the name of
    // its history.
    alone::has(stage, from, to).await?;
    cluster.postgres.kill_and_switch_off().await?;
    cluster.redis.kill_and_switch_off().await
}

/// What there is before a run, once every coordinator shows the same.
async fn settled(stage: &Stage, primary: usize) -> Result<Effects> {
    wait::until("a world at rest", PATIENCE, || Effects::so_far(stage, stage.region(primary))).await
}

async fn same(stage: &Stage, primary: usize, wanted: Effects) -> Result<()> {
    let found = settled(stage, primary).await?;
    ensure!(found == wanted, "without the crash it is {wanted:?}, with it {found:?}");
    Ok(())
}

const fn mark(point: Point, newest: u64) -> Mark {
    Mark { after_run: newest, step: point.step, place: point.place }
}

async fn newest_run(stage: &Stage) -> Result<u64> {
    wait::until("the runs", PATIENCE, || async { Ok(stage.world.ctl().runs().await?.first().map_or(0, |run| run.id)) })
        .await
}

async fn begin_switchover(stage: &Stage, to: usize, more: &[&str], newest: u64) -> Result<()> {
    let name = stage.region(to).cluster()?.name.clone();
    accepted(stage, &[&["switchover", APPLICATION, "--to", &name], more].concat(), newest).await
}

/// A command that begins a run. A refusal may be of the moment; and who is asked may be stopped before it answers.
async fn accepted(stage: &Stage, words: &[&str], newest: u64) -> Result<()> {
    wait::until("the beginning of the run", PATIENCE, || async {
        let told = tokio::time::timeout(Duration::from_secs(2), stage.world.ctl().run(words)).await;
        match told {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) if newest_run(stage).await? == newest => Err(error),
            Ok(Err(_)) => Ok(()),
        }
    })
    .await
}

/// Kills whom the point names while the step is held there, as a supervisor has them started again, and lets it go on.
async fn crash(stage: &Stage, gate: &Gate, point: Point, [from, to]: [usize; 2]) -> Result<()> {
    let held = match gate.holds(PATIENCE).await {
        Ok(held) => held,
        Err(error) => {
            let newest = newest_run(stage).await?.to_string();
            let why = stage.world.ctl().run(&["why", APPLICATION]).await?;
            let run = stage.world.ctl().run(&["runs", &newest]).await?;
            return Err(error.context(format!("{why}\n{run}")));
        }
    };
    let acting = stage.region(if point.at_old_side { from } else { to });
    let leader = if point.place.is_the_leaders() { of_process(stage, held)? } else { leader(stage).await? };
    let leads = matches!(point.victim, Victim::Leader | Victim::Both);
    if leads {
        leader.coordinator().kill().await?;
    }
    if matches!(point.victim, Victim::Agent | Victim::Both) {
        acting.cluster()?.agent.kill().await?;
    }
    if point.victim == Victim::Nobody {
        hand_over(stage, leader).await?;
    }
    if leads && quorum_without(stage, leader) {
        another_leads(stage, leader).await?;
    }
    gate.open()?;
    let agent_died = !acting.cluster()?.agent.process().is_some_and(|process| process.is_running());
    let (agent, coordinator) =
        tokio::join!(async { if agent_died { acting.start_agent().await } else { Ok(()) } }, async {
            if leads { leader.start_coordinator().await } else { Ok(()) }
        },);
    agent.and(coordinator)
}

fn of_process(stage: &Stage, pid: Pid) -> Result<&Region> {
    let is_it = |region: &&Region| region.coordinator().process().is_some_and(|process| process.pid() == pid);
    stage.world.regions().iter().find(is_it).context("no coordinator stands at the gate")
}

async fn leader(stage: &Stage) -> Result<&Region> {
    wait::until("a leader", PATIENCE, || async {
        let id = stage.world.ctl().status().await?.leader();
        stage.world.regions().iter().find(|region| region.place().id == id).context("nobody leads")
    })
    .await
}

fn quorum_without(stage: &Stage, gone: &Region) -> bool {
    let lives = |region: &&Region| {
        region.name() != gone.name() && region.coordinator().process().is_some_and(|process| process.is_running())
    };
    stage.world.regions().iter().filter(lives).count() >= 2
}

async fn another_leads(stage: &Stage, gone: &Region) -> Result<()> {
    wait::until("another leader", PATIENCE, || async {
        let leader = stage.world.ctl().status().await?.leader();
        ensure!(leader != 0 && leader != gone.place().id, "coordinator {leader} leads");
        Ok(())
    })
    .await
}

/// Another coordinator leads, and commands at once whatever runs.
async fn hand_over(stage: &Stage, leader: &Region) -> Result<()> {
    let lives = |region: &&Region| {
        region.name() != leader.name() && region.coordinator().process().is_some_and(|process| process.is_running())
    };
    let other = stage.world.regions().iter().find(lives).context("nobody else lives")?.place().id.to_string();
    wait::until("a change of leaders", PATIENCE, || async {
        // Refused where it has already happened.
        let told = stage.world.ctl().run(&["members", "transfer-leader", &other]).await;
        let now = stage.world.ctl().status().await?.leader();
        ensure!(now != 0 && now != leader.place().id, "coordinator {now} leads: {told:?}");
        Ok(())
    })
    .await
}

async fn run_ends(stage: &Stage, after: u64, wanted: &str) -> Result<()> {
    let ended = wait::until("the end of the run", PATIENCE, || async {
        let runs = stage.world.ctl().runs().await?;
        let newer: Vec<_> = runs.iter().filter(|run| run.id > after).collect();
        let [run] = newer[..] else { bail!("there are {} runs", newer.len()) };
        ensure!(run.status() == wanted, "run {} is {}", run.id, run.status());
        Ok(())
    })
    .await;
    let Err(error) = ended else { return Ok(()) };
    let newest = newest_run(stage).await?.to_string();
    let told = stage.world.ctl().run(&["runs", &newest]).await?;
    let writes = stage.crew.record(NORTH, Way::Name)?.last_error;
    Err(error.context(format!("{told}\nlast refusal of a client: {writes:?}")))
}
