//! Several applications in the care of one group, on the same two regions, each with databases of its own. Each waits for
//! its own D and for no other's, a lost region counts once against the limit of failovers, and what becomes of one of them
//! is nothing to the others.
//!
//! | application | primary at the start | D | its clients |
//! |---|---|---|---|
//! | `shop` | west | 2 s | one that writes through the name |
//! | `books` | west | 6 s | a stubborn one at each side |
//! | `mail` | central | 4 s | a stubborn one at each side |

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use regent_deploy::config::APPLICATION;
use regent_deploy::ctl::{Ctl, Run, Status};
use regent_deploy::wait;
use regent_deploy::world::{Options, Tenant, World};
use regent_deploy::writer::{Acknowledged, Record, Target, Writer, WriterOptions};
use regent_tests::crew::{Sheet, Way};
use regent_tests::epochs::Sighting;
use regent_tests::oracle::{self, Evidence};
use regent_tests::stage::{CENTRAL, WEST};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::scene::Scene;
use super::verbs::json;

const BOOKS: &str = "books";
const MAIL: &str = "mail";

/// The smallest and the largest D of those whose primary is in the west at the start.
const SOON: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_secs(6);
/// From the end of D to the first write: the bound that is published.
const THEN: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(60);
/// The rule of the limit of failovers.
const LIMIT: &str = "blast-radius";
/// How a coordinator shows an epoch, and how often it is looked at.
const METRIC: &str = "regent_application_epoch{";
const PACE: Duration = Duration::from_millis(250);

/// Three applications, protected.
struct House {
    // Gone before the world that they stand in.
    tenants: Vec<Tenant>,
    scene: Scene,
}

impl House {
    async fn start() -> Result<Self> {
        // One that is held for long must not be held for its loss in the end.
        let loses_much = |options: &mut Options| options.max_data_loss = Duration::from_secs(60);
        let (scene, tenants) = Scene::start_on(SOON, Duration::from_millis(500), loses_much, async |world: &World| {
            let made = [(BOOKS, WEST, LATE), (MAIL, CENTRAL, Duration::from_secs(4))]
                .map(|(name, home, failover_after)| world.tenant(name, home, failover_after));
            futures::future::try_join_all(made).await
        })
        .await?;
        for tenant in &tenants {
            tenant.apply(&scene.world).await?;
        }
        for (tenant, home) in tenants.iter().zip([WEST, CENTRAL]) {
            tenant.protected(&scene.world, home).await?;
        }
        Ok(Self { tenants, scene })
    }

    fn ctl(&self) -> &Ctl {
        self.scene.world.ctl()
    }

    fn tenant(&self, name: &str) -> Result<&Tenant> {
        self.tenants.iter().find(|tenant| tenant.name == name).with_context(|| format!("nobody made {name}"))
    }

    /// Where a region's databases listen, all of them.
    fn address(&self, region: usize) -> Result<IpAddr> {
        Ok(self.scene.world.regions()[region].cluster()?.address)
    }

    fn address_of(&self, cluster: &str) -> Option<IpAddr> {
        let mut clusters = self.scene.world.regions().iter().filter_map(|region| region.cluster().ok());
        clusters.find(|known| known.name == cluster).map(|known| known.address)
    }

    /// Its clients, each of whom has written where the primary is.
    async fn clients(&self) -> Result<[Clients; 3]> {
        let shop = Clients { application: APPLICATION, way: Way::Name, writers: vec![self.scene.writer().await?] };
        let books = Clients::beside(BOOKS, self.tenant(BOOKS)?)?;
        let mail = Clients::beside(MAIL, self.tenant(MAIL)?)?;
        for (clients, home) in [(&books, WEST), (&mail, CENTRAL)] {
            clients.write_at(self.address(home)?).await?;
        }
        Ok([shop, books, mail])
    }

    /// Rows in the databases of an application's primary.
    async fn rows(&self, application: &str, primary: &str) -> Result<[BTreeSet<i64>; 2]> {
        if let Ok(tenant) = self.tenant(application) {
            let side = tenant.sides.iter().find(|side| side.cluster == primary).context("no primary")?;
            return Ok([side.postgres.rows().await?, BTreeSet::new()]);
        }
        let mut clusters = self.scene.world.regions().iter().filter_map(|region| region.cluster().ok());
        let cluster = clusters.find(|cluster| cluster.name == primary).context("no primary")?;
        Ok([cluster.postgres.rows().await?, cluster.redis.rows().await?])
    }

    /// The oracle's judgement on one application: one writer, epochs that rise one by one, no loss beyond its own reports.
    async fn judge(&self, clients: Clients, start: &Status, seen: &Sightings, cut_off: &[Instant]) -> Result<()> {
        let application = clients.application;
        let sheets = clients.stop().await?;
        let mut reports = Vec::new();
        for run in runs_of(self.ctl(), application).await? {
            reports.push(self.ctl().report(run.id).await?);
        }
        let first = start.application(application)?;
        let first = (first.epoch, self.address_of(&first.primary).context("there was no primary")?);
        let end = self.ctl().status().await?.application(application)?.clone();
        let now = (Instant::now(), jiff::Timestamp::now());
        let epochs = seen.get(application).cloned().unwrap_or_default();
        ensure!(!epochs.is_empty(), "no coordinator ever showed the epoch of {application}");
        let evidence = Evidence {
            sheets,
            epochs,
            reigns: oracle::reigns(first, &reports, |cluster| self.address_of(cluster), now),
            epoch: end.epoch,
            primary: self.address_of(&end.primary).context("there is no primary")?,
            rows: self.rows(application, &end.primary).await?,
            cut_off: cut_off.to_vec(),
            tolerance: oracle::TOLERANCE,
        };
        let broken = oracle::judge(&evidence);
        ensure!(broken.is_empty(), "{application}: {}", broken.join("\n"));
        Ok(())
    }

    /// It never moved, and who writes to its primary never noticed anything.
    async fn stayed(&self, clients: &Clients, home: usize, start: &Status) -> Result<()> {
        let application = clients.application;
        clients.write_at(self.address(home)?).await?;
        for (region, record) in clients.records().iter().enumerate() {
            if region == home {
                let why = &record.last_error;
                ensure!(record.failed == 0, "{} writes to {application} failed, the last with {why:?}", record.failed);
            } else {
                ensure!(record.acknowledged.is_empty(), "the standby of {application} has taken rows");
            }
        }
        let (before, after) = (start.application(application)?, self.ctl().status().await?);
        let after = after.application(application)?;
        ensure!((after.epoch, &after.primary) == (before.epoch, &before.primary), "{application} moved: {after:?}");
        ensure!(runs_of(self.ctl(), application).await?.is_empty(), "there are runs of {application}");
        Ok(())
    }

    async fn end(self) -> Result<()> {
        let Self { tenants, scene } = self;
        drop(tenants);
        scene.end().await
    }
}

/// Who writes to one application, from before anything happens to it.
struct Clients {
    application: &'static str,
    way: Way,
    writers: Vec<Writer>,
}

impl Clients {
    /// One beside each database, whatever that is just now.
    fn beside(application: &'static str, tenant: &Tenant) -> Result<Self> {
        let mut writers = Vec::new();
        let mut first = 1;
        for side in &tenant.sides {
            let target = Target::Postgres { address: side.address, conninfo: side.postgres.client_conninfo() };
            // A write that is only slow has not failed.
            let (timeout, pace) = (Duration::from_secs(2), Duration::from_millis(50));
            writers.push(Writer::start(WriterOptions { target, timeout, pace, first })?);
            first += 1_000_000;
        }
        Ok(Self { application, way: Way::Postgres, writers })
    }

    fn records(&self) -> Vec<Record> {
        self.writers.iter().map(Writer::record).collect()
    }

    /// The first row that was acknowledged at this side.
    async fn first_at(&self, side: IpAddr) -> Result<Acknowledged> {
        let what = format!("a row of {} at {side}", self.application);
        wait::until(&what, PATIENCE, || async {
            let rows = self.writers.iter().flat_map(|writer| writer.record().acknowledged);
            rows.filter(|row| row.by == side).min_by_key(|row| row.at).context("there is none yet")
        })
        .await
    }

    /// Waits until one that is sent from now on is.
    async fn write_at(&self, side: IpAddr) -> Result<()> {
        let (what, now) = (format!("a new row of {} at {side}", self.application), Instant::now());
        wait::until(&what, PATIENCE, || async {
            let mut last = self.writers.iter().filter_map(|writer| writer.record().acknowledged.last().copied());
            ensure!(last.any(|row| row.by == side && row.sent > now), "there is none yet");
            Ok(())
        })
        .await
    }

    async fn stop(self) -> Result<Vec<Sheet>> {
        let mut sheets = Vec::new();
        for (region, writer) in self.writers.into_iter().enumerate() {
            sheets.push(Sheet { region, way: self.way, record: writer.stop().await? });
        }
        Ok(sheets)
    }
}

/// By the application: what each coordinator showed, in order.
type Sightings = BTreeMap<String, Vec<Sighting>>;

/// Looks at what the coordinators show, all the time.
struct Watch {
    stop: watch::Sender<bool>,
    work: JoinHandle<Sightings>,
}

impl Watch {
    fn start(house: &House) -> Result<Self> {
        let dashboards = house.scene.world.regions().iter().map(|region| region.place().dashboard).collect();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(1)).build()?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { stop, work: tokio::spawn(look(dashboards, http, stopped)) })
    }

    async fn stop(self) -> Result<Sightings> {
        self.stop.send_replace(true);
        self.work.await.context("who looks at the epochs died")
    }
}

async fn look(dashboards: Vec<SocketAddr>, http: reqwest::Client, stopped: watch::Receiver<bool>) -> Sightings {
    let mut seen = Sightings::new();
    let mut pace = tokio::time::interval(PACE);
    while !*stopped.borrow() {
        pace.tick().await;
        for (region, address) in dashboards.iter().enumerate() {
            // Who does not answer shows nothing.
            let Ok(answer) = http.get(format!("http://{address}/metrics")).send().await else { continue };
            let Ok(text) = answer.text().await else { continue };
            for (application, epoch) in epochs(&text) {
                // No coordinator is started twice here, so the region names the process.
                let sighting = Sighting { region, process: 0, epoch };
                seen.entry(application.to_owned()).or_default().push(sighting);
            }
        }
    }
    seen
}

/// Applications and their epochs, as metrics tell them: `regent_application_epoch{application="shop"} 2.0`.
fn epochs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(METRIC)?.split_once("} ")?;
        let application = labels.split("application=\"").nth(1)?.split('"').next()?;
        let epoch: u64 = value.split('.').next()?.parse().ok()?;
        Some((application, epoch))
    })
}

/// Newest first.
async fn runs_of(ctl: &Ctl, application: &str) -> Result<Vec<Run>> {
    Ok(ctl.runs().await?.into_iter().filter(|run| run.application == application).collect())
}

/// The newest run of an application that changes its primary, once it stands so.
async fn run_is(ctl: &Ctl, application: &str, wanted: &str) -> Result<Run> {
    wait::until(&format!("a run of {application} to be {wanted}"), PATIENCE, || async {
        let runs = runs_of(ctl, application).await?;
        let run = runs.into_iter().find(|run| run.decision.is_some()).context("none has changed its primary")?;
        ensure!(run.status() == wanted, "run {} is {}: {:?}", run.id, run.status(), run.steps);
        Ok(run)
    })
    .await
}

/// The codes of the rules that hold a failover of an application now.
async fn held_by(ctl: &Ctl, application: &str) -> Result<Vec<String>> {
    let why = json(ctl, &["why", application]).await?;
    let rules = why["explanation"]["heldBy"].as_array().with_context(|| format!("it says {why}"))?;
    Ok(rules.iter().filter_map(|rule| Some(rule["code"].as_str()?.to_owned())).collect())
}

/// A last report may be one probe and one heartbeat old.
fn cut_off(at: Instant) -> Vec<Instant> {
    at.checked_sub(Duration::from_millis(1500)).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_application_of_a_lost_region_waits_for_its_own_bound_and_the_other_one_stays() -> Result<()> {
    let house = House::start().await?;
    // Both that leave the lost region are one event.
    house.ctl().run(&["limit", "--failovers", "1"]).await?;
    house.scene.lead_from("eu-central").await?;
    let (start, watch) = (house.ctl().status().await?, Watch::start(&house)?);
    let [shop, books, mail] = house.clients().await?;
    let central = house.address(CENTRAL)?;

    let death = Instant::now();
    house.scene.old().lose().await?;
    let soon = shop.first_at(central).await?.at - death;
    let late = books.first_at(central).await?.at - death;
    println!("first writes {:.2} s and {:.2} s after the death", soon.as_secs_f32(), late.as_secs_f32());
    // D runs from the last heartbeat that was heard, which is a little older than the death.
    let old = Duration::from_millis(700);
    ensure!(soon + old >= SOON && soon <= SOON + THEN, "D is {SOON:?}, and the first write came after {soon:?}");
    ensure!(late + old >= LATE && late <= LATE + THEN, "D is {LATE:?}, and the first write came after {late:?}");
    ensure!(late >= soon + (LATE - SOON) / 2, "they went by one D: after {soon:?} and {late:?}");
    for application in [APPLICATION, BOOKS] {
        let run = run_is(house.ctl(), application, "succeeded").await?;
        ensure!(
            run.decision.is_some_and(|decision| decision.ground == "lost"),
            "run {} rests on something else",
            run.id
        );
    }
    for clients in [&shop, &books] {
        clients.write_at(central).await?;
    }
    house.stayed(&mail, CENTRAL, &start).await?;

    let seen = watch.stop().await?;
    for clients in [shop, books, mail] {
        house.judge(clients, &start, &seen, &cut_off(death)).await?;
    }
    house.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_all_of_a_lost_region_wait_for_a_human_and_go_on_together() -> Result<()> {
    let house = House::start().await?;
    let ctl = house.ctl();
    ctl.run(&["limit", "--failovers", "1"]).await?;
    house.scene.lead_from("eu-central").await?;
    let (start, watch) = (ctl.status().await?, Watch::start(&house)?);
    let [shop, books, mail] = house.clients().await?;
    let (west, central) = (house.address(WEST)?, house.address(CENTRAL)?);

    // The one event of this hour: a database dies in a region that lives.
    house.tenant(MAIL)?.sides[CENTRAL].postgres.kill_and_switch_off().await?;
    mail.first_at(west).await?;
    run_is(ctl, MAIL, "succeeded").await?;
    for application in [APPLICATION, BOOKS] {
        let held = held_by(ctl, application).await?;
        ensure!(held.iter().any(|rule| rule == LIMIT), "{application} is not told of it before: {held:?}");
    }

    // The second event is due for both, each after its own D, and neither goes.
    let death = Instant::now();
    house.scene.old().lose().await?;
    for application in [APPLICATION, BOOKS] {
        wait::until(&format!("{application} to be held by the limit alone"), PATIENCE, || async {
            let held = held_by(ctl, application).await?;
            ensure!(held == [LIMIT], "it is held by {held:?}");
            Ok(())
        })
        .await?;
    }
    let due = death.elapsed();
    // Less than D would mean that nothing was due yet, and nothing shown.
    ensure!(due + Duration::from_secs(1) >= LATE, "both were due after {due:?}");
    for look in 0..10 {
        for application in [APPLICATION, BOOKS] {
            let held = held_by(ctl, application).await?;
            ensure!(held.iter().any(|rule| rule == LIMIT), "in look {look} {application} is held by {held:?}");
        }
    }
    for application in [APPLICATION, BOOKS] {
        let (before, now) = (start.application(application)?, ctl.status().await?);
        let now = now.application(application)?;
        ensure!((now.epoch, &now.primary) == (before.epoch, &before.primary), "{application} moved: {now:?}");
        let audit = ctl.run(&["audit", application]).await?;
        ensure!(audit.contains(LIMIT), "nobody is told in the audit of {application}:\n{audit}");
    }

    // A human has looked. What leaves one lost region is one event again, so the limit lets both go.
    let word = Instant::now();
    ctl.run(&["ack", "--all"]).await?;
    for clients in [&shop, &books] {
        let first = clients.first_at(central).await?;
        let after = first.at.checked_duration_since(word);
        let after = after.with_context(|| format!("{} moved before the word", clients.application))?;
        println!("{} writes {:.2} s after the word", clients.application, after.as_secs_f32());
        run_is(ctl, clients.application, "succeeded").await?;
        clients.write_at(central).await?;
    }
    let counted = json(ctl, &["limit"]).await?;
    let begun = counted["begun"].as_array().with_context(|| format!("the limit says {counted}"))?;
    let cluster = &house.scene.old().cluster()?.name;
    ensure!(begun.len() == 2 && begun.iter().all(|one| one["lost"] == cluster.as_str()), "the limit counts {counted}");

    let seen = watch.stop().await?;
    for clients in [shop, books] {
        house.judge(clients, &start, &seen, &cut_off(death)).await?;
    }
    // The region to which this one had moved is gone, and with it the databases that the oracle would look at.
    let records = mail.records();
    let ends = (records[CENTRAL].acknowledged.last(), records[WEST].acknowledged.first());
    let (last, first) = (ends.0.context("no row before it moved")?, ends.1.context("no row after it moved")?);
    ensure!(last.at < first.at, "both sides of {MAIL} acknowledged at once: {last:?}, {first:?}");
    mail.stop().await?;
    house.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_switched_over_while_another_fails_over_the_other_way_and_the_third_sees_nothing() -> Result<()> {
    let house = House::start().await?;
    let ctl = house.ctl();
    let (start, watch) = (ctl.status().await?, Watch::start(&house)?);
    let [shop, books, mail] = house.clients().await?;
    let (west, central) = (house.address(WEST)?, house.address(CENTRAL)?);

    // The planned move stands in its middle, with writes kept out, for as long as the other one takes.
    let standby = house.tenant(MAIL)?.sides[WEST].postgres.connect_as_agent().await?;
    standby.execute("SELECT pg_wal_replay_pause()", &[]).await?;
    // Something that it has not replayed.
    mail.write_at(central).await?;
    ctl.run(&["switchover", MAIL, "--max-write-outage", "2m"]).await?;
    let catches_up = |run: &Run| run.steps.iter().any(|step| step.kind == "catchUp" && step.state() == "running");
    let planned = wait::until("the catch-up", PATIENCE, || async {
        let run = runs_of(ctl, MAIL).await?.into_iter().next().context("there is no run")?;
        ensure!(catches_up(&run), "run {} does not catch up: {:?}", run.id, run.steps);
        Ok(run.id)
    })
    .await?;

    let death = Instant::now();
    house.scene.old().cluster()?.postgres.kill_and_switch_off().await?;
    let took = shop.first_at(central).await?.at - death;
    println!("first write {:.2} s after the death, in the middle of another's switchover", took.as_secs_f32());
    run_is(ctl, APPLICATION, "succeeded").await?;
    let under_way = runs_of(ctl, MAIL).await?.into_iter().find(|run| run.id == planned).context("the run is gone")?;
    ensure!(under_way.status() == "running" && catches_up(&under_way), "it did not stand there: {under_way:?}");

    standby.execute("SELECT pg_wal_replay_resume()", &[]).await?;
    let done = run_is(ctl, MAIL, "succeeded").await?;
    ensure!(done.id == planned, "run {} took the place of run {planned}", done.id);
    ensure!(done.decision.is_some_and(|decision| decision.ground == "switched"), "run {planned} was no switchover");
    house.tenant(MAIL)?.protected(&house.scene.world, WEST).await?;
    mail.write_at(west).await?;
    shop.write_at(central).await?;
    house.stayed(&books, WEST, &start).await?;
    let report = ctl.report(planned).await?;
    ensure!(report.losses.iter().all(|loss| loss.bytes == Some(0)), "the report of run {planned} admits a loss");
    let after = ctl.status().await?;
    let rise = |name: &str| -> Result<u64> { Ok(after.application(name)?.epoch - start.application(name)?.epoch) };
    let rises = (rise(APPLICATION)?, rise(BOOKS)?, rise(MAIL)?);
    ensure!(rises == (1, 0, 1), "the epochs of {APPLICATION}, {BOOKS} and {MAIL} rose by {rises:?}");

    let seen = watch.stop().await?;
    for (clients, cut_off) in [(shop, cut_off(death)), (books, Vec::new()), (mail, Vec::new())] {
        house.judge(clients, &start, &seen, &cut_off).await?;
    }
    house.end().await
}
