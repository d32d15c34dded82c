//! Which programs run for this agent, on record in the runtime directory: what an agent that died left running is ended
//! by the next one, before that runs any program itself (safety.md, "Execution").
//!
//! ```text
//!  record written ─► the program starts, with the record's name in its environment ─► it ends ─► record removed
//!                                       the agent dies ┊ the record stays
//!  next agent ─► every process that carries the name is killed with its group, and seen gone ─► record removed
//! ```
//!
//! - No program runs without its record: the record is there first, and the name comes with the program itself.
//! - Until a child has become its program it shares the lock of the data directory. So whoever holds that lock finds
//!   every child of the agents before it.
//! - What has begun a session of its own is a daemon, e.g. a database that was being started, and is let be.

use regent_proto::watch;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgrp, getsid};
use serde::{Deserialize, Serialize};

use super::table::{Process, living};

/// The variable that names a program's record.
pub(super) const VARIABLE: &str = "REGENT_CHILD";

/// Between two looks at processes that are being ended.
const GLANCE: Duration = Duration::from_millis(10);

/// After which processes that outlive SIGKILL are told of.
const OVERDUE: Duration = Duration::from_secs(5);

/// The programs that run for this agent. Before [`Children::take_up`], and in a process that never calls it, nothing is
/// recorded.
#[derive(Debug, Clone, Default)]
pub struct Children {
    shelf: Arc<OnceLock<Shelf>>,
}

#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    /// True once nothing of a dead agent is left.
    clear: watch::Receiver<bool>,
}

/// Why a program may not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unready {
    #[error("what an agent that died had left running does not end")]
    LeftBehind,
    #[error("{0}")]
    Unrecorded(#[from] io::Error),
}

/// A program on record.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name in the environment; empty if nothing is recorded.
    pub(super) name: String,
    file: Option<PathBuf>,
}

/// What a record says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    program: String,
    /// Of the agent.
    session: i32,
    /// First process of its group, and when that began; none until it has.
    leader: Option<(i32, u64)>,
}

impl Children {
    /// From here on programs are recorded in this runtime directory. What a dead agent left running is being ended
    /// beside; nothing is run until it is gone. The caller holds the lock of the data directory.
    pub fn take_up(&self, runtime: &Path) {
        let folder = runtime.join("children");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        let left = made.and_then(|()| read_all(&folder)).unwrap_or_else(|error| {
            tracing::error!(path = %folder.display(), error = %error, "no programs can be run: they cannot be recorded");
            Vec::new()
        });
        let (cleared, clear) = watch::channel(left.is_empty());
        if self.shelf.set(Shelf { folder, clear }).is_err() || left.is_empty() {
            return;
        }
        // A thread: to look at a process can take as long as the disk that hangs under it, and no fence waits for that.
        let ending = move || {
            end(&left);
            left.iter().for_each(|(file, _)| drop(std::fs::remove_file(file)));
            cleared.send_replace(true);
        };
        if let Err(error) = std::thread::Builder::new().name("children".to_owned()).spawn(ending) {
            tracing::error!(error = %error, "what a dead agent left running cannot be ended: no programs are run");
        }
    }

    /// Puts a program on record, once nothing of a dead agent is left.
    pub(super) async fn begin(&self, program: String, limit: Duration) -> Result<Entry, Unready> {
        let Some(shelf) = self.shelf.get() else { return Ok(Entry { name: String::new(), file: None }) };
        let mut clear = shelf.clear.clone();
        match tokio::time::timeout(limit, clear.wait_for(|clear| *clear)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Unready::LeftBehind),
        }
        let name = uuid::Uuid::new_v4().to_string();
        let file = shelf.folder.join(&name);
        Stored { program, session: session()?, leader: None }.write(&file)?;
        Ok(Entry { name, file: Some(file) })
    }
}

impl Entry {
    /// The program runs: should it clear its environment, its group is still known.
    pub(super) fn began(&self, program: String, leader: Pid) {
        let (Some(file), Some(process)) = (&self.file, Process::read(leader.as_raw())) else { return };
        if let Ok(session) = session() {
            let _ = Stored { program, session, leader: Some((process.pid, process.began)) }.write(file);
        }
    }

    /// Nothing of it is left, or what is left is meant to be.
    pub(super) fn ended(self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }

    /// Its group was killed: the record goes when the group has.
    pub(super) fn killed(self, group: Pid) {
        let (Some(_), Ok(runtime)) = (&self.file, tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            while living().iter().any(|process| process.group == group.as_raw()) {
                tokio::time::sleep(GLANCE).await;
            }
            self.ended();
        });
    }
}

impl Stored {
    /// Whole or not at all: the folder is in memory.
    fn write(&self, file: &Path) -> io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self).map_err(io::Error::other)?)?;
        std::fs::rename(&new, file)
    }
}

fn session() -> io::Result<i32> {
    getsid(None).map(Pid::as_raw).map_err(io::Error::from)
}

fn read_all(folder: &Path) -> io::Result<Vec<(PathBuf, Stored)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path();
        // One that was half written when the agent died is of a program that had not begun.
        match std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            Some(stored) if file.extension().is_none() => all.push((file, stored)),
            Some(_) | None => drop(std::fs::remove_file(&file)),
        }
    }
    Ok(all)
}

/// Kills what the records name until none of it is left.
fn end(left: &[(PathBuf, Stored)]) {
    let began = Instant::now();
    let mut said = false;
    for (_, stored) in left {
        tracing::warn!(program = stored.program, "an agent died while this ran; ending what is left of it");
    }
    loop {
        let found = left_of(left);
        if found.is_empty() {
            return;
        }
        for process in &found {
            let _ = process.signal(Signal::SIGKILL);
        }
        if began.elapsed() > OVERDUE && !std::mem::replace(&mut said, true) {
            let pids = found.iter().map(|process| process.pid.to_string()).collect::<Vec<_>>().join(", ");
            tracing::error!(pids, "what a dead agent left running outlives SIGKILL: no programs are run until it ends");
        }
        std::thread::sleep(GLANCE);
    }
}

/// The processes that carry a record's name, or are a recorded leader, and everything in their groups.
fn left_of(left: &[(PathBuf, Stored)]) -> Vec<Process> {
    let all = living();
    let own = getpgrp().as_raw();
    let of_record = |process: &Process, (file, stored): &(PathBuf, Stored)| {
        let carries = || {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            process.environment(VARIABLE).is_some_and(|carried| carried == name)
        };
        let leads = stored.leader == Some((process.pid, process.began));
        process.session == stored.session && (leads || carries())
    };
    let mut groups: BTreeSet<i32> = all
        .iter()
        .filter(|process| left.iter().any(|record| of_record(process, record)))
        .map(|process| process.group)
        .collect();
    groups.remove(&own);
    all.into_iter().filter(|process| groups.contains(&process.group)).collect()
}
