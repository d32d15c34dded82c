//! Opening: promotion, the lifting of a fence, and waiting for an offset. Run-time only, never in configuration.

use std::time::{Duration, Instant};

use redis::Value;

use super::closed::{self, HELD, SYNC_DELAY};
use super::session::{Info, command};
use super::{CLOSED, COMMAND_LIMIT, DISK_LIMIT, GLANCE, Redis, ok};
use crate::driver::process::disk;
use crate::driver::{Done, DriverError, DriverResult};

/// The key that is written to see that it can be.
const CHECK: &str = "regent:check";

/// How long a replica may stand still below the offset that is waited for.
const STALL_LIMIT: Duration = Duration::from_secs(30);

impl Redis {
    /// Promotes, if the offset has been reached.
    pub(super) async fn become_primary(&self, position: Option<u64>) -> DriverResult {
        let count = self.gate.count();
        let info = self.info().await?;
        if info.is_replica() {
            if let Some(wanted) = position
                && info.position().is_none_or(|reached| reached < wanted)
            {
                let reached = info.position().map_or("unknown".to_owned(), |reached| reached.to_string());
                let message = format!("offset {wanted} is not reached: this replica has {reached}");
                return Err(DriverError::retryable("redis-behind", message));
            }
            if info.is("master_sync_in_progress", "1") {
                let message = "this replica is taking a full copy: its data is not whole; wait for its end";
                return Err(DriverError::retryable("redis-behind", message));
            }
        } else {
            self.refuse_less_than_before(&info).await?;
        }
        self.open(&info, count).await
    }

    /// Lifts a fence, and opens a primary that came up closed at rest. A replica is left a replica.
    pub(super) async fn reopen(&self) -> DriverResult {
        let count = self.gate.count();
        let started = self.is_gone().await;
        if started {
            self.start().await?;
        }
        let info = self.info().await?;
        if info.is_replica() {
            return Err(DriverError::permanent(
                "redis-standby",
                "Redis is a replica, not a primary that is closed at rest; promote it by a failover or switchover",
            ));
        }
        self.refuse_less_than_before(&info).await?;
        let done = self.open(&info, count).await?;
        Ok(Done { already: done.already && !started, ..done })
    }

    /// A primary that lost something in a restart is not opened: its replicas would take over what it has (S5).
    async fn refuse_less_than_before(&self, info: &Info) -> Result<(), DriverError> {
        let places = self.places(&self.acting, info).await;
        match self.memory.lacking(info, places).await? {
            Some(lacks) => Err(DriverError::permanent("redis-data-lost", lacks)),
            None => Ok(()),
        }
    }

    async fn open(&self, before: &Info, count: u64) -> DriverResult {
        let promoted = before.is_replica();
        if promoted {
            // A repeated attempt finds a primary: what it has is what this replica had.
            self.memory.saw(before, None);
            // Closed first, so that the end of replication is not yet the beginning of writes.
            self.set("min-replicas-to-write", CLOSED).await?;
            self.gate.still(count)?;
            ok(self.acting.ask(&command(&["REPLICAOF", "NO", "ONE"]), COMMAND_LIMIT).await)?;
        }
        let closed = self.close_at_rest(true).await?;
        let was_closed = self.get("min-replicas-to-write").await? != "0";
        let switched = {
            let _gate = self.gate.opening.lock().await;
            self.gate.still(count)?;
            self.let_go().await;
            self.set("min-replicas-to-write", "0").await?;
            self.switch_clients("on").await?
        };
        // Taken out at once and not by its expiry, which would come behind a fence that follows soon.
        for check in [&["SET", CHECK, &self.cluster] as &[&str], &["DEL", CHECK]] {
            let _: Value = self.acting.ask(&command(check), COMMAND_LIMIT).await.map_err(|failure| {
                DriverError::retryable("redis-refused", format!("Redis is open but refuses a write: {failure}"))
            })?;
        }
        self.let_copy().await?;
        self.gate.still(count)?;
        let info = self.info().await?;
        let places = self.places(&self.acting, &info).await;
        self.memory.saw(&info, places);
        let message = match (promoted, was_closed || switched) {
            (true, _) => "promoted, a write was accepted",
            (false, true) => "opened, a write was accepted",
            (false, false) => "is primary and accepts writes",
        };
        Ok(Done {
            already: !promoted && !was_closed && !switched && !closed,
            message: message.into(),
            position: info.position(),
            ..Done::default()
        })
    }

    /// What came up closed hands out full copies from now on, as its operator has configured it.
    pub(super) async fn let_copy(&self) -> Result<(), DriverError> {
        if self.get(SYNC_DELAY).await? != HELD {
            return Ok(());
        }
        let text = match self.config_file() {
            Some(file) => {
                let read = move || std::fs::read_to_string(file);
                disk::bounded("redis-files", DISK_LIMIT, "reading Redis's configuration file", read).await?
            }
            None => String::new(),
        };
        // What holds them back goes last.
        for (setting, value) in closed::copying(&text).into_iter().rev() {
            self.set(setting, &value).await?;
        }
        Ok(())
    }

    /// Waits until everything up to the offset is applied.
    pub(super) async fn wait_for(&self, wanted: u64) -> DriverResult {
        let mut last = None;
        let mut moved = Instant::now();
        let mut waited = false;
        loop {
            let info = self.info().await?;
            let reached = info.position();
            if reached.is_some_and(|reached| reached >= wanted) && !info.is("master_sync_in_progress", "1") {
                return Ok(Done {
                    already: !waited,
                    message: format!("applied {}", reached.unwrap_or_default()),
                    position: reached,
                    ..Done::default()
                });
            }
            if !info.is_replica() {
                let message = format!("a primary below offset {wanted} cannot catch up; rejoin it first");
                return Err(DriverError::permanent("redis-not-standby", message));
            }
            if reached != last {
                (last, moved) = (reached, Instant::now());
            }
            if moved.elapsed() > STALL_LIMIT {
                let at = reached.map_or("an unknown offset".to_owned(), |reached| reached.to_string());
                let message = format!("stands still at {at} below {wanted}; check the replication link");
                return Err(DriverError::retryable("redis-behind", message));
            }
            waited = true;
            tokio::time::sleep(GLANCE).await;
        }
    }
}
