//! Whether a database that is made anew from a dump would come up with the operator's configuration, where PGDATA was emptied.
//!
//! | where the configuration is | it is known by |
//! |---|---|
//! | beside the data, as on Debian | the server said so, the start command names it, or it names PGDATA itself |
//! | in PGDATA | it went with what was there, unless the operator has put it on the shelf beside PGDATA |
//!
//! A base backup brings one along, a dump none. With that of `initdb` the server would be at another port, for nobody from
//! outside and for no standby, and that would be found out after hours.

use std::io;
use std::path::{Path, PathBuf};

use super::{DISK_LIMIT, Postgres, files, follow};
use crate::driver::DriverError;
use crate::driver::backup::{BackupKind, BackupOptions};

/// Without these nobody reaches a server as before.
const NEEDED: [&str; 2] = ["postgresql.conf", "pg_hba.conf"];

/// Where Debian has configurations, by version and name.
const DEBIAN: &str = "/etc/postgresql";

impl Postgres {
    /// Before hours of building, not after them.
    ///
    /// # Errors
    /// `restore-unconfigured`, with what is missing and where it belongs.
    pub(super) async fn refuse_unconfigured(&self, options: &BackupOptions) -> Result<(), DriverError> {
        match options.kind {
            BackupKind::Dump => {}
            BackupKind::Base | BackupKind::Rdb => return Ok(()),
        }
        if self.config_elsewhere().is_some() {
            return Ok(());
        }
        let (data, start) = (self.data.clone(), self.options.start.clone());
        let missing = files::blocking(DISK_LIMIT, "looking for the server's configuration", move || {
            missing(&data, &start, Path::new(DEBIAN))
        })
        .await?;
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!(
            "PGDATA {} was emptied, and the server's configuration with it: a dump brings none, and that of initdb is for port 5432 \
             and for nobody from outside; put {} into {}, or let the start command name a config_file elsewhere",
            self.data.display(),
            missing.join(" and "),
            follow::shelf(&self.data).display()
        );
        Err(DriverError::permanent("restore-unconfigured", message))
    }
}

/// What nobody would bring along.
fn missing(data: &Path, start: &[String], debian: &Path) -> io::Result<Vec<&'static str>> {
    // What is there makes room, and what it has of the operator's files is taken over.
    if files::holds_something(data)? || named(start, data) || on_debian(debian, data) {
        return Ok(Vec::new());
    }
    let shelf = follow::shelf(data);
    Ok(NEEDED.into_iter().filter(|name| !shelf.join(name).is_file()).collect())
}

/// The start command says where it is: by name, or as the folder that it calls PGDATA.
fn named(start: &[String], data: &Path) -> bool {
    let plain = |text: &str| PathBuf::from(text.trim_matches(|letter: char| matches!(letter, '\'' | '"')));
    let file = start.iter().find_map(|word| {
        let (_, file) = word.split_once("config_file=")?;
        file.split_whitespace().next().map(plain)
    });
    if let Some(file) = file {
        return !file.starts_with(data) && file.is_file();
    }
    let mut folders = start.iter().enumerate().filter_map(|(at, word)| match word.as_str() {
        "-D" | "--pgdata" => start.get(at + 1).map(|word| plain(word)),
        word => word.strip_prefix("--pgdata=").or_else(|| word.strip_prefix("-D")).map(plain),
    });
    folders.any(|folder| folder != data && folder.join("postgresql.conf").is_file())
}

/// A configuration of Debian's names PGDATA.
fn on_debian(folder: &Path, data: &Path) -> bool {
    let below = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let clusters = below(folder.to_owned()).into_iter().flat_map(below);
    clusters.map(|cluster| cluster.join("postgresql.conf")).any(|file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let is_ours =
            |named: &str| Path::new(named) == data || std::fs::canonicalize(named).is_ok_and(|whole| whole == data);
        text.lines().any(|line| data_directory(line).is_some_and(is_ours))
    })
}

/// `data_directory = '/var/lib/postgresql/15/main'     # use data in another directory`
fn data_directory(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("data_directory")?.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next(),
        None => value.split_whitespace().next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn an_emptied_place_lacks_what_lay_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (data, debian) = (folder.path().join("data"), folder.path().join("etc"));
        let start = words(&["/usr/bin/pg_ctl", "-D", data.to_str().unwrap(), "-w", "start"]);
        assert_eq!(missing(&data, &start, &debian).unwrap(), NEEDED, "it is absent");
        std::fs::create_dir(&data).unwrap();
        files::close_at_rest(&data).unwrap();
        assert_eq!(missing(&data, &start, &debian).unwrap(), NEEDED, "what the agent puts there is no configuration");
        let shelf = follow::shelf(&data);
        std::fs::create_dir(&shelf).unwrap();
        std::fs::write(shelf.join("postgresql.conf"), "").unwrap();
        assert_eq!(missing(&data, &start, &debian).unwrap(), ["pg_hba.conf"]);
        std::fs::write(shelf.join("pg_hba.conf"), "").unwrap();
        assert!(missing(&data, &start, &debian).unwrap().is_empty());
        std::fs::remove_dir_all(shelf).unwrap();
        std::fs::write(data.join("PG_VERSION"), "15").unwrap();
        assert!(missing(&data, &start, &debian).unwrap().is_empty(), "it is taken over from there");
    }

    #[test]
    fn a_configuration_elsewhere_outlives_the_data() {
        let folder = tempfile::tempdir().unwrap();
        let (data, debian) = (folder.path().join("data"), folder.path().join("etc"));
        let cluster = debian.join("15/main");
        std::fs::create_dir_all(&cluster).unwrap();
        let file = cluster.join("postgresql.conf");
        std::fs::write(&file, "data_directory = '/elsewhere'\n").unwrap();
        let start = words(&["/usr/bin/pg_ctlcluster", "15", "main", "start"]);
        assert_eq!(missing(&data, &start, &debian).unwrap(), NEEDED, "it is another cluster's");
        let option = format!("-c config_file={} -c port=6000", file.display());
        for start in [words(&["pg_ctl", "-o", &option, "start"]), words(&["pg_ctl", "-D", cluster.to_str().unwrap()])] {
            assert!(missing(&data, &start, &debian).unwrap().is_empty(), "{start:?}");
        }
        let inside = format!("-c config_file={}/postgresql.conf", data.display());
        assert_eq!(missing(&data, &words(&["pg_ctl", "-o", &inside]), &debian).unwrap(), NEEDED);
        std::fs::write(&file, format!("port = 5432\ndata_directory = '{}'\t# ours\n", data.display())).unwrap();
        assert!(missing(&data, &start, &debian).unwrap().is_empty());
        assert_eq!(data_directory("data_directory=/srv/pg # x"), Some("/srv/pg"));
        assert_eq!(data_directory("#data_directory = 'ConfigDir'"), None);
    }
}
