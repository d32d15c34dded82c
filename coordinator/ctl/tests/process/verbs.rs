//! Operators' verbs, as they are typed.

use regent_core::application::Action;
use regent_core::run::StepKind;
use regent_proto::tls::Identity;

use crate::moving::{advance, complete, keep_hearing, movable};
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
    holds(&said, &[": undoing (log index ", "eu-west-1 serves again when it is undone"]);
    holds(&operator.does(&["runs", &id]).await, &["Aborted by ann", "the release goes first"]);
    holds(&operator.does(&["describe", "shop"]).await, &["Next:           undoing: "]);
    holds(&operator.does(&["status"]).await, &["Next (undoing): "]);
    let again = operator.run(&["abort", &id, "--reason", "again"]).await;
    assert_eq!(again.code, 3, "{}", again.err);
    assert_eq!(operator.run(&["abort", &id]).await.code, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_plan_is_shown_and_begun_by_its_digest() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), movable("maxWriteOutage: 20s")).await;
    keep_hearing(&world.node);
    let operator = Operator::new(&authority, &[&world]);
    let text = operator.does(&["plan", "shop"]).await;
    holds(
        &text,
        &[
            "switchover of shop from eu-west-1 to eu-central-1, from epoch 1",
            "Starts:   yes, now",
            "decide: the point of no return",
            "Only if it is given up before the point of no return:",
            "unfence orders-db",
            "expected-time",
        ],
    );
    let shown = operator.json(&["plan", "shop"]).await;
    assert_eq!(shown["plan"]["steps"][0]["kind"], "wait", "until nobody remembers the old answer");
    assert_eq!(shown["plan"]["steps"][1]["kind"], "fence");
    let digest = shown["plan"]["digest"].as_str().unwrap();
    holds(&text, &[digest]);
    let other = operator.run(&["switchover", "shop", "--plan", "0123456789abcdef"]).await;
    assert_eq!(other.code, 3);
    holds(&other.err, &["plan-changed"]);
    let failover = operator.does(&["plan", "shop", "--failover"]).await;
    holds(
        &failover,
        &["region-lost of shop", "no: see the blockers", "Outage:   since the last contact", "(failoverAfter)"],
    );
    let ordered = operator.does(&["plan", "shop", "--failover", "--to", "eu-central-1"]).await;
    holds(&ordered, &["forced of shop", "yes, now", "primary-serves", "told to fence first"]);
    let contradicting = operator.run(&["plan", "shop", "--failover", "--max-write-outage", "5s"]).await;
    assert_eq!(contradicting.code, 2, "a failover has no limit to be judged by: {}", contradicting.err);
    let out_of_range = operator.run(&["plan", "shop", "--max-write-outage", "1ms"]).await;
    assert_eq!(out_of_range.code, 2, "{}", out_of_range.err);
    holds(&operator.does(&["switchover", "shop", "--plan", digest]).await, &["switched over to eu-central-1"]);
    world.stop().await;
}

#[tokio::test]
async fn the_way_back_is_open_until_it_is_committed() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), movable("commitWithin: 1h")).await;
    keep_hearing(&world.node);
    let operator = Operator::new(&authority, &[&world]);
    holds(&operator.does(&["describe", "shop"]).await, &["Protected:      yes: protected by eu-central-1"]);
    operator.does(&["switchover", "shop"]).await;
    complete(&world, under_way(&world));
    holds(
        &operator.does(&["describe", "shop"]).await,
        &["Next:           commit-window: ", "Commit window:  run ", "can be rolled back to eu-west-1 for another 59m"],
    );
    holds(&operator.does(&["why", "shop"]).await, &["commit-window: run ", "a failover closes that"]);
    holds(&operator.does(&["status"]).await, &["can be rolled back for 59m"]);
    operator.does(&["hold", "shop", "--reason", "end of the quarter"]).await;
    let held = operator.run(&["rollback", "shop"]).await;
    assert_eq!(held.code, 3, "{}", held.err);
    holds(&held.err, &["held", "end of the quarter"]);
    holds(&operator.does(&["describe", "shop"]).await, &["Held:           by ann"]);
    operator.does(&["unhold", "shop"]).await;
    let other = operator.run(&["rollback", "shop", "--plan", "0123456789abcdef"]).await;
    assert_eq!(other.code, 3, "{}", other.err);
    holds(&other.err, &["plan-changed"]);
    let seen = operator.json(&["plan", "shop", "--rollback"]).await;
    let digest = seen["plan"]["digest"].as_str().unwrap();
    holds(&operator.does(&["rollback", "shop", "--plan", digest]).await, &["rolled back to eu-west-1"]);
    let run = under_way(&world);
    holds(&operator.does(&["runs", &run.to_string()]).await, &["rollback by ann: it rolls run "]);
    complete(&world, run);
    operator.does(&["switchover", "shop"]).await;
    complete(&world, under_way(&world));
    holds(&operator.does(&["commit", "shop"]).await, &["is committed"]);
    let late = operator.run(&["rollback", "shop"]).await;
    assert_eq!(late.code, 3);
    holds(&late.err, &["no-commit-window"]);
    let other = operator.run(&["failback", "shop", "--plan", "0123456789abcdef"]).await;
    assert_eq!(other.code, 3, "{}", other.err);
    let seen = operator.json(&["plan", "shop", "--failback"]).await;
    let digest = seen["plan"]["digest"].as_str().unwrap();
    holds(&operator.does(&["failback", "shop", "--plan", digest]).await, &["goes back to eu-west-1"]);
    world.stop().await;
}

#[tokio::test]
async fn a_failover_is_ordered_confirmed_and_taken_back() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), movable("twoPerson: true")).await;
    keep_hearing(&world.node);
    let operator = Operator::new(&authority, &[&world]);
    let order = ["failover", "shop", "--to", "eu-central-1", "--allow-data-loss", "agreed with the CTO"];
    let said = operator.does(&order).await;
    holds(&said, &["is ordered, order ", "told to fence first", "it waits for another operator: regentctl approve "]);
    let number = said.split("order ").nth(1).unwrap().split(':').next().unwrap().to_owned();
    holds(
        &operator.does(&["describe", "shop"]).await,
        &["Failover:       asks for a yes, ordered by ann, 14m", "Another operator has to confirm it"],
    );
    let same = operator.run(&["approve", &number, "--reason", "me again"]).await;
    assert_eq!(same.code, 3);
    holds(&same.err, &["same-person"]);
    let bob = authority.files("bob", &Identity::Operator("bob".into()));
    let (cert, key) = (bob.certificate.to_str().unwrap(), bob.key.to_str().unwrap());
    let yes = operator.does(&["approve", &number, "--reason", "by phone", "--cert", cert, "--key", key]).await;
    holds(&yes, &["is approved"]);
    holds(&operator.does(&["describe", "shop"]).await, &["is ordered, ordered by ann"]);
    holds(&operator.does(&["abort", &number, "--reason", "it is back"]).await, &["steady"]);
    let nothing = operator.run(&["approve", "shop", "--reason", "yes"]).await;
    assert_eq!(nothing.code, 3);
    holds(&nothing.err, &["no-order"]);
    assert_eq!(operator.run(&["approve", "shop", "3", "--reason", "yes"]).await.code, 2);
    world.stop().await;
}
