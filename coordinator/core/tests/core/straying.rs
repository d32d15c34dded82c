//! A standby that does not follow the present primary: it may lack anything, it is no sign of that primary's life, and
//! nothing is moved to it by plan.

use std::collections::BTreeSet;

use regent_core::entry::{Entry, Outcome, Report};
use regent_core::evidence::{Evidence, Role, Sighting, UpstreamSight};
use regent_core::id::{ClusterId, SystemId};
use regent_core::protection;
use regent_core::switchover::{Purpose, preflight};
use regent_core::target::{Candidate, Unfit, rank};
use regent_core::time::Moment;
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::running::{begin, end, lost};
use crate::switching::{NOW, ready, well};

fn seen<'a>(evidence: &'a mut Evidence, cluster: &ClusterId, name: &str) -> &'a mut Sighting {
    evidence.contacts.get_mut(cluster).unwrap().resources.get_mut(&app()).unwrap().get_mut(&resource(name)).unwrap()
}

fn with<T>(world: &World, evidence: &Evidence, look: impl FnOnce(&Scene<'_>) -> T) -> T {
    let name = app();
    look(&Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap())
}

fn first(world: &World, evidence: &Evidence) -> Result<Candidate, Unfit> {
    with(world, evidence, |scene| rank(scene).remove(0))
}

#[test]
fn what_follows_another_side_may_lack_anything() {
    let world = ready();
    let mut evidence = well();
    let link = seen(&mut evidence, &central(), "cache").upstream.as_mut().unwrap();
    link.cluster = Some(west());
    assert!(first(&world, &evidence).is_ok(), "it follows the primary");
    assert!(with(&world, &evidence, |scene| protection::of(scene).is_protected()));

    let link = seen(&mut evidence, &central(), "cache").upstream.as_mut().unwrap();
    link.cluster = Some(cluster("north-1"));
    let unfit = first(&world, &evidence).expect_err("its position is as high as the primary's, in another history");
    assert_eq!(unfit.code, "beyond-max-data-loss", "{}", unfit.detail);
    assert!(!with(&world, &evidence, |scene| protection::of(scene).is_protected()));
    let refused = with(&world, &evidence, |scene| preflight(scene, Purpose::Switchover, Some(&central()))).unwrap_err();
    assert_ne!(refused.code, "", "{refused:?}");

    // Whoever accepts any loss is told that it is not known.
    let mut accepting = ready();
    let mut document = accepting.known().document.clone();
    document.automation.beyond_max_data_loss = regent_core::application::Beyond::Accept;
    accepting.done(Entry::Applied { application: Box::new(document), by: "ann".into() });
    let candidate = first(&accepting, &evidence).unwrap();
    assert_eq!(candidate.loss, None);
    let told = candidate.sentences().join("; ");
    assert!(told.contains("cache: unknown (it follows north-1, not west-1"), "{told}");
}

#[test]
fn a_history_that_the_primary_does_not_go_on_from_tells_nothing() {
    let world = ready();
    let old = || SystemId("1111".into());
    let with_histories = |previous: Option<(SystemId, u64)>| {
        let mut evidence = well();
        seen(&mut evidence, &central(), "cache").system_id = old();
        let primary = seen(&mut evidence, &west(), "cache");
        (primary.system_id, primary.previous) = (SystemId("2222".into()), previous);
        evidence
    };
    // The standby has 50.
    assert!(first(&world, &with_histories(Some((old(), 50)))).is_ok(), "it is only behind");
    for parted in [None, Some((old(), 49)), Some((SystemId("3333".into()), 50))] {
        let unfit = first(&world, &with_histories(parted.clone())).expect_err("another history");
        assert_eq!(unfit.code, "beyond-max-data-loss", "{parted:?}: {}", unfit.detail);
    }
    // One that says nothing of itself as a primary says nothing of its history.
    let mut evidence = with_histories(None);
    seen(&mut evidence, &west(), "cache").role = Role::Unknown;
    assert!(first(&world, &evidence).is_ok());
}

#[test]
fn a_link_to_another_side_is_no_sign_of_life() {
    let world = ready();
    let signs = |of: Option<ClusterId>| {
        let mut evidence = evidence(NOW, Moment(0));
        let link = UpstreamSight { connected: true, last_heard: Some(NOW), lag_bytes: None, lag: None, cluster: of };
        seen(&mut evidence, &central(), "db").upstream = Some(link);
        with(&world, &evidence, |scene| scene.signs_of_life().into_iter().map(|rule| rule.code).collect::<Vec<_>>())
    };
    assert_eq!(signs(Some(west())), ["replication-alive"]);
    assert_eq!(signs(None), ["replication-alive"], "whom it follows is not known");
    assert_eq!(signs(Some(cluster("north-1"))), Vec::<String>::new());
}

#[test]
fn what_was_a_rogue_writer_is_no_candidate_until_it_has_rejoined() {
    let mut world = ready();
    let told = |resources: BTreeSet<_>| Entry::RogueWriters { application: app(), cluster: central(), resources };
    assert!(first(&world, &well()).is_ok());
    world.done(told(BTreeSet::from([resource("db")])));
    // Its agent, started anew, finds it closed at rest and knows nothing of it any more.
    world.done(told(BTreeSet::new()));
    world.confirm(&west());
    let unfit = first(&world, &well()).expect_err("it has a history of its own");
    assert_eq!(unfit.code, "quarantined");
    assert!(unfit.detail.contains("db accepted writes beside the primary"), "{}", unfit.detail);
    world.done(Entry::RejoinStarted { application: app(), cluster: central(), by: "ann".into(), reclone: false });
    let run = world.known().run.unwrap();
    for step in ["Rejoin cache@central-1", "Rejoin db@central-1"] {
        crate::running::perform(&mut world, run, step);
    }
    world.confirm(&west());
    assert!(first(&world, &well()).is_ok());
}

#[test]
fn the_timeline_of_a_promotion_is_known_without_a_sighting() {
    let mut world = ready();
    let run = lost(&mut world);
    world.confirm(&central());
    assert_eq!(world.known().databases[&central()][&resource("db")].timeline, 1, "as it was before");
    let begun = begin(&mut world, run, "Promote db@central-1");
    end(&mut world, run, begun, Outcome::Succeeded(Report { timeline: 7, ..Report::default() }));
    assert_eq!(world.known().databases[&central()][&resource("db")].timeline, 7);
}
