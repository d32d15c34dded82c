use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::*;
use crate::peer::v1::peer_service_client::PeerServiceClient;
use crate::peer::v1::peer_service_server::{PeerService, PeerServiceServer};
use crate::peer::v1::*;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { issuer: Issuer::new(params, key), pem }
}

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params
}

fn write(dir: &Path, name: &str, authority: &Authority, params: &CertificateParams) -> TlsFiles {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let files = TlsFiles {
        ca: dir.join("ca.pem"),
        certificate: dir.join(format!("{name}.pem")),
        key: dir.join(format!("{name}-key.pem")),
    };
    fs::write(&files.ca, &authority.pem).unwrap();
    fs::write(&files.certificate, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn identities_are_read_and_written() {
    for identity in [Identity::Coordinator(3), Identity::Agent("eu-west-1".into()), Identity::Operator("ann".into())] {
        assert_eq!(Identity::parse(&identity.to_uri("dev")).unwrap(), ("dev".to_owned(), identity));
    }
    for uri in [
        "regent://dev/coordinator/01",
        "regent://dev/coordinator/+1",
        "regent://dev/coordinator/x",
        "regent://dev/agent/",
        "regent:///agent/a",
        "regent://dev/agent/a/b",
        "regent://dev/guest/a",
        "regent://dev/agent/a b",
        "https://dev/agent/a",
    ] {
        assert_eq!(Identity::parse(uri), Err(IdentityError::Malformed { uri: uri.into() }), "{uri}");
    }
}

#[test]
fn good_files_are_loaded() {
    let dir = TempDir::new().unwrap();
    let tls = write(dir.path(), "a", &authority(), &params("regent://dev/agent/eu-west-1")).load().unwrap();
    assert_eq!(tls.identity(), &Identity::Agent("eu-west-1".into()));
    assert_eq!(tls.group(), "dev");
}

#[test]
fn of_a_bundle_what_expires_first_counts() {
    let dir = TempDir::new().unwrap();
    let until = |year| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    let (early, late) = (until(2040), until(2050));
    let file = dir.path().join("bundle.pem");
    for text in [early.clone(), format!("{early}{late}"), format!("{late}{early}")] {
        fs::write(&file, text).unwrap();
        assert_eq!(expires(&file), Some(rcgen::date_time_ymd(2040, 1, 1).unix_timestamp()));
    }
    assert_eq!(expires(&dir.path().join("nowhere.pem")), None);
}

#[test]
fn what_is_wrong_is_named() {
    let dir = TempDir::new().unwrap();
    let ours = authority();
    let good = params("regent://dev/coordinator/1");
    let files = write(dir.path(), "a", &ours, &good);

    let missing = TlsFiles { key: dir.path().join("nowhere.pem"), ..files.clone() };
    assert!(matches!(missing.load(), Err(TlsError::Unreadable { path, .. }) if path == missing.key));

    let not_a_key = TlsFiles { key: files.ca.clone(), ..files.clone() };
    assert!(matches!(not_a_key.load(), Err(TlsError::NotAKey { path }) if path == files.ca));

    let not_a_certificate = TlsFiles { certificate: files.key.clone(), ..files.clone() };
    assert!(matches!(not_a_certificate.load(), Err(TlsError::NotACertificate { path }) if path == files.key));

    let other = write(dir.path(), "b", &ours, &good);
    let mixed = TlsFiles { key: other.key, ..files.clone() };
    assert!(matches!(mixed.load(), Err(TlsError::KeyMismatch { .. })));

    let foreign = write(dir.path(), "c", &authority(), &good);
    fs::write(&files.ca, &ours.pem).unwrap();
    assert!(
        matches!(foreign.load(), Err(TlsError::ForeignCa { certificate, .. }) if certificate == foreign.certificate)
    );

    let mut old = good.clone();
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    old.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let old = write(dir.path(), "d", &ours, &old);
    let error = old.load().unwrap_err();
    assert!(matches!(&error, TlsError::Expired { path, .. } if *path == old.certificate));
    assert!(error.to_string().contains("d.pem") && error.to_string().contains("2020"), "{error}");

    let mut early = good.clone();
    early.not_before = rcgen::date_time_ymd(4000, 1, 1);
    let early = write(dir.path(), "e", &ours, &early);
    assert!(matches!(early.load(), Err(TlsError::NotYetValid { .. })));

    let nobody = write(dir.path(), "f", &ours, &CertificateParams::new(["localhost".to_owned()]).unwrap());
    assert!(matches!(nobody.load(), Err(TlsError::NoIdentity { source: IdentityError::Missing, .. })));

    let mut two = good;
    two.subject_alt_names.push(SanType::URI("regent://dev/operator/ann".try_into().unwrap()));
    let two = write(dir.path(), "g", &ours, &two);
    assert!(matches!(two.load(), Err(TlsError::NoIdentity { source: IdentityError::Ambiguous, .. })));
}

/// Answers a relay if the caller's certificate is a coordinator's; everything else is not served.
struct OnlyRelay;

macro_rules! unserved {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl PeerService for OnlyRelay {
            async fn relay(&self, request: Request<RelayRequest>) -> Result<Response<RelayResponse>, Status> {
                match peer_identity(&request)? {
                    Identity::Coordinator(_) => Ok(Response::new(RelayResponse { sent: true })),
                    other => Err(Status::permission_denied(other.to_string())),
                }
            }
            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented(""))
            })*
        }
    };
}

unserved! {
    append_entries(AppendEntriesRequest) -> AppendEntriesResponse;
    pre_vote(PreVoteRequest) -> PreVoteResponse;
    vote(VoteRequest) -> VoteResponse;
    introduce(IntroduceRequest) -> IntroduceResponse;
    read_index(ReadIndexRequest) -> ReadIndexResponse;
    install_snapshot(tonic::Streaming<InstallSnapshotRequest>) -> InstallSnapshotResponse;
    transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
    propose(ProposeRequest) -> ProposeResponse;
    observe(ObserveRequest) -> ObserveResponse;
}

async fn relay(tls: &Tls, address: &str, expected: Option<Identity>) -> Result<RelayResponse, Status> {
    let expected = expected.map_or(Expect::AnyCoordinator, Expect::Exactly);
    let channel = tls.channel(address, ChannelOptions { expected, ..ChannelOptions::default() }).unwrap();
    PeerServiceClient::new(channel).relay(RelayRequest::default()).await.map(Response::into_inner)
}

async fn serve(tls: &Tls) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder().tls_config(tls.server_config()).unwrap();
    let server = server.add_service(PeerServiceServer::new(OnlyRelay));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn chain_of(status: &Status) -> String {
    let mut text = status.to_string();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text.push_str(&format!(" / {error}"));
        source = error.source();
    }
    text
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let ours = authority();
    let folder = || TempDir::new().unwrap();
    let (a, b, c, d, e) = (folder(), folder(), folder(), folder(), folder());
    let server = write(a.path(), "s", &ours, &params("regent://dev/coordinator/1")).load().unwrap();
    let coordinator = write(b.path(), "c", &ours, &params("regent://dev/coordinator/2")).load().unwrap();
    let agent = write(c.path(), "a", &ours, &params("regent://dev/agent/eu-west-1")).load().unwrap();
    let other_group = write(d.path(), "o", &ours, &params("regent://prod/coordinator/2")).load().unwrap();
    let stranger = write(e.path(), "x", &authority(), &params("regent://dev/coordinator/2")).load().unwrap();

    let address = serve(&server).await.to_string();
    assert!(relay(&coordinator, &address, None).await.unwrap().sent);
    assert!(relay(&coordinator, &address, Some(Identity::Coordinator(1))).await.unwrap().sent);
    let refused = relay(&agent, &address, None).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "agent/eu-west-1"));

    let wrong = relay(&coordinator, &address, Some(Identity::Coordinator(3))).await.unwrap_err();
    assert!(
        chain_of(&wrong).contains("the server is coordinator/1, expected was coordinator/3"),
        "{}",
        chain_of(&wrong)
    );
    let group = relay(&other_group, &address, None).await.unwrap_err();
    assert!(chain_of(&group).contains("belongs to the group"), "{}", chain_of(&group));
    assert!(relay(&stranger, &address, None).await.is_err());
}

#[tokio::test]
async fn only_a_coordinator_passes_for_one() {
    let ours = authority();
    let dir = TempDir::new().unwrap();
    let files = |name: &str, uri: &str| write(dir.path(), name, &ours, &params(uri)).load().unwrap();
    let caller = files("c", "regent://dev/agent/eu-west-1");
    for uri in ["regent://dev/agent/eu-west-1", "regent://dev/agent/us-east-1", "regent://dev/operator/ann"] {
        let address = serve(&files("s", uri)).await.to_string();
        let refused = chain_of(&relay(&caller, &address, None).await.unwrap_err());
        assert!(refused.contains("expected was a coordinator"), "{refused}");
    }
}

/// Always these addresses.
fn leads_to(addresses: &[&str]) -> Lookup {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Arc::new(move |_| {
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    })
}

#[tokio::test]
async fn a_name_is_verified_wherever_it_leads() {
    let ours = authority();
    let dir = TempDir::new().unwrap();
    let server = write(dir.path(), "s", &ours, &params("regent://dev/coordinator/1")).load().unwrap();
    let caller = write(dir.path(), "c", &ours, &params("regent://dev/coordinator/2")).load().unwrap();
    let port = serve(&server).await.port();
    let dial = |address: String, lookup: Lookup| caller.dial(&address, ChannelOptions::default(), lookup).unwrap();

    // Nobody listens at the first address; the second one is tried.
    let dialled = dial(format!("localhost:{port}"), leads_to(&["127.0.0.2", "127.0.0.1"]));
    assert_eq!(dialled.peer.identity(), None, "nobody was seen yet");
    let mut client = PeerServiceClient::new(dialled.line);
    assert!(client.relay(RelayRequest::default()).await.unwrap().into_inner().sent);
    assert_eq!(dialled.peer.identity(), Some(Identity::Coordinator(1)));

    // The right server under a name that its certificate does not carry.
    let dialled = dial(format!("elsewhere.test:{port}"), leads_to(&["127.0.0.1"]));
    let refused = PeerServiceClient::new(dialled.line).relay(RelayRequest::default()).await.unwrap_err();
    assert!(chain_of(&refused).contains("not valid for name"), "{}", chain_of(&refused));

    // An address is looked up by nobody.
    let nobody: Lookup = Arc::new(|host| panic!("{host} is looked up"));
    let dialled = dial(format!("127.0.0.1:{port}"), nobody);
    assert!(PeerServiceClient::new(dialled.line).relay(RelayRequest::default()).await.unwrap().into_inner().sent);

    let dialled = dial(format!("localhost:{port}"), leads_to(&[]));
    let refused = PeerServiceClient::new(dialled.line).relay(RelayRequest::default()).await.unwrap_err();
    assert!(chain_of(&refused).contains("localhost has no address"), "{}", chain_of(&refused));
}

#[tokio::test]
async fn an_address_is_host_and_port() {
    let dir = TempDir::new().unwrap();
    let tls = write(dir.path(), "a", &authority(), &params("regent://dev/agent/a")).load().unwrap();
    for address in ["", "localhost", "localhost:x", ":1", "http://localhost:1", "localhost:99999"] {
        let answer = tls.channel(address, ChannelOptions::default());
        assert!(matches!(answer, Err(TlsError::BadAddress { .. })), "{address}");
    }
}
