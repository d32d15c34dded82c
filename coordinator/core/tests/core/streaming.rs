//! What readiness says of replication: what becomes of the WAL, and whether commits wait for a standby.

use regent_core::evidence::Evidence;
use regent_core::facts::{PostgresFacts, SlotFacts, SlotLimit};
use regent_core::plan::{Asked, show_switchover};
use regent_core::readiness;
use regent_core::switchover::Purpose;
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::readying::{NOW, both, facts, notes, pg, well};

/// One that somebody reads.
fn slot(held: u64) -> SlotFacts {
    SlotFacts { name: "a".into(), active: true, retained_bytes: Some(held), lost: false }
}

/// The notes when the primary has one slot under this limit.
fn told_of(slot: SlotFacts, limit: SlotLimit, change: impl Fn(&mut PostgresFacts)) -> Vec<String> {
    let (world, mut evidence) = well();
    let here = pg(&mut evidence);
    (here.slots, here.slot_limit) = (vec![slot], limit);
    change(here);
    notes(&world, &evidence)
}

#[test]
fn what_slots_may_hold_back_is_weighed() {
    let none = Vec::<String>::new();
    let gib = |count: u64| SlotLimit::Bytes(count << 30);
    assert_eq!(told_of(slot(1 << 20), SlotLimit::Unknown, |_| {}), none);
    assert_eq!(told_of(slot(1 << 20), SlotLimit::Unlimited, |_| {}), ["info slot-unlimited west-1/db"]);
    assert_eq!(told_of(slot(1 << 30), gib(2), |_| {}), none);
    assert_eq!(told_of(slot((1 << 30) + 1), gib(2), |_| {}), ["warning slot-near-limit west-1/db"]);
    // As much as is written between two checkpoints.
    let small = SlotLimit::Bytes((1 << 30) - 1);
    let keeps_less = |here: &mut PostgresFacts| here.wal_keep_bytes = 1 << 20;
    assert_eq!(told_of(slot(1 << 20), small, keeps_less), ["warning slot-limit-small west-1/db"]);
    assert_eq!(told_of(slot(1 << 20), small, |_| {}), none, "wal_keep_size keeps more");
    let unsaid = |here: &mut PostgresFacts| (here.wal_keep_bytes, here.max_wal_bytes) = (1 << 20, 0);
    assert_eq!(told_of(slot(1 << 20), small, unsaid), none);
    // A lost one holds nothing back any more.
    let lost = SlotFacts { lost: true, ..slot(1 << 40) };
    assert_eq!(told_of(lost, SlotLimit::Unlimited, |_| {}), ["warning slot-lost west-1/db"]);
}

#[test]
fn wal_that_cannot_be_archived_is_named() {
    let (world, mut evidence) = well();
    pg(&mut evidence).archive_fails = "000000010000000000000003".into();
    assert_eq!(notes(&world, &evidence), ["warning archive-fails west-1/db"]);
    let all = readiness::notes(&world.state, &evidence, view(NOW, &world), &app()).unwrap();
    assert!(all[0].1.detail.starts_with("000000010000000000000003 could not be archived"), "{all:?}");
}

#[test]
fn a_target_that_would_not_wait_for_a_standby_is_told_of_before_a_move() {
    let (world, mut evidence) = well();
    let application = app();
    // In readiness, and in the plan of a switchover.
    let answers = |evidence: &Evidence| {
        let at = view(NOW, &world);
        let scene = Scene::new(&world.state, evidence, NOW, at.me, &application).unwrap();
        let to = central();
        let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: Some(&to), max_write_outage: None };
        let shown = show_switchover(&scene, at, &asked).notes;
        let shown = shown.into_iter().filter(|note| note.code == "synchronous-differs");
        let shown = shown.map(|note| format!("{}: {}", note.severity.as_str(), note.detail));
        (notes(&world, evidence), shown.collect::<Vec<String>>())
    };
    assert_eq!(answers(&evidence), (vec![], vec![]));
    let differs = vec!["warning synchronous-differs central-1/db".to_owned()];
    facts(&mut evidence, &central(), "db").postgres.as_mut().unwrap().synchronous = false;
    let lost = "warning: db in central-1: commits wait for a standby in west-1, and would not here: after a move a failover \
                may lose the last writes";
    assert_eq!(answers(&evidence), (differs.clone(), vec![lost.to_owned()]));
    both(&mut evidence, |here| here.synchronous = !here.synchronous);
    let stand = "warning: db in central-1: commits would wait for a standby here, and do not in west-1: after a move writes \
                 stand until one follows";
    let (mut told, shown) = answers(&evidence);
    told.retain(|note| !note.starts_with("info asynchronous"));
    assert_eq!((told, shown), (differs, vec![stand.to_owned()]));
}
