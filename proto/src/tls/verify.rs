//! Checks of a server's certificate beyond the authority and the host name: same group, expected identity.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::identity::{self, Identity, IdentityError};

#[derive(Debug)]
pub(super) struct SameGroup {
    chain: Arc<WebPkiServerVerifier>,
    group: String,
    expected: Option<Identity>,
}

#[derive(thiserror::Error)]
enum Stranger {
    #[error("the server's certificate carries no usable identity: {0}")]
    Nobody(IdentityError),
    #[error("the server belongs to the group {found:?}, not {own:?}")]
    OtherGroup { found: String, own: String },
    #[error("the server is {found}, expected was {expected}")]
    Other { found: Identity, expected: Identity },
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
        expected: Option<Identity>,
    ) -> Result<Self, Error> {
        let chain = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { chain, group, expected })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Stranger> {
        let (group, found) = identity::of_certificate(certificate).map_err(Stranger::Nobody)?;
        if group != self.group {
            return Err(Stranger::OtherGroup { found: group, own: self.group.clone() });
        }
        match &self.expected {
            Some(expected) if *expected != found => Err(Stranger::Other { found, expected: expected.clone() }),
            _ => Ok(()),
        }
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
        self.check(end_entity).map_err(stranger)?;
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
