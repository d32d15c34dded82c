//! The judge: what writers were told, what the databases hold, and what the reports admit.
//!
//! | promise | what is looked at |
//! |---|---|
//! | S1 one writer | every acknowledgement lies in a reign of its cluster: behind the decision of that reign, before the next one, and behind no row of a later reign |
//! | S2 epochs only rise | what every coordinator showed; and every epoch was decided by one run |
//! | no silent loss | in each reign and database what is missing is the end of what was acknowledged there, and the report of the run that ended the reign admits it |

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use regent_deploy::writer::Acknowledged;

use crate::crew::Sheet;
use crate::epochs::Sighting;

mod losses;
mod reigns;

pub use reigns::{Reign, Said, reigns};

/// Between the stamp of a decision, in milliseconds of a wall clock, and the clock of the writers.
pub const TOLERANCE: Duration = Duration::from_millis(250);

/// Everything that is judged.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// Of all writers.
    pub sheets: Vec<Sheet>,
    /// Of all coordinators, in order.
    pub epochs: Vec<Sighting>,
    /// From the one at the start to the last one that was decided, by their epochs.
    pub reigns: Vec<Reign>,
    /// The epoch in the end.
    pub epoch: u64,
    /// The cluster that is primary in the end.
    pub primary: IpAddr,
    /// Rows in its PostgreSQL and in its Redis.
    pub rows: [BTreeSet<i64>; 2],
    /// When primaries were cut off or lost. They date a loss whose report does not say when the primary reported last.
    pub cut_off: Vec<Instant>,
    /// How far the wall clock of who decided may be from the writers'.
    pub tolerance: Duration,
}

/// What was broken, in words; empty if all held.
#[must_use]
pub fn judge(evidence: &Evidence) -> Vec<String> {
    let all = in_order(evidence);
    let (placed, overlaps) = reigns::place(&all, evidence);
    [undecided(evidence), overlaps, losses::lost_rows(evidence, &placed), fallen_epochs(evidence)].concat()
}

/// A row with what is known of its writer.
#[derive(Debug, Clone, Copy)]
struct Row<'e> {
    sheet: &'e Sheet,
    ack: Acknowledged,
    /// When its number was tried first: what was not acknowledged may have been written all the same.
    tried: Instant,
}

/// All acknowledgements, as they arrived.
fn in_order(evidence: &Evidence) -> Vec<Row<'_>> {
    let mut all = Vec::new();
    for sheet in &evidence.sheets {
        let mut failures = sheet.record.failures.iter().peekable();
        for ack in &sheet.record.acknowledged {
            // A writer does one thing after the other: what failed since its last row was this one.
            let first = failures.next_if(|sent| **sent <= ack.sent).copied();
            while failures.next_if(|sent| **sent <= ack.sent).is_some() {}
            all.push(Row { sheet, ack: *ack, tried: first.unwrap_or(ack.sent) });
        }
    }
    all.sort_by_key(|row| row.ack.at);
    all
}

/// Every epoch since the start was decided, by one run, and the last one names the primary.
fn undecided(evidence: &Evidence) -> Vec<String> {
    let epochs: Vec<u64> = evidence.reigns.iter().map(|reign| reign.epoch).collect();
    let first = epochs.first().copied().unwrap_or_default();
    let mut broken = Vec::new();
    if !epochs.iter().copied().eq(first..=evidence.epoch) {
        let last = evidence.epoch;
        broken.push(format!("S2: of the epochs {first} to {last}, the first and {:?} were decided", &epochs[1..]));
    }
    if let Some(last) = evidence.reigns.last().filter(|last| last.by != evidence.primary) {
        let (decided, primary) = (last.by, evidence.primary);
        broken.push(format!("S2: epoch {} was decided for {decided}, and the primary is {primary}", last.epoch));
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
mod tests;
