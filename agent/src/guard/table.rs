//! What the guard counts by: pure state, and the file that it stands in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use regent_core::id::{ApplicationId, ResourceId};
use regent_core::planted::{self, Mistake};
use regent_core::time::Span;
use serde::{Deserialize, Serialize};

use crate::lease::{Arm, Deadline, GuardWord, Reading};

/// Of the file's format.
const FORMAT: u32 = 1;

/// The deadlines of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Table {
    format: u32,
    boot: String,
    entries: BTreeMap<ApplicationId, Watched>,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Watched {
    /// The lease.
    pub arm: Arm,
    /// When the guard goes hard: the lease end, or F/2 later once the agent's gentle fence has begun.
    pub until: Deadline,
    /// What it ends then.
    pub resources: BTreeSet<ResourceId>,
    /// Where it stands.
    pub state: WatchState,
}

/// Where the guard stands with one application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WatchState {
    /// Counting.
    Armed,
    /// The agent's gentle fence has begun; the deadline was moved, once.
    Moved,
    /// The deadline has passed; the databases are being ended.
    Firing,
    /// They have been seen gone. Stays until the agent has taken note.
    Fired,
}

impl Table {
    /// An empty one for this boot.
    #[must_use]
    pub const fn new(boot: String) -> Self {
        Self { format: FORMAT, boot, entries: BTreeMap::new() }
    }

    /// Reads the file back. One of another boot says nothing: its clocks began anew, and every database came up
    /// closed at rest.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or is none of this release.
    pub fn load(path: &Path, boot: &str) -> io::Result<Self> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::new(boot.to_owned())),
            Err(error) => return Err(error),
        };
        let table: Self = serde_json::from_slice(&text).map_err(io::Error::other)?;
        if table.format != FORMAT {
            return Err(io::Error::other(format!("format {} is not known to this release", table.format)));
        }
        Ok(if table.boot == boot { table } else { Self::new(boot.to_owned()) })
    }

    /// Writes the file whole. It lies in memory: nothing is brought to a disk.
    ///
    /// # Errors
    /// If it cannot be written; the old one stays.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        std::fs::rename(&new, path)
    }

    /// By application.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<ApplicationId, Watched> {
        &self.entries
    }

    /// Counts by this from now on. Refused while it fences, and after it has until the agent has taken note.
    pub fn arm(&mut self, application: &ApplicationId, resources: BTreeSet<ResourceId>, arm: Arm) {
        let busy = |watched: &Watched| matches!(watched.state, WatchState::Firing | WatchState::Fired);
        if !self.entries.get(application).is_some_and(busy) {
            let watched = Watched { arm, until: arm.until, resources, state: WatchState::Armed };
            self.entries.insert(application.clone(), watched);
        }
    }

    /// The agent's gentle fence has begun. Only once for one lease end, and never beyond what a fence may take.
    pub fn move_once(&mut self, application: &ApplicationId, until: Deadline) {
        if let Some(watched) = self.entries.get_mut(application)
            && watched.state == WatchState::Armed
        {
            watched.state = WatchState::Moved;
            watched.until = until;
        }
    }

    /// Forgets the application: its fence is confirmed, or what the guard did has been taken note of.
    pub fn disarm(&mut self, application: &ApplicationId) {
        let firing = self.entries.get(application).is_some_and(|watched| watched.state == WatchState::Firing);
        if !firing {
            self.entries.remove(application);
        }
    }

    /// Applications whose deadline has passed: they are fencing from here on. Those that a former guard process left
    /// half way are among them if `again` is set.
    pub fn take_due(&mut self, now: Reading, again: bool) -> Vec<ApplicationId> {
        let mut due = Vec::new();
        for (application, watched) in &mut self.entries {
            let fires = match watched.state {
                WatchState::Armed => watched.counts() && watched.until.passed(now),
                WatchState::Moved => watched.until.passed(now),
                WatchState::Firing => again,
                WatchState::Fired => false,
            };
            if fires {
                watched.state = WatchState::Firing;
                if !planted::makes(Mistake::GuardAsleep) {
                    due.push(application.clone());
                }
            }
        }
        due
    }

    /// Applications that nobody will fence once this guard is gone, whether their deadline has passed or not: they are
    /// fencing from here on.
    pub fn take_all(&mut self) -> Vec<ApplicationId> {
        let counts = |watched: &Watched| match watched.state {
            WatchState::Armed => watched.counts(),
            WatchState::Moved | WatchState::Firing => true,
            WatchState::Fired => false,
        };
        let mut left = Vec::new();
        for (application, watched) in self.entries.iter_mut().filter(|(_, watched)| counts(watched)) {
            watched.state = WatchState::Firing;
            left.push(application.clone());
        }
        left
    }

    /// The databases of the application have been seen gone.
    pub fn fired(&mut self, application: &ApplicationId) {
        if let Some(watched) = self.entries.get_mut(application) {
            watched.state = WatchState::Fired;
        }
    }

    /// Until the next deadline.
    #[must_use]
    pub fn next(&self, now: Reading) -> Option<Span> {
        let counting = self.entries.values().filter(|watched| match watched.state {
            WatchState::Armed => watched.counts(),
            WatchState::Moved => true,
            WatchState::Firing | WatchState::Fired => false,
        });
        counting.map(|watched| watched.until.left_for_holder(now)).min()
    }

    /// True if there is nothing left to do: the guard may end.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let idle = |watched: &Watched| match watched.state {
            WatchState::Fired => true,
            WatchState::Armed => watched.arm.early,
            WatchState::Moved | WatchState::Firing => false,
        };
        self.entries.values().all(idle)
    }
}

impl Watched {
    /// At its deadline it fences: not in a pause, and not before it is stored that this cluster leads. A primary that
    /// never had a lease is not touched.
    const fn counts(&self) -> bool {
        !self.arm.paused && !self.arm.early
    }

    /// What it tells an agent that starts.
    #[must_use]
    pub const fn word(&self) -> GuardWord {
        match self.state {
            WatchState::Armed => GuardWord::Armed(self.arm),
            WatchState::Moved | WatchState::Firing => GuardWord::Fencing(self.arm),
            WatchState::Fired => GuardWord::Fired(self.arm),
        }
    }
}

#[cfg(test)]
mod tests {
    use regent_core::id::{Epoch, LogIndex, Token};
    use regent_core::time::Moment;

    use super::*;

    fn at(millis: u64) -> Reading {
        Reading { boottime: Moment(millis), raw: Moment(millis) }
    }

    fn arm(until: u64) -> Arm {
        let terms = Token { restoration: 0, index: LogIndex(1) };
        let until = at(until).after(Span::ZERO);
        Arm { epoch: Epoch(1), terms, until, span: Span::from_secs(1), paused: false, early: false }
    }

    fn armed(until: u64) -> (Table, ApplicationId) {
        let application = ApplicationId::new("shop").unwrap();
        let mut table = Table::new("boot".to_owned());
        table.arm(&application, BTreeSet::new(), arm(until));
        (table, application)
    }

    #[test]
    fn it_goes_off_at_the_deadline_once() {
        let (mut table, application) = armed(100);
        assert_eq!(table.next(at(40)), Some(Span::from_millis(60)));
        assert_eq!(table.take_due(at(99), false), []);
        assert_eq!(table.take_due(at(100), false), std::slice::from_ref(&application));
        assert_eq!(table.take_due(at(101), false), []);
        table.arm(&application, BTreeSet::new(), arm(500));
        table.disarm(&application);
        assert_eq!(table.entries()[&application].state, WatchState::Firing, "nothing stops it half way");
        table.fired(&application);
        table.arm(&application, BTreeSet::new(), arm(500));
        assert_eq!(table.entries()[&application].state, WatchState::Fired, "until it has been taken note of");
        table.disarm(&application);
        table.arm(&application, BTreeSet::new(), arm(500));
        assert_eq!(table.next(at(400)), Some(Span::from_millis(100)));
    }

    #[test]
    fn it_is_moved_once() {
        let (mut table, application) = armed(100);
        table.move_once(&application, at(150).after(Span::ZERO));
        table.move_once(&application, at(900).after(Span::ZERO));
        assert_eq!(table.take_due(at(149), false), []);
        assert_eq!(table.take_due(at(150), false), [application]);
    }

    #[test]
    fn a_pause_does_not_go_off() {
        let (mut table, application) = armed(100);
        table.arm(&application, BTreeSet::new(), Arm { paused: true, ..arm(100) });
        assert_eq!((table.take_due(at(900), false), table.next(at(0))), (Vec::new(), None));
    }

    #[test]
    fn it_does_not_go_off_for_a_primary_that_never_had_a_lease() {
        let (mut table, application) = armed(100);
        table.arm(&application, BTreeSet::new(), Arm { early: true, ..arm(100) });
        assert_eq!((table.take_due(at(900), true), table.next(at(0))), (Vec::new(), None));
        assert!(table.is_idle());
        table.arm(&application, BTreeSet::new(), arm(1_000));
        assert_eq!(table.take_due(at(1_000), false), [application], "once it leads it goes off");
    }

    #[test]
    fn the_file_counts_only_within_its_boot() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("guard.json");
        let (mut table, application) = armed(100);
        assert_eq!(table.take_due(at(100), false), std::slice::from_ref(&application));
        table.store(&path).unwrap();
        let mut read = Table::load(&path, "boot").unwrap();
        assert_eq!(read, table);
        assert_eq!(read.take_due(at(100), true), [application], "a fence half done is done again");
        assert!(Table::load(&path, "next boot").unwrap().entries().is_empty());
        std::fs::write(&path, "{").unwrap();
        assert!(Table::load(&path, "boot").is_err());
    }
}
