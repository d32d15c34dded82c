//! Switchovers there and back under clients that write through the DNS name and reconnect on error: nothing that was
//! acknowledged is lost or doubled, in however many rounds, with faults in every fifth.
//!
//! ```text
//!  clients ──► a row with a number of its own, never sent twice ──► PostgreSQL: a table without any constraint
//!                                                               └─► Redis: a list
//!  round    ──► switchover ──► (fault) ──► the run ends ──► protected again ──► every client has written ──► judged
//! ```
//!
//! One that is undone leaves the old primary serving: each of its clients is acknowledged again within a second after the undo
//! begins, where leader and agent are there for it, and none is kept out for longer than that and `maxWriteOutage`. In a round
//! with faults one is also refused, one aborted and one that cannot catch up in time.
//!
//! A fault strikes at a step that was drawn, and what it met is read from the run: where fewer than half met one that kept
//! writes out, nothing was tried, and the whole is broken.
//!
//! A row whose fate the client does not know is not sent again: so a row that is there twice was doubled by nobody but
//! the databases or those who move them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use regent_deploy::config::APPLICATION;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::world::World;

pub mod aim;
pub mod client;
pub mod fault;
pub mod ledger;
pub mod phases;
pub mod served;
pub mod trial;
pub mod undone;

use aim::Met;
use client::{Clients, Place};
use fault::{Fault, Pending};
use ledger::Ledger;
use phases::Phases;
use trial::{Trial, Tried};

/// For whatever must come to its end on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a side may take to follow by itself before an operator is asked.
const BY_ITSELF: Duration = Duration::from_secs(20);
/// For how long the document lets a switchover keep writes out, by its default.
const MAX_WRITE_OUTAGE: Duration = Duration::from_secs(30);

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// So many switchovers there and back.
    pub rounds: u32,
    /// So many clients; every fourth writes to Redis.
    pub clients: u32,
    /// Of the faults.
    pub seed: u64,
    /// A fault in every so many rounds; 0: none.
    pub fault_every: u32,
    /// From one row of a client to its next.
    pub pace: Duration,
    /// From a failure of a client to its next attempt.
    pub retry: Duration,
}

/// One switchover.
#[derive(Debug, Clone)]
pub struct Move {
    /// Of which round; the way there and the way back are one.
    pub round: u32,
    /// What was done to it.
    pub fault: Option<Fault>,
    /// Of which run.
    pub run: u64,
    /// What of the run the fault met.
    pub met: Option<Met>,
    /// How its run ended.
    pub status: String,
    /// From the last acknowledgement of the old side to the first of the new one; if it did not move, the longest time
    /// without one.
    pub outage: Duration,
    /// The longest time without an acknowledgement that any one client had.
    pub longest: Duration,
    /// If it was undone: from the beginning of that to the first row that the last of its clients had behind it.
    pub served_again: Option<Duration>,
    /// When what happened, against the last acknowledgement of the old side.
    pub phases: Option<Phases>,
    /// What the rejoin of PostgreSQL said.
    pub rejoined: String,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// In order.
    pub moves: Vec<Move>,
    /// Those that were not to be carried out, in order.
    pub tried: Vec<Tried>,
    /// Rows that were acknowledged; every one of them is there once.
    pub acknowledged: usize,
    /// Rows whose fate no client knew, and that are there.
    pub unknown: usize,
}

impl Played {
    /// Outages of switchovers that moved, without faults; sorted.
    #[must_use]
    pub fn outages(&self) -> Vec<Duration> {
        let calm = self.moves.iter().filter(|one| one.fault.is_none() && one.status == "succeeded");
        let mut outages: Vec<Duration> = calm.map(|one| one.outage).collect();
        outages.sort();
        outages
    }

    /// How many faults struck, and how many of them an open run that had begun to keep writes out.
    #[must_use]
    pub fn struck(&self) -> (usize, usize) {
        let met: Vec<&Met> = self.moves.iter().filter_map(|one| one.met.as_ref()).collect();
        (met.len(), met.iter().filter(|met| met.counts).count())
    }
}

/// The middle one.
#[must_use]
pub fn median(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Plays on a protected world; `tell` hears of every switchover.
///
/// # Errors
/// What was broken.
pub async fn play(world: &World, plan: Plan, tell: impl Fn(&Move)) -> Result<Played> {
    let mut dice = StdRng::seed_from_u64(plan.seed);
    let [west, central] =
        [world.regions().first(), world.regions().get(1)].map(|one| one.context("a region is missing"));
    let sides = [west?, central?];
    let mut ledger = Ledger::create(sides[0]).await?;
    let places = sides.iter().map(|side| Place::of(side)).collect::<Result<Vec<_>>>()?;
    let clients = Clients::start(world, &places, plan);
    clients.all_write(PATIENCE).await?;
    let mut played = Played::default();
    let first = epoch(world).await?;
    for round in 0..plan.rounds {
        let faulty = plan.fault_every > 0 && (round + 1).is_multiple_of(plan.fault_every);
        for _ in 0..2 {
            let from = primary(world, sides).await?;
            let to = if sides[0].name() == from.name() { sides[1] } else { sides[0] };
            let fault = faulty.then(|| Fault::draw(&mut dice));
            let fault = fault.map(|fault| (fault, aim::draw(&mut dice, fault)));
            let mut made = Box::pin(one(world, &clients, (from, to), fault)).await?;
            made.round = round + 1;
            tell(&made);
            ensure!(
                fault.is_some() || made.status == "succeeded",
                "the switchover of round {} was {}",
                made.round,
                made.status
            );
            if made.status == "undone" {
                // Where nothing was closed, nobody may have noticed.
                let served = made.served_again.unwrap_or(made.longest);
                // A client may have just paused.
                let bound = undone::bound(made.fault) + plan.pace + plan.retry;
                ensure!(
                    served <= bound && made.longest <= MAX_WRITE_OUTAGE + bound,
                    "the old primary served only {served:?} after the undo of round {} began, and a client wrote nothing for \
                     {:?} ({:?})",
                    made.round,
                    made.longest,
                    made.fault
                );
            }
            played.moves.push(made);
            let now = primary(world, sides).await?;
            ledger.judge(now, &clients.acknowledged()).await.with_context(|| format!("after round {}", round + 1))?;
        }
        if faulty {
            let from = primary(world, sides).await?;
            let to = if sides[0].name() == from.name() { sides[1] } else { sides[0] };
            for trial in Trial::ALL {
                let tried = Box::pin(trial::one(world, &clients, (from, to), plan, (round + 1, trial))).await;
                played.tried.push(tried.with_context(|| format!("{trial}, in round {}", round + 1))?);
            }
        }
    }
    let sheets = clients.stop().await?;
    let changes = epoch(world).await?.saturating_sub(first);
    let seen = ledger::changes(&sheets);
    ensure!(
        seen.len() as u64 <= changes,
        "the primary changed {changes} times, and acknowledgements changed over {} times: {seen:?}",
        seen.len()
    );
    let now = primary(world, sides).await?;
    let whole = ledger.judge_all(now, &sheets).await?;
    played.acknowledged = sheets.iter().map(|sheet| sheet.acknowledged.len()).sum();
    played.unknown = whole.saturating_sub(played.acknowledged);
    let (struck, met) = played.struck();
    ensure!(
        2 * met >= struck,
        "of {struck} faults only {met} struck an open run that kept writes out; the others say nothing: {:?}",
        played.moves.iter().filter_map(|one| one.met.as_ref()).collect::<Vec<_>>()
    );
    Ok(played)
}

/// Who is primary by what the group says.
async fn primary<'a>(world: &World, sides: [&'a Region; 2]) -> Result<&'a Region> {
    let name = wait::until("a status", PATIENCE, || async {
        Ok(world.ctl().status().await?.application(APPLICATION)?.primary.clone())
    })
    .await?;
    let found = sides.into_iter().find(|side| side.cluster().is_ok_and(|cluster| cluster.name == name));
    found.with_context(|| format!("the primary is {name:?}"))
}

/// The epoch of now: each change of the primary is one more.
async fn epoch(world: &World) -> Result<u64> {
    wait::until("a status", PATIENCE, || async { Ok(world.ctl().status().await?.application(APPLICATION)?.epoch) })
        .await
}

async fn one(
    world: &World,
    clients: &Clients,
    (from, to): (&Region, &Region),
    fault: Option<(Fault, &str)>,
) -> Result<Move> {
    let ctl = world.ctl();
    let name = to.cluster()?.name.clone();
    let before = ctl.runs().await?.first().map_or(0, |run| run.id);
    let begun = Instant::now();
    let ready = match fault {
        Some((fault, kind)) => Some((fault.ready(world, from, to).await?, kind)),
        None => None,
    };
    let mut words = vec!["switchover", APPLICATION, "--to", &name];
    if fault.is_none() {
        // One process follows the run: to ask again and again by another one takes a core from what is measured.
        words.push("--watch");
    }
    wait::until("the switchover to be taken", PATIENCE, || async {
        // An answer that was lost has begun it all the same.
        if ctl.runs().await?.first().is_some_and(|run| run.id > before) {
            return Ok(());
        }
        ctl.run(&words).await.map(drop)
    })
    .await?;
    let (pending, struck) = match ready {
        None => (Pending::default(), None),
        Some((ready, kind)) => {
            aim::reached(world, before, kind).await?;
            let struck = jiff::Timestamp::now();
            (ready.strike().await?, Some(struck))
        }
    };
    let ended = wait::until("the end of the run", PATIENCE, || async {
        pending.relieve(world).await?;
        let runs = ctl.runs().await?;
        let run = runs.iter().find(|run| run.id > before).context("there is no run")?;
        let ended = matches!(run.status().as_str(), "succeeded" | "undone" | "superseded" | "failed");
        ensure!(ended, "run {} is {}", run.id, run.status());
        Ok(run.clone())
    })
    .await;
    let run = match ended {
        Ok(run) => run,
        Err(error) => {
            let newest = ctl.runs().await?.first().context("there is no run")?.id;
            return Err(error.context(ctl.run(&["runs", &newest.to_string()]).await?));
        }
    };
    pending.relieve_all(world).await?;
    settle(world, [from, to]).await?;
    clients.all_write(PATIENCE).await?;
    let sheets = clients.acknowledged();
    let [old, new] = [from.cluster()?.address, to.cluster()?.address];
    let gap = ledger::gap(&sheets, begun, old, new).context("nothing was acknowledged")?;
    let text = ctl.run(&["runs", &run.id.to_string(), "-o", "json"]).await?;
    let served_again = if run.status() == "undone" {
        let audit = ctl.run(&["audit", APPLICATION, "--limit", "1000", "-o", "json"]).await?;
        undone::served_after(&text, &audit, &sheets)?
    } else {
        None
    };
    let met = match (fault, struck) {
        (Some((fault, _)), Some(struck)) => Some(aim::met(&text, struck, fault.lasts())?),
        (None, _) | (_, None) => None,
    };
    let phases = (gap.moved).then(|| phases::read(&text, gap.last.wall(), gap.first.wall())).transpose()?;
    let rejoined =
        run.steps.iter().find(|step| step.kind == "rejoin" && step.resource == regent_deploy::config::DATABASE);
    Ok(Move {
        round: 0,
        fault: fault.map(|(fault, _)| fault),
        run: run.id,
        met,
        status: run.status(),
        outage: gap.first.at.duration_since(gap.last.at),
        longest: served::longest_gap(&sheets, begun)?,
        served_again,
        phases,
        rejoined: rejoined.map(|step| step.message().to_owned()).unwrap_or_default(),
    })
}

/// Protected again, whoever is primary now: by itself, else by an operator.
async fn settle(world: &World, sides: [&Region; 2]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut asked: Option<Instant> = Some(Instant::now());
    loop {
        let now = primary(world, sides).await?;
        let other = if sides[0].name() == now.name() { sides[1] } else { sides[0] };
        let error = match tokio::time::timeout(Duration::from_secs(3), world.protected(now, other)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error,
            Err(_) => anyhow::anyhow!("it is not protected yet"),
        };
        if Instant::now() > deadline {
            let status = world.ctl().run(&["status"]).await.unwrap_or_default();
            bail!("{error:#}\n{status}");
        }
        if asked.is_some_and(|at| at.elapsed() > BY_ITSELF) {
            asked = Some(Instant::now());
            let name = other.cluster()?.name.clone();
            // Refused while a run is under way, which is as good.
            let _ = world.ctl().run(&["rejoin", APPLICATION, &name, "--detach"]).await;
        }
    }
}

/// The cluster that has this address.
#[must_use]
pub fn side_of(world: &World, address: IpAddr) -> Option<&Region> {
    world.regions().iter().find(|region| region.cluster().is_ok_and(|cluster| cluster.address == address))
}
