//! Scratch folders: where drills and restores work beside a database, and what is taken away again.
//!
//! A folder is Regent's own once it holds the claim, which is written before anything else and removed last. In a folder
//! without it nothing is ever written or removed (safety.md, S5).

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use serde::{Deserialize, Serialize};

use super::process::disk::{self, Durability};
use super::{Done, DriverError, DriverResult};

/// Where the copy of a standby is.
pub const COPY: &str = "copy";
/// Where a restored backup is.
pub const BACKUP: &str = "backup";

/// Written into a place when it is as it should be: a repeated step looks for it.
const READY: &str = "ready.json";

/// The file that makes a folder Regent's own.
const CLAIM: &str = "regent-scratch";

/// A file operation; taking a large copy away takes long.
const DISK_LIMIT: Duration = Duration::from_secs(600);

/// Room that is left free beside what is copied: the database may live on the same disk.
const ROOM_LEFT: u64 = 512 << 20;

/// Where drills may work.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScratchOptions {
    /// A folder for nothing else, made if its parent is there; with room for a copy of the database. No default.
    pub directory: PathBuf,
    /// Settings of the instance beside those that isolate it, as the engine's configuration names them. Default: none.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// A query that must be answered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// One statement that reads. No default.
    pub query: String,
    /// The first column of its first row. Default: any but NULL and false.
    #[serde(default)]
    pub expect: Option<String>,
}

/// What is remembered of a place that is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The run that made it.
    pub run: u64,
    /// What was done.
    pub message: String,
    /// How long the same would take in earnest, where that is not the whole of it.
    pub rehearsed_ms: Option<u64>,
}

impl Ready {
    /// As what a step measured.
    #[must_use]
    pub fn done(&self) -> Done {
        let rehearsed = self.rehearsed_ms.map(Duration::from_millis);
        Done { message: self.message.clone(), rehearsed, ..Done::default() }
    }
}

/// A scratch folder and who works in it.
#[derive(Debug, Clone)]
pub struct Scratch {
    folder: PathBuf,
    user: Option<String>,
}

impl Scratch {
    /// A folder whose content belongs to this user, or to the agent's own.
    #[must_use]
    pub fn new(folder: &Path, user: Option<&str>) -> Self {
        Self { folder: folder.to_owned(), user: user.map(str::to_owned) }
    }

    /// A place in it.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes the folder Regent's own, and an empty place in it with the folders that are named.
    ///
    /// # Errors
    /// If it is somebody else's, or cannot be made.
    pub async fn make(&self, name: &str, inside: &'static [&'static str]) -> Result<PathBuf, DriverError> {
        let (own, name) = (self.clone(), name.to_owned());
        let made = disk::bounded("scratch-files", DISK_LIMIT, "making a place in the scratch folder", move || {
            own.claim()?;
            let place = own.place(&name);
            remove(&place)?;
            own.folder(&place)?;
            inside.iter().try_for_each(|part| own.folder(&place.join(part)))?;
            Ok(place)
        });
        made.await.map_err(|error| self.explain(error))
    }

    /// What is remembered of a place, if this run made it ready.
    pub async fn ready(&self, name: &str, run: u64) -> Option<Ready> {
        let text = tokio::fs::read(self.place(name).join(READY)).await.ok()?;
        serde_json::from_slice::<Ready>(&text).ok().filter(|ready| ready.run == run)
    }

    /// A place is ready.
    ///
    /// # Errors
    /// If that cannot be written.
    pub async fn note(&self, name: &str, ready: &Ready) -> Result<(), DriverError> {
        let (file, text) = (self.place(name).join(READY), serde_json::to_vec(ready));
        disk::bounded("scratch-files", DISK_LIMIT, "noting that a copy is ready", move || {
            disk::replace(&file, &text.map_err(io::Error::other)?, Durability::Written)
        })
        .await
    }

    /// The end of a drill, once what it left there runs no more; `ran`: something did.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub async fn clean_up(&self, ran: bool) -> DriverResult {
        let cleared = self.clear().await?;
        let message = if cleared { "the scratch folder is empty, and nothing runs there" } else { "there was nothing" };
        Ok(Done { already: !ran && !cleared, message: message.to_owned(), ..Done::default() })
    }

    /// Takes everything away, the claim last; false if there was nothing.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub async fn clear(&self) -> Result<bool, DriverError> {
        let own = self.clone();
        let cleared = disk::bounded("scratch-files", DISK_LIMIT, "clearing the scratch folder", move || {
            let claim = own.folder.join(CLAIM);
            if !claim.exists() {
                return Ok(false);
            }
            for entry in std::fs::read_dir(&own.folder)? {
                let path = entry?.path();
                if path != claim {
                    remove(&path)?;
                }
            }
            std::fs::remove_file(&claim)?;
            disk::sync(&own.folder)?;
            Ok(true)
        });
        cleared.await.map_err(|error| self.explain(error))
    }

    /// Takes everything away, and the folder, too, where nobody has put anything else into it: it was made for one restore.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub async fn vanish(&self) -> Result<(), DriverError> {
        self.clear().await?;
        let folder = self.folder.clone();
        let removed = disk::bounded("scratch-files", DISK_LIMIT, "removing the scratch folder", move || {
            use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
            match std::fs::remove_dir(&folder) {
                Err(error) if !matches!(error.kind(), DirectoryNotEmpty | NotFound) => Err(error),
                _ => Ok(()),
            }
        });
        removed.await.map_err(|error| self.explain(error))
    }

    /// Sees that there is room for this much, and some left.
    ///
    /// # Errors
    /// `scratch-no-room` with the numbers.
    pub fn room_for(&self, bytes: u64) -> Result<(), DriverError> {
        let looked =
            if self.folder.exists() { self.folder.as_path() } else { self.folder.parent().unwrap_or(&self.folder) };
        let Ok(disk) = nix::sys::statvfs::statvfs(looked) else { return Ok(()) };
        let free = disk.blocks_available() * disk.fragment_size();
        let wanted = bytes.saturating_add(bytes / 10).saturating_add(ROOM_LEFT);
        if free >= wanted {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        Err(DriverError::permanent(
            "scratch-no-room",
            format!(
                "a copy of {} MiB needs {} MiB in {}, and {} MiB are free; give scratch.directory a larger disk",
                mib(bytes),
                mib(wanted),
                self.folder.display(),
                mib(free)
            ),
        ))
    }

    fn claim(&self) -> io::Result<()> {
        if !self.folder.exists() {
            self.folder(&self.folder)?;
        }
        let claim = self.folder.join(CLAIM);
        if claim.exists() {
            return Ok(());
        }
        if std::fs::read_dir(&self.folder)?.next().is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there are files in it that are not Regent's"));
        }
        disk::replace(&claim, b"Everything here is removed at the end of a drill.\n", Durability::Synced)
    }

    fn folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)?;
        let Some(name) = self.user.as_ref().filter(|_| geteuid().is_root()) else { return Ok(()) };
        let user = User::from_name(name)?.ok_or_else(|| io::Error::other(format!("there is no user {name}")))?;
        chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
    }

    fn explain(&self, error: DriverError) -> DriverError {
        DriverError { message: format!("{}: {}", self.folder.display(), error.message), ..error }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?.file_type(),
    };
    if kind.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
}

/// Neither lies within the other.
#[must_use]
pub fn apart(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let (one, other) = (whole(one), whole(other));
    !one.starts_with(&other) && !other.starts_with(&one)
}

/// What was seen of the copies.
///
/// # Errors
/// If there was none to look at.
pub fn looked_at(said: &[String]) -> DriverResult {
    if said.is_empty() {
        let message = "there is no copy to look at; promote or restore it in a line before";
        return Err(DriverError::permanent("scratch-check", message));
    }
    Ok(Done { message: said.join("; "), ..Done::default() })
}

/// A resource without a scratch folder cannot be copied.
#[must_use]
pub fn missing(kind: &str) -> DriverError {
    DriverError::permanent(
        "scratch-missing",
        format!("this {kind} resource has no scratch.directory in agent.yaml; add a folder where copies can be made"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_not_regents_is_neither_used_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let theirs = folder.path().join("precious");
        std::fs::write(&theirs, "x").unwrap();
        let scratch = Scratch::new(folder.path(), None);
        let refused = scratch.make("copy", &[]).await.unwrap_err();
        assert_eq!(refused.code, "scratch-files", "{refused}");
        assert!(!scratch.clear().await.unwrap());
        assert!(theirs.exists());
    }

    #[tokio::test]
    async fn all_that_was_made_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("scratch");
        let scratch = Scratch::new(&own, None);
        let place = scratch.make("copy", &["data"]).await.unwrap();
        std::fs::write(place.join("data/file"), "x").unwrap();
        assert!(!scratch.make("copy", &["data"]).await.unwrap().join("data/file").exists(), "a place is made empty");
        assert!(scratch.clear().await.unwrap());
        assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0);
        assert!(!scratch.clear().await.unwrap(), "there is nothing left to take away");
    }

    #[test]
    fn a_scratch_folder_lies_beside_the_data() {
        assert!(apart(Path::new("/a/data"), Path::new("/a/scratch")));
        assert!(!apart(Path::new("/a/data"), Path::new("/a/data/scratch")));
        assert!(!apart(Path::new("/a/data"), Path::new("/a")));
    }
}
