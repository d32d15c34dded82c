//! A database on another machine than the agent's: its processes are not ours to end.
//!
//! Its hard fence is a command that agent.yaml lists, or there is none. Either way the coordinators are told: silence of
//! this agent then proves nothing, and no failover rests on it (safety.md, "Fences that last").

use std::time::Duration;

use serde::Deserialize;

use super::process::Program;
use super::process::children::Children;
use super::process::contact::{Contact, contact};
use super::{Done, DriverError, DriverResult, FenceReach};

/// The listed command; the guard begins it anew when it takes longer.
const COMMAND_LIMIT: Duration = Duration::from_secs(8);

/// One look whether anybody listens.
const CONTACT_LIMIT: Duration = Duration::from_secs(1);

/// Where the processes of a database are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FenceAt {
    /// On this machine: the guard can end them by itself.
    #[default]
    Local,
    /// On another one.
    Remote,
}

impl FenceAt {
    /// For the coordinators.
    #[must_use]
    pub const fn reach(self) -> FenceReach {
        match self {
            Self::Local => FenceReach::Local,
            Self::Remote => FenceReach::Remote,
        }
    }
}

/// Runs the listed command and sees that nobody listens any more.
///
/// # Errors
/// If none is listed, it fails, or somebody listens still.
pub async fn end(listed: &[String], host: &str, port: u16) -> DriverResult {
    if listed.is_empty() {
        return Err(DriverError::permanent(
            "fence-elsewhere",
            format!(
                "the database at {host}:{port} runs on another machine, and agent.yaml lists no hardFence for it: this agent \
                 and its guard cannot end it; end it there"
            ),
        ));
    }
    let program = Program::listed(listed);
    // Not recorded: a hard fence waits for no disk.
    let finished = program.run(&Children::default(), COMMAND_LIMIT).await.map_err(|error| {
        let failed = error.failure("fence-elsewhere-failed");
        DriverError::retryable("fence-elsewhere-failed", failed.message)
    })?;
    if !finished.success() {
        return Err(DriverError::retryable(
            "fence-elsewhere-failed",
            format!("{} failed: {}", program.name(), finished.last_words()),
        ));
    }
    match contact(host, port, CONTACT_LIMIT).await {
        Contact::Nobody => {
            Ok(Done { message: format!("{} ended it; nobody listens", program.name()), ..Done::default() })
        }
        Contact::Somebody | Contact::Unclear => Err(DriverError::retryable(
            "fence-elsewhere-failed",
            format!("{} succeeded, and {host}:{port} is still not seen closed; look at that machine", program.name()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port where nobody listens once the listener is dropped.
    async fn listener() -> (tokio::net::TcpListener, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn command(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[tokio::test]
    async fn without_a_command_it_cannot_be_ended_and_that_is_for_good() {
        let (_listening, port) = listener().await;
        let refused = end(&[], "127.0.0.1", port).await.unwrap_err();
        assert_eq!((refused.code, refused.retryable), ("fence-elsewhere", false));
    }

    #[tokio::test]
    async fn only_what_is_seen_closed_is_fenced() {
        let (listening, port) = listener().await;
        let done = command(&["/bin/true"]);
        assert_eq!(end(&done, "127.0.0.1", port).await.unwrap_err().code, "fence-elsewhere-failed");
        drop(listening);
        end(&done, "127.0.0.1", port).await.unwrap();
        let failed = end(&command(&["/bin/false"]), "127.0.0.1", port).await.unwrap_err();
        assert_eq!((failed.code, failed.retryable), ("fence-elsewhere-failed", true));
    }
}
