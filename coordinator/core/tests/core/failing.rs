//! A primary whose agent still talks: what counts as failed, and which second kind of evidence it takes.

use regent_core::decide::decide;
use regent_core::entry::{Cause, Entry};
use regent_core::evidence::{Beat, FenceState, Health, LeaseState, Role};
use regent_core::id::Epoch;
use regent_core::time::{Moment, Span};
use regent_core::why::{Verdict, explain};

use crate::deciding::held;
use crate::fixture::*;

#[test]
fn a_failed_database_needs_the_standby_to_agree() {
    let world = World::protected();
    let now = Moment(200_000);
    let failed = |connected: bool| {
        let mut evidence = evidence(now, now);
        let west_db = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
        let seen = west_db.get_mut(&resource("db")).unwrap();
        (seen.health, seen.failures) = (Health::Failed, 3);
        let central_db = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
        central_db.get_mut(&resource("db")).unwrap().upstream.as_mut().unwrap().connected = connected;
        evidence
    };
    assert_eq!(held(&world, &failed(true), now), ["one-kind-of-evidence"]);
    let entries = decide(&world.state, &failed(false), view(now, &world));
    let [Entry::RunStarted { cause: Cause::ResourceFailed { resource: which, .. }, .. }] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    assert_eq!(*which, resource("db"));
}

#[test]
fn a_failed_database_is_measured_by_what_it_said_before_it_failed() {
    let world = World::protected();
    let now = Moment(200_000);
    let failed = |before: Option<u64>| {
        let mut evidence = evidence(now, now);
        let west = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
        let healthy = sighting(Moment(now.0 - 2_000), Role::Primary, before);
        let mut seen = sighting(now, Role::None, None);
        (seen.health, seen.failures) = (Health::Failed, 3);
        seen.last_position = seen.last_position_after(Some(&healthy));
        west.insert(resource("cache"), seen);
        // A standby of an engine that reckons no lag of its own once its link is gone.
        let central = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
        let upstream = central.get_mut(&resource("cache")).unwrap().upstream.as_mut().unwrap();
        (upstream.lag, upstream.lag_bytes) = (None, None);
        evidence
    };
    let entries = decide(&world.state, &failed(Some(50)), view(now, &world));
    let [Entry::RunStarted { finding, .. }] = entries.as_slice() else { panic!("{entries:?}") };
    let gap = &finding.gaps[&resource("cache")];
    assert_eq!((gap.primary, gap.candidate, gap.lag), (Some(50), Some(50), Some(Span::ZERO)));
    assert_eq!(gap.primary_age, Some(Span::from_secs(2)));
    // Never seen: the loss cannot be told.
    assert_eq!(held(&world, &failed(None), now), ["beyond-max-data-loss"]);
    // Behind what it said: neither.
    assert_eq!(held(&world, &failed(Some(51)), now), ["beyond-max-data-loss"]);
}

#[test]
fn a_database_that_hangs_is_left_after_the_bound_if_its_standby_lost_it_too() {
    let mut world = World::protected();
    let known = world.state.applications.get_mut(&app()).unwrap();
    known.document.automation.max_data_loss = Span::from_secs(600);
    let since = Moment(200_000);
    let silent = |connected: bool, now: Moment| {
        let mut evidence = evidence(now, now);
        let west = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
        let mut last = sighting(Moment(since.0 - 500), Role::Primary, Some(1000));
        let mut linked = sighting(Moment(since.0 - 500), Role::Standby, Some(1000));
        while last.at < now {
            let at = Moment(last.at.0 + 500);
            let mut seen = sighting(at, Role::Unknown, None);
            seen.health = Health::Unknown;
            seen.last_position = seen.last_position_after(Some(&last));
            seen.ailing_since = seen.ailing_after(Some(&last));
            last = seen;
            let mut seen = sighting(at, Role::Standby, Some(1000));
            seen.upstream.as_mut().unwrap().connected = connected;
            seen.unlinked_since = seen.unlinked_after(Some(&linked));
            linked = seen;
        }
        west.insert(resource("db"), last);
        let central = evidence.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
        central.insert(resource("db"), linked);
        evidence
    };
    let due = since.after(world.known().document.automation.bound.fail_over_after);
    let (once, early) = (Moment(since.0 + 500), Moment(due.0 - 1));
    assert_eq!(held(&world, &silent(false, once), once), ["primary-not-lost"]);
    assert_eq!(held(&world, &silent(false, early), early), ["no-answer"]);
    // Slow is not dead: its replicas still hang on it.
    assert_eq!(held(&world, &silent(true, due), due), ["one-kind-of-evidence"]);
    // It may have gone on acknowledging since it was last known to be where the standby is.
    assert_eq!(held(&World::protected(), &silent(false, due), due), ["beyond-max-data-loss"]);
    let entries = decide(&world.state, &silent(false, due), view(due, &world));
    let [Entry::RunStarted { cause: Cause::ResourceFailed { .. }, finding, .. }] = entries.as_slice() else {
        panic!("{entries:?}")
    };
    let whole = world.known().document.automation.bound.fail_over_after.plus(Span::from_millis(500));
    assert_eq!(finding.gaps[&resource("db")].lag, Some(whole));
    // A link that broke just now is no second kind of evidence for what has lasted long.
    let mut blip = silent(false, due);
    let central = blip.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    central.get_mut(&resource("db")).unwrap().unlinked_since = Some(due);
    assert_eq!(held(&world, &blip, due), ["no-answer"]);
}

#[test]
fn an_agent_that_talks_and_stays_fenced_is_left_after_the_bound() {
    let world = World::protected();
    let since = Moment(200_000);
    let says = |fence: FenceState, lease: LeaseState, epoch: u64, now: Moment| {
        let mut evidence = evidence(now, now);
        let beat = Beat { epoch: Epoch(epoch), lease, fence, guarded: true, ..Beat::default() };
        let first = beat.clone().after(None, since);
        let beat = beat.after(Some(&first), now);
        evidence.contacts.get_mut(&west()).unwrap().beats.insert(app(), beat);
        evidence
    };
    let due = since.after(world.known().document.automation.bound.fail_over_after);
    let early = Moment(due.0 - 1);
    let fenced = |now| says(FenceState::SelfFenced, LeaseState::Lacked, 1, now);
    assert_eq!(held(&world, &fenced(early), early), ["self-fenced"]);
    assert_eq!(explain(&world.state, &fenced(early), view(early, &world), &app()).unwrap().verdict, Verdict::Suspect);
    let entries = decide(&world.state, &fenced(due), view(due, &world));
    let [Entry::RunStarted { cause: Cause::SelfFenced, to, .. }] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(*to, central());
    for serving in [
        says(FenceState::Open, LeaseState::Held, 1, due),
        // Quiesced by command: it did not do that itself.
        says(FenceState::Commanded, LeaseState::Lacked, 1, due),
        // A word of another epoch is not about this one.
        says(FenceState::SelfFenced, LeaseState::Lacked, 2, due),
    ] {
        assert_eq!(held(&world, &serving, due), ["primary-not-lost"]);
    }
    // Not yet promoted: that has its own name.
    let waiting = says(FenceState::Open, LeaseState::Lacked, 1, due);
    assert_eq!(held(&world, &waiting, due), ["lease-lacked", "primary-not-lost"]);
    // It was open in between: the count begins anew.
    let open = Beat { epoch: Epoch(1), lease: LeaseState::Held, ..Beat::default() };
    let closed = Beat { epoch: Epoch(1), lease: LeaseState::Lacked, fence: FenceState::SelfFenced, ..Beat::default() };
    assert_eq!(closed.after(Some(&open.after(None, since)), due).self_fenced_since, Some(due));
}

#[test]
fn a_quarantined_side_has_no_voice_on_a_failed_database() {
    let mut world = World::protected();
    let now = Moment(200_000);
    let mut evidence = evidence(now, now);
    let of_west = evidence.contacts.get_mut(&west()).unwrap().resources.get_mut(&app()).unwrap();
    let seen = of_west.get_mut(&resource("db")).unwrap();
    (seen.health, seen.failures) = (Health::Failed, 3);
    world.state.applications.get_mut(&app()).unwrap().excluded.insert(central(), "left".into());
    assert_eq!(held(&world, &evidence, now), ["one-kind-of-evidence", "no-target"]);
}
