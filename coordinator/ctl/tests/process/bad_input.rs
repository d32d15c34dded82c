//! What cannot be done, and how it is said.

use regent_proto::tls::Identity;

use crate::terminal::{Operator, bare, finish};
use crate::world::{Authority, World, shop_state};

fn holds(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[tokio::test]
async fn usage_gives_2_and_help_gives_0() {
    for arguments in [
        vec!["nonsense"],
        vec!["status", "-o", "xml"],
        vec!["pause"],
        vec!["pause", "shop"],
        vec!["pause", "shop", "--all", "--reason", "both"],
        vec!["clear", "1", "--step", "2"],
        vec!["runs", "--watch"],
        vec!["status", "--timeout", "soon"],
        vec!["status"],
        vec!["status", "--endpoints", "127.0.0.1:1"],
    ] {
        let said = finish(bare(&arguments)).await;
        assert_eq!(said.code, 2, "{arguments:?}: {}{}", said.out, said.err);
    }
    let help = finish(bare(&["--help"])).await;
    assert_eq!(help.code, 0);
    holds(&help.out, &["Exit codes:", "3  refused by a rule", "REGENT_ENDPOINTS", "Examples:"]);
    holds(&finish(bare(&["apply", "--help"])).await.out, &["--dry-run", "Examples:"]);
    assert_eq!(finish(bare(&["--version"])).await.code, 0);
}

#[tokio::test]
async fn every_endpoint_that_failed_is_named() {
    let authority = Authority::new("dev");
    // Bound and closed again: nobody listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said = Operator::at(&authority, &format!("{gone},{other},nonsense")).run(&["status"]).await;
    assert_eq!(said.code, 1);
    holds(&said.err, &["no coordinator answered", &gone, &other, "nonsense", "host:port"]);

    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::at(&authority, &format!("{gone},{}", world.address));
    holds(&operator.does(&["get"]).await, &["shop"]);
    world.stop().await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let authority = Authority::new("dev");
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap().to_string();
    let said = Operator::at(&authority, &address).run(&["status", "--timeout", "300ms"]).await;
    assert_eq!(said.code, 1);
    holds(&said.err, &[&address]);
}

#[tokio::test]
async fn a_foreign_certificate_is_refused() {
    let (authority, foreign) = (Authority::new("dev"), Authority::new("dev"));
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let said = Operator::new(&foreign, &[&world]).run(&["status"]).await;
    assert_eq!(said.code, 1);
    holds(&said.err, &["no coordinator answered", &world.address]);

    // Ours to the server, but the server is not of the authority that we trust.
    let operator = Operator::new(&authority, &[&world]);
    let ca = foreign.path().join("ca.pem");
    let said = operator.run(&["status", "--ca", ca.to_str().unwrap()]).await;
    assert_eq!(said.code, 1);
    holds(&said.err, &["was not issued by the authority"]);
    world.stop().await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_named() {
    let authority = Authority::new("dev");
    let operator = Operator::at(&authority, "127.0.0.1:1");
    let missing = operator.run(&["status", "--certs", "/nonexistent"]).await;
    assert_eq!(missing.code, 1);
    holds(&missing.err, &["/nonexistent/ca.pem", "regentctl certs"]);
    let files = authority.files("bob", &Identity::Operator("bob".into()));
    let mixed = operator.run(&["status", "--key", files.key.to_str().unwrap()]).await;
    assert_eq!(mixed.code, 1);
    holds(&mixed.err, &["does not belong to"]);
}

#[tokio::test]
async fn unknown_applications_and_bad_names_are_told_apart() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    for arguments in [
        vec!["get", "nil"],
        vec!["describe", "nil"],
        vec!["why", "nil"],
        vec!["pause", "nil", "--reason", "x"],
        vec!["resume", "nil"],
        vec!["ack", "nil"],
        vec!["runs", "--application", "nil"],
    ] {
        let said = operator.run(&arguments).await;
        assert_eq!(said.code, 1, "{arguments:?}: {}", said.err);
        holds(&said.err, &["application nil does not exist"]);
    }
    let bad = operator.run(&["get", "Not A Name"]).await;
    assert_eq!(bad.code, 2, "{}", bad.err);
    world.stop().await;
}

#[tokio::test]
async fn each_mistake_of_a_document_is_shown_at_its_place() {
    let authority = Authority::new("dev");
    let path = authority.path().join("bad.yaml");
    let text = include_str!("../../../core/src/application/sample.yaml")
        .replace("mode: automatic", "mode: sometimes")
        .replace("- redirect: [www]", "- redirect: [wwww]");
    std::fs::write(&path, text).unwrap();
    let file = path.to_str().unwrap();
    let said = finish(bare(&["validate", "-f", file])).await;
    assert_eq!(said.code, 1);
    holds(&said.err, &["has 2 mistakes", "mode: sometimes", "^", "- redirect: [wwww]", "spec.automation.mode"]);
    // Before anything is sent.
    let operator = Operator::at(&authority, "127.0.0.1:1");
    let applied = operator.run(&["apply", "-f", file]).await;
    assert_eq!(applied.code, 1);
    holds(&applied.err, &["has 2 mistakes"]);

    let surprising = authority.path().join("surprising.yaml");
    let text = include_str!("../../../core/src/application/sample.yaml")
        .replace("mode: automatic", "mode: automatic\n    commitWithin: 1h");
    std::fs::write(&surprising, text).unwrap();
    let said = finish(bare(&["validate", "-f", surprising.to_str().unwrap()])).await;
    assert_eq!(said.code, 0, "it is no mistake: {}", said.err);
    holds(&said.err, &["note: spec.automation.commitWithin is 1h", "no commit window ever opens"]);

    for (content, name) in [("{", "broken.yaml"), ("", "empty.yaml")] {
        let path = authority.path().join(name);
        std::fs::write(&path, content).unwrap();
        let said = finish(bare(&["validate", "-f", path.to_str().unwrap()])).await;
        assert_eq!(said.code, 1, "{name}");
        holds(&said.err, &[name]);
    }
    let missing = finish(bare(&["validate", "-f", "/nonexistent.yaml"])).await;
    assert_eq!(missing.code, 1);
    holds(&missing.err, &["cannot read /nonexistent.yaml"]);
}

#[tokio::test]
async fn what_needs_no_coordinator_works_without_one() {
    let shop = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/src/application/sample.yaml");
    holds(&finish(bare(&["validate", "-f", shop])).await.out, &["the application shop is valid"]);
    let schema = finish(bare(&["schema"])).await;
    assert_eq!(schema.code, 0);
    assert!(serde_json::from_str::<serde_json::Value>(&schema.out).unwrap().is_object());
    for shell in ["bash", "zsh", "fish"] {
        let said = finish(bare(&["completion", shell])).await;
        assert_eq!(said.code, 0);
        holds(&said.out, &["regentctl", "transfer-leader"]);
    }
    assert_eq!(finish(bare(&["completion", "tcsh"])).await.code, 2);
}
