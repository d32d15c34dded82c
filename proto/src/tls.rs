//! Mutual TLS: who speaks, and channels that notice a dead connection soon.
//!
//! rustls with aws-lc-rs is the one provider. Every certificate carries one identity as a SAN URI; the certificate
//! authority is the boundary of trust, the identity says what the bearer may do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};
use serde::{Deserialize, Serialize};
use tonic::transport::{Certificate, ServerTlsConfig};

mod channel;
mod identity;
mod verify;

pub use channel::{ChannelOptions, Dialled, Lookup};
pub use identity::{Identity, IdentityError};
pub use verify::{Expect, Seen};

/// Where a node has its certificates. Relative paths count from the working directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, PEM.
    pub ca: PathBuf,
    /// This node's certificate, and intermediate ones behind it, PEM.
    pub certificate: PathBuf,
    /// The private key to it, PEM.
    pub key: PathBuf,
}

/// What is wrong with the certificates of a node.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is named in the configuration is not there or cannot be read.
    #[error("cannot read {}: make it with `regentctl certs`, or correct the path", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate in PEM form", path.display())]
    NotACertificate {
        /// Which.
        path: PathBuf,
    },
    /// A file holds no private key.
    #[error("{} holds no private key in PEM form that can be used", path.display())]
    NotAKey {
        /// Which.
        path: PathBuf,
    },
    /// Key and certificate are of different pairs.
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A certificate has run out.
    #[error("{} expired on {when}: issue a new one with `regentctl certs`", path.display())]
    Expired {
        /// Which.
        path: PathBuf,
        /// When.
        when: String,
    },
    /// A certificate begins in the future, or this machine's clock is behind.
    #[error("{} is valid only from {when} on: check this machine's clock", path.display())]
    NotYetValid {
        /// Which.
        path: PathBuf,
        /// From when.
        when: String,
    },
    /// The certificate was not issued by the authority in the CA file.
    #[error("{} was not issued by the authority in {}", certificate.display(), ca.display())]
    ForeignCa {
        /// The certificate.
        certificate: PathBuf,
        /// The authority.
        ca: PathBuf,
    },
    /// The certificate may not be used for this, or is malformed.
    #[error("{} cannot be used", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The certificate does not say who it is for.
    #[error("{} carries no usable identity", path.display())]
    NoIdentity {
        /// Which.
        path: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// An address that is not host:port.
    #[error("{address:?} is not an address: write host:port")]
    BadAddress {
        /// As it was given.
        address: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
    /// The transport refuses the settings.
    #[error("the channel to {address} cannot be set up")]
    Channel {
        /// To where.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

/// Loaded and checked certificates. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Loaded>);

struct Loaded {
    ca: Vec<u8>,
    roots: Arc<RootCertStore>,
    pair: tonic::transport::Identity,
    group: String,
    identity: Identity,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("group", &self.0.group).field("identity", &self.0.identity).finish_non_exhaustive()
    }
}

impl TlsFiles {
    /// Reads the files and checks that they are what they should be, now and together.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn load(&self) -> Result<Tls, TlsError> {
        let provider = provider();
        let ca = read(&self.ca)?;
        let certificate = read(&self.certificate)?;
        let key_pem = read(&self.key)?;

        let authorities = certificates(&self.ca, &ca)?;
        let chain = certificates(&self.certificate, &certificate)?;
        let not_a_key = || TlsError::NotAKey { path: self.key.clone() };
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| not_a_key())?;

        for authority in &authorities {
            check_validity(&self.ca, authority)?;
        }
        for link in &chain {
            check_validity(&self.certificate, link)?;
        }
        CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::KeyMismatch { key: self.key.clone(), certificate: self.certificate.clone() }
            }
            rustls::Error::InvalidCertificate(_) => {
                TlsError::Unusable { path: self.certificate.clone(), source: error }
            }
            _ => not_a_key(),
        })?;
        let roots = self.roots(authorities)?;
        self.check_issuer(&provider, &roots, &chain)?;

        let own = chain.first().ok_or_else(|| TlsError::NotACertificate { path: self.certificate.clone() })?;
        let (group, identity) = identity::of_certificate(own)
            .map_err(|source| TlsError::NoIdentity { path: self.certificate.clone(), source })?;
        let pair = tonic::transport::Identity::from_pem(&certificate, &key_pem);
        Ok(Tls(Arc::new(Loaded { ca, roots, pair, group, identity })))
    }

    fn roots(&self, authorities: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|source| TlsError::Unusable { path: self.ca.clone(), source })?;
        }
        Ok(Arc::new(roots))
    }

    fn check_issuer(
        &self,
        provider: &Arc<CryptoProvider>,
        roots: &Arc<RootCertStore>,
        chain: &[CertificateDer<'static>],
    ) -> Result<(), TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|_| TlsError::NotACertificate { path: self.ca.clone() })?;
        let Some((own, intermediates)) = chain.split_first() else {
            return Err(TlsError::NotACertificate { path: self.certificate.clone() });
        };
        match verifier.verify_client_cert(own, intermediates, UnixTime::now()) {
            Ok(_) => Ok(()),
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Err(TlsError::ForeignCa { certificate: self.certificate.clone(), ca: self.ca.clone() }),
            Err(source) => Err(TlsError::Unusable { path: self.certificate.clone(), source }),
        }
    }
}

impl Tls {
    /// Whom this node's certificate names.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The short name of the group in this node's certificate.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.0.group
    }

    /// For a server: a client without a certificate of the same authority is refused in the handshake.
    #[must_use]
    pub fn server_config(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.0.pair.clone())
            .client_ca_root(Certificate::from_pem(&self.0.ca))
            .timeout(Duration::from_secs(5))
    }
}

/// Who sent a request, by its TLS certificate. What carries requests in another way than by TLS says it by an
/// [`Identity`] among the request's extensions, where nothing that is sent can get.
///
/// # Errors
/// `UNAUTHENTICATED` if the connection has no certificate or the certificate no identity.
pub fn peer_identity<T>(request: &tonic::Request<T>) -> Result<Identity, tonic::Status> {
    if let Some(identity) = request.extensions().get::<Identity>() {
        return Ok(identity.clone());
    }
    let certificates =
        request.peer_certs().ok_or_else(|| tonic::Status::unauthenticated("a client certificate is required"))?;
    let own = certificates.first().ok_or_else(|| tonic::Status::unauthenticated("the client certificate is empty"))?;
    let (_, identity) = identity::of_certificate(own).map_err(|error| {
        tonic::Status::unauthenticated(format!("the client certificate carries no usable identity: {error}"))
    })?;
    Ok(identity)
}

/// The one provider, also for whoever asks rustls for its default.
fn provider() -> Arc<CryptoProvider> {
    if CryptoProvider::get_default().is_none() {
        // Someone else may have installed it in between; it is the same one then.
        let _ = aws_lc_rs::default_provider().install_default();
    }
    Arc::new(aws_lc_rs::default_provider())
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = || TlsError::NotACertificate { path: path.to_owned() };
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| bad())?;
    if all.is_empty() { Err(bad()) } else { Ok(all) }
}

/// When the first of the certificates in a PEM file expires, be it a chain or a bundle of authorities, in seconds since 1970;
/// none if it cannot be read.
#[must_use]
pub fn expires(path: &Path) -> Option<i64> {
    let all = certificates(path, &read(path).ok()?).ok()?;
    let parsed = all.iter().filter_map(|certificate| x509_parser::parse_x509_certificate(certificate).ok());
    parsed.map(|(_, parsed)| parsed.validity().not_after.timestamp()).min()
}

fn check_validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| TlsError::NotACertificate { path: path.to_owned() })?;
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if now > validity.not_after.timestamp() {
        return Err(TlsError::Expired { path: path.to_owned(), when: validity.not_after.to_string() });
    }
    if now < validity.not_before.timestamp() {
        return Err(TlsError::NotYetValid { path: path.to_owned(), when: validity.not_before.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
