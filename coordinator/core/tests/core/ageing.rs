//! Each note says how old the word is that it rests on.

use regent_core::evidence::{Evidence, Health};
use regent_core::facts::NodeFacts;
use regent_core::readiness::{self, Place};
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::readying::{NOW, facts, well};

/// How old what speaks for a note is, in seconds; none if it rests on no agent's word.
fn ages(world: &World, evidence: &Evidence) -> Vec<(String, Option<u64>)> {
    let view = view(NOW, world);
    let notes = readiness::notes(&world.state, evidence, view, &app()).unwrap();
    let age = |place: &Place, code: &str| readiness::age(&world.state, evidence, view, &app(), place, code);
    notes
        .iter()
        .map(|(place, note)| (note.code.clone(), age(place, &note.code).map(|age| age.millis() / 1000)))
        .collect()
}

fn ago(seconds: u64) -> Moment {
    NOW.before(Span::from_secs(seconds))
}

#[test]
fn a_note_is_as_old_as_the_look_the_probe_or_the_word_that_it_rests_on() {
    let (world, mut evidence) = well();
    facts(&mut evidence, &central(), "db").postgres.as_mut().unwrap().hot_standby = false;
    facts(&mut evidence, &central(), "db").at = ago(40);
    let service = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let www = service.get_mut(&resource("www")).unwrap();
    (www.health, www.at) = (Health::Failed, ago(2));
    www.interval = Span::from_secs(5);
    let node = NodeFacts { at: ago(30), ahead_ms: 9_000, certificate_until: None };
    evidence.contacts.get_mut(&central()).unwrap().node = Some(node);
    let wanted = [("clocks-apart", Some(30_u64)), ("hot-standby-off", Some(40)), ("probe-failed", Some(2))];
    assert_eq!(ages(&world, &evidence), wanted.map(|(code, age)| (code.to_owned(), age)));
}

#[test]
fn what_differs_is_as_old_as_the_older_side() {
    let (world, mut evidence) = well();
    facts(&mut evidence, &central(), "db").postgres.as_mut().unwrap().version = 150_007;
    for (here, there) in [(50, 20), (20, 50)] {
        facts(&mut evidence, &central(), "db").at = ago(here);
        facts(&mut evidence, &west(), "db").at = ago(there);
        assert_eq!(ages(&world, &evidence), [("versions-differ".to_owned(), Some(50_u64))]);
    }
}

#[test]
fn what_the_group_has_agreed_on_has_no_age() {
    let (mut world, evidence) = well();
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.document.runbooks.remove("switchover");
    known.rehearsed.drills.clear();
    let mut told = ages(&world, &evidence);
    told.sort();
    let wanted = ["drill-old", "no-switchover-runbook"].map(|code| (code.to_owned(), None::<u64>));
    assert_eq!(told, wanted);
}
