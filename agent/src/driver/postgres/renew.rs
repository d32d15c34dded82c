//! Bringing PGDATA to where it can follow: nothing, `pg_rewind`, or a fresh copy with the old one set aside.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fork::Theirs;
use super::rejoin::Leader;
use super::{DISK_LIMIT, Postgres, files, follow};
use crate::driver::DriverError;
use crate::driver::process::Program;
use crate::secret::Secret;

/// Programs that only read or print.
const SHORT: Duration = Duration::from_secs(30);

/// Programs that copy a database; the step's own deadline is what bounds them.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What `pg_controldata` says.
struct Control {
    system_id: String,
    clean: bool,
}

impl Postgres {
    /// Rebuilds PGDATA of a stopped server. Says how.
    pub(super) async fn rebuild(
        &self,
        leader: &Leader,
        their_system_id: &str,
        allow_reclone: bool,
    ) -> Result<String, DriverError> {
        match self.rewind(leader, their_system_id).await {
            Err(error) if error.code == "rewind-failed" && allow_reclone => self.reclone_instead(leader, &error).await,
            done => done.map(str::to_owned),
        }
    }

    /// A fresh copy, and why. Says where the old data are.
    pub(super) async fn reclone_instead(&self, leader: &Leader, why: &DriverError) -> Result<String, DriverError> {
        self.stop().await?;
        let aside = self.reclone(leader).await?;
        Ok(format!("fresh copy, the old data is in {} ({why})", aside.display()))
    }

    async fn rewind(&self, leader: &Leader, their_system_id: &str) -> Result<&'static str, DriverError> {
        let mut control = self.control().await.map_err(unless_not_tried)?;
        if control.system_id != their_system_id {
            return Err(rewind_failed(&format!(
                "it is another database (system identifier {}, that of {} is {their_system_id})",
                control.system_id, leader.cluster
            )));
        }
        if !control.clean {
            // Recovery by itself, closed at rest all the while: pg_rewind's own way would need standby.signal gone.
            self.start().await.map_err(unless_not_tried)?;
            self.stop().await?;
            control = self.control().await?;
            if !control.clean {
                return Err(DriverError::retryable("postgres-stop", "the server did not shut down cleanly; again"));
            }
        }
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "copying the configuration beside PGDATA", move || follow::save(&data)).await?;
        let outcome = self.run_rewind(leader).await;
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "putting the configuration back into PGDATA", move || {
            files::close_at_rest(&data)?;
            follow::restore(&data, &data)?;
            follow::clear(&data)
        })
        .await?;
        outcome
    }

    async fn run_rewind(&self, leader: &Leader) -> Result<&'static str, DriverError> {
        let source = self.hide(&format!("upstreams.{}", leader.cluster), &leader.login).await?;
        let rewind = source.given_to(self.tool("pg_rewind"));
        let mut program = rewind
            .argument("--no-ensure-shutdown")
            .argument("--target-pgdata")
            .argument(&self.data)
            .argument(format!("--source-server={}", source.target()));
        if self.has_restore_command().await {
            program = program.argument("--restore-target-wal");
            if let Some(file) = self.config_elsewhere() {
                program = program.argument("--config-file").argument(file);
            }
        }
        let finished = match program.run(&self.children, LONG).await {
            Ok(finished) => finished,
            Err(error) => return Err(unless_not_tried(error.failure("rewind-failed"))),
        };
        if finished.success() {
            let words = format!("{}{}", finished.output, finished.errors);
            return Ok(if words.contains("no rewind required") { "nothing to rewind" } else { "rewound" });
        }
        let words = finished.last_words();
        if words.contains("could not connect") || words.contains("connection to server") {
            return Err(DriverError::retryable("postgres-upstream", format!("pg_rewind: {words}")));
        }
        Err(rewind_failed(&words))
    }

    /// A fresh copy beside PGDATA; when it is complete and closed at rest, the two are exchanged by renaming.
    async fn reclone(&self, leader: &Leader) -> Result<PathBuf, DriverError> {
        self.refuse_fixed_place().await?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let fresh = follow::beside(&self.data, &format!("regent-new-{now}"));
        let aside = follow::beside(&self.data, &format!("regent-set-aside-{now}"));
        let (data, new) = (self.data.clone(), fresh.clone());
        files::blocking(DISK_LIMIT, "making a folder beside PGDATA", move || {
            follow::save(&data)?;
            make_like(&data, &new)
        })
        .await?;
        let source = self.hide(&format!("replication.{}", leader.cluster), &leader.follow).await?;
        let program = source
            .given_to(self.tool("pg_basebackup"))
            .argument("--pgdata")
            .argument(&fresh)
            .argument("--checkpoint=fast")
            .argument("--wal-method=stream")
            .argument("--no-password")
            .argument(format!("--dbname={}", source.target()));
        self.succeed("reclone-failed", &program, LONG).await?;
        let (data, new, old) = (self.data.clone(), fresh, aside.clone());
        files::blocking(DISK_LIMIT, "exchanging PGDATA for the fresh copy", move || {
            files::close_at_rest(&new)?;
            follow::restore(&data, &new)?;
            std::fs::rename(&data, &old)?;
            std::fs::rename(&new, &data)?;
            files::sync(data.parent().unwrap_or(&data))?;
            follow::clear(&data)
        })
        .await?;
        Ok(aside)
    }

    /// Another database may have timelines of the same numbers.
    pub(super) async fn is_the_same(&self, theirs: &Theirs) -> bool {
        self.control().await.is_ok_and(|control| control.system_id == theirs.system_id)
    }

    async fn control(&self) -> Result<Control, DriverError> {
        let program = self.tool("pg_controldata").argument("-D").argument(&self.data);
        let output = self.succeed("postgres-control", &program, SHORT).await?.output;
        let value = |key: &str| {
            output.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default().to_owned()
        };
        Ok(Control {
            system_id: value("Database system identifier:"),
            clean: matches!(value("Database cluster state:").as_str(), "shut down" | "shut down in recovery"),
        })
    }

    async fn has_restore_command(&self) -> bool {
        let mut program =
            self.tool("postgres").argument("-D").argument(&self.data).argument("-C").argument("restore_command");
        if let Some(file) = self.config_elsewhere() {
            program = program.argument("-c").argument(format!("config_file={}", file.display()));
        }
        program
            .run(&self.children, SHORT)
            .await
            .is_ok_and(|finished| finished.success() && !finished.output.trim().is_empty())
    }

    /// Where `postgresql.conf` is, if the server has said that it is not in PGDATA.
    pub(super) fn config_elsewhere(&self) -> Option<PathBuf> {
        Some(self.config_file())
            .filter(|file| !file.starts_with(&self.data) && !file.starts_with(&self.options.data_directory))
    }

    pub(super) fn tool(&self, name: &str) -> Program {
        self.tool_in(&self.options.programs(), name)
    }

    pub(super) fn tool_in(&self, programs: &Path, name: &str) -> Program {
        // A password file or service of the user must not get in the way.
        Program::at(&programs.join(name))
            .user(&self.options.os_user)
            .variable("PGPASSFILE", Secret::new("/dev/null"))
            .variable("PGCONNECT_TIMEOUT", Secret::new("10"))
    }
}

/// An empty folder with owner and mode of another.
fn make_like(like: &Path, folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    std::fs::create_dir(folder)?;
    let metadata = std::fs::metadata(like)?;
    std::fs::set_permissions(folder, metadata.permissions())?;
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(folder, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    Ok(())
}

/// A rewind that failed may be followed by a fresh copy; one that was not tried must be tried again.
fn unless_not_tried(error: DriverError) -> DriverError {
    match error.code {
        "left-behind" | "not-recorded" => error,
        _ => rewind_failed(&error.message),
    }
}

fn rewind_failed(why: &str) -> DriverError {
    DriverError::permanent(
        "rewind-failed",
        format!("pg_rewind cannot bring this side back: {why}; allow a re-clone, which sets the old data aside"),
    )
}
