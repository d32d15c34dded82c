//! Two streams, two processes, two machines under one agent's name: what an observer makes of them.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::copied;
use regent_core::entry::{Agent, Entry};
use regent_core::evidence::{Evidence, PromiseSight};
use regent_core::id::{ApplicationId, CoordinatorId, Epoch, Incarnation, InstallationId};
use regent_core::lease::TimeBound;
use regent_core::observer::{Heard, Observer};
use regent_core::time::{Moment, Span};

use crate::fixture::*;
use crate::recovering::{begin, report};

const START: u64 = 1_000_000;

#[test]
fn a_heartbeat_that_was_overtaken_takes_no_grant_back() {
    let world = World::protected();
    let mut observer = Observer::new(CoordinatorId(1), Incarnation(1), Moment(START));
    let epochs = BTreeMap::from([(app(), Epoch(1))]);
    let installation = InstallationId("iw".into());
    let beat = |observer: &mut Observer, at: u64| {
        let answer = observer.heard(&world.state, Moment(at), &by(&installation, 0, &epochs));
        assert_eq!(answer.grants, vec![(app(), Epoch(1))]);
    };
    beat(&mut observer, START + 100);
    // It read the clock before the other one did, and came to the lock after it.
    beat(&mut observer, START);
    let on_west = |entry: &Entry| matches!(entry, Entry::Vote { cluster, .. } if *cluster == west());
    let mut now = START;
    let word = loop {
        now += 50;
        let words = observer.tick(&world.state, Moment(now), true);
        if let Some(word) = words.into_iter().find(on_west) {
            break word;
        }
        assert!(now < START + 10_000, "nobody votes");
    };
    let silence = Span::from_millis(now - START - 100);
    assert_eq!(word, vote(1, 1, &west(), 1, silence), "since the last grant");
}

fn process(incarnation: u64, boot: &str) -> Agent {
    Agent { incarnation: Incarnation(incarnation), boot: boot.into(), ..agent(&west(), "iw") }
}

/// Protected; the agent of the primary was registered in this boot before, and in another one since.
fn rebooted() -> World {
    let mut world = World::protected();
    world.done(Entry::AgentRegistered(process(7, "before")));
    world.done(Entry::AgentRegistered(process(8, "since")));
    world
}

/// A coordinator that has just been started anew, and its start applied.
fn restarted(world: &mut World) -> Observer {
    restarted_as(world, 2)
}

fn restarted_as(world: &mut World, incarnation: u64) -> Observer {
    let (observer, incarnation) = (CoordinatorId(1), Incarnation(incarnation));
    world.done(Entry::ObserverStarted { observer, incarnation });
    Observer::new(observer, incarnation, Moment(START))
}

struct Said {
    boot: &'static str,
    at: u64,
    leads: bool,
    asked: Option<Moment>,
}

/// Whether it is granted what it asks for.
fn granted(observer: &mut Observer, world: &World, said: &Said) -> bool {
    let epochs = BTreeMap::from([(app(), world.known().epoch)]);
    let leased: BTreeSet<_> = said.leads.then(app).into_iter().collect();
    let installation = InstallationId("iw".into());
    let heard = Heard {
        incarnation: world.state.agents[&west()].incarnation,
        boot: said.boot,
        leased: &leased,
        asked: said.asked,
        ..by(&installation, 0, &epochs)
    };
    !observer.heard(&world.state, Moment(said.at), &heard).grants.is_empty()
}

const SINCE: Said = Said { boot: "since", at: START, leads: false, asked: None };

#[test]
fn a_coordinator_that_was_restarted_does_not_know_to_whom_it_granted() {
    let mut world = rebooted();
    let mut observer = restarted(&mut world);
    // The process before may have granted to the other boot until it ended.
    assert!(!granted(&mut observer, &world, &SINCE));
    assert!(!granted(&mut observer, &world, &Said { at: START + 9_999, ..SINCE }));
    assert!(granted(&mut observer, &world, &Said { at: START + 10_000, ..SINCE }), "D after its start");
}

#[test]
fn a_coordinator_that_never_heard_the_other_boot_waits_for_what_it_may_have_granted_before() {
    let mut world = World::protected();
    world.done(Entry::AgentRegistered(process(7, "before")));
    let mut observer = restarted(&mut world);
    world.done(Entry::AgentRegistered(process(8, "since")));
    assert!(!granted(&mut observer, &world, &Said { at: START + 9_999, ..SINCE }));
    assert!(granted(&mut observer, &world, &Said { at: START + 10_000, ..SINCE }));
}

#[test]
fn a_boot_that_holds_the_lease_was_waited_for_by_a_majority() {
    let mut world = rebooted();
    let mut observer = restarted(&mut world);
    assert!(granted(&mut observer, &world, &Said { leads: true, ..SINCE }));
    assert!(granted(&mut observer, &world, &Said { at: START + 100, ..SINCE }), "also once it has lost it");
    world.done(Entry::AgentRegistered(process(9, "later")));
    let later = Said { boot: "later", at: START + 200, ..SINCE };
    assert!(!granted(&mut observer, &world, &later), "that was another boot");
    // D after the last grant to the one before.
    assert!(!granted(&mut observer, &world, &Said { at: START + 10_099, ..later }));
    assert!(granted(&mut observer, &world, &Said { at: START + 10_100, ..later }));
}

#[test]
fn where_no_other_boot_can_have_been_granted_nothing_is_waited_for() {
    // Registered before the epoch began.
    let mut world = World::fresh();
    world.done(Entry::AgentRegistered(process(7, "before")));
    world.done(Entry::AgentRegistered(process(8, "since")));
    world.adopt();
    world.confirm(&west());
    let mut observer = restarted(&mut world);
    assert!(granted(&mut observer, &world, &SINCE));
    // Of a lost group nobody knows whom it granted.
    world.state.applications.get_mut(&app()).unwrap().rebooted = Epoch(1);
    let mut observer = restarted_as(&mut world, 3);
    assert!(!granted(&mut observer, &world, &SINCE));
}

#[test]
fn one_that_lives_on_promises_is_waited_for_as_well() {
    let mut world = rebooted();
    let mut observer = restarted(&mut world);
    let asked = Some(Moment(START + 5_000));
    assert!(!granted(&mut observer, &world, &Said { at: START + 14_999, asked, ..SINCE }));
    assert!(granted(&mut observer, &world, &Said { at: START + 15_000, asked, ..SINCE }));
}

#[test]
fn an_application_waits_for_its_own_bound_only() {
    let mut world = World::protected();
    let other = ApplicationId::new("other").unwrap();
    let mut slow = document();
    slow.name = other.clone();
    slow.automation.bound = TimeBound::new(Span::from_secs(60));
    slow.resources.retain(|_, resource| resource.dns.is_none());
    for line in slow.runbooks.values_mut().flat_map(|runbook| &mut runbook.lines) {
        line.resources.retain(|name| *name != resource("www"));
    }
    world.done(Entry::Applied { application: Box::new(slow), by: "ann".into() });
    world.done(Entry::Adopt { application: other.clone(), primary: west(), databases: BTreeMap::new() });
    world.done(Entry::AgentRegistered(process(7, "before")));
    world.done(Entry::AgentRegistered(process(8, "since")));
    let mut observer = restarted(&mut world);
    let epochs = BTreeMap::from([(app(), Epoch(1)), (other.clone(), Epoch(1))]);
    let installation = InstallationId("iw".into());
    let mut granted = |at: u64| {
        let heard = Heard { incarnation: Incarnation(8), boot: "since", ..by(&installation, 0, &epochs) };
        let answer = observer.heard(&world.state, Moment(START + at), &heard);
        answer.grants.into_iter().map(|(application, _)| application).collect::<BTreeSet<_>>()
    };
    assert_eq!(granted(9_999), BTreeSet::new());
    assert_eq!(granted(10_000), BTreeSet::from([app()]));
    assert_eq!(granted(59_999), BTreeSet::from([app()]), "a grant to this boot is none to the one before");
    assert_eq!(granted(60_000), BTreeSet::from([app(), other]));
}

#[test]
fn what_recovers_from_a_backup_waits_unless_its_agent_holds_a_lease() {
    let backup = World::protected().state;
    let terms = backup.applications[&app()].terms.last().unwrap().clone();
    let mut world = begin(&backup);
    world.done(Entry::AgentRegistered(process(7, "since")));
    let mut other = restarted(&mut world.copy());
    let mut observer = restarted(&mut world);
    // Before it recovers the agent holds the lease of the lost group, by promises.
    assert!(!granted(&mut observer, &world, &Said { leads: true, ..SINCE }), "nothing is granted before");
    let reports = BTreeMap::from([(west(), report("iw", Some(&terms))), (central(), report("ic", Some(&terms)))]);
    world.done(Entry::Recovered { application: app(), reports });
    assert!(granted(&mut observer, &world, &SINCE));
    assert!(!granted(&mut other, &world, &SINCE), "it has not heard of a lease");
}

/// What coordinator 2 relays of the west, and coordinator 3 of the centre.
fn relayed(beat: Moment, asked: Option<Moment>) -> Evidence {
    let mut seen = Evidence { leading_since: Some(Moment(0)), ..Evidence::default() };
    let mut contacts = evidence(Moment(START), beat).contacts;
    contacts.get_mut(&west()).unwrap().incarnation = Incarnation(7);
    let sight = asked.map(|at| (west(), PromiseSight { at, epoch: Epoch(1) }));
    contacts.get_mut(&central()).unwrap().promises.insert(app(), sight.into_iter().collect());
    let central_only = BTreeMap::from([(central(), contacts.remove(&central()).unwrap())]);
    seen.relayed = BTreeMap::from([(CoordinatorId(2), contacts), (CoordinatorId(3), central_only)]);
    seen
}

#[test]
fn the_leader_takes_no_other_boot_while_any_coordinator_hears_the_registered_one() {
    let mut world = World::protected();
    world.done(Entry::AgentRegistered(process(7, "before")));
    let now = Moment(START);
    let ago = |millis| now.before(Span::from_millis(millis));
    let copy = process(8, "since");
    let refused = |seen: &Evidence| copied::refuses(&world.state, seen, now, &copy).unwrap_or_default();
    assert!(refused(&relayed(ago(3_000), None)).contains("is this a copy"));
    assert_eq!(refused(&relayed(ago(3_001), None)), "", "silent for three intervals");
    assert!(refused(&relayed(ago(60_000), Some(ago(3_000)))).contains("promises"), "no coordinator hears it");
    assert_eq!(refused(&relayed(ago(60_000), Some(ago(3_001)))), "");
    let fresh = Evidence { leading_since: Some(ago(3_000)), ..Evidence::default() };
    assert!(refused(&fresh).contains("does not know yet"), "it has not led for long enough to be told");
    let same = process(8, "before");
    assert_eq!(copied::refuses(&world.state, &relayed(now, None), now, &same), None, "a process of the same boot");
}
