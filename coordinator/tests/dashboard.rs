//! The dashboard, asked over HTTP, of a made-up group.
//!
//! To look at it: `REGENT_LOOK=127.0.0.1:8080 cargo test -p regent-coordinator --test dashboard -- --ignored look`
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use regent_coordinator::admin::{self, Readiness};
use regent_core::application::Action;
use regent_core::run::{RunStatus, StepKind, StepState, UNDO_STAGE};
use regent_core::state::{CommitWindow, ORDER_STANDS, Order, OrderState, Origin, Pause, Wish};
use regent_core::time::{Span, Timestamp};
use tokio_util::sync::CancellationToken;

#[path = "dashboard/cards.rs"]
mod cards;
#[path = "dashboard/fixture.rs"]
mod fixture;
#[path = "dashboard/hostile.rs"]
mod hostile;
#[path = "dashboard/machines.rs"]
mod machines;
#[path = "dashboard/server.rs"]
mod server;

use fixture::{CENTRAL, WEST, World, application, cluster, resource};
use regent_core::id::{Epoch, LogIndex, RunId};
use server::{Events, Server};

const PAGES: [&str; 7] =
    ["/", "/applications/shop", "/applications/billing", "/runs", "/runs/4711", "/runs/3120", "/audit"];

#[tokio::test]
async fn the_overview_shows_the_run_the_matrix_and_the_applications() {
    let server = Server::start(World::failover()).await;
    let page = server.get("/").await;
    assert_eq!(page.status, 200);
    for text in ["Failover of shop", "eu-west-1", "eu-central", "vote, after 2.50 s", "lost by a majority", "epoch"] {
        assert!(page.body.contains(text), "{text:?} is missing");
    }
    assert!(!page.body.contains("No quorum"));
    server.stop().await;
}

#[tokio::test]
async fn a_run_is_measured_against_the_objectives() {
    let server = Server::start(World::failover()).await;
    let view = server.json("/api/view").await;
    let run = &view["runs"][0];
    assert_eq!(run["id"], 4711);
    assert_eq!(run["recovery"]["measured_from"], "last-contact");
    assert_eq!(run["recovery"]["done"], false);
    assert_eq!(run["recovery"]["objective"], "within-so-far");
    assert!(run["recovery"]["elapsed_ms"].as_u64().unwrap() >= 18_400);
    assert_eq!(run["loss"]["bytes"], 1840);
    assert_eq!(run["loss"]["lag_ms"], 40);
    assert_eq!(run["loss"]["objective"], "met");
    assert_eq!(run["awaiting"].as_array().unwrap().len(), 1, "what is not awaited is not named");

    server.world.change(|state| {
        let run = state.runs.get_mut(&RunId(4_711)).unwrap();
        let end = Timestamp(run.started.0 + 4_000);
        for progress in &mut run.progress[2..] {
            progress.state = StepState::Succeeded;
            progress.started = progress.started.or(Some(run.started));
            progress.ended = Some(end);
        }
        run.status = RunStatus::Succeeded;
        run.ended = Some(Timestamp(end.0 + 9_000));
    });
    let view = server.json("/api/view").await;
    let recovery = &view["runs"][0]["recovery"];
    assert_eq!(
        recovery["elapsed_ms"],
        10_300 + 4_000,
        "from the last contact to the last step that brings service back"
    );
    assert_eq!((recovery["done"].as_bool(), recovery["objective"].as_str()), (Some(true), Some("met")));
    let planned = &view["runs"][1];
    assert_eq!(planned["recovery"]["measured_from"], "first-fence");
    assert_eq!(planned["loss"]["none_by_catch_up"], true);
    assert_eq!(server.json("/api/runs/3120").await["id"], 3120);
    assert_eq!(server.get("/api/runs/1").await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn an_undo_that_is_stuck_is_told_as_what_waits_for_a_human() {
    let server = Server::start(World::failover()).await;
    server.world.change(|state| {
        let run = state.runs.get_mut(&RunId(4_711)).unwrap();
        (run.decided, run.status) = (None, RunStatus::Undoing);
        for (step, progress) in run.steps.iter_mut().zip(&mut run.progress).skip(2) {
            (step.stage, step.kind, step.cluster) = (UNDO_STAGE, StepKind::Unfence, cluster(WEST));
            progress.state = StepState::Pending;
        }
    });
    let undoing = server.json("/api/view").await["runs"][0].clone();
    assert_eq!((undoing["state"].as_str(), undoing["advice"]["state"].as_str()), (Some("undoing"), Some("undoing")));
    server.world.change(|state| {
        let progress = &mut state.runs.get_mut(&RunId(4_711)).unwrap().progress[2];
        progress.state = StepState::Stuck;
        progress.failure = Some(("no-report".to_owned(), "silence".to_owned()));
    });
    let stuck = server.json("/api/view").await["runs"][0].clone();
    assert_eq!((stuck["state"].as_str(), stuck["advice"]["state"].as_str()), (Some("stuck"), Some("undo-stuck")));
    let command = "regentctl clear 4711 --step 2 --retry";
    let awaited = stuck["awaiting"].to_string();
    assert!(awaited.contains(&format!("is stuck; mend it, then {command}")), "{awaited}");
    let page = server.get("/runs/4711").await.body;
    let route = page.split("<p class=\"route\">").nth(1).unwrap().split("</p>").next().unwrap();
    assert!(route.contains("badge bad") && route.contains("stuck"), "{route}");
    assert!(page.contains("unfence cache"), "what is still to be undone is shown:\n{page}");
    let metrics = server.get("/metrics").await.body;
    let flag = metrics.lines().find(|line| line.starts_with("regent_run_stuck{") && line.contains("shop"));
    assert!(flag.is_some_and(|line| line.ends_with(" 1.0")), "{flag:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_question_is_awaited_with_its_answer_until_the_run_is_undone() {
    let server = Server::start(World::failover()).await;
    let set = |status: RunStatus, phase: StepState| {
        server.world.change(|state| {
            let run = state.runs.get_mut(&RunId(4_711)).unwrap();
            run.status = status;
            let step = &mut run.steps[4];
            (step.kind, step.resource) = (StepKind::Action(Action::Approve), None);
            step.question = "Has the bank been told?".to_owned();
            run.progress[4].state = phase;
        });
    };
    let answer = "a human: Has the bank been told? (regentctl approve 4711 4 --reason WHY)";
    for (status, phase) in [(RunStatus::Running, StepState::Running), (RunStatus::Stuck, StepState::Stuck)] {
        set(status, phase);
        let awaited = server.json("/api/view").await["runs"][0]["awaiting"].to_string();
        assert!(awaited.contains(answer) && !awaited.contains("mend it"), "{awaited}");
    }
    server.world.change(|state| state.runs.get_mut(&RunId(4_711)).unwrap().decided = None);
    set(RunStatus::Undoing, StepState::Running);
    let awaited = server.json("/api/view").await["runs"][0]["awaiting"].to_string();
    assert!(!awaited.contains("the bank"), "{awaited}");
    server.stop().await;
}

#[tokio::test]
async fn an_old_run_has_a_page() {
    let server = Server::start(World::failover()).await;
    server.world.change(|state| {
        let pattern = state.runs[&RunId(3_120)].clone();
        for id in 5_000..5_100 {
            let mut run = pattern.clone();
            run.id = RunId(id);
            state.runs.insert(run.id, run);
        }
    });
    assert_eq!(server.json("/api/view").await["runs"].as_array().unwrap().len(), 50);
    assert_eq!(server.get("/runs/3120").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn what_is_stale_is_unknown() {
    let server = Server::start(World::failover()).await;
    let view = server.json("/api/view").await;
    let shop = view["applications"].as_array().unwrap().iter().find(|app| app["name"] == "shop").unwrap();
    let west = shop["clusters"].as_array().unwrap().iter().find(|at| at["cluster"] == WEST).unwrap();
    assert_eq!(west["health"], "unknown");
    assert_eq!(west["lease"], "unknown", "7.9 s of lease told 18 s ago");
    assert_eq!(west["fence"], "unknown");
    assert_eq!(west["resources"][1]["stale"], true);
    let central = shop["clusters"].as_array().unwrap().iter().find(|at| at["cluster"] == CENTRAL).unwrap();
    assert_eq!((central["role"].as_str(), central["lease"].as_str()), (Some("primary"), Some("held")));

    let sights = |name: &str| {
        let all = view["clusters"].as_array().unwrap();
        let found = all.iter().find(|at| at["name"] == name).unwrap();
        found["observers"].as_array().unwrap().iter().map(|sight| sight["contact"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(sights(WEST), ["unknown", "lost", "lost"], "what an observer that is gone itself sees is not known");
    assert_eq!(sights(CENTRAL), ["unknown", "heard", "heard"]);
    server.stop().await;
}

#[tokio::test]
async fn without_quorum_the_page_says_so_and_how_old_it_is() {
    let server = Server::start(World::quiet()).await;
    server.world.lose_quorum(Duration::from_secs(130));
    let page = server.get("/").await;
    assert!(page.body.contains("No quorum.") && page.body.contains("2 min 10 s"), "{}", page.body);
    assert!(page.body.contains("<title>No quorum"), "the tab says so, too");
    let view = server.json("/api/view").await;
    assert_eq!(view["quorum"]["held"], false);
    assert!(view["quorum"]["view_age_ms"].as_u64().unwrap() >= 130_000);
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("regent_quorum 0.0"), "{metrics}");
    server.stop().await;
}

/// An operator's order that waits for a second person.
fn order(reason: &str) -> Order {
    let wish = Wish {
        by: "anna".to_owned(),
        to: cluster(CENTRAL),
        reason: reason.to_owned(),
        allow_data_loss: Some(reason.to_owned()),
        attestation: None,
    };
    Order {
        id: LogIndex(4_700),
        epoch: Epoch(7),
        origin: Origin::Operator(wish),
        state: OrderState::Asked,
        since: Timestamp(0),
        within: ORDER_STANDS,
        run: None,
        declined: None,
    }
}

#[tokio::test]
async fn what_an_operator_has_said_is_seen_by_all() {
    let world = World::quiet();
    let wall = world.node.wall();
    world.change(|state| {
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        shop.held = Some(Pause { by: "anna".to_owned(), reason: "end of the quarter".to_owned(), at: wall });
        let back_to = cluster(CENTRAL);
        shop.window = Some(CommitWindow { run: RunId(3_120), back_to, since: wall, within: Span::from_secs(3_600) });
        shop.order = Some(order("the region burns"));
    });
    let server = Server::start(world).await;
    let page = server.get("/applications/shop").await.body;
    for text in [
        "Planned moves are held",
        "end of the quarter",
        "Can be rolled back",
        "run 3120",
        "the region burns",
        "regentctl approve 4700",
        "Lost this moment",
    ] {
        assert!(page.contains(text), "{text} is not in\n{page}");
    }
    let metrics = server.get("/metrics").await.body;
    for line in [
        r#"regent_application_held{application="shop"} 1.0"#,
        r#"regent_application_asks{application="shop"} 1.0"#,
        r#"regent_application_asks{application="billing"} 0.0"#,
        r#"regent_application_commit_window_seconds{application="billing"} 0.0"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    let run = server.get("/runs/3120").await.body;
    assert!(run.contains("regentctl rollback shop"), "{run}");
    server.stop().await;
}

#[tokio::test]
async fn events_follow_what_is_applied_and_end_with_the_server() {
    let server = Server::start(World::failover()).await;
    let mut events = Events::open(&server, "/runs/4711").await;
    let first = events.until("promote cache").await.unwrap();
    assert!(first["title"].as_str().unwrap().starts_with("Run 4711"));
    server.world.change(|state| {
        let run = state.runs.get_mut(&RunId(4_711)).unwrap();
        run.progress[3].failure = Some(("later".to_owned(), "a <new> failure".to_owned()));
    });
    events.until("a &lt;new&gt; failure").await.unwrap();
    server.world.lose_quorum(Duration::from_secs(60));
    events.until("No quorum").await.unwrap();
    server.stop().await;
    assert_eq!(events.until("never").await, None);
}

#[tokio::test]
async fn a_page_of_something_to_come_shows_it_when_it_comes() {
    let server = Server::start(World::quiet()).await;
    let mut events = Events::open(&server, "/runs/6000").await;
    events.until("nothing here").await.unwrap();
    server.world.change(|state| {
        let mut run = state.runs[&RunId(3_120)].clone();
        run.id = RunId(6_000);
        state.runs.insert(run.id, run);
    });
    events.until("Switchover of shop").await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_empty_group_has_pages_too() {
    let world = World::quiet();
    world.change(|state| *state = regent_core::state::State { applied: LogIndex(1), ..Default::default() });
    world.node.note(|evidence| *evidence = regent_core::evidence::Evidence::default());
    let server = Server::start(world).await;
    for path in ["/", "/runs", "/audit"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    assert_eq!(server.get("/metrics").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn an_application_that_is_not_adopted_is_shown() {
    let world = World::quiet();
    world.change(|state| {
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        shop.primary = None;
        shop.epoch = regent_core::id::Epoch(0);
        shop.terms.clear();
        shop.answers.clear();
        shop.stuck.entry(cluster("eu-central-1")).or_default().insert(resource("cache"), RunId(3_120));
    });
    let server = Server::start(world).await;
    let page = server.get("/applications/shop").await;
    assert!(page.body.contains("nowhere yet") && page.body.contains("left half-changed"), "{}", page.body);
    server.stop().await;
}

/// Serves a made-up state until the process is ended, to be looked at.
#[tokio::test]
#[ignore = "for eyes only"]
async fn look() {
    let Ok(listen) = std::env::var("REGENT_LOOK") else { return };
    let world = match std::env::var("REGENT_SCENE").as_deref() {
        Ok("quiet") => World::quiet(),
        Ok("no-quorum") => {
            let world = World::failover();
            world.lose_quorum(Duration::from_secs(47));
            world
        }
        _ => World::failover(),
    };
    let bound = admin::bind(listen.parse().unwrap()).await.unwrap();
    let serving = bound.serve(world.node.clone(), Readiness::default(), CancellationToken::new());
    let living = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            world.live_on();
        }
    };
    tokio::select! {
        ended = serving => ended.unwrap(),
        () = living => {}
    }
}
