//! Text from elsewhere is only text, nothing can be changed by a request, and garbage stops nobody.

use regent_core::evidence::Health;
use regent_core::run::Abort;
use regent_core::state::Pause;
use regent_core::time::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::fixture::{WEST, World, application, cluster};
use super::server::Server;
use super::{PAGES, order};

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
