//! The gentle fence: a refusing `pg_hba.conf`, every client backend ended, and refusals seen.
//!
//! It writes no WAL and syncs no file, so neither a cut-off synchronous standby nor a hanging disk holds it.
//!
//! A backend that was forked before the reload decides by the old rules, however late its client answers: a client
//! that stalls in the middle of its login would come in long after. Such backends are not in `pg_stat_activity`; they
//! are found as children of the postmaster, and ended too.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::SimpleQueryRow;

use super::canary::Canary;
use super::files::{self, Durability};
use super::outside::Met;
use super::session::{number, position, text, truth};
use super::{GLANCE, Postgres, STATEMENT_LIMIT, hba};
use crate::driver::process::table::{Process, living};
use crate::driver::{Done, DriverError, DriverResult, Marker};

/// Everything a gentle fence may take beside its grace; the agent goes hard long before.
const FENCE_LIMIT: Duration = Duration::from_secs(5);

/// Writing the block: into the page cache, no sync.
const WRITE_LIMIT: Duration = Duration::from_millis(500);

/// How long a server that does not answer may take to be gone.
const END_LIMIT: Duration = Duration::from_millis(300);

/// After which a reload is asked for again.
const RELOAD_AGAIN: Duration = Duration::from_millis(100);

/// Sessions that could write: clients, and logical replication, which is allowed SQL. Not the agent's own login over
/// the socket, not physical replication.
const CLIENTS: &str = "
FROM pg_stat_activity
WHERE (backend_type = 'client backend' OR (backend_type = 'walsender' AND datid IS NOT NULL))
  AND pid <> pg_backend_pid()
  AND NOT (usename = session_user AND client_addr IS NULL AND client_port = -1)";

/// How long transactions may take to end by themselves.
#[derive(Debug, Clone, Copy)]
struct Grace {
    span: Duration,
    /// How often a quiesce had been told to break off when this one began.
    told: u64,
}

impl Postgres {
    /// Writes the marker and closes the database at rest. A primary's leftover `primary_conninfo` is emptied.
    pub(super) async fn take_into_guard(&self, marker: &Marker) -> DriverResult {
        let closed = self.close_at_rest().await?;
        let (data, marker) = (self.data.clone(), marker.clone());
        let marked =
            files::blocking(super::DISK_LIMIT, "writing regent.marker in PGDATA", move || files::mark(&data, &marker))
                .await?;
        let forgot = match self.sight().await {
            Ok(sight) if !sight.standby && sight.has_conninfo => self.follow_nobody().await.map(|()| true)?,
            _ => false,
        };
        Ok(Done {
            already: !closed && !marked && !forgot,
            message: "closed at rest (standby.signal), marker written".into(),
            ..Done::default()
        })
    }

    /// Fences; live sessions may finish within this grace. It can be broken off while they do, and is a fence that is not
    /// confirmed then; without a grace it cannot.
    pub(super) async fn fence_gently(&self, span: Duration) -> DriverResult {
        self.gate.fence_begins();
        let grace = Grace { span, told: self.gate.broken_off() };
        match tokio::time::timeout(FENCE_LIMIT + span, self.fence_within(grace)).await {
            Ok(done) => done,
            Err(_) => Err(unconfirmed("the server did not settle")),
        }
    }

    async fn fence_within(&self, grace: Grace) -> DriverResult {
        if self.is_gone().await {
            return self.fence_at_rest().await;
        }
        match self.fence_running(grace).await {
            // It was about to end when the fence began.
            Err(error) if error.code == "postgres-unreachable" && self.ends_soon().await => self.fence_at_rest().await,
            done => done,
        }
    }

    /// No process of it, and nobody listens.
    async fn is_gone(&self) -> bool {
        self.family().is_gone() && self.nobody_listens().await
    }

    async fn ends_soon(&self) -> bool {
        let began = Instant::now();
        while began.elapsed() < END_LIMIT {
            if self.is_gone().await {
                return true;
            }
            tokio::time::sleep(GLANCE).await;
        }
        false
    }

    async fn fence_running(&self, grace: Grace) -> DriverResult {
        let canary = self.take_canary().await;
        let put = self.put_fence(Durability::Written, WRITE_LIMIT).await?;
        self.reload().await?;
        self.see_refusals().await?;
        let late = self.still_logging_in().await?;
        self.drain(grace).await?;
        let cut = self.cut_clients(late).await?;
        while !canary.is_cut().await {
            tokio::time::sleep(GLANCE).await;
        }
        self.refuse_subscriptions().await?;
        let row = self.acting.row(WHERE_IT_STANDS, STATEMENT_LIMIT).await?;
        let kind = match canary {
            Canary::Session(_) => "a session from outside was seen cut",
            Canary::Bare(_) => "a connection from outside was seen cut",
            Canary::None => "nobody listens outside",
        };
        Ok(Done {
            already: !put && cut == 0,
            message: format!("pg_hba.conf rejects owner and superuser, {cut} sessions ended, {kind}"),
            position: final_position(&row),
            timeline: text(&row, "wal_file")
                .and_then(|name| u64::from_str_radix(name.get(..8)?, 16).ok())
                .unwrap_or_default(),
            ..Done::default()
        })
    }

    /// The worker of a subscription logs in nowhere, writes on behind the position that is told, and comes back when it
    /// is ended: only the end of the server keeps it out.
    async fn refuse_subscriptions(&self) -> Result<(), DriverError> {
        // A standby has a copy of them, and no worker.
        let enabled =
            "SELECT subname FROM pg_subscription WHERE subenabled AND NOT pg_is_in_recovery() ORDER BY subname LIMIT 1";
        match self.acting.rows(enabled, STATEMENT_LIMIT).await?.first() {
            None => Ok(()),
            Some(row) => Err(unconfirmed(&format!(
                "subscription {} writes whatever pg_hba.conf says; disable it before a switchover",
                text(row, "subname").unwrap_or("?")
            ))),
        }
    }

    /// No server: what counts is how the next start comes up.
    async fn fence_at_rest(&self) -> DriverResult {
        let closed = self.close_at_rest().await?;
        // In vain if the server was never set up; standby.signal alone already refuses writes.
        let put = self.put_fence(Durability::Synced, super::DISK_LIMIT).await.unwrap_or(false);
        if !self.family().is_gone() {
            return Err(unconfirmed("the server was started meanwhile"));
        }
        Ok(Done {
            already: !closed && !put,
            message: "the server does not run; its next start refuses writes".into(),
            ..Done::default()
        })
    }

    /// Puts the block in; false if it was there.
    pub(super) async fn put_fence(&self, durability: Durability, limit: Duration) -> Result<bool, DriverError> {
        let (file, user, lock) = (self.hba_file(), self.options.user.clone(), std::sync::Arc::clone(&self.gate.file));
        files::blocking(limit, "writing the fence into pg_hba.conf", move || {
            let _lock = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            hba::put(&file, &user, durability)
        })
        .await
    }

    /// Has the server read its configuration anew, by statement, else by signal.
    pub(super) async fn reload(&self) -> Result<(), DriverError> {
        match self.acting.execute("SELECT pg_reload_conf()", STATEMENT_LIMIT).await {
            Ok(()) => Ok(()),
            Err(error) => {
                if let Some(postmaster) = self.family().head() {
                    // The statement's failure is what is told.
                    let _ = postmaster.signal(Signal::SIGHUP);
                }
                Err(error.into())
            }
        }
    }

    async fn see_refusals(&self) -> Result<(), DriverError> {
        let mut asked = Instant::now();
        loop {
            let met = self.knock_everywhere().await;
            if met.iter().all(|met| met.keeps_out()) {
                return Ok(());
            }
            if met.contains(&Met::Unclear) {
                // All places may be taken: then nobody gets as far as the rules.
                self.end_clients().await?;
            }
            if asked.elapsed() > RELOAD_AGAIN {
                self.refuse_broken_rules().await?;
                self.reload().await?;
                asked = Instant::now();
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// A file with a mistake is not loaded at all: the old rules stay in force.
    pub(super) async fn refuse_broken_rules(&self) -> Result<(), DriverError> {
        let statement = "SELECT line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL LIMIT 1";
        match self.acting.rows(statement, STATEMENT_LIMIT).await?.first() {
            None => Ok(()),
            Some(row) => Err(DriverError::permanent(
                "postgres-hba",
                format!(
                    "line {} of pg_hba.conf cannot be read, so no change of it takes effect: {}; correct it",
                    text(row, "line_number").unwrap_or("?"),
                    text(row, "error").unwrap_or("?"),
                ),
            )),
        }
    }

    /// Children of the postmaster that may be in the middle of a login by the old rules.
    async fn still_logging_in(&self) -> Result<Vec<Process>, DriverError> {
        // First the children, then what the server knows of: whoever came between is known or rejected by the new rules.
        let Some(postmaster) = self.family().head().map(|head| head.pid) else { return Ok(Vec::new()) };
        let children: Vec<Process> = living().into_iter().filter(|process| process.parent == postmaster).collect();
        let known = self.known_backends().await?;
        Ok(children
            .into_iter()
            .filter(|child| !known.contains(&child.pid) && !child.title().ends_with(": logger"))
            .collect())
    }

    async fn known_backends(&self) -> Result<BTreeSet<i32>, DriverError> {
        let rows = self.acting.rows("SELECT pid FROM pg_stat_activity", STATEMENT_LIMIT).await?;
        Ok(rows.iter().filter_map(|row| number(row, "pid")).collect())
    }

    /// Waits until no client is in a transaction, or until the grace is over. The block stands and is in force by then: told
    /// to break off it leaves nothing that could be written behind whoever lifts it, and has cut nobody.
    async fn drain(&self, grace: Grace) -> Result<(), DriverError> {
        let deadline = Instant::now() + grace.span;
        // Whoever streams is busy all the time, and finishes nothing.
        let busy = format!("SELECT count(*) AS busy {CLIENTS} AND backend_type = 'client backend' AND state <> 'idle'");
        while Instant::now() < deadline {
            if self.gate.broken_off() != grace.told {
                return Err(DriverError::permanent(
                    "postgres-quiesce-broken-off",
                    "broken off while transactions were let end: the database is to be opened again, so nobody was cut",
                ));
            }
            if number(&self.acting.row(&busy, STATEMENT_LIMIT).await?, "busy") == Some(0_u64) {
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Asks every client backend to end; gives those that were there.
    async fn end_clients(&self) -> Result<Vec<i32>, DriverError> {
        let end = format!("SELECT pid, pg_terminate_backend(pid) {CLIENTS}");
        let clients = self.acting.rows(&end, STATEMENT_LIMIT).await?;
        Ok(clients.iter().filter_map(|row| number(row, "pid")).collect())
    }

    /// Ends clients and those that were still logging in, until none is left. Gives how many there were.
    async fn cut_clients(&self, mut late: Vec<Process>) -> Result<usize, DriverError> {
        let mut ended: BTreeSet<i32> = BTreeSet::new();
        loop {
            let clients = self.end_clients().await?;
            ended.extend(&clients);
            if !late.is_empty() {
                let known = self.known_backends().await?;
                late.retain(|process| process.still_lives() && !known.contains(&process.pid));
                for process in &late {
                    process.signal(Signal::SIGTERM).map_err(|error| {
                        unconfirmed(&format!("cannot end process {} that is logging in: {error}", process.pid))
                    })?;
                }
            }
            if clients.is_empty() && late.is_empty() {
                return Ok(ended.len());
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
}

/// Beside what is flushed, what is inserted: a commit that did not wait for the disk was acknowledged too.
pub(super) const WHERE_IT_STANDS: &str = "
WITH it AS MATERIALIZED (SELECT pg_is_in_recovery() AS standby)
SELECT standby,
       CASE WHEN standby THEN NULL ELSE pg_current_wal_flush_lsn() END AS flushed,
       CASE WHEN standby THEN NULL ELSE pg_current_wal_insert_lsn() END AS inserted,
       CASE WHEN standby THEN NULL ELSE pg_walfile_name(pg_current_wal_flush_lsn()) END AS wal_file,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_block_size') AS page,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size') AS segment
FROM it";

/// The position that a standby must reach to have every acknowledged commit.
pub(super) fn final_position(row: &SimpleQueryRow) -> Option<u64> {
    if truth(row, "standby")? {
        return None;
    }
    let flushed = position(row, "flushed")?;
    let inserted = position(row, "inserted")?;
    Some(flushed.max(end_of_records(inserted, number(row, "page")?, number(row, "segment")?)))
}

/// At the start of a page the place of the next insertion lies behind a header that is not written yet; waiting for
/// it would last until the next record. The end of the last record is the start of that page.
fn end_of_records(inserted: u64, page: u64, segment: u64) -> u64 {
    const SHORT_HEADER: u64 = 24;
    const LONG_HEADER: u64 = 40;
    match inserted {
        at if at.checked_rem(segment) == Some(LONG_HEADER) => at - LONG_HEADER,
        at if at.checked_rem(page) == Some(SHORT_HEADER) => at - SHORT_HEADER,
        at => at,
    }
}

fn unconfirmed(why: &str) -> DriverError {
    DriverError::retryable("postgres-fence-unconfirmed", format!("the fence is not confirmed: {why}; go hard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_not_written_is_not_waited_for() {
        let (page, segment) = (8192, 16 << 20);
        assert_eq!(end_of_records(segment + 40, page, segment), segment);
        assert_eq!(end_of_records(segment + page + 24, page, segment), segment + page);
        assert_eq!(end_of_records(segment + page + 40, page, segment), segment + page + 40);
        assert_eq!(end_of_records(segment + 4711, page, segment), segment + 4711);
    }
}
