//! What the cards of an application say of a failover and of a move: rules, target, losses and times, in words.

use std::collections::BTreeMap;

use regent_core::application::{Action, Line, OnFailure, Runbook};
use regent_core::evidence::LastPosition;
use regent_core::facts::NodeFacts;
use regent_core::id::{LogIndex, RunId, Token};
use regent_core::state::Pause;
use regent_core::time::{Span, Timestamp};

use super::Server;
use super::fixture::{CENTRAL, NORTH, WEST, World, application, cluster, resource};

/// The card of `shop` under this heading.
async fn card(server: &Server, heading: &str) -> String {
    server.world.live_on();
    let page = server.get("/applications/shop").await.body;
    let from = page.find(&format!("<h2>{heading}</h2>")).unwrap_or_else(|| panic!("{heading} is not in\n{page}"));
    page[from..].split("</section>").next().unwrap().to_owned()
}

async fn why(server: &Server) -> String {
    card(server, "Would a failover start now?").await
}

fn assert_says(card: &str, texts: &[&str]) {
    for text in texts {
        assert!(card.contains(text), "{text} is not in\n{card}");
    }
}

fn line(action: Action, resources: &[&str]) -> Line {
    Line {
        action,
        resources: resources.iter().map(|name| resource(name)).collect(),
        timeout: Span::from_secs(60),
        retries: 3,
        on_failure: OnFailure::Stuck,
        when: None,
        duration: None,
        command: String::new(),
        question: String::new(),
        always: false,
    }
}

#[tokio::test]
async fn why_names_the_rules_the_target_and_why_not_the_others() {
    let server = Server::start(World::quiet()).await;
    let calm = why(&server).await;
    assert_says(
        &calm,
        &[
            "primary healthy",
            "<code>primary-not-lost</code> no majority has lost the agent of eu-west-1",
            "it would be promoted after <span class=\"number\">10.0 s</span> at the earliest",
            "<h3>To where</h3><p><strong>eu-central-1</strong></p>",
            "<strong>eu-north-1</strong>: fit; stands later in the list",
        ],
    );
    assert!(!calm.contains("<code>paused</code>"), "{calm}");

    server.world.change(|state| {
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        let reason = "the auditors are here".to_owned();
        shop.paused = Some(Pause { by: "anna".to_owned(), reason, at: Timestamp(0) });
        shop.excluded.insert(cluster(CENTRAL), "left in epoch 6: it rejoins first".to_owned());
    });
    let paused = why(&server).await;
    assert_says(
        &paused,
        &[
            "<code>paused</code> by anna: the auditors are here",
            "<h3>To where</h3><p><strong>eu-north-1</strong></p>",
            "<strong>eu-central-1</strong>: left in epoch 6: it rejoins first",
        ],
    );

    // Nobody is left.
    server.world.change(|state| {
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        shop.excluded.insert(cluster(NORTH), "left in epoch 5".to_owned());
    });
    let nowhere = why(&server).await;
    assert_says(&nowhere, &["no cluster can take over now", "<code>no-target</code>", "left in epoch 5"]);
    assert!(!nowhere.contains("Expected loss"), "{nowhere}");
    server.stop().await;
}

#[tokio::test]
async fn why_tells_the_loss_and_the_time_that_are_expected() {
    let world = World::quiet();
    // The primary was last seen further than what the standby has.
    world.node.note(|evidence| {
        let west = evidence.contacts.get_mut(&cluster(WEST)).unwrap();
        let seen = west.resources.get_mut(&application("shop")).unwrap().get_mut(&resource("orders-db")).unwrap();
        let at = seen.at.before(Span::from_secs(1));
        seen.last_position = Some(LastPosition { at, position: 0x2_6B00_0878, text: "2/6B000878".to_owned() });
    });
    let server = Server::start(world).await;
    let card = why(&server).await;
    assert_says(
        &card,
        &[
            "<h3>Expected loss</h3>",
            "<li>orders-db: 40ms (2/6B000878 → 2/6B000148)</li>",
            "<li>cache: 40ms (? → 88120443)</li>",
        ],
    );

    // The last switchover has promoted the database in 380 ms and moved the name in as long; the cache was never promoted.
    server.world.change(|state| {
        let lines = vec![line(Action::Promote, &["orders-db", "cache"]), line(Action::Redirect, &["www"])];
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        shop.document.runbooks = BTreeMap::from([("failover".to_owned(), Runbook { lines })]);
        let earlier = state.runs.get_mut(&RunId(3_120)).unwrap();
        for progress in &mut earlier.progress {
            progress.token = Some(Token { restoration: 0, index: LogIndex(3_121) });
        }
    });
    let card = why(&server).await;
    let expected =
        "From then on more than 760ms (one step was never done here) until service is back, by earlier runs.";
    assert_says(&card, &["<h3>In what time</h3>", expected]);
    server.stop().await;
}

#[tokio::test]
async fn the_readiness_card_says_what_how_bad_and_where() {
    let server = Server::start(World::quiet()).await;
    let before = card(&server, "Readiness").await;
    assert_says(
        &before,
        &[
            "<code>no-switchover-runbook</code> the document has no runbook for a switchover: it can only fail over",
            "<code>facts-missing</code> <strong>orders-db</strong> in <strong>eu-central-1</strong>: its agent has told",
        ],
    );
    assert!(!before.contains("clocks-apart") && !before.contains("warning"), "{before}");

    server.stop().await;

    let world = World::quiet();
    let now = world.node.now();
    world.node.note(|evidence| {
        let central = evidence.contacts.get_mut(&cluster(CENTRAL)).unwrap();
        central.node = Some(NodeFacts { at: now, ahead_ms: 3_000, certificate_until: None });
    });
    let server = Server::start(world).await;
    let after = card(&server, "Readiness").await;
    let apart = "<code>clocks-apart</code> in <strong>eu-central-1</strong>: the clock of its agent is 3s ahead of that of \
                 coordinator 2";
    assert_says(&after, &[apart, "warning"]);
    let place = |code: &str| after.find(code).unwrap();
    assert!(place("clocks-apart") < place("facts-missing"), "the worst comes first: {after}");
    server.stop().await;
}
