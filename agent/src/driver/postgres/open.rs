//! Opening: promotion, the lifting of a fence, and waiting for a position. Run-time only, never in configuration.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::files::{self, Durability};
use super::outside::Met;
use super::probe::Sight;
use super::session::{lsn_text, truth};
use super::{DISK_LIMIT, GLANCE, Postgres, STATEMENT_LIMIT, hba};
use crate::driver::{Done, DriverError, DriverResult};

/// `pg_promote` sent at the very moment the upstream is lost can take 5 s (the startup process waits for
/// `wal_retrieve_retry_interval`); a signal sent again wakes it.
pub(super) const SIGNAL_AGAIN: Duration = Duration::from_millis(15);

/// How long a promotion may take; a standby with much to replay first needs long.
const PROMOTE_LIMIT: Duration = Duration::from_secs(300);

/// How long after the reload a client may still be rejected.
const ADMIT_LIMIT: Duration = Duration::from_millis(500);

/// How long a standby may stand still below the position that is waited for.
const STALL_LIMIT: Duration = Duration::from_secs(30);

impl Postgres {
    /// Promotes, if the position has been reached.
    pub(super) async fn become_primary(&self, position: Option<u64>) -> DriverResult {
        let count = self.gate.count();
        let sight = self.sight().await?;
        if sight.standby
            && let Some(wanted) = position
            && sight.position.is_none_or(|reached| reached < wanted)
        {
            let reached = sight.position.map_or("unknown".to_owned(), lsn_text);
            return Err(DriverError::retryable(
                "postgres-behind",
                format!("position {} is not reached: this standby has {reached}", lsn_text(wanted)),
            ));
        }
        self.open(&sight, count).await
    }

    /// Lifts a fence. A primary that came up closed at rest is promoted; a standby is left a standby.
    pub(super) async fn reopen(&self) -> DriverResult {
        let count = self.gate.count();
        let started = self.family().is_gone();
        if started {
            self.start().await?;
        }
        let sight = self.sight().await?;
        if sight.standby {
            self.refuse_true_standby(&sight).await?;
        }
        let done = self.open(&sight, count).await?;
        Ok(Done { already: done.already && !started, ..done })
    }

    /// Opening a standby of a living primary would make two: only a primary that is closed at rest passes.
    async fn refuse_true_standby(&self, sight: &Sight) -> Result<(), DriverError> {
        let data = self.data.clone();
        let marker =
            files::blocking(DISK_LIMIT, "reading regent.marker in PGDATA", move || Ok(files::marker(&data))).await?;
        let ours = marker.is_some_and(|marker| marker.cluster == self.cluster);
        let follows = sight.streaming || sight.has_conninfo;
        if ours && !follows {
            return Ok(());
        }
        if !follows {
            return Err(DriverError::permanent(
                "postgres-unmarked",
                "the database is in recovery and follows nobody, but regent.marker in PGDATA does not name this \
                 cluster: it may be a copy of another's; guard it, or promote it by a failover",
            ));
        }
        Err(DriverError::permanent(
            "postgres-standby",
            "the database is a standby, not a primary that is closed at rest; promote it by a failover or switchover",
        ))
    }

    /// Closes a standby further, which its promotion needs and its clients do not feel: the block is not reloaded, so
    /// only its next start would read it.
    pub(super) async fn prepare_to_open(&self) -> DriverResult {
        let row = self.acting.row("SELECT pg_is_in_recovery() AS standby", STATEMENT_LIMIT).await?;
        let standby = truth(&row, "standby") == Some(true);
        // The session that will be needed beside this one is there by then.
        let (put, session) = tokio::join!(
            async { if standby { self.put_fence(Durability::Synced, DISK_LIMIT).await } else { Ok(false) } },
            self.aside.execute("SELECT 1", STATEMENT_LIMIT),
        );
        session?;
        Ok(Done { already: !put?, message: "prepared".into(), ..Done::default() })
    }

    async fn open(&self, before: &Sight, count: u64) -> DriverResult {
        let promoted = before.standby;
        // A primary that comes up closed at rest must follow nobody. Said before it is one, and in force from the reload
        // on that opens it: until then it is a standby to whoever finds it.
        let forgets = promoted || before.has_conninfo;
        let forget = async { if forgets { self.forget_upstream().await } else { Ok(()) } };
        let promote = async {
            if promoted {
                // Until standby.signal is back, this block is what keeps a crash from leaving the database open at rest.
                // It is not reloaded: only the next start would read it.
                self.gate.still(count)?;
                self.follow_no_history().await?;
                self.put_fence(Durability::Synced, DISK_LIMIT).await?;
                self.promote_until_out(count).await?;
            }
            self.close_at_rest().await
        };
        let (closed, forgot) = tokio::join!(promote, forget);
        let closed = closed?;
        forgot?;
        let lifted = self.lift_fence(count).await?;
        if lifted || forgets {
            self.reload().await?;
        }
        let (note, after) = tokio::join!(self.see_open(), self.sight_aside());
        let (note, after) = (note?, after?);
        self.gate.still(count)?;
        let message = match (promoted, lifted) {
            (true, _) => "promoted, a write was accepted",
            (false, true) => "fence lifted, a write was accepted",
            (false, false) => "is primary and accepts writes",
        };
        Ok(Done {
            already: !promoted && !lifted && !closed,
            message: format!("{message}{note}"),
            position: after.position,
            timeline: after.timeline,
            ..Done::default()
        })
    }

    /// What asks is a file, and one that was left would promote this database by itself when it comes up closed after the
    /// crash of a backend: so it is asked for once, what waits is woken, and no file is left.
    async fn promote_until_out(&self, count: u64) -> Result<(), DriverError> {
        let began = Instant::now();
        self.gate.still(count)?;
        let mut asked = self.ask_to_promote().await;
        let mut signalled = Instant::now();
        loop {
            let row = self.acting.row("SELECT pg_is_in_recovery() AS standby", STATEMENT_LIMIT).await?;
            if truth(&row, "standby") == Some(false) {
                break;
            }
            if signalled.elapsed() >= SIGNAL_AGAIN {
                self.gate.still(count)?;
                asked = if asked { self.wake_recovery().await? } else { self.ask_to_promote().await };
                signalled = Instant::now();
            }
            if began.elapsed() > PROMOTE_LIMIT {
                return Err(DriverError::retryable("postgres-promote", "still in recovery; see the server's log"));
            }
            tokio::time::sleep(GLANCE).await;
        }
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "taking the request for a promotion away", move || files::unask(&data)).await
    }

    /// False if it was not taken: recovery has ended meanwhile, or there was no answer.
    async fn ask_to_promote(&self) -> bool {
        self.acting.execute("SELECT pg_promote(false)", STATEMENT_LIMIT).await.is_ok()
    }

    /// Wakes the server without a new file, where its processes can be signalled: the one that recovers, which may have
    /// taken notice and wait for its upstream all the same, or the one that has yet to tell it. False where it cannot be
    /// woken so: it is elsewhere, or has just come out.
    async fn wake_recovery(&self) -> Result<bool, DriverError> {
        let data = self.data.clone();
        let there =
            files::blocking(DISK_LIMIT, "looking for a request for a promotion", move || Ok(files::is_asked(&data)));
        let (there, family) = (there.await?, self.family());
        let recovers = family.members.iter().find(|process| process.title().contains(": startup "));
        let sent = match (there, family.head(), recovers) {
            (true, Some(postmaster), _) => postmaster.signal(Signal::SIGUSR1),
            (false, _, Some(recovers)) => recovers.signal(Signal::SIGUSR2),
            _ => return Ok(false),
        };
        Ok(sent.is_ok())
    }

    pub(super) async fn lift_fence(&self, count: u64) -> Result<bool, DriverError> {
        let (file, gate) = (self.hba_file(), self.gate.clone());
        let lifted = files::blocking(DISK_LIMIT, "taking the fence out of pg_hba.conf", move || {
            let _lock = gate.file.lock().unwrap_or_else(PoisonError::into_inner);
            // A fence that began has counted itself; it waits for this lock and then writes, or has written.
            if gate.still(count).is_err() { Ok(None) } else { hba::take(&file, Durability::Written).map(Some) }
        })
        .await?;
        lifted.ok_or_else(super::fenced_meanwhile)
    }

    /// From its promotion on it has a history of its own.
    async fn follow_no_history(&self) -> Result<(), DriverError> {
        let data = self.data.clone();
        files::blocking(DISK_LIMIT, "taking regent.following away", move || files::forget_following(&data)).await
    }

    /// Empties `primary_conninfo`: a primary that comes up closed at rest must follow nobody.
    pub(super) async fn follow_nobody(&self) -> Result<(), DriverError> {
        self.forget_upstream().await?;
        self.reload().await
    }

    /// The same, in force from the next reload on.
    async fn forget_upstream(&self) -> Result<(), DriverError> {
        Ok(self.aside.execute("ALTER SYSTEM SET primary_conninfo = ''", DISK_LIMIT).await?)
    }

    /// Sees a write accepted and a client let in.
    async fn see_open(&self) -> Result<&'static str, DriverError> {
        // A transaction id is a write of its own and needs no table; it does not wait for standbys in this session.
        let row = self
            .acting
            .row(
                "SELECT txid_current(), current_setting('default_transaction_read_only') = 'on' AS read_only",
                DISK_LIMIT,
            )
            .await?;
        if truth(&row, "read_only") == Some(true) {
            return Err(DriverError::permanent(
                "postgres-read-only",
                "default_transaction_read_only is on in the server's configuration; take it out",
            ));
        }
        let began = Instant::now();
        loop {
            let (outside, local) =
                tokio::join!(self.knock(&self.options.owner, false), self.knock(&self.options.owner, true));
            if outside == Met::Admitted || local == Met::Admitted {
                return Ok("");
            }
            if began.elapsed() > ADMIT_LIMIT {
                self.refuse_broken_rules().await?;
                return Ok("; the owner is not let in from this machine by the rules of pg_hba.conf itself");
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until everything up to the position is replayed.
    pub(super) async fn wait_for(&self, wanted: u64) -> DriverResult {
        let mut last = None;
        let mut moved = Instant::now();
        let mut waited = false;
        loop {
            let sight = self.sight().await?;
            let reached = if sight.standby { sight.replayed } else { sight.position };
            if reached.is_some_and(|reached| reached >= wanted) {
                return Ok(Done {
                    already: !waited,
                    message: format!("replayed {}", reached.map(lsn_text).unwrap_or_default()),
                    position: reached,
                    timeline: sight.timeline,
                    ..Done::default()
                });
            }
            if !sight.standby {
                return Err(DriverError::permanent(
                    "postgres-not-standby",
                    format!("a primary below position {} cannot catch up; rejoin it first", lsn_text(wanted)),
                ));
            }
            if reached != last {
                (last, moved) = (reached, Instant::now());
            }
            if moved.elapsed() > STALL_LIMIT {
                return Err(DriverError::retryable(
                    "postgres-behind",
                    format!(
                        "stands still at {} below {}; check the replication link",
                        reached.map_or("an unknown position".to_owned(), lsn_text),
                        lsn_text(wanted)
                    ),
                ));
            }
            waited = true;
            tokio::time::sleep(GLANCE).await;
        }
    }
}
