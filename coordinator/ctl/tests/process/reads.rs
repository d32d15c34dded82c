//! Each read, in each form.

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::terminal::Operator;
use crate::world::{Authority, DEADLINE, World, cluster, commit, hear, lose_region, resource, shop_state};

async fn seen() -> (Authority, World, Operator) {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    hear(&world.node);
    let operator = Operator::new(&authority, &[&world]);
    (authority, world, operator)
}

fn holds(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn status_shows_everything_at_a_glance() {
    let (_authority, world, operator) = seen().await;
    let text = operator.does(&["status"]).await;
    holds(
        &text,
        &[
            "The group has a quorum; coordinator 1 leads (term 1).",
            "COORDINATOR 1 (eu-west)",
            "heard",
            "unknown",
            "held for 39",
            "orders-db healthy (primary, writable)",
            "orders-db 200ms 4096 B",
        ],
    );
    let json = operator.json(&["status"]).await;
    assert_eq!(json["status"]["applications"][0]["primary"], "eu-west-1");
    assert_eq!(json["status"]["view"]["quorum"], true);
    assert_eq!(operator.yaml(&["status"]).await["status"]["coordinators"].as_array().unwrap().len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_watched_status_is_shown_again_when_it_changes() {
    let (_authority, world, operator) = seen().await;
    let mut child = operator.start(&["status", "--watch", "-o", "json", "--interval", "1h"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()
    };
    assert!(next().await["status"]["paused"].is_null());
    operator.does(&["pause", "--all", "--reason", "maintenance"]).await;
    assert_eq!(next().await["status"]["paused"]["reason"], "maintenance");
    child.kill().await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn get_lists_applications_and_prints_a_document_that_can_be_applied_again() {
    let (authority, world, operator) = seen().await;
    holds(&operator.does(&["get"]).await, &["NAME", "shop", "eu-west-1", "automatic", "ready"]);
    assert_eq!(operator.json(&["get"]).await["applications"][0]["epoch"], 1);
    assert_eq!(operator.yaml(&["get"]).await["applications"][0]["revision"], 1);
    holds(&operator.does(&["get", "shop"]).await, &["shop", "eu-west-1"]);
    assert_eq!(operator.json(&["get", "shop"]).await["metadata"]["name"], "shop");

    let document = authority.path().join("shop.yaml");
    std::fs::write(&document, operator.does(&["get", "shop", "-o", "yaml"]).await).unwrap();
    let applied = operator.does(&["apply", "-f", document.to_str().unwrap()]).await;
    holds(&applied, &["shop is unchanged (revision 1)"]);
    world.stop().await;
}

#[tokio::test]
async fn describe_shows_every_resource_in_every_cluster() {
    let (_authority, world, operator) = seen().await;
    world.node.note(|evidence| {
        let central = evidence.contacts.get_mut(&cluster("eu-central-1")).unwrap();
        central.resources.values_mut().for_each(|seen| drop(seen.remove(&resource("checks"))));
    });
    let text = operator.does(&["describe", "shop"]).await;
    holds(
        &text,
        &[
            "Primary:        eu-west-1",
            "Objectives:     RTO 1h, RPO 5m",
            "shop.regent.test. → eu-west-1 (127.0.0.11)",
            "never probed",
            "0/3000000",
            "DOCUMENT\napiVersion: regent/v1",
        ],
    );
    assert_eq!(
        operator.json(&["describe", "shop"]).await["application"]["placements"][1]["role"],
        "PLACEMENT_ROLE_STANDBY"
    );
    assert!(operator.yaml(&["describe", "shop"]).await["document"].as_str().unwrap().contains("kind: Application"));
    world.stop().await;
}

/// Both agents are heard just now, and the standby lacks one page of what the primary has.
fn behind(world: &World) {
    hear(&world.node);
    world.node.note(|evidence| {
        let central = evidence.contacts.get_mut(&cluster("eu-central-1")).unwrap();
        for resources in central.resources.values_mut() {
            let database = resources.get_mut(&resource("orders-db")).unwrap();
            database.position = Some(50_327_552);
            database.position_text = "0/2FFF000".into();
        }
    });
}

#[tokio::test]
async fn why_names_the_rules_that_hold_a_failover() {
    let (_authority, world, operator) = seen().await;
    behind(&world);
    let text = operator.does(&["why", "shop"]).await;
    holds(&text, &["A failover of shop would not start now.", "Verdict:", "HELD BY", "primary-not-lost"]);
    // To where it would go, with what loss, when, and for how long nobody is served then.
    holds(
        &text,
        &[
            "Primary:  eu-west-1 (epoch 1)",
            "Target:   eu-central-1",
            "Earliest: 1m after the primary is last heard",
            "never done here from then on",
            "Expected loss, by database:\n  orders-db: 200ms (0/3000000 → 0/2FFF000)",
        ],
    );
    behind(&world);
    let explained = operator.json(&["why", "shop"]).await["explanation"].clone();
    assert_eq!(explained["wouldStart"], false);
    assert_eq!((explained["target"].as_str(), explained["ifLostNow"].as_str()), (Some("eu-central-1"), Some("60s")));
    assert_eq!(explained["expectedLoss"][0], "orders-db: 200ms (0/3000000 → 0/2FFF000)");
    assert_eq!(operator.yaml(&["why", "shop"]).await["explanation"]["application"], "shop");
    // Without the standby there is neither, and it says why.
    world.node.note(|evidence| evidence.contacts.remove(&cluster("eu-central-1")).is_some());
    let text = operator.does(&["why", "shop"]).await;
    holds(&text, &["NO TARGET", "its agent has not been heard within three heartbeats"]);
    assert!(!text.contains("Target:") && !text.contains("Expected loss"), "{text}");
    world.stop().await;
}

#[tokio::test]
async fn readiness_is_looked_at_anew_and_each_agent_is_told_of() {
    let (_authority, world, operator) = seen().await;
    world.finds_lacking("eu-west-1", "no right to fence");
    let said = operator.run(&["readiness", "shop", "--now"]).await;
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    holds(&said.out, &["AGE", "permission-missing", "no right to fence"]);
    let silent = "eu-central-1: NOT looked anew: its agent has no stream to coordinator 1";
    holds(&said.err, &["eu-west-1: looked anew, answered after", silent]);
    let json = operator.json(&["readiness", "shop", "--now"]).await;
    let looks = json["looks"].as_array().unwrap();
    let named: Vec<&str> = looks.iter().filter_map(|look| look["cluster"].as_str()).collect();
    assert_eq!(named, ["eu-west-1", "eu-central-1"]);
    assert_eq!(looks[0]["problem"], "");
    assert!(looks[1]["problem"].as_str().unwrap().contains("no stream"), "{json}");
    assert!(operator.json(&["readiness", "shop"]).await["looks"].as_array().unwrap().is_empty(), "nobody was asked");

    let refused = operator.run(&["readiness", "shop", "--now", "--fail-on", "warning"]).await;
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert_eq!(operator.run(&["readiness", "nil", "--now"]).await.code, 1);
    world.stop().await;
}

#[tokio::test]
async fn audit_members_and_runs_have_every_form() {
    let (_authority, world, operator) = seen().await;
    holds(&operator.does(&["audit"]).await, &["EVENT", "coordinator-joined", "adopted", "ann"]);
    assert_eq!(operator.json(&["audit", "shop", "--limit", "1"]).await["records"][0]["event"], "terms-confirmed");
    assert_eq!(operator.yaml(&["audit", "--after", "9999"]).await["records"].as_array().unwrap().len(), 0);
    holds(&operator.does(&["audit", "gone"]).await, &["Nothing is recorded."]);
    holds(&operator.does(&["members"]).await, &["leader", "follower", "127.0.0.1:7103"]);
    assert_eq!(operator.json(&["members"]).await["coordinators"][0]["leader"], true);
    assert_eq!(operator.yaml(&["members"]).await["coordinators"][2]["region"], "eu-north");
    holds(&operator.does(&["runs"]).await, &["There are no runs."]);
    assert_eq!(operator.json(&["runs", "--application", "shop"]).await["runs"].as_array().unwrap().len(), 0);
    world.stop().await;
}

#[tokio::test]
async fn status_prefers_a_coordinator_with_a_quorum() {
    let authority = Authority::new("dev");
    let alone = World::start(&authority, 2, None, shop_state()).await;
    let joined = World::start(&authority, 1, Some(1), shop_state()).await;
    let both = Operator::new(&authority, &[&alone, &joined]);
    assert_eq!(both.json(&["status"]).await["status"]["view"]["coordinator"], 1);
    // The mutation, too, goes to the one that can do it.
    holds(&both.does(&["pause", "shop", "--reason", "disks"]).await, &["shop is paused"]);
    let lonely = Operator::new(&authority, &[&alone]);
    holds(&lonely.does(&["status"]).await, &["NO QUORUM", "coordinator 2 has heard of no majority"]);
    alone.stop().await;
    joined.stop().await;
}

#[tokio::test]
async fn a_frozen_and_cooling_group_says_so() {
    let authority = Authority::new("dev");
    let mut state = shop_state();
    lose_region(&mut state);
    let clusters = ["eu-west-1", "eu-central-1"].map(crate::world::cluster).into();
    commit(&mut state, regent_core::entry::Entry::Frozen { clusters });
    let world = World::start(&authority, 1, Some(1), state).await;
    let operator = Operator::new(&authority, &[&world]);
    let text = operator.does(&["status"]).await;
    holds(&text, &["FROZEN: eu-central-1, eu-west-1 looked lost at once", "under way", "quarantined", "votes lost"]);
    holds(&operator.does(&["ack", "--all"]).await, &["the freeze is lifted"]);
    assert!(!operator.does(&["status"]).await.contains("FROZEN"));
    world.stop().await;
}
