//! What a step that is stuck, and a human's word on it, leave in the audit.

use std::collections::BTreeMap;

use regent_core::entry::{Clearing, Entry};
use regent_core::id::{Attempt, RunId, StepId};
use regent_core::run::{RunStatus, StepState};
use regent_core::state::AuditRecord;

use crate::fixture::*;
use crate::running::{begin, end, find, lost, perform};

fn last<'a>(world: &'a World, event: &str) -> Option<&'a AuditRecord> {
    world.state.audit.iter().rev().find(|record| record.event == event)
}

#[test]
fn a_name_that_would_have_no_address_is_stuck_and_told_once() {
    let mut world = World::protected();
    let run = lost(&mut world);
    // The agent comes back without an address for the name.
    let mut without = agent(&central(), "ic");
    without.endpoints.get_mut(&app()).unwrap().get_mut(&resource("www")).unwrap().addresses.clear();
    world.done(Entry::AgentRegistered(without));
    perform(&mut world, run, "Promote db@central-1");
    perform(&mut world, run, "Promote cache@central-1");
    let redirect = find(&world, run, "Redirect www@central-1");
    let intent = Entry::StepIntent { run, step: redirect, attempt: Attempt(1) };
    assert_eq!(world.refused(intent.clone()), "dns-would-be-empty");
    assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
    assert_eq!(world.state.runs[&run].step(redirect).unwrap().1.state, StepState::Stuck);
    let record = last(&world, "stuck").expect("an outage that waits for a human is told");
    assert_eq!((record.run, record.application.clone(), record.actor.as_str()), (Some(run), Some(app()), "leader"));
    assert!(record.detail.contains("www") && record.detail.contains("dns-would-be-empty"), "{}", record.detail);
    assert_eq!(world.known().stuck[&central()], BTreeMap::from([(resource("www"), run)]));
    world.ignored(intent);
    assert_eq!(world.state.audit.iter().filter(|record| record.event == "stuck").count(), 1);
}

#[test]
fn what_was_done_by_hand_is_in_the_audit_with_the_word_for_it() {
    let stuck = || {
        let mut world = World::protected();
        let run = lost(&mut world);
        for step in ["Promote db@central-1", "Promote cache@central-1", "Redirect www@central-1"] {
            perform(&mut world, run, step);
        }
        let begun = begin(&mut world, run, "Activate core@central-1");
        end(&mut world, run, begun, failed(false));
        assert_eq!(world.state.runs[&run].status, RunStatus::Stuck);
        (world, run, begun.0)
    };
    let said = |how: Clearing, reason: &str| {
        let (mut world, run, step) = stuck();
        world.done(Entry::Cleared { run, step, how, by: "bob".into(), reason: reason.into() });
        let record = last(&world, "cleared").unwrap();
        assert_eq!((record.run, record.actor.as_str()), (Some(run), "bob"));
        let report = world.state.runs[&run].step(step).unwrap().1.report.as_ref();
        (record.detail.clone(), report.map(|report| report.message.clone()).unwrap_or_default(), step)
    };
    let (detail, message, step) = said(Clearing::Done, "started with systemctl");
    assert_eq!(detail, format!("step {step}: done by hand: started with systemctl"));
    assert_eq!(message, "done by hand, says bob: started with systemctl");
    let (detail, _, step) = said(Clearing::Retry, "there is room again");
    assert_eq!(detail, format!("step {step}: retry: there is room again"));
    let (detail, _, step) = said(Clearing::Retry, "");
    assert_eq!(detail, format!("step {step}: retry"));
}

#[test]
fn an_entry_of_an_older_release_gives_no_reason() {
    let old = r#"{"Cleared":{"run":7,"step":3,"how":"Done","by":"ann"}}"#;
    let entry: Entry = serde_json::from_str(old).unwrap();
    let by = "ann".to_owned();
    assert_eq!(
        entry,
        Entry::Cleared { run: RunId(7), step: StepId(3), how: Clearing::Done, by, reason: String::new() }
    );
}
