//! Becoming a replica of another cluster.
//!
//! Redis goes on from where it is if the upstream knows its history (a partial resynchronisation). Otherwise it takes
//! a full copy and throws its own data away: that needs the operator's leave, and a snapshot is set aside first (S5).
//! Leave is not needed after a switchover that found everything at the new side: a Redis that was restarted since
//! has lost its history's name, and nothing else.
//! What it may follow is put into `redis.conf` before it does: whatever starts it afterwards, it comes up as a replica
//! (safety.md, "Closed at rest"). A promotion takes that out again.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::closed::{self, Following, Kept};
use super::options::RedisUpstream;
use super::server::no_config_file;
use super::session::{Info, Login, ask, command};
use super::{CLOSED, COMMAND_LIMIT, DISK_LIMIT, GLANCE, Redis, ok};
use crate::driver::process::disk;
use crate::driver::{Done, DriverError, DriverResult, Rejoin};

/// A full copy; the step's own deadline is what bounds it.
const COPY_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How long the link may stay down while no copy is taken.
const LINK_LIMIT: Duration = Duration::from_secs(60);

impl Redis {
    pub(super) async fn become_replica(&self, rejoin: &Rejoin) -> DriverResult {
        let upstream = self.options.upstreams.get(&rejoin.upstream_cluster).ok_or_else(|| {
            let cluster = &rejoin.upstream_cluster;
            let message =
                format!("the agent's configuration has no upstreams.{cluster}; add how to reach that cluster");
            DriverError::permanent("redis-config", message)
        })?;
        let started = self.is_gone().await;
        if started {
            self.start().await?;
        }
        let info = self.info().await?;
        if follows(&info, upstream) && info.is("master_link_status", "up") {
            self.let_go().await;
            let kept = self.start_as_replica(upstream).await?;
            self.settle().await?;
            let switched = self.switch_clients("on").await?;
            let already = !switched && !started && kept != Kept::Whole { changed: true };
            let message = format!("replicates already{}", note(kept));
            return Ok(Done { already, message, position: info.position(), ..Done::default() });
        }
        if !info.is_replica() && self.get("min-replicas-to-write").await? != CLOSED {
            let message = "Redis here accepts writes; fence it before it rejoins";
            return Err(DriverError::permanent("redis-writable", message));
        }
        let mut how = "went on from where it was".to_owned();
        if !follows(&info, upstream) && !self.can_go_on(&info, upstream, rejoin).await? {
            if !rejoin.allow_reclone && !rejoin.covered {
                return Err(DriverError::permanent(
                    "rejoin-needs-reclone",
                    format!(
                        "{} does not know this Redis's history, so it would be overwritten by a full copy; allow a \
                         re-clone, which sets a snapshot aside",
                        rejoin.upstream_cluster
                    ),
                ));
            }
            let why = if rejoin.covered { "restarted since its fence, so a full copy" } else { "full copy" };
            how = format!("{why}, the old data is in {}", self.set_aside().await?.display());
        }
        let kept = self.start_as_replica(upstream).await?;
        self.follow(upstream).await?;
        // A replica expires nothing by itself; what its upstream sends must not wait.
        self.let_go().await;
        let info = self.see_link().await?;
        self.settle().await?;
        self.switch_clients("on").await?;
        Ok(Done {
            already: false,
            message: format!("replica of {}: {how}{}", rejoin.upstream_cluster, note(kept)),
            position: info.position(),
            ..Done::default()
        })
    }

    /// What it has and hands on from now on is its upstream's.
    async fn settle(&self) -> Result<(), DriverError> {
        self.memory.forget().await?;
        self.let_copy().await
    }

    /// Nothing of its own would be lost: it is empty, or the upstream can send what it lacks.
    async fn can_go_on(&self, own: &Info, upstream: &RedisUpstream, rejoin: &Rejoin) -> Result<bool, DriverError> {
        if own.has_no_keys() {
            return Ok(true);
        }
        let login = Login::to(upstream);
        let cluster = &rejoin.upstream_cluster;
        let mut connection = login.connect(COMMAND_LIMIT).await.map_err(|failure| {
            DriverError::retryable("redis-upstream", format!("the login to Redis of {cluster}: {failure}"))
        })?;
        match ask::<String>(&mut connection, &command(&["INFO", "replication"]), COMMAND_LIMIT).await {
            Ok(text) => {
                let theirs = Info::parse(&text);
                if theirs.is_replica() {
                    let message = format!("Redis of {cluster} is no primary; rejoin once it is promoted");
                    return Err(DriverError::retryable("redis-upstream", message));
                }
                Ok(knows(&theirs, own))
            }
            Err(_) if rejoin.allow_reclone => Ok(false),
            Err(failure) => {
                let message =
                    format!("cannot ask Redis of {cluster} for its history: {failure}; grant that user +info");
                Err(DriverError::permanent("redis-upstream", message))
            }
        }
    }

    /// Saves everything and puts the file aside, where neither a copy nor a save overwrites it.
    pub(super) async fn set_aside(&self) -> Result<PathBuf, DriverError> {
        let began = Instant::now();
        let before = self.info().await?;
        let saves = before.number("rdb_saves");
        loop {
            let info = self.info().await?;
            let idle = info.is("rdb_bgsave_in_progress", "0") && info.is("aof_rewrite_in_progress", "0");
            if idle && info.number("rdb_saves") > saves {
                break;
            }
            if idle {
                ok(self.acting.ask(&command(&["BGSAVE"]), COMMAND_LIMIT).await)?;
            }
            if info.is("rdb_last_bgsave_status", "err") || began.elapsed() > COPY_LIMIT {
                let message = "the snapshot to be set aside cannot be saved; see the server's log";
                return Err(DriverError::retryable("redis-save", message));
            }
            tokio::time::sleep(GLANCE * 4).await;
        }
        let folder = PathBuf::from(self.get("dir").await?);
        let name = self.get("dbfilename").await?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let aside = folder.join(format!("{name}.regent-set-aside-{now}"));
        let (from, to) = (folder.join(name), aside.clone());
        disk::bounded("redis-files", DISK_LIMIT, "setting the snapshot aside", move || {
            std::fs::rename(from, to)?;
            disk::sync(&folder)
        })
        .await?;
        Ok(aside)
    }

    /// From here on its next start is that of a replica.
    async fn start_as_replica(&self, upstream: &RedisUpstream) -> Result<Kept, DriverError> {
        let Some(file) = self.config_file() else { return Err(no_config_file()) };
        let following = Following {
            host: upstream.host.clone(),
            port: upstream.port,
            user: upstream.user.clone(),
            password: upstream.password.clone(),
        };
        let server = self.process().await.and_then(|process| process.user());
        let writing = self.writing.clone();
        disk::bounded("redis-files", DISK_LIMIT, "putting the upstream into Redis's configuration file", move || {
            let _writing = writing.lock().unwrap_or_else(PoisonError::into_inner);
            closed::follow(&file, &following, server)
        })
        .await
    }

    async fn follow(&self, upstream: &RedisUpstream) -> Result<(), DriverError> {
        self.set("masteruser", upstream.user.as_deref().unwrap_or_default()).await?;
        self.set("masterauth", upstream.password.as_ref().map_or("", |password| password.expose())).await?;
        self.set("min-replicas-to-write", CLOSED).await?;
        let port = upstream.port.to_string();
        ok(self.acting.ask(&command(&["REPLICAOF", &upstream.host, &port]), COMMAND_LIMIT).await)
    }

    async fn see_link(&self) -> Result<Info, DriverError> {
        let mut quiet = Instant::now();
        loop {
            // While it loads a copy it answers nothing else.
            if let Ok(info) = self.info().await {
                if info.is("master_link_status", "up") {
                    return Ok(info);
                }
                if info.is("master_sync_in_progress", "1") || info.is("loading", "1") {
                    quiet = Instant::now();
                }
            }
            if quiet.elapsed() > LINK_LIMIT {
                let message = "the replica does not reach its upstream; see the server's log";
                return Err(DriverError::retryable("redis-not-linked", message));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
}

const fn note(kept: Kept) -> &'static str {
    match kept {
        Kept::Whole { .. } => "",
        Kept::WithoutPassword => {
            "; everybody may read its configuration file, so the password is not in it, and after a restart it refuses \
             writes but does not replicate until it is rejoined"
        }
    }
}

pub(super) fn follows(info: &Info, upstream: &RedisUpstream) -> bool {
    info.is_replica()
        && info.is("master_host", &upstream.host)
        && info.number("master_port") == Some(u64::from(upstream.port))
}

/// The upstream's history holds this side's, and its backlog still has everything after.
fn knows(theirs: &Info, own: &Info) -> bool {
    let Some(own_offset) = own.position() else { return false };
    let replid = own.text("master_replid");
    let same = theirs.is("master_replid", replid)
        && theirs.number("master_repl_offset").is_some_and(|offset| own_offset <= offset);
    let before = theirs.is("master_replid2", replid)
        && theirs.number("second_repl_offset").is_some_and(|offset| own_offset < offset);
    let kept = theirs.is("repl_backlog_active", "1")
        && theirs.number("repl_backlog_first_byte_offset").is_some_and(|first| own_offset + 1 >= first);
    (same || before) && kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_known_up_to_where_it_forked() {
        let theirs = Info::parse(
            "role:master\nmaster_replid:b\nmaster_replid2:a\nmaster_repl_offset:120\nsecond_repl_offset:101\n\
             repl_backlog_active:1\nrepl_backlog_first_byte_offset:1\n",
        );
        let own = |replid: &str, offset: u64| {
            Info::parse(&format!("role:master\nmaster_replid:{replid}\nmaster_repl_offset:{offset}\n"))
        };
        assert!(knows(&theirs, &own("a", 100)));
        assert!(!knows(&theirs, &own("a", 101)));
        assert!(knows(&theirs, &own("b", 120)));
        assert!(!knows(&theirs, &own("b", 121)));
        assert!(!knows(&theirs, &own("c", 1)));
    }
}
