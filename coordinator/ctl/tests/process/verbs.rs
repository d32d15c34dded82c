//! Operators' verbs, as they are typed.

use regent_core::application::Action;
use regent_core::run::StepKind;

use crate::moving::{advance, keep_hearing, movable};
use crate::terminal::Operator;
use crate::world::{Authority, World};

fn holds(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

/// The number of the run that is under way.
fn under_way(world: &World) -> u64 {
    world.node.replica.read(|state| state.applications[&crate::world::shop()].run.unwrap().0)
}

#[tokio::test]
async fn a_run_is_aborted_and_says_what_is_next() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), movable("maxWriteOutage: 20s")).await;
    keep_hearing(&world.node);
    let operator = Operator::new(&authority, &[&world]);
    holds(&operator.does(&["switchover", "shop"]).await, &["switched over to eu-central-1"]);
    let run = under_way(&world);
    advance(&world, run, StepKind::Action(Action::Fence));
    let id = run.to_string();
    holds(&operator.does(&["runs", &id]).await, &["Next:     it can still be undone: `regentctl abort"]);
    let said = operator.does(&["abort", &id, "--reason", "the release goes first"]).await;
    holds(&said, &["is undoing", "eu-west-1 serves again when it is undone"]);
    holds(&operator.does(&["runs", &id]).await, &["Aborted by ann", "the release goes first"]);
    holds(&operator.does(&["describe", "shop"]).await, &["Next:           undoing: "]);
    holds(&operator.does(&["status"]).await, &["Next (undoing): "]);
    let again = operator.run(&["abort", &id, "--reason", "again"]).await;
    assert_eq!(again.code, 3, "{}", again.err);
    assert_eq!(operator.run(&["abort", &id]).await.code, 2);
    world.stop().await;
}
