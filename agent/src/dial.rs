//! How coordinators and other agents are dialled: by mutual TLS, whoever is meant and nobody else.

use std::sync::Arc;
use std::time::Duration;

use regent_proto::tls::{ChannelOptions, Expect, Identity, Tls};

use crate::settings::{Dial, DialError, Expected};

mod names;

pub use names::Names;

/// Dials with this agent's certificate. Names are looked up by `names` for every connection.
#[must_use]
pub fn over_tls(tls: Tls, names: &Names) -> Dial {
    let lookup = names.lookup();
    Arc::new(move |address: &str, expected: &Expected, patience: Duration| {
        let expected = match expected {
            // Which one it is must agree with its Welcome; an address does not say.
            Expected::Coordinator => Expect::AnyCoordinator,
            Expected::Agent(cluster) => Expect::Exactly(Identity::Agent(cluster.to_string())),
        };
        let options = ChannelOptions { connect_timeout: patience, expected, ..ChannelOptions::heartbeat(patience) };
        tls.dial(address, options, lookup.clone())
            .map_err(|source| DialError::Tls { address: address.to_owned(), source: Box::new(source) })
    })
}

#[cfg(test)]
mod tests;
