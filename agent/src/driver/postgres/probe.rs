//! Looking: one statement over the kept session.

use std::time::Duration;

use tokio_postgres::SimpleQueryRow;

use super::conninfo::Conninfo;
use super::session::{SqlError, lsn_text, number, position, text, truth};
use super::{Postgres, files, hba};
use crate::driver::{Health, Probe, Role, Upstream};
use crate::secret::Secret;

/// Everything a probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Right after a promotion the control file still has the old timeline: a primary's comes from the name of its WAL
/// file, a standby's from its receiver. Once its upstream is lost there is no receiver, and until its next restart point
/// the control file knows nothing newer: what was received tells by the name of its last segment. Only then the folder
/// is read: this is asked while clients wait.
const LOOK: &str = "
WITH it AS MATERIALIZED (
    SELECT pg_is_in_recovery() AS standby,
           (pg_last_wal_receive_lsn() - '0/0'::pg_lsn - 1)::int8 AS last_byte,
           pg_size_bytes(current_setting('wal_segment_size')) AS segment_size
)
SELECT it.standby,
       (SELECT system_identifier FROM pg_control_system()) AS system_id,
       CASE WHEN it.standby THEN NULL ELSE pg_current_wal_flush_lsn() END AS flushed,
       CASE WHEN it.standby THEN NULL ELSE pg_walfile_name(pg_current_wal_flush_lsn()) END AS wal_file,
       pg_last_wal_receive_lsn() AS received,
       pg_last_wal_replay_lsn() AS replayed,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS control_timeline,
       (SELECT min_recovery_end_timeline FROM pg_control_recovery()) AS recovery_timeline,
       CASE WHEN it.standby AND it.last_byte >= 0 AND receiver.received_tli IS NULL THEN (
           SELECT max(('x' || left(name, 8))::bit(32)::int8)
           FROM pg_ls_waldir()
           WHERE name ~ '^[0-9A-F]{24}$'
             AND right(name, 16) = upper(lpad(to_hex(it.last_byte >> 32), 8, '0')
                 || lpad(to_hex((it.last_byte & 4294967295) / it.segment_size), 8, '0'))
       ) END AS segment_timeline,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) AS replay_age,
       current_setting('default_transaction_read_only') AS read_only,
       current_setting('primary_conninfo') AS conninfo,
       current_setting('hba_file') AS hba_file,
       current_setting('config_file') AS config_file,
       receiver.status,
       receiver.received_tli,
       receiver.latest_end_lsn,
       receiver.sender_host,
       receiver.sender_port,
       extract(epoch FROM clock_timestamp() - receiver.last_msg_receipt_time) AS heard
FROM it LEFT JOIN pg_stat_wal_receiver receiver ON true";

/// What one look saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sight {
    /// In recovery.
    pub(super) standby: bool,
    /// The database's identity.
    pub(super) system_id: String,
    /// Where it is, in bytes: flushed, or the larger of received and replayed.
    pub(super) position: Option<u64>,
    /// Replayed, in bytes.
    pub(super) replayed: Option<u64>,
    /// Its timeline; 0 if unknown.
    pub(super) timeline: u64,
    /// `default_transaction_read_only` is on.
    pub(super) read_only: bool,
    /// `primary_conninfo` is set.
    pub(super) has_conninfo: bool,
    /// A receiver streams.
    pub(super) streaming: bool,
    /// From where.
    pub(super) sender: Option<(String, u16)>,
    /// From where by its configuration.
    pub(super) configured: Option<(String, u16)>,
    /// A standby's view.
    pub(super) upstream: Option<Upstream>,
    /// The control file has this timeline, too: there was a checkpoint in it.
    pub(super) checkpointed: bool,
}

impl Sight {
    fn of(row: &SimpleQueryRow) -> Option<Self> {
        let standby = truth(row, "standby")?;
        let received = position(row, "received");
        let replayed = position(row, "replayed");
        let streaming = text(row, "status") == Some("streaming");
        let timeline = if standby {
            ["received_tli", "segment_timeline", "control_timeline", "recovery_timeline"]
                .iter()
                .filter_map(|column| number(row, column))
                .max()
                .unwrap_or(0)
        } else {
            text(row, "wal_file")
                .and_then(|name| name.get(..8))
                .and_then(|timeline| u64::from_str_radix(timeline, 16).ok())
                .unwrap_or(0)
        };
        Some(Self {
            standby,
            system_id: text(row, "system_id").unwrap_or_default().to_owned(),
            position: if standby { received.max(replayed) } else { position(row, "flushed") },
            replayed: if standby { replayed } else { None },
            timeline,
            read_only: text(row, "read_only") != Some("off"),
            has_conninfo: text(row, "conninfo").is_some_and(|conninfo| !conninfo.is_empty()),
            streaming,
            sender: text(row, "sender_host").map(str::to_owned).zip(number(row, "sender_port")),
            configured: text(row, "conninfo").and_then(|conninfo| Conninfo::parse(conninfo)?.place()),
            upstream: standby.then(|| upstream(row, streaming, replayed)),
            checkpointed: number(row, "control_timeline").is_some_and(|control: u64| control >= timeline),
        })
    }
}

fn upstream(row: &SimpleQueryRow, streaming: bool, replayed: Option<u64>) -> Upstream {
    let known = position(row, "latest_end_lsn").filter(|_| streaming);
    let lag_bytes = known.zip(replayed).map(|(known, replayed)| known.saturating_sub(replayed));
    let lag = match lag_bytes {
        Some(0) => Some(Duration::ZERO),
        _ => seconds(row, "replay_age"),
    };
    Upstream { connected: streaming, last_heard: seconds(row, "heard"), lag_bytes, lag, cluster: None }
}

/// An age; a clock that was set back makes it unknown, not fresh.
fn seconds(row: &SimpleQueryRow, column: &str) -> Option<Duration> {
    number::<f64>(row, column).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

impl Postgres {
    /// One look by an action.
    pub(super) async fn sight(&self) -> Result<Sight, SqlError> {
        self.sight_by(&self.acting, super::STATEMENT_LIMIT).await
    }

    /// The same beside another statement.
    pub(super) async fn sight_aside(&self) -> Result<Sight, SqlError> {
        self.sight_by(&self.aside, super::STATEMENT_LIMIT).await
    }

    async fn sight_by(&self, session: &super::Session, limit: Duration) -> Result<Sight, SqlError> {
        let row = session.row(LOOK, limit).await?;
        self.remember_files(text(&row, "hba_file"), text(&row, "config_file"));
        Sight::of(&row).ok_or_else(|| SqlError::Broken("an answer without a role".into()))
    }

    /// The fence block stands in the file; unreadable means it cannot be said, hence no.
    pub(super) async fn has_fence(&self, limit: Duration) -> bool {
        let file = self.hba_file();
        files::blocking(limit, "reading pg_hba.conf", move || hba::is_fenced(&file)).await.unwrap_or(false)
    }

    /// The probe.
    pub(super) async fn look(&self) -> Probe {
        let sight = match self.sight_by(&self.probing, PROBE_LIMIT).await {
            Ok(sight) => sight,
            Err(error) => return self.without_answer(&error),
        };
        let fenced = self.has_fence(PROBE_LIMIT / 4).await;
        let writable = !sight.standby && !fenced && !sight.read_only;
        if writable {
            self.keep_canary().await;
            self.keep_checkpointed(&sight);
        }
        let cluster = self.followed(&sight);
        Probe {
            health: Health::Healthy,
            role: if sight.standby { Role::Standby } else { Role::Primary },
            writable,
            timeline: sight.timeline,
            position: sight.position,
            position_text: sight.position.map(lsn_text).unwrap_or_default(),
            detail: detail(&sight, fenced),
            system_id: sight.system_id,
            previous: None,
            upstream: sight.upstream.map(|upstream| Upstream { cluster, ..upstream }),
        }
    }

    /// The cluster whose primary this standby is configured to follow.
    fn followed(&self, sight: &Sight) -> Option<String> {
        let place = sight.sender.as_ref().or(sight.configured.as_ref())?;
        let leads_there = |conninfo: &Secret| Conninfo::parse(conninfo.expose())?.place();
        self.options
            .replication
            .iter()
            .find(|(_, conninfo)| leads_there(conninfo).as_ref() == Some(place))
            .map(|(cluster, _)| cluster.clone())
    }

    /// Failed only where it is certain; everything else is unknown.
    fn without_answer(&self, error: &SqlError) -> Probe {
        let (health, detail) = match error {
            SqlError::Refused => (Health::Failed, "the server refuses connections: it does not run".to_owned()),
            SqlError::Absent if self.family().is_gone() => (Health::Failed, "no server process".to_owned()),
            SqlError::NotNow(words) if words.contains("shutting down") => (Health::Failed, words.clone()),
            SqlError::Server { panic: true, message, .. } => (Health::Failed, message.clone()),
            other => (Health::Unknown, other.to_string()),
        };
        Probe::without_answer(health, detail)
    }
}

fn detail(sight: &Sight, fenced: bool) -> String {
    let mut parts = Vec::new();
    if sight.standby {
        match (&sight.sender, sight.streaming) {
            (Some((host, port)), true) => parts.push(format!("streams from {host}:{port}")),
            _ if sight.has_conninfo => parts.push("standby without a link".to_owned()),
            _ => parts.push("closed at rest: in recovery, follows nobody".to_owned()),
        }
        parts.push(sight.replayed.map_or("nothing replayed".into(), |at| format!("replayed {}", lsn_text(at))));
    } else {
        parts.push("primary".to_owned());
    }
    if fenced {
        parts.push("fenced".to_owned());
    }
    if sight.read_only {
        parts.push("default_transaction_read_only is on".to_owned());
    }
    parts.join(", ")
}
