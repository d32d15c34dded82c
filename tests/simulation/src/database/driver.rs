//! What a driver does to a server. Everything takes its time, may be given up meanwhile, and may be repeated.

use std::time::Duration;

use async_trait::async_trait;
use regent_agent::driver::{
    Done, Driver, DriverError, DriverResult, FenceReach, Health, Marker, Probe, Redirect, Rejoin, Role, Upstream,
};

use super::{Databases, Effect, Server};
use crate::trace::Trace;

/// Of one cluster's server.
pub(super) struct DatabaseDriver {
    databases: Databases,
    cluster: String,
    /// Held by whoever opens or rebuilds the database; never by a fence.
    changing: tokio::sync::Mutex<()>,
}

fn gone() -> DriverError {
    DriverError::retryable("postgres-unreachable", "the server does not run")
}

fn fenced_meanwhile() -> DriverError {
    DriverError::retryable("postgres-fenced", "the database was fenced while it was being opened; the fence stays")
}

fn diverged(rows: usize) -> DriverError {
    DriverError::permanent(
        "rejoin-diverged",
        format!("{rows} rows here are not in the primary; nothing is given up by itself"),
    )
}

impl DatabaseDriver {
    pub(super) fn new(databases: Databases, cluster: &str) -> Self {
        Self { databases, cluster: cluster.to_owned(), changing: tokio::sync::Mutex::new(()) }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Server) -> R) -> R {
        let mut inner = self.databases.lock();
        change(inner.servers.get_mut(&self.cluster).expect("every cluster has a server"))
    }

    /// Part of an action takes its time; it may be given up meanwhile.
    async fn take_time(&self, least: u64, most: u64) {
        let millis = {
            let mut inner = self.databases.lock();
            let sluggish = inner.servers[&self.cluster].sluggish;
            inner.dice.between(least, most) + sluggish
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// A primary that is reached from here.
    fn source(&self, upstream: &str) -> Result<Server, DriverError> {
        let inner = self.databases.lock();
        let primary = inner.servers.get(upstream).filter(|server| server.running && server.follows.is_none());
        let reached = primary.filter(|_| inner.reaches(upstream, &self.cluster));
        reached.cloned().ok_or_else(|| DriverError::retryable("postgres-upstream", "the primary is not reached"))
    }

    fn did(&self, effect: Effect) {
        let mut inner = self.databases.lock();
        let now = inner.time.now();
        let server = &inner.servers[&self.cluster];
        inner.trace.say(format_args!(
            "{}: {effect:?} (timeline {}, {} rows)",
            self.cluster,
            server.timeline,
            server.rows.len()
        ));
        inner.effects.push((now, self.cluster.clone(), effect));
    }

    fn done(&self, already: bool, message: &str) -> DriverResult {
        let (position, timeline) = self.with(|server| (server.position(), server.timeline));
        Ok(Done { already, message: message.to_owned(), position: Some(position), timeline, ..Done::default() })
    }

    /// Opens what is not open, unless a fence comes in between.
    async fn open(&self, count: u64) -> DriverResult {
        let slow = self.with(|server| server.slow_opening);
        self.take_time(5 + slow, 60 + slow).await;
        let opened = self.with(|server| {
            if !server.running {
                return Err(gone());
            }
            if server.fences != count {
                return Err(fenced_meanwhile());
            }
            Ok(server.open())
        })?;
        match opened {
            (true, ..) => self.did(Effect::Promoted { standby: true }),
            (false, true, _) => self.did(Effect::Promoted { standby: false }),
            (false, false, true) => self.did(Effect::Opened),
            (false, false, false) => {}
        }
        let already = opened == (false, false, false);
        self.take_time(1, 20).await;
        self.done(already, "it accepts writes")
    }
}

#[async_trait]
impl Driver for DatabaseDriver {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn fence_reach(&self) -> FenceReach {
        FenceReach::Local
    }

    async fn probe(&self) -> Probe {
        self.take_time(1, 5).await;
        let (now, system_id) = {
            let inner = self.databases.lock();
            (inner.time.now(), inner.system_id.clone())
        };
        self.with(|server| {
            if !server.running {
                return Probe::without_answer(Health::Failed, "no server process");
            }
            let standby = server.follows.is_some() || server.closed;
            let heard = server.heard.filter(|_| server.follows.is_some()).map(|at| now.saturating_sub(at));
            let connected = heard.is_some_and(|ago| ago < 1_000);
            let upstream = standby.then(|| Upstream {
                connected,
                last_heard: heard.map(Duration::from_millis),
                lag_bytes: connected.then_some(0),
                lag: connected.then_some(Duration::ZERO),
                cluster: server.follows.clone(),
            });
            Probe {
                health: Health::Healthy,
                role: if standby { Role::Standby } else { Role::Primary },
                writable: server.accepts(),
                system_id,
                previous: None,
                timeline: server.timeline,
                position: Some(server.position()),
                position_text: String::new(),
                upstream,
                detail: String::new(),
            }
        })
    }

    async fn guard(&self, _marker: &Marker) -> DriverResult {
        self.take_time(1, 10).await;
        let already = self.with(|server| std::mem::replace(&mut server.guarded, true));
        self.done(already, "comes up closed")
    }

    async fn quiesce(&self) -> DriverResult {
        self.fence().await
    }

    async fn fence(&self) -> DriverResult {
        self.with(|server| server.fences += 1);
        self.take_time(2, 30).await;
        let already = self.with(|server| std::mem::replace(&mut server.fenced, true));
        if !already {
            self.did(Effect::Fenced);
        }
        self.take_time(1, 30).await;
        if self.with(|server| server.running) {
            self.done(already, "refuses writes")
        } else {
            // What does not run tells no position.
            Ok(Done { already, message: "does not run".to_owned(), ..Done::default() })
        }
    }

    async fn fence_hard(&self) -> DriverResult {
        self.take_time(1, 10).await;
        let ran = self.with(|server| {
            let ran = server.running;
            server.stop();
            ran
        });
        if ran {
            self.did(Effect::Killed);
        }
        Ok(Done { already: !ran, message: "gone".to_owned(), ..Done::default() })
    }

    async fn unfence(&self) -> DriverResult {
        let _changing = self.changing.lock().await;
        let count = self.with(|server| server.fences);
        if !self.with(|server| server.running) {
            self.take_time(50, 300).await;
            self.with(Server::start);
        }
        if self.with(|server| server.follows.is_some()) {
            return Err(DriverError::permanent("postgres-standby", "the database is a standby"));
        }
        self.open(count).await
    }

    async fn promote(&self, position: Option<u64>) -> DriverResult {
        let _changing = self.changing.lock().await;
        let count = self.with(|server| server.fences);
        let at = self.with(|server| server.position());
        if position.is_some_and(|wanted| at < wanted) && self.with(|server| server.follows.is_some()) {
            return Err(DriverError::retryable("postgres-behind", "the position is not reached"));
        }
        self.open(count).await
    }

    async fn catch_up(&self, position: u64) -> DriverResult {
        while self.with(|server| server.position()) < position {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.done(false, "reached")
    }

    /// Ends the server, sets aside what the other side does not have, if that was allowed, and starts it as a standby.
    async fn rejoin(&self, rejoin: &Rejoin) -> DriverResult {
        let _changing = self.changing.lock().await;
        let upstream = rejoin.upstream_cluster.as_str();
        self.take_time(20, 200).await;
        if self.with(|server| server.running && server.follows.as_deref() == Some(upstream) && server.heard.is_some()) {
            return self.done(true, "follows already");
        }
        if self.with(|server| server.accepts()) {
            return Err(DriverError::retryable("postgres-writable", "the database accepts writes; fence it first"));
        }
        self.source(upstream)?;
        self.with(Server::stop);
        self.take_time(50, 500).await;
        let source = self.source(upstream)?;
        let without = self.with(|server| {
            let shared = server.rows.iter().zip(&source.rows).take_while(|(own, theirs)| own == theirs).count();
            let without = server.rows.len() - shared;
            if without > 0 && !rejoin.allow_rewind {
                // As it was found, and closed.
                server.start();
                return Err(diverged(without));
            }
            server.rows.truncate(shared);
            (server.follows, server.heard) = (Some(upstream.to_owned()), None);
            (server.closed, server.fenced, server.timeline) = (false, false, source.timeline);
            server.start();
            Ok(without)
        })?;
        self.did(Effect::Followed { without });
        self.take_time(20, 100).await;
        self.done(false, "follows")
    }

    async fn verify(&self) -> DriverResult {
        self.take_time(1, 5).await;
        if self.with(|server| server.accepts()) {
            self.done(true, "serves")
        } else {
            Err(DriverError::retryable("http-status", "it does not serve"))
        }
    }
}

/// The DNS name of the application: it follows the applied state, so nothing is to be done for it but to look.
pub(crate) struct NameDriver(pub(crate) Trace, pub(crate) String);

#[async_trait]
impl Driver for NameDriver {
    fn kind(&self) -> &'static str {
        "dns"
    }

    async fn probe(&self) -> Probe {
        Probe { role: Role::None, ..Probe::without_answer(Health::Healthy, "") }
    }

    async fn redirect(&self, redirect: &Redirect) -> DriverResult {
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.0.say(format_args!("{}: the name points here, epoch {}", self.1, redirect.epoch));
        Ok(Done { message: "points here".to_owned(), ..Done::default() })
    }

    async fn verify(&self) -> DriverResult {
        Ok(Done::default())
    }
}
