//! The dashboard, asked over HTTP, of a made-up group.
//!
//! To look at it: `REGENT_LOOK=127.0.0.1:8080 cargo test -p regent-coordinator --test dashboard -- --ignored look`
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use regent_coordinator::admin::{self, AdminError, Latch, Readiness};
use regent_core::decide::Viewpoint;
use regent_core::evidence::Health;
use regent_core::preflight::Severity;
use regent_core::readiness;
use regent_core::run::{Abort, RunStatus, StepState};
use regent_core::state::{CommitWindow, ORDER_STANDS, Order, OrderState, Origin, Pause, Wish};
use regent_core::time::{Span, Timestamp};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[path = "dashboard/cards.rs"]
mod cards;
#[path = "dashboard/fixture.rs"]
mod fixture;

use fixture::{CENTRAL, WEST, World, application, cluster, resource};
use regent_core::id::{Epoch, LogIndex, RunId};

struct Server {
    world: World,
    readiness: Readiness,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), AdminError>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Server {
    async fn start(world: World) -> Self {
        let bound = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.address();
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let task = tokio::spawn(bound.serve(world.node.clone(), readiness.clone(), shutdown.clone()));
        Self { world, readiness, address, shutdown, task }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.body).unwrap()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

/// Reads server-sent events of a page as they come.
struct Events {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Events {
    async fn open(server: &Server, page: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET /events?page={page} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The next page that contains the text; none if the server closed the stream.
    async fn until(&mut self, wanted: &str) -> Option<Value> {
        let reading = async {
            loop {
                while let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                    let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                    let event = String::from_utf8(event).unwrap();
                    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                    let value: Option<Value> = data.map(|data| serde_json::from_str(data).unwrap());
                    if let Some(value) = value.filter(|value| value["html"].as_str().unwrap().contains(wanted)) {
                        return Some(value);
                    }
                }
                if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                    return None;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("no such event came")
    }
}

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

#[tokio::test]
async fn text_from_elsewhere_is_only_text() {
    let world = World::failover();
    let evil = "<img src=x onerror=alert(1)>\"'&</title>";
    world.change(|state| {
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        shop.refusal = Some((evil.to_owned(), evil.to_owned()));
        shop.paused = Some(Pause { by: evil.to_owned(), reason: evil.to_owned(), at: Timestamp(0) });
        shop.excluded.insert(cluster(WEST), evil.to_owned());
        shop.held.clone_from(&shop.paused);
        shop.order = Some(order(evil));
        state.paused.clone_from(&shop.paused);
        for agent in state.agents.values_mut() {
            agent.peer_address = evil.to_owned();
            for endpoint in agent.endpoints.values_mut().flat_map(|all| all.values_mut()) {
                endpoint.addresses = vec![evil.to_owned()];
            }
        }
        for coordinator in state.coordinators.values_mut() {
            coordinator.dashboard = evil.to_owned();
        }
        for record in &mut state.audit {
            record.event = evil.to_owned();
            record.actor = evil.to_owned();
            record.detail = evil.to_owned();
        }
        for run in state.runs.values_mut() {
            run.finding.reasons = vec![evil.to_owned()];
            run.abort = Some(Abort { by: evil.to_owned(), reason: evil.to_owned(), at: Timestamp(0) });
            for gap in run.finding.gaps.values_mut() {
                gap.text = evil.to_owned();
            }
            for progress in &mut run.progress {
                progress.failure = Some((evil.to_owned(), evil.to_owned()));
                if let Some(report) = &mut progress.report {
                    report.message = evil.to_owned();
                }
            }
        }
        state.group = regent_core::id::GroupId(evil.to_owned());
    });
    world.node.note(|evidence| {
        let contacts =
            evidence.contacts.values_mut().chain(evidence.relayed.values_mut().flat_map(|all| all.values_mut()));
        for seen in contacts.flat_map(|contact| contact.resources.values_mut()).flat_map(|all| all.values_mut()) {
            seen.detail = evil.to_owned();
            seen.position_text = evil.to_owned();
            seen.health = Health::Failed;
        }
    });
    let server = Server::start(world).await;
    for path in PAGES {
        let page = server.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("<img"), "{path}");
        assert!(page.body.contains("&lt;img"), "{path} shows it as text");
        assert_eq!(page.body.matches("<script").count(), 1, "{path}");
        assert!(!page.body.contains("style="), "{path} has an inline style");
    }
    let search = server.get("/audit?application=%3Cscript%3Ealert(1)%3C/script%3E").await;
    assert_eq!(search.body.matches("<script").count(), 1);
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
async fn nothing_comes_from_elsewhere_and_nothing_can_be_changed() {
    let server = Server::start(World::failover()).await;
    for path in PAGES.into_iter().chain(["/assets/dashboard.css", "/assets/dashboard.js", "/api/view", "/nowhere"]) {
        let page = server.get(path).await;
        for header in [
            "content-security-policy: default-src 'none';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "x-frame-options: deny",
        ] {
            assert!(page.head.contains(header), "{path} lacks {header}");
        }
        assert!(!page.body.contains("http://") && !page.body.contains("https://"), "{path}");
    }
    for path in PAGES {
        let post = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(server.send(&post).await.status, 405, "{path}");
    }
    for path in
        ["/nowhere", "/applications/none", "/runs/1", "/runs/x", "/runs/99999999999999999999", "/%00", "/../etc/passwd"]
    {
        let page = server.get(path).await;
        assert!([400, 404].contains(&page.status), "{path}: {}", page.status);
    }
    server.stop().await;
}

#[tokio::test]
async fn garbage_stops_nobody() {
    let server = Server::start(World::quiet()).await;
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9\r\n\r\n", &[0xFF; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // An answer or a reset: either is fine.
        drop(stream.read_to_end(&mut rest).await);
    }
    assert_eq!(server.get("/").await.status, 200);
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
async fn ready_is_told_with_what_is_missing() {
    let server = Server::start(World::quiet()).await;
    assert_eq!(server.get("/livez").await.status, 200);
    for latch in [Latch::ConfigParsed, Latch::LogReplayed, Latch::TlsLoaded, Latch::MemberKnown] {
        server.readiness.set(latch);
    }
    let unready = server.get("/readyz").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.body, r#"{"missing":["dns-bound"],"ready":false,"warnings":[]}"#);
    server.readiness.set(Latch::DnsBound);
    assert_eq!(server.get("/readyz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn metrics_tell_the_state() {
    let server = Server::start(World::failover()).await;
    let text = server.get("/metrics").await.body;
    for line in [
        r#"regent_application_epoch{application="shop"} 8.0"#,
        r#"regent_application_primary{application="shop",cluster="eu-central-1"} 1.0"#,
        r#"regent_application_primary{application="shop",cluster="eu-west-1"} 0.0"#,
        r#"regent_lease_held{application="shop",cluster="eu-central-1"} 1.0"#,
        r#"regent_votes_standing{cluster="eu-west-1"} 2.0"#,
        r#"regent_replica_lag_bytes{application="shop",cluster="eu-north-1",resource="orders-db"} 3407872.0"#,
        r#"regent_resource_health{application="shop",cluster="eu-west-1",resource="orders-db",health="unknown"} 1.0"#,
        r#"regent_runs_total{application="shop",outcome="succeeded"} 1"#,
        r#"regent_run_active{application="shop"} 1.0"#,
        "regent_raft_term 14.0",
        "regent_raft_is_leader 1.0",
        "regent_quorum 1.0",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains(r#"regent_replica_lag_bytes{application="shop",cluster="eu-west-1""#), "unknown is absent");
    for severity in [Severity::Blocker, Severity::Warning, Severity::Info] {
        let start = format!(r#"regent_readiness_notes{{application="shop",severity="{}"}} "#, severity.as_str());
        let told = text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{start}\n{text}"));
        // What is only worth knowing here does not change with time: nobody has told any settings.
        if severity == Severity::Info {
            let (node, shop) = (&server.world.node, application("shop"));
            let view = Viewpoint { me: node.id, now: node.now(), wall: node.wall() };
            let notes = node.replica.read(|state| node.see(|evidence| readiness::notes(state, evidence, view, &shop)));
            let notes = notes.unwrap();
            let count = notes.iter().filter(|(_, note)| note.severity == severity).count();
            assert!(count > 0, "{notes:?}");
            assert_eq!(told, format!("{count}.0"));
        }
    }

    // The state forgets old runs; the counter does not fall.
    server.world.change(|state| {
        let mut run = state.runs.remove(&RunId(3_120)).unwrap();
        run.id = RunId(4_000);
        state.runs.insert(run.id, run);
    });
    let text = server.get("/metrics").await.body;
    assert!(text.contains(r#"regent_runs_total{application="shop",outcome="succeeded"} 2"#), "{text}");
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

#[tokio::test]
async fn a_taken_port_is_named_with_a_remedy() {
    let taken = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = admin::bind(taken.address()).await.unwrap_err().to_string();
    assert!(error.contains(&taken.address().to_string()) && error.contains("dashboard"), "{error}");
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
