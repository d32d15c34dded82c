//! Runs: step by step, live, stuck, cleared and reported.

use regent_core::application::Action;
use regent_core::entry::Outcome;
use regent_core::run::StepKind;
use regent_proto::tls::Identity;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::moving::{advance, keep_hearing, movable};
use crate::terminal::Operator;
use crate::world::{Authority, DEADLINE, World, attempt, done, finish, report, shop_state};

fn holds(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

/// The promotion fails for good.
fn stick(world: &World, run: u64) -> u64 {
    let steps = world.node.replica.read(|state| state.runs[&regent_core::id::RunId(run)].steps.clone());
    let promote = steps.iter().find(|step| !step.detached).unwrap().id.0;
    let message = "the server did not leave recovery within 30s".to_owned();
    for entry in attempt(run, promote, 1, Outcome::Failed { code: "timeout".into(), message, retryable: false }) {
        world.apply(entry);
    }
    promote
}

#[tokio::test]
async fn a_run_is_followed_and_ends_with_its_outcome() {
    let authority = Authority::new("dev");
    let (world, run) = World::with_run(&authority).await;
    let operator = Operator::new(&authority, &[&world]);
    let id = run.to_string();
    holds(&operator.does(&["runs"]).await, &[&id, "shop", "running", "the region was lost"]);
    holds(&operator.does(&["runs", &id]).await, &["promote orders-db", "pending", "on ground lost"]);

    let mut child = operator.start(&["runs", &id, "--watch"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    assert_eq!(first, format!("Run {run}: shop from eu-west-1 to eu-central-1, because the region was lost"));
    finish(run, &world);
    let mut rest = String::new();
    while let Some(line) = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap() {
        rest += &line;
        rest.push('\n');
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    holds(
        &rest,
        &["promote orders-db", "redirect www", "verify checks", "done", &format!("Run {run} succeeded after")],
    );
    // A run that has ended is told as it is.
    holds(&operator.does(&["runs", &id, "--watch"]).await, &["succeeded"]);
    assert_eq!(operator.json(&["runs", &id]).await["run"]["status"], "RUN_STATUS_SUCCEEDED");
    assert_eq!(operator.yaml(&["runs", &id]).await["run"]["to"], "eu-central-1");
    world.stop().await;
}

#[tokio::test]
async fn a_stuck_run_ends_the_watch_with_5_and_says_what_to_do() {
    let authority = Authority::new("dev");
    let (world, run) = World::with_run(&authority).await;
    let step = stick(&world, run);
    let operator = Operator::new(&authority, &[&world]);
    let id = run.to_string();
    let said = operator.run(&["runs", &id, "--watch"]).await;
    assert_eq!(said.code, 5, "{}", said.err);
    let retry = format!("regentctl clear {run} --step {step} --retry");
    holds(&said.err, &["is stuck and needs a human", "timeout: the server did not leave recovery", &retry]);
    holds(&said.err, &["its page:      deploy/runbooks/timeout.md", "Next (stuck): mend step"]);
    assert!(!said.err.contains("--done"), "it would be refused: {}", said.err);
    holds(&operator.does(&["describe", "shop"]).await, &["stuck: orders-db"]);

    let step = step.to_string();
    // Nobody's word opens a database: its agent must know that it did.
    let unsaid = operator.run(&["clear", &id, "--step", &step, "--done"]).await;
    assert_eq!(unsaid.code, 2, "{}", unsaid.err);
    holds(&unsaid.err, &["--reason"]);
    let word = operator.run(&["clear", &id, "--step", &step, "--done", "--reason", "opened by hand"]).await;
    assert_eq!(word.code, 3, "{}", word.err);
    holds(&word.err, &["open-by-word"]);
    let cleared =
        operator.does(&["clear", &id, "--step", &step, "--retry", "--reason", "the disk has room again"]).await;
    holds(&cleared, &["is tried again (log index ", "Next (past-return): it only goes forward"]);
    holds(&operator.does(&["audit", "shop"]).await, &["retry: the disk has room again"]);
    let again = operator.run(&["clear", &id, "--step", &step, "--retry"]).await;
    assert_eq!(again.code, 3, "{}", again.err);
    holds(&again.err, &["not-stuck"]);
    world.stop().await;
}

/// The first step of this kind fails for good.
fn fail_next(world: &World, run: u64, kind: StepKind) -> u64 {
    let steps = world.node.replica.read(|state| state.runs[&regent_core::id::RunId(run)].steps.clone());
    let step = steps.iter().find(|step| step.kind == kind).unwrap().id.0;
    let message = "the agent has not reported".to_owned();
    for entry in attempt(run, step, 1, Outcome::Failed { code: "no-report".into(), message, retryable: false }) {
        world.apply(entry);
    }
    step
}

#[tokio::test]
async fn an_undo_that_is_stuck_ends_the_watch_with_5_and_is_listed_so() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), movable("maxWriteOutage: 20s")).await;
    keep_hearing(&world.node);
    let operator = Operator::new(&authority, &[&world]);
    operator.does(&["switchover", "shop"]).await;
    let run = world.node.replica.read(|state| state.applications[&crate::world::shop()].run.unwrap().0);
    advance(&world, run, StepKind::Action(Action::Fence));
    let id = run.to_string();
    operator.does(&["abort", &id, "--reason", "not now"]).await;
    holds(&operator.does(&["runs"]).await, &["undoing"]);
    let step = fail_next(&world, run, StepKind::Unfence);

    let said = operator.run(&["runs", &id, "--watch"]).await;
    assert_eq!(said.code, 5, "{}{}", said.out, said.err);
    let retry = format!("try again:     regentctl clear {run} --step {step} --retry");
    holds(&said.err, &["needs a human", "unfence orders-db in eu-west-1: no-report: ", &retry, "Next (undo-stuck): "]);
    assert!(!said.err.contains("--done"), "it would be refused: {}", said.err);
    let listed = operator.does(&["runs"]).await;
    assert!(listed.contains("stuck") && !listed.contains("undoing"), "{listed}");
    holds(
        &operator.does(&["runs", &id]).await,
        &["Status:   stuck", "Next:     eu-west-1 does not open again", &retry],
    );
    holds(&operator.does(&["report", &id]).await, &["gave up moving", "needs a human"]);

    let step = step.to_string();
    let cleared = operator.does(&["clear", &id, "--step", &step, "--retry"]).await;
    holds(&cleared, &["Next (undoing): "]);
    holds(&operator.does(&["runs"]).await, &["undoing"]);
    world.stop().await;
}

#[tokio::test]
async fn what_may_be_said_to_be_done_by_hand_is_offered_so() {
    let authority = Authority::new("dev");
    let (world, run) = World::with_run(&authority).await;
    let promote = world.node.replica.read(|state| {
        let run = &state.runs[&regent_core::id::RunId(run)];
        run.steps.iter().find(|step| step.kind == StepKind::Action(Action::Promote)).unwrap().id.0
    });
    for entry in done(run, promote, report()) {
        world.apply(entry);
    }
    // The coordinators give the new answer from its intent on; some server elsewhere does not.
    let step = fail_next(&world, run, StepKind::Action(Action::Redirect));
    let operator = Operator::new(&authority, &[&world]);
    let id = run.to_string();
    let word = format!("done by hand:  regentctl clear {run} --step {step} --done --reason WHAT");
    holds(&operator.does(&["runs", &id]).await, &["Status:   stuck", &word]);
    let step = step.to_string();
    let said = operator.does(&["clear", &id, "--step", &step, "--done", "--reason", "dig shows it"]).await;
    holds(&said, &["is taken as done (log index ", "Next (past-return): "]);
    world.stop().await;
}

#[tokio::test]
async fn a_report_can_be_handed_on() {
    let authority = Authority::new("dev");
    let (world, run) = World::with_run(&authority).await;
    finish(run, &world);
    let operator = Operator::new(&authority, &[&world]);
    let id = run.to_string();
    let markdown = operator.does(&["report", &id]).await;
    holds(
        &markdown,
        &[
            "# shop: eu-west-1 → eu-central-1",
            "## Objectives",
            "| RTO: time without service | 1h | 1m1s | met |",
            "| RPO: time of lost writes | 5m | 200ms | met |",
            "- 2 of 3 coordinators have not heard the agent of eu-west-1 for 1m",
            "at least 4096 bytes",
            "promote orders-db",
            "| www | 127.0.0.1:7303 | 1.2s | gave the new answer |",
            "decided",
        ],
    );
    let html = operator.does(&["report", &id, "-o", "html"]).await;
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    holds(&html, &["<h2>Data loss</h2>", "at least 4096 bytes"]);
    assert_eq!(operator.json(&["report", &id]).await["report"]["losses"][0]["bytes"], 4096);
    world.stop().await;
}

#[tokio::test]
async fn a_lost_coordinator_is_replaced_in_the_middle_of_a_watch() {
    let authority = Authority::new("dev");
    let (first, run) = World::with_run(&authority).await;
    let (second, same) = World::with_run(&authority).await;
    assert_eq!(run, same);
    let operator = Operator::new(&authority, &[&first, &second]);
    let mut child = operator.start(&["runs", &run.to_string(), "--watch"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap();
    first.stop().await;
    finish(run, &second);
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    second.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_told() {
    let authority = Authority::new("dev");
    let world = World::start(&authority, 1, Some(1), shop_state()).await;
    let operator = Operator::new(&authority, &[&world]);
    for arguments in [["runs", "99"].as_slice(), &["report", "99"], &["runs", "99", "--watch"]] {
        let said = operator.run(arguments).await;
        assert_eq!(said.code, 1, "{arguments:?}");
        holds(&said.err, &["run 99 does not exist"]);
    }
    // The certificate of someone else's role is told apart from a failure of the connection.
    let files = authority.files("eu-west-1", &Identity::Agent("eu-west-1".into()));
    let (cert, key) = (files.certificate.to_str().unwrap(), files.key.to_str().unwrap());
    let said = operator.run(&["status", "--cert", cert, "--key", key]).await;
    assert_eq!(said.code, 1);
    holds(&said.err, &["agent/eu-west-1 may not do this"]);
    world.stop().await;
}
