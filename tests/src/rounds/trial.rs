//! Switchovers that are not carried out, and leave the old primary serving within a second: one is refused, one is aborted by
//! an operator in its middle, one runs out of its time since the standby does not replay. What counts is what each client
//! saw, by its own clock: no stamp of Regent's is read.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, DATABASE};
use regent_deploy::ctl::Ctl;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::world::World;

use super::client::Clients;
use super::undone::AT_ONCE;
use super::{PATIENCE, Plan, served, settle};

/// What the one that runs out of time is given.
const WRITE_OUTAGE: Duration = Duration::from_secs(1);

/// How a switchover ends that is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// It does not begin.
    Refused,
    /// An operator ends it while nobody can write.
    Aborted,
    /// The standby does not catch up within what is allowed.
    OutOfTime,
}

impl Trial {
    /// In their order.
    pub const ALL: [Self; 3] = [Self::Refused, Self::Aborted, Self::OutOfTime];
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Aborted => "aborted",
            Self::OutOfTime => "out of time",
        })
    }
}

/// What came of one.
#[derive(Debug, Clone, Copy)]
pub struct Tried {
    /// Of which round.
    pub round: u32,
    /// Which.
    pub trial: Trial,
    /// Of the client that was without an acknowledgement for the longest time: after the word of the abort, else in all.
    pub without: Duration,
    /// What is allowed.
    pub bound: Duration,
}

/// Tries it on a protected world, and leaves one.
///
/// # Errors
/// It came to another end, or a client was without an acknowledgement for too long.
pub async fn one(
    world: &World,
    clients: &Clients,
    (from, to): (&Region, &Region),
    plan: Plan,
    (round, trial): (u32, Trial),
) -> Result<Tried> {
    // A client may have just paused.
    let slack = plan.pace + plan.retry;
    let (without, bound) = match trial {
        Trial::Refused => (refused(world, clients, to).await?, AT_ONCE),
        Trial::Aborted => (aborted(world, clients, to).await?, AT_ONCE),
        Trial::OutOfTime => (out_of_time(world, clients, to).await?, WRITE_OUTAGE + AT_ONCE),
    };
    settle(world, [from, to]).await?;
    let tried = Tried { round, trial, without, bound: bound + slack };
    ensure!(tried.without <= tried.bound, "a client was left without its primary: {tried:?}");
    Ok(tried)
}

async fn refused(world: &World, clients: &Clients, to: &Region) -> Result<Duration> {
    let (ctl, begun) = (world.ctl(), Instant::now());
    let (before, name) = (newest(ctl).await?, &to.cluster()?.name);
    ctl.run(&["hold", APPLICATION, "--reason", "a refusal is tried"]).await?;
    let answer = ctl.run(&["switchover", APPLICATION, "--to", name]).await;
    ctl.run(&["unhold", APPLICATION]).await?;
    let Err(error) = answer else { anyhow::bail!("a held application was moved") };
    let said = format!("{error:#}");
    ensure!(said.contains("exit status: 3") && said.contains("held"), "it said {said}");
    ensure!(newest(ctl).await? == before, "a refused switchover began a run");
    clients.all_write(PATIENCE).await?;
    served::longest_gap(&clients.acknowledged(), begun)
}

async fn aborted(world: &World, clients: &Clients, to: &Region) -> Result<Duration> {
    let (ctl, begun) = (world.ctl(), without_replay(world, to, &[]).await?);
    let run = wait::until("the catch-up", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.iter().find(|run| run.id > begun.before).context("there is no run")?;
        let mut steps = run.steps.iter().filter(|step| step.kind == "catchUp" && step.resource == DATABASE);
        ensure!(steps.any(|step| step.state() == "running"), "run {} is {}", run.id, run.status());
        Ok(run.id.to_string())
    })
    .await?;
    let word = Instant::now();
    ctl.run(&["abort", &run, "--reason", "an abort is tried"]).await?;
    begun.is_undone(world, to).await?;
    clients.all_write(PATIENCE).await?;
    served::after(&clients.acknowledged(), word)
}

async fn out_of_time(world: &World, clients: &Clients, to: &Region) -> Result<Duration> {
    let allowed = format!("{}s", WRITE_OUTAGE.as_secs());
    let begun = without_replay(world, to, &["--max-write-outage", &allowed]).await?;
    begun.is_undone(world, to).await?;
    clients.all_write(PATIENCE).await?;
    served::longest_gap(&clients.acknowledged(), begun.at)
}

/// A switchover that cannot catch up.
struct Begun {
    before: u64,
    at: Instant,
}

/// Begins one that would start, and stops the replay of the new side right before.
async fn without_replay(world: &World, to: &Region, options: &[&str]) -> Result<Begun> {
    let (ctl, cluster) = (world.ctl(), to.cluster()?);
    let move_there = ["switchover", APPLICATION, "--to", &cluster.name];
    let words = [&move_there[..], options].concat();
    // Whether it would start does not depend on the options.
    let dry = [&move_there[..], &["--dry-run"]].concat();
    wait::until("a switchover that would start", PATIENCE, || async { ctl.run(&dry).await.map(drop) }).await?;
    let before = newest(ctl).await?;
    let session = cluster.postgres.connect_as_agent().await?;
    session.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    let at = Instant::now();
    if let Err(error) = ctl.run(&words).await {
        session.execute("SELECT pg_wal_replay_resume()", &[]).await?;
        return Err(error.context("it was to begin"));
    }
    Ok(Begun { before, at })
}

impl Begun {
    /// It has been undone, and the standby replays again.
    async fn is_undone(&self, world: &World, to: &Region) -> Result<()> {
        let ended = wait::until("the end of the run", PATIENCE, || async {
            let runs = world.ctl().runs().await?;
            let run = runs.iter().find(|run| run.id > self.before).context("there is no run")?;
            ensure!(run.is_over(), "run {} is {}", run.id, run.status());
            Ok((run.id, run.status()))
        })
        .await;
        let session = to.cluster()?.postgres.connect_as_agent().await?;
        session.execute("SELECT pg_wal_replay_resume()", &[]).await?;
        let (run, status) = ended?;
        ensure!(status == "undone", "run {run} was to be undone and is {status}");
        Ok(())
    }
}

async fn newest(ctl: &Ctl) -> Result<u64> {
    Ok(ctl.runs().await?.first().map_or(0, |run| run.id))
}
