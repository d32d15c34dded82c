//! Random faults from a seed, on a stage; then everything is healed, must serve again, and is judged.
//!
//! One fault of a process and one of the network at a time, and what was killed is started again before the next begins:
//! that is what is promised for. (An agent *and* its guard that both stand still leave nobody to fence; see the README.)

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use regent_deploy::net::Net;
use regent_deploy::region::Region;

use crate::crew::{Sheet, Way};
use crate::stage::{ALL, NORTH, Stage};

mod plan;

pub use plan::{Act, Fault, Plan};

const PATIENCE: Duration = Duration::from_secs(90);

/// What became of one round.
#[derive(Debug)]
pub struct Round {
    /// What was done.
    pub plan: Plan,
    /// How often the primary changed.
    pub changes: u64,
    /// Acknowledged rows of all writers.
    pub acknowledged: usize,
    /// The longest time in which nobody could write through the name from the witness's region.
    pub away: Duration,
}

/// Plays the faults of a seed.
///
/// # Errors
/// A promise was broken, it does not serve again, or the stage could not be set; with the plan.
pub async fn round(net: Net, seed: u64) -> Result<Round> {
    let plan = Plan::of(seed);
    let told = format!("seed {seed}: {plan:?}");
    let mut stage = Stage::start(net, plan.failover_after).await.context("the stage")?;
    stage.cut_off_from_now();
    let played = play(&stage, &plan).await;
    let played = match played {
        Ok(changes) => stage.judge().await.map(|sheets| (changes, sheets)),
        Err(error) => Err(error),
    };
    let (changes, sheets) = played.context(told)?;
    let acknowledged = sheets.iter().map(|sheet| sheet.record.acknowledged.len()).sum();
    Ok(Round { plan, changes, acknowledged, away: away(&sheets) })
}

async fn play(stage: &Stage, plan: &Plan) -> Result<u64> {
    for act in &plan.acts {
        begin(stage, act.process).await?;
        stage
            .weather(|weather| match act.network {
                None => {}
                Some((region, link)) => weather.around(region, &ALL, link),
            })
            .await?;
        tokio::time::sleep(act.lasts).await;
        stage.weather(|weather| weather.clear()).await?;
        end(stage, act.process).await?;
        tokio::time::sleep(act.rest).await;
    }
    stage.serves(NORTH, PATIENCE).await.context("L1: everything is healed, and nobody serves")?;
    stage.crew.keeps_writing(NORTH, Way::Name, plan.failover_after * 4, plan.failover_after * 2).await?;
    stage.changes().await
}

async fn begin(stage: &Stage, fault: Option<Fault>) -> Result<()> {
    let Some(fault) = fault else { return Ok(()) };
    let region = stage.region(fault.region());
    match fault {
        Fault::KillCoordinator(_) => region.coordinator().kill().await,
        Fault::FreezeCoordinator(_) => signal(region.coordinator().process().map(|it| it.pid()), Signal::SIGSTOP),
        Fault::KillAgent(_) => region.cluster()?.agent.kill().await,
        Fault::FreezeAgent(_) => signal(region.cluster()?.agent.process().map(|it| it.pid()), Signal::SIGSTOP),
        Fault::KillGuard(_) => signal(region.guard(), Signal::SIGKILL),
        Fault::FreezeGuard(_) => signal(region.guard(), Signal::SIGSTOP),
        Fault::KillPostgres(_) => region.cluster()?.postgres.kill_and_switch_off().await,
        Fault::KillRedis(_) => region.cluster()?.redis.kill_and_switch_off().await,
        Fault::FreezePostgres(_) => {
            region.cluster()?.postgres.freeze();
            Ok(())
        }
        Fault::FreezeRedis(_) => {
            region.cluster()?.redis.freeze();
            Ok(())
        }
        Fault::LoseRegion(_) => region.lose().await.map(|_| ()),
    }
}

async fn end(stage: &Stage, fault: Option<Fault>) -> Result<()> {
    let Some(fault) = fault else { return Ok(()) };
    let region = stage.region(fault.region());
    match fault {
        Fault::KillCoordinator(_) => region.start_coordinator().await,
        Fault::FreezeCoordinator(_) => signal(region.coordinator().process().map(|it| it.pid()), Signal::SIGCONT),
        Fault::KillAgent(_) => region.start_agent().await,
        Fault::FreezeAgent(_) => signal(region.cluster()?.agent.process().map(|it| it.pid()), Signal::SIGCONT),
        Fault::KillGuard(_) => Ok(()),
        Fault::FreezeGuard(_) => signal(region.guard(), Signal::SIGCONT),
        Fault::KillPostgres(_) | Fault::KillRedis(_) | Fault::FreezePostgres(_) | Fault::FreezeRedis(_) => {
            start_databases(region).await
        }
        Fault::LoseRegion(_) => {
            region.give_back()?;
            if region.has_cluster() {
                start_databases(region).await?;
            }
            region.start_coordinator().await?;
            if region.has_cluster() { region.start_agent().await } else { Ok(()) }
        }
    }
}

/// As somebody would who finds them down: closed at rest, whoever starts them.
async fn start_databases(region: &Region) -> Result<()> {
    let cluster = region.cluster()?;
    cluster.postgres.thaw();
    cluster.redis.thaw();
    cluster.postgres.switch_on()?;
    cluster.redis.switch_on()?;
    cluster.postgres.start().await?;
    cluster.redis.start().await
}

/// A process that is gone is as good as one that got the signal.
fn signal(pid: Option<nix::unistd::Pid>, signal: Signal) -> Result<()> {
    if let Some(pid) = pid {
        let _gone = kill(pid, signal);
    }
    Ok(())
}

fn away(sheets: &[Sheet]) -> Duration {
    let witness = sheets.iter().filter(|sheet| sheet.region == NORTH);
    let gaps = witness.filter_map(|sheet| sheet.record.longest_gap());
    gaps.map(|gap| gap.length()).max().unwrap_or_default()
}
