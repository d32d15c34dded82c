//! Whether what was restored is what the backup has: its rows against those that a dump hands over, the user's queries, and
//! the checksums of every page, read once it is shut down.

use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::copied::{Copied, Counter, compare};
use super::lab::{LONG, Lab, Rows, SHORT};
use super::{Postgres, files};
use crate::driver::DriverError;
use crate::driver::backup::{Backup, BackupKind, BackupOptions, DumpForm, form};

/// Read of a plain dump at once.
const PART: usize = 256 * 1024;

/// So many tables that differ are named.
const NAMED: usize = 3;

impl Postgres {
    /// Looks at what was restored and ends its instance cleanly. What was found, for the outcome.
    pub(super) async fn verify(
        &self,
        lab: &Lab<'_>,
        options: &BackupOptions,
        backup: &Backup,
    ) -> Result<String, DriverError> {
        let looked = async {
            let rows = lab.count().await?;
            let compared = self.compare_rows(options, backup, &rows).await?;
            let checks = lab.check().await?;
            lab.shut_down().await?;
            let pages = self.read_checksums(lab).await?;
            Ok::<String, DriverError>(format!("{rows}{compared}, {checks} checks, {pages}"))
        };
        let found = looked.await;
        if found.is_err() {
            // Nobody asks what was found wanting anything more.
            lab.stop().await?;
        }
        found
    }

    /// A dump says how many rows each table had. As the end of a sentence.
    pub(super) async fn compare_rows(
        &self,
        options: &BackupOptions,
        backup: &Backup,
        rows: &Rows,
    ) -> Result<String, DriverError> {
        match options.kind {
            BackupKind::Dump => {}
            BackupKind::Base | BackupKind::Rdb => return Ok(String::new()),
        }
        let copied = self.rows_of_dump(backup).await?;
        let comparison = compare(&copied, &rows.found);
        if !comparison.differ.is_empty() {
            let count = comparison.differ.len();
            let named = comparison.differ.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
            let message =
                format!("what was restored has not the rows of {} in {count} tables: {named}", backup.words());
            return Err(DriverError::permanent("restore-rows-differ", message));
        }
        let left_out = match comparison.left_out {
            0 => String::new(),
            count => format!(", {count} tables not compared"),
        };
        Ok(match comparison.equal {
            0 => " (not compared with the dump: it hands no rows over by COPY that could be)".to_owned(),
            equal => format!(" ({} in {equal} tables as in the dump{left_out})", comparison.rows),
        })
    }

    async fn rows_of_dump(&self, backup: &Backup) -> Result<Copied, DriverError> {
        let path = backup.path.clone();
        let failed = |error: std::io::Error| DriverError::permanent("restore-failed", error.to_string());
        match form(&path).map_err(failed)? {
            DumpForm::Plain => {
                files::blocking(LONG, "counting the rows of a plain dump", move || count_plain(&path)).await
            }
            DumpForm::Archive => {
                let folder = self.judge().programs.to_read(&path).await?;
                let program =
                    self.tool_in(&folder, "pg_restore").argument("--data-only").argument("--file=-").argument(&path);
                let counter = Arc::new(Mutex::new(Counter::default()));
                let counting = counter.clone();
                let sink = move |text: &[u8]| counting.lock().unwrap_or_else(PoisonError::into_inner).take_in(text);
                let finished = program
                    .stream(&self.children, LONG, sink)
                    .await
                    .map_err(|error| error.failure("restore-failed"))?;
                if !finished.success() {
                    let message = format!("{} failed: {}", program.name(), finished.last_words());
                    return Err(DriverError::retryable("restore-failed", message));
                }
                let counter = std::mem::take(&mut *counter.lock().unwrap_or_else(PoisonError::into_inner));
                Ok(counter.copied())
            }
        }
    }

    /// Reads every page of what is shut down. What was found, for the outcome.
    pub(super) async fn read_checksums(&self, lab: &Lab<'_>) -> Result<&'static str, DriverError> {
        let program = lab.tool("pg_controldata").argument("-D").argument(lab.data());
        let control = self.succeed("postgres-control", &program, SHORT).await?.output;
        let version = control.lines().find_map(|line| line.strip_prefix("Data page checksum version:")).map(str::trim);
        if version == Some("0") {
            return Ok("its pages have no checksums");
        }
        let program = lab.tool("pg_checksums").argument("--check").argument("-D").argument(lab.data());
        let finished = program.run(&self.children, LONG).await.map_err(|error| error.failure("restore-failed"))?;
        if finished.success() {
            return Ok("the checksums of its pages are right");
        }
        let bad = finished.output.lines().find_map(|line| line.strip_prefix("Bad checksums:")).map(str::trim);
        if bad.is_some_and(|count| count != "0") {
            let message = format!("pages of what was restored are damaged: {}", finished.last_words());
            return Err(DriverError::permanent("restore-damaged", message));
        }
        let message = format!("{} failed: {}", program.name(), finished.last_words());
        Err(DriverError::retryable("restore-failed", message))
    }
}

fn count_plain(path: &Path) -> std::io::Result<Copied> {
    let mut file = std::fs::File::open(path)?;
    let mut part = vec![0; PART];
    let mut counter = Counter::default();
    loop {
        match file.read(&mut part)? {
            0 => return Ok(counter.copied()),
            read => counter.take_in(&part[..read]),
        }
    }
}
