//! What is really answered after a redirect, and probes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use regent_agent::driver::process::children::Children;
use regent_agent::driver::{Driver, Health, StaleAnswer, build};
use regent_core::facts::{AuthorityFacts, DnsFacts, ResolverFacts};
use regent_core::time::Span;
use tokio::net::UdpSocket;

use crate::guard::redirect;
use crate::servers::{Kind, NAME, SECRET, Server, free_port};
use crate::support::{driver, until};

/// A resource of the embedded kind: nothing is updated.
fn embedded(authorities: &[String], more: &str) -> String {
    format!("kind: dns\naddresses: [127.0.0.10]\nauthorities: [{}]\n{more}", authorities.join(", "))
}

/// The driver of a resource, with resolvers.
fn through(resolvers: &[SocketAddr], resource: &str) -> Arc<dyn Driver> {
    let listed: Vec<String> = resolvers.iter().map(ToString::to_string).collect();
    let text =
        crate::support::document(resource).replace("resolvers: []", &format!("resolvers: [{}]", listed.join(", ")));
    let config = regent_agent::config::Config::parse(&text, std::path::Path::new("/agent.yaml")).unwrap();
    let (application, resources) = config.applications.iter().next().unwrap();
    let (name, options) = resources.iter().next().unwrap();
    let resolvers = config.resolver_addresses();
    build::build(&config.cluster, application, name, options, &resolvers, &Children::default(), &config.data_directory)
        .unwrap()
}

/// What the driver finds of the name.
async fn found(driver: &dyn Driver) -> DnsFacts {
    driver.facts().await.unwrap().findings.dns.unwrap()
}

#[tokio::test]
async fn what_answers_rightly_is_only_looked_at() {
    let (one, two) = (Server::start(Kind::Knot).await, Server::start(Kind::Bind).await);
    let driver = driver(&embedded(&[one.address.to_string(), two.address.to_string()], ""));
    let done = driver.redirect(&redirect(1, &["127.0.0.10"])).await.unwrap();
    assert_eq!(done.stale_answers, []);
    assert_eq!(driver.verify().await.unwrap().stale_answers, []);
    assert_eq!(one.dig("_regent.www.example.test.", "TXT"), "", "nothing was written");
}

#[tokio::test]
async fn an_old_answer_is_awaited_and_reported() {
    let (primary, late) = (Server::start(Kind::Knot).await, Server::start(Kind::Bind).await);
    let update = Server::update(primary.address, "regent.", SECRET);
    let (counted, asked) = counting(late.address).await;
    let driver = driver(&format!("kind: dns\naddresses: [127.0.0.12]\nauthorities: [{counted}]\n{update}"));
    let task = tokio::spawn(async move { driver.redirect(&redirect(1, &["127.0.0.12"])).await });
    until("the primary has the new answer", async || primary.dig(NAME, "A") == "127.0.0.12").await;
    until("the other authority was asked", async || asked.load(Ordering::SeqCst) > 0).await;
    assert!(!task.is_finished(), "the other authority still gives the old answer");
    late.nsupdate(&format!("update delete {NAME} A\nupdate add {NAME} 30 A 127.0.0.12"));
    let done = task.await.unwrap().unwrap();
    let [stale] = done.stale_answers.as_slice() else { panic!("{done:?}") };
    assert_eq!(stale.server, counted.to_string());
    assert!(stale.cleared && stale.reached && stale.lasted > Duration::ZERO, "{stale:?}");
}

#[tokio::test]
async fn an_old_address_beside_the_new_one_is_old() {
    let server = Server::start_with(Kind::Knot, "www A 127.0.0.10\nwww AAAA ::5").await;
    let driver = driver(&embedded(&[server.address.to_string()], "timeout: 300ms"));
    let error = driver.redirect(&redirect(1, &["127.0.0.10"])).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("dns-still-old", true));
    assert!(error.message.contains(&server.address.to_string()) && error.message.contains("::5"), "{error}");
}

/// The DNS server of a dead region must not block the failover out of it.
#[tokio::test]
async fn an_unreachable_server_holds_nobody_up() {
    let server = Server::start(Kind::Knot).await;
    let refusing = format!("127.0.0.1:{}", free_port());
    let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent = hole.local_addr().unwrap().to_string();
    let failing = failing().await.to_string();
    let authorities = [refusing.clone(), silent.clone(), failing.clone(), server.address.to_string()];
    let driver = driver(&embedded(&authorities, ""));
    let done = driver.redirect(&redirect(1, &["127.0.0.10"])).await.unwrap();
    // None of them gave an old answer; whoever answers with an error was reached all the same.
    let stale = |server, reached| StaleAnswer { server, lasted: Duration::ZERO, cleared: false, reached };
    assert_eq!(done.stale_answers, [stale(refusing, false), stale(silent, false), stale(failing, true)]);
}

/// A server that says SERVFAIL to everything.
async fn failing() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut message = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut message).await {
            message[2] |= 0x80;
            message[3] = message[3] & 0xf0 | 2;
            socket.send_to(&message[..length], asker).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn without_any_authority_nothing_is_believed() {
    let driver = driver(&embedded(&[format!("127.0.0.1:{}", free_port())], "timeout: 300ms"));
    let error = driver.redirect(&redirect(1, &["127.0.0.10"])).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("dns-no-authority", true));
}

#[tokio::test]
async fn a_resolver_must_give_the_new_answer_too() {
    let (authority, resolver) = (Server::start(Kind::Knot).await, Server::start(Kind::Bind).await);
    resolver.nsupdate(&format!("update delete {NAME} A\nupdate add {NAME} 30 A 127.0.0.99"));
    let driver = through(&[resolver.address], &embedded(&[authority.address.to_string()], "timeout: 300ms"));
    let error = driver.redirect(&redirect(1, &["127.0.0.10"])).await.unwrap_err();
    assert_eq!(error.code, "dns-still-old");
    assert!(error.message.contains("127.0.0.99"), "{error}");
}

#[tokio::test]
async fn a_probe_needs_one_authority() {
    let mut server = Server::start(Kind::Knot).await;
    let refusing = format!("127.0.0.1:{}", free_port());
    let driver = driver(&embedded(&[refusing, server.address.to_string()], &format!("name: {NAME}")));
    let probe = driver.probe().await;
    assert_eq!(probe.health, Health::Healthy, "{}", probe.detail);
    assert!(probe.detail.contains("127.0.0.10"), "{}", probe.detail);
    server.kill();
    assert_eq!(driver.probe().await.health, Health::Failed);
}

#[tokio::test]
async fn a_probe_before_the_first_redirect_asks_for_the_zone() {
    let server = Server::start(Kind::Bind).await;
    assert_eq!(driver(&server.resource()).probe().await.health, Health::Healthy);
    let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let silent = driver(&embedded(&[hole.local_addr().unwrap().to_string()], ""));
    assert_eq!(silent.probe().await.health, Health::Unknown, "silence is no proof");
}

fn own_servers() -> std::collections::BTreeSet<String> {
    ["ns.example.test.".to_owned()].into()
}

#[tokio::test]
async fn what_servers_say_of_a_name_and_its_zone_is_found() {
    let (one, two) = (Server::start(Kind::Knot).await, Server::start(Kind::Bind).await);
    let authorities = [one.address.to_string(), two.address.to_string()];
    let driver = through(&[two.address], &embedded(&authorities, &format!("name: {NAME}")));
    let authority = |server: &String| AuthorityFacts {
        server: server.clone(),
        problem: String::new(),
        authoritative: true,
        ttl: Some(Span::from_secs(30)),
        serial: Some(1),
        name_servers: own_servers(),
    };
    let resolver =
        ResolverFacts { server: authorities[1].clone(), problem: String::new(), name_servers: own_servers() };
    let wanted = DnsFacts {
        zone: "example.test.".into(),
        authorities: authorities.iter().map(authority).collect(),
        resolvers: vec![resolver],
        update: String::new(),
    };
    assert_eq!(found(driver.as_ref()).await, wanted);

    // One is not told of a change, and the resolver is led elsewhere.
    one.nsupdate(&format!("update delete {NAME} A\nupdate add {NAME} 300 A 127.0.0.10"));
    let stray = Server::start(Kind::Bind).await;
    stray.nsupdate("update add example.test. 30 NS ns.elsewhere.test.");
    let driver = through(&[stray.address], &embedded(&authorities, &format!("name: {NAME}")));
    let now = found(driver.as_ref()).await;
    assert_eq!(now.authorities[0].ttl, Some(Span::from_secs(300)));
    assert_eq!(now.authorities[1].ttl, Some(Span::from_secs(30)));
    let serials = (now.authorities[0].serial.unwrap(), now.authorities[1].serial.unwrap());
    assert!(serials.0 > serials.1, "{serials:?}");
    assert!(now.resolvers[0].name_servers.contains("ns.elsewhere.test."), "{now:?}");
}

#[tokio::test]
async fn what_gives_no_answer_is_told_from_what_says_that_there_is_nothing() {
    let server = Server::start(Kind::Knot).await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let broken = failing().await;
    let authorities = [nobody.to_string(), broken.to_string(), server.address.to_string()];
    let driver = through(&[nobody, broken], &embedded(&authorities, &format!("name: {NAME}")));
    let facts = found(driver.as_ref()).await;
    let [refusing, failing, good] = facts.authorities.as_slice() else { panic!("{facts:?}") };
    assert!(!refusing.problem.is_empty() && !failing.problem.is_empty() && good.problem.is_empty(), "{facts:?}");
    let [refusing, lame] = facts.resolvers.as_slice() else { panic!("{facts:?}") };
    assert!(!refusing.problem.is_empty(), "{facts:?}");
    assert!(lame.problem.is_empty() && lame.name_servers.is_empty(), "{facts:?}");

    // Nothing is known of a name before its first redirect, but of the zone of `update`.
    let driver = through(&[broken], &embedded(&[server.address.to_string()], ""));
    assert_eq!(found(driver.as_ref()).await, DnsFacts::default());
    let facts = found(through(&[], &server.resource()).as_ref()).await;
    assert_eq!((facts.zone.as_str(), facts.resolvers.len()), ("example.test.", 0));
    assert_eq!((facts.authorities[0].serial, facts.authorities[0].ttl), (Some(1), None));
}

#[tokio::test]
async fn a_server_that_takes_no_connection_for_updates_is_known_before() {
    let server = Server::start(Kind::Bind).await;
    // Datagrams reach it, and TCP does not.
    let (front, _) = counting(server.address).await;
    let update = Server::update(front, "regent.", SECRET);
    let driver = through(&[], &format!("kind: dns\naddresses: [127.0.0.11]\nname: {NAME}\n{update}"));
    let found = driver.facts().await.unwrap().findings;
    assert_eq!(found.lacks, Vec::<String>::new());
    let facts = found.dns.unwrap();
    assert!(facts.update.contains(&front.to_string()) && facts.authorities[0].problem.is_empty(), "{facts:?}");
}

/// Passes datagrams on to a server and its answers back; counts the answers.
async fn counting(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = front.recv_from(&mut buffer).await {
            let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            back.send_to(&buffer[..length], server).await.unwrap();
            let length = back.recv(&mut buffer).await.unwrap();
            front.send_to(&buffer[..length], client).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, answered)
}
