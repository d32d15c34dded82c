//! Random faults from a seed, on a stage; then everything is healed, must serve again, and is judged.
//!
//! One fault of a process, a disk or a clock and one of the network at a time, and what died is started again before the
//! next begins: that is what is promised for. (An agent *and* its guard that are dead or stand still at once leave nobody to
//! fence; see `SAFETY.md`.) In between an operator mends what the faults have left, and moves the primary by plan.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::net::{Net, Weather};
use regent_deploy::wait;

use crate::crew::{Sheet, Way};
use crate::stage::{ALL, CENTRAL, NORTH, Stage, WEST};

mod fault;
mod plan;

pub use plan::{Act, Disk, Fault, Network, Plan, Ways};

const PATIENCE: Duration = Duration::from_secs(90);
/// A pair that nothing has happened to is protected by then.
const SOON: Duration = Duration::from_secs(5);
/// An operator waits so long for one that was brought back, before giving up for now.
const PROTECTED: Duration = Duration::from_secs(30);

/// What became of one round.
#[derive(Debug)]
pub struct Round {
    /// What was done.
    pub plan: Plan,
    /// How often the primary changed.
    pub changes: u64,
    /// How often by plan.
    pub switchovers: u64,
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
    let start = Stage::start_with(net, plan.failover_after, |options| {
        options.disks.extend(plan.disks().map(|(folder, megabytes)| (folder.into(), megabytes)));
        options.wall_clocks = plan.steps_a_clock();
    });
    let mut stage = start.await.context("the stage")?;
    let played = match play(&mut stage, &plan).await {
        Ok(played) => stage.judge().await.map(|sheets| (played, sheets)),
        Err(error) => Err(error),
    };
    let ((changes, switchovers), sheets) = played.context(told)?;
    let acknowledged = sheets.iter().map(|sheet| sheet.record.acknowledged.len()).sum();
    Ok(Round { plan, changes, switchovers, acknowledged, away: away(&sheets) })
}

/// How often the primary changed, and how often by plan.
async fn play(stage: &mut Stage, plan: &Plan) -> Result<(u64, u64)> {
    let mut switchovers = 0;
    for act in &plan.acts {
        stage.cut_off_from_now();
        let held = fault::begin(stage, act.fault).await?;
        stage.weather(|weather| act.network.iter().for_each(|network| blow(weather, *network))).await?;
        tokio::time::sleep(act.lasts).await;
        stage.weather(|weather| weather.clear()).await?;
        fault::end(stage, act.fault, held).await?;
        tokio::time::sleep(act.rest).await;
        fault::start_what_died(stage, act.fault).await?;
        if act.switchover && switched_over(stage).await.with_context(|| format!("the switchover after {act:?}"))? {
            switchovers += 1;
        }
    }
    stage.serves(NORTH, PATIENCE).await.context("L1: everything is healed, and nobody serves")?;
    stage.crew.keeps_writing(NORTH, Way::Name, plan.failover_after * 4, plan.failover_after * 2).await?;
    Ok((stage.changes().await?, switchovers))
}

fn blow(weather: &mut Weather, Network { region, link, ways }: Network) {
    for other in ALL.into_iter().filter(|other| *other != region) {
        match ways {
            Ways::Both => weather.between(region, other, link),
            Ways::Out => weather.one_way(region, other, link),
            Ways::In => weather.one_way(other, region, link),
        }
    }
}

/// Brings back the side that a failover has left, and moves the primary to the other side; false if the pair does not come
/// to be protected, which is no promise, or the switchover is refused.
async fn switched_over(stage: &Stage) -> Result<bool> {
    stage.serves(NORTH, PATIENCE).await.context("L1: everything is healed, and nobody serves")?;
    let ctl = stage.world.ctl();
    // A group that has just been healed may be without a leader for a moment.
    let application = wait::until("a group that answers", PATIENCE, || stage.application()).await?;
    let primary = application.primary;
    let [west, central] = [WEST, CENTRAL].map(|region| stage.region(region));
    let (from, to) = if west.cluster()?.name == primary { (west, central) } else { (central, west) };
    let name = &to.cluster()?.name;
    let protected = async |within| {
        tokio::time::timeout(within, stage.world.protected(from, to)).await.is_ok_and(|protected| protected.is_ok())
    };
    if !protected(SOON).await {
        // Refused where there is nothing to acknowledge, or nothing to bring back.
        for words in [&["ack", APPLICATION][..], &["ack", "--all"], &["rejoin", APPLICATION, name, "--reclone"]] {
            let _refused = ctl.run(words).await;
        }
        if !protected(PROTECTED).await {
            return Ok(false);
        }
    }
    let before = wait::until("the runs", PATIENCE, || ctl.runs()).await?.first().map_or(0, |run| run.id);
    if ctl.run(&["switchover", APPLICATION, "--to", name]).await.is_err() {
        return Ok(false);
    }
    wait::until("the end of the switchover", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.iter().rev().find(|run| run.id > before).context("it has not begun")?;
        ensure!(run.is_over(), "run {} is {}", run.id, run.status());
        Ok(run.status() == "succeeded")
    })
    .await
}

fn away(sheets: &[Sheet]) -> Duration {
    let witness = sheets.iter().filter(|sheet| sheet.region == NORTH);
    let gaps = witness.filter_map(|sheet| sheet.record.longest_gap());
    gaps.map(|gap| gap.length()).max().unwrap_or_default()
}
