//! Whether anybody listens.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;

/// What a bare connection attempt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact {
    /// Somebody listens.
    Somebody,
    /// Certainly nobody.
    Nobody,
    /// No answer in time, or one that says nothing.
    Unclear,
}

/// Connects and hangs up.
pub async fn contact(host: &str, port: u16, limit: Duration) -> Contact {
    match tokio::time::timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Contact::Somebody,
        Ok(Err(error)) if nobody(error.kind()) => Contact::Nobody,
        _ => Contact::Unclear,
    }
}

/// An error that says that nobody listens there.
#[must_use]
pub fn nobody(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::NotFound
            | ErrorKind::AddrNotAvailable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    )
}
