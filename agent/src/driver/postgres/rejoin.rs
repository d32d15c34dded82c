//! Becoming a standby of another cluster.
//!
//! ```text
//!  streams already? ── yes ──▶ lift the fence, done
//!  writable? ── yes ──▶ refused
//!  upstream answers, is primary, is the same database, is closed at rest itself
//!  stop ─▶ nothing behind the fork? ── yes ───────────────────────────────────────▶ follow ─▶ start ─▶ see it stream
//!          no ─▶ (crashed: start closed, stop) ─▶ rewind, or a fresh copy if allowed ─▶ follow ─▶ start ─▶ see it stream
//! ```
//!
//! The upstream must have `standby.signal` before it is copied from: `pg_rewind` removes what the source lacks, and
//! this side would be open at rest for a while.

use std::time::{Duration, Instant};

use tokio_postgres::{Config, SimpleQueryRow};

use super::conninfo::Conninfo;
use super::files::Following;
use super::fork::{Behind, Theirs};
use super::probe::Sight;
use super::session::{SqlError, connect, run, text, truth};
use super::{DISK_LIMIT, GLANCE, Postgres, STATEMENT_LIMIT, files, follow};
use crate::driver::{Done, DriverError, DriverResult, Rejoin};
use crate::secret::Secret;

/// How long until a started standby streams.
const STREAM_LIMIT: Duration = Duration::from_secs(60);

/// A checkpoint of the upstream.
const CHECKPOINT_LIMIT: Duration = Duration::from_secs(120);

/// Whom to follow, by configuration.
pub(super) struct Leader {
    pub(super) cluster: String,
    /// `primary_conninfo`.
    pub(super) replication: Secret,
    pub(super) follow: Conninfo,
    /// A superuser's login there.
    pub(super) login: Conninfo,
    login_text: Secret,
}

impl Postgres {
    pub(super) async fn become_standby(&self, rejoin: &Rejoin) -> DriverResult {
        let count = self.gate.count();
        let leader = self.leader(&rejoin.upstream_cluster)?;
        let runs = !self.family().is_gone();
        let mut primary = false;
        if runs {
            match self.sight().await {
                Ok(sight) if streams_from(&sight, &leader) => return self.welcome_back(&sight, count).await,
                Ok(sight) if !sight.standby && !self.has_fence(DISK_LIMIT).await => return Err(writable()),
                Ok(sight) => primary = !sight.standby,
                // Not yet consistent: in recovery, hence not writable.
                Err(SqlError::NotNow(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let theirs = self.check_upstream(&leader).await?;
        self.close_at_rest().await?;
        let following = Following {
            cluster: self.cluster.clone(),
            upstream: leader.cluster.clone(),
            system_id: theirs.system_id.clone(),
            timeline: theirs.timeline,
            history: theirs.history.clone(),
        };
        let behind = self.stop_at_the_fork(&theirs, &following, primary).await?;
        let how = if let Behind::Nothing { .. } | Behind::Followed = behind
            && self.is_the_same(&theirs).await
        {
            self.take_history(&theirs).await?;
            format!("followed as it was, {}", behind.told())
        } else {
            let (how, saved) = match self.give_up(&theirs, &behind, rejoin.allow_rewind).await {
                Ok(saved) => {
                    self.checkpoint_upstream(&leader).await?;
                    (self.rebuild(&leader, &theirs.system_id, rejoin.allow_reclone).await?, saved)
                }
                // Then nothing needs to be saved: all of it is set aside.
                Err(error) if error.code == "rejoin-unsaved" && rejoin.allow_reclone => {
                    (self.reclone_instead(&leader, &error).await?, None)
                }
                Err(error) => return Err(error),
            };
            let saved = saved.map_or_else(String::new, |saved| format!("; {saved}"));
            format!("{how}; {}{saved}", behind.told())
        };
        let (data, conninfo) = (self.data.clone(), leader.replication.clone());
        files::blocking(DISK_LIMIT, "pointing the standby at its upstream", move || {
            files::close_at_rest(&data)?;
            follow::set_conninfo(&data, conninfo.expose())?;
            files::note_following(&data, &following)
        })
        .await?;
        self.lift_fence(count).await?;
        self.start().await?;
        let sight = self.see_streaming(&leader).await?;
        Ok(Done {
            already: false,
            message: format!("standby of {}: {how}", leader.cluster),
            position: sight.position,
            timeline: sight.timeline,
            ..Done::default()
        })
    }

    /// It streams already; what may be left is an older fence, which clients that only read would meet.
    async fn welcome_back(&self, sight: &Sight, count: u64) -> DriverResult {
        let closed = self.close_at_rest().await?;
        let lifted = self.lift_fence(count).await?;
        if lifted {
            self.reload().await?;
        }
        Ok(Done {
            already: !closed && !lifted,
            message: "streams already".into(),
            position: sight.position,
            timeline: sight.timeline,
            ..Done::default()
        })
    }

    pub(super) fn leader(&self, cluster: &str) -> Result<Leader, DriverError> {
        let find = |map: &std::collections::BTreeMap<String, Secret>, key: &str| {
            let text = map.get(cluster).cloned().ok_or_else(|| missing(cluster, key))?;
            let conninfo = Conninfo::parse(text.expose()).ok_or_else(|| {
                DriverError::permanent(
                    "postgres-config",
                    format!("{key}.{cluster} in the agent's configuration is not a list of key=value pairs"),
                )
            })?;
            Ok::<_, DriverError>((text, conninfo))
        };
        let (replication, follow) = find(&self.options.replication, "replication")?;
        let (login_text, login) = find(&self.options.upstreams, "upstreams")?;
        Ok(Leader { cluster: cluster.to_owned(), replication, follow, login, login_text })
    }

    /// The upstream answers, is primary and is closed at rest. Gives its identity and its history.
    pub(super) async fn check_upstream(&self, leader: &Leader) -> Result<Theirs, DriverError> {
        let look = "
            WITH it AS MATERIALIZED (
                SELECT pg_is_in_recovery() AS standby,
                       CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END AS timeline)
            SELECT standby, timeline,
                   (SELECT system_identifier FROM pg_control_system()) AS system_id,
                   (SELECT modification FROM pg_stat_file('standby.signal', true)) IS NOT NULL AS closed,
                   CASE WHEN timeline > '00000001' THEN pg_read_file('pg_wal/' || timeline || '.history', 0, 1048576, true) END AS history
            FROM it";
        let row = self.ask_upstream(leader, look, STATEMENT_LIMIT).await?;
        let cluster = &leader.cluster;
        let row = row.ok_or_else(|| {
            DriverError::retryable("postgres-upstream", format!("PostgreSQL of {cluster} answered without a row"))
        })?;
        if truth(&row, "standby") != Some(false) {
            return Err(DriverError::retryable(
                "postgres-upstream",
                format!("PostgreSQL of {cluster} is no primary; rejoin once it is promoted"),
            ));
        }
        if truth(&row, "closed") != Some(true) {
            return Err(DriverError::retryable(
                "postgres-upstream",
                format!("PostgreSQL of {cluster} has no standby.signal; rejoin once its agent guards it"),
            ));
        }
        let timeline = text(&row, "timeline").and_then(|digits| u32::from_str_radix(digits, 16).ok());
        Ok(Theirs {
            system_id: text(&row, "system_id").unwrap_or_default().to_owned(),
            timeline: timeline.unwrap_or_default(),
            history: text(&row, "history").unwrap_or_default().to_owned(),
        })
    }

    /// A primary promoted a moment ago has its new timeline in no control file yet: pg_rewind would find nothing to do.
    async fn checkpoint_upstream(&self, leader: &Leader) -> Result<(), DriverError> {
        self.ask_upstream(leader, "CHECKPOINT", CHECKPOINT_LIMIT).await.map(drop)
    }

    async fn ask_upstream(
        &self,
        leader: &Leader,
        statement: &str,
        limit: Duration,
    ) -> Result<Option<SimpleQueryRow>, DriverError> {
        let config: Config = leader.login_text.expose().parse().map_err(|_| missing(&leader.cluster, "upstreams"))?;
        let answer = tokio::time::timeout(limit, async {
            let client = tokio::time::timeout(STATEMENT_LIMIT, connect(&config))
                .await
                .unwrap_or(Err(SqlError::TimedOut(STATEMENT_LIMIT)))?;
            Ok(run(&client, statement).await?.pop())
        })
        .await
        .unwrap_or(Err(SqlError::TimedOut(limit)));
        answer.map_err(|error| {
            let cluster = &leader.cluster;
            DriverError::retryable("postgres-upstream", format!("the login to PostgreSQL of {cluster}: {error}"))
        })
    }

    async fn see_streaming(&self, leader: &Leader) -> Result<Sight, DriverError> {
        let began = Instant::now();
        loop {
            if let Ok(sight) = self.sight().await
                && streams_from(&sight, leader)
            {
                return Ok(sight);
            }
            if began.elapsed() > STREAM_LIMIT {
                return Err(DriverError::retryable(
                    "postgres-not-streaming",
                    format!("the standby runs but does not stream from {}; see the server's log", leader.cluster),
                ));
            }
            tokio::time::sleep(GLANCE * 2).await;
        }
    }
}

/// It streams from where the configuration says.
fn streams_from(sight: &Sight, leader: &Leader) -> bool {
    sight.standby && sight.streaming && sight.sender.is_some() && sight.sender == leader.follow.place()
}

fn writable() -> DriverError {
    DriverError::permanent("postgres-writable", "the database here accepts writes; fence it before it rejoins")
}

fn missing(cluster: &str, key: &str) -> DriverError {
    DriverError::permanent(
        "postgres-config",
        format!("the agent's configuration has no usable {key}.{cluster}; add how to reach that cluster"),
    )
}
