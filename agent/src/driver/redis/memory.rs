//! What an open primary had when it was last looked at, kept where a restart of the machine finds it.
//!
//! A Redis that saves nothing, or a snapshot now and then, or whose folder is not there any more, comes back with an old or
//! an empty data set, under a history of its own, and its replicas would take a copy of that in the place of what they have
//! (S5). Hence what a restart has loaded is compared before it is opened again:
//!
//! ```text
//!  the same process (run_id)            it never went away
//!  append-only file before and now      at least the bytes that it had: kill -9 loses none of them; if it was rewritten
//!                                       since (a base of a higher number), keys where there were keys
//!  no backlog before                    a snapshot that was saved behind the last look, or with nothing unsaved then
//!  otherwise                            a snapshot of the same history, at least up to the last offset that was seen
//! ```
//!
//! The server itself remembers its offset in a snapshot only: with an append-only file, every start counts from 0, so the
//! bytes of the file are counted. What was written within the last [`UNSYNCED`] is not, since a machine that dies
//! may take so much with it under `appendfsync everysec`: that is the loss which this setting names. (A server that has
//! just made its first such file does not count that file's head before its next start: some 90 bytes.)
//!
//! A snapshot names its history only where a backlog was kept: where a replica was within `repl-backlog-ttl`. Without one
//! its own time counts. What cannot be told then is no loss, if there are keys: no replica was near.
//!
//! Once found lacking, a process stays so, though its file grows again: an expired key is a write, too. It is opened when
//! an operator removes the record, or after a step that brought back other data.

mod last;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

pub(super) use self::last::Open;
use super::DISK_LIMIT;
use super::files::{Files, Places, millis};
use super::session::Info;
use crate::driver::DriverError;
use crate::driver::process::disk::{self, Durability, replace};

/// The step of a file system's clock, in milliseconds, with room.
const TICK: u64 = 20;

/// What an append-only file may lack when its machine has died.
const UNSYNCED: Duration = Duration::from_secs(3);

/// One look at an open primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    /// Of the process.
    run_id: String,
    /// Of its history.
    history: String,
    /// Up to where, in bytes of the replication stream.
    offset: u64,
    /// Bytes of its append-only file; none if it keeps none.
    appended: Option<u64>,
    /// The number of that file's base, from before that look; none if not known. A rewrite makes it higher.
    #[serde(default)]
    base: Option<u64>,
    /// A snapshot is good only if it names its history.
    #[serde(default = "named")]
    backlog: bool,
    /// It had keys.
    #[serde(default)]
    keys: bool,
    /// A snapshot from before this has not all: milliseconds since 1970; none if nothing was unsaved.
    #[serde(default)]
    unsaved: Option<u64>,
}

/// Of records that do not say it.
const fn named() -> bool {
    true
}

impl Seen {
    /// None if the server does not say who it is.
    fn of(info: &Info) -> Option<Self> {
        let run_id = info.text("run_id");
        (!run_id.is_empty()).then(|| Self {
            run_id: run_id.to_owned(),
            history: info.text("master_replid").to_owned(),
            offset: info.position().unwrap_or_default(),
            appended: appended(info),
            base: None,
            // With an append-only file a snapshot may be of long ago.
            backlog: info.is("aof_enabled", "1") || !info.is("repl_backlog_active", "0"),
            keys: !info.has_no_keys(),
            unsaved: None,
        })
    }

    /// What this server, a primary, lacks of it; none if nothing.
    fn lacked_by(&self, info: &Info, files: Files) -> Option<String> {
        if info.is("run_id", &self.run_id) {
            return None;
        }
        let emptied = (self.keys && info.has_no_keys()).then(|| "it had keys and has none".to_owned());
        if let (Some(had), Some(has)) = (self.appended, appended(info)) {
            return match self.base.zip(files.base) {
                // Rewritten since: the bytes say nothing.
                Some((before, now)) if now > before => emptied,
                Some((before, now)) if now < before => {
                    Some(format!("the base of its append-only file had number {before} and has {now}"))
                }
                Some(_) | None => (has < had).then(|| format!("its append-only file had {had} bytes and has {has}")),
            };
        }
        // Of a snapshot that was loaded; it does not grow with what is sent from then on.
        let loaded = info.number("second_repl_offset").filter(|_| info.is("master_replid2", &self.history));
        match loaded.map(|next| next.saturating_sub(1)) {
            Some(loaded) if loaded >= self.offset => None,
            Some(loaded) => Some(format!("it had reached offset {} and loaded a snapshot of {loaded}", self.offset)),
            None if !self.backlog => emptied.or_else(|| self.saved_before(info, files)),
            None => Some(format!("it had reached offset {} and loaded nothing of that history", self.offset)),
        }
    }

    /// Where the snapshot names no history: that it was saved before all was there.
    fn saved_before(&self, info: &Info, files: Files) -> Option<String> {
        let (unsaved, saved) = self.unsaved.zip(files.saved)?;
        if info.number("rdb_saves").is_some_and(|saves| saves > 0) {
            return Some(
                "it has saved a snapshot since it started: when that which it loaded was, is not known".to_owned(),
            );
        }
        (saved < unsaved).then(|| {
            let ago = Duration::from_millis(unsaved - saved);
            format!("its snapshot was saved {ago:?} before it was last seen, with changes that were not saved")
        })
    }
}

fn appended(info: &Info) -> Option<u64> {
    info.number("aof_current_size").filter(|_| info.is("aof_enabled", "1"))
}

/// What is remembered of one server.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where it is kept; none: only in this process.
    file: Option<PathBuf>,
    kept: Arc<Mutex<Kept>>,
    /// The files are being read or the record written.
    writing: Arc<AtomicBool>,
}

/// What a file had.
#[derive(Debug)]
enum Stored {
    Nothing,
    Seen(Seen),
    Unreadable(String),
}

#[derive(Debug, Default)]
struct Kept {
    seen: Option<Seen>,
    /// It differs from what the file has.
    unwritten: bool,
    /// There was a file.
    written: bool,
    /// It could not be written, and that was said.
    failing: bool,
    /// Sizes of the append-only file of this process, oldest first: one that is older than [`UNSYNCED`], and all since.
    sizes: VecDeque<(Instant, u64)>,
    /// The process that was found lacking, and what it lacks.
    lacking: Option<(String, String)>,
    /// The number of the base of this process's append-only file, when its files were last read.
    base: Option<(String, u64)>,
    /// The process, its changes that were not saved, and its last save.
    changes: Option<(String, Option<u64>, Option<u64>)>,
}

impl Kept {
    /// Before when a snapshot has not all, where its own time is what counts.
    fn unsaved(&mut self, seen: &Seen, info: &Info) -> Option<u64> {
        let [changes, save] = ["rdb_changes_since_last_save", "rdb_last_save_time"].map(|key| info.number(key));
        let changes = Some((seen.run_id.clone(), changes, save));
        let before = std::mem::replace(&mut self.changes, changes.clone());
        if seen.backlog || info.is("rdb_changes_since_last_save", "0") {
            return None;
        }
        // Nothing has changed since: the record need not, either.
        let same = self.seen.as_ref().filter(|_| before == changes).and_then(|seen| seen.unsaved);
        same.or_else(|| millis(SystemTime::now()).map(|now| now.saturating_sub(TICK)))
    }

    fn note(&mut self, mut seen: Seen, rewriting: bool, at: Instant) {
        let before = self.seen.as_ref().filter(|before| before.run_id == seen.run_id);
        // Until the first rewrite has ended, the file has nothing of what was there before it was switched on.
        if rewriting && before.is_none_or(|before| before.appended.is_none()) {
            seen.appended = None;
        }
        if before.is_none() {
            self.sizes.clear();
        }
        match seen.appended {
            None => self.sizes.clear(),
            Some(size) => {
                self.sizes.push_back((at, size));
                let old = |at_then: &Instant| at.saturating_duration_since(*at_then) >= UNSYNCED;
                while self.sizes.get(1).is_some_and(|(at_then, _)| old(at_then)) {
                    self.sizes.pop_front();
                }
                // The smallest, since a rewrite makes it smaller.
                seen.appended = self.sizes.iter().map(|(_, size)| *size).min();
            }
        }
        // From before this look: if it was rewritten in between, the number is the lower one, and nothing is compared.
        seen.base = self.base.as_ref().filter(|(process, _)| *process == seen.run_id).map(|(_, base)| *base);
        self.lacking = None;
        if self.seen.as_ref() != Some(&seen) {
            self.seen = Some(seen);
            self.unwritten = true;
        }
    }

    /// What a primary lacks, by what is known and what is stored.
    fn lacked_by(&mut self, info: &Info, stored: Option<Stored>, files: Files) -> Option<String> {
        match stored {
            // Removed: the operator's word.
            Some(Stored::Nothing) if self.written => *self = Self::default(),
            Some(Stored::Seen(seen)) if self.seen.is_none() => (self.seen, self.written) = (Some(seen), true),
            Some(Stored::Unreadable(why)) if self.seen.is_none() => {
                self.written = true;
                return Some(why);
            }
            Some(Stored::Nothing | Stored::Seen(_) | Stored::Unreadable(_)) | None => {}
        }
        let run_id = info.text("run_id");
        let known = self.lacking.as_ref().filter(|(process, _)| process == run_id).map(|(_, lacks)| lacks.clone());
        let lacks = known.or_else(|| self.seen.as_ref()?.lacked_by(info, files));
        self.lacking = lacks.clone().map(|lacks| (run_id.to_owned(), lacks));
        lacks
    }
}

impl Memory {
    /// Kept in this file.
    pub(super) fn at(file: PathBuf) -> Self {
        Self { file: Some(file), ..Self::default() }
    }

    /// An open primary was seen, or one that is about to be. It is written beside: nothing waits for the disk.
    pub(super) fn saw(&self, info: &Info, places: Option<Places>) {
        let Some(mut seen) = Seen::of(info) else { return };
        let process = seen.run_id.clone();
        let rewriting = info.is("aof_rewrite_in_progress", "1") || info.is("aof_rewrite_scheduled", "1");
        let mut kept = self.kept();
        seen.unsaved = kept.unsaved(&seen, info);
        kept.note(seen, rewriting, Instant::now());
        drop(kept);
        // Never twice at the same time; what comes meanwhile is written at the next look.
        if (self.file.is_none() && places.is_none()) || self.writing.swap(true, Ordering::SeqCst) {
            return;
        }
        let (file, kept, writing) = (self.file.clone(), self.kept.clone(), self.writing.clone());
        tokio::task::spawn_blocking(move || {
            let unwritten = kept.lock().unwrap_or_else(PoisonError::into_inner).unwritten;
            if let Some(file) = file.filter(|_| unwritten) {
                write(&file, &kept);
            }
            // For the next look.
            if let Some(places) = places {
                let base = Files::at(&places).base.map(|base| (process, base));
                kept.lock().unwrap_or_else(PoisonError::into_inner).base = base;
            }
            writing.store(false, Ordering::SeqCst);
        });
    }

    /// Other data has taken its place.
    pub(super) async fn forget(&self) -> Result<(), DriverError> {
        *self.kept() = Kept::default();
        let Some(file) = self.file.clone() else { return Ok(()) };
        let remove = move || match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) | Ok(()) => Ok(()),
        };
        disk::bounded("redis-files", DISK_LIMIT, "forgetting what Redis had", remove).await
    }

    /// What this primary lacks of what it had when it was last seen open, and what to do; none if nothing, or if it was
    /// never seen open.
    pub(super) async fn lacking(&self, info: &Info, places: Option<Places>) -> Result<Option<String>, DriverError> {
        let file = self.file.clone();
        let (stored, files) = disk::bounded("redis-files", DISK_LIMIT, "reading what Redis had", move || {
            let stored = file.as_deref().map(read).transpose()?;
            Ok((stored, places.as_ref().map(Files::at).unwrap_or_default()))
        })
        .await?;
        let mut kept = self.kept();
        let lacks = kept.lacked_by(info, stored, files);
        let written = kept.written;
        drop(kept);
        let word = match self.file.as_ref().map(|file| file.display()) {
            Some(file) if written => format!("remove {file} to have it opened as it is"),
            Some(file) => format!("restart its agent to have it opened as it is: {file} could not be written"),
            None => "restart its agent to have it opened as it is: nothing is recorded".to_owned(),
        };
        Ok(lacks.map(|lacks| {
            format!(
                "after its restart Redis has less than before, so it stays closed and hands out no copy: {lacks}; fail \
                 over, or {word}"
            )
        }))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is known when it comes to it. What fails is tried again at the next look, and said once.
fn write(file: &Path, kept: &Mutex<Kept>) {
    let seen = {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.unwritten = false;
        kept.seen.clone()
    };
    let Some(seen) = seen else { return };
    let text = serde_json::to_vec(&seen).map_err(io::Error::other);
    let outcome = text.and_then(|text| replace(file, &text, Durability::Synced));
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.unwritten |= outcome.is_err();
    kept.written |= outcome.is_ok();
    let said = std::mem::replace(&mut kept.failing, outcome.is_err());
    drop(kept);
    if let Err(error) = outcome
        && !said
    {
        let error = crate::journal::chain(&error);
        tracing::error!(file = %file.display(), error, "cannot remember what Redis has");
    }
}

fn read(file: &Path) -> io::Result<Stored> {
    match std::fs::read(file) {
        Ok(text) => Ok(serde_json::from_slice(&text)
            .map_or_else(|error| Stored::Unreadable(format!("its record cannot be read: {error}")), Stored::Seen)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Stored::Nothing),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(run: &str, rest: &str) -> Info {
        Info::parse(&format!("role:master\nrun_id:{run}\n{rest}"))
    }

    fn aof(run: &str, bytes: u64) -> Info {
        info(run, &format!("master_replid:{run}\nmaster_repl_offset:0\naof_enabled:1\naof_current_size:{bytes}\n"))
    }

    fn lacks(had: &Info, has: &Info) -> bool {
        Seen::of(had).unwrap().lacked_by(has, Files::default()).is_some()
    }

    #[test]
    fn an_append_only_file_is_compared_by_its_bytes() {
        assert!(!lacks(&aof("a", 100), &aof("a", 3)), "it never went away");
        assert!(!lacks(&aof("a", 100), &aof("b", 100)));
        assert!(lacks(&aof("a", 100), &aof("b", 99)));
        let off = info("b", "master_replid:b\nmaster_repl_offset:500\naof_enabled:0\n");
        assert!(lacks(&aof("a", 100), &off), "it was switched off, and nothing was loaded");
        assert!(lacks(&off, &aof("c", 100_000)), "it was switched on in the file, and nothing was loaded");
    }

    #[test]
    fn a_snapshot_is_compared_by_the_offset_that_it_was_loaded_with() {
        let had = info("a", "master_replid:one\nmaster_repl_offset:100\n");
        let loaded = |history: &str, offset: u64| {
            let next = offset + 1;
            // What is sent to replicas from then on counts, too.
            info(
                "b",
                &format!(
                    "master_replid:two\nmaster_repl_offset:900\nmaster_replid2:{history}\nsecond_repl_offset:{next}\n"
                ),
            )
        };
        assert!(!lacks(&had, &loaded("one", 100)));
        assert!(lacks(&had, &loaded("one", 99)));
        assert!(lacks(&had, &loaded("other", 100)));
        assert!(lacks(&had, &info("b", "master_replid:two\nmaster_repl_offset:900\nsecond_repl_offset:-1\n")));
    }

    #[test]
    fn a_file_that_was_rewritten_is_not_compared_by_its_bytes() {
        let with_keys = |run: &str, bytes: u64| {
            info(run, &format!("master_replid:{run}\naof_enabled:1\naof_current_size:{bytes}\ndb0:keys=3,expires=0\n"))
        };
        let had = Seen { base: Some(2), ..Seen::of(&with_keys("a", 100)).unwrap() };
        let lacks = |has: &Info, base| had.lacked_by(has, Files { base, saved: None }).is_some();
        assert!(!lacks(&with_keys("b", 40), Some(3)));
        assert!(lacks(&aof("b", 40), Some(3)), "it is empty");
        assert!(lacks(&with_keys("b", 40), Some(2)));
        assert!(lacks(&with_keys("b", 40), None));
        assert!(lacks(&with_keys("b", 400), Some(1)), "another file");
    }

    #[test]
    fn a_snapshot_that_can_name_no_history_is_compared_by_its_time() {
        let none = "master_replid:one\nmaster_repl_offset:0\nrepl_backlog_active:0\n";
        let has = info("b", "master_replid:two\nsecond_repl_offset:-1\ndb0:keys=3,expires=0\nrdb_saves:0\n");
        let had =
            Seen { unsaved: Some(500), ..Seen::of(&info("a", &format!("{none}db0:keys=3,expires=0\n"))).unwrap() };
        let lacks = |had: &Seen, has: &Info, saved| had.lacked_by(has, Files { base: None, saved }).is_some();
        assert!(!lacks(&had, &has, Some(500)));
        assert!(lacks(&had, &has, Some(499)));
        assert!(!lacks(&had, &has, None), "it cannot be told");
        assert!(!lacks(&Seen { unsaved: None, ..had.clone() }, &has, Some(499)), "nothing was unsaved");
        let empty = info("b", "master_replid:two\nsecond_repl_offset:-1\n");
        assert!(lacks(&had, &empty, Some(500)) && lacks(&had, &empty, None));
        let saved_since = info("b", "db0:keys=3,expires=0\nrdb_saves:1\n");
        assert!(lacks(&had, &saved_since, Some(900)));
        assert!(lacks(&Seen { backlog: true, ..had }, &has, Some(500)), "its snapshot would name it");
    }

    #[tokio::test]
    async fn a_record_that_was_never_written_is_not_named() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::at(folder.path().join("absent").join("record.json"));
        memory.saw(&aof("a", 100), None);
        let told = memory.lacking(&aof("b", 9), None).await.unwrap().unwrap();
        assert!(told.contains("restart its agent") && !told.contains("remove"), "{told}");
    }

    fn remembered(looks: &[(u64, &Info, bool)]) -> Option<u64> {
        let (mut kept, began) = (Kept::default(), Instant::now());
        for (millis, info, rewriting) in looks {
            kept.note(Seen::of(info).unwrap(), *rewriting, began + Duration::from_millis(*millis));
        }
        kept.seen.unwrap().appended
    }

    #[test]
    fn what_a_dying_machine_may_take_with_it_is_not_counted() {
        let sizes: Vec<Info> = [10, 20, 30, 40].map(|bytes| aof("a", bytes)).into();
        let looks: Vec<(u64, &Info, bool)> =
            sizes.iter().zip([0, 1000, 3500, 4500]).map(|(info, at)| (at, info, false)).collect();
        assert_eq!(remembered(&looks[..3]), Some(10));
        assert_eq!(remembered(&looks), Some(20));
        // A rewrite made it small; another process begins anew.
        assert_eq!(remembered(&[looks[3], (4600, &sizes[0], true)]), Some(10));
        assert_eq!(remembered(&[looks[0], (100, &aof("b", 50), false)]), Some(50));
    }

    #[test]
    fn a_file_counts_once_its_first_rewrite_has_ended() {
        let off = info("a", "master_replid:a\nmaster_repl_offset:7\naof_enabled:0\n");
        assert_eq!(remembered(&[(0, &off, false), (1, &aof("a", 0), true)]), None);
        assert_eq!(remembered(&[(0, &off, false), (1, &aof("a", 0), true), (2, &aof("a", 90), false)]), Some(90));
    }

    #[tokio::test]
    async fn it_survives_the_agent_and_a_removed_record_is_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("record.json");
        let memory = || Memory::at(file.clone());
        assert_eq!(memory().lacking(&aof("a", 0), None).await.unwrap(), None, "never seen");
        memory().saw(&aof("a", 100), None);
        while !file.exists() {
            tokio::task::yield_now().await;
        }
        let later = memory();
        let told = later.lacking(&aof("b", 9), None).await.unwrap().unwrap();
        assert!(told.contains("had 100 bytes and has 9") && told.contains("record.json"), "{told}");
        // What expires is written, too.
        assert!(later.lacking(&aof("b", 500), None).await.unwrap().is_some());
        assert_eq!(later.lacking(&aof("c", 100), None).await.unwrap(), None);
        std::fs::write(&file, "{").unwrap();
        assert!(memory().lacking(&aof("c", 100), None).await.unwrap().is_some(), "it cannot be known");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(later.lacking(&aof("b", 9), None).await.unwrap(), None);
        assert_eq!(memory().lacking(&aof("b", 9), None).await.unwrap(), None);
    }
}
