//! No silent loss. Replication is closed towards the past: whoever has a row has everything that was written before it. So
//! in one reign, and in one database, what is missing in the end is the end of what was acknowledged there, and the report
//! of the run that ended the reign says so.
//!
//! Writers work side by side. Of two rows one was surely written before the other only where it was acknowledged before the
//! other was tried first.

use std::collections::BTreeSet;
use std::time::Instant;

use regent_deploy::config::{CACHE, DATABASE};

use super::{Evidence, Row, Said};
use crate::crew::Way;

/// The least that a row takes in the log of PostgreSQL: a heap tuple, an index tuple, a commit.
const IN_POSTGRES: u64 = 128;
/// And in the stream of Redis: `SET row:1 1` as an array of three.
const IN_REDIS: u64 = 31;

/// Every acknowledged row is there, or was admitted to be lost. `placed`: rows by the place of their reign.
pub(super) fn lost_rows(evidence: &Evidence, placed: &[Vec<Row<'_>>]) -> Vec<String> {
    let mut broken = Vec::new();
    for (resource, way, size, rows) in
        [(DATABASE, Way::Postgres, IN_POSTGRES, &evidence.rows[0]), (CACHE, Way::Redis, IN_REDIS, &evidence.rows[1])]
    {
        let reigns: Vec<Kept<'_>> = placed.iter().map(|all| Kept::of(all, way, rows)).collect();
        let database = Database { evidence, resource, size, reigns };
        for at in 0..database.reigns.len() {
            broken.extend(database.hole(at));
        }
        broken.extend(database.unadmitted());
    }
    broken
}

/// The rows of one reign in one database.
struct Kept<'e> {
    there: Vec<Row<'e>>,
    missing: Vec<Row<'e>>,
}

impl<'e> Kept<'e> {
    fn of(all: &[Row<'e>], way: Way, rows: &BTreeSet<i64>) -> Self {
        let written = all.iter().copied().filter(|row| row.sheet.way == Way::Name || row.sheet.way == way);
        let (there, missing) = written.partition(|row| rows.contains(&row.ack.n));
        Self { there, missing }
    }
}

struct Database<'e> {
    evidence: &'e Evidence,
    resource: &'static str,
    size: u64,
    /// By their place among all reigns.
    reigns: Vec<Kept<'e>>,
}

impl Database<'_> {
    /// What is missing although something is there that was written after it.
    fn hole(&self, at: usize) -> Option<String> {
        let kept = &self.reigns[at];
        let last = kept.there.iter().max_by_key(|row| row.tried)?;
        let holes: Vec<i64> = kept.missing.iter().filter(|row| row.ack.at < last.tried).map(|row| row.ack.n).collect();
        (!holes.is_empty()).then(|| {
            format!(
                "{} rows that {} acknowledged in epoch {} are not in {}, though row {} is, which was written after them: {holes:?}",
                holes.len(),
                last.ack.by,
                self.evidence.reigns[at].epoch,
                self.resource,
                last.ack.n
            )
        })
    }

    /// What is missing and no report speaks of, reign by reign.
    fn unadmitted(&self) -> Vec<String> {
        let mut broken = Vec::new();
        // What each decision has to answer for, of what its report counts.
        let mut counted = vec![Vec::new(); self.reigns.len()];
        for (at, kept) in self.reigns.iter().enumerate() {
            let mut silent = Vec::new();
            for row in &kept.missing {
                match self.lost_by(at, row) {
                    Some(Word::Uncounted) => {}
                    Some(Word::Counted { by }) => counted[by].push(row.ack.n),
                    None => silent.push(row.ack.n),
                }
            }
            let reigns = at + 1 == self.reigns.len();
            let why = if reigns { "and its cluster is the primary" } else { "and no report admits it" };
            if let Some(first) = kept.missing.iter().find(|row| silent.contains(&row.ack.n)) {
                let epoch = self.evidence.reigns[at].epoch;
                broken.push(format!(
                    "{} rows that {} acknowledged in epoch {epoch} are not in {}, {why}: {silent:?}",
                    silent.len(),
                    first.ack.by,
                    self.resource
                ));
            }
        }
        for (by, numbers) in counted.into_iter().enumerate() {
            let said = self.evidence.reigns[by].said.get(self.resource).and_then(|said| said.bytes).unwrap_or_default();
            let least = numbers.len() as u64 * self.size;
            if least > said {
                broken.push(format!(
                    "the report of epoch {} says that {said} bytes of what was reported may be missing in {}; {} rows of it \
                     are, at least {least} bytes: {numbers:?}",
                    self.evidence.reigns[by].epoch,
                    self.resource,
                    numbers.len()
                ));
            }
        }
        broken
    }

    /// Which decision lost a row of this reign, and whether its report counts it. A later one may have: where the new side
    /// had nothing of the reigns between.
    fn lost_by(&self, at: usize, row: &Row<'_>) -> Option<Word> {
        for by in at + 1..self.reigns.len() {
            if let Some(word) = self.word(by, row) {
                return Some(word);
            }
            if !self.reigns[by].there.is_empty() {
                return None;
            }
        }
        None
    }

    fn word(&self, by: usize, row: &Row<'_>) -> Option<Word> {
        let reign = &self.evidence.reigns[by];
        let said = reign.said.get(self.resource).filter(|_| !reign.switched)?;
        let Some(bytes) = said.bytes else { return Some(Word::Uncounted) };
        let counted = self.counted_until(by, said).is_none_or(|until| row.ack.at + self.evidence.tolerance <= until);
        match (counted, bytes) {
            (false, _) => Some(Word::Uncounted),
            (true, 0) => None,
            (true, _) => Some(Word::Counted { by }),
        }
    }

    /// Until when what was acknowledged is counted in a report; where it does not say so, until the primary was cut off.
    fn counted_until(&self, by: usize, said: &Said) -> Option<Instant> {
        let (began, ended) = (self.evidence.reigns[by - 1].from, self.evidence.reigns[by].from);
        let within = |at: &Instant| began.is_none_or(|began| *at >= began) && ended.is_none_or(|ended| *at <= ended);
        said.counted_until.or_else(|| self.evidence.cut_off.iter().copied().filter(within).max())
    }
}

/// What a report says of a row that is missing.
enum Word {
    /// It was acknowledged after the last report of the primary, or nobody knows how much is missing.
    Uncounted,
    /// It is among the bytes that may be missing.
    Counted {
        /// The place of the reign whose decision lost it.
        by: usize,
    },
}
