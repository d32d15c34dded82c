//! A database that another manager looks after, too: Sentinel, Patroni or the like. It promotes without an epoch and a lease,
//! and opens what was fenced, so nobody moves the application on plan while one is seen, wherever it is seen.

use super::note;
use crate::facts::Facts;
use crate::preflight::{Note, Severity};
use crate::readiness::Place;
use crate::verdict::{Scene, rule};
use crate::why::Rule;

/// Another manager looks after the same database.
pub(crate) const MANAGED_ELSEWHERE: &str = "managed-elsewhere";

/// Of one place.
pub(super) fn of_place(facts: &Facts) -> impl Iterator<Item = Note> {
    facts.findings.managed.iter().map(|who| note(Severity::Blocker, MANAGED_ELSEWHERE, sentence(who)))
}

/// The rules that refuse a planned move, wherever it goes: each manager of each database in each cluster. What is old is
/// unknown, and refuses nothing.
pub(crate) fn refusals(scene: &Scene<'_>) -> Vec<Rule> {
    let mut refusals = Vec::new();
    for cluster in &scene.known.document.clusters {
        let contact = scene.evidence.contacts.get(cluster);
        let Some(found) = contact.and_then(|contact| contact.facts.get(scene.application)) else { continue };
        for resource in scene.known.document.guarded() {
            let Some(facts) = found.get(&resource).filter(|facts| facts.is_fresh(scene.now)) else { continue };
            let here = Place { cluster: Some(cluster.clone()), resource: Some(resource) };
            let each = facts.findings.managed.iter();
            refusals.extend(each.map(|who| rule("managed-elsewhere", format!("{here}: {}", sentence(who)))));
        }
    }
    refusals
}

fn sentence(who: &str) -> String {
    format!(
        "{who} looks after it, too, and promotes without an epoch and a lease: two writers; keep it from this database, or \
         this database from Regent"
    )
}
