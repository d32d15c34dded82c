//! Backups: where they are, which is the newest that is whole, and how that is known.
//!
//! | kind | what it is | whole, if |
//! |---|---|---|
//! | `pg_dump` | a file of any format, or a folder of `pg_dump -Fd` | plain: it ends as pg_dump ends it; others: `pg_restore` reads it to its end |
//! | `base` | a folder of `pg_basebackup`, plain format | it has a manifest, which is written last, and `pg_verifybackup` agrees with it |
//! | `rdb` | a file of Redis | `redis-check-rdb` reads it to its end, checksum included |
//!
//! A backup that is still being written is none of these. Nothing here writes.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use regent_core::facts::{BackupFacts, NewestBackup};
use regent_core::time::Span;
use serde::Deserialize;

use super::DriverError;
use super::postgres::programs::Programs;
use super::process::children::Children;
use super::process::{Program, disk};
use crate::probe::millis;

/// Looking through a folder.
const DISK_LIMIT: Duration = Duration::from_secs(60);
/// Reading a backup to its end; the step's own deadline is what bounds it.
const LONG: Duration = Duration::from_secs(24 * 3600);
/// So many that are not whole are passed over.
const TRIED: usize = 5;
/// How plain dumps end, but for a few lines.
const PLAIN_END: &str = "PostgreSQL database dump complete";
/// Looked at of the end of a plain dump.
const TAIL: u64 = 1024;
/// The size of the newest is compared with so many before it.
const MEDIAN_OF: usize = 7;

/// Where backups of a resource are.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupOptions {
    /// What they are. No default.
    pub kind: BackupKind,
    /// A folder with backups, or a path whose last part may have `*`. No default.
    pub from: PathBuf,
    /// `base` only: a folder with archived WAL, one file a segment. Default: the WAL within the backup.
    #[serde(default)]
    pub wal: Option<PathBuf>,
    /// `base` only: up to when WAL is applied, as `recovery_target_time` reads it. Default: to its end.
    #[serde(default)]
    pub until: Option<String>,
    /// `pg_dump` only: roles and their passwords, by `pg_dumpall --globals-only`. Default: only the agent's and the owner's
    /// role are made, and no rights are restored.
    #[serde(default)]
    pub globals: Option<PathBuf>,
    /// `pg_dump` only: arguments of `initdb`. Default: `[--encoding=UTF8, --locale=C.UTF-8]`.
    #[serde(default = "initdb")]
    pub initdb: Vec<String>,
    /// What a restore does where something is already. A new PostgreSQL is a data directory that is absent or empty: one
    /// that `initdb` has just made is not. A new Redis has no keys. Default: `refuse`.
    #[serde(default)]
    pub over: Over,
    /// The newest must not be older. Default: `26h`, a day and two hours.
    #[serde(default = "a_day", deserialize_with = "span")]
    pub max_age: Duration,
}

/// What a restore does where something is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Over {
    /// It is refused: what is there may be newer than any backup.
    #[default]
    Refuse,
    /// What is there makes room, and is kept beside it.
    SetAside,
}

/// What backups are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum BackupKind {
    /// Of `pg_dump`: plain, custom, tar or directory.
    #[serde(rename = "pg_dump")]
    Dump,
    /// Of `pg_basebackup`, in plain format.
    #[serde(rename = "base")]
    Base,
    /// A snapshot of Redis.
    #[serde(rename = "rdb")]
    Rdb,
}

fn initdb() -> Vec<String> {
    vec!["--encoding=UTF8".to_owned(), "--locale=C.UTF-8".to_owned()]
}

const fn a_day() -> Duration {
    Duration::from_secs(26 * 3600)
}

fn span<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let span = Span::parse(&text).map_err(serde::de::Error::custom)?;
    Ok(Duration::from_millis(span.millis()))
}

/// One that may be a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Where it is.
    pub path: PathBuf,
    /// When it was last written.
    pub written: SystemTime,
    /// How large it is.
    pub bytes: u64,
}

/// The form of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpForm {
    /// SQL.
    Plain,
    /// What `pg_restore` reads.
    Archive,
}

impl Backup {
    /// How old it is.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.written.elapsed().unwrap_or_default()
    }

    /// For a message.
    #[must_use]
    pub fn words(&self) -> String {
        let minutes = self.age().as_secs() / 60;
        let age = match minutes {
            0..120 => format!("{minutes} min"),
            _ => format!("{} h", minutes / 60),
        };
        format!("{} ({age} old, {} KiB)", self.path.display(), self.bytes >> 10)
    }
}

/// What tells whole backups from others.
#[derive(Debug, Clone)]
pub struct Judge {
    /// PostgreSQL's programs.
    pub programs: Programs,
    /// Programs run as this user; none: as the agent's.
    pub user: Option<String>,
    /// Programs are recorded there.
    pub children: Children,
}

impl BackupOptions {
    /// All that may be backups, the newest first.
    ///
    /// # Errors
    /// If they cannot be looked for.
    pub async fn all(&self) -> Result<Vec<Backup>, DriverError> {
        let (from, kind) = (self.from.clone(), self.kind);
        let found =
            disk::bounded("backup-unreadable", DISK_LIMIT, "looking for backups", move || find(&from, kind)).await;
        found.map_err(|error| DriverError { message: format!("{}: {}", self.from.display(), error.message), ..error })
    }

    /// The newest that is whole, and why newer ones are not.
    ///
    /// # Errors
    /// `backup-missing` if there is none.
    pub async fn newest(&self, judge: &Judge) -> Result<(Backup, Vec<String>), DriverError> {
        let mut passed_over = Vec::new();
        for backup in self.all().await?.into_iter().take(TRIED) {
            match self.is_whole(&backup, judge).await? {
                None => return Ok((backup, passed_over)),
                Some(why) => passed_over.push(format!("{}: {why}", backup.path.display())),
            }
        }
        let why = if passed_over.is_empty() { "there is nothing".to_owned() } else { passed_over.join("; ") };
        let message = format!("no whole backup is at {}: {why}", self.from.display());
        Err(DriverError::permanent("backup-missing", message))
    }

    /// None if it is whole; else why not.
    ///
    /// # Errors
    /// If the program that tells cannot be run, or there is none of a version that could.
    pub async fn is_whole(&self, backup: &Backup, judge: &Judge) -> Result<Option<String>, DriverError> {
        let path = &backup.path;
        let program = match self.kind {
            BackupKind::Dump => match form(path) {
                Ok(DumpForm::Plain) => return Ok(plain_end(path).err().map(|error| error.to_string())),
                Ok(DumpForm::Archive) => {
                    let folder = judge.programs.to_read(path).await?;
                    Program::at(&folder.join("pg_restore")).argument("--file=/dev/null").argument(path)
                }
                Err(error) => return Ok(Some(error.to_string())),
            },
            BackupKind::Base => {
                if !path.join("backup_manifest").is_file() {
                    return Ok(Some("it has no manifest, which is written last".to_owned()));
                }
                let folder = judge.programs.for_base(path).await?;
                let program = Program::at(&folder.join("pg_verifybackup")).argument("--exit-on-error");
                // What is archived elsewhere is found missing when it is applied.
                let program = if self.wal.is_some() { program.argument("--no-parse-wal") } else { program };
                program.argument(path)
            }
            BackupKind::Rdb => Program::at(&super::redis::tool("redis-check-rdb")).argument(path),
        };
        let program = match &judge.user {
            Some(user) => program.user(user),
            None => program,
        };
        let finished = program.run(&judge.children, LONG).await.map_err(|error| error.failure("backup-unreadable"))?;
        if finished.success() {
            return Ok(None);
        }
        Ok(Some(match self.kind {
            // It tells how far it came, and not in its last words what was wrong.
            BackupKind::Rdb => "redis-check-rdb cannot read it to its end".to_owned(),
            BackupKind::Dump | BackupKind::Base => finished.last_words(),
        }))
    }
}

/// A backup, and why it is not whole if it is not.
type Judged = (Backup, Result<(), String>);

/// What is known of whether the newest backup is whole: each is read to its end once, beside everything else.
#[derive(Debug, Default, Clone)]
pub struct Watch {
    judged: Arc<Mutex<Option<Judged>>>,
    at_it: Arc<AtomicBool>,
}

impl Watch {
    /// Looks at the backups, and reads nothing to its end by itself.
    pub async fn facts(&self, options: &BackupOptions, judge: Judge) -> BackupFacts {
        let max_age = Span::from_millis(millis(options.max_age));
        let all = match options.all().await {
            Ok(all) => all,
            Err(error) => return BackupFacts { max_age, problem: error.message, ..BackupFacts::default() },
        };
        let mut before: Vec<u64> = all.iter().skip(1).take(MEDIAN_OF).map(|backup| backup.bytes).collect();
        before.sort_unstable();
        let median_bytes = if before.len() < 2 { None } else { before.get(before.len() / 2).copied() };
        let newest = all.first().map(|newest| NewestBackup {
            name: newest.path.display().to_string(),
            age: Span::from_millis(millis(newest.age())),
            bytes: newest.bytes,
            whole: self.word_on(newest, options, judge),
        });
        BackupFacts { newest, max_age, median_bytes, problem: String::new() }
    }

    /// None while it is being read.
    fn word_on(&self, newest: &Backup, options: &BackupOptions, judge: Judge) -> Option<Result<(), String>> {
        let judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, word)) = judged.filter(|(backup, _)| backup == newest) {
            return Some(word);
        }
        if !self.at_it.swap(true, Ordering::SeqCst) {
            let (own, newest, options) = (self.clone(), newest.clone(), options.clone());
            tokio::spawn(async move {
                let word = options.is_whole(&newest, &judge).await;
                let word = word.map_err(|error| error.message).and_then(|why| why.map_or(Ok(()), Err));
                *own.judged.lock().unwrap_or_else(PoisonError::into_inner) = Some((newest, word));
                own.at_it.store(false, Ordering::SeqCst);
            });
        }
        None
    }
}

fn find(from: &Path, kind: BackupKind) -> io::Result<Vec<Backup>> {
    let mut paths = Vec::new();
    let last = from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if last.contains('*') {
        let folder = from.parent().unwrap_or(Path::new("/"));
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if fits(&last, &entry.file_name().to_string_lossy()) {
                paths.push(entry.path());
            }
        }
    } else if is_one(from, kind) {
        paths.push(from.to_owned());
    } else {
        for entry in std::fs::read_dir(from)? {
            paths.push(entry?.path());
        }
    }
    let mut all: Vec<Backup> = paths.into_iter().filter_map(|path| measure(&path, kind).ok()).collect();
    all.sort_by(|one, other| other.written.cmp(&one.written).then_with(|| other.path.cmp(&one.path)));
    Ok(all)
}

/// The path is itself a backup, not a folder of them.
fn is_one(path: &Path, kind: BackupKind) -> bool {
    match kind {
        BackupKind::Dump => path.is_file() || path.join("toc.dat").exists(),
        BackupKind::Base => path.join("PG_VERSION").exists(),
        BackupKind::Rdb => path.is_file(),
    }
}

/// A folder is as new as what is written into it last.
fn measure(path: &Path, kind: BackupKind) -> io::Result<Backup> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() && kind != BackupKind::Base {
        return Ok(Backup { path: path.to_owned(), written: metadata.modified()?, bytes: metadata.len() });
    }
    let last = match kind {
        BackupKind::Dump => "toc.dat",
        BackupKind::Base => "backup_manifest",
        BackupKind::Rdb => return Err(io::Error::other("a folder")),
    };
    if !metadata.is_dir() {
        return Err(io::Error::other("no folder"));
    }
    let end = std::fs::metadata(path.join(last)).and_then(|metadata| metadata.modified());
    let written = end.or_else(|_| metadata.modified())?;
    Ok(Backup { path: path.to_owned(), written, bytes: size(path)? })
}

fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// `*` stands for any letters.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match left.split_once(part) {
            Some((_, after)) => left = after,
            None => return false,
        }
    }
    left.ends_with(tail)
}

/// Which form a dump has, by how it begins.
///
/// # Errors
/// If it cannot be read, or is no dump.
pub fn form(path: &Path) -> io::Result<DumpForm> {
    if path.is_dir() {
        return if path.join("toc.dat").is_file() {
            Ok(DumpForm::Archive)
        } else {
            Err(io::Error::other("it has no table of contents, which is written last"))
        };
    }
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(512).read_to_end(&mut head)?;
    if head.starts_with(b"PGDMP") || head.starts_with(b"toc.dat\0") {
        return Ok(DumpForm::Archive);
    }
    let text = String::from_utf8_lossy(&head);
    if text.contains("PostgreSQL database dump") {
        return Ok(DumpForm::Plain);
    }
    Err(io::Error::other("it is no dump of pg_dump, or not begun yet"))
}

fn plain_end(path: &Path) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    // Newer releases close at the very end what they opened at the beginning.
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(512).read_to_end(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    let key = head.lines().find_map(|line| line.strip_prefix("\\restrict "));
    let closed = key.is_none_or(|key| tail.lines().any(|line| line.strip_prefix("\\unrestrict ") == Some(key)));
    if tail.contains(PLAIN_END) && closed {
        return Ok(());
    }
    Err(io::Error::other("it does not end as pg_dump ends a dump"))
}

/// What a report says of newer backups that were not taken; empty if there were none.
#[must_use]
pub fn note(passed_over: &[String]) -> String {
    if passed_over.is_empty() {
        String::new()
    } else {
        format!("; passed over as not whole: {}", passed_over.join("; "))
    }
}

/// What a restore meets where nothing should be; `what` and where, as the beginning of a sentence.
#[must_use]
pub fn not_empty(what: &str) -> DriverError {
    let message = format!(
        "{what}: a restore is for a new or an emptied place; move away what is there, or let it be set aside (`over: setAside` \
         of this resource's backups in agent.yaml)"
    );
    DriverError::permanent("restore-not-empty", message)
}

/// A resource whose backups nobody named.
#[must_use]
pub fn unnamed(kind: &str) -> DriverError {
    DriverError::permanent(
        "backup-missing",
        format!("this {kind} resource has no backups in agent.yaml; say there what they are and where"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_the_last_part_of_a_path() {
        for (pattern, name, good) in [
            ("orders-*.dump", "orders-2026.dump", true),
            ("orders-*.dump", "orders-2026.dump.part", false),
            ("*", "anything", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), good, "{pattern} {name}");
        }
    }

    #[test]
    fn a_plain_dump_that_breaks_off_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.sql");
        std::fs::write(&file, "--\n-- PostgreSQL database dump\n--\nCOPY rows FROM stdin;\n1\n").unwrap();
        assert_eq!(form(&file).unwrap(), DumpForm::Plain);
        assert!(plain_end(&file).is_err());
        std::fs::write(&file, "--\n-- PostgreSQL database dump\n--\n--\n-- PostgreSQL database dump complete\n--\n\n")
            .unwrap();
        assert!(plain_end(&file).is_ok());
        let newer = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n-- PostgreSQL database dump complete\n\\unrestrict abc\n";
        std::fs::write(&file, newer).unwrap();
        assert!(plain_end(&file).is_ok());
        std::fs::write(&file, newer.strip_suffix("c\n").unwrap()).unwrap();
        assert!(plain_end(&file).is_err());
        std::fs::write(&file, "").unwrap();
        assert!(form(&file).is_err());
    }

    #[test]
    fn the_newest_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age) in [("b.sql", 10), ("a.sql", 5), ("c.txt", 1)] {
            let file = folder.path().join(name);
            std::fs::write(&file, "x").unwrap();
            let file = std::fs::File::options().write(true).open(&file).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        let found = find(&folder.path().join("*.sql"), BackupKind::Dump).unwrap();
        let names: Vec<_> = found.iter().map(|one| one.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.sql", "b.sql"]);
    }
}
