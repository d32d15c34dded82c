//! An authority of its own, and connections whose client is known by its certificate.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// The user of its certificate.
    pub(super) certified: Option<String>,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The authority, the server's own certificate, and one for each user.
pub(super) struct Authority {
    pub(super) ca: String,
    pub(super) users: BTreeMap<String, Pair>,
    config: Arc<ServerConfig>,
    /// By the bytes of their certificates.
    known: Arc<BTreeMap<Vec<u8>, String>>,
}

impl Authority {
    pub(super) fn new(address: IpAddr, users: &[&str]) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let signed = |name: &str, place: Option<IpAddr>| -> Result<(rcgen::Certificate, KeyPair)> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = place.into_iter().map(SanType::IpAddress).collect();
            Ok((params.signed_by(&key, &issuer)?, key))
        };
        let (server, server_key) = signed("kube-apiserver", Some(address))?;
        let (mut pairs, mut known) = (BTreeMap::new(), BTreeMap::new());
        for user in users {
            let (certificate, key) = signed(user, None)?;
            known.insert(certificate.der().to_vec(), (*user).to_owned());
            pairs.insert((*user).to_owned(), Pair { certificate: certificate.pem(), key: key.serialize_pem() });
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], private)?;
        Ok(Self { ca: ca.pem(), users: pairs, config: Arc::new(config), known: Arc::new(known) })
    }

    /// Takes connections at an address.
    pub(super) async fn listen(&self, address: SocketAddr) -> Result<Doorway> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen at {address}"))?;
        let address = listener.local_addr()?;
        let (made, incoming) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        let open = Arc::default();
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&self.known), made, Arc::clone(&open)));
        Ok(Doorway { incoming, address, task, open })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    known: Arc<BTreeMap<Vec<u8>, String>>,
    made: mpsc::Sender<(TlsStream<TcpStream>, Client)>,
    open: Open,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = noted(stream, &open) else { continue };
        let (acceptor, known, made) = (acceptor.clone(), Arc::clone(&known), made.clone());
        // One peer that says nothing holds up nobody.
        tokio::spawn(async move {
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
            let certified = certificate.and_then(|certificate| known.get(certificate.as_ref()).cloned());
            let _ = made.send((stream, Client { certified })).await;
        });
    }
}

/// Every connection that was ever made, to be ended with the doorway: their tasks are not ours.
type Open = Arc<Mutex<Vec<std::net::TcpStream>>>;

fn noted(stream: TcpStream, open: &Open) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    open.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
    TcpStream::from_std(stream)
}

/// Where connections come in.
pub(super) struct Doorway {
    incoming: mpsc::Receiver<(TlsStream<TcpStream>, Client)>,
    pub(super) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
    open: Open,
}

impl Drop for Doorway {
    fn drop(&mut self) {
        self.task.abort();
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Listener for Doorway {
    type Io = TlsStream<TcpStream>;
    type Addr = Client;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.incoming.recv().await {
            Some(made) => made,
            // Nobody comes any more.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Client> {
        Ok(Client { certified: None })
    }
}

impl Connected<IncomingStream<'_, Doorway>> for Client {
    fn connect_info(stream: IncomingStream<'_, Doorway>) -> Self {
        stream.remote_addr().clone()
    }
}
