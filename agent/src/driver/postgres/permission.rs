//! Whether what fences, promotions and rejoins need is allowed and there. Asked beforehand, which changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Config;

use super::conninfo::Conninfo;
use super::session::{SqlError, connect, login, run, text, truth};
use super::{Postgres, STATEMENT_LIMIT};
use crate::driver::Driver;
use crate::driver::elsewhere::FenceAt;
use crate::driver::process::Program;
use crate::driver::process::there::{obstacle, obstacle_of};
use crate::driver::reached::Reached;
use crate::secret::Secret;

/// One look at another cluster.
const REACH_LIMIT: Duration = Duration::from_secs(5);
/// So long it counts that a standby's login was let in.
const TRIED_AGAIN: Duration = Duration::from_secs(15 * 60);
/// The programs of PostgreSQL that a rejoin runs.
const REJOINS_BY: [&str; 3] = ["pg_rewind", "pg_basebackup", "pg_controldata"];

/// A fence ends the sessions of superusers, too, which no other role may.
const OWN: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";

/// What a rejoin asks of its upstream, and `pg_rewind` for it, that the login there may not; empty if it may.
const THERE: &str = "
SELECT concat_ws(', ',
    (SELECT string_agg(f, ', ') FROM unnest(ARRAY['pg_ls_dir(text,boolean,boolean)', 'pg_stat_file(text,boolean)',
        'pg_read_binary_file(text)', 'pg_read_binary_file(text,bigint,bigint,boolean)',
        'pg_read_file(text,bigint,bigint,boolean)', 'pg_control_system()']) AS f
     WHERE NOT has_function_privilege(f, 'EXECUTE')),
    CASE WHEN NOT EXISTS (SELECT FROM pg_roles WHERE (rolname = current_user AND rolsuper)
                          OR (rolname = 'pg_checkpoint' AND pg_has_role(oid, 'USAGE'))) THEN 'CHECKPOINT' END) AS lacks";

impl Postgres {
    /// What is lacking here, whatever the other clusters say.
    pub(super) async fn lacking(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        // What cannot be asked is not known.
        if let Ok(Ok(Some(lack))) = tokio::time::timeout(STATEMENT_LIMIT, self.own_role()).await {
            lacks.push(lack);
        }
        if let Err(error) = self.can_end().await {
            lacks.push(format!("the hard fence: {}", error.message));
        }
        let user = Some(self.options.os_user.as_str());
        lacks.extend(obstacle("start", &self.options.start, user).await);
        lacks.extend(obstacle("stop", &self.options.stop, user).await);
        if self.options.fence == FenceAt::Remote {
            lacks.extend(obstacle("hardFence", &self.options.hard_fence, None).await);
        }
        if self.options.backups.is_some() && self.options.fence == FenceAt::Local {
            // What cannot be looked at is not known.
            lacks.extend(
                self.refuse_fixed_place().await.err().filter(|error| !error.retryable).map(|error| error.message),
            );
        }
        if !self.options.upstreams.is_empty() {
            let folder = self.options.programs();
            for name in REJOINS_BY {
                lacks.extend(obstacle_of("binDirectory", &folder.join(name), user).await);
            }
        }
        lacks
    }

    async fn own_role(&self) -> Result<Option<String>, SqlError> {
        let client = connect(&login(&self.options)).await?;
        let row = run(&client, OWN).await?.pop();
        let user = &self.options.user;
        let superuser = row.is_none_or(|row| truth(&row, "rolsuper") != Some(false));
        Ok((!superuser).then(|| {
            format!("the role {user} is no superuser, so a fence cannot end every session; ALTER ROLE {user} SUPERUSER")
        }))
    }

    /// By both logins that a rejoin uses.
    pub(super) async fn reach(&self, cluster: &str) -> Reached {
        let lately = self.reached_as_standby().get(cluster).is_some_and(|at| at.elapsed() < TRIED_AGAIN);
        let standby = async { if lately { Ok(()) } else { self.reach_as_standby(cluster).await } };
        let (superuser, standby) = tokio::join!(self.reach_as_superuser(cluster), standby);
        if superuser.is_err() || standby.is_err() {
            // What has changed there may have changed that, too.
            self.reached_as_standby().remove(cluster);
        } else if !lately {
            self.reached_as_standby().insert(cluster.to_owned(), Instant::now());
        }
        let lacks = superuser.as_ref().ok().cloned().flatten();
        Reached { answer: superuser.and(standby), lacks }
    }

    pub(super) fn reached_as_standby(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reach_as_superuser(&self, cluster: &str) -> Result<Option<String>, String> {
        let login = self.options.upstreams.get(cluster);
        let config = login.and_then(|login| login.expose().parse::<Config>().ok());
        let config = config.ok_or_else(|| unusable("upstreams", cluster))?;
        let answer = tokio::time::timeout(REACH_LIMIT, ask(&config)).await;
        let lacks = answer.unwrap_or(Err(SqlError::TimedOut(REACH_LIMIT))).map_err(|error| error.to_string())?;
        Ok((!lacks.is_empty()).then(|| {
            format!(
                "the login upstreams.{cluster} may not run {lacks} there, as a rejoin does; make its role a superuser, \
                 or grant it these"
            )
        }))
    }

    /// As a standby connects: only `psql` asks for a connection of that kind. It takes one of the few that `max_wal_senders` allows
    /// there, so what went well is not tried again for a while.
    async fn reach_as_standby(&self, cluster: &str) -> Result<(), String> {
        let conninfo = self.options.replication.get(cluster).and_then(|text| Conninfo::parse(text.expose()));
        let conninfo = conninfo.ok_or_else(|| unusable("replication", cluster))?;
        let hidden = self.hide(&format!("replication.{cluster}"), &conninfo).await.map_err(|error| error.message)?;
        let own = self.options.programs().join("psql");
        let psql = if own.exists() { own.as_path() } else { Path::new("psql") };
        let program = hidden
            .given_to(Program::at(psql))
            .user(&self.options.os_user)
            .argument("-XAtw")
            .argument(format!("--dbname={} replication=true", hidden.target()))
            .argument("--command=IDENTIFY_SYSTEM")
            .variable("PGCONNECT_TIMEOUT", Secret::new("5"));
        let finished = program.run(&self.children, REACH_LIMIT).await;
        let finished =
            finished.map_err(|error| format!("as replication.{cluster}: {}", crate::journal::chain(&error)))?;
        if finished.success() {
            return Ok(());
        }
        Err(format!("as replication.{cluster}: {}", finished.last_words()))
    }
}

async fn ask(config: &Config) -> Result<String, SqlError> {
    let client = connect(config).await?;
    let row = run(&client, THERE).await?.pop();
    Ok(row.as_ref().and_then(|row| text(row, "lacks")).unwrap_or_default().to_owned())
}

fn unusable(key: &str, cluster: &str) -> String {
    format!("agent.yaml has no usable {key}.{cluster}")
}
