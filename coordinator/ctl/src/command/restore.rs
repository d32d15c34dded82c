//! `regentctl restore`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use regent_core::backup::Header;
use sha2::{Digest, Sha256};

use crate::failure::Failure;
use crate::output::say;

/// Checks a backup, shows what it holds, and says how a group is made from it. Changes nothing.
#[derive(Args)]
#[command(after_help = "\
A group is restored only when a majority of its coordinators is lost for good. On the machine of the coordinator with the
lowest id, with an empty data directory:

  regent-coordinator --config coordinator.yaml --restore FILE

then start all coordinators, the others with empty data directories. Every application *recovers*: nothing is granted or
decided until the agents of all its clusters have reported what they have stored. The primary of their highest terms
stays primary, one epoch above all that was seen; its databases are closed for a moment and opened again. So an old
backup never brings an old primary back. `regentctl why APP` says what is missing, `regentctl recover --help` what a human
can say: that the databases of a lost cluster are off, or which of two is the primary.

Examples:
  regentctl restore regent.backup")]
pub(crate) struct Restore {
    /// The backup.
    file: PathBuf,
}

impl Restore {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let shown = self.file.display();
        let bytes = std::fs::read(&self.file).map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
        let header = check(&bytes).map_err(|why| Failure::failed(format!("{shown} is no whole backup: {why}")))?;
        say(&format!(
            "{}\nTo begin a new group from it, where the old one is lost for good, on the coordinator with the lowest id:\n  \
             regent-coordinator --config coordinator.yaml --restore {shown}",
            summary(&header)
        ));
        Ok(())
    }
}

/// What a file says of itself, if its checksum holds.
pub(super) fn check(bytes: &[u8]) -> Result<Header, String> {
    let (header, body) = Header::split(bytes)?;
    let sum: String = Sha256::digest(body).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    if body.len() as u64 == header.length && sum == header.sha256 {
        Ok(header)
    } else {
        Err("its checksum does not match".to_owned())
    }
}

pub(super) fn summary(header: &Header) -> String {
    let made = Timestamp::from_millisecond(header.made_ms).map(|at| at.to_string()).unwrap_or_default();
    let mut text = format!(
        "group {}, restored {} times, as of index {}, made {made} by coordinator {}\n",
        header.group, header.restoration, header.index, header.coordinator
    );
    for one in &header.applications {
        let primary = if one.primary.is_empty() { "no primary" } else { &one.primary };
        let recovers = if one.recovering { ", recovering" } else { "" };
        let _ = writeln!(text, "  {}: epoch {}, {primary}{recovers}", one.name, one.epoch);
    }
    text
}
