//! When a fault strikes: as soon as the run comes to a step of a kind that was drawn, and not after a time that may be longer
//! than the run. What it met is read afterwards from the run itself: both go by the wall clock of this machine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use rand::rngs::StdRng;
use regent_deploy::wait;
use regent_deploy::world::World;
use serde_json::Value;

use super::PATIENCE;
use super::fault::Fault;

/// Those that keep writes out, and those that follow while they are out.
const KINDS: [&str; 6] = ["fence", "catchUp", "promote", "redirect", "activate", "rejoin"];

/// What a fault met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// Kinds of the steps under way, or where between them it was.
    pub step: String,
    /// The run was open, and had begun to keep writes out.
    pub counts: bool,
}

/// A kind of step.
pub fn draw(dice: &mut StdRng, fault: Fault) -> &'static str {
    let drawn = KINDS.get(dice.random_range(0..KINDS.len())).copied().unwrap_or("fence");
    // It has to stand still before there is something to catch up with.
    if fault == Fault::DelayReplay { "wait" } else { drawn }
}

/// Waits until the first run above this one has begun a step of this kind, or is over.
///
/// # Errors
/// Neither comes.
pub async fn reached(world: &World, before: u64, kind: &str) -> Result<()> {
    wait::until("a step of the run", PATIENCE, || async {
        let runs = world.ctl().runs().await?;
        let run = runs.iter().find(|run| run.id > before).context("there is no run")?;
        let begun = run.steps.iter().any(|step| step.kind == kind && step.state() != "pending");
        ensure!(begun || run.is_over(), "run {} has begun no {kind}", run.id);
        Ok(())
    })
    .await
}

/// What a fault met that struck then, and lasted so long. `run` is what the command line prints as JSON of one that is over.
///
/// # Errors
/// It cannot be read.
pub fn met(run: &str, struck: Timestamp, lasts: Duration) -> Result<Met> {
    let run: Value = serde_json::from_str(run)?;
    let run = run.get("run").context("the answer has no run")?;
    let (mut under_way, mut closed, mut last) = (Vec::new(), None::<Timestamp>, None::<Timestamp>);
    for step in run["steps"].as_array().context("the run has no steps")? {
        let Some(started) = stamp(&step["started"]) else { continue };
        let kind = step["kind"].as_str().unwrap_or_default();
        let ended = stamp(&step["ended"]);
        if matches!(kind, "fence" | "quiesce" | "deactivate") {
            closed = Some(closed.map_or(started, |earlier| earlier.min(started)));
        }
        let until = ended.unwrap_or(started);
        last = Some(last.map_or(until, |later| later.max(until)));
        if started <= struck && ended.is_none_or(|ended| struck < ended) && !under_way.contains(&kind) {
            under_way.push(kind);
        }
    }
    let over = stamp(&run["ended"]).or(last);
    let is_over = over.is_some_and(|over| over <= struck);
    let end = struck + SignedDuration::try_from(lasts)?;
    let counts = !is_over && closed.is_some_and(|closed| closed <= end);
    let step = if is_over {
        "its end".to_owned()
    } else if under_way.is_empty() {
        "no step".to_owned()
    } else {
        under_way.join(", ")
    };
    Ok(Met { step, counts })
}

fn stamp(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// So many milliseconds into the run.
    fn at(millis: i64) -> Timestamp {
        let start: Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
        start + SignedDuration::from_millis(millis)
    }

    fn run() -> String {
        let step = |kind: &str, from: i64, to: i64| json!({ "kind": kind, "started": at(from).to_string(), "ended": at(to).to_string() });
        let pending = json!({ "kind": "unfence" });
        let steps = [
            step("wait", 0, 1_000),
            step("fence", 1_000, 1_050),
            step("fence", 1_000, 1_080),
            step("catchUp", 1_080, 1_100),
            step("promote", 1_120, 1_200),
            step("rejoin", 1_200, 1_900),
            pending,
        ];
        json!({ "run": { "id": 7, "ended": at(1_910).to_string(), "steps": steps } }).to_string()
    }

    #[test]
    fn only_what_strikes_an_open_run_that_keeps_writes_out_counts() {
        let met = |millis, lasts| met(&run(), at(millis), Duration::from_millis(lasts)).unwrap();
        let cases = [
            (500, 0, "wait", false),
            // What stands still until the old side is closed.
            (500, 1_500, "wait", true),
            (1_040, 0, "fence", true),
            (1_110, 0, "no step", true),
            (1_300, 0, "rejoin", true),
            (1_910, 0, "its end", false),
            (9_000, 1_500, "its end", false),
        ];
        for (millis, lasts, step, counts) in cases {
            assert_eq!(met(millis, lasts), Met { step: step.to_owned(), counts }, "after {millis} ms");
        }
    }

    #[test]
    fn a_run_that_never_closed_anything_is_not_struck() {
        let text =
            json!({ "run": { "id": 7, "steps": [{ "kind": "wait", "started": at(0).to_string() }] } }).to_string();
        assert!(!met(&text, at(0), Duration::ZERO).unwrap().counts);
    }
}
