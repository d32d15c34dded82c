//! Clients, and the oracle of all acknowledged writes.
//!
//! In every region one client writes wherever the name points, and for every cluster a stubborn one writes to the
//! database beside it, whatever the name says.

use regent_core::id::ApplicationId;

use crate::database::{Databases, Row};
use crate::network::{MachineId, Network};
use crate::program::{NAME, Seats};

/// Between two writes of one client.
const PAUSE: u64 = 50;
/// For so long a client believes an answer.
const TTL: u64 = 1_000;

/// An acknowledged write.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// By which cluster's database.
    pub cluster: String,
    /// The row.
    pub row: Row,
    /// By the name, not beside the database.
    pub by_name: bool,
}

/// One client.
pub(super) struct Client {
    pub(super) machine: MachineId,
    /// Beside this cluster's database; none: by the name.
    pub(super) beside: Option<String>,
    next: u64,
    answer: Option<(u64, String)>,
}

impl Client {
    pub(super) fn new(machine: MachineId, beside: Option<String>) -> Self {
        Self { machine, beside, next: 0, answer: None }
    }

    /// Writes, if it is time.
    pub(super) fn turn(
        &mut self,
        now: u64,
        databases: &Databases,
        seats: &Seats,
        network: &Network,
        machine_of: impl Fn(&str) -> MachineId,
    ) -> Option<Acknowledged> {
        if now < self.next {
            return None;
        }
        self.next = now + PAUSE;
        let cluster = match &self.beside {
            Some(cluster) => cluster.clone(),
            None => self.resolve(now, seats, network)?,
        };
        let there = machine_of(&cluster);
        if there != self.machine && !(network.reaches(self.machine, there) && network.reaches(there, self.machine)) {
            return None;
        }
        let row = databases.write(&cluster)?;
        Some(Acknowledged { cluster, row, by_name: self.beside.is_none() })
    }

    /// Asks the coordinators' DNS, the nearest first. Their machines have the numbers before the clusters'.
    fn resolve(&mut self, now: u64, seats: &Seats, network: &Network) -> Option<String> {
        if let Some((_, cluster)) = self.answer.as_ref().filter(|(at, _)| now - at < TTL) {
            return Some(cluster.clone());
        }
        let seats = seats.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut ids: Vec<u64> = seats.keys().copied().collect();
        ids.sort_by_key(|id| usize::try_from(*id).unwrap_or(0) != self.machine + 1);
        for id in ids {
            let at = usize::try_from(id).unwrap_or(1) - 1;
            if at != self.machine && !(network.reaches(self.machine, at) && network.reaches(at, self.machine)) {
                continue;
            }
            let answer = seats[&id].node.replica.read(|state| {
                let known = state.applications.get(&ApplicationId::new(super::program::APPLICATION).ok()?)?;
                let answer = known.answers.iter().find(|(name, _)| name.as_str() == NAME)?.1;
                Some(answer.cluster.to_string())
            });
            if let Some(cluster) = answer {
                self.answer = Some((now, cluster.clone()));
                return Some(cluster);
            }
        }
        None
    }
}
