//! Archived WAL that a base backup is restored with: there without a gap from the backup's start on, readable by who reads it,
//! and read to its end.
//!
//! Whatever `restore_command` does not bring is the end of the WAL to PostgreSQL: a restore that ends at a segment which was
//! lost, or cannot be read, looks like one that ends where the archive does. So only what is not there counts as the end, the
//! names are looked at before anything is built, and how far recovery came is compared with them afterwards.
//!
//! What comes to the archive meanwhile does not count: a primary may go on writing while its backup is restored in a drill.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::fork::{Left, history_name, parse};
use super::lab::{LONG, Lab, SHORT, shell_quoted};
use super::session::lsn_text;
use super::wal::segment_name;
use super::{Postgres, files};
use crate::driver::DriverError;
use crate::driver::backup::Backup;
use crate::driver::process::Program;

/// Prints the files of a folder, its first argument, that its user cannot read.
const UNREADABLE: &str =
    r#"cd "$1" && [ -r . ] || exit 3; for name in *; do [ ! -f "$name" ] || [ -r "$name" ] || echo "$name"; done"#;

/// Above 125 it ends the recovery with an error; below, it is the end of the WAL.
const NOT_THE_END: u8 = 200;

/// What recovery has to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// Of a segment, in bytes.
    size: u64,
    /// The number of the last segment in the archive; none if the archive has none behind the backup's start.
    last: Option<u64>,
    /// Its name.
    name: String,
}

/// What is in a folder of WAL, by names.
#[derive(Debug, Default)]
struct Names {
    /// Segments of the archive by timeline and number.
    archived: BTreeSet<(u32, u64)>,
    /// Those within the backup.
    beside: BTreeSet<(u32, u64)>,
    /// Of the archive: those that have not the size of a segment.
    odd: BTreeSet<(u32, u64)>,
    /// Of both.
    histories: BTreeMap<u32, Vec<Left>>,
}

/// A timeline that recovery goes through, with the numbers of the first and the last segment that it may read of it.
struct Part {
    timeline: u32,
    first: u64,
    last: u64,
}

impl Postgres {
    /// Before anything is built: what is there to be read from the backup's start on.
    ///
    /// # Errors
    /// `restore-incomplete` if a segment is missing or cannot be read.
    pub(super) async fn survey(&self, lab: &Lab<'_>, backup: &Backup, folder: &Path) -> Result<Archive, DriverError> {
        let program = lab.tool("pg_controldata").argument("-D").argument(&backup.path);
        let output = self.succeed("postgres-control", &program, SHORT).await?.output;
        let size = output.lines().find_map(|line| line.strip_prefix("Bytes per WAL segment:"));
        let Some(size) = size.and_then(|size| size.trim().parse::<u64>().ok()).filter(|size| *size > 0) else {
            let message = "pg_controldata does not tell how large a segment of the backup's WAL is";
            return Err(DriverError::permanent("postgres-control", message));
        };
        let unreadable = self.unreadable(folder, size).await?;
        let (base, wal) = (backup.path.clone(), folder.to_owned());
        let (start, names) = files::blocking(LONG, "looking at the archived WAL", move || {
            let label = std::fs::read_to_string(base.join("backup_label"))?;
            let start = start(&label, size).ok_or_else(|| {
                io::Error::other(format!("{}/backup_label does not say where its WAL begins", base.display()))
            })?;
            Ok((start, names(&wal, &base.join("pg_wal"), size)?))
        })
        .await?;
        look(&names, start, size, &unreadable).map_err(|(why, retryable)| {
            let message = format!("the WAL in {}: {why}; bring it there before the restore", folder.display());
            if retryable {
                DriverError::retryable("restore-incomplete", message)
            } else {
                DriverError::permanent("restore-incomplete", message)
            }
        })
    }

    /// Segments that the database's user cannot read.
    async fn unreadable(&self, folder: &Path, size: u64) -> Result<BTreeSet<(u32, u64)>, DriverError> {
        let program = Program::at(Path::new("/bin/sh")).user(&self.options.os_user).argument("-c").argument(UNREADABLE);
        let program = program.argument("sh").argument(folder);
        let finished = program.run(&self.children, LONG).await.map_err(|error| error.failure("restore-failed"))?;
        if finished.success() {
            return Ok(finished.output.lines().filter_map(|name| number(name, size)).collect());
        }
        let message = format!(
            "the folder of the archived WAL, {}, cannot be read by {}: {}",
            folder.display(),
            self.options.os_user,
            finished.last_words()
        );
        Err(DriverError::permanent("restore-incomplete", message))
    }

    /// Once recovery has ended: whether it has read all that was there before it began. Where it ended, for the outcome.
    ///
    /// # Errors
    /// `restore-incomplete` if it has not.
    pub(super) async fn see_all_read(&self, lab: &Lab<'_>, archive: &Archive) -> Result<String, DriverError> {
        let data = lab.data();
        let reached = files::blocking(LONG, "looking where the recovery ended", move || reached(&data)).await?;
        let Some(reached) = reached else {
            let message = "what was restored does not say in a history where its recovery ended";
            return Err(DriverError::retryable("restore-failed", message));
        };
        let at = lsn_text(reached.at);
        // At the very start of a segment nothing of it was read.
        let read = reached.at.saturating_sub(1) / archive.size;
        if archive.last.is_none_or(|last| read >= last) {
            return Ok(format!("{at} of timeline {}", reached.timeline));
        }
        let message = format!(
            "recovery ended at {at} of timeline {}, and the archive had WAL up to {}: what lies between is damaged; bring back the \
             right segment, or say up to when (`until` of this resource's backups in agent.yaml)",
            reached.timeline, archive.name
        );
        Err(DriverError::permanent("restore-incomplete", message))
    }
}

/// Brings a file of the archive. Only one that is not there is the end of the WAL.
pub(super) fn restore_command(folder: &Path) -> String {
    let folder = shell_quoted(folder).replace('%', "%%");
    format!(
        "[ -x {folder} ] || exit {NOT_THE_END}; [ -e {folder}/%f ] || exit 1; cp {folder}/%f \"%p\" || exit {NOT_THE_END}"
    )
}

/// The timeline and the number of a segment, by its name of 24 hexadecimal digits.
fn number(name: &str, size: u64) -> Option<(u32, u64)> {
    if name.len() != 24 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let part = |from: usize| u32::from_str_radix(name.get(from..from + 8)?, 16).ok();
    let per_log = 0x1_0000_0000_u64.checked_div(size)?;
    Some((part(0)?, u64::from(part(8)?) * per_log + u64::from(part(16)?)))
}

/// Where a backup's WAL begins: `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)`.
fn start(label: &str, size: u64) -> Option<(u32, u64)> {
    let line = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
    number(line.split_once("(file ")?.1.trim_end().trim_end_matches(')'), size)
}

fn names(archive: &Path, within: &Path, size: u64) -> io::Result<Names> {
    let mut names = Names::default();
    for (folder, archived) in [(archive, true), (within, false)] {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !archived => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(timeline) =
                name.strip_suffix(".history").and_then(|digits| u32::from_str_radix(digits, 16).ok())
            {
                names.histories.insert(timeline, parse(&std::fs::read_to_string(&path)?));
            }
            let Some(segment) = number(&name, size) else { continue };
            if !archived {
                names.beside.insert(segment);
                continue;
            }
            let bytes = match std::fs::metadata(&path) {
                // A link that leads nowhere is none.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?.len(),
            };
            if bytes != size {
                names.odd.insert(segment);
            }
            names.archived.insert(segment);
        }
    }
    Ok(names)
}

/// As PostgreSQL chooses it: to the newest timeline that histories lead to without a gap in their numbers.
fn line(start: u32, histories: &BTreeMap<u32, Vec<Left>>, size: u64) -> Vec<Part> {
    let mut newest = start;
    while histories.contains_key(&newest.saturating_add(1)) {
        newest = newest.saturating_add(1);
    }
    let history = histories.get(&newest).filter(|history| history.iter().any(|left| left.timeline == start));
    let Some(history) = history else {
        // There is no newer one, or PostgreSQL refuses the newest: the backup is no part of its history.
        return vec![Part { timeline: start, first: 0, last: u64::MAX }];
    };
    let mut parts = Vec::new();
    let mut first = 0;
    for left in history {
        let last = left.at / size;
        parts.push(Part { timeline: left.timeline, first, last });
        first = last;
    }
    parts.push(Part { timeline: newest, first, last: u64::MAX });
    parts
}

/// What there is to be read; or what is wrong with it, and whether that may pass.
fn look(
    names: &Names,
    (timeline, start): (u32, u64),
    size: u64,
    unreadable: &BTreeSet<(u32, u64)>,
) -> Result<Archive, (String, bool)> {
    let line = line(timeline, &names.histories, size);
    let wanted = |(timeline, number): (u32, u64)| {
        let of_line = |part: &Part| part.timeline == timeline && (part.first..=part.last).contains(&number);
        number >= start && line.iter().any(of_line)
    };
    let name = |number: u64| {
        let part = line.iter().rev().find(|part| part.first <= number);
        segment_name(part.map_or(timeline, |part| part.timeline), number.saturating_mul(size), size)
    };
    let of = |set: &BTreeSet<(u32, u64)>| -> BTreeSet<u64> {
        set.iter().filter(|segment| wanted(**segment)).map(|(_, number)| *number).collect()
    };
    let (archived, beside) = (of(&names.archived), of(&names.beside));
    let last = archived.last().copied();
    if let Some(number) = of(unreadable).first() {
        return Err((format!("{} cannot be read by the database's user", name(*number)), false));
    }
    if let Some(number) = of(&names.odd).first() {
        // It may be that it is just being written.
        return Err((format!("{} has not the size of a segment", name(*number)), Some(*number) == last));
    }
    let mut expected = start;
    for number in archived.union(&beside) {
        if *number != expected {
            let end = name(last.unwrap_or(*number));
            return Err((format!("{} is missing, and there are later ones up to {end}", name(expected)), false));
        }
        expected = expected.saturating_add(1);
    }
    if expected == start {
        return Err((format!("{} is missing, where the backup begins", name(start)), false));
    }
    Ok(Archive { size, last, name: last.map(name).unwrap_or_default() })
}

/// The end of a recovery is where the newest timeline left the one before.
fn reached(data: &Path) -> io::Result<Option<Left>> {
    let folder = data.join("pg_wal");
    let mut newest: Option<u32> = None;
    for entry in std::fs::read_dir(&folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let timeline = name.strip_suffix(".history").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        newest = newest.max(timeline);
    }
    let Some(newest) = newest else { return Ok(None) };
    let history = std::fs::read_to_string(folder.join(history_name(newest)))?;
    Ok(parse(&history).last().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn names_of(archived: &[(u32, u64)]) -> Names {
        Names { archived: archived.iter().copied().collect(), ..Names::default() }
    }

    fn judged(names: &Names, start: (u32, u64)) -> Result<Option<u64>, String> {
        look(names, start, SIZE, &BTreeSet::new()).map(|archive| archive.last).map_err(|(why, _)| why)
    }

    #[test]
    fn segments_are_numbered_through() {
        assert_eq!(number("000000010000000000000002", SIZE), Some((1, 2)));
        assert_eq!(number("0000000A0000000100000003", SIZE), Some((10, 259)));
        for other in ["00000002.history", "000000010000000000000002.partial", "00000001000000000000000x"] {
            assert_eq!(number(other, SIZE), None, "{other}");
        }
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nSTART TIMELINE: 1\n";
        assert_eq!(start(label, SIZE), Some((1, 2)));
        assert_eq!(start("", SIZE), None);
    }

    #[test]
    fn a_gap_is_no_end() {
        let whole = names_of(&[(1, 1), (1, 2), (1, 3), (1, 4)]);
        assert_eq!(judged(&whole, (1, 2)), Ok(Some(4)), "what is older than the backup is of no interest");
        let gap = judged(&names_of(&[(1, 2), (1, 4), (1, 6)]), (1, 2)).unwrap_err();
        assert!(gap.contains("000000010000000000000003 is missing") && gap.contains("0000000006"), "{gap}");
        assert!(judged(&names_of(&[(1, 3)]), (1, 2)).unwrap_err().contains("0000000002 is missing"));
        assert!(judged(&names_of(&[]), (1, 2)).unwrap_err().contains("where the backup begins"));
        // What the backup has itself need not be archived, and is no word on how far the archive goes.
        let within = Names { beside: BTreeSet::from([(1, 2), (1, 3)]), ..names_of(&[(1, 4)]) };
        assert_eq!(judged(&within, (1, 2)), Ok(Some(4)));
        let within = Names { beside: BTreeSet::from([(1, 2)]), ..Names::default() };
        assert_eq!(judged(&within, (1, 2)), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_no_end() {
        let whole = names_of(&[(1, 2), (1, 3), (1, 4)]);
        let refused = look(&whole, (1, 2), SIZE, &BTreeSet::from([(1, 3)])).unwrap_err();
        assert!(refused.0.contains("0000000003 cannot be read") && !refused.1, "{refused:?}");
        assert!(look(&whole, (1, 3), SIZE, &BTreeSet::from([(1, 2)])).is_ok(), "it is not needed");
        for (odd, passes) in [(3, false), (4, true)] {
            let names = Names { odd: BTreeSet::from([(1, odd)]), ..names_of(&[(1, 2), (1, 3), (1, 4)]) };
            let refused = look(&names, (1, 2), SIZE, &BTreeSet::new()).unwrap_err();
            assert!(refused.0.contains("size of a segment") && refused.1 == passes, "{refused:?}");
        }
    }

    #[test]
    fn the_newest_timeline_is_followed() {
        let left = |timeline, at| Left { timeline, at };
        let histories = BTreeMap::from([(2, vec![left(1, 3 * SIZE + 328)])]);
        // The fork lies in segment 3, which the new timeline has; what the old one went on with is not read.
        let names = Names { histories: histories.clone(), ..names_of(&[(1, 2), (2, 3), (2, 4), (1, 7)]) };
        assert_eq!(judged(&names, (1, 2)), Ok(Some(4)));
        let names = Names { histories: histories.clone(), ..names_of(&[(1, 2), (1, 3), (2, 4), (2, 6)]) };
        assert!(judged(&names, (1, 2)).unwrap_err().contains("000000020000000000000005 is missing"));
        // PostgreSQL stops looking at the first number that has no history.
        let beyond = BTreeMap::from([(3, vec![left(1, 2 * SIZE)])]);
        let names = Names { histories: beyond, ..names_of(&[(1, 2), (1, 3), (3, 9)]) };
        assert_eq!(judged(&names, (1, 2)), Ok(Some(3)));
    }

    #[test]
    fn what_is_there_and_not_brought_ends_the_recovery() {
        let folder = tempfile::tempdir().unwrap();
        let wal = folder.path().join("100% o'clock");
        let bring = |name: &str| {
            let text = restore_command(&wal)
                .replace("%f", name)
                .replace("%p", &folder.path().join("to").display().to_string());
            let text = text.replace("%%", "%");
            std::process::Command::new("/bin/sh").args(["-c", &text]).status().unwrap().code().unwrap()
        };
        assert_eq!(bring("a"), i32::from(NOT_THE_END), "the folder itself is gone");
        std::fs::create_dir(&wal).unwrap();
        std::fs::write(wal.join("a"), "x").unwrap();
        std::fs::create_dir(wal.join("b")).unwrap();
        assert_eq!((bring("a"), bring("b"), bring("c")), (0, i32::from(NOT_THE_END), 1));
    }
}
