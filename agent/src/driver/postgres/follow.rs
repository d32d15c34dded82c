//! Following another cluster: `primary_conninfo` in `postgresql.auto.conf`, and the operator's own files kept while
//! PGDATA is rebuilt.
//!
//! `pg_rewind` and a base backup bring the other side's configuration along. What belongs to this side (its port, its
//! rules, its keys) is copied beside PGDATA first and put back afterwards; the copy outlives a crash in between.

use std::io;
use std::path::{Path, PathBuf};

use super::files::{Durability, replace, sync};

/// Files at the top of PGDATA that are PostgreSQL's or Regent's, not the operator's.
const NOT_THE_OPERATORS: [&str; 10] = [
    "PG_VERSION",
    "backup_manifest",
    "current_logfiles",
    "postmaster.opts",
    "postmaster.pid",
    "recovery.signal",
    "regent.following",
    "regent.marker",
    "standby.signal",
    "promote",
];

/// Larger files are no configuration.
const SIZE_LIMIT: u64 = 1024 * 1024;

/// The text of `postgresql.auto.conf` with this `primary_conninfo` and no other.
pub(super) fn with_conninfo(text: &str, conninfo: &str) -> String {
    let mut kept: String = text
        .split_inclusive('\n')
        .filter(|line| {
            let key = line.trim_start().split(|c: char| c == '=' || c.is_whitespace()).next().unwrap_or_default();
            !key.eq_ignore_ascii_case("primary_conninfo")
        })
        .collect();
    if !kept.is_empty() && !kept.ends_with('\n') {
        kept.push('\n');
    }
    kept + &format!("primary_conninfo = '{}'\n", conninfo.replace('\\', "\\\\").replace('\'', "''"))
}

/// Sets `primary_conninfo` of a server that does not run. The file keeps its mode, 0600: it holds a password.
pub(super) fn set_conninfo(data: &Path, conninfo: &str) -> io::Result<()> {
    let file = data.join("postgresql.auto.conf");
    let before = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    replace(&file, with_conninfo(&before, conninfo).as_bytes(), Durability::Synced)
}

/// Where the operator's files of a PGDATA are kept meanwhile.
pub(super) fn shelf(data: &Path) -> PathBuf {
    beside(data, "regent-config")
}

/// A path beside PGDATA.
pub(super) fn beside(data: &Path, suffix: &str) -> PathBuf {
    let mut name = data.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    data.with_file_name(name)
}

/// Copies the operator's files to the shelf, unless a broken-off attempt left them there: then those are the true ones.
pub(super) fn save(data: &Path) -> io::Result<()> {
    let shelf = shelf(data);
    if shelf.exists() {
        return Ok(());
    }
    let half = beside(data, "regent-config-half");
    if half.exists() {
        std::fs::remove_dir_all(&half)?;
    }
    std::fs::create_dir(&half)?;
    std::fs::set_permissions(&half, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    for name in operators_files(data)? {
        let copy = half.join(&name);
        if let Some(folder) = copy.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::copy(data.join(&name), &copy)?;
        sync(&copy)?;
    }
    std::fs::rename(&half, &shelf)?;
    sync(shelf.parent().unwrap_or(&shelf))
}

/// Puts the operator's files into a PGDATA, from the shelf of `data`.
pub(super) fn restore(data: &Path, into: &Path) -> io::Result<()> {
    let shelf = shelf(data);
    for name in operators_files(&shelf)? {
        let target = into.join(&name);
        if let Some(folder) = target.parent() {
            std::fs::create_dir_all(folder)?;
        }
        replace(&target, &std::fs::read(shelf.join(&name))?, Durability::Synced)?;
    }
    Ok(())
}

/// Ends the use of the shelf, once PGDATA has everything again.
pub(super) fn clear(data: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(shelf(data)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Relative names: at the top of the folder, and in `conf.d`.
fn operators_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for part in ["", "conf.d"] {
        let Ok(entries) = std::fs::read_dir(folder.join(part)) else { continue };
        for entry in entries {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let relative = Path::new(part).join(&name);
            let metadata = std::fs::metadata(folder.join(&relative))?;
            let foreign = NOT_THE_OPERATORS.contains(&text.as_ref())
                || text.starts_with("backup_label")
                || text.starts_with("tablespace_map")
                || text.starts_with('.');
            if metadata.is_file() && metadata.len() <= SIZE_LIMIT && !foreign {
                names.push(relative);
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_conninfo_remains() {
        let text = "# auto\nPrimary_Conninfo='old'\nport = '1'";
        let text = with_conninfo(text, "host=h password='it\\'s'");
        assert_eq!(text, "# auto\nport = '1'\nprimary_conninfo = 'host=h password=''it\\\\''s'''\n");
    }

    #[test]
    fn the_operators_files_survive_a_broken_off_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("conf.d")).unwrap();
        for (name, text) in [("postgresql.conf", "port=1"), ("conf.d/a.conf", "x"), ("standby.signal", "")] {
            std::fs::write(data.join(name), text).unwrap();
        }
        save(&data).unwrap();
        std::fs::write(data.join("postgresql.conf"), "port=2").unwrap();
        save(&data).unwrap();
        std::fs::remove_file(data.join("conf.d/a.conf")).unwrap();
        restore(&data, &data).unwrap();
        clear(&data).unwrap();
        clear(&data).unwrap();
        assert_eq!(std::fs::read_to_string(data.join("postgresql.conf")).unwrap(), "port=1");
        assert_eq!(std::fs::read_to_string(data.join("conf.d/a.conf")).unwrap(), "x");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
