//! Following a run: each step is told when it changes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use super::Terminal;
use crate::config::APPLICATION;
use crate::ctl::Run;
use crate::world::World;

const PACE: Duration = Duration::from_millis(200);

/// Follows the newest run of the application to its good end, and gives its number.
pub(super) async fn run(world: &World, terminal: &Terminal, within: Duration) -> Result<u64> {
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
            Ok(None) => {}
            // While the coordinators elect a leader, an answer may have to wait.
            Err(error) => last = error,
        }
        tokio::time::sleep(PACE).await;
    }
    Err(last.context(format!("there was no failover within {:.0} s", within.as_secs_f32())))
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
            terminal.say(&format!("run {}: {:<20} {state:<10} {}", run.id, what.trim(), step.message()));
        }
    }
}
