//! Reigns: who was primary from which decision on, and in which reign a row was acknowledged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use regent_deploy::ctl::{Decision, Loss, Report, Run};

use super::{Evidence, Row};

/// A report was made so long before it was heard, at most; see `regentctl report`.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The time of one primary: the epoch that one decision began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// Its number.
    pub epoch: u64,
    /// Whose.
    pub by: IpAddr,
    /// When it was decided, by the clock of the writers; none: at the start, or longer ago than that clock runs.
    pub from: Option<Instant>,
    /// By a switchover, which loses nothing.
    pub switched: bool,
    /// What was said of the losses of the reign before, by database.
    pub said: BTreeMap<String, Said>,
}

/// What a report says of one database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// At least so many bytes may be missing; none: nobody knows.
    pub bytes: Option<u64>,
    /// What was acknowledged until then is counted in them, by what the old primary reported itself; none: not known.
    pub counted_until: Option<Instant>,
}

/// All reigns: the one at the start, and what the runs decided. `address` is of a cluster by its name; `now` the same
/// moment by both clocks.
#[must_use]
pub fn reigns(
    first: (u64, IpAddr),
    reports: &[Report],
    address: impl Fn(&str) -> Option<IpAddr>,
    now: (Instant, jiff::Timestamp),
) -> Vec<Reign> {
    let start = Reign { epoch: first.0, by: first.1, from: None, switched: false, said: BTreeMap::new() };
    let decided = reports.iter().filter_map(|report| {
        let run = report.run.as_ref()?;
        let decision = run.decision.as_ref().filter(|decision| decision.epoch > first.0)?;
        let said = report.losses.iter().map(|loss| (loss.resource.clone(), said(run, decision, loss, now)));
        Some(Reign {
            epoch: decision.epoch,
            by: address(&run.to)?,
            from: instant(decision.at, now),
            switched: decision.ground == "switched",
            said: said.collect(),
        })
    });
    let mut all: Vec<Reign> = std::iter::once(start).chain(decided).collect();
    all.sort_by_key(|reign| reign.epoch);
    all
}

fn said(run: &Run, decision: &Decision, loss: &Loss, now: (Instant, jiff::Timestamp)) -> Said {
    let gap = run.finding.gaps.iter().find(|gap| gap.resource == loss.resource);
    let age = gap.and_then(|gap| gap.primary_age).map(|age| age + ON_ITS_WAY);
    let reported = age.and_then(|age| instant(decision.at, now)?.checked_sub(age));
    Said { bytes: loss.bytes, counted_until: loss.complete_until.and_then(|until| instant(until, now)).or(reported) }
}

/// A moment by the other clock.
fn instant(at: jiff::Timestamp, (here, there): (Instant, jiff::Timestamp)) -> Option<Instant> {
    let ago = there.duration_since(at);
    let distance = ago.unsigned_abs();
    if ago.is_negative() { here.checked_add(distance) } else { here.checked_sub(distance) }
}

/// S1. Each row, as they arrived, belongs to the first reign of its cluster that is not before the one of any row before
/// it, and in whose time it was acknowledged. Gives the rows by the place of their reign, and those that belong to none.
pub(super) fn place<'e>(rows: &[Row<'e>], evidence: &Evidence) -> (Vec<Vec<Row<'e>>>, Vec<String>) {
    let mut placed = vec![Vec::new(); evidence.reigns.len()];
    let (mut now, mut before) = (0, None);
    let (mut strangers, mut told) = (0, Vec::new());
    for row in rows {
        let found = (now..evidence.reigns.len()).find(|at| lies_in(evidence, *at, row));
        match found {
            Some(at) => {
                now = at;
                placed[at].push(*row);
            }
            None => {
                strangers += 1;
                if told.len() < 6 {
                    told.push(stranger(evidence, now, row, before));
                }
            }
        }
        before = Some(row);
    }
    let by_epoch: Vec<String> =
        evidence.reigns.iter().map(|reign| format!("{} of epoch {}", reign.by, reign.epoch)).collect();
    let broken = (strangers > 0).then(|| {
        format!(
            "S1: {strangers} rows were acknowledged in no reign of their cluster; there reigned {}: {}",
            by_epoch.join(", "),
            told.join("; ")
        )
    });
    (placed, broken.into_iter().collect())
}

/// Of this cluster, begun when the acknowledgement was here, and not over when the row was sent.
fn lies_in(evidence: &Evidence, at: usize, row: &Row<'_>) -> bool {
    let (reign, next) = (&evidence.reigns[at], evidence.reigns.get(at + 1));
    let begun = reign.from.is_none_or(|from| row.ack.at + evidence.tolerance >= from);
    let over = next.and_then(|next| next.from).is_some_and(|end| row.ack.sent > end + evidence.tolerance);
    reign.by == row.ack.by && begun && !over
}

fn stranger(evidence: &Evidence, now: usize, row: &Row<'_>, before: Option<&Row<'_>>) -> String {
    let reign = &evidence.reigns[now];
    let since = reign.from.map_or_else(String::new, |from| {
        let (sent, at) = (row.ack.sent, row.ack.at);
        let apart = |moment: Instant| {
            let ahead = moment.saturating_duration_since(from).as_secs_f64();
            ahead - from.saturating_duration_since(moment).as_secs_f64()
        };
        format!(
            ", sent {:.3} s and acknowledged {:.3} s after the decision of epoch {}",
            apart(sent),
            apart(at),
            reign.epoch
        )
    });
    let behind = before.map_or_else(String::new, |before| {
        let apart = row.ack.at.duration_since(before.ack.at).as_secs_f64() * 1000.0;
        format!(", {apart:.1} ms behind row {} of {}", before.ack.n, before.ack.by)
    });
    format!("row {} of {}{since}{behind}", row.ack.n, row.ack.by)
}
