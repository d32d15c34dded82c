//! How soon the old primary served again once a switchover was being undone, as its clients saw it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use regent_deploy::config::DATABASE;
use serde_json::Value;

use super::client::Sheet;
use super::fault::Fault;

/// Who undoes is there: a leader that commands and an agent that opens.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(1);
/// One of them was killed or stood still: another one leads first, or the agent gets its lease back.
const WHEN_BACK: Duration = Duration::from_secs(10);

/// How long it may take after this fault.
#[must_use]
pub const fn bound(fault: Option<Fault>) -> Duration {
    match fault {
        None | Some(Fault::KillTarget | Fault::FreezeTarget | Fault::DelayReplay) => AT_ONCE,
        Some(Fault::KillLeader | Fault::FreezeLeader | Fault::KillSource | Fault::FreezeSource) => WHEN_BACK,
    }
}

/// From the beginning of the undo to the first row of each client after its kind of database was told to open; the longest.
/// None if nothing had been closed. `run` and `audit` are what the command line prints as JSON: an undo that begins by itself
/// is told by no other clock. How long writers were kept out in all is measured by themselves.
///
/// # Errors
/// They cannot be read, or nobody has written since.
pub fn served_after(run: &str, audit: &str, sheets: &[Sheet]) -> Result<Option<Duration>> {
    let run: Value = serde_json::from_str(run)?;
    let run = run.get("run").context("the answer has no run")?;
    let steps = run["steps"].as_array().context("the run has no steps")?;
    let mut opened: Vec<(bool, Timestamp)> = Vec::new();
    for step in steps.iter().filter(|step| step["kind"] == "unfence") {
        let Some(started) = step["started"].as_str() else { continue };
        opened.push((step["resource"] != DATABASE, started.parse()?));
    }
    let Some(first) = opened.iter().map(|(_, started)| *started).min() else { return Ok(None) };
    let audit: Value = serde_json::from_str(audit)?;
    let began = begun(&audit, run)?.map_or(first, |said| said.min(first));
    let mut longest = Duration::ZERO;
    for (redis, started) in opened {
        let (since, told) = (instant(began), instant(started));
        for sheet in sheets.iter().filter(|sheet| sheet.redis == redis) {
            let served = sheet.acknowledged.iter().map(|row| row.at).find(|at| *at >= told);
            let served = served.with_context(|| format!("client {} has not written since the undo", sheet.client))?;
            longest = longest.max(served.saturating_duration_since(since));
        }
    }
    Ok(Some(longest))
}

/// When it was said to be undone; none where the failure of a step was enough.
fn begun(audit: &Value, run: &Value) -> Result<Option<Timestamp>> {
    let records = audit["records"].as_array().context("the audit has no records")?;
    let said = records.iter().filter(|record| record["run"] == run["id"]);
    let said = said.filter(|record| matches!(record["event"].as_str(), Some("undo" | "aborted")));
    let stamps = said.filter_map(|record| record["at"].as_str()).map(str::parse::<Timestamp>);
    Ok(stamps.collect::<Result<Vec<_>, _>>()?.into_iter().min())
}

/// A time of the wall clock by the clock of this process.
fn instant(wall: Timestamp) -> Instant {
    let now = Instant::now();
    let ago = Duration::try_from(Timestamp::now().duration_since(wall)).unwrap_or_default();
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use jiff::SignedDuration;
    use regent_deploy::writer::Acknowledged;
    use serde_json::json;

    use super::*;

    /// A client with rows that were acknowledged so many milliseconds ago.
    fn sheet(redis: bool, ago: &[u64]) -> Sheet {
        let row = |(n, ago): (i64, &u64)| {
            let at = Instant::now().checked_sub(Duration::from_millis(*ago)).unwrap();
            Acknowledged { n, sent: at, at, by: IpAddr::from([127, 0, 0, 1]) }
        };
        Sheet { redis, acknowledged: (1..).zip(ago).map(row).collect(), ..Sheet::default() }
    }

    fn stamp(ago: i64) -> String {
        (Timestamp::now() - SignedDuration::from_millis(ago)).to_string()
    }

    fn run(opened: &[(&str, i64)]) -> String {
        let step =
            |(resource, ago): &(&str, i64)| json!({ "kind": "unfence", "resource": resource, "started": stamp(*ago) });
        let pending = json!({ "kind": "unfence", "resource": "never" });
        let steps: Vec<Value> = opened.iter().map(step).chain([pending]).collect();
        json!({ "run": { "id": 7, "steps": steps } }).to_string()
    }

    #[test]
    fn the_slower_of_the_databases_counts_from_the_word_on() {
        let audit = json!({ "records": [
            { "run": 6, "event": "undo", "at": stamp(90_000) }, { "run": 7, "event": "undo", "at": stamp(9_000) },
        ] });
        let run = run(&[(DATABASE, 8_900), ("cache", 8_950)]);
        // A row of before, then 400 ms and 700 ms after the word.
        let sheets = [sheet(false, &[9_500, 8_600, 8_000]), sheet(true, &[9_400, 8_300])];
        let served = served_after(&run, &audit.to_string(), &sheets).unwrap().unwrap();
        assert!((680..760).contains(&served.as_millis()), "{served:?}");
        // One client that is served says nothing of another one.
        let slower = [sheet(false, &[9_500, 8_600]), sheet(false, &[9_500, 7_600]), sheet(true, &[9_400, 8_300])];
        let served = served_after(&run, &audit.to_string(), &slower).unwrap().unwrap();
        assert!((1_380..1_460).contains(&served.as_millis()), "{served:?}");
        let silent = [sheet(false, &[9_500, 8_600]), sheet(false, &[9_500]), sheet(true, &[8_300])];
        assert!(served_after(&run, &audit.to_string(), &silent).is_err());
    }

    #[test]
    fn what_was_never_closed_is_not_waited_for() {
        let audit = json!({ "records": [] }).to_string();
        assert_eq!(served_after(&run(&[]), &audit, &[sheet(false, &[10])]).unwrap(), None);
        assert!(bound(Some(Fault::FreezeSource)) > bound(Some(Fault::FreezeTarget)));
    }
}
