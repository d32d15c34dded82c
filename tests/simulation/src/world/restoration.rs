//! The group is lost for good, and made anew from a backup that knows less than the agents, as deploy/GROUP.md says.

use std::path::PathBuf;

use regent_coordinator::{backup, raft};
use regent_core::id::CoordinatorId;
use regent_core::state::State;

use crate::dice::Dice;
use crate::fault::{Fault, Ground, Manner, Planned};
use crate::program;
use crate::world::World;

/// In so many of a hundred runs in which everything may go wrong.
const OFTEN: u64 = 8;

/// Adds it to what else goes wrong. It is drawn from a stream of its own: all other runs stay what they were without it.
pub(super) fn add(seed: u64, manner: Manner, ground: &Ground<'_>, planned: &mut Vec<Planned>) {
    let mut dice = Dice::of(seed, "restoration");
    if manner != Manner::Any || ground.spare || !dice.percent(OFTEN) {
        return;
    }
    // All disks are lost once. One more would be one too many while the others still learn from the first.
    planned.retain(|one| !matches!(one.fault, Fault::DiskLoss { .. } | Fault::OldDisk { .. }));
    let made = dice.below(3_000);
    let lost = made + dice.between(2_000, 9_000);
    let back = lost + dice.between(200, 8_000);
    planned.push(Planned { from: made, until: made, fault: Fault::Backup });
    planned.push(Planned { from: lost, until: back, fault: Fault::Restored });
    // An epoch that the agents know, and the backup does not.
    if dice.percent(70) {
        let from = made + dice.between(200, 1_500);
        planned.push(Planned { from, until: from, fault: Fault::Switchover { to: ground.clusters[1].clone() } });
    }
    planned.sort_by_key(|planned| planned.from);
}

impl World {
    fn backup_file(&self) -> PathBuf {
        self.directory.join("regent.backup")
    }

    /// `regentctl backup`, answered by whoever is furthest on.
    pub(super) fn back_up(&self) {
        let Some(state) = self.newest(State::clone) else { return self.trace.say("nobody answers: no backup is made") };
        let made = backup::write(&state, CoordinatorId(1), self.machines[0].clocks.wall_now());
        let written = made
            .map_err(|error| error.to_string())
            .and_then(|bytes| std::fs::write(self.backup_file(), bytes).map_err(|error| error.kind().to_string()));
        match written {
            Ok(()) => self.trace.say(format_args!("a backup is made at {}", state.applied)),
            Err(why) => self.trace.say(format_args!("no backup is made: {why}")),
        }
    }

    /// Every coordinator with its data directory. Without a backup that would be the end, which nobody promises
    /// anything about.
    pub(super) fn lose_group(&mut self) {
        if !self.backup_file().is_file() {
            return self.trace.say("there is no backup: the group is left alone");
        }
        self.group_lost = true;
        for id in 1..=self.coordinators {
            let name = format!("coordinator-{id}");
            self.kill(&name);
            let _ = std::fs::remove_dir_all(self.directory.join(name));
        }
    }

    /// `regent-coordinator --restore` on the one with the lowest id; then all are started, the others with empty
    /// directories.
    pub(super) fn restore_group(&mut self) {
        if !std::mem::take(&mut self.group_lost) {
            return;
        }
        let peers = (1..=self.coordinators).map(|id| (CoordinatorId(id), program::coordinator_address(id))).collect();
        let (data, at) = (self.directory.join("coordinator-1"), self.machines[0].clocks.wall_now());
        let read = backup::read(&self.backup_file()).map_err(|error| error.to_string());
        let made = read.and_then(|state| {
            raft::restore(&data, CoordinatorId(1), &peers, &state, at).map_err(|error| error.to_string())
        });
        match made {
            Ok(state) => {
                let (index, restoration) = (state.applied, state.restoration);
                self.trace.say(format_args!("the group is restored at {index}, restoration {restoration}"));
            }
            // Where its disk is, is drawn anew in every run. Without the group nothing heals, which is told then.
            Err(why) => {
                let place = self.directory.display().to_string();
                self.trace.say(format_args!("the group cannot be restored: {}", why.replace(&place, "")));
            }
        }
        let now = self.time.now();
        for id in 1..=self.coordinators {
            self.due.insert(format!("coordinator-{id}"), now + 100);
        }
    }
}
