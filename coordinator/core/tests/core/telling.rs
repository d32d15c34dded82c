//! What a step that is stuck, and a human's word on it, leave in the audit.

use std::collections::BTreeMap;

use regent_core::entry::Entry;
use regent_core::id::Attempt;
use regent_core::run::{RunStatus, StepState};
use regent_core::state::AuditRecord;

use crate::fixture::*;
use crate::running::{find, lost, perform};

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
