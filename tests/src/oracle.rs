//! The judge: what writers were told, what the databases hold, and what the reports admit.
//!
//! | promise | what is looked at |
//! |---|---|
//! | S1 one writer | acknowledgements in the order in which they arrived: from one cluster to the next, never back without a new epoch |
//! | S2 epochs only rise | what every coordinator showed |
//! | no silent loss | every acknowledged row is in the last primary's databases, or its loss was admitted |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use regent_deploy::config::{CACHE, DATABASE};
use regent_deploy::ctl::Report;
use regent_deploy::writer::Acknowledged;

use crate::crew::{Sheet, Way};
use crate::epochs::Sighting;

/// Everything that is judged.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Of all writers.
    pub sheets: Vec<Sheet>,
    /// Of all coordinators, in order.
    pub epochs: Vec<Sighting>,
    /// How often the epoch rose.
    pub changes: u64,
    /// The cluster that is primary in the end.
    pub primary: IpAddr,
    /// Rows in its PostgreSQL and in its Redis.
    pub rows: [BTreeSet<i64>; 2],
    /// Of all runs.
    pub reports: Vec<Report>,
    /// When primaries were cut off or lost. Rows that such a primary acknowledged from there on, before another cluster
    /// did, are beyond its last report; the reports say that such rows are not counted.
    pub cut_off: Vec<Instant>,
}

/// What was broken, in words; empty if all held.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<String> {
    [overlaps(evidence), lost_rows(evidence), fallen_epochs(evidence)].concat()
}

/// S1: the acknowledgements change over from one cluster to another at most as often as the epoch rose.
fn overlaps(evidence: &Evidence) -> Vec<String> {
    let all = in_order(evidence);
    let changes: Vec<_> = all.windows(2).filter(|pair| pair[0].by != pair[1].by).collect();
    if changes.len() as u64 <= evidence.changes {
        return Vec::new();
    }
    let told: Vec<String> = changes
        .iter()
        .take(6)
        .map(|pair| {
            let apart = pair[1].at.duration_since(pair[0].at).as_secs_f64() * 1000.0;
            format!("{} ({}), {apart:.1} ms later {} ({})", pair[0].by, pair[0].n, pair[1].by, pair[1].n)
        })
        .collect();
    vec![format!(
        "S1: the epoch rose {} times, but acknowledgements changed over {} times: {}",
        evidence.changes,
        changes.len(),
        told.join("; ")
    )]
}

/// All acknowledgements, as they arrived.
fn in_order(evidence: &Evidence) -> Vec<&Acknowledged> {
    let mut all: Vec<&Acknowledged> = evidence.sheets.iter().flat_map(|sheet| &sheet.record.acknowledged).collect();
    all.sort_by_key(|row| row.at);
    all
}

/// Who reigned when it was cut off, from when, and until when another acknowledged.
fn unreported(evidence: &Evidence) -> Vec<(IpAddr, Instant, Option<Instant>)> {
    let all = in_order(evidence);
    let reigns = evidence.cut_off.iter().filter_map(|from| {
        let last = all.iter().take_while(|row| row.at <= *from).last().or(all.first())?;
        let next = all.iter().find(|row| row.at > *from && row.by != last.by);
        Some((last.by, *from, next.map(|row| row.at)))
    });
    reigns.collect()
}

/// Every acknowledged row is there, or admitted to be lost.
fn lost_rows(evidence: &Evidence) -> Vec<String> {
    let mut broken = Vec::new();
    // The primary may have reigned before, and what it had then may be lost like anybody's.
    let others = evidence.sheets.iter().flat_map(|sheet| &sheet.record.acknowledged);
    let last_reign = others.filter(|row| row.by != evidence.primary).map(|row| row.at).max();
    let unreported = unreported(evidence);
    for (resource, rows) in [DATABASE, CACHE].into_iter().zip(&evidence.rows) {
        let written = evidence.sheets.iter().filter(|sheet| match sheet.way {
            Way::Name => true,
            Way::Postgres => resource == DATABASE,
            Way::Redis => resource == CACHE,
        });
        let mut missing: BTreeMap<(IpAddr, &str), Vec<i64>> = BTreeMap::new();
        for row in written.flat_map(|sheet| &sheet.record.acknowledged).filter(|row| !rows.contains(&row.n)) {
            let reigns = row.by == evidence.primary && last_reign.is_none_or(|last| row.at > last);
            let left = !reigns && !evidence.reports.is_empty();
            let silent = unreported
                .iter()
                .any(|(by, from, until)| row.by == *by && row.at >= *from && until.is_none_or(|until| row.at < until));
            let admitted = evidence.reports.iter().any(|report| report.admits(resource, row));
            if !(left && (admitted || silent)) {
                let why = if left { "and no report admits it" } else { "and its cluster is the primary" };
                missing.entry((row.by, why)).or_default().push(row.n);
            }
        }
        for ((by, why), numbers) in missing {
            broken.push(format!(
                "{} rows that {by} acknowledged are not in {resource}, {why}: {numbers:?}",
                numbers.len()
            ));
        }
    }
    broken
}

/// S2: no coordinator ever showed a lower epoch than it had.
fn fallen_epochs(evidence: &Evidence) -> Vec<String> {
    let mut highest: BTreeMap<(usize, i32), u64> = BTreeMap::new();
    let mut broken = Vec::new();
    for sighting in &evidence.epochs {
        let last = highest.entry((sighting.region, sighting.process)).or_default();
        if sighting.epoch < *last {
            broken.push(format!(
                "S2: the coordinator of region {} went from epoch {last} to {}",
                sighting.region, sighting.epoch
            ));
        }
        *last = sighting.epoch.max(*last);
    }
    broken
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
