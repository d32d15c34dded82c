//! Becoming a standby of another cluster.
//!
//! ```text
//!  streams already? ── yes ──▶ lift the fence, done
//!  writable? ── yes ──▶ refused
//!  upstream answers, is primary, is the same database, is closed at rest itself
//!  stop ─▶ (crashed: start closed, stop) ─▶ rewind, or a fresh copy if allowed ─▶ follow ─▶ start ─▶ see it stream
//! ```
//!
//! The upstream must have `standby.signal` before it is copied from: `pg_rewind` removes what the source lacks, and
//! this side would be open at rest for a while.

use std::time::{Duration, Instant};

use tokio_postgres::Config;

use super::conninfo::Conninfo;
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
        if runs {
            match self.sight().await {
                Ok(sight) if streams_from(&sight, &leader) => return self.welcome_back(&sight, count).await,
                Ok(sight) if !sight.standby && !self.has_fence(DISK_LIMIT).await => return Err(writable()),
                // Not yet consistent: in recovery, hence not writable.
                Ok(_) | Err(SqlError::NotNow(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let theirs = self.check_upstream(&leader).await?;
        self.close_at_rest().await?;
        self.stop().await?;
        let how = self.rebuild(&leader, &theirs, rejoin.allow_reclone).await?;
        let (data, conninfo) = (self.data.clone(), leader.replication.clone());
        files::blocking(DISK_LIMIT, "pointing the standby at its upstream", move || {
            files::close_at_rest(&data)?;
            follow::set_conninfo(&data, conninfo.expose())
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

    fn leader(&self, cluster: &str) -> Result<Leader, DriverError> {
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

    /// The upstream answers, is primary and is closed at rest. Gives its system identifier.
    async fn check_upstream(&self, leader: &Leader) -> Result<String, DriverError> {
        let config: Config = leader.login_text.expose().parse().map_err(|_| missing(&leader.cluster, "upstreams"))?;
        let look = "
            SELECT (SELECT system_identifier FROM pg_control_system()) AS system_id,
                   pg_is_in_recovery() AS standby,
                   (SELECT modification FROM pg_stat_file('standby.signal', true)) IS NOT NULL AS closed";
        let answer = tokio::time::timeout(CHECKPOINT_LIMIT, async {
            let client = tokio::time::timeout(STATEMENT_LIMIT, connect(&config))
                .await
                .unwrap_or(Err(SqlError::TimedOut(STATEMENT_LIMIT)))?;
            let row = run(&client, look).await?.pop().ok_or_else(|| SqlError::Broken("no row".into()))?;
            if truth(&row, "standby") == Some(false) {
                // A primary promoted a moment ago has its new timeline in no control file yet: pg_rewind would find
                // nothing to do.
                run(&client, "CHECKPOINT").await?;
            }
            Ok(row)
        })
        .await
        .unwrap_or(Err(SqlError::TimedOut(CHECKPOINT_LIMIT)));
        let cluster = &leader.cluster;
        let row = answer.map_err(|error| {
            DriverError::retryable("postgres-upstream", format!("the login to PostgreSQL of {cluster}: {error}"))
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
        Ok(text(&row, "system_id").unwrap_or_default().to_owned())
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
    let host = leader.follow.get("host").or_else(|| leader.follow.get("hostaddr")).unwrap_or_default();
    let port = leader.follow.get("port").and_then(|port| port.parse().ok()).unwrap_or(5432_u16);
    sight.standby
        && sight.streaming
        && sight.sender.as_ref().is_some_and(|(sender, its_port)| sender == host && *its_port == port)
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
