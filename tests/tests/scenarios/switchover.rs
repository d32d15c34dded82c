//! A planned switchover there and back under clients that write through the name: no acknowledged row is lost, no two
//! sides acknowledge in overlapping time, and one that cannot be done leaves the old primary serving.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::writer::{Record, Writer, WriterOptions};
use regent_tests::rounds::trial::Trial;
use regent_tests::rounds::{Plan, median, play};

use super::scene::Scene;

const CLIENTS: i64 = 8;
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// From one row of a client to its next.
const PACE: Duration = Duration::from_millis(5);

/// The write outage at the median of 24 clients, several times what it is on two cores in a debug build: whatever else the
/// machine does, only a step that waits for something it did not wait for takes so long.
const USUAL: Duration = Duration::from_millis(1500);

/// Clients with numbers of their own.
pub(crate) struct Clients(Vec<Writer>, Duration);

impl Clients {
    pub(crate) async fn start(scene: &Scene) -> Result<Self> {
        let client = |number| {
            let first = number * 1_000_000 + 1;
            Writer::start(WriterOptions { first, pace: PACE, ..scene.world.writer() })
        };
        // A request that meets a paused database is given up, and sent anew.
        let pause = PACE + scene.world.writer().timeout;
        let clients = Self((0..CLIENTS).map(client).collect::<Result<_>>()?, pause);
        clients.all_write(None).await?;
        Ok(clients)
    }

    /// Each of them has a row acknowledged that it sends from now on, by this side if one is named.
    pub(crate) async fn all_write(&self, side: Option<&Region>) -> Result<()> {
        let by = side.map(Region::cluster).transpose()?.map(|cluster| cluster.address);
        let now = Instant::now();
        let each = self.0.iter().map(|writer| {
            writer.acknowledged_when("a row of each client", PATIENCE, move |row| {
                row.sent > now && by.is_none_or(|by| row.by == by)
            })
        });
        futures::future::try_join_all(each).await?;
        Ok(())
    }

    /// All that was acknowledged, in the order of its acknowledgement.
    pub(crate) fn record(&self) -> Record {
        let mut all = Record::default();
        for writer in &self.0 {
            all.acknowledged.extend(writer.record().acknowledged);
        }
        all.acknowledged.sort_by_key(|row| row.at);
        all
    }

    /// For how long a client may wait by itself.
    pub(crate) const fn pause(&self) -> Duration {
        self.1
    }

    /// From then until each of them had its first row acknowledged, and the longest.
    pub(crate) fn served_after(&self, word: Instant) -> Result<Duration> {
        let first = |writer: &Writer| {
            let record = writer.record();
            let row = record.acknowledged.iter().find(|row| row.at > word);
            row.map(|row| row.at - word).context("a client has no row since")
        };
        let each = self.0.iter().map(first).collect::<Result<Vec<_>>>()?;
        each.into_iter().max().context("no client")
    }

    /// The longest time without an acknowledgement that any one of them had.
    pub(crate) fn longest_gap(&self) -> Result<Duration> {
        let gap = |writer: &Writer| writer.record().longest_gap().map(|gap| gap.length()).context("no rows");
        let each = self.0.iter().map(gap).collect::<Result<Vec<_>>>()?;
        each.into_iter().max().context("no client")
    }

    pub(crate) async fn stop(self) -> Result<Record> {
        let all = self.record();
        let mut whole = Record::default();
        for writer in self.0 {
            whole.acknowledged.extend(writer.stop().await?.acknowledged);
        }
        ensure!(whole.acknowledged.len() >= all.acknowledged.len(), "a client forgot rows");
        whole.acknowledged.sort_by_key(|row| row.at);
        Ok(whole)
    }
}

/// From the last row that one side acknowledged to the first of the other, at each change of sides.
pub(crate) fn changes(record: &Record) -> Vec<Duration> {
    let pairs = record.acknowledged.windows(2).filter(|pair| pair[0].by != pair[1].by);
    pairs.map(|pair| pair[1].at - pair[0].at).collect()
}

pub(crate) async fn nothing_missing(record: &Record, side: &Region) -> Result<()> {
    let cluster = side.cluster()?;
    let missing = record.missing(&cluster.postgres.rows().await?);
    ensure!(missing.is_empty(), "PostgreSQL of {} lacks acknowledged rows: {missing:?}", cluster.name);
    let missing = record.missing(&cluster.redis.rows().await?);
    ensure!(missing.is_empty(), "Redis of {} lacks acknowledged rows: {missing:?}", cluster.name);
    Ok(())
}

/// The newest run, once it stands so; if it never does, with what became of each step.
pub(crate) async fn newest_run(scene: &Scene, wanted: &str) -> Result<u64> {
    let ctl = scene.world.ctl();
    let stands = wait::until("the end of the run", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.first().context("there is no run")?;
        ensure!(run.status() == wanted, "run {} is {}", run.id, run.status());
        Ok(run.id)
    })
    .await;
    let Err(error) = stands else { return stands };
    let newest = ctl.runs().await?.first().context("there is no run")?.id;
    Err(error.context(ctl.run(&["runs", &newest.to_string()]).await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_there_and_back_twice_loses_no_acknowledged_row() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let clients = Clients::start(&scene).await?;
    let sides = [scene.old(), scene.other()];
    for turn in 0..4 {
        let (from, to) = (sides[turn % 2], sides[(turn + 1) % 2]);
        let said = scene.world.ctl().run(&["switchover", APPLICATION, "--to", &to.cluster()?.name]).await?;
        println!("{}", said.trim());
        let run = newest_run(&scene, "succeeded").await?;
        scene.world.protected(to, from).await?;
        clients.all_write(Some(to)).await?;
        println!("{}", scene.world.ctl().run(&["runs", &run.to_string()]).await?);
        nothing_missing(&clients.record(), to).await?;
        let report = scene.world.ctl().report(run).await?;
        ensure!(report.losses.iter().all(|loss| loss.bytes == Some(0)), "the report of run {run} admits a loss");
    }
    let epoch = scene.world.ctl().status().await?.application(APPLICATION)?.epoch;
    let record = clients.stop().await?;
    let changes = changes(&record);
    let outages: Vec<String> = changes.iter().map(|gap| format!("{:.0}", gap.as_secs_f32() * 1000.0)).collect();
    println!("write outages: {} ms, {} rows of {CLIENTS} clients", outages.join(", "), record.acknowledged.len());
    ensure!(changes.len() == 4, "the sides acknowledged in overlapping time: {} changes", changes.len());
    ensure!(epoch == 5, "four switchovers end in epoch {epoch}");
    nothing_missing(&record, scene.old()).await?;
    ensure!(changes.iter().all(|gap| *gap < Duration::from_secs(5)), "an outage was too long");
    scene.end().await
}

/// The short form of `cargo run -p regent-tests --bin switchovers`, whose rows show doubles, too.
#[tokio::test(flavor = "multi_thread")]
async fn many_clients_lose_and_double_nothing_there_and_back_with_a_fault() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let plan = Plan {
        rounds: 3,
        clients: 24,
        seed: 4,
        fault_every: 3,
        pace: Duration::from_millis(50),
        retry: Duration::from_millis(20),
    };
    let played = play(&scene.world, plan, |made| println!("{made:?}")).await?;
    let outages = played.outages();
    println!("{} rows; outages without a fault: {outages:?}", played.acknowledged);
    ensure!(played.moves.len() == 6 && outages.len() == 4, "not all of it was played: {:?}", played.moves);
    ensure!(played.tried.len() == Trial::ALL.len(), "not all was tried: {:?}", played.tried);
    ensure!(median(&outages) < USUAL, "the write outage was once a third of a second, and is {outages:?}");
    let clean = played.moves.iter().filter(|made| made.rejoined.contains("followed as it was")).count();
    ensure!(clean > 0, "each time PostgreSQL was rewound after a clean move: {:?}", played.moves);
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_that_cannot_catch_up_is_undone_and_the_old_primary_serves() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let clients = Clients::start(&scene).await?;
    let (old, other) = (scene.old().cluster()?, scene.other().cluster()?);
    let ctl = scene.world.ctl();
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;

    let refused = ctl.run(&["switchover", APPLICATION, "--to", &old.name]).await.expect_err("it is the primary");
    ensure!(format!("{refused:#}").contains("same-cluster"), "it said {refused:#}");
    ensure!(ctl.runs().await?.is_empty(), "a refused switchover began a run");

    let standby = other.postgres.connect_as_agent().await?;
    standby.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    ctl.run(&["switchover", APPLICATION, "--max-write-outage", "2s"]).await?;
    let run = newest_run(&scene, "undone").await?;
    clients.all_write(Some(scene.old())).await?;
    println!("{}", ctl.run(&["runs", &run.to_string()]).await?);
    standby.execute("SELECT pg_wal_replay_resume()", &[]).await?;
    scene.world.protected(scene.old(), scene.other()).await?;
    let after = ctl.status().await?.application(APPLICATION)?.epoch;
    ensure!(after == epoch, "the epoch went from {epoch} to {after}");
    // Of the client that waited longest: another one's rows are no comfort to it.
    let gap = clients.longest_gap()?;
    println!("write outage of a switchover that was undone after 2 s: {:.0} ms", gap.as_secs_f32() * 1000.0);
    ensure!(gap < Duration::from_secs(3) + clients.pause(), "the old primary served one only after {gap:?}");

    // What was in the way is gone.
    ctl.run(&["switchover", APPLICATION]).await?;
    newest_run(&scene, "succeeded").await?;
    clients.all_write(Some(scene.other())).await?;
    let record = clients.stop().await?;
    nothing_missing(&record, scene.other()).await?;
    ensure!(changes(&record).len() == 1, "the sides acknowledged in overlapping time");
    scene.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_to_a_side_that_is_not_ready_is_refused_and_nothing_is_touched() -> Result<()> {
    let scene = Scene::start(Duration::from_secs(10), Duration::from_millis(500)).await?;
    let writer = scene.writer().await?;
    let ctl = scene.world.ctl();
    scene.other().cluster()?.postgres.kill_and_switch_off().await?;
    wait::until("a refusal", PATIENCE, || async {
        let refused = ctl.run(&["switchover", APPLICATION, "--dry-run"]).await;
        ensure!(refused.is_err(), "it would start");
        Ok(())
    })
    .await?;
    let to = scene.other().cluster()?.name.clone();
    let refused = ctl.run(&["switchover", APPLICATION, "--to", &to]).await.expect_err("its database is dead");
    let said = format!("{refused:#}");
    ensure!(said.contains("exit status: 3") && said.contains("unhealthy"), "it said {said}");
    ensure!(ctl.runs().await?.is_empty(), "a refused switchover began a run");
    writer.acknowledged_anew(PATIENCE).await?;
    let gap = writer.stop().await?.longest_gap().context("no rows")?.length();
    ensure!(gap < Duration::from_secs(1), "writes stood still for {gap:?}");
    scene.end().await
}
