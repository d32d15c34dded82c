//! What a side has beyond the fork: measured, and saved aside before it is given up.
//!
//! ```text
//!  fork ──┤ records ├── end       without an operator's rejoin: refused, and the numbers are told
//!                                 with it: the segments are copied beside PGDATA, then it is rewound
//! ```
//!
//! The copy stays until somebody removes it (S5). `pg_waldump` reads it; its README says from where on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fork::{Behind, Left, Theirs};
use super::session::{lsn, lsn_text};
use super::wal::{Rest, is_written, segment_name};
use super::{DISK_LIMIT, Postgres, files, follow};
use crate::driver::DriverError;

/// Reading what may be much WAL.
const READ_LIMIT: Duration = Duration::from_secs(300);

/// Copying it.
const COPY_LIMIT: Duration = Duration::from_secs(3600);

/// What lies beyond the fork, in numbers; none: not knowable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Measured {
    bytes: Option<u64>,
    commits: Option<u64>,
    rows: Option<u64>,
}

impl Measured {
    fn told(&self) -> String {
        let word = |known: Option<u64>, what: &str| {
            known.map_or_else(|| format!("an unknown number of {what}"), |known| format!("{known} {what}"))
        };
        format!(
            "{}, {}, {}",
            word(self.bytes, "bytes of WAL"),
            word(self.commits, "commits"),
            word(self.rows, "changed rows")
        )
    }
}

impl Postgres {
    /// Called on a stopped server before anything of it is given up. Says what was saved where; nothing if there is no
    /// data beyond the fork.
    pub(super) async fn give_up(
        &self,
        theirs: &Theirs,
        behind: &Behind,
        allowed: bool,
    ) -> Result<Option<String>, DriverError> {
        let what = match behind {
            Behind::Nothing { .. } | Behind::Followed | Behind::NoData(_) => return Ok(None),
            Behind::Data(_) => String::new(),
            Behind::Unknown(why) => format!(" ({why})"),
        };
        let fork = self.fork(theirs).await.ok();
        let measured = match fork {
            Some(fork) => self.measure(fork).await,
            None => Measured::default(),
        };
        let place = fork.map_or_else(
            || "at an unknown place".to_owned(),
            |fork| format!("at {} of timeline {}", lsn_text(fork.at), fork.timeline),
        );
        let told = format!("its history parts from the primary's {place}: beyond it lie {}{what}", measured.told());
        if !allowed {
            self.start_as_found().await;
            return Err(DriverError::permanent(
                "rejoin-diverged",
                format!(
                    "{told}; nothing of it is given up by itself: look at it, then `regentctl rejoin` saves it aside and rewinds"
                ),
            ));
        }
        if let Some(why) = self.cannot_be_saved(fork).await? {
            self.start_as_found().await;
            return Err(DriverError::permanent("rejoin-unsaved", format!("{told}; {why}")));
        }
        let saved = self.save_aside(fork, &told).await?;
        Ok(Some(format!("{told}; saved in {}", saved.display())))
    }

    /// As it was found: closed, and running if it can.
    async fn start_as_found(&self) {
        if let Err(error) = self.start().await {
            tracing::warn!(code = error.code, %error, "a side that diverged could not be started again");
        }
    }

    /// A rewind may go on by WAL that a `restore_command` brings, and what is saved would lack its beginning. After a rewind that was
    /// broken off, `pg_wal` is neither side's, and what it gave up was saved before.
    async fn cannot_be_saved(&self, fork: Option<Left>) -> Result<Option<String>, DriverError> {
        let Some((fork, size)) = fork.zip(self.segment_size().await) else { return Ok(None) };
        if self.broken_off().await? {
            return Ok(None);
        }
        let name = segment_name(fork.timeline, fork.at, size);
        let segment = self.data.join("pg_wal").join(&name);
        let there =
            files::blocking(DISK_LIMIT, "looking for the WAL at the fork", move || is_written(&segment)).await?;
        Ok((!there).then(|| {
            format!(
                "it cannot be saved aside from there on, for {name} is not in pg_wal any more; stop the server, copy it from the \
                 archive into {}, with those behind it that are missing too, and rejoin again, or allow a re-clone, which sets the old data aside as a whole",
                self.data.join("pg_wal").display()
            )
        }))
    }

    /// The same on a server that runs, or not, in quarantine: nothing of it is stopped.
    pub(super) async fn measure_divergence(&self, upstream_cluster: &str) -> Result<Option<String>, DriverError> {
        if self.sight().await.is_ok_and(|sight| sight.streaming) {
            return Ok(None);
        }
        let leader = self.leader(upstream_cluster)?;
        let theirs = self.check_upstream(&leader).await?;
        let fork = match self.fork(&theirs).await {
            Ok(fork) => fork,
            Err(why) => return Ok(Some(format!("where it diverged from {upstream_cluster} is not known: {why}"))),
        };
        let measured = self.measure(fork).await;
        if measured.commits == Some(0) {
            return Ok(Some(format!("nothing that was committed lies beyond the history of {upstream_cluster}")));
        }
        Ok(Some(format!(
            "diverged from {upstream_cluster} at {} of timeline {}: {}",
            lsn_text(fork.at),
            fork.timeline,
            measured.told()
        )))
    }

    async fn measure(&self, fork: Left) -> Measured {
        let waldump = match self.rest_of_wal(fork, "--stats=record".to_owned()).await {
            Ok(Rest::Read(program)) => program,
            Ok(Rest::Nothing) => return Measured { bytes: Some(0), commits: Some(0), rows: Some(0) },
            Err(_) => return Measured::default(),
        };
        match waldump.run(&self.children, READ_LIMIT).await {
            // The WAL ends somewhere: behind its last record it says so, and fails.
            Ok(finished) => read_stats(fork.at, &finished.output, &finished.errors),
            Err(_) => Measured::default(),
        }
    }

    /// Copies the segments from the fork on, durably, beside PGDATA.
    async fn save_aside(&self, fork: Option<Left>, told: &str) -> Result<PathBuf, DriverError> {
        let segment = self.segment_size().await;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let folder = follow::beside(&self.data, &format!("regent-diverged-{now}"));
        let (data, saved, told) = (self.data.clone(), folder.clone(), told.to_owned());
        files::blocking(COPY_LIMIT, "saving what diverged beside PGDATA", move || {
            let first =
                fork.zip(segment).map(|(fork, segment)| (fork.timeline, segment_name(fork.timeline, fork.at, segment)));
            copy(&data, &saved, first.as_ref().map(|(timeline, name)| (*timeline, name.as_str())))?;
            std::fs::write(saved.join("README"), readme(&told, fork))?;
            files::sync(&saved)?;
            files::sync(saved.parent().unwrap_or(&saved))
        })
        .await?;
        Ok(folder)
    }
}

/// Segments from this name on, and the histories; all of them if it is not known.
fn copy(data: &Path, folder: &Path, first: Option<(u32, &str)>) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().mode(0o700).create(folder)?;
    for entry in std::fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let history = name.ends_with(".history");
        let whole = name.get(..24).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let wanted = match first {
            Some((timeline, first)) => whole && name.starts_with(&format!("{timeline:08X}")) && name.as_str() >= first,
            None => whole,
        };
        if !entry.file_type()?.is_file() || !(history || wanted) {
            continue;
        }
        // What was made beforehand holds nothing, and whoever reads the copy would stumble over it.
        if wanted && !is_written(&entry.path())? {
            continue;
        }
        let target = folder.join(&name);
        std::fs::copy(entry.path(), &target)?;
        files::sync(&target)?;
    }
    Ok(())
}

fn readme(told: &str, fork: Option<Left>) -> String {
    let read = fork.map_or_else(String::new, |fork| {
        format!("\nRead it with: pg_waldump --path=. --timeline={} --start={}\n", fork.timeline, lsn_text(fork.at))
    });
    format!(
        "Saved by Regent before this side was rewound: {told}.\n{read}Remove the folder when it is of no more use.\n"
    )
}

/// Counts of `pg_waldump --stats=record`, and where the WAL ends by what it says when it fails there.
fn read_stats(from: u64, output: &str, errors: &str) -> Measured {
    let count = |wanted: &dyn Fn(&str) -> bool| {
        let lines = output.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some((words.next()?, words.next()?.parse::<u64>().ok()?))
        });
        lines.filter(|(kind, _)| wanted(kind)).map(|(_, count)| count).sum::<u64>()
    };
    let read = output.lines().any(|line| line.trim_start().starts_with("Total"));
    let commit =
        |kind: &str| matches!(kind, "Transaction/COMMIT" | "Transaction/COMMIT_PREPARED" | "Transaction/PREPARE");
    let row = |kind: &str| {
        let bare = kind.strip_suffix("+INIT").unwrap_or(kind);
        matches!(bare, "Heap/INSERT" | "Heap/UPDATE" | "Heap/HOT_UPDATE" | "Heap/DELETE" | "Heap2/MULTI_INSERT")
    };
    let places = errors.split(|letter: char| letter.is_whitespace() || matches!(letter, ':' | ','));
    let end = places.filter_map(lsn).filter(|place| *place >= from).max();
    Measured {
        bytes: end.map(|end| end - from),
        commits: read.then(|| count(&commit)),
        rows: read.then(|| count(&row)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beyond_is_counted() {
        let output = "WAL statistics between 0/3000148 and 0/3001000:\n\
            Type                                           N      (%)          Record size\n\
            ----                                           -      ---          -----------\n\
            XLOG/CHECKPOINT_SHUTDOWN                       1 (  9.09)                  114\n\
            Transaction/COMMIT                             3 ( 27.27)                  138\n\
            Heap/INSERT                                    4 ( 36.36)                  256\n\
            Heap/INSERT+INIT                               1 (  9.09)                   64\n\
            Heap/HOT_UPDATE                                2 ( 18.18)                  128\n\
                                                    --------                      --------\n\
            Total                                         11                           700\n";
        let errors = "pg_waldump: error: error in WAL record at 0/3000FC8: invalid record length at 0/3001000: wanted 24, got 0\n";
        let measured = read_stats(0x0300_0148, output, errors);
        assert_eq!(measured, Measured { bytes: Some(0xEB8), commits: Some(3), rows: Some(7) });
        assert_eq!(measured.told(), "3768 bytes of WAL, 3 commits, 7 changed rows");
        assert_eq!(read_stats(7, "", "pg_waldump: error: could not open file"), Measured::default());
    }

    #[test]
    fn the_segments_from_the_fork_on_are_copied() {
        let place = tempfile::tempdir().unwrap();
        let (data, saved) = (place.path().join("data"), place.path().join("saved"));
        std::fs::create_dir_all(data.join("pg_wal/archive_status")).unwrap();
        let names = [
            "000000010000000000000002",
            "000000010000000000000003",
            "000000010000000000000004.partial",
            "00000001.history",
            "000000020000000000000003",
        ];
        for name in names {
            std::fs::write(data.join("pg_wal").join(name), name).unwrap();
        }
        copy(&data, &saved, Some((1, "000000010000000000000003"))).unwrap();
        let mut found: Vec<String> =
            std::fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        assert_eq!(found, ["00000001.history", "000000010000000000000003", "000000010000000000000004.partial"]);
    }
}
