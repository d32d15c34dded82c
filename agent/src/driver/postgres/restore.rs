//! Bringing a database back from a backup: built in a folder of its own by an instance that nobody reaches, looked at there,
//! and only then put into the place of PGDATA, by renaming.
//!
//! ```text
//!  newest whole backup ─► build ─► rows, checks ─► shut down, checksums ─► closed at rest ═ exchange ═ start, closed
//!                         in PGDATA.regent-restoring/new                     old PGDATA ─► PGDATA.regent-set-aside-TIME
//! ```
//!
//! It goes where nothing is: PGDATA is absent, or holds nothing but what the agent itself puts there. Anything else is
//! refused, unless agent.yaml lets it be set aside.
//!
//! A crash before the exchange leaves PGDATA as it was; one within it leaves none; and what stands there at last was
//! shut down cleanly. So nothing half restored ever looks whole. What was there is set aside, never deleted (S5). The
//! restored database follows nobody and refuses writes until it is promoted.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::lab::{LONG, Lab};
use super::programs::Programs;
use super::session::{SqlError, run};
use super::{DISK_LIMIT, Postgres, archive, files, follow, roles};
use crate::driver::backup::{Backup, BackupKind, BackupOptions, DumpForm, Judge, Over, form, not_empty, note, unnamed};
use crate::driver::process::Program;
use crate::driver::scratch::{BACKUP, Ready, Scratch};
use crate::driver::{Done, DriverError, DriverResult};

/// Limits that any server's own are above.
const SMALL: [(&str, &str); 4] = [
    ("max_connections", "20"),
    ("max_wal_senders", "0"),
    ("max_worker_processes", "4"),
    ("max_prepared_transactions", "0"),
];

/// Says in PGDATA what was restored, by which step: a repeated one finds it.
const RESTORED: &str = "regent.restored";

/// The place of a restore beside PGDATA.
const NEW: &str = "new";

impl Postgres {
    fn backups(&self) -> Result<&BackupOptions, DriverError> {
        let options = self.options.backups.as_ref().ok_or_else(|| unnamed("postgres"))?;
        match options.kind {
            BackupKind::Dump | BackupKind::Base => Ok(options),
            BackupKind::Rdb => {
                Err(DriverError::permanent("postgres-config", "backups of kind rdb are for redis resources"))
            }
        }
    }

    pub(super) fn judge(&self) -> Judge {
        let user = Some(self.options.os_user.clone());
        let programs = Programs {
            own: self.options.bin_directory.clone(),
            server: self.options.major(),
            children: self.children.clone(),
        };
        Judge { programs, user, children: self.children.clone() }
    }

    /// An instance by the programs that this backup takes.
    async fn lab_for(&self, place: PathBuf, backup: &Backup) -> Result<Lab<'_>, DriverError> {
        let (options, programs) = (self.backups()?, self.judge().programs);
        let (folder, loads) = match options.kind {
            BackupKind::Base => {
                let folder = programs.for_base(&backup.path).await?;
                (folder.clone(), folder)
            }
            BackupKind::Dump | BackupKind::Rdb => programs.for_dump(&backup.path).await?,
        };
        Ok(Lab::at(self, place).with_programs(folder, loads))
    }

    /// Of a drill: the newest backup, in the scratch folder.
    pub(super) async fn restore_beside(&self, scratch: &Scratch, run: u64) -> DriverResult {
        let lab = Lab::at(self, scratch.place(BACKUP));
        if let Some(ready) = scratch.ready(BACKUP, run).await
            && lab.connect("postgres").await.is_ok()
        {
            return Ok(Done { already: true, ..ready.done() });
        }
        let options = self.backups()?;
        let (backup, passed_over) = options.newest(&self.judge()).await?;
        let lab = self.lab_for(scratch.place(BACKUP), &backup).await?;
        lab.stop().await?;
        scratch.make(BACKUP, &super::rehearse::PARTS).await?;
        scratch.room_for(unpacked(options, &backup))?;
        let began = Instant::now();
        let how = self.build(&lab, options, &backup).await?;
        let rows = lab.count().await?;
        let compared = self.compare_rows(options, &backup, &rows).await?;
        // The pages are read while nothing runs; what asks of it later finds it running again.
        lab.shut_down().await?;
        let pages = self.read_checksums(&lab).await?;
        lab.start().await?;
        let took = began.elapsed();
        let message = format!(
            "{} was restored in {took:.1?}{how}; {rows}{compared}, {pages}{}",
            backup.words(),
            note(&passed_over)
        );
        let ready = Ready { run, message, rehearsed_ms: None };
        scratch.note(BACKUP, &ready).await?;
        Ok(ready.done())
    }

    /// In earnest: the newest backup takes the place of PGDATA.
    pub(super) async fn restore_in_place(&self, run: u64) -> DriverResult {
        let scratch = Scratch::new(&follow::beside(&self.data, "regent-restoring"), Some(&self.options.os_user));
        if let Some(done) = self.restored_before(run).await? {
            scratch.vanish().await?;
            return Ok(done);
        }
        let options = self.backups()?;
        self.refuse_over(options).await?;
        self.refuse_fixed_place().await?;
        self.refuse_unconfigured(options).await?;
        let (backup, passed_over) = options.newest(&self.judge()).await?;
        let lab = self.lab_for(scratch.place(NEW), &backup).await?;
        lab.stop().await?;
        scratch.make(NEW, &super::rehearse::PARTS).await?;
        scratch.room_for(unpacked(options, &backup))?;
        let began = Instant::now();
        let how = self.build(&lab, options, &backup).await?;
        let found = self.verify(&lab, options, &backup).await.map_err(|error| kept(error, &scratch.place(NEW)))?;
        let message = format!("{} was restored in {:.1?}{how}; {found}", backup.words(), began.elapsed());
        // Building takes hours, and somebody else may have brought something better meanwhile.
        self.refuse_over(options).await?;
        let aside = self.exchange(&lab, run, &message).await?;
        scratch.vanish().await?;
        self.start().await?;
        let sight = self.sight().await?;
        let aside = aside.map(|path| format!("; what was there is in {}", path.display())).unwrap_or_default();
        Ok(Done {
            message: format!("{message}{aside}{}", note(&passed_over)),
            position: sight.position,
            timeline: sight.timeline,
            ..Done::default()
        })
    }

    /// What no longer streams may still be newer than any backup: only by agent.yaml's word does it make room.
    async fn refuse_over(&self, options: &BackupOptions) -> Result<(), DriverError> {
        if !self.family().is_gone() {
            match self.sight().await {
                Ok(sight) if !sight.standby => {
                    let message =
                        "the database here is no standby; fence it and stop it before a backup takes its place";
                    return Err(DriverError::permanent("restore-writable", message));
                }
                Ok(sight) if sight.streaming => {
                    let message = "the standby here streams: a backup would only put it back; stop what it follows, or leave the step out";
                    return Err(DriverError::permanent("restore-follows", message));
                }
                Ok(_) | Err(SqlError::NotNow(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let data = self.data.clone();
        let there =
            files::blocking(DISK_LIMIT, "looking for what is in PGDATA", move || files::holds_something(&data)).await?;
        match options.over {
            Over::Refuse if there => Err(not_empty(&format!("there is something in {}", self.data.display()))),
            Over::Refuse | Over::SetAside => Ok(()),
        }
    }

    /// The same step has done it before.
    async fn restored_before(&self, run: u64) -> Result<Option<Done>, DriverError> {
        let file = self.data.join(RESTORED);
        let text = tokio::fs::read(&file).await.unwrap_or_default();
        let Some(ready) = serde_json::from_slice::<Ready>(&text).ok().filter(|ready| ready.run == run) else {
            return Ok(None);
        };
        if self.family().is_gone() {
            self.start().await?;
        }
        let sight = self.sight().await?;
        Ok(Some(Done {
            already: true,
            message: ready.message,
            position: sight.position,
            timeline: sight.timeline,
            ..Done::default()
        }))
    }

    /// A running instance with the content of a backup. How, as the end of a sentence.
    async fn build(&self, lab: &Lab<'_>, options: &BackupOptions, backup: &Backup) -> Result<String, DriverError> {
        match options.kind {
            BackupKind::Base => self.build_from_base(lab, options, backup).await,
            BackupKind::Dump | BackupKind::Rdb => self.build_from_dump(lab, options, backup).await,
        }
    }

    async fn build_from_base(
        &self,
        lab: &Lab<'_>,
        options: &BackupOptions,
        backup: &Backup,
    ) -> Result<String, DriverError> {
        let archive = match (&options.wal, &options.until) {
            (Some(folder), None) => Some(self.survey(lab, backup, folder).await?),
            // A recovery that does not come as far as is wanted fails by itself; and without an archive nothing is read but
            // what the manifest vouches for.
            (Some(_), Some(_)) | (None, _) => None,
        };
        let copy = Program::at(Path::new("/bin/cp"))
            .user(&self.options.os_user)
            .argument("-a")
            .argument("--reflink=auto")
            .argument(backup.path.join("."))
            .argument(lab.data());
        self.succeed("restore-failed", &copy, LONG).await?;
        let data = lab.data();
        files::blocking(DISK_LIMIT, "preparing the recovery of a base backup", move || {
            if std::fs::read_dir(data.join("pg_tblspc"))?.next().is_some() {
                return Err(std::io::Error::other("it has tablespaces, which would be restored over the real ones"));
            }
            for name in [files::STANDBY_SIGNAL, "postmaster.pid", files::MARKER] {
                match std::fs::remove_file(data.join(name)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
            files::replace(&data.join("recovery.signal"), b"", files::Durability::Written)
        })
        .await?;
        let fetch = match &options.wal {
            Some(folder) => archive::restore_command(folder),
            // Recovery asks for one; the WAL is in the backup itself.
            None => "false".to_owned(),
        };
        let mut more = vec![("restore_command", fetch), ("recovery_target_action", "promote".to_owned())];
        more.extend(options.until.clone().map(|until| ("recovery_target_time", until)));
        lab.isolate(&more).await?;
        lab.start().await?;
        lab.wait_until_open().await?;
        let end = match &archive {
            Some(archive) => match self.see_all_read(lab, archive).await {
                Ok(end) => format!(", {end}"),
                Err(error) => {
                    lab.stop().await?;
                    return Err(error);
                }
            },
            None => String::new(),
        };
        Ok(match &options.until {
            Some(until) => format!(" up to {until}"),
            None => format!(" to the end of its WAL{end}"),
        })
    }

    async fn build_from_dump(
        &self,
        lab: &Lab<'_>,
        options: &BackupOptions,
        backup: &Backup,
    ) -> Result<String, DriverError> {
        let mut initdb =
            lab.tool("initdb").argument("-D").argument(lab.data()).argument("-U").argument(&self.options.user);
        initdb = initdb.argument("-A").argument("scram-sha-256").argument("--no-sync").argument("--data-checksums");
        initdb = options.initdb.iter().fold(initdb, |program, word| program.argument(word));
        // The role gets its password over the socket, below; the file only satisfies the method.
        let password = lab.password_file().await?;
        initdb = initdb.argument(format!("--pwfile={}", password.display()));
        self.succeed("restore-failed", &initdb, LONG).await?;
        // As a standby it demands limits no smaller than those that it last ran with as a primary, which is here.
        let small = SMALL.map(|(key, value)| (key, value.to_owned()));
        lab.isolate(&small).await?;
        lab.start().await?;
        let whole = options.globals.is_some();
        if let Some(globals) = &options.globals {
            // It also makes what there is already, which fails and does no harm.
            self.succeed("restore-failed", &lab.program("psql", "postgres").argument("-f").argument(globals), LONG)
                .await?;
        }
        let admin = lab.connect("postgres").await?;
        let (owner, database) = (identifier(&self.options.owner), identifier(&self.options.database));
        let roles = match form(&backup.path) {
            Ok(DumpForm::Plain) if !whole => roles::roles(&backup.path).await?,
            _ => Vec::new(),
        };
        for role in roles.iter().chain([&self.options.owner]) {
            let (name, text) = (identifier(role), literal(role));
            let make = format!(
                "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {text}) THEN CREATE ROLE {name} LOGIN; END IF; END $$"
            );
            run(&admin, &make).await?;
        }
        run(&admin, &format!("CREATE DATABASE {database} OWNER {owner} TEMPLATE template0")).await?;
        drop(admin);
        let program = match form(&backup.path)
            .map_err(|error| DriverError::permanent("restore-failed", error.to_string()))?
        {
            DumpForm::Plain => {
                lab.program("psql", &self.options.database).argument("-v").argument("ON_ERROR_STOP=1").argument("-f")
            }
            DumpForm::Archive if whole => lab.program("pg_restore", &self.options.database).argument("--exit-on-error"),
            DumpForm::Archive => lab
                .program("pg_restore", &self.options.database)
                .argument("--exit-on-error")
                .argument("--no-owner")
                .argument("--no-acl")
                .argument(format!("--role={}", self.options.owner)),
        };
        self.succeed("restore-failed", &program.argument(&backup.path), LONG).await?;
        let client = lab.connect(&self.options.database).await?;
        run(&client, "ANALYZE").await?;
        Ok(if whole {
            String::new()
        } else {
            " (without the rights and passwords of other roles: no globals are listed)".to_owned()
        })
    }

    /// Puts what was built into the place of PGDATA. Where the old one is, if there was one.
    async fn exchange(&self, lab: &Lab<'_>, run: u64, message: &str) -> Result<Option<PathBuf>, DriverError> {
        let (data, new) = (self.data.clone(), lab.data());
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let aside = follow::beside(&self.data, &format!("regent-set-aside-{now}"));
        let ready = serde_json::to_vec(&Ready { run, message: message.to_owned(), rehearsed_ms: None });
        let ours = self.cluster.clone();
        self.stop().await?;
        files::blocking(LONG, "putting the restored database into the place of PGDATA", move || {
            let there = files::holds_something(&data)?;
            if there {
                follow::save(&data)?;
            }
            if follow::shelf(&data).exists() {
                follow::restore(&data, &new)?;
            }
            // It follows nobody, and no start opens it.
            follow::set_conninfo(&new, "")?;
            files::close_at_rest(&new)?;
            if let Some(marker) = files::marker(&data).filter(|marker| marker.cluster == ours) {
                files::mark(&new, &marker)?;
            }
            files::replace(&new.join(RESTORED), &ready.map_err(std::io::Error::other)?, files::Durability::Synced)?;
            sync_all(&new)?;
            if there {
                std::fs::rename(&data, &aside)?;
            } else if data.exists() {
                files::remove_own(&data)?;
                std::fs::remove_dir(&data)?;
            }
            std::fs::rename(&new, &data)?;
            files::sync(data.parent().unwrap_or(&data))?;
            follow::clear(&data)?;
            Ok(there.then_some(aside))
        })
        .await
    }
}

/// What is wrong for good is not built again by itself: it can be looked at.
fn kept(error: DriverError, place: &Path) -> DriverError {
    if error.retryable {
        return error;
    }
    let message = format!("{}; it is kept in {} until the step is tried again", error.message, place.display());
    DriverError { message, ..error }
}

/// How large it will be: a dump is packed, and has no indexes.
fn unpacked(options: &BackupOptions, backup: &Backup) -> u64 {
    backup.bytes.saturating_mul(if options.kind == BackupKind::Dump { 4 } else { 1 })
}

/// What was built without syncing reaches the disk before it takes its place.
fn sync_all(folder: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_all(&entry.path())?;
        } else if kind.is_file() {
            files::sync(&entry.path())?;
        }
    }
    files::sync(folder)
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
