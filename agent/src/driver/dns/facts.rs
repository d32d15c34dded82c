//! What a redirect would meet: asked of the servers, without a change.

use regent_core::facts::Findings;

use super::DnsDriver;
use crate::driver::Found;

impl DnsDriver {
    pub(super) async fn look_around(&self) -> Found {
        let findings = Findings { lacks: self.lacking().await };
        Found { findings, ..Found::default() }
    }

    /// A server that does not answer refuses nothing.
    async fn lacking(&self) -> Vec<String> {
        let Some(updater) = &self.updater else { return Vec::new() };
        let refused = updater.change_nothing().await.err().filter(|error| !error.retryable);
        refused.map(|error| error.message).into_iter().collect()
    }
}
