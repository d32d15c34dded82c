//! The quickstart: a region is lost before your eyes, and the other one takes over.
//!
//! It tells what it does, waits on state and not on time, and judges at the end what it saw in the databases themselves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::keeper::last_lines;
use crate::world::{self, Options, World};
use crate::writer::{Gap, Writer};
use crate::{place, ports, postgres};

mod aftermath;
mod follow;
mod returning;
mod terminal;
mod verdict;

use terminal::Terminal;
use verdict::Verdicts;

/// Rows that are written before the region dies, so that there is something to lose.
const ROWS_BEFORE: usize = 100;
/// Above D: an election, commits, dispatch, the drivers' own work, and the name's time to live.
const BEYOND: Duration = Duration::from_secs(3);

/// Who is who, before anything moves.
const CAST: [&str; 4] = [
    "  eu-west     a coordinator, and the cluster eu-west-1: an agent, PostgreSQL and Redis as primaries, the service",
    "  eu-central  a coordinator, and the cluster eu-central-1: an agent, PostgreSQL and Redis as their standbys",
    "  eu-north    a coordinator alone: the witness, so that two of three still agree when a region is lost",
    "  Each is a group of real processes on loopback addresses; the service is found by the name shop.regent.test.\n",
];

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the world stands; default: a folder of its own below the cache folder.
    pub folder: Option<PathBuf>,
    /// D.
    pub failover_after: Duration,
    /// Leave it running.
    pub keep: bool,
}

/// Where worlds of the quickstart stand by default.
///
/// # Errors
/// There is neither `XDG_CACHE_HOME` nor `HOME`.
pub fn parent() -> Result<PathBuf> {
    place::cache()
}

/// Tells the whole story; true if everything held that was promised.
///
/// # Errors
/// Something did not come up, or did not happen in time.
pub async fn run(request: Request) -> Result<bool> {
    let folder = match request.folder {
        Some(folder) => std::path::absolute(folder)?,
        None => parent()?.join(format!("quickstart-{}", std::process::id())),
    };
    let mut options = Options::new(&folder);
    options.failover_after = request.failover_after;
    let terminal = Terminal::new();
    terminal.title("Three regions on this machine");
    for line in CAST {
        terminal.line(line);
    }
    let made = terminal.step("Certificates, ports and files", World::prepare(options.clone())).await?;
    let held = match tell(&made, &options, &terminal).await {
        Ok(held) => held,
        Err(error) => {
            terminal.title("It did not work out");
            terminal.say(&format!("{error:#}"));
            logs(&made, &terminal);
            false
        }
    };
    if request.keep {
        aftermath::look_around(&made, &terminal);
        made.leave().await?;
    } else {
        terminal.step("Removing everything", made.down()).await?;
    }
    Ok(held)
}

/// Ends what earlier quickstarts left, and removes it; gives what it removed.
///
/// # Errors
/// Something does not end.
pub async fn down(folder: Option<&Path>) -> Result<Vec<PathBuf>> {
    match folder {
        Some(folder) => {
            world::take_down(folder).await?;
            Ok(vec![folder.to_owned()])
        }
        None => {
            let parent = parent()?;
            let mut gone = world::take_down_all(&parent).await?;
            // Shared with those that are shown just now, and with tests.
            let ports = parent.join("ports");
            if ports::remove_unheld(&ports)? {
                gone.push(ports);
            }
            gone.extend(postgres::remove_templates()?);
            Ok(gone)
        }
    }
}

async fn tell(world: &World, options: &Options, terminal: &Terminal) -> Result<bool> {
    set_up(world, terminal).await?;
    let (old, new) = (&world.regions()[0], &world.regions()[1]);
    let (lost, target) = (old.cluster()?, new.cluster()?);
    let mut verdicts = Verdicts::default();

    terminal.title("A client writes through the name");
    let writer = Writer::start(world.writer())?;
    terminal.step("A hundred numbered rows", rows(&writer)).await?;
    verdicts.memory(world)?;

    terminal.title(&format!("The region {} dies", old.name()));
    let death = Instant::now();
    let count = old.lose().await?;
    let patience = options.failover_after + Duration::from_secs(60);
    terminal.say(&format!("{count} processes killed: coordinator, agent, guard, PostgreSQL, Redis, service"));
    terminal.say(&format!(
        "The other agent promotes nothing until two coordinators have not heard {} for {:.1} s (failoverAfter): so long",
        lost.name,
        options.failover_after.as_secs_f32()
    ));
    terminal
        .say("it might be alive and merely cut off, and it stops accepting writes by itself before that time is over");
    let run = follow::run(world, &writer, terminal, patience).await?;
    let first = writer
        .acknowledged_when("a write at the other side", patience, |row| row.by == target.address)
        .await
        .context("the run has ended, but the client still cannot write")?;
    let bound = options.failover_after + BEYOND;
    let gap = writer.record().longest_gap().context("the client wrote nothing")?;
    let back = gap.after.at.saturating_duration_since(death);
    terminal.say(&format!(
        "Row {} was written in {}, {:.2} s after the death",
        first.n,
        new.name(),
        back.as_secs_f32()
    ));
    verdicts.add(
        gap.after.by == target.address && back <= bound,
        &format!(
            "No write succeeded for {:.2} s: the first came {:.2} s after the death (promised: {:.1} s)",
            gap.length().as_secs_f32(),
            back.as_secs_f32(),
            bound.as_secs_f32()
        ),
    );

    terminal.title(&format!("The region {} comes back", old.name()));
    returning::closed_at_rest(old, terminal, &mut verdicts).await?;
    returning::quarantined(world, old, terminal, &mut verdicts).await?;
    writer.acknowledged_anew(Duration::from_secs(10)).await?;

    terminal.title(&format!("Taking {} back", old.name()));
    aftermath::taking_back(world, [old, new], &writer, terminal, &mut verdicts).await?;
    let record = writer.stop().await?;
    let strays = record.acknowledged.iter().filter(|row| row.at > gap.after.at && row.by == lost.address).count();
    verdicts.add(strays == 0, "The old primary acknowledged nothing since the failover");
    verdicts.memory(world)?;

    terminal.title("What was lost");
    losses(world, run, &record, &gap, terminal, &mut verdicts).await?;

    terminal.title("The report");
    terminal.say(&format!("$ regentctl report {run}"));
    terminal.block(&world.ctl().run(&["report", &run.to_string(), "-o", "md"]).await?);
    terminal.title("What was promised, and what was seen");
    Ok(verdicts.tell(terminal))
}

async fn set_up(world: &World, terminal: &Terminal) -> Result<()> {
    terminal.say(&format!("Everything stands in {}", world.folder().display()));
    terminal.step("PostgreSQL and Redis with their standbys, and the service", world.start_databases()).await?;
    terminal.step("A coordinator in each region", world.start_coordinators()).await?;
    for region in world.regions() {
        terminal.say(&format!("  {}: its dashboard is http://{}/", region.name(), region.place().dashboard));
    }
    aftermath::write_environment(world)?;
    terminal.step("An agent in each cluster", world.start_agents()).await?;
    terminal.step("Handing in the Application document", world.apply()).await?;
    let protected = world.protected(&world.regions()[0], &world.regions()[1]);
    terminal.step("Waiting until the standbys follow, the lease runs and the name is answered", protected).await
}

async fn rows(writer: &Writer) -> Result<()> {
    crate::wait::until("the first rows", Duration::from_secs(30), || async {
        let record = writer.record();
        let count = record.acknowledged.len();
        anyhow::ensure!(count >= ROWS_BEFORE, "{count} so far; {}", record.last_error.unwrap_or_default());
        Ok(())
    })
    .await
}

/// Which acknowledged rows are not in the new primary's databases, and whether the report said so.
async fn losses(
    world: &World,
    run: u64,
    record: &crate::writer::Record,
    gap: &Gap,
    terminal: &Terminal,
    verdicts: &mut Verdicts,
) -> Result<()> {
    let target = world.regions()[1].cluster()?;
    let report = world.ctl().report(run).await?;
    for loss in &report.losses {
        terminal.say(&format!("The report says: {}", loss.sentence));
    }
    let present =
        [(crate::config::DATABASE, target.postgres.rows().await?), (crate::config::CACHE, target.redis.rows().await?)];
    for (resource, rows) in present {
        let missing = record.missing(&rows);
        let admitted = record.missing_rows(&rows).all(|row| report.admits(resource, row));
        verdicts.add(
            missing.is_empty() || admitted,
            &match missing.len() {
                0 => format!("All {} acknowledged rows are in {resource}", record.acknowledged.len()),
                count => format!(
                    "{count} of {} acknowledged rows are missing in {resource} ({}), and the report {}",
                    record.acknowledged.len(),
                    verdict::numbers(&missing),
                    if admitted { "says so" } else { "does not say so" }
                ),
            },
        );
        verdicts.add(
            missing.iter().all(|n| *n <= gap.before.n),
            &format!("No row that was acknowledged after the failover is missing in {resource}"),
        );
    }
    Ok(())
}

/// The ends of all logs, for whoever has to find out.
fn logs(world: &World, terminal: &Terminal) {
    for region in world.regions() {
        let agent = region.cluster().ok().map(|cluster| &cluster.agent);
        for node in std::iter::once(region.coordinator()).chain(agent) {
            if let Some(process) = node.process() {
                terminal.say(&format!("{} ends so:", process.log().display()));
                terminal.block(&last_lines(process.log(), 12));
            }
        }
    }
}
