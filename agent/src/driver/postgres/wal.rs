//! The segments in `pg_wal` of a server here, and how `pg_waldump` is asked to read them.
//!
//! It learns the size of a segment from the first file that it meets in the folder, and gives up where that is one that the
//! server has made beforehand and not written yet. So it is told by name which to begin and end with.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::fork::Left;
use super::session::lsn_text;
use super::{DISK_LIMIT, Postgres, files};
use crate::driver::process::Program;

/// At the start of a segment stands a header of so many bytes: a position within it is where no record is yet.
const LONG_HEADER: u64 = 40;

/// From a place on, in one timeline.
pub(super) enum Rest {
    /// No record was written there.
    Nothing,
    /// Reads it.
    Read(Program),
}

/// What there is of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segments {
    /// The segment of the place was never written.
    Unwritten,
    /// The names of the segment of the place and of the last one.
    From(String, String),
}

impl Postgres {
    /// What reads the WAL from the fork on, and prints what the option says; or why that cannot be done.
    pub(super) async fn rest_of_wal(&self, fork: Left, option: String) -> Result<Rest, String> {
        let size = self.segment_size().await.ok_or("pg_controldata does not tell how large a segment of the WAL is")?;
        let folder = self.data.join("pg_wal");
        let wal = folder.clone();
        let found = files::blocking(DISK_LIMIT, "looking for the WAL in pg_wal", move || segments(&wal, fork, size));
        match found.await.map_err(|error| error.message)? {
            Segments::Unwritten if fork.at.checked_rem(size).is_some_and(|offset| offset <= LONG_HEADER) => {
                Ok(Rest::Nothing)
            }
            Segments::Unwritten => {
                Err(format!("the WAL of timeline {} at {} is not in pg_wal any more", fork.timeline, lsn_text(fork.at)))
            }
            Segments::From(first, last) => Ok(Rest::Read(
                self.tool("pg_waldump")
                    .argument("--path")
                    .argument(folder)
                    .argument(format!("--start={}", lsn_text(fork.at)))
                    .argument(option)
                    .argument(first)
                    .argument(last),
            )),
        }
    }

    /// In bytes.
    pub(super) async fn segment_size(&self) -> Option<u64> {
        let program = self.tool("pg_controldata").argument("-D").argument(&self.data);
        let output = program.run(&self.children, DISK_LIMIT).await.ok()?.output;
        output.lines().find_map(|line| line.strip_prefix("Bytes per WAL segment:"))?.trim().parse().ok()
    }
}

fn segments(folder: &Path, fork: Left, size: u64) -> io::Result<Segments> {
    let first = segment_name(fork.timeline, fork.at, size);
    if !is_written(&folder.join(&first))? {
        return Ok(Segments::Unwritten);
    }
    let mut last = first.clone();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let whole = name.len() == first.len() && segment_timeline(&name) == Some(fork.timeline);
        if whole && name > last {
            last = name;
        }
    }
    Ok(Segments::From(first, last))
}

/// One that the server made beforehand is all zeros, one that it will use again has the header of what it was.
pub(super) fn is_written(segment: &Path) -> io::Result<bool> {
    let mut file = match File::open(segment) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut magic = [0; 2];
    file.read_exact(&mut magic)?;
    Ok(magic != [0; 2])
}

/// The newest timeline that has a segment here.
pub(super) fn newest_timeline(data: &Path) -> io::Result<Option<u32>> {
    let names = std::fs::read_dir(data.join("pg_wal"))?;
    Ok(names.filter_map(|name| segment_timeline(&name.ok()?.file_name().to_string_lossy())).max())
}

/// The timeline of a segment, by its name of 24 hexadecimal digits, whole or partial.
fn segment_timeline(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".partial").unwrap_or(name);
    let hexadecimal = digits.len() == 24 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal { u32::from_str_radix(digits.get(..8)?, 16).ok() } else { None }
}

/// The name of the segment that holds a position.
pub(super) fn segment_name(timeline: u32, at: u64, size: u64) -> String {
    let number = at.checked_div(size).unwrap_or_default();
    let per_log = 0x1_0000_0000_u64.checked_div(size).filter(|count| *count > 0).unwrap_or(1);
    format!("{timeline:08X}{:08X}{:08X}", number / per_log, number % per_log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_tell_their_timeline() {
        assert_eq!(segment_timeline("000000020000000000000003"), Some(2));
        assert_eq!(segment_timeline("0000000A0000000000000003.partial"), Some(10));
        for other in ["00000003.history", "archive_status", "000000020000000000000003.00000028.backup"] {
            assert_eq!(segment_timeline(other), None, "{other}");
        }
    }

    #[test]
    fn segments_are_named_as_postgres_names_them() {
        assert_eq!(segment_name(1, 0x0300_0148, 16 << 20), "000000010000000000000003");
        assert_eq!(segment_name(2, 0x1_0500_0000, 16 << 20), "000000020000000100000005");
        assert_eq!(segment_name(1, 0x4000_0001, 1 << 30), "000000010000000000000001");
    }

    #[test]
    fn what_was_made_beforehand_was_not_written() {
        let place = tempfile::tempdir().unwrap();
        let size = 16 << 20;
        let [first, last, other] =
            ["000000020000000000000003", "000000020000000000000005", "000000030000000000000003"].map(str::to_owned);
        let fork = |at| Left { timeline: 2, at };
        assert_eq!(segments(place.path(), fork(3 * size), size).unwrap(), Segments::Unwritten, "it is not there");
        std::fs::write(place.path().join(&last), [0; 64]).unwrap();
        assert_eq!(segments(place.path(), fork(5 * size), size).unwrap(), Segments::Unwritten, "it is empty");
        std::fs::write(place.path().join(&first), [0x13, 0xD1, 0, 0]).unwrap();
        std::fs::write(place.path().join(other), [0x13, 0xD1, 0, 0]).unwrap();
        assert_eq!(segments(place.path(), fork(3 * size + 328), size).unwrap(), Segments::From(first, last));
    }
}
