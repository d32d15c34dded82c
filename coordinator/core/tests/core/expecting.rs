//! What the plan of a failover expects: the outage as its report will measure it, and the loss whoever takes over.

use regent_core::entry::Cause;
use regent_core::evidence::{Evidence, Health};
use regent_core::plan::{Asked, Shown, show_failover, show_switchover};
use regent_core::preflight::Severity;
use regent_core::switchover::Purpose;
use regent_core::time::{Moment, Span};
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::switching::{NOW, ready, well};

fn failover(world: &World, evidence: &Evidence) -> Shown {
    let name = app();
    let scene = Scene::new(&world.state, evidence, NOW, view(NOW, world).me, &name).unwrap();
    show_failover(&scene, view(NOW, world))
}

fn expected_time(shown: &Shown) -> &str {
    let note = shown.notes.iter().find(|note| note.code == "expected-time").unwrap();
    assert_eq!(note.severity, Severity::Info);
    &note.detail
}

#[test]
fn the_silence_before_a_failover_is_decided_is_part_of_its_outage() {
    let world = ready();
    let shown = failover(&world, &evidence(NOW, Moment(0)));
    assert_eq!(shown.cause, Cause::RegionLost);
    let silence = Span::from_secs(10);
    assert_eq!(shown.detection, Some(silence));
    assert_eq!(shown.outage().span, shown.forecast.outage.span.plus(silence));
    assert_eq!(shown.outage().unknown, shown.forecast.outage.unknown);
    let told = expected_time(&shown);
    assert!(told.contains("silent for 10s until it is decided"), "{told}");
    assert!(told.contains("since the last contact more than 10s"), "{told}");
}

#[test]
fn a_side_that_serves_is_silent_for_no_time() {
    let world = ready();
    let (name, evidence) = (app(), well());
    let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, &world).me, &name).unwrap();
    let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: None, max_write_outage: None };
    let shown = show_switchover(&scene, view(NOW, &world), &asked);
    assert_eq!((shown.detection, shown.outage()), (None, shown.forecast.outage));
    assert!(expected_time(&shown).starts_with("writes are kept out for"));
}

#[test]
fn the_loss_is_told_though_nobody_is_fit() {
    let world = ready();
    let mut behind = evidence(NOW, Moment(0));
    let standby = behind.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    let db = standby.get_mut(&resource("db")).unwrap();
    db.position = Some(1);
    db.upstream.as_mut().unwrap().lag = Some(Span::from_secs(6));
    let shown = failover(&world, &behind);
    assert!(shown.notes.iter().any(|note| note.severity == Severity::Blocker), "{:?}", shown.notes);
    assert_eq!(shown.expected_loss.len(), 2, "{:?}", shown.expected_loss);
    assert!(shown.expected_loss[1].starts_with("db: 6s"), "{:?}", shown.expected_loss);

    let standby = behind.contacts.get_mut(&central()).unwrap().resources.get_mut(&app()).unwrap();
    standby.get_mut(&resource("db")).unwrap().health = Health::Failed;
    let shown = failover(&world, &behind);
    assert!(shown.expected_loss[1].starts_with("db: unknown; in central-1"), "{:?}", shown.expected_loss);
}

#[test]
fn a_plan_has_another_name_where_writes_may_be_kept_out_for_longer() {
    let world = ready();
    let (name, evidence) = (app(), well());
    let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, &world).me, &name).unwrap();
    let shown = |max_write_outage| {
        let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: None, max_write_outage };
        show_switchover(&scene, view(NOW, &world), &asked)
    };
    let (short, long) = (shown(Some(Span::from_secs(5))), shown(Some(Span::from_secs(30))));
    assert_eq!(short.steps, long.steps);
    assert_eq!(short.digest, long.digest, "what the log compares is the steps");
    assert_ne!(short.name(), long.name());
    assert_eq!(long.name(), shown(None).name(), "the document says half a minute");
}
