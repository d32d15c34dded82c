//! Drills: a snapshot of this replica is loaded by a Redis of its own in the scratch folder, which is made a primary.
//!
//! The snapshot comes as any replica would get it; this one saves it for that, and goes on following.

use std::time::Instant;

use super::Redis;
use super::lab::{Lab, tool};
use crate::driver::process::Program;
use crate::driver::scratch::{BACKUP, COPY, Ready, Scratch, looked_at, missing};
use crate::driver::{Done, DriverError, DriverResult, Rehearsal};

impl Redis {
    pub(super) async fn rehearse_in_scratch(&self, rehearsal: Rehearsal, run: u64) -> DriverResult {
        let options = self.options.scratch.as_ref().ok_or_else(|| missing("redis"))?;
        let scratch = Scratch::new(&options.directory, None);
        match rehearsal {
            Rehearsal::Promote => self.promote_copy(&scratch, run).await,
            Rehearsal::Restore => self.restore_beside(&scratch, run).await,
            Rehearsal::Verify => self.verify_copies(&scratch, run).await,
            Rehearsal::CleanUp => self.clean_up(&scratch).await,
        }
    }

    async fn promote_copy(&self, scratch: &Scratch, run: u64) -> DriverResult {
        let lab = Lab::at(self, scratch.place(COPY));
        if let Some(ready) = scratch.ready(COPY, run).await
            && lab.count().await.is_ok()
        {
            return Ok(Done { already: true, ..ready.done() });
        }
        let info = self.info().await?;
        if !info.is_replica() {
            let message = "Redis here is no replica; a drill works with a copy of one";
            return Err(DriverError::permanent("redis-not-standby", message));
        }
        lab.stop().await?;
        scratch.make(COPY, &["data"]).await?;
        scratch.room_for(info.number("used_memory").unwrap_or(0))?;
        let began = Instant::now();
        let program = Program::at(&tool("redis-cli"))
            .argument("-h")
            .argument(&self.options.host)
            .argument("-p")
            .argument(self.options.port.to_string())
            .argument("--user")
            .argument(&self.options.user)
            .argument("--rdb")
            .argument(lab.dump())
            .variable("REDISCLI_AUTH", self.options.password.clone());
        self.succeed("scratch-copy", &program).await?;
        let copied = began.elapsed();
        let began = Instant::now();
        lab.start().await?;
        let started = began.elapsed();
        let keys = lab.count().await?;
        let promoted = lab.promote().await?;
        let message = format!(
            "a copy was taken in {copied:.1?} and loaded in {started:.1?}; it was promoted and took a write within \
             {promoted:.1?}; {keys} keys"
        );
        let ready = Ready { run, message, rehearsed_ms: Some(crate::probe::millis(promoted)) };
        scratch.note(COPY, &ready).await?;
        Ok(ready.done())
    }

    async fn verify_copies(&self, scratch: &Scratch, run: u64) -> DriverResult {
        let mut said = Vec::new();
        for (name, what) in [(COPY, "the copy"), (BACKUP, "the backup")] {
            if scratch.ready(name, run).await.is_some() {
                let lab = Lab::at(self, scratch.place(name));
                let keys = lab.count().await?;
                said.push(match lab.check().await? {
                    0 => format!("{what} has {keys} keys; no checks are listed in agent.yaml"),
                    answered => format!("{what} has {keys} keys and answers {answered} checks"),
                });
            }
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
