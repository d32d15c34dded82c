//! What agents found out by trying has its note, at its place, and what is old has none.

use regent_core::evidence::Evidence;
use regent_core::facts::{Facts, Findings};
use regent_core::id::ClusterId;
use regent_core::readiness;
use regent_core::time::{Moment, Span};

use crate::fixture::*;

const NOW: Moment = Moment(1_000_000);

/// Puts what an agent found into the evidence.
fn find(evidence: &mut Evidence, at: &ClusterId, name: &str, findings: Findings) {
    let facts = Facts {
        at: NOW,
        interval: Span::from_secs(60),
        postgres: None,
        redis: None,
        backup: None,
        reaches: [].into(),
        findings,
    };
    let of_cluster = &mut evidence.contacts.get_mut(at).unwrap().facts;
    of_cluster.entry(app()).or_default().insert(resource(name), facts);
}

/// The notes at one resource, as "severity code: detail".
fn notes(world: &World, evidence: &Evidence, at: &ClusterId, name: &str, now: Moment) -> Vec<String> {
    let notes = readiness::notes(&world.state, evidence, view(now, world), &app()).unwrap();
    let here = |place: &readiness::Place| place.cluster.as_ref() == Some(at) && place.resource == Some(resource(name));
    let here = notes.iter().filter(|(place, note)| here(place) && note.code != "facts-missing");
    here.map(|(_, note)| format!("{} {}: {}", note.severity.as_str(), note.code, note.detail)).collect()
}

#[test]
fn what_is_lacking_is_told_of_every_kind_of_resource_while_it_is_fresh() {
    let world = World::protected();
    let mut evidence = evidence(NOW, NOW);
    let lacks = || Findings { lacks: vec!["one".into(), "two".into()] };
    for name in ["db", "core", "www"] {
        find(&mut evidence, &central(), name, lacks());
        let told = notes(&world, &evidence, &central(), name, NOW);
        assert_eq!(told, ["warning permission-missing: one", "warning permission-missing: two"]);
        assert_eq!(notes(&world, &evidence, &west(), name, NOW), Vec::<String>::new());
        let later = Moment(NOW.0 + 180_001);
        assert_eq!(notes(&world, &evidence, &central(), name, later), Vec::<String>::new());
    }
    find(&mut evidence, &central(), "elsewhere", lacks());
    assert_eq!(notes(&world, &evidence, &central(), "elsewhere", NOW), Vec::<String>::new(), "not in the document");
}
