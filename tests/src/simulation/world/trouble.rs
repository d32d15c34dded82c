//! What goes wrong begins, ends, and is healed.

use std::sync::PoisonError;

use regent_core::id::CoordinatorId;

use crate::simulation::fault::{Fault, Planned};
use crate::simulation::network::MachineId;
use crate::simulation::world::World;

impl World {
    pub(super) fn begin(&mut self, fault: &Fault) {
        match fault {
            Fault::Partition { machines, outward, inward } => self.partition(machines, *outward, *inward, true),
            Fault::Flapping { machines, .. } => self.partition(machines, true, true, true),
            Fault::Severed { machine } => self.sever(*machine, true),
            Fault::Link { from, to } => self.network.cut(*from, *to),
            Fault::Slow { machine, by } => {
                for other in 0..self.machines.len() {
                    self.network.slow(*machine, other, *by);
                    self.network.slow(other, *machine, *by);
                }
            }
            Fault::Kill { process } => self.keep_down(process),
            Fault::Stop { process } => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.stop();
                }
            }
            Fault::PowerOff { machines } => machines.iter().for_each(|machine| self.power_off(*machine)),
            Fault::Crash { cluster } => self.databases.crash(cluster, u64::MAX / 2),
            Fault::Sluggish { cluster, by } => self.databases.make_sluggish(cluster, *by),
            Fault::WallClock { machine, by } => self.machines[*machine].clocks.step_wall(*by),
            Fault::Transfer { to } => self.transfer(*to),
            Fault::DiskLoss { coordinator } => {
                self.power_off(usize::try_from(*coordinator).unwrap_or(1) - 1);
                let _ = std::fs::remove_dir_all(self.directory.join(format!("coordinator-{coordinator}")));
                self.gone.push(*coordinator);
            }
        }
    }

    pub(super) fn end(&mut self, fault: &Fault) {
        match fault {
            Fault::Partition { machines, .. } | Fault::Flapping { machines, .. } => {
                self.partition(machines, true, true, false);
            }
            Fault::Severed { machine } => self.sever(*machine, false),
            Fault::Link { from, to } => self.network.heal(*from, *to),
            Fault::Slow { machine, .. } => {
                for other in 0..self.machines.len() {
                    self.network.slow(*machine, other, 0);
                    self.network.slow(other, *machine, 0);
                }
            }
            Fault::Kill { process } => self.let_up(process),
            Fault::Stop { process } => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.go_on();
                }
            }
            Fault::PowerOff { machines } => machines.iter().for_each(|machine| self.power_on(*machine)),
            Fault::Crash { cluster } => self.databases.crash(cluster, 0),
            Fault::Sluggish { cluster, .. } => self.databases.make_sluggish(cluster, 0),
            Fault::WallClock { .. } | Fault::Transfer { .. } => {}
            Fault::DiskLoss { coordinator } => self.power_on(usize::try_from(*coordinator).unwrap_or(1) - 1),
        }
    }

    pub(super) fn partition(&self, machines: &[MachineId], outward: bool, inward: bool, cut: bool) {
        for inside in machines {
            for outside in (0..self.machines.len()).filter(|other| !machines.contains(other)) {
                if outward {
                    self.link(*inside, outside, cut);
                }
                if inward {
                    self.link(outside, *inside, cut);
                }
            }
        }
    }

    pub(super) fn sever(&self, machine: MachineId, cut: bool) {
        for coordinator in 0..self.machines.len() - self.clusters.len() {
            self.link(machine, coordinator, cut);
            self.link(coordinator, machine, cut);
        }
    }

    pub(super) fn link(&self, from: MachineId, to: MachineId, cut: bool) {
        if cut {
            self.network.cut(from, to);
        } else {
            self.network.heal(from, to);
        }
    }

    pub(super) fn transfer(&self, to: u64) {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, seat) in seats.iter() {
            let leads = seat.node.replica.leadership().borrow().is_leader();
            if let Some(process) = self.processes.get(&format!("coordinator-{id}")).filter(|_| leads) {
                let membership = seat.membership.clone();
                process.beside(async move {
                    let _ = membership.transfer_leader(CoordinatorId(to)).await;
                });
            }
        }
    }

    pub(super) fn heal(&mut self, planned: &[Planned]) {
        self.trace.say("healed");
        self.network.heal_all();
        let names: Vec<String> = self.kept_down.keys().cloned().collect();
        for name in names {
            self.kept_down.remove(&name);
            self.due.insert(name, self.time.now());
        }
        for process in self.processes.values_mut() {
            process.go_on();
        }
        let lost_for_good: Vec<MachineId> = planned
            .iter()
            .filter(|one| one.until == u64::MAX)
            .flat_map(|one| match &one.fault {
                Fault::PowerOff { machines } => machines.clone(),
                _ => Vec::new(),
            })
            .collect();
        // A region that is lost for good stays so in half of the runs.
        let stays = self.seed.is_multiple_of(2);
        self.maimed = stays && !lost_for_good.is_empty();
        for machine in 0..self.machines.len() {
            let left = stays && lost_for_good.contains(&machine);
            if !self.machines[machine].on && !left {
                self.power_on(machine);
            }
        }
        for cluster in &self.clusters {
            self.databases.make_sluggish(cluster, 0);
            if !self.databases.see(cluster, |server| server.running) && self.machines[self.machine_of(cluster)].on {
                self.databases.crash(cluster, 0);
            }
        }
    }
}
