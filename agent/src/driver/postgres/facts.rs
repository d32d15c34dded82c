//! What changes seldom in this server, and whether the others answer as a rejoin would need. By a session of its own: a slow
//! look must not stand before a promotion.

use std::collections::BTreeSet;
use std::time::Duration;

use regent_core::facts::{Findings, PostgresFacts, SlotFacts, SlotLimit};
use regent_core::time::Span;

use super::Postgres;
use super::session::{SqlError, connect, login, number, run, text, truth};
use crate::driver::Found;
use crate::driver::reached::gather;
use crate::probe::millis;

/// One look.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

const LOOK: &str = "
SELECT current_setting('server_version_num') AS version,
       current_setting('wal_level') AS wal_level,
       current_setting('max_wal_senders') AS max_wal_senders,
       (SELECT count(*) FROM pg_stat_get_wal_senders()) AS wal_senders,
       pg_size_bytes(current_setting('wal_keep_size')) AS wal_keep,
       current_setting('wal_log_hints') = 'on' OR current_setting('data_checksums') = 'on' AS rewindable,
       current_setting('hot_standby') = 'on' AS hot_standby,
       current_setting('synchronous_standby_names') <> ''
           AND current_setting('synchronous_commit') NOT IN ('off', 'local') AS synchronous,
       pg_size_bytes(current_setting('max_slot_wal_keep_size')) AS slot_limit,
       pg_size_bytes(current_setting('max_wal_size')) AS max_wal,
       (SELECT coalesce(last_failed_wal, '?') FROM pg_stat_archiver
        WHERE (current_setting('archive_mode') = 'always'
               OR current_setting('archive_mode') = 'on' AND NOT pg_is_in_recovery())
          AND last_failed_time > coalesce(last_archived_time, '-infinity')) AS archive_fails";

const SLOTS: &str = "
SELECT slot_name AS name, active, coalesce(wal_status = 'lost', false) AS lost,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END,
                       restart_lsn)::bigint AS retained
FROM pg_replication_slots WHERE NOT temporary";

/// What both sides should share. Whether commits wait for a standby is told beside: the names of the standbys may differ.
const SHARED: &str = "
SELECT name, setting FROM pg_settings WHERE name IN ('max_connections', 'max_worker_processes', 'max_wal_senders',
    'max_prepared_transactions', 'max_locks_per_transaction', 'shared_preload_libraries', 'server_encoding',
    'wal_level', 'wal_log_hints', 'data_checksums', 'synchronous_commit', 'TimeZone')";

impl Postgres {
    pub(super) async fn look_around(&self) -> Found {
        let looked = tokio::time::timeout(LOOK_LIMIT, self.look_at_settings()).await;
        let looked = looked.unwrap_or(Err(SqlError::TimedOut(LOOK_LIMIT)));
        let backup = match &self.options.backups {
            Some(options) => Some(self.backups.facts(options, self.judge()).await),
            None => None,
        };
        let others: BTreeSet<&String> = self.options.upstreams.keys().chain(self.options.replication.keys()).collect();
        let looks = others.into_iter().map(|cluster| async move { (cluster.clone(), self.reach(cluster).await) });
        let (mut lacks, managed, looks) =
            tokio::join!(self.lacking(), self.managers(), futures::future::join_all(looks));
        let reaches = gather(looks, &mut lacks);
        let problem = looked.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let findings = Findings { lacks, managed, ..Findings::default() };
        Found { postgres: looked.ok(), redis: None, backup, reaches, problem, findings }
    }

    async fn look_at_settings(&self) -> Result<PostgresFacts, SqlError> {
        let mut config = login(&self.options);
        // As the server has it for others: the agent's own sessions never wait for a standby.
        config.options("-c lock_timeout=2s");
        let client = connect(&config).await?;
        let row = run(&client, LOOK).await?.pop().ok_or_else(|| SqlError::Broken("no row".to_owned()))?;
        let slots = run(&client, SLOTS).await?;
        let shared = run(&client, SHARED).await?;
        let word = |column| text(&row, column).unwrap_or_default().to_owned();
        Ok(PostgresFacts {
            version: number(&row, "version").unwrap_or(0),
            wal_level: word("wal_level"),
            max_wal_senders: number(&row, "max_wal_senders").unwrap_or(0),
            wal_senders: number(&row, "wal_senders").unwrap_or(0),
            wal_keep_bytes: number(&row, "wal_keep").unwrap_or(0),
            rewindable: truth(&row, "rewindable") == Some(true),
            hot_standby: truth(&row, "hot_standby") == Some(true),
            synchronous: truth(&row, "synchronous") == Some(true),
            slots: slots
                .iter()
                .map(|slot| SlotFacts {
                    name: text(slot, "name").unwrap_or_default().to_owned(),
                    active: truth(slot, "active") == Some(true),
                    retained_bytes: number(slot, "retained"),
                    lost: truth(slot, "lost") == Some(true),
                })
                .collect(),
            slot_limit: number::<i64>(&row, "slot_limit").map_or(SlotLimit::Unknown, |bytes| {
                u64::try_from(bytes).map_or(SlotLimit::Unlimited, SlotLimit::Bytes)
            }),
            max_wal_bytes: number(&row, "max_wal").unwrap_or(0),
            archive_fails: word("archive_fails"),
            settings: shared
                .iter()
                .filter_map(|row| Some((text(row, "name")?.to_owned(), text(row, "setting")?.to_owned())))
                .collect(),
            grace: Some(Span::from_millis(millis(self.options.grace))),
        })
    }
}
