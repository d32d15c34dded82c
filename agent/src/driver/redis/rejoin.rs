//! Becoming a replica of another cluster.
//!
//! Redis goes on from where it is if the upstream knows its history (a partial resynchronisation). Otherwise it takes
//! a full copy and throws its own data away: that needs the operator's leave, and a snapshot is set aside first (S5).
//! Leave is not needed after a switchover that found everything at the new side, where the offsets of both show that it
//! is so still (`history`): a Redis that was restarted since has lost its history's name, and nothing else. What it has
//! beyond is counted, told, and left as it is.
//! What it may follow is put into `redis.conf` before it does: whatever starts it afterwards, it comes up as a replica
//! (safety.md, "Closed at rest"). A promotion takes that out again.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::closed::{self, Following, Kept};
use super::history::{Parted, has_all, measured, parted};
use super::options::RedisUpstream;
use super::server::no_config_file;
use super::session::{Failure, Info, Login, ask, command};
use super::{CLOSED, COMMAND_LIMIT, DISK_LIMIT, GLANCE, Redis, ok};
use crate::driver::elsewhere::FenceAt;
use crate::driver::process::disk;
use crate::driver::{Done, DriverError, DriverResult, Rejoin};

/// A full copy; the step's own deadline is what bounds it.
const COPY_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// How long the link may stay down while no copy is taken.
const LINK_LIMIT: Duration = Duration::from_secs(60);

/// Its upstream had all that it had, and sent what it lacked.
const WENT_ON: &str = "went on from where it was";

impl Redis {
    pub(super) async fn become_replica(&self, rejoin: &Rejoin) -> DriverResult {
        let upstream = self.upstream(&rejoin.upstream_cluster)?;
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
        let how =
            if follows(&info, upstream) { WENT_ON.to_owned() } else { self.make_way(&info, upstream, rejoin).await? };
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

    /// Sees to it that nothing is lost when it follows, or refuses. How it will follow.
    async fn make_way(&self, before: &Info, upstream: &RedisUpstream, rejoin: &Rejoin) -> Result<String, DriverError> {
        let cluster = &rejoin.upstream_cluster;
        if !before.is_replica() {
            // What it expired from here on would lie beyond what is counted.
            self.stand_still().await;
        }
        let own = self.info().await?;
        if own.is_empty() {
            return Ok(match self.set_file_aside().await? {
                Some(aside) => format!("it had no keys; a snapshot that it had not loaded is in {}", aside.display()),
                None => "it had no keys".to_owned(),
            });
        }
        let theirs = match self.ask_primary(upstream, cluster).await? {
            Ok(theirs) => theirs,
            // An operator has allowed it, whatever the histories say.
            Err(_) if rejoin.allow_reclone => Info::default(),
            Err(failure) => {
                let message =
                    format!("cannot ask Redis of {cluster} for its history: {failure}; grant that user +info");
                return Err(DriverError::permanent("redis-upstream", message));
            }
        };
        if knows(&theirs, &own) {
            return Ok(WENT_ON.to_owned());
        }
        let parted = parted(&theirs, &own);
        let why = if rejoin.allow_reclone {
            parted.map_or_else(|| "a full copy".to_owned(), |parted| format!("a full copy; {}", parted.told()))
        } else {
            let unshown = match rejoin.covered {
                None => "no switchover has shown that its data is there".to_owned(),
                Some(fenced_at) => {
                    refuse_closed(&theirs, cluster)?;
                    let last = self.memory.last_open().await?;
                    match has_all(&theirs, &own, fenced_at, last.as_ref()) {
                        Ok(shown) => return self.set_aside_whole(&own, &format!("a full copy: {shown}")).await,
                        Err(unshown) => unshown,
                    }
                }
            };
            return Err(refused(cluster, parted, &unshown));
        };
        self.set_aside_whole(&own, &why).await
    }

    fn upstream(&self, cluster: &str) -> Result<&RedisUpstream, DriverError> {
        self.options.upstreams.get(cluster).ok_or_else(|| {
            let message =
                format!("the agent's configuration has no upstreams.{cluster}; add how to reach that cluster");
            DriverError::permanent("redis-config", message)
        })
    }

    /// What the primary of another cluster says of itself; the inner failure: it may not be asked.
    async fn ask_primary(&self, upstream: &RedisUpstream, cluster: &str) -> Result<Result<Info, Failure>, DriverError> {
        let mut connection = Login::to(upstream).connect(COMMAND_LIMIT).await.map_err(|failure| {
            DriverError::retryable("redis-upstream", format!("the login to Redis of {cluster}: {failure}"))
        })?;
        let answer = match ask::<String>(&mut connection, &command(&["INFO"]), COMMAND_LIMIT).await {
            Ok(text) => Info::parse(&text),
            Err(failure) => return Ok(Err(failure)),
        };
        if answer.is_replica() {
            let message = format!("Redis of {cluster} is no primary; rejoin once it is promoted");
            return Err(DriverError::retryable("redis-upstream", message));
        }
        Ok(Ok(answer))
    }

    /// What it has beyond the history of another cluster's primary, for humans; nothing while it follows that.
    pub(super) async fn measure_divergence(&self, cluster: &str) -> Result<Option<String>, DriverError> {
        let upstream = self.upstream(cluster)?;
        let own = self.info().await?;
        if follows(&own, upstream) && own.is("master_link_status", "up") {
            return Ok(None);
        }
        let theirs = self.ask_primary(upstream, cluster).await??;
        let last = self.memory.last_open().await?;
        Ok(Some(measured(cluster, &theirs, &own, last.as_ref())))
    }

    /// Saves everything and puts the file aside, and sees that nothing came after that.
    async fn set_aside_whole(&self, before: &Info, why: &str) -> Result<String, DriverError> {
        let aside = self.set_aside().await?;
        let after = self.info().await?;
        let went_on = ["run_id", "master_repl_offset"].iter().any(|key| before.text(key) != after.text(key));
        let opened = self.get("min-replicas-to-write").await? != CLOSED;
        // What follows another has nothing of its own.
        if !before.is_replica() && (went_on || opened) {
            let message = format!(
                "Redis went on after offset {} while its snapshot was set aside, so {} has not all of it",
                before.text("master_repl_offset"),
                aside.display()
            );
            return Err(DriverError::retryable("redis-save", message));
        }
        Ok(format!("{why}; the old data is in {}", aside.display()))
    }

    /// Where its snapshot is, and where it is set aside.
    async fn snapshot(&self) -> Result<(PathBuf, PathBuf), DriverError> {
        if self.options.fence == FenceAt::Remote {
            // What is here under that name is another's.
            return Err(DriverError::unsupported("redis", "have its snapshot set aside on another machine"));
        }
        let folder = PathBuf::from(self.get("dir").await?);
        let name = self.get("dbfilename").await?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string();
        let aside = folder.join(format!("{name}.regent-set-aside-{now}"));
        Ok((folder.join(name), aside))
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
        let (from, aside) = self.snapshot().await?;
        let to = aside.clone();
        disk::bounded("redis-files", DISK_LIMIT, "setting the snapshot aside", move || {
            std::fs::rename(&from, &to)?;
            disk::sync(to.parent().unwrap_or(&to))
        })
        .await?;
        Ok(aside)
    }

    /// A snapshot that a server without keys has not loaded, where a copy would take its place; none if there is none.
    pub(super) async fn set_file_aside(&self) -> Result<Option<PathBuf>, DriverError> {
        if self.options.fence == FenceAt::Remote {
            return Ok(None);
        }
        let (from, aside) = self.snapshot().await?;
        let to = aside.clone();
        let there =
            disk::bounded("redis-files", DISK_LIMIT, "setting the snapshot aside", move || {
                match std::fs::rename(&from, &to) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                    Err(error) => Err(error),
                    Ok(()) => disk::sync(to.parent().unwrap_or(&to)).map(|()| true),
                }
            })
            .await?;
        Ok(there.then_some(aside))
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

/// One that is not opened may have lost what it had: its own agent has not looked yet, or has found so.
fn refuse_closed(theirs: &Info, cluster: &str) -> Result<(), DriverError> {
    // It is told only where the number of replicas that writes need is not 0, and the agent that opens sets it to 0.
    if theirs.number("min_slaves_good_slaves").is_none() {
        return Ok(());
    }
    let message = format!("Redis of {cluster} is not open, so nobody has seen that it has all it had; open it first");
    Err(DriverError::retryable("redis-upstream", message))
}

/// It would be overwritten by a full copy, and nobody has allowed that.
fn refused(cluster: &str, parted: Option<Parted>, unshown: &str) -> DriverError {
    let end = "allow a re-clone, which sets a snapshot aside";
    match parted {
        Some(parted) if parted.beyond > 0 => {
            let message = format!("{}, which {cluster} lacks; look at it, then {end}", parted.told());
            DriverError::permanent("rejoin-diverged", message)
        }
        Some(_) | None => {
            let message = format!(
                "{cluster} cannot send what this Redis lacks, so it would be overwritten by a full copy, and {unshown}; \
                 {end}"
            );
            DriverError::permanent("rejoin-needs-reclone", message)
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
