//! Notes on what agents found out by trying: whether a step would be allowed. Of every kind of resource, not of databases
//! alone.

use crate::evidence::Evidence;
use crate::facts::Facts;
use crate::id::ApplicationId;
use crate::preflight::{Note, Severity};
use crate::readiness::Place;
use crate::state::ApplicationState;
use crate::time::Moment;

/// Of every resource in every cluster of the application. What is old is unknown, and nothing is said of it.
pub(crate) fn of_all(
    known: &ApplicationState,
    evidence: &Evidence,
    application: &ApplicationId,
    now: Moment,
) -> Vec<(Place, Note)> {
    let mut notes = Vec::new();
    for cluster in &known.document.clusters {
        let Some(found) = evidence.contacts.get(cluster).and_then(|contact| contact.facts.get(application)) else {
            continue;
        };
        for resource in known.document.resources.keys() {
            let Some(facts) = found.get(resource).filter(|facts| facts.is_fresh(now)) else { continue };
            let here = Place { cluster: Some(cluster.clone()), resource: Some(resource.clone()) };
            notes.extend(of_place(facts).into_iter().map(|note| (here.clone(), note)));
        }
    }
    notes
}

fn of_place(facts: &Facts) -> Vec<Note> {
    let lacks = facts.findings.lacks.iter();
    lacks.map(|lack| note(Severity::Warning, "permission-missing", lack.clone())).collect()
}

fn note(severity: Severity, code: &str, detail: String) -> Note {
    Note { severity, code: code.to_owned(), detail }
}
