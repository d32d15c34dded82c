//! A second application in the same group and on the same clusters: with another D, a primary that is not in the first
//! cluster, and databases of its own. Whatever goes wrong with machines, links and processes goes wrong with both.
//!
//! The promises are watched for each application by itself: what is looked at then is of no other. Its clients write beside its
//! databases alone, since it has no name; switchovers, pauses and what somebody does to a database happen to the first one.

use std::collections::BTreeMap;

use regent_core::blast::Limit;
use regent_core::entry::Entry;
use regent_core::id::ApplicationId;
use regent_core::run::RunStatus;
use regent_core::state::State;

use crate::client::{Acknowledged, Client};
use crate::clock::TrueTime;
use crate::database::Databases;
use crate::dice::Dice;
use crate::invariant::{self, Invariant, Sight};
use crate::network::{MachineId, Network};
use crate::program::{self, Seats};
use crate::trace::Trace;
use crate::world::{World, document};

/// Of its database: no two applications have the same one.
const SYSTEM_ID: &str = "7000000000000000002";
/// Two applications fail over more often than a human would let them by themselves, and nobody here looks.
const LIMIT: u32 = 1_000;

/// See the module.
pub(super) struct Second {
    bound: u64,
    /// In the order of its document: the first has the primary at first.
    clusters: Vec<String>,
    databases: Databases,
    clients: Vec<Client>,
    invariants: Vec<Box<dyn Invariant>>,
}

impl Second {
    /// Beside a first one with this D, in clusters whose machines begin behind those of the coordinators.
    pub(super) fn new(
        seed: u64,
        bound: u64,
        (clusters, seats): (&[String], MachineId),
        (time, trace): (TrueTime, Trace),
        ways: impl Fn(&str, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let bounds: Vec<u64> = [2_000, 3_000, 5_000, 8_000].into_iter().filter(|one| *one != bound).collect();
        let beside = clusters.iter().enumerate();
        let clients = beside.map(|(index, cluster)| Client::new(seats + index, Some(cluster.clone()))).collect();
        let mut clusters = clusters.to_vec();
        clusters.rotate_left(1);
        let dice = Dice::of(seed, "databases of the second application");
        let databases = Databases::new(time, trace, dice, SYSTEM_ID, &clusters, ways);
        let bound = *Dice::of(seed, "second application").one(&bounds);
        Self { bound, clusters, databases, clients, invariants: invariant::all(&program::second()) }
    }

    pub(super) fn databases(&self) -> Databases {
        self.databases.clone()
    }

    pub(super) fn is_guarded(&self) -> bool {
        self.databases.see(&self.clusters[0], |server| server.guarded)
    }

    /// Its clients write, those on machines that run.
    pub(super) fn write(
        &mut self,
        now: u64,
        (seats, network): (&Seats, &Network),
        on: impl Fn(MachineId) -> bool,
        machine_of: impl Fn(&str) -> MachineId + Copy,
    ) -> Vec<Acknowledged> {
        let running = self.clients.iter_mut().filter(|client| on(client.machine));
        running.filter_map(|client| client.turn(now, &self.databases, seats, network, machine_of)).collect()
    }

    /// Its promises, at the moment that is seen for the first application; `changed` are whole states.
    pub(super) fn look(
        &mut self,
        sight: &Sight<'_>,
        changed: &BTreeMap<u64, State>,
        acknowledged: &[Acknowledged],
    ) -> Option<(&'static str, String)> {
        let changed = of(changed, &program::second());
        let effects = self.databases.take_effects();
        let own = Sight {
            now: sight.now,
            databases: &self.databases,
            changed: &changed,
            effects: &effects,
            acknowledged,
            coordinators_only: sight.coordinators_only,
            old_disks: sight.old_disks,
        };
        invariant::broken(&mut self.invariants, &own)
    }

    /// The same in the end.
    pub(super) fn conclude(&mut self, state: &State) -> Option<(&'static str, String)> {
        invariant::broken_in_the_end(&mut self.invariants, state, &self.databases)
    }

    pub(super) fn forget(&mut self, coordinator: u64) {
        self.invariants.iter_mut().for_each(|invariant| invariant.forget(coordinator));
    }

    pub(super) fn document(&self) -> String {
        document::second(&self.clusters, self.bound)
    }
}

/// What states say of one application, and of none beside it.
pub(super) fn of(states: &BTreeMap<u64, State>, application: &ApplicationId) -> BTreeMap<u64, State> {
    let mut states = states.clone();
    for state in states.values_mut() {
        state.applications.retain(|name, _| name == application);
        state.runs.retain(|_, run| run.application == *application);
    }
    states
}

impl World {
    /// Those of all applications.
    pub(super) fn all_databases(&self) -> impl Iterator<Item = &Databases> {
        std::iter::once(&self.databases).chain(self.second.as_ref().map(|second| &second.databases))
    }

    /// Where there are two applications.
    pub(super) fn lift_limit(&self) {
        if self.second.is_some() {
            let limit = Limit { events: Some(LIMIT), window: None };
            self.ask("lift the limit", Entry::LimitSet { limit, by: "ann".to_owned() });
        }
    }

    /// True as well where there is no second one.
    pub(super) fn second_is_served(&self) -> bool {
        let Some(second) = &self.second else { return true };
        let open = second.databases.open();
        let [open] = open.as_slice() else { return false };
        self.newest(|state| self.rests(state, &program::second(), open)).unwrap_or(false)
    }

    /// Why it is not.
    pub(super) fn second_named(&self, state: &State) -> Option<String> {
        let known = state.applications.get(&program::second())?;
        let run = known.run.and_then(|run| state.runs.get(&run));
        if let Some(run) = run.filter(|run| run.status == RunStatus::Stuck) {
            return Some(format!("run {} is stuck", run.id));
        }
        known.refusal.as_ref().map(|(rule, detail)| format!("{rule}: {detail}"))
    }
}
