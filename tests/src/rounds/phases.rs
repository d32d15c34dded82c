//! When what happened in a switchover, against the last acknowledgement of the old side.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

/// In milliseconds; negative: before the last acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Phases {
    /// The commit of the first intent and of the last outcome of each kind of step, in order, and the longest time that
    /// a driver took.
    pub steps: Vec<(String, i64, i64, i64)>,
    /// The decision.
    pub decided: i64,
    /// The first acknowledgement of the new side.
    pub first: i64,
}

/// Out of a run as the command line prints it.
///
/// # Errors
/// It cannot be read.
pub fn read(text: &str, last: jiff::Timestamp, first: jiff::Timestamp) -> Result<Phases> {
    let answer: Value = serde_json::from_str(text)?;
    let run = answer.get("run").context("the answer has no run")?;
    let since = |stamp: jiff::Timestamp| stamp.as_millisecond() - last.as_millisecond();
    let mut steps: Vec<(String, i64, i64, i64)> = Vec::new();
    for step in run["steps"].as_array().context("the run has no steps")? {
        let (Some(started), Some(ended)) = (stamp(&step["started"]), stamp(&step["ended"])) else { continue };
        let kind = step["kind"].as_str().unwrap_or_default();
        let driver = step["report"]["driver"].as_str().unwrap_or("0s").trim_end_matches('s').parse::<f64>()?;
        #[allow(clippy::cast_possible_truncation, reason = "milliseconds")]
        let driver = (driver * 1000.0) as i64;
        let (started, ended) = (since(started), since(ended));
        match steps.iter_mut().find(|(known, ..)| known == kind) {
            Some((_, from, to, longest)) => {
                (*from, *to, *longest) = ((*from).min(started), (*to).max(ended), (*longest).max(driver));
            }
            None => steps.push((kind.to_owned(), started, ended, driver)),
        }
    }
    let decided = stamp(&run["decision"]["at"]).map(since).unwrap_or_default();
    Ok(Phases { steps, decided, first: since(first) })
}

fn stamp(value: &Value) -> Option<jiff::Timestamp> {
    value.as_str()?.parse().ok()
}

/// The medians of each number, as lines.
#[must_use]
pub fn table(all: &[Phases]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut columns: BTreeMap<String, [Vec<i64>; 3]> = BTreeMap::new();
    for (kind, started, ended, driver) in all.iter().flat_map(|phases| &phases.steps) {
        if !order.contains(kind) {
            order.push(kind.clone());
        }
        let column = columns.entry(kind.clone()).or_default();
        for (numbers, number) in column.iter_mut().zip([started, ended, driver]) {
            numbers.push(*number);
        }
    }
    let mut lines =
        vec!["step         intent    end   driver   (ms after the last acknowledgement of the old side)".to_owned()];
    for kind in order {
        let Some([started, ended, driver]) = columns.get_mut(&kind) else { continue };
        lines.push(format!("{kind:<12} {:>6} {:>6} {:>8}", middle(started), middle(ended), middle(driver)));
    }
    let mut decided: Vec<i64> = all.iter().map(|phases| phases.decided).collect();
    let mut first: Vec<i64> = all.iter().map(|phases| phases.first).collect();
    lines.push(format!("decided      {:>6}", middle(&mut decided)));
    lines.push(format!("first write  {:>6}", middle(&mut first)));
    lines
}

fn middle(numbers: &mut [i64]) -> i64 {
    numbers.sort_unstable();
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
