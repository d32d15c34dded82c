//! Following a run: each step is told when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::Terminal;
use crate::config::APPLICATION;
use crate::ctl::Run;
use crate::world::World;
use crate::writer::Writer;

const PACE: Duration = Duration::from_millis(200);
/// Between two lines while nothing happens.
const SILENCE: Duration = Duration::from_secs(2);

/// Follows the newest run of the application to its good end, and gives its number.
pub(super) async fn run(world: &World, writer: &Writer, terminal: &Terminal, within: Duration) -> Result<u64> {
    to_its_end(world, writer, terminal, within)
        .await
        .with_context(|| format!("no run of {APPLICATION} has succeeded within {:.0} s", within.as_secs_f32()))
}

async fn to_its_end(world: &World, writer: &Writer, terminal: &Terminal, within: Duration) -> Result<u64> {
    let mut spoken = Instant::now();
    let deadline = Instant::now() + within;
    let mut told = BTreeMap::new();
    let mut last = anyhow::anyhow!("no run has begun");
    while Instant::now() < deadline {
        match newest(world).await {
            Ok(Some(run)) => {
                tell(&run, &mut told, terminal);
                match run.status().as_str() {
                    "succeeded" => return Ok(run.id),
                    status @ ("stuck" | "failed" | "undone") => bail!("run {} is {status}", run.id),
                    status => last = anyhow::anyhow!("run {} is {status}", run.id),
                }
            }
            Ok(None) if spoken.elapsed() >= SILENCE => {
                spoken = Instant::now();
                terminal.say(&format!("  {}", meanwhile(world, writer).await));
            }
            Ok(None) => {}
            // While the coordinators elect a leader, an answer may have to wait.
            Err(error) => last = error,
        }
        tokio::time::sleep(PACE).await;
    }
    Err(last)
}

/// What an operator and the client see while it is waited.
async fn meanwhile(world: &World, writer: &Writer) -> String {
    let failed = writer.record().failed;
    let client = format!("{failed} writes of the client failed so far");
    match world.ctl().why(APPLICATION).await {
        Ok(why) => format!("waiting: {}; {client}", why.reason()),
        Err(_) => format!("waiting: the coordinators elect a leader; {client}"),
    }
}

async fn newest(world: &World) -> Result<Option<Run>> {
    let runs = world.ctl().runs().await?;
    Ok(runs.into_iter().filter(|run| run.application == APPLICATION).max_by_key(|run| run.id))
}

fn tell(run: &Run, told: &mut BTreeMap<usize, String>, terminal: &Terminal) {
    for (index, step) in run.steps.iter().enumerate() {
        let state = step.state();
        let before = told.insert(index, state.clone());
        if state != "pending" && before.as_deref() != Some(state.as_str()) {
            let what = format!("{} {}", step.kind, step.resource);
            let at = if step.cluster.is_empty() { String::new() } else { format!("at {}", step.cluster) };
            let message = match (step.detached, state.as_str(), step.message()) {
                // The bound of time stands for it: its lease ran out before anything was promoted.
                (true, "skipped", "") => "nobody there to do it, and nothing waited for it: its lease had run out",
                (true, "running", "") => "tried, not awaited",
                (_, _, message) => message,
            };
            let line = format!("run {}: {:<18} {at:<15} {state:<10} {message}", run.id, what.trim());
            terminal.say(line.trim_end());
        }
    }
}
