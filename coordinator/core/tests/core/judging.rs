//! A plan is judged by the limit that the command will give, and only else by the document's.

use regent_core::entry::Entry;
use regent_core::plan::{Asked, show_switchover};
use regent_core::switchover::Purpose;
use regent_core::time::Span;
use regent_core::verdict::Scene;

use crate::fixture::*;
use crate::running::{begin, end, perform};
use crate::switching::{NOW, at, ready, started, well};

#[test]
fn the_limit_of_the_command_is_what_an_earlier_run_is_held_against() {
    let mut world = ready();
    let run = started(&mut world);
    perform(&mut world, run, "Quiesce core@west-1");
    let begun = begin(&mut world, run, "Fence db@west-1");
    world.wall += 500;
    end(&mut world, run, begun, at(1000));
    world.done(Entry::UndoBegun { run, reason: "enough".into() });
    for step in ["Unfence db@west-1", "Unfence cache@west-1", "Activate core@west-1"] {
        perform(&mut world, run, step);
    }
    let warned = |max_write_outage: Option<Span>| {
        let (name, evidence) = (app(), well());
        let scene = Scene::new(&world.state, &evidence, NOW, view(NOW, &world).me, &name).unwrap();
        let asked = Asked { by: "ann", purpose: Purpose::Switchover, to: None, max_write_outage };
        let shown = show_switchover(&scene, view(NOW, &world), &asked);
        let note = shown.notes.iter().find(|note| note.code == "longer-than-allowed");
        note.map(|note| note.detail.clone())
    };
    assert_eq!(warned(None), None, "the document allows 30 s");
    assert_eq!(warned(Some(Span::from_secs(1))), None);
    let told = warned(Some(Span::from_millis(200))).unwrap();
    assert!(told.contains("maxWriteOutage is 200ms"), "{told}");
}
