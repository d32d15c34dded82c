//! Drills: a copy of this standby is promoted in the scratch folder, and nobody but the agent knows of it.
//!
//! The copy is taken by `pg_basebackup` from the standby itself, without a slot. The standby goes on following; what it
//! notices is one more reader.

use std::time::{Duration, Instant};

use super::lab::{LONG, Lab};
use super::session::{SqlError, connect, login, number, run, text};
use super::{Postgres, files};
use crate::driver::scratch::{BACKUP, COPY, Ready, Scratch, apart, looked_at, missing};
use crate::driver::{Done, DriverError, DriverResult, Rehearsal};

/// What is in a place.
pub(super) const PARTS: [&str; 2] = ["data", "run"];

/// One statement on the standby; the size of a large database takes a while.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

impl Postgres {
    pub(super) async fn rehearse_in_scratch(&self, rehearsal: Rehearsal, run: u64) -> DriverResult {
        let scratch = self.scratch()?;
        match rehearsal {
            Rehearsal::Promote => self.promote_copy(&scratch, run).await,
            Rehearsal::Restore => self.restore_beside(&scratch, run).await,
            Rehearsal::Verify => self.verify_copies(&scratch, run).await,
            Rehearsal::CleanUp => self.clean_up(&scratch).await,
        }
    }

    fn scratch(&self) -> Result<Scratch, DriverError> {
        let options = self.options.scratch.as_ref().ok_or_else(|| missing("postgres"))?;
        if !apart(&options.directory, &self.options.data_directory) {
            let message = "scratch.directory and dataDirectory lie within each other; use a folder of its own";
            return Err(DriverError::permanent("postgres-config", message));
        }
        Ok(Scratch::new(&options.directory, Some(&self.options.os_user)))
    }

    async fn promote_copy(&self, scratch: &Scratch, run: u64) -> DriverResult {
        let lab = Lab::at(self, scratch.place(COPY));
        if let Some(ready) = scratch.ready(COPY, run).await
            && lab.connect("postgres").await.is_ok()
        {
            return Ok(Done { already: true, ..ready.done() });
        }
        if !self.sight().await?.standby {
            let message = "the database here is no standby; a drill works with a copy of one";
            return Err(DriverError::permanent("postgres-not-standby", message));
        }
        lab.stop().await?;
        let began = Instant::now();
        let bytes = self.copy(scratch, &lab).await?;
        let copied = began.elapsed();
        let data = lab.data();
        files::blocking(LOOK_LIMIT, "making the copy a standby of nobody", move || files::close_at_rest(&data)).await?;
        lab.isolate(&[]).await?;
        let began = Instant::now();
        lab.start().await?;
        let started = began.elapsed();
        let promoted = lab.promote().await?;
        let rows = lab.count().await?;
        let message = format!(
            "a copy of {} MiB was taken in {copied:.1?} and started in {started:.1?}; it was promoted and took a write within \
             {promoted:.1?}; {rows}",
            bytes >> 20
        );
        let rehearsed_ms = Some(crate::probe::millis(promoted));
        let ready = Ready { run, message, rehearsed_ms };
        scratch.note(COPY, &ready).await?;
        Ok(ready.done())
    }

    /// A base backup of the standby into the place. How large the database is.
    async fn copy(&self, scratch: &Scratch, lab: &Lab<'_>) -> Result<u64, DriverError> {
        let (bytes, tablespaces) = self.size().await?;
        scratch.make(COPY, &PARTS).await?;
        scratch.room_for(bytes)?;
        let source = format!("host={} port={} user={}", self.options.host, self.options.port, self.options.user);
        let mut program = self
            .tool("pg_basebackup")
            .argument("--pgdata")
            .argument(lab.data())
            .argument("--label=regent-drill")
            .argument("--checkpoint=fast")
            .argument("--wal-method=stream")
            // A slot would hold back WAL on the standby, and outlive us if we died.
            .argument("--no-slot")
            .argument("--no-sync")
            .argument("--no-password")
            .argument(format!("--dbname={source}"))
            .variable("PGPASSWORD", self.options.password.clone());
        for (number, location) in tablespaces.iter().enumerate() {
            let target = scratch.place(COPY).join(format!("tablespace-{number}"));
            program = program.argument(format!("--tablespace-mapping={location}={}", target.display()));
        }
        self.succeed("scratch-copy", &program, LONG).await.map_err(|error| DriverError {
            message: format!("{}; pg_hba.conf must let {} connect for replication", error.message, self.options.user),
            ..error
        })?;
        Ok(bytes)
    }

    /// How much there is to copy, and where else than in PGDATA.
    async fn size(&self) -> Result<(u64, Vec<String>), DriverError> {
        let config = login(&self.options);
        let looked = tokio::time::timeout(LOOK_LIMIT, async {
            let client = connect(&config).await?;
            let size = "SELECT sum(pg_database_size(oid))::bigint AS bytes FROM pg_database";
            let size = run_one(&client, size).await?;
            let others = "SELECT pg_tablespace_location(oid) AS location FROM pg_tablespace";
            let others = run(&client, others).await?;
            let locations = others.iter().filter_map(|row| text(row, "location")).filter(|text| !text.is_empty());
            Ok((number(&size, "bytes").unwrap_or(0), locations.map(str::to_owned).collect()))
        });
        let looked: Result<_, SqlError> = looked.await.unwrap_or(Err(SqlError::TimedOut(LOOK_LIMIT)));
        looked.map_err(DriverError::from)
    }

    async fn verify_copies(&self, scratch: &Scratch, run: u64) -> DriverResult {
        let mut said = Vec::new();
        for (name, what) in [(COPY, "the copy"), (BACKUP, "the backup")] {
            if scratch.ready(name, run).await.is_none() {
                continue;
            }
            let lab = Lab::at(self, scratch.place(name));
            let rows = lab.count().await?;
            let answered = lab.check().await?;
            said.push(match answered {
                0 => format!("{what} has {rows}; no checks are listed in agent.yaml"),
                answered => format!("{what} has {rows} and answers {answered} checks"),
            });
        }
        looked_at(&said)
    }

    async fn clean_up(&self, scratch: &Scratch) -> DriverResult {
        let mut ran = false;
        for name in [COPY, BACKUP] {
            ran |= Lab::at(self, scratch.place(name)).stop().await?;
        }
        scratch.clean_up(ran).await
    }
}

async fn run_one(client: &tokio_postgres::Client, statement: &str) -> Result<tokio_postgres::SimpleQueryRow, SqlError> {
    run(client, statement).await?.pop().ok_or_else(|| SqlError::Broken("no row".into()))
}
