//! The identity in a certificate: one SAN URI, `regent://GROUP/coordinator/1` and the like.

use std::fmt;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

const SCHEME: &str = "regent://";

/// Whom a certificate names. `Display` gives the last two parts of the URI, e.g. `agent/eu-west-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// By raft id.
    Coordinator(u64),
    /// By cluster.
    Agent(String),
    /// By name.
    Operator(String),
}

/// Why a certificate or URI names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It is not an X.509 certificate.
    #[error("it cannot be parsed")]
    Unparsable,
    /// No SAN URI of ours.
    #[error("it has no SAN URI regent://GROUP/coordinator|agent|operator/NAME")]
    Missing,
    /// More than one SAN URI of ours: it would be anyone's choice.
    #[error("it has more than one SAN URI regent://…")]
    Ambiguous,
    /// A URI of ours that names nobody.
    #[error("{uri:?} is not of the form regent://GROUP/coordinator|agent|operator/NAME")]
    Malformed {
        /// As it stands there.
        uri: String,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(id) => write!(f, "coordinator/{id}"),
            Self::Agent(cluster) => write!(f, "agent/{cluster}"),
            Self::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

impl Identity {
    /// As it stands in the certificate.
    #[must_use]
    pub fn to_uri(&self, group: &str) -> String {
        format!("{SCHEME}{group}/{self}")
    }

    /// Group and identity of a SAN URI.
    ///
    /// # Errors
    /// If the URI names nobody.
    pub fn parse(uri: &str) -> Result<(String, Self), IdentityError> {
        let malformed = || IdentityError::Malformed { uri: uri.to_owned() };
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(malformed)?.split('/');
        let (group, role, name) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(role), Some(name), None) if plain(group) && plain(name) => (group, role, name),
            _ => return Err(malformed()),
        };
        let identity = match role {
            "coordinator" => {
                let id = name.parse::<u64>().map_err(|_| malformed())?;
                // One writing for each id: 01 or +1 would be a second certificate for 1.
                if id.to_string() != name {
                    return Err(malformed());
                }
                Self::Coordinator(id)
            }
            "agent" => Self::Agent(name.to_owned()),
            "operator" => Self::Operator(name.to_owned()),
            _ => return Err(malformed()),
        };
        Ok((group.to_owned(), identity))
    }
}

/// Group and identity of a certificate.
pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Result<(String, Identity), IdentityError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| IdentityError::Unparsable)?;
    let names = parsed.subject_alternative_name().map_err(|_| IdentityError::Unparsable)?;
    let mut ours = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
        _ => None,
    });
    let uri = ours.next().ok_or(IdentityError::Missing)?;
    if ours.next().is_some() {
        return Err(IdentityError::Ambiguous);
    }
    Identity::parse(uri)
}

fn plain(part: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    !part.is_empty() && part.len() <= 63 && part.bytes().all(good)
}
