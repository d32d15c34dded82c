//! What machines ask for: whether the coordinator is ready, and its metrics.

use regent_coordinator::admin::{self, Latch};
use regent_core::decide::Viewpoint;
use regent_core::id::RunId;
use regent_core::preflight::Severity;
use regent_core::readiness;

use super::fixture::{World, application};
use super::server::Server;

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
async fn a_taken_port_is_named_with_a_remedy() {
    let taken = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = admin::bind(taken.address()).await.unwrap_err().to_string();
    assert!(error.contains(&taken.address().to_string()) && error.contains("dashboard"), "{error}");
}
