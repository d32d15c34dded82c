//! The embedded DNS server, asked over real sockets by two clients that are not ours: hickory's and `dig`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use hickory_net::client::{Client, ClientHandle};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::udp::UdpClientStream;
use hickory_proto::op::{DnsResponse, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use regent_coordinator::dns::{self, DnsError, DnsOptions, Zone};
use regent_core::application::Action;
use regent_core::run::{StepKind, StepState};
use regent_core::state::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

#[path = "dashboard/fixture.rs"]
mod fixture;

use fixture::{CENTRAL, WEST, World, application, cluster, resource};

struct Server {
    world: World,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), DnsError>>,
}

impl Server {
    async fn start() -> Self {
        Self::start_in(World::quiet()).await
    }

    async fn start_in(world: World) -> Self {
        let bound = dns::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = bound.address();
        let shutdown = CancellationToken::new();
        let zone = Zone::new("Regent.test", &["ns1.regent.test.".to_owned()]).unwrap();
        let task = tokio::spawn(bound.serve(zone, world.node.clone(), shutdown.clone()));
        Self { world, address, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn ask(&self, name: &str, record_type: RecordType) -> DnsResponse {
        let stream = UdpClientStream::builder(self.address, TokioRuntimeProvider::default()).build();
        let (mut client, background) = Client::<TokioRuntimeProvider>::from_sender(stream);
        tokio::spawn(background);
        client.query(Name::from_ascii(name).unwrap(), DNSClass::IN, record_type).await.unwrap()
    }

    async fn ask_by_tcp(&self, name: &str, record_type: RecordType) -> DnsResponse {
        let (connect, sender) = TcpClientStream::new(self.address, None, None, TokioRuntimeProvider::new());
        let (mut client, background) = Client::<TokioRuntimeProvider>::new(connect.await.unwrap(), sender);
        tokio::spawn(background);
        client.query(Name::from_ascii(name).unwrap(), DNSClass::IN, record_type).await.unwrap()
    }

    async fn dig(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("dig");
        command.arg("@127.0.0.1").arg("-p").arg(self.address.port().to_string());
        command.args(["+tries=1", "+time=5"]).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("dig is installed");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn texts(response: &DnsResponse) -> Vec<String> {
    response.answers.iter().map(|record| record.data.to_string()).collect()
}

fn soa_serial(response: &DnsResponse) -> Option<(u32, u32)> {
    response.answers.iter().chain(&response.authorities).find_map(|record| match &record.data {
        RData::SOA(soa) => Some((soa.serial, soa.minimum.min(record.ttl))),
        _ => None,
    })
}

#[tokio::test]
async fn a_name_follows_the_applied_state_at_once() {
    let server = Server::start().await;
    let before = server.ask("shop.regent.test.", RecordType::A).await;
    assert_eq!(texts(&before), ["10.1.0.10", "10.1.0.11"]);
    assert!(before.metadata.authoritative);
    assert!(!before.metadata.recursion_available);
    assert_eq!(before.answers[0].ttl, 5);
    assert_eq!(texts(&server.ask("shop.regent.test.", RecordType::AAAA).await), ["fd00:1::10"]);

    server.world.point_to(CENTRAL);
    assert_eq!(texts(&server.ask("shop.regent.test.", RecordType::A).await), ["10.2.0.10", "10.2.0.11"]);
    assert_eq!(texts(&server.ask_by_tcp("SHOP.Regent.TEST.", RecordType::A).await), ["10.2.0.10", "10.2.0.11"]);

    server.world.lose_quorum(Duration::from_secs(100));
    assert_eq!(texts(&server.ask("shop.regent.test.", RecordType::A).await), ["10.2.0.10", "10.2.0.11"]);
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_a_run_is_about_to_change_is_not_kept() {
    let server = Server::start_in(World::failover()).await;
    let ttl = async || server.ask("shop.regent.test.", RecordType::A).await.answers[0].ttl;
    assert_eq!(ttl().await, 0, "its redirect is still to come");
    server.world.change(|state| {
        for run in state.runs.values_mut() {
            for (step, progress) in run.steps.iter().zip(&mut run.progress) {
                if step.kind == StepKind::Action(Action::Redirect) {
                    progress.state = StepState::Succeeded;
                }
            }
        }
    });
    assert_eq!(ttl().await, 5, "other steps are not waited for");
    server.stop().await;
}

#[tokio::test]
async fn the_apex_has_soa_and_servers() {
    let server = Server::start().await;
    let first = soa_serial(&server.ask("regent.test.", RecordType::SOA).await).unwrap();
    assert_eq!(first.0, 41);
    server.world.point_to(CENTRAL);
    assert_eq!(soa_serial(&server.ask("regent.test.", RecordType::SOA).await).unwrap().0, 42);
    let servers = server.ask("regent.test.", RecordType::NS).await;
    assert_eq!(texts(&servers), ["ns1.regent.test."]);
    assert_eq!(servers.additionals.len(), 3, "an address for each coordinator");
    assert_eq!(texts(&server.ask("ns1.regent.test.", RecordType::A).await), ["10.1.0.2", "10.2.0.2", "10.3.0.2"]);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_rightly() {
    let server = Server::start().await;
    let none = server.ask("nobody.regent.test.", RecordType::A).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    assert!(none.metadata.authoritative);
    assert!(soa_serial(&none).unwrap().1 <= 30, "negative answers are kept at most 30 s");

    let other = server.ask("shop.regent.test.", RecordType::MX).await;
    assert_eq!(other.metadata.response_code, ResponseCode::NoError);
    assert!(other.answers.is_empty());
    assert!(soa_serial(&other).unwrap().1 <= 30);

    for outside in ["example.com.", "test.", "notregent.test.", "."] {
        let outside = server.ask(outside, RecordType::A).await;
        assert_eq!(outside.metadata.response_code, ResponseCode::Refused);
        assert!(!outside.metadata.authoritative);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_name_above_a_known_one_exists() {
    let server = Server::start().await;
    server.world.change(|state| {
        let shop = state.applications.get_mut(&application("shop")).unwrap();
        let www = shop.document.resources.get_mut(&resource("www")).unwrap();
        www.dns.as_mut().unwrap().name = "www.deep.regent.test.".to_owned();
    });
    let between = server.ask("deep.regent.test.", RecordType::A).await;
    assert_eq!(between.metadata.response_code, ResponseCode::NoError);
    assert!(between.answers.is_empty());
    assert_eq!(server.ask("www.deep.regent.test.", RecordType::A).await.answers.len(), 2);
    assert_eq!(server.ask("x.deep.regent.test.", RecordType::A).await.metadata.response_code, ResponseCode::NXDomain);
    server.stop().await;
}

#[tokio::test]
async fn an_empty_answer_is_a_failure_and_never_an_answer() {
    let breaks: [fn(&mut State); 4] = [
        |state| state.applications.get_mut(&application("shop")).unwrap().answers.clear(),
        |state| {
            state.agents.remove(&cluster(WEST));
        },
        |state| state.agents.get_mut(&cluster(WEST)).unwrap().endpoints.clear(),
        |state| {
            let agent = state.agents.get_mut(&cluster(WEST)).unwrap();
            let shop = agent.endpoints.get_mut(&application("shop")).unwrap();
            shop.get_mut(&resource("www")).unwrap().addresses = vec!["not an address".to_owned()];
        },
    ];
    for broken in breaks {
        let server = Server::start().await;
        server.world.change(broken);
        for record_type in [RecordType::A, RecordType::AAAA, RecordType::ANY] {
            let answer = server.ask("shop.regent.test.", record_type).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            assert!(answer.answers.is_empty());
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn dig_agrees() {
    let server = Server::start().await;
    assert_eq!(server.dig(&["+short", "sHoP.regent.test", "A"]).await, "10.1.0.10\n10.1.0.11\n");
    assert_eq!(server.dig(&["+short", "+tcp", "shop.regent.test", "AAAA"]).await, "fd00:1::10\n");
    let full = server.dig(&["sHoP.regent.test", "A"]).await;
    assert!(full.contains("flags: qr aa rd;"), "{full}");
    assert!(full.contains("EDNS: version: 0"), "{full}");
    assert!(full.contains("sHoP.regent.test.\t5\tIN\tA\t10.1.0.10"), "the case of the question is kept: {full}");
    let plain = server.dig(&["+noedns", "shop.regent.test", "A"]).await;
    assert!(!plain.contains("EDNS") && plain.contains("10.1.0.10"), "{plain}");
    let newer = server.dig(&["+edns=1", "+noednsnegotiation", "shop.regent.test", "A"]).await;
    assert!(newer.contains("status: BADVERS"), "{newer}");
    for (arguments, status) in [
        (vec!["+opcode=update", "regent.test", "SOA"], "NOTIMP"),
        (vec!["+opcode=notify", "regent.test", "SOA"], "NOTIMP"),
        (vec!["+opcode=status", "regent.test", "SOA"], "NOTIMP"),
        (vec!["-c", "CH", "version.bind", "TXT"], "REFUSED"),
        (vec!["+header-only", "regent.test"], "FORMERR"),
    ] {
        let answer = server.dig(&arguments).await;
        assert!(answer.contains(&format!("status: {status}")), "{arguments:?}: {answer}");
    }
    for transfer in ["AXFR", "IXFR=1"] {
        let answer = server.dig(&["+tcp", "regent.test", transfer]).await;
        assert!(answer.contains("Transfer failed") && !answer.contains("10.1.0"), "{answer}");
    }
    server.stop().await;
}

#[tokio::test]
async fn garbage_changes_nothing() {
    let server = Server::start().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise: Vec<u8> = Vec::new();
    let mut seed: u32 = 0x9E37_79B9;
    for length in [0usize, 1, 11, 12, 13, 17, 100, 512, 1400] {
        for _ in 0..40 {
            noise.clear();
            for _ in 0..length {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.push(u8::try_from(seed >> 24).unwrap());
            }
            socket.send_to(&noise, server.address).await.unwrap();
        }
    }
    // A question whose name points to itself, an answer that claims to be a query's, counts that promise too much.
    let head = |counts: [u8; 8]| [&[7u8, 7, 1, 0][..], &counts].concat();
    for message in [
        [head([0, 1, 0, 0, 0, 0, 0, 0]), vec![0xC0, 12, 0, 1, 0, 1]].concat(),
        head([255; 8]),
        [vec![7, 7, 0x81, 0], vec![0; 8]].concat(),
    ] {
        socket.send_to(&message, server.address).await.unwrap();
    }
    for bytes in [&[0u8, 0][..], &[0, 5, 1, 2, 3, 4, 5], &[255, 255, 1], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the server kept a useless connection open");
    }
    assert_eq!(texts(&server.ask("shop.regent.test.", RecordType::A).await), ["10.1.0.10", "10.1.0.11"]);
    assert_eq!(texts(&server.ask_by_tcp("shop.regent.test.", RecordType::A).await), ["10.1.0.10", "10.1.0.11"]);
    server.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_a_remedy() {
    let taken = dns::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let options = DnsOptions { listen: taken.address(), zone: "regent.test.".to_owned(), name_servers: Vec::new() };
    let error = dns::serve(options, World::quiet().node, CancellationToken::new()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&taken.address().to_string()) && text.contains("dns.listen"), "{text}");
}
