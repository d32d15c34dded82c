//! Where the history of an upstream left this one's, and what lies behind that point here.
//!
//! ```text
//!  ours     ──────────────┤ S ├── nothing: it follows as it is
//!  upstream ──────────────┴──────────► next timeline
//!
//!  ours     ──────────────┤ S ├── checkpoint, running-xacts: rewound, and no row is lost by it
//!  ours     ──────────────┤ S ├── anything else: rewound, and that is thrown away
//! ```
//!
//! After a clean switchover nothing was written behind the position that the other side took over, unless a shutdown
//! checkpoint is added: so the old primary is ended without one. What was live is not trusted: the WAL of the stopped
//! server is read from S on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::fence::{WHERE_IT_STANDS, final_position};
use super::files::Following;
use super::session::{lsn, lsn_text};
use super::wal::{Rest, newest_timeline};
use super::{DISK_LIMIT, GLANCE, Postgres, STATEMENT_LIMIT, files, follow};
use crate::driver::DriverError;

/// Programs that only read or print.
const SHORT: Duration = Duration::from_secs(30);

/// How long a server may take to end without a checkpoint; it is killed then, which leaves the same.
const AT_ONCE_LIMIT: Duration = Duration::from_secs(5);

/// So many records behind the fork are looked at: enough to tell of what kind they are.
const RECORDS: &str = "1000";

/// What an upstream says of its own history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Theirs {
    /// Identity of the database.
    pub(super) system_id: String,
    /// Its timeline.
    pub(super) timeline: u32,
    /// How that came to be: the file of its history.
    pub(super) history: String,
}

/// One line of a history: from there on the timeline went on as its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) timeline: u32,
    pub(super) at: u64,
}

/// What lies behind the fork.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing: it can follow as it is.
    Nothing {
        /// The fork.
        at: u64,
    },
    /// Nothing of its own: an earlier attempt has pointed it at this upstream's history.
    Followed,
    /// Records that hold no data.
    NoData(String),
    /// Records that will be thrown away.
    Data(String),
    /// It cannot be told.
    Unknown(String),
}

impl Behind {
    /// For humans, where the database was rewound.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Nothing { at } => format!("nothing lay behind the fork at {}", lsn_text(*at)),
            Self::Followed => "an earlier attempt had got so far".to_owned(),
            Self::NoData(what) => format!("behind the fork lay no data, only {what}"),
            Self::Data(what) => format!("behind the fork lay {what}"),
            Self::Unknown(why) => format!("what lay behind the fork is not known: {why}"),
        }
    }
}

impl Postgres {
    /// Ends the server if it runs, without a checkpoint if nothing lies behind the fork so far, and says what does.
    pub(super) async fn stop_at_the_fork(
        &self,
        theirs: &Theirs,
        following: &Following,
        primary: bool,
    ) -> Result<Behind, DriverError> {
        if self.broken_off().await? {
            // A rewind or a copy that did not come to its end: what is there now is neither side's.
            self.stop().await?;
            return Ok(Behind::Unknown("an earlier attempt was broken off".to_owned()));
        }
        if self.follows_already(following).await? {
            self.stop().await?;
            return Ok(Behind::Followed);
        }
        let fork = match self.fork(theirs).await {
            Ok(fork) => fork,
            Err(why) => {
                self.stop().await?;
                return Ok(Behind::Unknown(why));
            }
        };
        if primary && self.stands_at().await.is_some_and(|at| at <= fork.at) {
            self.stop_at_once().await?;
        }
        self.stop().await?;
        Ok(self.behind(fork).await)
    }

    /// A rewind or a copy was begun here, and has not come to its end.
    pub(super) async fn broken_off(&self) -> Result<bool, DriverError> {
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "looking for a broken-off rewind", move || {
            Ok(follow::shelf(&data).exists() || data.join("backup_label").exists())
        })
        .await
    }

    /// An attempt that was broken off after it had started the server leaves segments of the upstream's own timeline, which
    /// is no part of that timeline's history. A promotion by hand leaves those of a later one.
    async fn follows_already(&self, following: &Following) -> Result<bool, DriverError> {
        let (data, following) = (self.data.clone(), following.clone());
        files::blocking(DISK_LIMIT, "looking for what is followed", move || {
            let noted = files::following(&data).is_some_and(|noted| noted == following);
            Ok(noted && newest_timeline(&data)?.is_some_and(|newest| newest <= following.timeline))
        })
        .await
    }

    async fn stands_at(&self) -> Option<u64> {
        final_position(&self.acting.row(WHERE_IT_STANDS, STATEMENT_LIMIT).await.ok()?)
    }

    /// Without a shutdown checkpoint, whose record would lie behind the fork.
    async fn stop_at_once(&self) -> Result<(), DriverError> {
        let Some(postmaster) = self.family().head().cloned() else { return Ok(()) };
        postmaster.signal(Signal::SIGQUIT).map_err(|error| {
            DriverError::retryable("postgres-stop", format!("cannot signal process {}: {error}", postmaster.pid))
        })?;
        let began = Instant::now();
        while !self.family().is_gone() {
            if began.elapsed() > AT_ONCE_LIMIT {
                return self.kill_all().await.map(drop);
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Where the upstream's history left the timeline that stands here; or why that cannot be told.
    pub(super) async fn fork(&self, theirs: &Theirs) -> Result<Left, String> {
        let data = self.data.clone();
        let read = files::blocking(DISK_LIMIT, "reading the names in pg_wal", move || {
            let newest = newest_timeline(&data)?;
            let history = |timeline: u32| std::fs::read_to_string(data.join("pg_wal").join(history_name(timeline)));
            Ok(newest.map(|timeline| (timeline, history(timeline))))
        });
        let (timeline, ours) = match read.await {
            Ok(Some((1, _))) => (1, String::new()),
            Ok(Some((timeline, Ok(history)))) => (timeline, history),
            Ok(Some((timeline, Err(error)))) => return Err(format!("{}: {error}", history_name(timeline))),
            Ok(None) => return Err("there is no WAL here".to_owned()),
            Err(error) => return Err(error.message),
        };
        fork(&parse(&ours), timeline, &parse(&theirs.history))
    }

    /// Reads the WAL of the stopped server from the fork on.
    async fn behind(&self, fork: Left) -> Behind {
        let program = match self.rest_of_wal(fork, format!("--limit={RECORDS}")).await {
            Ok(Rest::Read(program)) => program,
            Ok(Rest::Nothing) => return Behind::Nothing { at: fork.at },
            Err(why) => return Behind::Unknown(why),
        };
        match program.run(&self.children, SHORT).await {
            // The WAL ends somewhere: after the last record it says that there is none, and fails.
            Ok(finished) => judge(fork.at, &finished.output, &finished.errors),
            Err(error) => Behind::Unknown(error.failure("postgres-control").message),
        }
    }

    /// The upstream's history, where the server looks for it at its start: else it would first ask for a timeline that
    /// has ended.
    pub(super) async fn take_history(&self, theirs: &Theirs) -> Result<(), DriverError> {
        let (data, name, text) = (self.data.clone(), history_name(theirs.timeline), theirs.history.clone());
        files::blocking(DISK_LIMIT, "writing the upstream's history into pg_wal", move || {
            files::replace(&data.join("pg_wal").join(name), text.as_bytes(), files::Durability::Synced)
        })
        .await
    }
}

/// `00000002.history`.
pub(super) fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// `TIMELINE<tab>LSN<tab>REASON`, oldest first; comments and empty lines between.
pub(super) fn parse(history: &str) -> Vec<Left> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        Some(Left { timeline: words.next()?.parse().ok()?, at: lsn(words.next()?)? })
    };
    history.lines().filter_map(line).collect()
}

/// The numbers of two timelines may be the same and their histories not: all that came before must be the same, too.
fn fork(ours: &[Left], timeline: u32, theirs: &[Left]) -> Result<Left, String> {
    let Some(position) = theirs.iter().position(|left| left.timeline == timeline) else {
        return Err(format!("timeline {timeline} is no part of the upstream's history"));
    };
    if theirs.get(..position) != Some(ours) {
        return Err(format!("timeline {timeline} here and in the upstream's history began at different places"));
    }
    theirs.get(position).copied().ok_or_else(|| "the upstream's history ends".to_owned())
}

/// What `pg_waldump` found.
fn judge(at: u64, output: &str, errors: &str) -> Behind {
    let mut kinds: BTreeMap<(bool, String), u32> = BTreeMap::new();
    for line in output.lines().filter(|line| line.starts_with("rmgr:")) {
        let manager = line.split_ascii_whitespace().nth(1).unwrap_or_default();
        let what = line.split_once("desc: ").and_then(|(_, what)| what.split_ascii_whitespace().next());
        let what = what.unwrap_or_default();
        // Whole pages may hold rows.
        let data = !matches!(manager, "XLOG" | "Standby") || what == "FPI";
        *kinds.entry((!data, format!("{manager} {what}"))).or_default() += 1;
    }
    let list = |data: bool| {
        let of = kinds.iter().filter(|((no_data, _), _)| !data || !no_data);
        of.map(|((_, kind), count)| format!("{count} × {kind}")).collect::<Vec<_>>().join(", ")
    };
    if kinds.keys().any(|(no_data, _)| !no_data) {
        return Behind::Data(list(true));
    }
    if !kinds.is_empty() {
        return Behind::NoData(list(false));
    }
    let ends = ["could not find a valid record after", "could not find file"];
    if ends.iter().any(|end| errors.contains(end)) {
        return Behind::Nothing { at };
    }
    Behind::Unknown(format!("pg_waldump: {}", errors.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWITCHED: &str = "1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tno recovery target specified\n";

    #[test]
    fn the_fork_is_where_their_history_left_ours() {
        let theirs = parse(SWITCHED);
        assert_eq!(fork(&[], 1, &theirs).unwrap(), Left { timeline: 1, at: 0x300_0148 });
        let ours = parse("1\t0/3000148\tno recovery target specified\n");
        assert_eq!(fork(&ours, 2, &theirs).unwrap(), Left { timeline: 2, at: 0x500_00A0 });
    }

    #[test]
    fn equal_numbers_are_not_equal_histories() {
        let theirs = parse(SWITCHED);
        assert!(fork(&parse("1\t0/3000150\tx\n"), 2, &theirs).is_err(), "promoted at another place");
        assert!(fork(&[], 2, &theirs).is_err());
        assert!(fork(&theirs, 3, &theirs).is_err(), "theirs has not left it, or it is another one");
    }

    #[test]
    fn what_lies_behind_is_told_by_its_records() {
        let nothing = "pg_waldump: error: could not find a valid record after 0/3000148\n";
        assert_eq!(judge(7, "", nothing), Behind::Nothing { at: 7 });
        let checkpoint = "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/03000148, prev 0/03000110, \
                          desc: CHECKPOINT_SHUTDOWN redo 0/3000148; tli 1\n";
        assert_eq!(judge(7, checkpoint, ""), Behind::NoData("1 × XLOG CHECKPOINT_SHUTDOWN".to_owned()));
        let row = "rmgr: Heap        len (rec/tot):     59/    59, tx:        741, lsn: 0/030001C0, prev 0/03000148, desc: \
                   INSERT off 1 flags 0x00\n";
        let both = format!("{checkpoint}{row}");
        assert_eq!(judge(7, &both, ""), Behind::Data("1 × Heap INSERT".to_owned()));
        let page = checkpoint.replace("CHECKPOINT_SHUTDOWN", "FPI");
        assert!(matches!(judge(7, &page, ""), Behind::Data(_)));
        assert!(matches!(judge(7, "", "pg_waldump: error: could not open directory"), Behind::Unknown(_)));
    }
}
