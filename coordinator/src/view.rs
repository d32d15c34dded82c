//! The view model: everything there is to show, as plain values.
//!
//! ```text
//!  applied state ─┐
//!  evidence ──────┼──► View::build ──► dashboard · /api/view · gRPC · /metrics
//!  leadership ────┘
//! ```
//!
//! It reads and never proposes. What is stale or missing is *unknown* here, too: never healthy, never dead. Ages and
//! durations are milliseconds and end in `_ms`; wall clocks are RFC 3339 in UTC. Without quorum the view goes on
//! showing the last applied state and says how old that may be.

use std::time::Duration;

use regent_core::evidence::Evidence;
use regent_core::id::CoordinatorId;
use regent_core::state::State;
use regent_core::time::{Moment, Span, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use crate::node::Node;
use crate::replica::Leadership;

mod application;
mod audit;
mod cluster;
mod group;
mod readiness;
mod resource;
mod run;
mod words;

pub use application::{AnswerView, ApplicationView, ClusterInApplication, CoolDownView, RefusalView, WhyRule, WhyView};
pub use audit::AuditView;
pub use cluster::{ClusterView, SightView, VoteView, WitnessView};
pub use group::{CoordinatorView, MeView, PauseView, QuorumView};
pub use readiness::NoteView;
pub use resource::{ResourceView, UpstreamView};
pub use run::{
    DecisionView, FailureView, GapView, LossView, ObjectiveState, RecoveryView, RunView, StaleAnswerView, StepView,
};
pub use words::{Contacted, Fence, Health, Lease, Role, RunState, StepPhase};

/// How many runs a view holds, newest first; older ones are shown one by one.
pub const RUNS_SHOWN: usize = 50;
/// How many audit records a view holds, newest first.
pub const AUDIT_SHOWN: usize = 100;

/// Everything one coordinator has to show at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// UUID of the group; empty until it is created.
    pub group: String,
    /// When the view was made, by this coordinator's clock.
    pub made_at: String,
    /// Index of the last applied entry.
    pub applied_index: u64,
    /// Serial of the DNS zone.
    pub dns_serial: u32,
    /// The coordinator that made it.
    pub me: MeView,
    /// Whether a majority is in contact, and how old the view may be if not.
    pub quorum: QuorumView,
    /// The global pause.
    pub paused: Option<PauseView>,
    /// Clusters that stood lost when the breaker opened; none while it is closed.
    pub frozen: Option<Vec<String>>,
    /// Every coordinator of the group.
    pub coordinators: Vec<CoordinatorView>,
    /// Every cluster, with what each coordinator sees of it.
    pub clusters: Vec<ClusterView>,
    /// Every application.
    pub applications: Vec<ApplicationView>,
    /// The newest [`RUNS_SHOWN`] runs, newest first.
    pub runs: Vec<RunView>,
    /// The newest [`AUDIT_SHOWN`] audit records, newest first.
    pub audit: Vec<AuditView>,
    /// Automatic actions that are being refused now.
    pub refusals: Vec<RefusalView>,
}

/// What a view is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The applied state.
    pub state: &'a State,
    /// What this coordinator knows beside it.
    pub evidence: &'a Evidence,
    /// What raft says of leadership.
    pub leadership: &'a Leadership,
    /// Who looks.
    pub me: CoordinatorId,
    /// The monotonic clock in the core's terms.
    pub now: Moment,
    /// The same moment by the clock that leadership is dated with.
    pub instant: Instant,
    /// The wall clock.
    pub wall: Timestamp,
}

impl View {
    /// Makes a view. Pure: the same inputs make the same view.
    #[must_use]
    pub fn build(inputs: &Inputs<'_>) -> Self {
        let state = inputs.state;
        let applications: Vec<_> =
            state.applications.iter().map(|(id, known)| ApplicationView::build(inputs, id, known)).collect();
        Self {
            group: state.group.to_string(),
            made_at: rfc3339(inputs.wall),
            applied_index: state.applied.0,
            dns_serial: state.dns_serial,
            me: MeView::build(inputs),
            quorum: QuorumView::build(inputs),
            paused: state.paused.as_ref().map(PauseView::build),
            frozen: state.frozen.as_ref().map(|clusters| clusters.iter().map(ToString::to_string).collect()),
            coordinators: CoordinatorView::all(inputs),
            clusters: ClusterView::all(inputs),
            refusals: applications.iter().filter_map(|application| application.refusal.clone()).collect(),
            applications,
            runs: state.runs.values().rev().take(RUNS_SHOWN).map(|run| RunView::build(inputs, run)).collect(),
            audit: state.audit.iter().rev().take(AUDIT_SHOWN).map(AuditView::build).collect(),
        }
    }

    /// The view of a node as it is now.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        look(node, Self::build)
    }

    /// An application by name.
    #[must_use]
    pub fn application(&self, name: &str) -> Option<&ApplicationView> {
        self.applications.iter().find(|application| application.name == name)
    }

    /// A run by id, if it is among the newest.
    #[must_use]
    pub fn run(&self, id: u64) -> Option<&RunView> {
        self.runs.iter().find(|run| run.id == id)
    }
}

/// Looks at a node through inputs of one moment.
pub fn look<R>(node: &Node, see: impl FnOnce(&Inputs<'_>) -> R) -> R {
    // The evidence is copied first: holding both locks at once could deadlock with who takes them the other way round.
    let evidence = node.see(Clone::clone);
    let leadership = node.replica.leadership().borrow().clone();
    let instant = Instant::now();
    let (now, wall) = (node.moment(instant), node.wall());
    node.replica.read(|state| {
        see(&Inputs { state, evidence: &evidence, leadership: &leadership, me: node.id, now, instant, wall })
    })
}

impl Inputs<'_> {
    fn age_ms(&self, moment: Moment) -> u64 {
        self.now.since(moment).millis()
    }

    fn instant_age_ms(&self, instant: Instant) -> u64 {
        millis(self.instant.saturating_duration_since(instant))
    }

    /// Until when the applied state is known to be the group's: now with quorum, without it the last contact.
    fn known_until(&self) -> Timestamp {
        let silent = self.leadership.quorum(&self.state.voters, self.instant).age;
        let patience = self.leadership.patience();
        match silent.filter(|silent| *silent > patience).map(|silent| i64::try_from(silent.as_millis())) {
            Some(Ok(millis)) => Timestamp(self.wall.0.saturating_sub(millis)),
            Some(Err(_)) | None => self.wall,
        }
    }

    /// True if this coordinator leads and so is told what the others see.
    fn leads(&self) -> bool {
        self.leadership.leader == Some(self.me)
    }
}

/// A wall clock in UTC, with milliseconds; empty if it is outside of what can be written.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds, for the model.
const fn ms(span: Span) -> u64 {
    span.millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_clocks_are_rfc_3339() {
        assert_eq!(rfc3339(Timestamp(1_790_000_000_042)), "2026-09-21T14:13:20.042Z");
        assert_eq!(rfc3339(Timestamp(i64::MAX)), "");
    }
}
