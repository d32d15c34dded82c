//! Checks of a server's certificate beyond the authority and the host name: same group, expected identity.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::identity::{self, Identity, IdentityError};

/// Who may stand at the other end, within the group. There is no "anyone": agents and operators have certificates of
/// the same authority, and none of them may pass for a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// This one.
    Exactly(Identity),
    /// A coordinator, whichever.
    AnyCoordinator,
}

impl Expect {
    fn allows(&self, found: &Identity) -> bool {
        match self {
            Self::Exactly(expected) => expected == found,
            Self::AnyCoordinator => matches!(found, Identity::Coordinator(_)),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(identity) => identity.fmt(f),
            Self::AnyCoordinator => f.write_str("a coordinator"),
        }
    }
}

/// Whom the server's certificate named when a channel was last connected; nobody before that. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Option<Identity>>>);

impl Seen {
    /// For a channel without TLS, whose other end is known in another way.
    #[must_use]
    pub fn known(identity: Identity) -> Self {
        Self(Arc::new(Mutex::new(Some(identity))))
    }

    /// Whom.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, identity: Identity) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }
}

#[derive(Debug)]
pub(super) struct SameGroup {
    chain: Arc<WebPkiServerVerifier>,
    group: String,
    expected: Expect,
    seen: Seen,
}

#[derive(thiserror::Error)]
enum Stranger {
    #[error("the server's certificate carries no usable identity: {0}")]
    Nobody(IdentityError),
    #[error("the server belongs to the group {found:?}, not {own:?}")]
    OtherGroup { found: String, own: String },
    #[error("the server is {found}, expected was {expected}")]
    Other { found: Identity, expected: Expect },
}

/// rustls shows errors of others by `Debug`; an operator shall read the sentence.
impl fmt::Debug for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl SameGroup {
    pub(super) fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        group: String,
        expected: Expect,
        seen: Seen,
    ) -> Result<Self, Error> {
        let chain = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { chain, group, expected, seen })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<Identity, Stranger> {
        let (group, found) = identity::of_certificate(certificate).map_err(Stranger::Nobody)?;
        if group != self.group {
            return Err(Stranger::OtherGroup { found: group, own: self.group.clone() });
        }
        if !self.expected.allows(&found) {
            return Err(Stranger::Other { found, expected: self.expected.clone() });
        }
        Ok(found)
    }
}

impl ServerCertVerifier for SameGroup {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        let stranger = |error| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))));
        // A resumed session comes by here no more; its ticket is of a server that did.
        self.seen.note(self.check(end_entity).map_err(stranger)?);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
