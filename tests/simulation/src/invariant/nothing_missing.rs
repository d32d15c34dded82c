//! S1 by its consequence: what was acknowledged stays, but for what a failover loses, which is never anything in a
//! switchover; and no row is acknowledged by one cluster after another one has taken over from it.

use std::collections::BTreeMap;

use regent_core::entry::Ground;
use regent_core::id::{ApplicationId, Epoch, RunId};
use regent_core::state::State;

use super::{Invariant, Sight};
use crate::client::Acknowledged;
use crate::database::{Databases, Effect};
use crate::program::resource;

const ORIGIN: u64 = 1_000;
const ROW: u64 = 100;

/// What is to be known of a decided run.
struct Move {
    from: String,
    to: String,
    switched: bool,
    /// Positions that the report names: of the old primary and of the candidate.
    gap: Option<(u64, u64)>,
}

pub(super) struct NothingMissing {
    application: ApplicationId,
    /// Acknowledged, and not lost by a failover. By their numbers, which rise.
    kept: BTreeMap<u64, Acknowledged>,
    last: Option<Acknowledged>,
    clusters: Vec<String>,
    moves: BTreeMap<(Epoch, RunId), Move>,
}

impl Invariant for NothingMissing {
    fn promise(&self) -> &'static str {
        "S1, no acknowledged row missing beyond the report"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        sight.changed.values().for_each(|state| self.note_moves(state));
        for (at, cluster, effect) in sight.effects {
            if *effect == (Effect::Promoted { standby: true }) {
                self.taken_over(*at, cluster, sight.databases)?;
            }
        }
        for acknowledged in sight.acknowledged {
            self.in_order(acknowledged)?;
            self.kept.insert(acknowledged.row.number, acknowledged.clone());
        }
        Ok(())
    }

    fn conclude(&mut self, state: &State, databases: &Databases) -> Result<(), String> {
        let known = state.applications.get(&self.application);
        let Some(primary) = known.and_then(|known| known.primary.clone()) else { return Ok(()) };
        match self.missing(primary.as_str(), databases).first() {
            None => Ok(()),
            Some(lost) => Err(format!(
                "row {} that {} acknowledged at {} is not in {primary}, and no failover lost it",
                lost.row.number, lost.cluster, lost.row.at
            )),
        }
    }
}

impl NothingMissing {
    pub(super) fn of(application: &ApplicationId) -> Self {
        let (kept, moves) = (BTreeMap::new(), BTreeMap::new());
        Self { application: application.clone(), kept, last: None, clusters: Vec::new(), moves }
    }

    fn note_moves(&mut self, state: &State) {
        for run in state.runs.values() {
            let Some(decided) = &run.decided else { continue };
            let gap = run.finding.gaps.get(&resource(super::super::program::DATABASE));
            self.moves.entry((decided.epoch, run.id)).or_insert_with(|| Move {
                from: run.from.to_string(),
                to: run.to.to_string(),
                switched: matches!(decided.ground, Ground::Switched { .. }),
                gap: gap.and_then(|gap| Some((gap.primary?, gap.candidate?))),
            });
        }
    }

    /// Of what was kept, what this cluster does not have.
    fn missing(&self, cluster: &str, databases: &Databases) -> Vec<Acknowledged> {
        databases.see(cluster, |server| {
            let has = |number: u64| server.rows.binary_search_by_key(&number, |row| row.number).is_ok();
            self.kept.values().filter(|one| !has(one.row.number)).cloned().collect()
        })
    }

    /// A standby has opened: what it does not have is lost from here on.
    fn taken_over(&mut self, at: u64, cluster: &str, databases: &Databases) -> Result<(), String> {
        let lost = self.missing(cluster, databases);
        // Without a decision something else is broken, which is said elsewhere.
        let Some(run) = self.moves.values().rev().find(|run| run.to == cluster) else { return Ok(()) };
        if let Some(one) = lost.first().filter(|_| run.switched) {
            let (row, by) = (one.row.number, &one.cluster);
            return Err(format!("the switchover to {cluster} at {at} lost row {row}, acknowledged by {by}"));
        }
        if let Some((reported, candidate)) = run.gap {
            // Of what the primary had reported, no more is missing than the report says.
            let position = |number: u64| {
                databases.see(&run.from, |server| {
                    let index = server.rows.binary_search_by_key(&number, |row| row.number).ok()?;
                    Some(ORIGIN + ROW * (index as u64 + 1))
                })
            };
            let counted = lost.iter().filter_map(|one| position(one.row.number)).filter(|at| *at <= reported).count();
            let said = reported.saturating_sub(candidate);
            if counted as u64 * ROW > said {
                let missing = counted as u64 * ROW;
                return Err(format!(
                    "the failover to {cluster} says that {said} bytes may be lost; of what was reported {missing} are"
                ));
            }
        }
        for one in lost {
            self.kept.remove(&one.row.number);
        }
        Ok(())
    }

    fn in_order(&mut self, acknowledged: &Acknowledged) -> Result<(), String> {
        let again = self.clusters.contains(&acknowledged.cluster);
        if let Some(before) = self.last.replace(acknowledged.clone())
            && before.cluster != acknowledged.cluster
            && again
            && acknowledged.row.timeline <= before.row.timeline
        {
            return Err(format!(
                "{} acknowledged row {} on timeline {} after {} had acknowledged on timeline {}",
                acknowledged.cluster,
                acknowledged.row.number,
                acknowledged.row.timeline,
                before.cluster,
                before.row.timeline
            ));
        }
        if !again {
            self.clusters.push(acknowledged.cluster.clone());
        }
        Ok(())
    }
}
