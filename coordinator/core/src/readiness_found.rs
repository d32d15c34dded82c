//! Notes on what agents found out by trying: whether a step would be allowed, what DNS servers say, whether a standby has room
//! for its services, who else manages a database. Of every kind of resource, not of databases alone.

mod dns;
mod managed;

use crate::application::Resource;
use crate::evidence::Evidence;
use crate::facts::Facts;
use crate::id::ApplicationId;
use crate::preflight::{Note, Severity};
use crate::readiness::Place;
use crate::state::ApplicationState;
use crate::time::Moment;

pub(crate) use self::managed::{MANAGED_ELSEWHERE, refusals as refusals_of_managers};

/// A right or a program is lacking that a step would need.
pub(crate) const PERMISSION_MISSING: &str = "permission-missing";

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
        let primary = known.primary.as_ref() == Some(cluster);
        for (resource, declared) in &known.document.resources {
            let Some(facts) = found.get(resource).filter(|facts| facts.is_fresh(now)) else { continue };
            let here = Place { cluster: Some(cluster.clone()), resource: Some(resource.clone()) };
            notes.extend(of_place(facts, declared, primary).into_iter().map(|note| (here.clone(), note)));
        }
    }
    notes
}

fn of_place(facts: &Facts, declared: &Resource, primary: bool) -> Vec<Note> {
    let lacks = facts.findings.lacks.iter();
    let mut notes: Vec<Note> = lacks.map(|lack| note(Severity::Warning, "permission-missing", lack.clone())).collect();
    let unknown = Some(&facts.findings.rights_unknown).filter(|why| !why.is_empty());
    notes.extend(unknown.map(|why| note(Severity::Info, "permission-unknown", why)));
    notes.extend(managed::of_place(facts));
    // Where it serves, whatever it needs is there.
    let short = facts.findings.short.iter().filter(|_| !primary);
    notes.extend(short.map(|short| note(Severity::Warning, "capacity-short", short.clone())));
    let unknown = Some(&facts.findings.capacity_unknown).filter(|why| !primary && !why.is_empty());
    notes.extend(unknown.map(|why| note(Severity::Info, "capacity-unknown", why)));
    if let (Some(found), Some(name)) = (&facts.findings.dns, &declared.dns) {
        notes.extend(dns::of_name(found, name));
    }
    notes
}

fn note(severity: Severity, code: &str, detail: impl Into<String>) -> Note {
    Note { severity, code: code.to_owned(), detail: detail.into() }
}
