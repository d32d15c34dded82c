//! Databases that are rows in memory, with what the protocol counts on and nothing more: closed at rest once guarded,
//! a fence that refuses clients and lets replication go on, a hard fence that ends the server, a promotion that starts
//! a timeline, a standby that follows with some lag, and a rejoin that sets aside what the other side does not have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regent_agent::driver::Driver;

use crate::clock::TrueTime;
use crate::dice::Dice;
use crate::trace::Trace;

mod driver;

pub(super) use driver::NameDriver;

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
    /// It follows another cluster now.
    Followed {
        /// So many of its own rows were set aside.
        without: usize,
    },
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
    /// To open takes so much longer.
    slow_opening: u64,
    /// Since when it has been open by somebody's hand; none once it was closed.
    by_hand: Option<u64>,
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
    system_id: String,
    ways: Ways,
}

/// True if there is a way between an upstream and a standby.
type Ways = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

impl Databases {
    /// One server in each cluster, that of the first a primary. `ways` says whether there is one between an upstream and a
    /// standby.
    pub(super) fn new(
        time: TrueTime,
        trace: Trace,
        dice: Dice,
        system_id: &str,
        clusters: &[String],
        ways: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
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
            slow_opening: 0,
            by_hand: None,
        };
        let servers = clusters.iter().map(|cluster| (cluster.clone(), server(cluster))).collect();
        Self(Arc::new(Mutex::new(Inner {
            time,
            trace,
            dice,
            servers,
            effects: Vec::new(),
            next_row: 0,
            system_id: system_id.to_owned(),
            ways: Arc::new(ways),
        })))
    }

    /// The driver of one cluster's server.
    pub(super) fn driver(&self, cluster: &str) -> Arc<dyn Driver> {
        Arc::new(driver::DatabaseDriver::new(self.clone(), cluster))
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

    /// Those that are open because somebody opened them by hand, and since when.
    #[must_use]
    pub fn by_hand(&self) -> BTreeMap<String, u64> {
        let inner = self.lock();
        let open = inner.servers.iter().filter(|(_, server)| server.accepts());
        open.filter_map(|(name, server)| Some((name.clone(), server.by_hand?))).collect()
    }

    /// Somebody promotes it, or takes away what keeps it closed. No driver does that, so it is no effect.
    pub(super) fn open_by_hand(&self, cluster: &str) {
        let mut inner = self.lock();
        let (now, trace) = (inner.time.now(), inner.trace.clone());
        let Some(server) = inner.servers.get_mut(cluster) else { return };
        if !server.running || server.accepts() {
            return trace.say(format_args!("{cluster}: it is not to be opened by hand"));
        }
        server.open();
        server.by_hand = Some(now);
        trace.say(format_args!("{cluster}: opened by hand (timeline {}, {} rows)", server.timeline, server.rows.len()));
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

    /// To open takes longer.
    pub(super) fn open_slowly(&self, cluster: &str, by: u64) {
        if let Some(server) = self.lock().servers.get_mut(cluster) {
            server.slow_opening = by;
        }
    }

    /// Starts what is due, and lets standbys follow.
    pub(super) fn turn(&self, lag: u64) {
        let mut inner = self.lock();
        let now = inner.time.now();
        let trace = inner.trace.clone();
        for (name, server) in &mut inner.servers {
            // Whoever opens it after that is the product.
            server.by_hand = server.by_hand.filter(|_| server.accepts());
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
            if !source.running || !inner.servers[&name].running || !inner.reaches(&upstream, &name) {
                continue;
            }
            let (known, timeline) = (inner.servers[&name].rows.len(), source.timeline);
            // Numbers are never used twice, and what stands before a row is the same wherever it stands.
            let last = known.checked_sub(1).map(|last| inner.servers[&name].rows[last].number);
            let fits = last.is_none_or(|last| source.rows.get(known - 1).is_some_and(|row| row.number == last));
            let old = source.rows.partition_point(|row| row.at + lag <= now);
            let fresh = source.rows.get(known..old).unwrap_or_default().to_vec();
            let Some(server) = inner.servers.get_mut(&name) else { continue };
            if fits {
                server.rows.extend(fresh);
                server.timeline = timeline;
                server.heard = Some(now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn reaches(&self, upstream: &str, standby: &str) -> bool {
        (self.ways)(upstream, standby)
    }
}

impl Server {
    /// Clients may write from here on. True for each of these that it was: a standby, closed at rest, fenced.
    fn open(&mut self) -> (bool, bool, bool) {
        let standby = self.follows.take().is_some();
        let closed = std::mem::take(&mut self.closed);
        let fenced = std::mem::take(&mut self.fenced);
        if standby || closed {
            self.forks.insert(self.timeline, self.rows.len());
            self.timeline += 1;
        }
        (standby, closed, fenced)
    }

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
