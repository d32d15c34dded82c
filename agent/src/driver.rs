//! What a driver can do with one resource of one application in this cluster.
//!
//! No driver decides. Every method reads reality first, is safe to repeat, and says `already` when nothing had to be
//! done. A driver is a leaf: it knows its resource and nothing of leases, epochs or coordinators. Only `fence` and the
//! lease call `fence` without a dispatched step; everything else happens for a committed intent.

pub mod backup;
pub mod build;
pub mod command;
pub mod dns;
pub mod elsewhere;
pub mod http;
pub mod kubernetes;
pub mod postgres;
pub mod process;
mod reached;
pub mod redis;
pub mod scratch;

use std::time::Duration;

use async_trait::async_trait;
use regent_core::facts::{BackupFacts, Findings, PostgresFacts, RedisFacts};

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Whether it works.
    pub health: Health,
    /// Its role by its own word.
    pub role: Role,
    /// It accepts writes from ordinary clients.
    pub writable: bool,
    /// Identity of the database; empty if unknown.
    pub system_id: String,
    /// For engines that name each history anew: the one that this one went on from, and up to which position.
    pub previous: Option<(String, u64)>,
    /// Timeline; 0 if unknown or if the engine has none.
    pub timeline: u64,
    /// Position in bytes; none if the driver cannot tell: unknown, not zero.
    pub position: Option<u64>,
    /// The position in the engine's own writing; empty if unknown.
    pub position_text: String,
    /// A standby's view of its upstream; none for a primary.
    pub upstream: Option<Upstream>,
    /// What was seen, for humans, without secrets.
    pub detail: String,
}

impl Probe {
    /// A probe that failed or could not tell.
    #[must_use]
    pub fn without_answer(health: Health, detail: impl Into<String>) -> Self {
        Self {
            health,
            role: Role::Unknown,
            writable: false,
            system_id: String::new(),
            previous: None,
            timeline: 0,
            position: None,
            position_text: String::new(),
            upstream: None,
            detail: detail.into(),
        }
    }
}

/// Whether a resource works. Unknown is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It answered as it should.
    Healthy,
    /// It is certain that it does not work: refused, gone, answered with an error.
    Failed,
    /// The probe itself could not be carried out, or timed out.
    Unknown,
}

/// Role by the resource's own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not in recovery, not a replica; perhaps fenced.
    Primary,
    /// Follows another.
    Standby,
    /// Not a replicated resource.
    None,
    /// It could not be told.
    Unknown,
}

/// A standby's view of its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// The link is established now.
    pub connected: bool,
    /// Since bytes or a keep-alive came over the link; none if none did.
    pub last_heard: Option<Duration>,
    /// Bytes behind what is known to exist upstream; none if unknown.
    pub lag_bytes: Option<u64>,
    /// Time behind; none if unknown.
    pub lag: Option<Duration>,
    /// The cluster that it is configured to follow, connected or not; none if the options know none there.
    pub cluster: Option<String>,
}

/// What a successful action measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// Reality already was as asked.
    pub already: bool,
    /// `fence`: it went hard.
    pub hard: bool,
    /// What was done, for humans.
    pub message: String,
    /// Position afterwards.
    pub position: Option<u64>,
    /// Timeline afterwards; 0 if none.
    pub timeline: u64,
    /// `redirect`: servers that still gave an old answer, or from which no new one could be had.
    pub stale_answers: Vec<StaleAnswer>,
    /// Of a drill: how long the same would take in earnest, where that is not the whole of it.
    pub rehearsed: Option<Duration>,
}

/// A server that still gave an old answer, or from which no new one could be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleAnswer {
    /// Its address.
    pub server: String,
    /// For how long after the redirect it was seen to give an old answer; zero if it never was.
    pub lasted: Duration,
    /// It gives the new answer now.
    pub cleared: bool,
    /// False if nothing came back from it when it was last asked.
    pub reached: bool,
}

/// Why an action failed. The message names the place and what to do, carries no secret, and never repeats its source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DriverError {
    /// Stable code, e.g. `postgres-unreachable`; has a page in deploy/runbooks.
    pub code: &'static str,
    /// For humans.
    pub message: String,
    /// Another attempt may succeed.
    pub retryable: bool,
}

impl DriverError {
    /// A failure that another attempt may not meet.
    #[must_use]
    pub fn retryable(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: true }
    }

    /// A failure that will stay until a human does something.
    #[must_use]
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false }
    }

    /// This driver has no such action.
    #[must_use]
    pub fn unsupported(kind: &str, action: &str) -> Self {
        Self::permanent("unsupported", format!("a {kind} resource cannot {action}; remove the step from the runbook"))
    }
}

/// The result of an action.
pub type DriverResult = Result<Done, DriverError>;

/// Where a fence acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceReach {
    /// On this machine: the guard can carry it out by itself.
    Local,
    /// On another machine or by an API: it may fail when it is needed most.
    Remote,
    /// Nothing to fence: not a database.
    Nothing,
}

/// Says whose database this is, stored beside the data. Base backups copy it: another cluster's is ignored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Marker {
    /// UUID of the group.
    pub group: String,
    /// Application.
    pub application: String,
    /// Cluster.
    pub cluster: String,
    /// Installation of the agent.
    pub installation: String,
}

/// What `redirect` must bring about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Absolute owner name.
    pub name: String,
    /// What it must answer; never empty, unless only the TTL changes.
    pub addresses: Vec<std::net::IpAddr>,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The addresses stay as they are at the server; only their TTL changes.
    pub ttl_only: bool,
    /// The application's epoch: a writer with an older one is rejected by the record's own guard.
    pub epoch: u64,
    /// The application, to name the guard record.
    pub application: String,
}

/// What `rejoin` must bring about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejoin {
    /// The cluster to follow.
    pub upstream_cluster: String,
    /// An operator commanded it: what this side has beyond the fork may be given up, once it is saved aside.
    pub allow_rewind: bool,
    /// The operator allowed a fresh copy that discards this side's data.
    pub allow_reclone: bool,
    /// This side was fenced for a switchover at this position, and the upstream had everything up to there before it took
    /// over: whatever was acknowledged here until then is there.
    pub covered: Option<u64>,
}

/// What changes seldom.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Of PostgreSQL.
    pub postgres: Option<PostgresFacts>,
    /// Of Redis.
    pub redis: Option<RedisFacts>,
    /// Of its backups, if any are named.
    pub backup: Option<BackupFacts>,
    /// Whether the other clusters answer as a rejoin would need; what was said if not.
    pub reaches: std::collections::BTreeMap<String, Result<(), String>>,
    /// Why its settings could not be looked at; empty if they could.
    pub problem: String,
    /// What was found out by trying.
    pub findings: Findings,
}

/// What a drill does, beside the resource and never with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehearsal {
    /// A copy of this standby becomes a primary of nobody, in the scratch folder.
    Promote,
    /// The newest backup is restored in the scratch folder.
    Restore,
    /// What stands in the scratch folder is looked at.
    Verify,
    /// The scratch folder is emptied, and nothing runs there any more.
    CleanUp,
}

/// One resource in this cluster. Methods that make no sense for a kind answer [`DriverError::unsupported`].
#[async_trait]
pub trait Driver: Send + Sync {
    /// The kind of resource, as documents name it.
    fn kind(&self) -> &'static str;

    /// Where the fence acts.
    fn fence_reach(&self) -> FenceReach {
        FenceReach::Nothing
    }

    /// Looks, and changes nothing. Bounded by the driver's own probe time-out.
    async fn probe(&self) -> Probe;

    /// Shows, without harm, that [`Driver::fence_hard`] would work: where the server answers, its processes are found,
    /// and this process may end them. What cannot be fenced is not led.
    ///
    /// # Errors
    /// Why not.
    async fn can_end(&self) -> Result<(), DriverError> {
        Ok(())
    }

    /// Writes the marker beside the data and makes sure that the next start of the database comes up refusing writes.
    async fn guard(&self, _marker: &Marker) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be guarded"))
    }

    /// True for what comes up closed at its next start by what is written in a file, so that somebody else may take it out.
    fn closes_at_rest(&self) -> bool {
        false
    }

    /// Looks whether the next start of a guarded database would still come up refusing writes, and puts back what does
    /// that. True if it would have accepted writes. Nothing that runs is touched, and a step that works on the database
    /// goes first.
    async fn keep_closed(&self) -> Result<bool, DriverError> {
        Ok(false)
    }

    /// Makes ordinary sessions unable to write and cuts live connections, then sees writes refused as owner and as
    /// superuser, on an old and on a new connection. Replication and the agent's own login stay.
    async fn fence(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be fenced"))
    }

    /// Ends the whole process group of the database, without any disk, and sees it gone.
    async fn fence_hard(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be fenced"))
    }

    /// Lets ordinary sessions write again, at run time only. A database that came up closed at rest is opened.
    async fn unfence(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be unfenced"))
    }

    /// Drains, then refuses new work; with `activate` or `unfence` as its undo.
    async fn quiesce(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be quiesced"))
    }

    /// The undo of a quiesce waits behind it: one that lets transactions end waits no longer for them, and ends with an error.
    /// By then it has written all that it writes, and nothing of it is left to come; what it refuses stays refused. A fence
    /// is not meant, nor is a quiesce that begins later.
    fn break_off(&self) {}

    /// Waits until everything up to the position is received and applied here.
    async fn catch_up(&self, _position: u64) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "catch up"))
    }

    /// Does of a promotion what opens nothing, while the lease for it is still being waited for. The promotion does all of
    /// it again.
    async fn prepare(&self) -> DriverResult {
        Ok(Done { already: true, ..Done::default() })
    }

    /// Makes the database a writable primary and sees a write accepted. With a position: only if it has been reached.
    async fn promote(&self, _position: Option<u64>) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be promoted"))
    }

    /// Starts the service here and sees it running.
    async fn activate(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be activated"))
    }

    /// True for a service that comes up by itself with its machines, so that it must be brought to rest, by
    /// `deactivate`, for as long as this cluster is quarantined.
    fn rests_in_quarantine(&self) -> bool {
        false
    }

    /// Stops the service here and sees it gone.
    async fn deactivate(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be deactivated"))
    }

    /// Points the name here and waits until every authority and configured resolver gives the new answer.
    async fn redirect(&self, _redirect: &Redirect) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be redirected"))
    }

    /// Checks that the resource serves as it should.
    async fn verify(&self) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be verified"))
    }

    /// Makes this side a standby of another cluster. Refuses if the database here is writable.
    async fn rejoin(&self, _rejoin: &Rejoin) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "rejoin"))
    }

    /// What lies here beyond the point where the history of another cluster's database parts from this one's, for humans;
    /// none if nothing does, or this kind cannot tell. Looks, and changes nothing.
    async fn divergence(&self, _upstream_cluster: &str) -> Result<Option<String>, DriverError> {
        Ok(None)
    }

    /// Looks for what changes seldom: settings, slots, backups, whether the other clusters answer and a step would be
    /// allowed. None if there is nothing of that kind to be found. Changes nothing, and is bounded by the driver.
    async fn facts(&self) -> Option<Found> {
        None
    }

    /// The next look was asked for: what is remembered of looks before it is not to be told again.
    fn look_anew(&self) {}

    /// Brings it back from the newest whole backup, closed; what was there is set aside. Refuses if it is writable or
    /// follows another. A repeated step of the same run changes nothing. What is no database is brought back by a listed
    /// command, which is not run again once it has ended well, and is then looked at: the agent remembers how far it came.
    async fn restore(&self, _run: u64) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "be restored"))
    }

    /// Looks at what a listed command has brought back, which a repeat of the step does again, without another restore.
    async fn verify_restored(&self) -> DriverResult {
        Ok(Done { already: true, ..Done::default() })
    }

    /// Of a listed restore: it may run over what one that was ended in the middle has left.
    fn restores_again(&self) -> bool {
        false
    }

    /// One step of a drill, by its run. What is not copied is only looked at.
    async fn rehearse(&self, rehearsal: Rehearsal, _run: u64) -> DriverResult {
        match rehearsal {
            Rehearsal::Verify => self.verify().await,
            Rehearsal::Promote => Err(DriverError::unsupported(self.kind(), "be promoted in a drill")),
            Rehearsal::Restore => Err(DriverError::unsupported(self.kind(), "be restored in a drill")),
            Rehearsal::CleanUp => Ok(Done { already: true, message: "nothing was copied".into(), ..Done::default() }),
        }
    }

    /// Runs a listed command by its name.
    async fn run(&self, _command: &str) -> DriverResult {
        Err(DriverError::unsupported(self.kind(), "run a command"))
    }
}
