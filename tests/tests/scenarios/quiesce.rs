//! A switchover that begins with a quiesce of PostgreSQL: a transaction that is open may end within the grace, while whoever
//! logs in anew is refused. Aborted meanwhile it leaves the old primary serving at once, and one that the grace would leave no
//! time to decide does not begin. What counts is what clients saw that log in for each row, by their own clocks.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::{APPLICATION, DATABASE};
use regent_deploy::region::Region;
use regent_deploy::wait;
use regent_deploy::writer::{Acknowledged, Record};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use super::scene::Scene;
use super::switchover::{PATIENCE, newest_run, nothing_missing};
use super::verbs::refused;

/// Far longer than anything here takes: whatever waits it out is seen.
const GRACE: Duration = Duration::from_secs(20);

/// The old primary serves again so soon.
const AT_ONCE: Duration = Duration::from_secs(1);

const VISITORS: i64 = 4;

/// From one row of a visitor to its next.
const PACE: Duration = Duration::from_millis(50);

/// For one row.
const ANSWER: Duration = Duration::from_secs(1);

/// Numbers of rows that nobody else writes.
const LONG: [i64; 2] = [-1, -2];

/// Clients that log in to PostgreSQL for each row, at whichever side takes it.
struct Visitors {
    records: Vec<Arc<Mutex<Record>>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Visitors {
    async fn start(scene: &Scene) -> Result<Self> {
        let mut places = Vec::new();
        for side in [scene.old(), scene.other()] {
            let cluster = side.cluster()?;
            places.push((cluster.address, cluster.postgres.client_conninfo()));
        }
        let mut visitors = Self { records: Vec::new(), stop: watch::Sender::new(false), tasks: Vec::new() };
        for number in 1..=VISITORS {
            let record = Arc::new(Mutex::new(Record::default()));
            visitors.records.push(Arc::clone(&record));
            let (places, stopped) = (places.clone(), visitors.stop.subscribe());
            visitors.tasks.push(tokio::spawn(visit(places, number * 100_000_000, record, stopped)));
        }
        visitors.all_write(scene.old()).await?;
        Ok(visitors)
    }

    fn each(&self) -> Vec<Record> {
        let record = |record: &Arc<Mutex<Record>>| record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.records.iter().map(record).collect()
    }

    /// Each of them has a row acknowledged by this side that it sends from now on.
    async fn all_write(&self, side: &Region) -> Result<()> {
        let (now, by) = (Instant::now(), side.cluster()?.address);
        wait::until("a row of each visitor", PATIENCE, || async {
            for record in self.each() {
                let written = record.acknowledged.last().is_some_and(|row| row.sent > now && row.by == by);
                ensure!(written, "{}", record.last_error.as_deref().unwrap_or("nothing was refused either"));
            }
            Ok(())
        })
        .await
    }

    /// Each of them has been refused everywhere with a row that it sent from now on.
    async fn all_refused(&self) -> Result<()> {
        let now = Instant::now();
        wait::until("the refusal of each visitor", PATIENCE, || async {
            let lately = |record: &Record| record.failures.last().is_some_and(|sent| *sent > now);
            ensure!(self.each().iter().all(lately), "one is let in");
            Ok(())
        })
        .await
    }

    /// From then until each of them had its first row acknowledged; the longest.
    fn served_after(&self, word: Instant) -> Result<Duration> {
        let first = |record: Record| {
            let row = record.acknowledged.into_iter().find(|row| row.at > word);
            row.map(|row| row.at - word).context("a visitor has no row since")
        };
        let each = self.each().into_iter().map(first).collect::<Result<Vec<_>>>()?;
        each.into_iter().max().context("no visitor")
    }

    /// All that was acknowledged is at this side.
    async fn nothing_missing(&self, side: &Region) -> Result<()> {
        let cluster = side.cluster()?;
        let rows = cluster.postgres.rows().await?;
        for record in self.each() {
            let missing = record.missing(&rows);
            ensure!(missing.is_empty(), "PostgreSQL of {} lacks acknowledged rows: {missing:?}", cluster.name);
        }
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.context("a visitor died")?;
        }
        Ok(())
    }
}

async fn visit(places: Vec<(IpAddr, String)>, first: i64, record: Arc<Mutex<Record>>, stopped: watch::Receiver<bool>) {
    let mut n = first;
    while !*stopped.borrow() {
        let began = Instant::now();
        let mut refusal = None;
        let mut taken = None;
        for (by, conninfo) in &places {
            let sent = Instant::now();
            match tokio::time::timeout(ANSWER, write(conninfo, n)).await {
                Ok(Ok(())) => {
                    taken = Some(Acknowledged { n, sent, at: Instant::now(), by: *by });
                    break;
                }
                Ok(Err(error)) => refusal = Some(format!("{by}: {error:?}")),
                Err(_) => refusal = Some(format!("{by}: no answer within {ANSWER:?}")),
            }
        }
        {
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(row) = taken {
                record.acknowledged.push(row);
                n += 1;
            } else {
                record.failed += 1;
                record.failures.push(began);
                record.last_error = refusal;
            }
        }
        tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await;
    }
}

/// A number is used again only while nobody has acknowledged it.
async fn write(conninfo: &str, n: i64) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    // Its errors come back through the client.
    tokio::spawn(connection);
    client.execute("INSERT INTO rows (n) VALUES ($1) ON CONFLICT DO NOTHING", &[&n]).await.map(drop)
}

/// An open transaction with a row of this number.
async fn begun(side: &Region, n: i64) -> Result<tokio_postgres::Client> {
    let client = side.cluster()?.postgres.connect().await?;
    client.batch_execute(&format!("BEGIN; INSERT INTO rows (n) VALUES ({n})")).await?;
    Ok(client)
}

/// Begins a switchover, and waits until it lets transactions end while nobody else is let in. Gives the run.
async fn quiescing(scene: &Scene, visitors: &Visitors, to: &Region) -> Result<String> {
    let ctl = scene.world.ctl();
    let before = ctl.runs().await?.first().map_or(0, |run| run.id);
    ctl.run(&["switchover", APPLICATION, "--to", &to.cluster()?.name]).await?;
    let run = wait::until("the quiesce", PATIENCE, || async {
        let runs = ctl.runs().await?;
        let run = runs.iter().find(|run| run.id > before).context("there is no run")?;
        let mut quiesces = run.steps.iter().filter(|step| step.kind == "quiesce" && step.resource == DATABASE);
        ensure!(quiesces.any(|step| step.state() == "running"), "run {} is {}", run.id, run.status());
        Ok(run.id)
    })
    .await?;
    visitors.all_refused().await?;
    Ok(run.to_string())
}

/// How the quiesce of this run ended, and what its driver said of it.
async fn of_quiesce(scene: &Scene, run: u64) -> Result<(String, String)> {
    let runs = scene.world.ctl().runs().await?;
    let run = runs.iter().find(|one| one.id == run).context("the run is gone")?;
    let quiesce = run.steps.iter().find(|step| step.kind == "quiesce" && step.resource == DATABASE);
    let quiesce = quiesce.context("it has no quiesce")?;
    Ok((quiesce.state(), quiesce.message().to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiesce_lets_a_transaction_end_and_is_broken_off_by_an_abort() -> Result<()> {
    let with_grace = |options: &mut regent_deploy::world::Options| options.grace = Some(GRACE);
    let scene = Scene::start_with(Duration::from_secs(10), Duration::from_millis(500), with_grace).await?;
    let (old, other, ctl) = (scene.old(), scene.other(), scene.world.ctl());
    // Through the service, which keeps its sessions. Of many at once there would always be one in a transaction.
    let writer = scene.writer().await?;
    let visitors = Visitors::start(&scene).await?;
    // What agents tell of their files is known from here on.
    ctl.run(&["readiness", APPLICATION, "--now"]).await?;

    // No time would be left to decide.
    let name = &other.cluster()?.name;
    refused(ctl, &["switchover", APPLICATION, "--to", name, "--max-write-outage", "15s"], "quiesce-grace").await?;
    ensure!(ctl.runs().await?.is_empty(), "a refused switchover began a run");
    // The document allows 30 s.
    let plan = ctl.run(&["plan", APPLICATION, "--to", name]).await?;
    ensure!(plan.contains("quiesce-grace"), "it is not told how much of the time is the grace: {plan}");
    let plan = ctl.run(&["plan", APPLICATION, "--to", name, "--max-write-outage", "1m"]).await?;
    ensure!(!plan.contains("quiesce-grace"), "three times as much is allowed: {plan}");

    // What is under way ends by itself, and goes along.
    let long = begun(old, LONG[0]).await?;
    let began = Instant::now();
    let run = quiescing(&scene, &visitors, other).await?;
    long.batch_execute("COMMIT").await.context("it was cut within the grace")?;
    ensure!(newest_run(&scene, "succeeded").await?.to_string() == run, "another run");
    let took = began.elapsed();
    println!("a switchover that let a transaction end: {:.0} ms", took.as_secs_f32() * 1000.0);
    ensure!(took < GRACE, "the grace was waited out though nobody was at work: {took:?}");
    visitors.all_write(other).await?;
    scene.first_write_at_the_other_side(&writer, PATIENCE).await?;
    nothing_missing(&writer.record(), other).await?;
    visitors.nothing_missing(other).await?;
    ensure!(other.cluster()?.postgres.rows().await?.contains(&LONG[0]), "the long transaction is lost");
    scene.world.protected(other, old).await?;

    // Ended by an operator while one is still under way: its undo waits for nobody, and cuts nobody.
    let epoch = ctl.status().await?.application(APPLICATION)?.epoch;
    let long = begun(other, LONG[1]).await?;
    let run = quiescing(&scene, &visitors, old).await?;
    let (state, said) = of_quiesce(&scene, run.parse()?).await?;
    ensure!(state == "running", "the quiesce is {state} before the abort: {said}");
    let word = Instant::now();
    ctl.run(&["abort", &run, "--reason", "an abort is tried"]).await?;
    ensure!(newest_run(&scene, "undone").await?.to_string() == run, "another run");
    visitors.all_write(other).await?;
    let served = visitors.served_after(word)?;
    println!("each visitor served {:.0} ms after the word of the abort", served.as_secs_f32() * 1000.0);
    // A visitor may have just paused.
    ensure!(served <= AT_ONCE + PACE, "the old primary served one only {served:?} after the abort");
    let (state, said) = of_quiesce(&scene, run.parse()?).await?;
    ensure!(state == "failed continued" && said.contains("broken off"), "the quiesce is {state}: {said}");
    long.batch_execute("COMMIT").await.context("the undo cut it")?;
    ensure!(ctl.status().await?.application(APPLICATION)?.epoch == epoch, "an undone switchover raised the epoch");

    // Nothing of it comes after: whatever it had begun is over.
    scene.world.protected(other, old).await?;
    let settled = Instant::now();
    while settled.elapsed() < Duration::from_secs(3) {
        visitors.all_write(other).await?;
    }
    let late = |record: &Record| record.failures.iter().filter(|sent| **sent > settled).count();
    let late: usize = visitors.each().iter().map(late).sum();
    ensure!(late == 0, "{late} rows were refused after it was open again");
    writer.acknowledged_anew(PATIENCE).await?;
    visitors.nothing_missing(other).await?;
    ensure!(other.cluster()?.postgres.rows().await?.contains(&LONG[1]), "the long transaction is lost");
    visitors.stop().await?;
    nothing_missing(&writer.stop().await?, other).await?;
    scene.end().await
}
