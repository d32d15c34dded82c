//! What goes wrong begins, ends, and is healed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use regent_core::id::CoordinatorId;

use crate::fault::{Fault, Kind, Planned};
use crate::network::MachineId;
use crate::world::World;

impl World {
    pub(super) fn begin(&mut self, fault: &Fault) {
        let takes_hold = match fault {
            Fault::Stop { process } => self.processes.contains_key(process),
            Fault::Link { from, to } => from != to,
            // Counted when the copy is put back.
            Fault::OldDisk { .. } => false,
            _ => true,
        };
        if takes_hold {
            *self.began.entry(fault.kind()).or_default() += 1;
        }
        match fault {
            Fault::Partition { machines, outward, inward } => self.partition(machines, *outward, *inward, true),
            Fault::Flapping { machines, .. } => self.partition(machines, true, true, true),
            Fault::Severed { machine } => self.sever(*machine, true),
            Fault::Link { from, to } => self.network.cut(*from, *to),
            Fault::Slow { machine, by } => {
                self.slow_answers(*machine, *by);
                for other in 0..self.machines.len() {
                    self.network.slow(*machine, other, *by);
                }
            }
            Fault::SlowAnswers { machine, by } => self.slow_answers(*machine, *by),
            Fault::Kill { process } => self.keep_down(process),
            Fault::Stop { process } => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.stop();
                }
            }
            Fault::PowerOff { machines } => machines.iter().for_each(|machine| self.power_off(*machine)),
            Fault::Crash { cluster } => self.databases.crash(cluster, u64::MAX / 2),
            Fault::PromotedByHand { cluster } => self.databases.open_by_hand(cluster),
            Fault::Sluggish { cluster, by } => self.databases.make_sluggish(cluster, *by),
            Fault::SlowOpening { cluster, by } => self.databases.open_slowly(cluster, *by),
            Fault::WallClock { machine, by } => self.machines[*machine].clocks.step_wall(*by),
            Fault::Transfer { to } => self.transfer(*to),
            Fault::DiskLoss { coordinator } => {
                self.power_off(usize::try_from(*coordinator).unwrap_or(1) - 1);
                let _ = std::fs::remove_dir_all(self.directory.join(format!("coordinator-{coordinator}")));
                self.gone.push(*coordinator);
            }
            Fault::OldDisk { coordinator } => {
                let (disk, copy) = self.disk_and_copy(*coordinator);
                if let Err(error) = copy_disk(&disk, &copy) {
                    self.trace.say(format_args!("the disk cannot be copied: {error}"));
                }
            }
            Fault::Backup => self.back_up(),
            Fault::Restored => self.lose_group(),
            Fault::Paused => self.pause(),
            Fault::Switchover { to } => self.switch_over(to),
            Fault::Rejoin { cluster } => self.rejoin(cluster),
            Fault::Replace { leaves } => self.replace(*leaves),
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
                self.slow_answers(*machine, 0);
                for other in 0..self.machines.len() {
                    self.network.slow(*machine, other, 0);
                }
            }
            Fault::SlowAnswers { machine, .. } => self.slow_answers(*machine, 0),
            Fault::Kill { process } => self.let_up(process),
            Fault::Stop { process } => {
                if let Some(process) = self.processes.get_mut(process) {
                    process.go_on();
                }
            }
            Fault::PowerOff { machines } => machines.iter().for_each(|machine| self.power_on(*machine)),
            Fault::Crash { cluster } => self.databases.crash(cluster, 0),
            Fault::Sluggish { cluster, .. } => self.databases.make_sluggish(cluster, 0),
            Fault::SlowOpening { cluster, .. } => self.databases.open_slowly(cluster, 0),
            Fault::PromotedByHand { .. }
            | Fault::WallClock { .. }
            | Fault::Transfer { .. }
            | Fault::Backup
            | Fault::Switchover { .. }
            | Fault::Rejoin { .. }
            | Fault::Replace { .. } => {}
            Fault::DiskLoss { coordinator } => self.power_on(usize::try_from(*coordinator).unwrap_or(1) - 1),
            Fault::OldDisk { coordinator } => self.put_back(*coordinator),
            Fault::Restored => self.restore_group(),
            Fault::Paused => self.resume(),
        }
    }

    fn disk_and_copy(&self, coordinator: u64) -> (PathBuf, PathBuf) {
        let place = |name: &str| self.directory.join(format!("{name}-{coordinator}"));
        (place("coordinator"), place("copy"))
    }

    /// The machine dies, and comes back with what its disk was when it was copied.
    fn put_back(&mut self, coordinator: u64) {
        let machine = usize::try_from(coordinator).unwrap_or(1) - 1;
        let (disk, copy) = self.disk_and_copy(coordinator);
        // Who had no disk then has lost nothing; who has lost it since does not get it back.
        if !copy.is_dir() || self.gone.contains(&coordinator) {
            return;
        }
        self.power_off(machine);
        let put = std::fs::remove_dir_all(&disk).and_then(|()| copy_disk(&copy, &disk));
        self.trace.say(format_args!("coordinator-{coordinator} gets an old disk back: {}", put.is_ok()));
        *self.began.entry(Kind::OldDisk).or_default() += u64::from(put.is_ok());
        self.gone.push(coordinator);
        self.old_disks.push(coordinator);
        self.power_on(machine);
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

    pub(super) fn slow_answers(&self, machine: usize, by: u64) {
        for other in 0..self.machines.len() {
            self.network.slow(other, machine, by);
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
        self.resume();
        self.clears = Some(0);
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
            for databases in self.all_databases() {
                databases.make_sluggish(cluster, 0);
                databases.open_slowly(cluster, 0);
                if !databases.see(cluster, |server| server.running) && self.machines[self.machine_of(cluster)].on {
                    databases.crash(cluster, 0);
                }
            }
        }
    }
}

fn copy_disk(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
