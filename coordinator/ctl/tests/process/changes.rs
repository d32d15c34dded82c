//! Each change, and what refuses it.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use crate::terminal::{Operator, finish};
use crate::world::{Authority, World, shop_state};

const SHOP: &str = include_str!("../../../core/src/application/sample.yaml");

fn holds(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

fn file(authority: &Authority, text: &str) -> PathBuf {
    let path = authority.path().join("document.yaml");
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

#[tokio::test]
async fn a_document_is_previewed_created_and_changed() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), regent_core::state::State::default()).await;
    let operator = Operator::new(&authority, &[&world]);
    let path = file(&authority, SHOP);
    let shop = path.to_str().unwrap();

    holds(&operator.does(&["apply", "-f", shop, "--dry-run"]).await, &["shop would be created"]);
    assert!(world.node.replica.read(|state| state.applications.is_empty()));
    holds(&operator.does(&["apply", "-f", shop]).await, &["shop is created"]);
    holds(&operator.does(&["get"]).await, &["shop", "not adopted yet"]);

    file(&authority, &SHOP.replace("failoverAfter: 10s", "failoverAfter: 20s"));
    let preview = operator.does(&["apply", "-f", shop, "--dry-run"]).await;
    holds(&preview, &["shop would change (revision 2)", "spec.automation.failoverAfter", "10s", "20s"]);
    let changed = operator.json(&["apply", "-f", shop]).await;
    assert_eq!(changed["changes"][0]["path"], "spec.automation.failoverAfter");
    assert_eq!(changed["revision"], 2);
    world.stop().await;
}

#[tokio::test]
async fn a_document_comes_from_the_standard_input_too() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), regent_core::state::State::default()).await;
    let operator = Operator::new(&authority, &[&world]);
    let mut command = operator.command(&["apply", "-f", "-"]);
    command.stdin(Stdio::from(std::fs::File::open(file(&authority, SHOP)).unwrap()));
    let said = finish(command).await;
    assert_eq!(said.code, 0, "{}", said.err);
    holds(&said.out, &["shop is created"]);
    world.stop().await;
}

#[tokio::test]
async fn a_rule_that_refuses_is_named_and_gives_3() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    let moved = SHOP.replace("[eu-west-1, eu-central-1]", "[eu-north-1, eu-central-1]");
    let path = file(&authority, &moved);
    for arguments in
        [vec!["apply", "-f", path.to_str().unwrap()], vec!["apply", "-f", path.to_str().unwrap(), "--dry-run"]]
    {
        let said = operator.run(&arguments).await;
        assert_eq!(said.code, 3, "{}", said.err);
        holds(&said.err, &["would-move-primary", "switch over before it is removed"]);
    }
    world.stop().await;
}

#[tokio::test]
async fn pauses_and_acknowledgements_are_audited_with_their_operator() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    holds(
        &operator.does(&["pause", "shop", "--reason", "moving disks"]).await,
        &["shop is paused", "`regentctl resume shop` ends it", "Next (paused): nothing happens by itself"],
    );
    holds(&operator.does(&["get"]).await, &["paused by ann"]);
    holds(&operator.does(&["resume", "shop"]).await, &["shop is resumed", "Next (steady): nothing is to be done"]);
    holds(
        &operator.does(&["pause", "--all", "--reason", "network"]).await,
        &["everything is paused", "`regentctl resume --all` ends it", "Next (paused): "],
    );
    holds(&operator.does(&["status"]).await, &["PAUSED, everything: by ann", "network"]);
    holds(&operator.does(&["resume", "--all"]).await, &["everything is resumed", "Next (steady): "]);
    holds(&operator.does(&["ack", "shop"]).await, &["shop is acknowledged"]);
    let audit = operator.json(&["audit"]).await;
    let mine: Vec<&str> = audit["records"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["actor"] == "ann")
        .filter_map(|record| record["event"].as_str())
        .collect();
    assert_eq!(mine, ["applied", "paused", "resumed", "paused", "resumed", "acknowledged"]);
    world.stop().await;
}

#[tokio::test]
async fn the_limit_of_failovers_is_shown_set_and_set_back() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    holds(&operator.does(&["limit"]).await, &["At most 2 automatic failovers within 1h."]);
    holds(
        &operator.does(&["limit", "--failovers", "3", "--within", "30m"]).await,
        &["set; `regentctl limit` shows it"],
    );
    holds(&operator.does(&["limit"]).await, &["At most 3 automatic failovers within 30m."]);
    // The one that is not given gets its default.
    operator.does(&["limit", "--within", "1500ms"]).await;
    holds(&operator.does(&["limit"]).await, &["At most 2 automatic failovers within 1.5s."]);
    operator.does(&["limit", "--failovers", "5"]).await;
    let shown = operator.json(&["limit"]).await;
    assert_eq!((shown["events"].as_u64(), shown["window"].as_str()), (Some(5), Some("3600s")), "{shown}");
    operator.does(&["limit", "--default"]).await;
    holds(&operator.does(&["limit"]).await, &["At most 2 automatic failovers within 1h."]);

    for wrong in [&["limit", "--default", "--failovers", "3"][..], &["limit", "--within", "soon"]] {
        assert_eq!(operator.run(wrong).await.code, 2, "{wrong:?}");
    }
    let senseless = operator.run(&["limit", "--within", "8d"]).await;
    assert_eq!(senseless.code, 3, "{}", senseless.err);
    holds(&senseless.err, &["limit-senseless"]);
    let audit = operator.json(&["audit"]).await;
    let records = audit["records"].as_array().unwrap();
    let mine = records.iter().filter(|record| record["actor"] == "ann" && record["event"] == "limit-set").count();
    assert_eq!(mine, 4, "{audit}");
    world.stop().await;
}

#[tokio::test]
async fn a_cluster_is_taken_back_by_a_run_of_its_own() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    let primary = operator.run(&["rejoin", "shop", "eu-west-1"]).await;
    assert_eq!(primary.code, 3, "{}", primary.err);
    holds(&primary.err, &["rejoin-primary"]);
    let said = operator.does(&["rejoin", "shop", "eu-central-1", "--reclone", "--detach"]).await;
    holds(&said, &["eu-central-1 is taken back by run"]);
    let run = operator.json(&["runs"]).await["runs"][0].clone();
    assert_eq!((run["cause"]["kind"].as_str(), run["to"].as_str()), (Some("rejoin"), Some("eu-west-1")));
    let id = run["id"].to_string();
    holds(&operator.does(&["runs", &id]).await, &["taken back by ann; a fresh copy is allowed", "rejoin orders-db"]);
    let report = operator.does(&["report", &id]).await;
    holds(&report, &["takes eu-central-1 back as a standby of eu-west-1", "The primary stays where it is"]);
    let again = operator.run(&["rejoin", "shop", "eu-central-1"]).await;
    holds(&again.err, &["run-under-way"]);
    world.stop().await;
}

#[tokio::test]
async fn leadership_is_handed_over() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    holds(&operator.does(&["members", "transfer-leader", "2"]).await, &["coordinator 2 leads"]);
    world.stop().await;
}

#[tokio::test]
async fn without_a_quorum_a_change_gives_4() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, None, shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    let path = file(&authority, SHOP);
    for arguments in [
        vec!["pause", "shop", "--reason", "disks"],
        vec!["resume", "shop"],
        vec!["ack", "shop"],
        vec!["apply", "-f", path.to_str().unwrap()],
        vec!["get"],
        vec!["runs"],
        vec!["audit"],
        vec!["members"],
    ] {
        let said = operator.run(&arguments).await;
        assert_eq!(said.code, 4, "{arguments:?}: {}{}", said.out, said.err);
        holds(&said.err, &["no quorum"]);
    }
    let stale = operator.run(&["get", "--stale-ok"]).await;
    assert_eq!(stale.code, 0);
    holds(&stale.err, &["note: no quorum"]);
    holds(&stale.out, &["shop"]);
    world.stop().await;
}
