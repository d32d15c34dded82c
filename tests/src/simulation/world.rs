//! The world: machines, processes, databases and clients, moved on together in small steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use regent_core::application::parse;
use regent_core::entry::{Entry, FORMAT, Record};
use regent_core::id::LogIndex;
use regent_core::run::RunStatus;
use regent_core::state::{Applied, State};

use crate::simulation::client::{Acknowledged, Client};
use crate::simulation::clock::{Clocks, TrueTime};
use crate::simulation::database::Databases;
use crate::simulation::dice::Dice;
use crate::simulation::fault::{self, Fault, Ground, Manner, Planned};
use crate::simulation::invariant::{self, Invariant, Sight};
use crate::simulation::network::Network;
use crate::simulation::process::Process;
use crate::simulation::program::{self, GuardDoor, Seats};
use crate::simulation::trace::Trace;
use crate::simulation::{Failure, Settled};

mod machines;
mod trouble;

/// The world moves on in steps of so many milliseconds; no message is faster.
const STEP: u64 = 5;
/// The group must be protected within this time.
const SETUP: u64 = 40_000;
/// A healed world must be live within this time.
const RECOVERY: u64 = 90_000;

struct Machine {
    name: String,
    clocks: Arc<Clocks>,
    on: bool,
}

/// One run's world.
pub(super) struct World {
    seed: u64,
    time: TrueTime,
    trace: Trace,
    network: Network,
    databases: Databases,
    seats: Seats,
    clusters: Vec<String>,
    coordinators: u64,
    machines: Vec<Machine>,
    processes: BTreeMap<String, Process>,
    doors: BTreeMap<String, Arc<GuardDoor>>,
    /// When a process is to be started again.
    due: BTreeMap<String, u64>,
    /// Not to be started again before the fault ends.
    kept_down: BTreeMap<String, usize>,
    gone: Vec<u64>,
    clients: Vec<Client>,
    invariants: Vec<Box<dyn Invariant>>,
    seen: BTreeMap<u64, LogIndex>,
    lag: u64,
    bound: u64,
    manner: Manner,
    answered: BTreeMap<String, u64>,
    directory: PathBuf,
    /// Something stays lost: then a named refusal may be all there is.
    maimed: bool,
}

impl World {
    pub(super) fn new(seed: u64, directory: &Path, aloud: bool) -> Self {
        let time = TrueTime::default();
        let trace = Trace::new(time.clone(), aloud);
        let mut dice = Dice::of(seed, "world");
        let coordinators = 3;
        let clusters: Vec<String> = ["a", "b", "c"].iter().map(|name| (*name).to_owned()).collect();
        let clusters = if dice.percent(75) { clusters[..2].to_vec() } else { clusters };
        let names: Vec<String> = (1..=coordinators)
            .map(|id| format!("coordinator-{id}"))
            .chain(clusters.iter().map(|cluster| format!("cluster-{cluster}")))
            .collect();
        let regions: Vec<usize> = (0..3).chain(0..clusters.len()).collect();
        let machines = names
            .iter()
            .map(|name| {
                // NTP slews the one by some per cent, the other is a crystal.
                let (rate, raw) = (dice.between(980_000, 1_020_000), dice.between(995_000, 1_005_000));
                Machine { name: name.clone(), clocks: Clocks::new(name, rate, raw), on: true }
            })
            .collect();
        let network = Network::new(time.clone(), trace.clone(), Dice::of(seed, "network"), names.len(), &regions);
        let databases = Databases::new(time.clone(), trace.clone(), Dice::of(seed, "databases"), &clusters);
        let manner = match dice.below(10) {
            0 => Manner::Plain,
            1 => Manner::CoordinatorsOnly,
            2..=4 => Manner::RegionLost,
            _ => Manner::Any,
        };
        let by_name = (0..3).map(|region| Client::new(region, None));
        let beside = clusters.iter().enumerate().map(|(index, cluster)| Client::new(3 + index, Some(cluster.clone())));
        Self {
            seed,
            network,
            databases,
            clients: by_name.chain(beside).collect(),
            machines,
            lag: dice.between(5, 120),
            bound: *dice.one(&[2_000, 2_000, 3_000, 5_000]),
            manner,
            doors: clusters.iter().map(|cluster| (cluster.clone(), Arc::default())).collect(),
            clusters,
            coordinators,
            time,
            trace,
            seats: Seats::default(),
            processes: BTreeMap::new(),
            due: BTreeMap::new(),
            kept_down: BTreeMap::new(),
            gone: Vec::new(),
            invariants: invariant::all(),
            seen: BTreeMap::new(),
            answered: BTreeMap::new(),
            directory: directory.to_owned(),
            maimed: false,
        }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// From the first process to the healed world.
    pub(super) fn run(&mut self) -> Result<Settled, Failure> {
        self.trace.say(format_args!(
            "seed {}: {} clusters, D {} ms, lag {} ms, {:?}",
            self.seed,
            self.clusters.len(),
            self.bound,
            self.lag,
            self.manner
        ));
        self.set_up()?;
        let began = self.time.now();
        let ground = Ground { coordinators: 3, clusters: &self.clusters };
        let planned = fault::plan(&mut Dice::of(self.seed, "faults"), self.manner, &ground);
        for one in &planned {
            let until = if one.until == u64::MAX { "the end".to_owned() } else { one.until.to_string() };
            self.trace.say(format_args!("planned: {} to {until}: {}", one.from, one.fault));
        }
        self.suffer(&planned, began)?;
        self.heal(&planned);
        self.recover()
    }

    fn set_up(&mut self) -> Result<(), Failure> {
        for id in 1..=self.coordinators {
            self.start(&format!("coordinator-{id}"))?;
        }
        for cluster in self.clusters.clone() {
            self.start(&format!("agent-{cluster}"))?;
        }
        let applied = Arc::new(AtomicBool::new(false));
        let mut asked = 0;
        while self.time.now() < SETUP {
            self.step()?;
            if self.is_protected() {
                self.trace.say("protected");
                return Ok(());
            }
            if !applied.load(Ordering::Relaxed) && self.time.now() >= asked + 1_000 {
                asked = self.time.now();
                self.apply_document(&applied);
            }
        }
        Err(self.failure("setup", "the application was not protected in time"))
    }

    /// As an operator would.
    fn apply_document(&self, applied: &Arc<AtomicBool>) {
        let document = match parse(&document(&self.clusters, self.bound)) {
            Ok(document) => document,
            Err(mistakes) => return self.trace.say(format_args!("the document is wrong: {mistakes:?}")),
        };
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(seat), Some(process)) = (seats.get(&1).cloned(), self.processes.get("coordinator-1")) else { return };
        if seat.node.replica.read(|state| state.agents.len()) < self.clusters.len() {
            return;
        }
        let (applied, trace) = (applied.clone(), self.trace.clone());
        process.beside(async move {
            let entry = Entry::Applied { application: Box::new(document), by: "ann".to_owned() };
            let record = Record { format: FORMAT, at: seat.node.wall(), request: None, entry };
            let answer = seat.node.replica.propose(record).await;
            trace.say(format_args!("the document: {answer:?}"));
            applied.store(matches!(answer, Ok(Applied::Done(_) | Applied::Repeated(_))), Ordering::Relaxed);
        });
    }

    fn is_protected(&self) -> bool {
        let guarded = self.databases.see(&self.clusters[0], |server| server.guarded);
        guarded
            && self
                .newest()
                .is_some_and(|state| state.applications.values().any(|known| known.confirmed && known.terms.len() == 1))
    }

    fn suffer(&mut self, planned: &[Planned], began: u64) -> Result<(), Failure> {
        let end = planned.iter().map(|one| if one.until == u64::MAX { one.from + 15_000 } else { one.until }).max();
        let end = began + end.unwrap_or(0).min(30_000);
        let mut open: Vec<usize> = Vec::new();
        let mut next = 0;
        while self.time.now() < end {
            let now = self.time.now() - began;
            while next < planned.len() && planned[next].from <= now {
                self.trace.say(format_args!("begins: {}", planned[next].fault));
                self.begin(&planned[next].fault);
                open.push(next);
                next += 1;
            }
            let mut ended = Vec::new();
            open.retain(|index| {
                let over = planned[*index].until <= now;
                if over {
                    ended.push(*index);
                }
                !over
            });
            for index in ended {
                self.trace.say(format_args!("ends: {}", planned[index].fault));
                self.end(&planned[index].fault);
            }
            for index in &open {
                if let Fault::Flapping { machines, every } = &planned[*index].fault {
                    let on = ((now - planned[*index].from) / every).is_multiple_of(2);
                    self.partition(machines, true, true, on);
                }
            }
            self.step()?;
        }
        for index in open {
            if planned[index].until != u64::MAX {
                self.end(&planned[index].fault);
            }
        }
        Ok(())
    }

    /// L1: in a healed world the application is served, or what holds it has a name.
    fn recover(&mut self) -> Result<Settled, Failure> {
        let end = self.time.now() + RECOVERY;
        let mut since = None;
        while self.time.now() < end {
            self.step()?;
            if self.is_served() {
                let at = *since.get_or_insert(self.time.now());
                // It stays so.
                if self.time.now() - at > 3 * self.bound {
                    return self.conclude(None);
                }
            } else {
                since = None;
            }
        }
        let Some(state) = self.newest() else { return Err(self.failure("L1", "no coordinator runs")) };
        match named(&state) {
            Some(name) if self.maimed => {
                self.trace.say(format_args!("not served, by name: {name}"));
                self.conclude(Some(name))
            }
            Some(name) => Err(self.failure("L1", &format!("everything is healed and nothing is served: {name}"))),
            None => Err(self.failure("L1", "the world is healed, nothing is served, and nothing says why")),
        }
    }

    fn conclude(&mut self, held: Option<String>) -> Result<Settled, Failure> {
        let Some(state) = self.newest() else { return Err(self.failure("L1", "no coordinator runs")) };
        for index in 0..self.invariants.len() {
            if held.is_none()
                && let Err(how) = self.invariants[index].conclude(&state, &self.databases)
            {
                return Err(self.failure(self.invariants[index].promise(), &how));
            }
        }
        let known = state.applications.get(&program::application());
        let epoch = known.map_or(0, |known| known.epoch.0);
        Ok(Settled { epoch, held, virtual_millis: self.time.now() })
    }

    fn is_served(&self) -> bool {
        let open = self.databases.open();
        let [open] = open.as_slice() else { return false };
        let Some(state) = self.newest() else { return false };
        let Some(known) = state.applications.get(&program::application()) else { return false };
        let at_rest = known.run.is_none_or(|run| state.runs.get(&run).is_none_or(|run| run.status.is_final()));
        let recently = |at: &u64| self.time.now() - at < 2_000;
        known.primary.as_ref().is_some_and(|primary| primary.as_str() == open)
            && at_rest
            && self.answered.get(open).is_some_and(recently)
    }

    /// One moment.
    fn step(&mut self) -> Result<(), Failure> {
        self.time.pass(STEP);
        self.network.deliver();
        let machines = &self.machines;
        for machine in machines {
            machine.clocks.pass(STEP);
        }
        for process in self.processes.values() {
            process.step();
        }
        self.supervise()?;
        let (network, count) = (self.network.clone(), self.machines.len() - self.clusters.len());
        let clusters = self.clusters.clone();
        let machine_of =
            move |cluster: &str| count + clusters.iter().position(|name| name == cluster).unwrap_or_default();
        self.databases.turn(self.lag, |upstream, standby| {
            let (from, to) = (machine_of(upstream), machine_of(standby));
            network.reaches(from, to) && network.reaches(to, from)
        });
        let now = self.time.now();
        let mut acknowledged = Vec::new();
        for client in &mut self.clients {
            if !self.machines[client.machine].on {
                continue;
            }
            let written = client.turn(now, &self.databases, &self.seats, &self.network, &machine_of);
            acknowledged.extend(written);
        }
        for one in acknowledged.iter().filter(|one| one.by_name) {
            self.answered.insert(one.cluster.clone(), now);
        }
        self.look(&acknowledged)
    }

    fn look(&mut self, acknowledged: &[Acknowledged]) -> Result<(), Failure> {
        let mut changed = BTreeMap::new();
        {
            let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, seat) in seats.iter() {
                let applied = seat.node.replica.read(|state| state.applied);
                if self.seen.get(id) != Some(&applied) {
                    self.seen.insert(*id, applied);
                    let state = seat.node.replica.read(Clone::clone);
                    self.trace.note(format!("applied {id} {applied}").as_bytes());
                    changed.insert(*id, state);
                }
            }
        }
        for (id, state) in &changed {
            self.tell(*id, state);
        }
        let effects = self.databases.take_effects();
        let sight = Sight {
            now: self.time.now(),
            databases: &self.databases,
            changed: &changed,
            effects: &effects,
            acknowledged,
            coordinators_only: self.manner == Manner::CoordinatorsOnly,
        };
        for invariant in &mut self.invariants {
            if let Err(how) = invariant.look(&sight) {
                let promise = invariant.promise();
                return Err(self.failure(promise, &how));
            }
        }
        Ok(())
    }

    /// The audit is the story of a run.
    fn tell(&self, id: u64, state: &State) {
        if let Some(record) = state.audit.back().filter(|record| record.index == state.applied) {
            // The group's name is drawn by the operating system.
            let detail = if record.event == "group-created" { "" } else { record.detail.as_str() };
            self.trace.say(format_args!("coordinator {id} at {}: {}: {detail}", state.applied, record.event));
        }
    }

    /// Of the coordinators that run, the state that is furthest on.
    fn newest(&self) -> Option<State> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let states = seats.values().map(|seat| seat.node.replica.clone());
        states.max_by_key(|replica| replica.read(|state| state.applied)).map(|replica| replica.read(Clone::clone))
    }

    fn failure(&self, promise: &str, how: &str) -> Failure {
        self.trace.say(format_args!("BROKEN: {promise}: {how}"));
        Failure { seed: self.seed, promise: promise.to_owned(), how: how.to_owned(), lines: self.trace.lines() }
    }
}

/// What says why an application is not served.
fn named(state: &State) -> Option<String> {
    let known = state.applications.get(&program::application())?;
    if let Some(run) = known.run.and_then(|run| state.runs.get(&run)).filter(|run| run.status == RunStatus::Stuck) {
        return Some(format!("run {} is stuck", run.id));
    }
    if let Some(clusters) = &state.frozen {
        return Some(format!("frozen: {clusters:?}"));
    }
    known.refusal.as_ref().map(|(rule, detail)| format!("{rule}: {detail}"))
}

fn document(clusters: &[String], bound: u64) -> String {
    format!(
        "apiVersion: regent/v1
kind: Application
metadata:
  name: {application}
spec:
  objectives: {{ rto: 1m, rpo: 5s }}
  clusters: [{clusters}]
  resources:
    {database}: {{ kind: postgres }}
    {name}: {{ kind: dns, name: shop.regent.test., ttl: 1s }}
  automation:
    mode: automatic
    failoverAfter: {bound}ms
    cooldown: 1s
    maxDataLoss: 1h
    beyondMaxDataLoss: refuse
    onCoordinatorLoss: failsafe
  runbooks:
    failover:
      - promote: [{database}]
      - redirect: [{name}]
",
        application = program::APPLICATION,
        database = program::DATABASE,
        name = program::NAME,
        clusters = clusters.join(", "),
    )
}
