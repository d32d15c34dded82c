//! What a world leaves on the machine, and its removal: by the world itself, or later by somebody who finds it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::config::DATABASE;
use crate::keeper::Mark;
use crate::place;
use crate::postgres;
use crate::tree;

/// The file by which a folder is known as a world's.
const FILE: &str = "world.json";

#[derive(Debug, Serialize, Deserialize)]
struct Found {
    keepers: Vec<Mark>,
    /// The process that made it.
    owner: Mark,
    runtime: PathBuf,
}

impl Found {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("there is no world in {}", folder.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not the file of a world", path.display()))
    }

    fn is_owned(&self) -> bool {
        let pid = Pid::from_raw(self.owner.pid);
        tree::is_running(pid) && tree::started(pid) == Some(self.owner.started)
    }
}

/// Folders of a world; removed when this is dropped, which must come after the end of its processes.
pub(super) struct Traces {
    folder: PathBuf,
    /// In memory, as an agent's runtime folder has to be.
    pub(super) runtime: PathBuf,
    pub(super) keep: bool,
}

impl Traces {
    /// Makes the folders.
    pub(super) fn begin(folder: &Path) -> Result<Self> {
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        if nix::unistd::Uid::effective().is_root() && !folder.parent().is_none_or(place::open_to_all) {
            bail!(
                "PostgreSQL does not run as root, and its user cannot get to {}; choose a folder that all can pass",
                folder.display()
            );
        }
        std::fs::create_dir(folder)
            .with_context(|| format!("cannot make {}; a world makes its own folder", folder.display()))?;
        let memory = [Path::new("/dev/shm"), folder].into_iter().find(|place| place.is_dir()).unwrap_or(folder);
        let runtime = memory.join(format!("regent-{}", uuid::Uuid::new_v4().simple()));
        // From here on, whatever happens, the folders are removed or at least found.
        let traces = Self { folder: folder.to_owned(), runtime, keep: std::env::var_os(super::KEEP).is_some() };
        traces.write(Vec::new())?;
        place::passable(folder)?;
        place::passable(&traces.runtime)?;
        Ok(traces)
    }

    /// Writes down whom to end.
    pub(super) fn write(&self, keepers: Vec<Mark>) -> Result<()> {
        let pid = nix::unistd::getpid();
        let owner = Mark { pid: pid.as_raw(), started: tree::started(pid).unwrap_or_default() };
        let found = Found { keepers, owner, runtime: self.runtime.clone() };
        // Never half a file: whoever finds it must be able to read it.
        let (path, draft) = (self.folder.join(FILE), self.folder.join(format!("{FILE}.draft")));
        std::fs::write(&draft, serde_json::to_vec_pretty(&found)?)
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if !self.keep {
            for folder in [&self.folder, &self.runtime] {
                // A process that is just ending may still have written; what stays is found by `take_down_all`.
                let _left = std::fs::remove_dir_all(folder);
            }
        }
    }
}

/// Ends the world that stands in `folder` and removes it.
///
/// # Errors
/// There is none, or it does not end.
pub async fn take_down(folder: &Path) -> Result<()> {
    let found = Found::read(folder)?;
    for keeper in &found.keepers {
        keeper.end().await?;
    }
    for region in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        postgres::remains::remove(&region.path().join(DATABASE).join("data"));
    }
    for folder in [folder, &found.runtime] {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Ends every world below `parent` that nobody shows just now, removes it, and gives the folders.
///
/// # Errors
/// One does not end.
pub async fn take_down_all(parent: &Path) -> Result<Vec<PathBuf>> {
    let mut gone = Vec::new();
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let folder = entry.path();
        match Found::read(&folder) {
            Ok(found) if !found.is_owned() => {
                take_down(&folder).await?;
                gone.push(folder);
            }
            _ => {}
        }
    }
    Ok(gone)
}
