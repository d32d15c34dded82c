#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use regent_core::id::ClusterId;
use regent_core::time::Span;
use regent_proto::agent::v1::agent_service_server::{AgentService, AgentServiceServer};
use regent_proto::agent::v1::connect_response::Body;
use regent_proto::agent::v1::{ConnectRequest, ConnectResponse, Hello, Welcome};
use regent_proto::tls::TlsFiles;
use regent_proto::watch;
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::names::both;
use super::*;
use crate::uplink::{self, LinkEvent, Pace};

/// Certificates of one authority, in a folder.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    fn tls(&self, identity: &Identity) -> Tls {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost", "one.test", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.push(SanType::URI(identity.to_uri("dev").try_into().unwrap()));
        let path = |name: &str| self.folder.path().join(name);
        let files = TlsFiles { ca: path("ca.pem"), certificate: path("own.pem"), key: path("key.pem") };
        std::fs::write(&files.certificate, params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files.load().unwrap()
    }
}

fn agent(cluster: &str) -> Identity {
    Identity::Agent(cluster.to_owned())
}

/// A coordinator that greets under a number of its choice.
struct Greeter(u64);

#[tonic::async_trait]
impl AgentService for Greeter {
    type ConnectStream = ReceiverStream<Result<ConnectResponse, Status>>;

    async fn connect(&self, _: Request<Streaming<ConnectRequest>>) -> Result<Response<Self::ConnectStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let welcome = Welcome { coordinator: self.0, ..Welcome::default() };
        sender.try_send(Ok(ConnectResponse { body: Some(Body::Welcome(welcome)) })).unwrap();
        // Stays open until the agent goes.
        tokio::spawn(async move { sender.closed().await });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A server with the certificate of `identity` that calls itself coordinator `named`.
async fn serve(authority: &Authority, identity: &Identity, named: u64, at: &str) -> SocketAddr {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = tonic::transport::Server::builder().tls_config(authority.tls(identity).server_config()).unwrap();
    let server = server.add_service(AgentServiceServer::new(Greeter(named)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// One dial of the uplink: the coordinator that is taken for one, or why none is.
async fn dialled(dial: &Dial, address: &str) -> Result<u64, String> {
    let (_hello, hello) = watch::channel(Arc::new(Hello::default()));
    // A slow machine is no refusal.
    let (_pace, pace) = watch::channel(Pace { round_trip: Span::from_secs(5), ..Pace::default() });
    let (sender, mut events) = mpsc::unbounded_channel();
    let uplink = uplink::once(0, address, dial, &hello, &pace, &sender);
    tokio::select! {
        ended = uplink => Err(ended.err().unwrap().to_string()),
        event = events.recv() => match event {
            Some((0, LinkEvent::Up { welcome, .. })) => Ok(welcome.coordinator),
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test]
async fn only_a_coordinator_under_its_own_id_is_taken_for_one() {
    let authority = Authority::new();
    let dial = over_tls(authority.tls(&agent("a")), &Names::default());
    let try_one = async |identity: Identity, named: u64| {
        let address = serve(&authority, &identity, named, "127.0.0.1:0").await;
        dialled(&dial, &address.to_string()).await
    };

    assert_eq!(try_one(Identity::Coordinator(2), 2).await, Ok(2));
    for other in [agent("b"), agent("a"), Identity::Operator("ann".to_owned())] {
        let refused = try_one(other.clone(), 2).await.unwrap_err();
        assert!(refused.contains(&format!("the server is {other}, expected was a coordinator")), "{refused}");
    }
    let refused = try_one(Identity::Coordinator(2), 3).await.unwrap_err();
    assert!(refused.contains("calls itself coordinator 3, but its certificate is that of coordinator/2"), "{refused}");
}

#[tokio::test]
async fn another_agent_is_that_of_its_cluster() {
    let authority = Authority::new();
    let dial = over_tls(authority.tls(&agent("a")), &Names::default());
    let expected = Expected::Agent(ClusterId::new("b").unwrap());
    for (identity, right) in [(agent("b"), true), (agent("c"), false), (Identity::Coordinator(1), false)] {
        let address = serve(&authority, &identity, 1, "127.0.0.1:0").await.to_string();
        let channel = dial(&address, &expected, Duration::from_secs(5)).unwrap().line;
        let mut client = regent_proto::agent::v1::agent_service_client::AgentServiceClient::new(channel);
        let answer = client.connect(tokio_stream::pending::<ConnectRequest>()).await;
        assert_eq!(answer.is_ok(), right, "{identity}");
    }
}

/// Addresses and TTL by name.
type Records = BTreeMap<String, (Vec<Ipv4Addr>, u32)>;

/// A name server whose records can be changed; it knows addresses of IPv4 only.
#[derive(Clone, Default)]
struct Zone {
    records: Arc<Mutex<Records>>,
    asked: Arc<AtomicUsize>,
}

impl Zone {
    fn set(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.records.lock().unwrap().insert(format!("{name}."), (addresses, ttl));
    }

    /// How often addresses of IPv4 were asked for.
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn serve(&self) -> u16 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                if let Some(answer) = zone.answer(&Message::from_vec(&buffer[..length]).unwrap()) {
                    socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        port
    }

    fn answer(&self, question: &Message) -> Option<Message> {
        let query = question.queries.first()?.clone();
        let mut answer = Message::query();
        answer.metadata.id = question.metadata.id;
        answer.metadata.message_type = MessageType::Response;
        answer.add_query(query.clone());
        let records = self.records.lock().unwrap();
        match (records.get(&query.name().to_string()), query.query_type()) {
            (Some((addresses, ttl)), RecordType::A) => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let record = |address: &Ipv4Addr| Record::from_rdata(query.name().clone(), *ttl, RData::A(A(*address)));
                answer.add_answers(addresses.iter().map(record));
            }
            (Some(_), _) => {}
            (None, _) => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        Some(answer)
    }
}

/// Names by a hosts file and a name server of the test's own.
fn names(folder: &Path, hosts: &str, port: u16) -> Names {
    std::fs::write(folder.join("hosts"), hosts).unwrap();
    std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    Names::new(&folder.join("hosts"), &folder.join("resolv.conf"), Some(port))
}

fn addresses(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|address| address.parse().unwrap()).collect()
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again() {
    let folder = TempDir::new().unwrap();
    let zone = Zone::default();
    zone.set("one.test", 0, &["127.0.0.9"]);
    let names = names(folder.path(), "127.0.0.2 one.test\n::1 one.test\n", zone.serve().await);
    assert_eq!(names.find("one.test").await.unwrap(), addresses(&["127.0.0.2", "::1"]));
    assert_eq!(zone.asked(), 0);

    std::fs::write(folder.path().join("hosts"), "127.0.0.3 one.test\n").unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().write(true).open(folder.path().join("hosts")).unwrap().set_modified(later).unwrap();
    assert_eq!(names.find("one.test").await.unwrap(), addresses(&["127.0.0.3"]));
}

#[tokio::test]
async fn localhost_is_known_to_the_system() {
    let found = Names::default().find("localhost").await.unwrap();
    assert!(found.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{found:?}");
}

#[tokio::test]
async fn an_answer_is_kept_for_its_ttl() {
    let folder = TempDir::new().unwrap();
    let zone = Zone::default();
    let names = names(folder.path(), "", zone.serve().await);
    for (ttl, at_once) in [(600, false), (0, true)] {
        let name = format!("ttl-{ttl}.test");
        zone.set(&name, ttl, &["127.0.0.2"]);
        assert_eq!(names.find(&name).await.unwrap(), addresses(&["127.0.0.2"]));
        zone.set(&name, ttl, &["127.0.0.3", "127.0.0.4"]);
        let mut found = names.find(&name).await.unwrap();
        found.sort_unstable();
        let wanted = if at_once { addresses(&["127.0.0.3", "127.0.0.4"]) } else { addresses(&["127.0.0.2"]) };
        assert_eq!(found, wanted, "TTL {ttl}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_on_one_family_does_not_hide_the_other() {
    let answer = || future::ready(Ok(addresses(&["127.0.0.2"])));
    assert_eq!(both(answer(), future::pending()).await.unwrap(), addresses(&["127.0.0.2"]));
    assert_eq!(both(future::pending(), answer()).await.unwrap(), addresses(&["127.0.0.2"]));
    // No addresses are no answer to be content with.
    assert_eq!(both(future::ready(Ok(Vec::new())), answer()).await.unwrap(), addresses(&["127.0.0.2"]));
}

#[tokio::test]
async fn what_is_wrong_with_a_name_is_said() {
    let folder = TempDir::new().unwrap();
    let found = names(folder.path(), "", Zone::default().serve().await).find("nowhere.test").await;
    let refused = found.unwrap_err().to_string();
    assert!(refused.contains("no address for the name nowhere.test") && refused.contains("resolv.conf"), "{refused}");

    // A server that never answers; it is given up within the limit.
    let hole = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let found = names(folder.path(), "", hole.local_addr().unwrap().port()).find("one.test").await;
    assert!(found.unwrap_err().to_string().contains("one.test"));

    std::fs::remove_file(folder.path().join("resolv.conf")).unwrap();
    let absent = Names::new(&folder.path().join("hosts"), &folder.path().join("resolv.conf"), None);
    let refused = absent.find("one.test").await.unwrap_err().to_string();
    assert!(refused.contains("the configuration of the resolvers cannot be used"), "{refused}");
}

/// One dial to the next: the name leads elsewhere now, and the agent goes there, verifying the name all the while.
#[tokio::test]
async fn a_changed_answer_is_used_at_the_next_dial() {
    let (folder, authority, zone) = (TempDir::new().unwrap(), Authority::new(), Zone::default());
    let names = names(folder.path(), "", zone.serve().await);
    let dial = over_tls(authority.tls(&agent("a")), &names);
    let port = serve(&authority, &Identity::Coordinator(1), 1, "127.0.0.1:0").await.port();
    serve(&authority, &Identity::Coordinator(2), 2, &format!("127.0.0.2:{port}")).await;

    for (at, coordinator) in [("127.0.0.1", 1), ("127.0.0.2", 2), ("127.0.0.1", 1)] {
        zone.set("one.test", 0, &[at]);
        assert_eq!(dialled(&dial, &format!("one.test:{port}")).await, Ok(coordinator));
    }
    // Nobody is at the first address; the second one is tried within the same dial.
    zone.set("one.test", 0, &["127.0.0.3", "127.0.0.2"]);
    assert_eq!(dialled(&dial, &format!("one.test:{port}")).await, Ok(2));
    // The certificate does not carry this name.
    zone.set("two.test", 0, &["127.0.0.1"]);
    let refused = dialled(&dial, &format!("two.test:{port}")).await.unwrap_err();
    assert!(refused.contains("not valid for name"), "{refused}");
}
