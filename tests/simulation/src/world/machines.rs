//! Machines and their power; processes, and who starts them again.

use std::sync::PoisonError;

use crate::Failure;
use crate::network::MachineId;
use crate::process::{Process, Program};
use crate::program::{self, ClusterPlan, CoordinatorPlan};
use crate::world::World;
use crate::world::several::Second;

/// What was started anew comes up after so long.
const SUPERVISOR: u64 = 400;

impl World {
    /// Starts what was asked for or is due again.
    pub(super) fn supervise(&mut self) -> Result<(), Failure> {
        let now = self.time.now();
        let ended: Vec<String> =
            self.processes.iter().filter(|(_, process)| process.has_ended()).map(|(name, _)| name.clone()).collect();
        for name in ended {
            self.kill(&name);
            let refused = self.gone.iter().any(|id| name == format!("coordinator-{id}"));
            if !refused && !name.starts_with("guard") {
                self.due.insert(name, now + SUPERVISOR);
            }
        }
        for (cluster, door) in &self.doors {
            let name = format!("guard-{cluster}");
            if door.take_wanted() && !self.processes.contains_key(&name) && !self.kept_down.contains_key(&name) {
                self.due.entry(name).or_insert(now);
            }
        }
        let due: Vec<String> = self.due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.due.remove(&name);
            if !self.kept_down.contains_key(&name) && !self.processes.contains_key(&name) {
                self.start(&name)?;
            }
        }
        Ok(())
    }

    pub(super) fn start(&mut self, name: &str) -> Result<(), Failure> {
        let (machine, program) = self.program(name);
        let left = self.left.is_some_and(|id| name == format!("coordinator-{id}"));
        let waits = self.group_lost && name.starts_with("coordinator");
        if !self.machines[machine].on || left || waits {
            return Ok(());
        }
        self.trace.say(format_args!("{name} starts"));
        let started = Process::start(machine, &self.machines[machine].clocks, program);
        let process = started.map_err(|error| self.failure("simulation", &error.to_string()))?;
        self.processes.insert(name.to_owned(), process);
        Ok(())
    }

    pub(super) fn program(&self, name: &str) -> (MachineId, Program) {
        let place = |name: &str| self.directory.join(name);
        if let Some(id) = name.strip_prefix("coordinator-").and_then(|id| id.parse::<u64>().ok()) {
            let machine = usize::try_from(id).unwrap_or(1) - 1;
            let plan = CoordinatorPlan {
                id,
                machine,
                region: format!("region-{id}"),
                // Only the spare one knows of itself; the others learn of it from the membership.
                all: (1..=self.members().max(id)).collect(),
                data: place(name),
                network: self.network.clone(),
                seats: self.seats.clone(),
                trace: self.trace.clone(),
            };
            return (machine, program::coordinator(plan));
        }
        let (kind, cluster) = name.split_once('-').unwrap_or(("agent", "a"));
        let machine = self.machine_of(cluster);
        let plan = ClusterPlan {
            cluster: cluster.to_owned(),
            machine,
            region: format!("region-{}", machine + 1 - (self.machines.len() - self.clusters.len())),
            coordinators: (1..=self.coordinators).collect(),
            data: place(&format!("agent-{cluster}")),
            runtime: place(&format!("run-{cluster}")),
            network: self.network.clone(),
            databases: self.databases.clone(),
            second: self.second.as_ref().map(Second::databases),
            trace: self.trace.clone(),
            door: self.doors.get(cluster).cloned().unwrap_or_default(),
        };
        let program = if kind == "guard" { program::guard(plan) } else { program::agent(plan) };
        (machine, program)
    }

    pub(super) fn machine_of(&self, cluster: &str) -> MachineId {
        let coordinators = self.machines.len() - self.clusters.len();
        coordinators + self.clusters.iter().position(|name| name == cluster).unwrap_or_default()
    }

    pub(super) fn kill(&mut self, name: &str) {
        if let Some(process) = self.processes.remove(name) {
            self.trace.say(format_args!("{name} is gone"));
            self.network.bury(|| drop(process));
        }
        self.due.remove(name);
        if let Some(id) = name.strip_prefix("coordinator-").and_then(|id| id.parse::<u64>().ok()) {
            self.seats.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            self.seen.remove(&id);
            self.invariants.iter_mut().for_each(|invariant| invariant.forget(id));
            if let Some(second) = &mut self.second {
                second.forget(id);
            }
        }
    }

    pub(super) fn keep_down(&mut self, name: &str) {
        self.kill(name);
        *self.kept_down.entry(name.to_owned()).or_default() += 1;
    }

    pub(super) fn let_up(&mut self, name: &str) {
        let Some(count) = self.kept_down.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            self.kept_down.remove(name);
            // A guard is started by its agent, who will ask for it.
            if !name.starts_with("guard") {
                self.due.insert(name.to_owned(), self.time.now());
            }
        }
    }

    pub(super) fn power_off(&mut self, machine: MachineId) {
        if !self.machines[machine].on {
            return;
        }
        self.trace.say(format_args!("{} loses power", self.machines[machine].name));
        self.machines[machine].on = false;
        self.network.power(machine, false);
        let names: Vec<String> = self
            .processes
            .iter()
            .filter(|(_, process)| process.machine == machine)
            .map(|(name, _)| name.clone())
            .collect();
        names.iter().for_each(|name| self.kill(name));
        if let Some(cluster) = self.cluster_of(machine) {
            self.all_databases().for_each(|databases| databases.crash(&cluster, u64::MAX / 2));
            let _ = std::fs::remove_dir_all(self.directory.join(format!("run-{cluster}")));
        }
    }

    pub(super) fn power_on(&mut self, machine: MachineId) {
        if self.machines[machine].on {
            return;
        }
        self.trace.say(format_args!("{} boots", self.machines[machine].name));
        self.machines[machine].on = true;
        self.machines[machine].clocks.reboot();
        self.network.power(machine, true);
        let now = self.time.now();
        if let Some(cluster) = self.cluster_of(machine) {
            self.all_databases().for_each(|databases| databases.crash(&cluster, 200));
            self.due.insert(format!("agent-{cluster}"), now + 100);
        } else if !self.is_idle(machine) {
            self.due.insert(self.machines[machine].name.clone(), now + 100);
        }
    }

    /// A spare coordinator that nobody has started yet, or wants to.
    fn is_idle(&self, machine: MachineId) -> bool {
        let name = &self.machines[machine].name;
        self.spare
            && self.replacing.is_none()
            && *name == format!("coordinator-{}", self.coordinators)
            && !self.directory.join(name).is_dir()
    }

    pub(super) fn cluster_of(&self, machine: MachineId) -> Option<String> {
        let coordinators = self.machines.len() - self.clusters.len();
        machine.checked_sub(coordinators).and_then(|index| self.clusters.get(index).cloned())
    }
}
