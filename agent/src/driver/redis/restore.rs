//! Bringing Redis back from a snapshot: loaded by an instance that nobody reaches, counted there, and only then put into the
//! place of its own. It comes up closed and follows nobody, until it is promoted. A Redis that has keys is refused, unless
//! agent.yaml lets them be set aside.
//!
//! ```text
//!  copy ─► dump.regent-new ─► note: regent.restoring ═ exchange: dump.rdb ═ start, closed ─► note becomes regent.restored
//! ```
//!
//! Where Redis keeps an append-only file it loads that and no snapshot: so the instance that nobody reaches writes one, and its
//! folder takes the place of the other, which is kept beside it.
//!
//! A note without the copy beside it says that the exchange was made: a repeat of that run goes on behind it, also after
//! a crash. The note of another run says nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lab::{AppendOnly, Lab};
use super::{CLOSED, DISK_LIMIT, GLANCE, Redis};
use crate::driver::backup::{Backup, BackupKind, BackupOptions, Judge, Over, not_empty, note, unnamed};
use crate::driver::postgres::programs::Programs;
use crate::driver::process::{Program, disk};
use crate::driver::scratch::{BACKUP, Ready, Scratch};
use crate::driver::{Done, DriverError, DriverResult};

/// Copying a snapshot.
const COPY_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// The listed command that stops the server, and until it is gone.
const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Says beside the data what was restored, by which step.
const RESTORED: &str = "regent.restored";

/// The same, from before the snapshot is put into its place.
const RESTORING: &str = "regent.restoring";

/// The place of a restore beside the data.
const NEW: &str = "new";

impl Redis {
    fn backups(&self) -> Result<&BackupOptions, DriverError> {
        let options = self.options.backups.as_ref().ok_or_else(|| unnamed("redis"))?;
        match options.kind {
            BackupKind::Rdb => Ok(options),
            BackupKind::Dump | BackupKind::Base => {
                Err(DriverError::permanent("redis-config", "backups of Redis are of kind rdb"))
            }
        }
    }

    pub(super) fn judge(&self) -> Judge {
        Judge { programs: Programs::default(), user: None, children: self.children.clone() }
    }

    /// Of a drill: the newest snapshot, in the scratch folder.
    pub(super) async fn restore_beside(&self, scratch: &Scratch, run: u64) -> DriverResult {
        let lab = Lab::at(self, scratch.place(BACKUP));
        if let Some(ready) = scratch.ready(BACKUP, run).await
            && lab.count().await.is_ok()
        {
            return Ok(Done { already: true, ..ready.done() });
        }
        let (backup, passed_over) = self.backups()?.newest(&self.judge()).await?;
        lab.stop().await?;
        scratch.make(BACKUP, &["data"]).await?;
        scratch.room_for(backup.bytes)?;
        let began = Instant::now();
        let keys = load(&lab, &backup).await?;
        let took = began.elapsed();
        let message = format!("{} was restored in {took:.1?}; {keys} keys{}", backup.words(), note(&passed_over));
        let ready = Ready { run, message, rehearsed_ms: None };
        scratch.note(BACKUP, &ready).await?;
        Ok(ready.done())
    }

    /// In earnest: the newest snapshot takes the place of the data.
    pub(super) async fn restore_in_place(&self, run: u64) -> DriverResult {
        if self.is_gone().await {
            // It comes up closed, or as the replica that it was.
            self.start().await?;
        }
        let folder = PathBuf::from(self.get("dir").await?);
        let scratch = Scratch::new(&folder.join("regent-restoring"), None);
        if let Some(message) = self.restored_before(run, &folder).await? {
            scratch.vanish().await?;
            let position = self.info().await?.position();
            return Ok(Done { already: true, message, position, ..Done::default() });
        }
        let options = self.backups()?;
        self.refuse_over(options).await?;
        let (backup, passed_over) = options.newest(&self.judge()).await?;
        let append_only = self.append_only().await?;
        let lab = Lab::at(self, scratch.place(NEW)).with_append_only(append_only.clone());
        lab.stop().await?;
        scratch.make(NEW, &["data"]).await?;
        scratch.room_for(backup.bytes.saturating_mul(if append_only.is_some() { 2 } else { 1 }))?;
        let began = Instant::now();
        let keys = load(&lab, &backup).await?;
        let checked = lab.check().await;
        let source = match (&append_only, &checked) {
            (Some(named), Ok(_)) => lab.append(named).await,
            (Some(_), Err(_)) | (None, _) => Ok(lab.dump()),
        };
        lab.stop().await?;
        let source = source?;
        let checks = checked.map_err(|error| kept(error, &scratch.place(NEW)))?;
        // It took its time, and somebody else may have brought something better meanwhile.
        self.refuse_over(options).await?;
        let aside =
            if self.info().await?.is_empty() { self.set_file_aside().await? } else { Some(self.set_aside().await?) };
        let target = folder.join(self.loaded(append_only.as_ref()).await?);
        self.close_at_rest(true).await?;
        self.stop_by_command().await?;
        let aside = aside.map(|path| format!("; what was there is in {}", path.display())).unwrap_or_default();
        let message = format!(
            "{} was restored in {:.1?}; {keys} keys, {checks} checks{aside}{}",
            backup.words(),
            began.elapsed(),
            note(&passed_over)
        );
        let ready = Ready { run, message: message.clone(), rehearsed_ms: None };
        disk::bounded("redis-files", COPY_LIMIT, "putting the snapshot into its place", move || {
            exchange(&source, &target, &ready)
        })
        .await?;
        scratch.vanish().await?;
        self.start().await?;
        let info = self.info().await?;
        if info.is_replica() || (info.keys() == 0 && keys > 0) {
            let message = "Redis came up without the snapshot; see its log";
            return Err(DriverError::retryable("restore-failed", message));
        }
        self.memory.forget().await?;
        note_the_end(folder).await?;
        Ok(Done { message, position: info.position(), ..Done::default() })
    }

    /// What its append-only file is called; none if it keeps none.
    async fn append_only(&self) -> Result<Option<AppendOnly>, DriverError> {
        if self.get("appendonly").await? != "yes" {
            return Ok(None);
        }
        let (folder, file) = (self.get("appenddirname").await?, self.get("appendfilename").await?);
        if folder.is_empty() {
            let message = "Redis before 7 loads its append-only file and no snapshot; set appendonly no, and yes again after the promotion";
            return Err(DriverError::permanent("restore-appendonly", message));
        }
        Ok(Some(AppendOnly { folder, file }))
    }

    /// What it loads when it is started, in the folder of its data.
    async fn loaded(&self, append_only: Option<&AppendOnly>) -> Result<String, DriverError> {
        match append_only {
            Some(named) => Ok(named.folder.clone()),
            None => self.get("dbfilename").await,
        }
    }

    /// What the same run has brought here before, also where it died before it could say so.
    async fn restored_before(&self, run: u64, folder: &Path) -> Result<Option<String>, DriverError> {
        if let Some(ready) = noted(&folder.join(RESTORED), run).await {
            return Ok(Some(ready.message));
        }
        let Some(ready) = noted(&folder.join(RESTORING), run).await else { return Ok(None) };
        let copy = waiting(&folder.join(self.loaded(self.append_only().await?.as_ref()).await?));
        let info = self.info().await?;
        // It was not exchanged yet, or is not what was loaded: from the beginning, and what is in the way is refused as ever.
        if tokio::fs::try_exists(&copy).await.unwrap_or(true) || info.is_replica() || info.has_no_keys() {
            return Ok(None);
        }
        self.refuse_what_serves().await?;
        self.memory.forget().await?;
        note_the_end(folder.to_owned()).await?;
        Ok(Some(ready.message))
    }

    async fn refuse_over(&self, options: &BackupOptions) -> Result<(), DriverError> {
        self.refuse_what_serves().await?;
        // What is linked no more may still be newer than any backup: only by agent.yaml's word does it make room.
        if options.over == Over::Refuse && !self.info().await?.has_no_keys() {
            return Err(not_empty(&format!("Redis at {}:{} has keys", self.options.host, self.options.port)));
        }
        Ok(())
    }

    async fn refuse_what_serves(&self) -> Result<(), DriverError> {
        let info = self.info().await?;
        if !info.is_replica() && self.get("min-replicas-to-write").await? != CLOSED {
            let message = "Redis here accepts writes; fence it before a backup takes its place";
            return Err(DriverError::permanent("restore-writable", message));
        }
        if info.is_replica() && info.is("master_link_status", "up") {
            let message = "the replica here is linked: a backup would only put it back; stop what it follows, or leave the step out";
            return Err(DriverError::permanent("restore-follows", message));
        }
        // What cannot be replaced is said before anything is built.
        self.append_only().await.map(drop)
    }

    /// What it saves as it ends lies beside what was set aside before.
    async fn stop_by_command(&self) -> Result<(), DriverError> {
        let program = Program::listed(&self.options.stop);
        let finished = program.run(&self.children, STOP_LIMIT).await.map_err(|error| error.failure("redis-stop"))?;
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.is_gone().await {
            if Instant::now() > deadline {
                let message = format!("{} returned, but Redis still runs: {}", program.name(), finished.last_words());
                return Err(DriverError::retryable("redis-stop", message));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }
}

/// What is wrong for good is not loaded again by itself: it can be looked at.
fn kept(error: DriverError, place: &Path) -> DriverError {
    if error.retryable {
        return error;
    }
    let message = format!("{}; it is kept in {} until the step is tried again", error.message, place.display());
    DriverError { message, ..error }
}

/// Loads a copy of the snapshot. How many keys it has.
async fn load(lab: &Lab<'_>, backup: &Backup) -> Result<u64, DriverError> {
    let (from, to) = (backup.path.clone(), lab.dump());
    disk::bounded("restore-failed", COPY_LIMIT, "copying the snapshot", move || std::fs::copy(&from, &to).map(drop))
        .await?;
    lab.start().await?;
    lab.count().await
}

/// What a run has noted beside the data, if it is this one.
async fn noted(file: &Path, run: u64) -> Option<Ready> {
    let text = tokio::fs::read(file).await.ok()?;
    serde_json::from_slice::<Ready>(&text).ok().filter(|ready| ready.run == run)
}

/// Where the copy waits that will take the place of this file.
fn waiting(target: &Path) -> PathBuf {
    target.with_extension("regent-new")
}

/// What was about to be is.
async fn note_the_end(folder: PathBuf) -> Result<(), DriverError> {
    disk::bounded("redis-files", DISK_LIMIT, "noting that the snapshot is in its place", move || {
        std::fs::rename(folder.join(RESTORING), folder.join(RESTORED))?;
        disk::sync(&folder)
    })
    .await
}

/// The file, or the folder of files, in the place of another, owned like the folder of both; noted before. A folder that was there is
/// kept beside it.
fn exchange(source: &Path, target: &Path, ready: &Ready) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let folder = target.parent().ok_or_else(|| std::io::Error::other("a path without a folder"))?;
    let new = waiting(target);
    let owner = std::fs::metadata(folder)?;
    let give = |path: &Path| {
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
        }
        disk::sync(path)
    };
    if source.is_dir() {
        // Of an attempt that was broken off.
        if new.exists() {
            std::fs::remove_dir_all(&new)?;
        }
        std::fs::create_dir(&new)?;
        for entry in std::fs::read_dir(source)? {
            let entry = entry?;
            let copy = new.join(entry.file_name());
            std::fs::copy(entry.path(), &copy)?;
            give(&copy)?;
        }
    } else {
        std::fs::copy(source, &new)?;
    }
    give(&new)?;
    // The copy is found after a crash wherever the note is: that it is gone will say that it was exchanged.
    disk::sync(folder)?;
    let text = serde_json::to_vec(ready).map_err(std::io::Error::other)?;
    disk::replace(&folder.join(RESTORING), &text, disk::Durability::Synced)?;
    if target.is_dir() {
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        std::fs::rename(target, folder.join(format!("{name}.regent-set-aside-{now}")))?;
    }
    std::fs::rename(&new, target)?;
    disk::sync(folder)
}
