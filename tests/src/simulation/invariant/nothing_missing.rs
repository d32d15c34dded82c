//! S1 by its consequence: no acknowledged row is missing in the end beyond what the reports of the runs say; and no row
//! was acknowledged by one cluster after another one had taken over from it.

use regent_core::entry::Gap;
use regent_core::state::State;

use super::{Invariant, Sight};
use crate::simulation::client::Acknowledged;
use crate::simulation::database::Databases;
use crate::simulation::program::{application, resource};

const ORIGIN: u64 = 1_000;
const ROW: u64 = 100;

#[derive(Default)]
pub(super) struct NothingMissing {
    acknowledged: Vec<Acknowledged>,
}

impl Invariant for NothingMissing {
    fn promise(&self) -> &'static str {
        "S1, no acknowledged row missing beyond the report"
    }

    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        for acknowledged in sight.acknowledged {
            if let Some(before) = self.acknowledged.last()
                && before.cluster != acknowledged.cluster
                && self.acknowledged.iter().any(|earlier| earlier.cluster == acknowledged.cluster)
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
            self.acknowledged.push(acknowledged.clone());
        }
        Ok(())
    }

    fn conclude(&mut self, state: &State, databases: &Databases) -> Result<(), String> {
        let Some(known) = state.applications.get(&application()) else { return Ok(()) };
        let Some(primary) = &known.primary else { return Ok(()) };
        let rows: std::collections::BTreeSet<u64> =
            databases.see(primary.as_str(), |server| server.rows.iter().map(|row| row.number).collect());
        let missing: Vec<&Acknowledged> =
            self.acknowledged.iter().filter(|one| !rows.contains(&one.row.number)).collect();
        let decided: Vec<_> = state.runs.values().filter(|run| run.decided.is_some()).collect();
        if let Some(lost) = missing.first().filter(|_| decided.is_empty()) {
            return Err(format!("row {} of {} is missing and nothing was decided", lost.row.number, lost.cluster));
        }
        if let Some(lost) = missing.iter().find(|lost| lost.cluster == primary.as_str()) {
            return Err(format!(
                "row {} was acknowledged by the primary {} and is not there",
                lost.row.number, primary
            ));
        }
        for run in decided {
            let Some(Gap { primary: Some(reported), candidate: Some(candidate), .. }) =
                run.finding.gaps.get(&resource(super::super::program::DATABASE))
            else {
                continue;
            };
            // Of what the primary had reported, no more is missing than the report says.
            let old: Vec<u64> =
                databases.see(run.from.as_str(), |server| server.rows.iter().map(|row| row.number).collect());
            let counted = old
                .iter()
                .enumerate()
                .filter(|(index, number)| {
                    let position = ORIGIN + ROW * (*index as u64 + 1);
                    position <= *reported && !rows.contains(number)
                })
                .count() as u64;
            let said = reported.saturating_sub(*candidate);
            if counted * ROW > said && known.primary.as_ref() == Some(&run.to) {
                return Err(format!(
                    "run {} says that {said} bytes may be lost, and {} of what was reported are missing",
                    run.id,
                    counted * ROW
                ));
            }
        }
        Ok(())
    }
}
