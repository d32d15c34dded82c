//! The world: machines, processes, databases and clients, moved on together in small steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use regent_core::application::parse;
use regent_core::entry::{Entry, FORMAT, Record};
use regent_core::id::LogIndex;
use regent_core::state::{Applied, State};

use crate::client::{Acknowledged, Client};
use crate::clock::{Clocks, TrueTime};
use crate::database::Databases;
use crate::dice::Dice;
use crate::fault::{self, Aim, Fault, Ground, Manner, Planned};
use crate::invariant::{self, Invariant, Sight};
use crate::network::{MachineId, Network};
use crate::process::Process;
use crate::program::{self, GuardDoor, Seats};
use crate::trace::Trace;
use crate::{AIMED, Failure, SEVERAL, Settled};

mod document;
mod healed;
mod in_time;
mod machines;
mod operator;
mod restoration;
mod several;
mod trouble;

use several::Second;

/// The world moves on in steps of so many milliseconds; no message is faster.
const STEP: u64 = 5;
/// The group must be protected within this time.
const SETUP: u64 = 40_000;
/// Of the first application's database.
const SYSTEM_ID: &str = "7000000000000000001";

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
    /// Another application, from [`crate::SEVERAL`] to [`crate::AIMED`].
    second: Option<Second>,
    seats: Seats,
    clusters: Vec<String>,
    /// With the spare one, if there is one.
    coordinators: u64,
    /// The last coordinator does not belong to the group in the beginning.
    spare: bool,
    machines: Vec<Machine>,
    processes: BTreeMap<String, Process>,
    doors: BTreeMap<String, Arc<GuardDoor>>,
    /// When a process is to be started again.
    due: BTreeMap<String, u64>,
    /// Not to be started again before the fault ends.
    kept_down: BTreeMap<String, usize>,
    /// Coordinators that are out of the group: they have left it, or have lost what they knew.
    gone: Vec<u64>,
    /// Of those, coordinators that were given an old disk.
    old_disks: Vec<u64>,
    /// Of those, the one that was removed: nobody starts it any more.
    left: Option<u64>,
    /// All coordinators have lost what they had, and nobody starts one before the group is restored.
    group_lost: bool,
    /// When an operator last asked for the end of a pause; none while nobody wants that.
    resumes: Option<u64>,
    /// When an operator last looked for stuck runs; none before the world is healed.
    clears: Option<u64>,
    replacing: Option<operator::Replacing>,
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
    /// When the primary was lost, where that is all that happens and nothing was promoted since.
    awaited: Option<u64>,
    /// How many faults of each kind took hold.
    began: BTreeMap<fault::Kind, u64>,
}

impl World {
    pub(super) fn new(seed: u64, directory: &Path, aloud: bool) -> Self {
        let time = TrueTime::default();
        let trace = Trace::new(time.clone(), aloud);
        let mut dice = Dice::of(seed, "world");
        let aim = (seed >= AIMED).then(|| Aim::of(seed));
        let spare = dice.percent(25) && aim.is_none();
        let coordinators = 3 + u64::from(spare);
        let clusters: Vec<String> = ["a", "b", "c"].iter().map(|name| (*name).to_owned()).collect();
        let two = dice.percent(75) && !aim.is_some_and(Aim::needs_a_third);
        let clusters = if two { clusters[..2].to_vec() } else { clusters };
        let names: Vec<String> = (1..=coordinators)
            .map(|id| format!("coordinator-{id}"))
            .chain(clusters.iter().map(|cluster| format!("cluster-{cluster}")))
            .collect();
        let seats = names.len() - clusters.len();
        let regions: Vec<usize> = (0..seats).chain(0..clusters.len()).collect();
        let machines = names
            .iter()
            .map(|name| {
                // NTP slews the one by some per cent, the other is a crystal.
                let (rate, raw) = (dice.between(980_000, 1_020_000), dice.between(995_000, 1_005_000));
                Machine { name: name.clone(), clocks: Clocks::new(name, rate, raw), on: true }
            })
            .collect();
        let network = Network::new(time.clone(), trace.clone(), Dice::of(seed, "network"), names.len(), &regions);
        let (over, places) = (network.clone(), clusters.clone());
        let ways = move |upstream: &str, standby: &str| {
            let machine = |cluster| seats + places.iter().position(|name| name == cluster).unwrap_or_default();
            let (from, to) = (machine(upstream), machine(standby));
            over.reaches(from, to) && over.reaches(to, from)
        };
        let chance = Dice::of(seed, "databases");
        let databases = Databases::new(time.clone(), trace.clone(), chance, SYSTEM_ID, &clusters, ways.clone());
        let manner = aim.map_or_else(|| Manner::draw(&mut dice, seed, spare), Manner::Aimed);
        let by_name = (0..3).map(|region| Client::new(region, None));
        let beside =
            clusters.iter().enumerate().map(|(index, cluster)| Client::new(seats + index, Some(cluster.clone())));
        let (lag, bound) = (dice.between(5, 120), *dice.one(&[2_000, 2_000, 3_000, 5_000]));
        let bound = aim.map_or(bound, Aim::bound);
        let second = (SEVERAL..AIMED)
            .contains(&seed)
            .then(|| Second::new(seed, bound, (clusters.as_slice(), seats), (time.clone(), trace.clone()), ways));
        Self {
            seed,
            network,
            databases,
            second,
            clients: by_name.chain(beside).collect(),
            machines,
            lag,
            bound,
            manner,
            doors: clusters.iter().map(|cluster| (cluster.clone(), Arc::default())).collect(),
            clusters,
            coordinators,
            spare,
            time,
            trace,
            seats: Seats::default(),
            processes: BTreeMap::new(),
            due: BTreeMap::new(),
            kept_down: BTreeMap::new(),
            gone: Vec::new(),
            old_disks: Vec::new(),
            left: None,
            group_lost: false,
            resumes: None,
            clears: None,
            replacing: None,
            invariants: invariant::all(&program::application()),
            seen: BTreeMap::new(),
            answered: BTreeMap::new(),
            directory: directory.to_owned(),
            maimed: false,
            awaited: None,
            began: BTreeMap::new(),
        }
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    pub(super) fn began(&self) -> &BTreeMap<fault::Kind, u64> {
        &self.began
    }

    /// From the first process to the healed world.
    pub(super) fn run(&mut self) -> Result<Settled, Failure> {
        self.trace.say(format_args!(
            "seed {}: {} coordinators, {} clusters, D {} ms, lag {} ms, {:?}",
            self.seed,
            self.coordinators,
            self.clusters.len(),
            self.bound,
            self.lag,
            self.manner
        ));
        self.set_up()?;
        let began = self.time.now();
        let coordinators = self.machines.len() - self.clusters.len();
        let ground = Ground { coordinators, spare: self.spare, clusters: &self.clusters, bound: self.bound };
        let mut planned = fault::plan(&mut Dice::of(self.seed, "faults"), self.manner, &ground);
        restoration::add(self.seed, self.manner, &ground, &mut planned);
        for one in &planned {
            let until = if one.until == u64::MAX { "the end".to_owned() } else { one.until.to_string() };
            self.trace.say(format_args!("planned: {} to {until}: {}", one.from, one.fault));
        }
        self.suffer(&planned, began)?;
        self.heal(&planned);
        self.recover()
    }

    fn set_up(&mut self) -> Result<(), Failure> {
        for id in 1..=self.members() {
            self.start(&format!("coordinator-{id}"))?;
        }
        for cluster in self.clusters.clone() {
            self.start(&format!("agent-{cluster}"))?;
        }
        // Whoever has not followed the last one yet is taken, too, where there is to be a third.
        let third = matches!(self.manner, Manner::Aimed(aim) if aim.needs_a_third());
        let beyond = if third { document::Beyond::Accept } else { document::Beyond::Refuse };
        let mut documents = vec![document::first(&self.clusters, self.bound, beyond)];
        documents.extend(self.second.as_ref().map(Second::document));
        let applied: Vec<Arc<AtomicBool>> = documents.iter().map(|_| Arc::default()).collect();
        let mut asked = 0;
        while self.time.now() < SETUP {
            self.step()?;
            if self.is_protected() {
                self.trace.say("protected");
                self.lift_limit();
                return Ok(());
            }
            let next = applied.iter().position(|applied| !applied.load(Ordering::Relaxed));
            if let Some(next) = next.filter(|_| self.time.now() >= asked + 1_000) {
                asked = self.time.now();
                self.apply_document(&documents[next], &applied[next]);
            }
        }
        Err(self.failure("setup", "the application was not protected in time"))
    }

    /// The highest id of those that form the group in the beginning.
    fn members(&self) -> u64 {
        self.coordinators - u64::from(self.spare)
    }

    /// As an operator would.
    fn apply_document(&self, document: &str, applied: &Arc<AtomicBool>) {
        let document = match parse(document) {
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
        let guarded = guarded && self.second.as_ref().is_none_or(Second::is_guarded);
        let all = 1 + usize::from(self.second.is_some());
        let confirmed = |state: &State| {
            let mut applications = state.applications.values();
            state.applications.len() == all && applications.all(|known| known.confirmed && known.terms.len() == 1)
        };
        guarded && self.newest(confirmed).unwrap_or(false)
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
                self.awaits(&planned[next].fault);
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
        self.operate();
        self.all_databases().for_each(|databases| databases.turn(self.lag));
        let (count, clusters) = (self.machines.len() - self.clusters.len(), &self.clusters);
        let machine_of = |cluster: &str| count + clusters.iter().position(|name| name == cluster).unwrap_or_default();
        let now = self.time.now();
        let mut acknowledged = Vec::new();
        for client in &mut self.clients {
            if !self.machines[client.machine].on {
                continue;
            }
            let written = client.turn(now, &self.databases, &self.seats, &self.network, machine_of);
            acknowledged.extend(written);
        }
        // What is written behind the product's back is nobody's promise.
        let by_hand = self.databases.by_hand();
        acknowledged.retain(|one| !by_hand.contains_key(&one.cluster));
        for one in acknowledged.iter().filter(|one| one.by_name) {
            self.answered.insert(one.cluster.clone(), now);
        }
        let on = |machine: MachineId| self.machines[machine].on;
        let second = self.second.as_mut();
        let beside = second.map(|second| second.write(now, (&self.seats, &self.network), on, machine_of));
        self.look(&acknowledged, &beside.unwrap_or_default())
    }

    /// `beside` was acknowledged by the databases of the second application.
    fn look(&mut self, acknowledged: &[Acknowledged], beside: &[Acknowledged]) -> Result<(), Failure> {
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
        let own = self.second.as_ref().map(|_| several::of(&changed, &program::application()));
        let sight = Sight {
            now: self.time.now(),
            databases: &self.databases,
            changed: own.as_ref().unwrap_or(&changed),
            effects: &effects,
            acknowledged,
            coordinators_only: self.manner == Manner::CoordinatorsOnly,
            old_disks: &self.old_disks,
        };
        let mut found = invariant::broken(&mut self.invariants, &sight);
        if found.is_none()
            && let Some(second) = &mut self.second
        {
            found = second.look(&sight, &changed, beside);
        }
        if let Some((promise, how)) = found {
            return Err(self.failure(promise, &how));
        }
        self.in_time(&effects)
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
    fn newest<R>(&self, look: impl FnOnce(&State) -> R) -> Option<R> {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let replicas = seats.values().map(|seat| &seat.node.replica);
        replicas.max_by_key(|replica| replica.read(|state| state.applied)).map(|replica| replica.read(look))
    }

    fn failure(&self, promise: &str, how: &str) -> Failure {
        self.trace.say(format_args!("BROKEN: {promise}: {how}"));
        let (promise, how) = (promise.to_owned(), how.to_owned());
        Failure { seed: self.seed, promise, how, mistake: None, lines: self.trace.lines() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.processes.clear();
        self.seats.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.network.end_of_the_world();
    }
}
