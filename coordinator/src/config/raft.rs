//! `raft:` in coordinator.yaml: times and sizes of replication. The same in all coordinators of a group.
//!
//! The defaults suit coordinators some tens of milliseconds apart. The leader must be answered within a heartbeat, so
//! with longer ways between the regions `heartbeat` is raised, and the times of elections with it.

use regent_core::time::Span;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use crate::raft::RaftOptions;

/// A coordinator that is silent for less than two heartbeats has missed only one.
const HEARTBEATS_BEFORE_ELECTION: u64 = 2;
/// A proposal outlives one election: a silence of `electionMax`, and a wait of at most as much.
const ELECTIONS_IN_PROPOSAL: u64 = 2;

/// Times and sizes of replication, each with its line.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Raft {
    /// The leader speaks at least this often, and must be answered within it: above the round trip between any two
    /// regions. Default: 100ms.
    pub heartbeat: Spanned<Span>,
    /// After a silence of `electionMax` a coordinator waits for a random time between `electionMin` and
    /// `electionMax`, then stands for election. At least two heartbeats. Default: 250ms.
    pub election_min: Spanned<Span>,
    /// See `electionMin`, which is shorter. Default: 500ms.
    pub election_max: Spanned<Span>,
    /// For a connection to another coordinator, with its handshake. At least a heartbeat. Default: 1s.
    pub connect_timeout: Spanned<Span>,
    /// For one call that carries entries or a vote. At least a heartbeat. Default: 2s.
    pub rpc_timeout: Spanned<Span>,
    /// For a whole snapshot on its way to another coordinator. At least `rpcTimeout`. Default: 1m.
    pub snapshot_timeout: Spanned<Span>,
    /// A proposal or a read that is not done in this time ends as "no quorum". At least twice `electionMax`.
    /// Default: 5s.
    pub propose_timeout: Spanned<Span>,
    /// A snapshot is taken after this many entries. At least 1. Default: 5000.
    pub snapshot_every: Spanned<u64>,
    /// This many entries stay behind a snapshot, for coordinators that lag a little. Default: 1000.
    pub keep_entries: Spanned<u64>,
}

/// Two values that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contradiction {
    pub(super) key: &'static str,
    /// Where it stands; none if it is a default.
    pub(super) line: Option<u64>,
    pub(super) message: String,
}

impl Default for Raft {
    fn default() -> Self {
        let times = |millis| unsaid(Span::from_millis(millis));
        Self {
            heartbeat: times(100),
            election_min: times(250),
            election_max: times(500),
            connect_timeout: times(1_000),
            rpc_timeout: times(2_000),
            snapshot_timeout: times(60_000),
            propose_timeout: times(5_000),
            snapshot_every: unsaid(5_000),
            keep_entries: unsaid(1_000),
        }
    }
}

impl Raft {
    /// Puts them into the options of raft.
    pub fn set(&self, options: &mut RaftOptions) {
        let time = |spanned: &Spanned<Span>| std::time::Duration::from_millis(spanned.value.millis());
        options.heartbeat = time(&self.heartbeat);
        options.election_min = time(&self.election_min);
        options.election_max = time(&self.election_max);
        options.connect_timeout = time(&self.connect_timeout);
        options.rpc_timeout = time(&self.rpc_timeout);
        options.snapshot_timeout = time(&self.snapshot_timeout);
        options.propose_timeout = time(&self.propose_timeout);
        options.snapshot_every = self.snapshot_every.value;
        options.keep_entries = self.keep_entries.value;
    }

    pub(super) fn check(&self) -> Result<(), Contradiction> {
        let heartbeat = ("raft.heartbeat", &self.heartbeat);
        let election_max = ("raft.electionMax", &self.election_max);
        if self.heartbeat.value == Span::ZERO {
            return Err(contradiction(heartbeat, None, "must be longer than no time".to_owned()));
        }
        if self.snapshot_every.value == 0 {
            let line = line(&self.snapshot_every.referenced);
            let message = "a snapshot after no entries would be one without end; at least 1".to_owned();
            return Err(Contradiction { key: "raft.snapshotEvery", line, message });
        }
        let election_min = ("raft.electionMin", &self.election_min);
        at_least(election_min, HEARTBEATS_BEFORE_ELECTION, heartbeat)?;
        if self.election_max.value <= self.election_min.value {
            let message = format!("must be longer than raft.electionMin, {}", self.election_min.value);
            return Err(contradiction(election_max, Some(election_min), message));
        }
        at_least(("raft.connectTimeout", &self.connect_timeout), 1, heartbeat)?;
        let rpc_timeout = ("raft.rpcTimeout", &self.rpc_timeout);
        at_least(rpc_timeout, 1, heartbeat)?;
        at_least(("raft.snapshotTimeout", &self.snapshot_timeout), 1, rpc_timeout)?;
        at_least(("raft.proposeTimeout", &self.propose_timeout), ELECTIONS_IN_PROPOSAL, election_max)
    }
}

type Named<'a> = (&'static str, &'a Spanned<Span>);

fn at_least(it: Named<'_>, times: u64, other: Named<'_>) -> Result<(), Contradiction> {
    let least = other.1.value.times(times);
    if it.1.value >= least {
        return Ok(());
    }
    let what = if times == 1 { String::new() } else { format!("{times} times ") };
    Err(contradiction(it, Some(other), format!("must be at least {what}{}, {least}", other.0)))
}

/// The value that was written down is the one to blame; a default contradicts nothing by itself.
fn contradiction(it: Named<'_>, other: Option<Named<'_>>, message: String) -> Contradiction {
    let message = format!("{}: {message}", it.1.value);
    let written = line(&it.1.referenced).or_else(|| line(&other?.1.referenced));
    Contradiction { key: it.0, line: written, message }
}

fn line(place: &Location) -> Option<u64> {
    (*place != Location::UNKNOWN).then(|| place.line())
}

const fn unsaid<T>(value: T) -> Spanned<T> {
    Spanned::new(value, Location::UNKNOWN, Location::UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Raft {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn what_is_not_said_is_what_raft_itself_has_by_default() {
        let id = regent_core::id::CoordinatorId(1);
        let default = RaftOptions::new(id, std::collections::BTreeMap::new(), std::path::PathBuf::new());
        let mut options = default.clone();
        read("{}").set(&mut options);
        assert_eq!(format!("{options:?}"), format!("{default:?}"));
        assert_eq!(read("{}").check(), Ok(()));
    }

    #[test]
    fn slow_ways_have_slow_heartbeats() {
        let raft = read("heartbeat: 400ms\nelectionMin: 1s\nelectionMax: 2s\n");
        assert_eq!(raft.check(), Ok(()));
        let printed = serde_saphyr::to_string(&raft).unwrap();
        for line in ["heartbeat: 400ms", "electionMax: 2s", "rpcTimeout: 2s", "snapshotEvery: 5000"] {
            assert!(printed.contains(line), "{printed}");
        }
    }

    #[test]
    fn contradictions_name_the_line_that_was_written() {
        let refused = |text: &str| read(text).check().unwrap_err();
        let short = refused("snapshotEvery: 9\nelectionMin: 150ms\n");
        assert_eq!((short.key, short.line), ("raft.electionMin", Some(2)));
        assert_eq!(short.message, "150ms: must be at least 2 times raft.heartbeat, 200ms");
        // The default of electionMin is not to blame: what was written is.
        let long = refused("keepEntries: 5\n\nheartbeat: 200ms\n");
        assert_eq!((long.key, long.line), ("raft.electionMin", Some(3)));
        for (text, key) in [
            ("heartbeat: 0s", "raft.heartbeat"),
            ("snapshotEvery: 0", "raft.snapshotEvery"),
            ("electionMax: 250ms", "raft.electionMax"),
            ("connectTimeout: 99ms", "raft.connectTimeout"),
            ("rpcTimeout: 99ms", "raft.rpcTimeout"),
            ("snapshotTimeout: 1999ms", "raft.snapshotTimeout"),
            ("proposeTimeout: 999ms", "raft.proposeTimeout"),
        ] {
            let contradiction = refused(text);
            assert_eq!((contradiction.key, contradiction.line), (key, Some(1)), "{text}");
        }
        assert!(serde_saphyr::from_str::<Raft>("heartBeat: 1s").is_err(), "an unknown key");
    }
}
