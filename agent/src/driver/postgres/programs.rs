//! Which of the installed programs a backup takes. The files of a major version are read by its own programs alone; a dump
//! may go to its own version or a newer one, and an archive is read by programs no older than those that wrote it.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::driver::DriverError;
use crate::driver::backup::{DumpForm, form};
use crate::driver::process::Program;
use crate::driver::process::children::Children;

/// Asking a program for its version.
const SHORT: Duration = Duration::from_secs(10);
/// Versions side by side, one a folder.
const DEBIAN: &str = "/usr/lib/postgresql";
/// How such folders begin elsewhere.
const RED_HAT: &str = "pgsql-";
/// Programs in a place that does not say their version.
const PLAIN: [&str; 3] = ["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"];
/// Where this is, the others of a server are.
const TELLING: &str = "pg_rewind";
/// The beginning of a dump says which versions it is of.
const HEAD: u64 = 4096;

/// A major version of PostgreSQL. Before 10, two numbers made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Major(u32, u32);

impl Major {
    /// Of a version as servers, programs and files write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|letter: char| !letter.is_ascii_digit());
        let first = numbers.next()?.parse().ok()?;
        let second = if first < 10 { numbers.next()?.parse().ok()? } else { 0 };
        Some(Self(first, second))
    }

    /// Of the programs by the path of one of them, where that says it.
    #[must_use]
    pub fn of_path(program: &Path) -> Option<Self> {
        let mut before = "";
        for part in program.components() {
            let name = part.as_os_str().to_str().unwrap_or_default();
            let version = if before == "postgresql" { Some(name) } else { name.strip_prefix(RED_HAT) };
            if let Some(major) = version.and_then(Self::parse) {
                return Some(major);
            }
            before = name;
        }
        None
    }
}

impl fmt::Display for Major {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10 { write!(f, "{}.{}", self.0, self.1) } else { write!(f, "{}", self.0) }
    }
}

/// The programs of PostgreSQL on this machine.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// The folder that agent.yaml names: no other counts.
    pub own: Option<PathBuf>,
    /// Of the server here, if that is known.
    pub server: Option<Major>,
    /// Programs that are asked for their version are recorded there.
    pub children: Children,
}

/// Of which versions a dump is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Versions {
    /// Of the server that it was taken from.
    from: Major,
    /// Of the program that wrote it.
    by: Major,
}

type Installed = [(Major, PathBuf)];

impl Programs {
    /// For the files of a base backup: of exactly its version, which must be that of the server here.
    ///
    /// # Errors
    /// `postgres-programs`, with what is missing.
    pub async fn for_base(&self, backup: &Path) -> Result<PathBuf, DriverError> {
        let version = std::fs::read_to_string(backup.join("PG_VERSION")).unwrap_or_default();
        let Some(major) = Major::parse(&version) else {
            return Err(missing(format!("the PG_VERSION of {} names no version", backup.display())));
        };
        for_base(&self.installed().await?, self.server, major).map_err(|why| missing_for(backup, &why))
    }

    /// For a dump: the server's programs, and what loads an archive.
    ///
    /// # Errors
    /// `postgres-programs`, with what is missing.
    pub async fn for_dump(&self, backup: &Path) -> Result<(PathBuf, PathBuf), DriverError> {
        let (installed, dump) = (self.installed().await?, versions(backup));
        let server = for_dump(&installed, self.server, dump).map_err(|why| missing_for(backup, &why))?;
        // What is plain is handed over by psql, as it stands.
        let archive = dump.filter(|_| matches!(form(backup), Ok(DumpForm::Archive)));
        let loads = loader(&installed, server.clone(), archive).map_err(|why| missing_for(backup, &why))?;
        Ok((server.1, loads))
    }

    /// To read a dump with, wherever it goes.
    ///
    /// # Errors
    /// `postgres-programs`, with what is missing.
    pub async fn to_read(&self, backup: &Path) -> Result<PathBuf, DriverError> {
        to_read(&self.installed().await?, versions(backup)).map_err(|why| missing_for(backup, &why))
    }

    async fn installed(&self) -> Result<Vec<(Major, PathBuf)>, DriverError> {
        if let Some(folder) = &self.own {
            return match self.major_of(folder).await {
                Some(major) => Ok(vec![(major, folder.clone())]),
                None => {
                    Err(missing(format!("binDirectory {} has no {TELLING} that tells its version", folder.display())))
                }
            };
        }
        let mut found = Vec::new();
        for folder in side_by_side() {
            found.extend(Major::of_path(&folder).map(|major| (major, folder)));
        }
        for folder in PLAIN.map(PathBuf::from) {
            if let Some(major) = self.major_of(&folder).await {
                found.push((major, folder));
            }
        }
        Ok(found)
    }

    async fn major_of(&self, folder: &Path) -> Option<Major> {
        let program = folder.join(TELLING);
        if !program.exists() {
            return None;
        }
        let finished = Program::at(&program).argument("--version").run(&self.children, SHORT).await.ok()?;
        // `pg_rewind (PostgreSQL) 15.4 (Debian …)`
        Major::parse(finished.output.split_once(") ")?.1)
    }
}

fn side_by_side() -> Vec<PathBuf> {
    let debian = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path());
    let others = std::fs::read_dir("/usr").into_iter().flatten().flatten();
    let others = others.filter(|entry| entry.file_name().to_string_lossy().starts_with(RED_HAT));
    let folders = debian.chain(others.map(|entry| entry.path())).map(|folder| folder.join("bin"));
    folders.filter(|folder| folder.join(TELLING).exists()).collect()
}

fn for_base(installed: &Installed, server: Option<Major>, backup: Major) -> Result<PathBuf, String> {
    if let Some(server) = server.filter(|server| *server != backup) {
        return Err(format!(
            "it is a base backup of PostgreSQL {backup}, which the server here, {server}, cannot read; take a base backup of \
             {server}, or restore a dump"
        ));
    }
    let found = installed.iter().find(|(major, _)| *major == backup).map(|(_, folder)| folder.clone());
    found.ok_or_else(|| {
        let here = listed(installed);
        format!(
            "it is a base backup of PostgreSQL {backup}, and {here}; install those of {backup}, or name them as binDirectory"
        )
    })
}

fn for_dump(installed: &Installed, server: Option<Major>, dump: Option<Versions>) -> Result<(Major, PathBuf), String> {
    let exactly = |wanted: Major| installed.iter().find(|(major, _)| *major == wanted);
    let here = listed(installed);
    let chosen = match (server, dump) {
        (Some(server), _) => exactly(server).ok_or_else(|| {
            format!("the server here is of PostgreSQL {server}, and {here}; install those of {server}, or correct binDirectory")
        }),
        (None, Some(dump)) => exactly(dump.from).or_else(|| the_only(installed, Some(dump.from))).ok_or_else(|| {
            let from = dump.from;
            format!(
                "it is a dump of PostgreSQL {from}, and {here}: which the server here is of cannot be told; name its programs \
                 as binDirectory"
            )
        }),
        (None, None) => the_only(installed, None)
            .ok_or_else(|| format!("{here}, and which the server is of cannot be told; name its programs as binDirectory")),
    };
    let (major, folder) = chosen?;
    if let Some(Versions { from, .. }) = dump.filter(|dump| dump.from > *major) {
        return Err(format!("it is a dump of PostgreSQL {from}, which cannot go back to {major}; install {from} here"));
    }
    Ok((*major, folder.clone()))
}

/// What hands an archive over to a server of this version: its own program, unless a newer one wrote the archive.
fn loader(installed: &Installed, server: (Major, PathBuf), dump: Option<Versions>) -> Result<PathBuf, String> {
    let (major, folder) = server;
    let Some(by) = dump.map(|dump| dump.by).filter(|by| *by > major) else { return Ok(folder) };
    let fit = installed.iter().filter(|(major, _)| *major >= by).min_by_key(|(major, _)| *major);
    fit.map(|(_, folder)| folder.clone()).ok_or_else(|| {
        let here = listed(installed);
        format!("pg_dump of PostgreSQL {by} wrote it, and {here}; install {by}, or dump with that of {major}")
    })
}

/// Whatever is newest reads all that is older.
fn to_read(installed: &Installed, dump: Option<Versions>) -> Result<PathBuf, String> {
    let newest = installed.iter().max_by_key(|(major, _)| *major);
    match newest {
        None => Err(format!("{}; install PostgreSQL, or name its programs as binDirectory", listed(installed))),
        Some((major, _)) if dump.is_some_and(|dump| dump.by > *major) => {
            let by = dump.map_or(*major, |dump| dump.by);
            Err(format!("pg_dump of PostgreSQL {by} wrote it, and {}; install {by}", listed(installed)))
        }
        Some((_, folder)) => Ok(folder.clone()),
    }
}

/// The one version that is there, of those that are not older than this.
fn the_only(installed: &Installed, least: Option<Major>) -> Option<&(Major, PathBuf)> {
    let mut fit = installed.iter().filter(|(major, _)| least.is_none_or(|least| *major >= least));
    let first = fit.next()?;
    fit.all(|(major, _)| *major == first.0).then_some(first)
}

fn listed(installed: &Installed) -> String {
    let mut majors: Vec<Major> = installed.iter().map(|(major, _)| *major).collect();
    majors.sort_unstable();
    majors.dedup();
    if majors.is_empty() {
        return "no programs of PostgreSQL are found here".to_owned();
    }
    let majors: Vec<String> = majors.iter().map(ToString::to_string).collect();
    format!("there are programs of {} here", majors.join(", "))
}

fn missing(message: String) -> DriverError {
    DriverError::permanent("postgres-programs", message)
}

fn missing_for(backup: &Path, why: &str) -> DriverError {
    missing(format!("{}: {why}", backup.display()))
}

/// What a dump says at its beginning; none if it does not.
fn versions(path: &Path) -> Option<Versions> {
    let file = if path.is_dir() { path.join("toc.dat") } else { path.to_owned() };
    let mut head = Vec::new();
    std::fs::File::open(file).ok()?.take(HEAD).read_to_end(&mut head).ok()?;
    versions_in(&head)
}

fn versions_in(head: &[u8]) -> Option<Versions> {
    // In a tar file it stands behind the block that names it.
    let head = if head.starts_with(b"toc.dat\0") { head.get(512..)? } else { head };
    if let Some(archive) = head.strip_prefix(b"PGDMP") {
        return Header { rest: archive, width: 0 }.versions();
    }
    let text = String::from_utf8_lossy(head);
    let version = |words: &str| text.lines().find_map(|line| line.strip_prefix(words)).and_then(Major::parse);
    let (from, by) = (version("-- Dumped from database version ")?, version("-- Dumped by pg_dump version ")?);
    Some(Versions { from, by })
}

/// What an archive of `pg_dump` begins with: numbers have a sign and as many bytes as it says, texts their length before them.
struct Header<'a> {
    rest: &'a [u8],
    width: usize,
}

impl Header<'_> {
    fn versions(mut self) -> Option<Versions> {
        let format = (self.byte()?, self.byte()?, self.byte()?);
        self.width = usize::from(self.byte()?);
        let (_size_of_offsets, _kind) = (self.byte()?, self.byte()?);
        if self.width > 4 {
            return None;
        }
        // How it is compressed is one byte since 1.15.
        if format < (1, 15, 0) {
            self.number()?;
        } else {
            self.byte()?;
        }
        // When it was made.
        for _ in 0..7 {
            self.number()?;
        }
        let (_database, from, by) = (self.text()?, self.text()?, self.text()?);
        Some(Versions { from: Major::parse(&from)?, by: Major::parse(&by)? })
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<i64> {
        let negative = self.byte()? != 0;
        let mut value = 0_i64;
        for at in 0..self.width {
            value |= i64::from(self.byte()?) << (8 * at);
        }
        Some(if negative { -value } else { value })
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn major(text: &str) -> Major {
        Major::parse(text).unwrap()
    }

    fn installed(versions: &[&str]) -> Vec<(Major, PathBuf)> {
        versions.iter().map(|version| (major(version), PathBuf::from(format!("/{version}")))).collect()
    }

    fn dump(from: &str, by: &str) -> Option<Versions> {
        Some(Versions { from: major(from), by: major(by) })
    }

    #[test]
    fn versions_are_compared_by_what_makes_them_differ() {
        assert_eq!(major("15\n"), major("15.18 (Debian 15.18-0+deb12u1)"));
        assert_eq!(major("18beta1"), major("18"));
        assert_ne!(major("9.5.3"), major("9.6"));
        assert!(major("9.6") < major("10") && major("10") < major("15"));
        assert_eq!((major("9.6.1").to_string(), major("15.2").to_string()), ("9.6".to_owned(), "15".to_owned()));
        assert_eq!(Major::parse(""), None);
        assert_eq!(Major::of_path(Path::new("/usr/lib/postgresql/15/bin/pg_ctl")), Some(major("15")));
        assert_eq!(Major::of_path(Path::new("/usr/pgsql-16/bin/pg_ctl")), Some(major("16")));
        assert_eq!(Major::of_path(Path::new("/bin/systemctl")), None);
    }

    #[test]
    fn a_base_backup_takes_programs_of_exactly_its_version() {
        let both = installed(&["14", "16"]);
        assert_eq!(for_base(&both, None, major("14")).unwrap(), Path::new("/14"));
        let why = for_base(&both, None, major("15")).unwrap_err();
        assert!(why.contains("of PostgreSQL 15") && why.contains("14, 16"), "{why}");
        let why = for_base(&both, Some(major("16")), major("14")).unwrap_err();
        assert!(why.contains("the server here, 16"), "{why}");
        assert!(for_base(&[], None, major("14")).unwrap_err().contains("no programs"));
    }

    #[test]
    fn a_dump_goes_to_the_server_that_is_here_and_never_back() {
        let both = installed(&["14", "16"]);
        let goes =
            |server: Option<&str>, dump| for_dump(&both, server.map(major), dump).map(|(major, _)| major.to_string());
        assert_eq!(goes(Some("14"), dump("14", "14")).unwrap(), "14");
        assert_eq!(goes(Some("16"), dump("14", "16")).unwrap(), "16");
        assert_eq!(goes(None, dump("14", "14")).unwrap(), "14", "not the newest");
        assert_eq!(goes(None, dump("15", "15")).unwrap(), "16", "the only one that can");
        assert!(goes(Some("15"), dump("15", "15")).unwrap_err().contains("14, 16"));
        assert!(goes(Some("14"), dump("16", "16")).unwrap_err().contains("cannot go back"));
        assert!(goes(None, dump("13", "13")).unwrap_err().contains("binDirectory"), "either could be meant");
        assert!(goes(None, None).unwrap_err().contains("binDirectory"));
        assert_eq!(for_dump(&installed(&["16"]), None, None).unwrap(), (major("16"), PathBuf::from("/16")));
    }

    #[test]
    fn an_archive_of_a_newer_program_is_loaded_by_one_that_reads_it() {
        let all = installed(&["14", "16", "17"]);
        let of_14 = || (major("14"), PathBuf::from("/14"));
        assert_eq!(loader(&all, of_14(), dump("14", "14")).unwrap(), Path::new("/14"));
        assert_eq!(loader(&all, of_14(), dump("14", "15")).unwrap(), Path::new("/16"), "no newer than it must be");
        assert_eq!(loader(&all, of_14(), None).unwrap(), Path::new("/14"));
        assert!(loader(&all, of_14(), dump("14", "18")).unwrap_err().contains("install 18"));
    }

    #[test]
    fn the_newest_reads_what_is_older() {
        let both = installed(&["14", "16"]);
        assert_eq!(to_read(&both, dump("12", "12")).unwrap(), Path::new("/16"));
        assert!(to_read(&both, dump("14", "17")).unwrap_err().contains("install 17"));
        assert!(to_read(&[], None).is_err());
    }

    fn number(value: u8) -> [u8; 5] {
        [0, value, 0, 0, 0]
    }

    /// As `pg_dump` begins an archive.
    fn archive(format: [u8; 3], compression: &[u8], from: &str, by: &str) -> Vec<u8> {
        let mut head = b"PGDMP".to_vec();
        head.extend(format);
        head.extend([4, 8, 1]);
        head.extend(compression);
        (0..7).for_each(|_| head.extend(number(1)));
        for text in ["app", from, by] {
            head.extend(number(u8::try_from(text.len()).unwrap()));
            head.extend(text.bytes());
        }
        head
    }

    #[test]
    fn a_dump_says_of_which_versions_it_is() {
        let text = "--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\n-- Dumped from database version 15.18 (Debian)\n\
                    -- Dumped by pg_dump version 16.1\n";
        assert_eq!(versions_in(text.as_bytes()), dump("15", "16"));
        let old = archive([1, 14, 0], &[1, 1, 0, 0, 0], "14.3", "15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!(versions_in(&old), dump("14", "15"));
        let new = archive([1, 16, 0], &[1], "15.1", "17.2");
        assert_eq!(versions_in(&new), dump("15", "17"));
        let mut tar = b"toc.dat\0".to_vec();
        tar.resize(512, 0);
        tar.extend(&new);
        assert_eq!(versions_in(&tar), dump("15", "17"));
        assert_eq!(versions_in(&new[..20]), None);
        assert_eq!(versions_in(b""), None);
    }
}
