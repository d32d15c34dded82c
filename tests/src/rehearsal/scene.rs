//! The application of the worlds of real processes, in entries: two clusters, protected; and how each kind of run begins.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use regent_core::application::{Action, Application, ResourceKind, parse};
use regent_core::entry::{Agent, Cause, Database, Endpoint, Entry, Finding, Ground};
use regent_core::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, GroupId, Incarnation, InstallationId, LogIndex, RegionId, SystemId,
    Token, VoteNumber,
};
use regent_core::run::{Run, StepKind, StepState};
use regent_core::state::{ApplicationState, State};
use regent_core::switchover::Purpose;
use regent_core::time::Span;
use regent_deploy::config;
use regent_deploy::world::REGIONS;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By plan.
    Switchover,
    /// The same, given up when the new side has caught up.
    Undo,
    /// The same where the runbook stops the service before it fences: what was stopped is started again.
    QuiescedUndo,
    /// Fenced first: a database died.
    Failover,
    /// The region is gone.
    Loss,
    /// Of the side that a failover left.
    Rejoin,
    /// With copies, beside a primary that serves.
    Drill,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Switchover, Self::Undo, Self::QuiescedUndo, Self::Failover, Self::Loss, Self::Rejoin, Self::Drill];

    /// When the new side has caught up.
    pub(super) const fn gives_up(self) -> bool {
        matches!(self, Self::Undo | Self::QuiescedUndo)
    }

    pub(super) const fn loses_the_region(self) -> bool {
        matches!(self, Self::Loss)
    }

    /// The entries with which it begins.
    pub(super) fn opening(self, state: &State) -> Vec<Entry> {
        let started = |cause| Entry::RunStarted {
            application: application(),
            epoch: Epoch(1),
            cause,
            to: to(),
            finding: Finding::default(),
            plan: None,
        };
        match self {
            Self::Switchover | Self::Undo | Self::QuiescedUndo => {
                vec![started(Cause::Switchover {
                    by: "ann".to_owned(),
                    max_write_outage: Span::from_secs(3600),
                    purpose: Purpose::Switchover,
                })]
            }
            Self::Failover | Self::Rejoin => vec![started(Cause::SelfFenced)],
            Self::Drill => vec![Entry::DrillStarted {
                application: application(),
                cluster: to(),
                by: "ann".to_owned(),
                finding: Finding::default(),
            }],
            Self::Loss => {
                let vote = |observer| Entry::Vote {
                    observer: CoordinatorId(observer),
                    incarnation: Incarnation(1),
                    cluster: from(),
                    number: VoteNumber(1),
                    silence: Span::ZERO,
                };
                let next = state.applied.next();
                let terms = state.applications.values().next().and_then(|known| known.terms.last());
                vec![
                    vote(1),
                    vote(2),
                    Entry::Decide {
                        application: application(),
                        from: Epoch(1),
                        to: to(),
                        terms: terms.map_or(Token { restoration: 0, index: LogIndex(0) }, |terms| terms.number),
                        ground: Ground::Lost { votes: [next, next.next()].into() },
                        finding: Finding::default(),
                    },
                ]
            }
        }
    }
}

pub(super) fn application() -> ApplicationId {
    ApplicationId::new(config::APPLICATION).expect("a name")
}

fn cluster(region: usize) -> ClusterId {
    ClusterId::new(REGIONS[region].1.expect("it has one")).expect("a name")
}

/// What is told to stop, and not awaited.
pub(super) fn left_alone() -> String {
    format!("service in {}", from())
}

/// The primary at the start.
pub(super) fn from() -> ClusterId {
    cluster(0)
}

/// The other.
pub(super) fn to() -> ClusterId {
    cluster(1)
}

/// The listed command of the service that [`with_a_command`] has run.
pub const COMMAND: &str = "note";

/// The Application document with one more line in the runbooks of a failover and a switchover: a listed command. It is the
/// one step of which no driver can tell whether it was done.
///
/// # Errors
/// The document has no place for it.
pub fn with_a_command(document: &str) -> Result<String> {
    let promotes = format!("      - promote: [{}, {}]\n", config::DATABASE, config::CACHE);
    let place = format!("{promotes}      - redirect: ");
    ensure!(document.matches(&place).count() == 2, "the document does not have {place:?} twice any more");
    let line = format!("{promotes}      - run: {{ resource: service, command: {COMMAND} }}\n      - redirect: ");
    Ok(document.replace(&place, &line))
}

/// The Application document with a switchover that stops the service before it fences.
///
/// # Errors
/// The document has no place for it.
pub fn with_a_quiesce(document: &str) -> Result<String> {
    let runbook = "    switchover:\n";
    ensure!(document.matches(runbook).count() == 1, "the document has no {runbook:?} any more");
    Ok(document.replace(runbook, &format!("{runbook}      - quiesce: [service]\n")))
}

pub(super) fn document(kind: Kind) -> Result<Application> {
    let (from, to) = (from(), to());
    let (failover_after, loss) = (Duration::from_secs(10), Duration::from_secs(5));
    let text = config::application(&[from.as_str(), to.as_str()], failover_after, loss, "command");
    let mut text = with_a_command(&text)?;
    if kind == Kind::QuiescedUndo {
        text = with_a_quiesce(&text)?;
    }
    parse(&text).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))
}

pub(super) fn rejoin() -> Entry {
    Entry::RejoinStarted { application: application(), cluster: from(), reclone: true, by: "ann".to_owned() }
}

/// Every catch-up of the run has succeeded, and nobody has decided or given up.
pub(super) fn has_caught_up(run: &Run) -> bool {
    let mut catching = run.walk().filter(|(step, _)| step.kind == StepKind::Action(Action::CatchUp));
    run.status == regent_core::run::RunStatus::Running
        && catching.all(|(_, progress)| progress.state == StepState::Succeeded)
}

/// The application as it is known once it is protected: what plans are made from.
///
/// # Errors
/// The document is refused.
pub fn protected_application() -> Result<ApplicationState> {
    protected_by(document(Kind::Switchover)?)
}

/// The same with the document of [`with_a_quiesce`].
///
/// # Errors
/// The document is refused.
pub fn quiesced_application() -> Result<ApplicationState> {
    protected_by(document(Kind::QuiescedUndo)?)
}

fn protected_by(document: Application) -> Result<ApplicationState> {
    let (mut state, mut wall) = (State::default(), 1_000_000);
    state.apply_membership(LogIndex(1), vec![(1..=3).map(CoordinatorId).collect()]);
    for entry in protected(document) {
        super::done(&mut state, &mut wall, entry)?;
    }
    let confirmation = confirmed(&state).context("nothing to confirm")?;
    super::done(&mut state, &mut wall, confirmation)?;
    state.applications.remove(&application()).context("no application")
}

/// From an empty group to a protected application.
pub(super) fn protected(document: Application) -> Vec<Entry> {
    let databases: BTreeMap<_, _> = document
        .guarded()
        .into_iter()
        .map(|resource| {
            let system_id = SystemId(format!("system of {resource}"));
            (resource, Database { system_id, timeline: 1 })
        })
        .collect();
    let mut entries = vec![Entry::GroupCreated { group: GroupId("g".to_owned()) }];
    for id in 1..=3 {
        entries.push(Entry::ObserverStarted { observer: CoordinatorId(id), incarnation: Incarnation(1) });
    }
    for region in 0..2 {
        entries.push(Entry::AgentRegistered(agent(&document, region)));
    }
    entries.push(Entry::Applied { application: Box::new(document), by: "ann".to_owned() });
    entries.push(Entry::Adopt { application: application(), primary: from(), databases });
    entries
}

fn agent(document: &Application, region: usize) -> Agent {
    let endpoint = |kind: ResourceKind| Endpoint {
        kind: kind.to_string(),
        addresses: if kind == ResourceKind::Dns { vec![format!("127.0.0.1{}", region + 1)] } else { Vec::new() },
        remote_fence: false,
    };
    let endpoints = document.resources.iter().map(|(name, resource)| (name.clone(), endpoint(resource.kind))).collect();
    Agent {
        cluster: cluster(region),
        region: RegionId::new(REGIONS[region].0).expect("a name"),
        installation: InstallationId(format!("installation {region}")),
        incarnation: Incarnation(1),
        boot: "boot".to_owned(),
        peer_address: "127.0.0.1:1".to_owned(),
        witness_key: Vec::new(),
        endpoints: BTreeMap::from([(application(), endpoints)]),
    }
}

/// The primary's agent names its newest terms.
pub(super) fn confirmed(state: &State) -> Option<Entry> {
    let known = state.applications.get(&application())?;
    Some(Entry::TermsConfirmed {
        application: application(),
        terms: known.terms.last()?.number,
        cluster: from(),
        installation: state.agents.get(&from())?.installation.clone(),
        databases: known.databases.get(&from()).cloned().unwrap_or_default(),
    })
}
