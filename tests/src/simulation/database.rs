//! Databases that are rows in memory, with what the protocol counts on and nothing more: closed at rest once guarded,
//! a fence that refuses clients and lets replication go on, a hard fence that ends the server, a promotion that starts
//! a timeline, and a standby that follows with some lag.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use regent_agent::driver::{
    Done, Driver, DriverError, DriverResult, FenceReach, Health, Marker, Probe, Redirect, Role, Upstream,
};

use crate::simulation::clock::TrueTime;
use crate::simulation::dice::Dice;
use crate::simulation::trace::Trace;

/// Position of an empty database.
const ORIGIN: u64 = 1_000;
/// Bytes of a row.
const ROW: u64 = 100;

/// A row that a client wrote. Numbers are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its number.
    pub number: u64,
    /// When it was acknowledged.
    pub at: u64,
    /// On which timeline.
    pub timeline: u64,
}

/// Something that a driver did to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// A standby, or one that was closed at rest, opened: a new timeline.
    Promoted {
        /// It was a standby of another cluster.
        standby: bool,
    },
    /// The fence was lifted.
    Opened,
    /// The fence stands.
    Fenced,
    /// The server was ended.
    Killed,
}

/// One server.
#[derive(Debug, Clone)]
pub struct Server {
    /// It runs.
    pub running: bool,
    /// It follows this cluster; none: it is a primary.
    pub follows: Option<String>,
    /// Came up in recovery and follows nobody.
    pub closed: bool,
    /// Refuses clients.
    pub fenced: bool,
    /// Every start comes up closed.
    pub guarded: bool,
    /// Counts promotions.
    pub timeline: u64,
    /// What is in it, oldest first.
    pub rows: Vec<Row>,
    /// Position from which on the present timeline goes, for each timeline before.
    forks: BTreeMap<u64, usize>,
    heard: Option<u64>,
    starts_at: Option<u64>,
    /// A fence counts itself; an opening that began before gives up.
    fences: u64,
    /// Every action takes so much longer.
    sluggish: u64,
}

impl Server {
    /// Clients may write.
    #[must_use]
    pub fn accepts(&self) -> bool {
        self.running && self.follows.is_none() && !self.closed && !self.fenced
    }

    /// In bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        ORIGIN + ROW * self.rows.len() as u64
    }
}

/// All servers of the world. Cheap to clone.
#[derive(Clone)]
pub struct Databases(Arc<Mutex<Inner>>);

struct Inner {
    time: TrueTime,
    trace: Trace,
    dice: Dice,
    servers: BTreeMap<String, Server>,
    effects: Vec<(u64, String, Effect)>,
    next_row: u64,
}

impl Databases {
    pub(super) fn new(time: TrueTime, trace: Trace, dice: Dice, clusters: &[String]) -> Self {
        let primary = clusters.first().cloned();
        let server = |cluster: &String| Server {
            running: true,
            follows: primary.clone().filter(|primary| primary != cluster),
            closed: false,
            fenced: false,
            guarded: false,
            timeline: 1,
            rows: Vec::new(),
            forks: BTreeMap::new(),
            heard: None,
            starts_at: None,
            fences: 0,
            sluggish: 0,
        };
        let servers = clusters.iter().map(|cluster| (cluster.clone(), server(cluster))).collect();
        Self(Arc::new(Mutex::new(Inner { time, trace, dice, servers, effects: Vec::new(), next_row: 0 })))
    }

    /// The driver of one cluster's server.
    pub(super) fn driver(&self, cluster: &str) -> Arc<dyn Driver> {
        Arc::new(DatabaseDriver { databases: self.clone(), cluster: cluster.to_owned() })
    }

    /// Looks at one.
    pub fn see<R>(&self, cluster: &str, look: impl FnOnce(&Server) -> R) -> R {
        look(&self.lock().servers[cluster])
    }

    /// The clusters whose servers accept writes.
    #[must_use]
    pub fn open(&self) -> Vec<String> {
        self.lock().servers.iter().filter(|(_, server)| server.accepts()).map(|(name, _)| name.clone()).collect()
    }

    /// A client writes; the number of the row if it was acknowledged.
    pub(super) fn write(&self, cluster: &str) -> Option<Row> {
        let mut inner = self.lock();
        let at = inner.time.now();
        let number = inner.next_row + 1;
        let server = inner.servers.get_mut(cluster)?;
        if !server.accepts() {
            return None;
        }
        let row = Row { number, at, timeline: server.timeline };
        server.rows.push(row);
        inner.next_row = number;
        Some(row)
    }

    /// What the drivers did since the last call.
    pub(super) fn take_effects(&self) -> Vec<(u64, String, Effect)> {
        std::mem::take(&mut self.lock().effects)
    }

    /// The server ends by itself or by power; it comes back after a while.
    pub(super) fn crash(&self, cluster: &str, back_after: u64) {
        let mut inner = self.lock();
        inner.trace.say(format_args!("{cluster}: the database crashes"));
        let now = inner.time.now();
        if let Some(server) = inner.servers.get_mut(cluster) {
            server.stop();
            server.starts_at = Some(now + back_after);
        }
    }

    /// Its actions take longer.
    pub(super) fn make_sluggish(&self, cluster: &str, by: u64) {
        if let Some(server) = self.lock().servers.get_mut(cluster) {
            server.sluggish = by;
        }
    }

    /// Starts what is due, and lets standbys follow where `reaches(upstream, standby)`.
    pub(super) fn turn(&self, lag: u64, reaches: impl Fn(&str, &str) -> bool) {
        let mut inner = self.lock();
        let now = inner.time.now();
        let trace = inner.trace.clone();
        for (name, server) in &mut inner.servers {
            if !server.running && server.starts_at.is_some_and(|at| at <= now) {
                server.start();
                trace.say(format_args!(
                    "{name}: the database starts, {}",
                    if server.closed { "closed" } else { "as it was" }
                ));
            }
        }
        let names: Vec<String> = inner.servers.keys().cloned().collect();
        for name in names {
            let Some(upstream) = inner.servers[&name].follows.clone() else { continue };
            let Some(source) = inner.servers.get(&upstream) else { continue };
            if !source.running || !inner.servers[&name].running || !reaches(&upstream, &name) {
                continue;
            }
            let old = source.rows.iter().take_while(|row| row.at + lag <= now).count();
            let known = inner.servers[&name].rows.len();
            let fits = source.rows.len() >= known && source.rows[..known] == inner.servers[&name].rows[..];
            let (fresh, timeline) = (source.rows[..old.max(known.min(source.rows.len()))].to_vec(), source.timeline);
            let Some(server) = inner.servers.get_mut(&name) else { continue };
            if fits {
                server.rows = fresh;
                server.timeline = timeline;
                server.heard = Some(now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn stop(&mut self) {
        self.running = false;
        self.starts_at = None;
    }

    fn start(&mut self) {
        self.running = true;
        self.starts_at = None;
        self.closed |= self.guarded && self.follows.is_none();
    }
}

struct DatabaseDriver {
    databases: Databases,
    cluster: String,
}

fn gone() -> DriverError {
    DriverError::retryable("postgres-unreachable", "the server does not run")
}

fn fenced_meanwhile() -> DriverError {
    DriverError::retryable("postgres-fenced", "the database was fenced while it was being opened; the fence stays")
}

impl DatabaseDriver {
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
        self.take_time(5, 60).await;
        let opened = self.with(|server| {
            if !server.running {
                return Err(gone());
            }
            if server.fences != count {
                return Err(fenced_meanwhile());
            }
            let standby = server.follows.take().is_some();
            let closed = std::mem::take(&mut server.closed);
            let fenced = std::mem::take(&mut server.fenced);
            if standby || closed {
                server.forks.insert(server.timeline, server.rows.len());
                server.timeline += 1;
            }
            Ok((standby, closed, fenced))
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
        let now = self.databases.lock().time.now();
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
            });
            Probe {
                health: Health::Healthy,
                role: if standby { Role::Standby } else { Role::Primary },
                writable: server.accepts(),
                system_id: "7000000000000000001".to_owned(),
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

    async fn fence(&self) -> DriverResult {
        self.with(|server| server.fences += 1);
        self.take_time(2, 30).await;
        let already = self.with(|server| std::mem::replace(&mut server.fenced, true));
        if !already {
            self.did(Effect::Fenced);
        }
        self.take_time(1, 30).await;
        self.done(already, "refuses writes")
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
        self.done(!ran, "gone")
    }

    async fn unfence(&self) -> DriverResult {
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
pub(super) struct NameDriver(pub(super) Trace, pub(super) String);

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
