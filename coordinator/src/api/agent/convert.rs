//! Between the agents' protocol and the core's types.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::{Action, Application, DnsName, OnCoordinatorLoss};
use regent_core::entry::{Agent, Cause, Coordinator, Endpoint, Ground, Outcome, Report, StaleAnswer};
use regent_core::evidence::{
    Beat, Contact, FenceState, Health, LeaseState, PromiseSight, Role, Sighting, Track, UpstreamSight, WitnessSight,
};
use regent_core::id::{
    ApplicationId, ClusterId, CoordinatorId, Epoch, Incarnation, InstallationId, LogIndex, NameError, RegionId,
    ResourceId, SystemId, Token,
};
use regent_core::run::{CLEAN_UP_STAGE, Rehearsal, Run, Step, StepKind};
use regent_core::state::State;
use regent_core::terms::Terms;
use regent_core::time::{Moment, Span};
use regent_proto::agent::v1 as wire;

use super::text::{LIST_LIMIT, cut, cut_message, whole};

/// A token on the wire.
#[must_use]
pub fn token(token: Token) -> wire::Token {
    wire::Token { restoration: token.restoration, index: token.index.0 }
}

/// A token from the wire.
#[must_use]
pub fn token_from(token: &wire::Token) -> Token {
    Token { restoration: token.restoration, index: LogIndex(token.index) }
}

/// The agent as it introduced itself.
///
/// # Errors
/// If a name in it is none.
pub fn agent(hello: &wire::Hello) -> Result<Agent, NameError> {
    let mut endpoints: BTreeMap<ApplicationId, BTreeMap<ResourceId, Endpoint>> = BTreeMap::new();
    for endpoint in &hello.endpoints {
        let of_application = endpoints.entry(ApplicationId::new(&endpoint.application)?).or_default();
        of_application.insert(
            ResourceId::new(&endpoint.resource)?,
            Endpoint {
                kind: endpoint.kind.clone(),
                addresses: endpoint.addresses.clone(),
                remote_fence: endpoint.remote_fence,
            },
        );
    }
    Ok(Agent {
        cluster: ClusterId::new(&hello.cluster)?,
        region: RegionId::new(&hello.region)?,
        installation: InstallationId(hello.installation.clone()),
        incarnation: Incarnation(hello.incarnation),
        boot: hello.boot.clone(),
        peer_address: hello.peer_address.clone(),
        witness_key: hello.witness_key.clone(),
        endpoints,
    })
}

/// Whom agents should dial.
#[must_use]
pub fn coordinators(state: &State) -> wire::Coordinators {
    let address = |known: &Coordinator| wire::CoordinatorAddress { id: known.id.0, address: known.grpc.clone() };
    wire::Coordinators {
        coordinators: state.coordinators.values().map(address).collect(),
        applied: Some(token(Token { restoration: state.restoration, index: state.applied })),
    }
}

/// Terms with the addresses and keys that the agents need beside them.
#[must_use]
pub fn terms(state: &State, application: &ApplicationId, terms: &Terms) -> wire::TermsUpdate {
    let cluster = |(cluster, listed): (&ClusterId, &regent_core::terms::Listed)| {
        let agent = state.agents.get(cluster);
        wire::ListedCluster {
            cluster: cluster.to_string(),
            installation: listed.installation.as_ref().map(ToString::to_string).unwrap_or_default(),
            excluded: listed.excluded,
            peer_address: agent.map(|agent| agent.peer_address.clone()).unwrap_or_default(),
            witness_key: agent.map(|agent| agent.witness_key.clone()).unwrap_or_default(),
        }
    };
    wire::TermsUpdate {
        application: application.to_string(),
        number: Some(token(terms.number)),
        epoch: terms.epoch.0,
        primary: terms.primary.to_string(),
        fail_over_after_ms: terms.bound.fail_over_after.millis(),
        fence_budget_ms: terms.bound.fence_budget.millis(),
        clusters: terms.clusters.iter().map(cluster).collect(),
        guarded: terms.guarded.iter().map(ToString::to_string).collect(),
        // In joint consensus a majority of each set counts, so the sets go down as they are.
        voters: terms.voters.iter().map(voter_set).collect(),
        failsafe: terms.on_coordinator_loss == OnCoordinatorLoss::Failsafe,
        paused: terms.paused,
    }
}

fn voter_set(set: &BTreeSet<CoordinatorId>) -> wire::VoterSet {
    wire::VoterSet { coordinators: set.iter().map(|id| id.0).collect() }
}

mod facts;

pub use facts::of_node;

/// Longer than three heartbeats of any application: what was said before such a silence is not gone on with.
const BREAK: Span = Span::from_secs(3);

/// A heartbeat's applications, heard at `now` after what was heard before.
#[must_use]
pub fn beats(beats: &[wire::ApplicationBeat], contact: Option<&Contact>, now: Moment) -> BTreeMap<ApplicationId, Beat> {
    let lately = |contact: &&Contact| contact.last_beat.is_some_and(|last| now.since(last) <= BREAK);
    let before = contact.filter(lately).map(|contact| &contact.beats);
    let named = beats.iter().filter_map(|beat| Some((ApplicationId::new(&beat.application).ok()?, one_beat(beat))));
    named.map(|(id, beat)| (id.clone(), beat.after(before.and_then(|before| before.get(&id)), now))).collect()
}

/// Applications of which an agent says that it holds the lease.
#[must_use]
pub fn leased(beats: &BTreeMap<ApplicationId, Beat>) -> BTreeSet<ApplicationId> {
    beats.iter().filter(|(_, beat)| beat.lease == LeaseState::Held).map(|(id, _)| id.clone()).collect()
}

fn one_beat(beat: &wire::ApplicationBeat) -> Beat {
    Beat {
        epoch: Epoch(beat.epoch),
        terms_stored: beat.terms_stored.as_ref().map(token_from),
        terms_named: beat.terms_named.as_ref().map(token_from),
        lease: match beat.lease() {
            wire::LeaseState::Held => LeaseState::Held,
            wire::LeaseState::Lacked => LeaseState::Lacked,
            wire::LeaseState::None | wire::LeaseState::Unspecified => LeaseState::None,
        },
        lease_left: Span::from_millis(beat.lease_left_ms),
        fence: match beat.fence() {
            wire::FenceState::Open => FenceState::Open,
            wire::FenceState::Self_ => FenceState::SelfFenced,
            wire::FenceState::Commanded => FenceState::Commanded,
            wire::FenceState::Unconfirmed | wire::FenceState::Unspecified => FenceState::Unconfirmed,
        },
        guarded: beat.guarded,
        guard_alive: beat.guard_alive,
        failsafe: beat.failsafe,
        rogues: beat.rogues.iter().filter_map(|name| ResourceId::new(name).ok()).collect(),
        self_fenced_since: None,
        lacking_since: None,
    }
}

/// Adds a report that was sent at `sent` to what is known of an agent. Names that are none are passed over: they
/// can name nothing that is known.
pub fn take_report(contact: &mut Contact, report: &wire::Report, sent: Moment) {
    // A word on the machine alone is none on its resources: absence counts only where it was looked for.
    if !report.resources.is_empty()
        || !report.witnesses.is_empty()
        || !report.promises_asked.is_empty()
        || !report.facts.is_empty()
    {
        contact.reported = contact.reported.max(Some(sent));
    }
    for seen in &report.resources {
        let (Ok(application), Ok(resource)) = (ApplicationId::new(&seen.application), ResourceId::new(&seen.resource))
        else {
            continue;
        };
        let of_application = contact.resources.entry(application).or_default();
        let before = of_application.get(&resource);
        let sighting = sighting(seen, before, sent);
        if before.is_none_or(|before| before.at <= sighting.at) {
            of_application.insert(resource, sighting);
        }
    }
    for found in &report.facts {
        let (Ok(application), Ok(resource)) =
            (ApplicationId::new(&found.application), ResourceId::new(&found.resource))
        else {
            continue;
        };
        contact.facts.entry(application).or_default().insert(resource, facts::of_resource(found, sent));
    }
    for witness in &report.witnesses {
        let Ok(cluster) = ClusterId::new(&witness.cluster) else { continue };
        let leases = witness
            .leases
            .iter()
            .filter_map(|lease| Some((ApplicationId::new(&lease.application).ok()?, Epoch(lease.epoch))))
            .collect();
        let at = sent.before(Span::from_millis(witness.age_ms));
        contact.witnesses.insert(cluster, WitnessSight { at, answered: witness.answered, leases });
    }
    for asked in &report.promises_asked {
        let (Ok(application), Ok(cluster)) = (ApplicationId::new(&asked.application), ClusterId::new(&asked.cluster))
        else {
            continue;
        };
        let at = sent.before(Span::from_millis(asked.age_ms));
        let sight = PromiseSight { at, epoch: Epoch(asked.epoch) };
        contact.promises.entry(application).or_default().insert(cluster, sight);
    }
}

fn sighting(seen: &wire::ResourceReport, before: Option<&Sighting>, sent: Moment) -> Sighting {
    let at = sent.before(Span::from_millis(seen.age_ms));
    let mut sighting = Sighting {
        at,
        interval: Span::from_millis(seen.interval_ms.max(1)),
        health: match seen.health() {
            wire::Health::Healthy => Health::Healthy,
            wire::Health::Failed => Health::Failed,
            wire::Health::Unknown | wire::Health::Unspecified => Health::Unknown,
        },
        failures: seen.failures,
        role: match seen.role() {
            wire::Role::Primary => Role::Primary,
            wire::Role::Standby => Role::Standby,
            wire::Role::None => Role::None,
            wire::Role::Unspecified => Role::Unknown,
        },
        writable: seen.writable,
        system_id: SystemId(whole(&seen.system_id)),
        previous: (!seen.previous_id.is_empty()).then(|| (SystemId(whole(&seen.previous_id)), seen.previous_until)),
        timeline: seen.timeline,
        position: seen.position,
        position_text: cut(&seen.position_text),
        advanced: None,
        ailing_since: None,
        closed_since: None,
        unlinked_since: None,
        track: Track::default(),
        last_position: None,
        upstream: seen.upstream.as_ref().map(|upstream| UpstreamSight {
            connected: upstream.connected,
            last_heard: upstream.last_heard_ms.map(|age| sent.before(Span::from_millis(age))),
            lag_bytes: upstream.lag_bytes,
            lag: upstream.lag_ms.map(Span::from_millis),
            cluster: ClusterId::new(&upstream.cluster).ok(),
        }),
        detail: cut(&seen.detail),
    };
    sighting.advanced = before.and_then(|before| sighting.advanced_since(before));
    sighting.ailing_since = sighting.ailing_after(before);
    sighting.closed_since = sighting.closed_after(before);
    sighting.unlinked_since = sighting.unlinked_after(before);
    sighting.track = sighting.track_after(before);
    sighting.last_position = sighting.last_position_after(before);
    sighting
}

/// How an attempt ended; none while it runs.
#[must_use]
pub fn outcome(status: &wire::StepStatus) -> Option<Outcome> {
    match status.phase() {
        wire::StepPhase::Running | wire::StepPhase::Unspecified => None,
        wire::StepPhase::Succeeded => Some(Outcome::Succeeded(Report {
            message: message(status),
            driver: Span::from_millis(status.driver_ms),
            position: status.position,
            timeline: status.timeline,
            already: status.already,
            hard: status.hard,
            rehearsed: status.rehearsed_ms.map(Span::from_millis),
            stale_answers: status
                .stale_answers
                .iter()
                .take(LIST_LIMIT)
                .map(|stale| StaleAnswer {
                    server: cut(&stale.server),
                    lasted: Span::from_millis(stale.for_ms),
                    cleared: stale.cleared,
                    reached: stale.reached,
                })
                .collect(),
        })),
        wire::StepPhase::Failed => Some(Outcome::Failed {
            code: cut(&status.code),
            message: cut_message(&status.message),
            retryable: status.retryable,
        }),
    }
}

/// What was done, and how many servers are not told of by name.
fn message(status: &wire::StepStatus) -> String {
    let message = cut_message(&status.message);
    match status.stale_answers.len().saturating_sub(LIST_LIMIT) {
        0 => message,
        more => format!("{message}; and {more} more servers"),
    }
}

/// The command for a step whose intent is committed; none if no agent has a part in it.
#[must_use]
pub fn command(state: &State, document: &Application, run: &Run, step: &Step) -> Option<wire::StepCommand> {
    let (_, progress) = run.step(step.id)?;
    let kind = match step.kind {
        StepKind::Action(action) => kind(action)?,
        StepKind::Decide => return None,
        StepKind::Unfence => wire::StepKind::Unfence,
        StepKind::Rehearse(rehearsal) => rehearse(rehearsal),
    };
    let dns = step.resource.as_ref().and_then(|resource| document.resources.get(resource)?.dns.as_ref());
    let endpoint = step
        .resource
        .as_ref()
        .and_then(|resource| state.agents.get(&step.cluster)?.endpoints.get(&run.application)?.get(resource));
    Some(wire::StepCommand {
        run: run.id.0,
        step: u32::try_from(step.id.0).unwrap_or(u32::MAX),
        attempt: u32::try_from(progress.attempts.0).unwrap_or(u32::MAX),
        token: Some(token(progress.token?)),
        application: run.application.to_string(),
        resource: step.resource.as_ref().map(ToString::to_string).unwrap_or_default(),
        epoch: epoch(state, run, step).0,
        kind: kind.into(),
        timeout_ms: step.timeout.millis(),
        old_side_fenced: run.old_side_fenced(),
        addresses: endpoint.map(|endpoint| endpoint.addresses.clone()).unwrap_or_default(),
        position: position(run, step),
        upstream_cluster: if kind == wire::StepKind::Rejoin { run.to.to_string() } else { String::new() },
        allow_rewind: may_give_up(run, step),
        allow_reclone: matches!(run.cause, Cause::Rejoin { reclone: true, .. }),
        command: step.command.clone(),
        dns_name: dns.map(|dns| dns.name.clone()).unwrap_or_default(),
        dns_ttl_seconds: dns.map_or(0, |dns| ttl(step, dns)),
        dns_ttl_only: step.is_ttl_alone(),
    })
}

/// In whole seconds: what the step says, or else the document.
fn ttl(step: &Step, dns: &DnsName) -> u32 {
    let span = if step.is_ttl_alone() && step.duration > Span::ZERO { step.duration } else { dns.ttl };
    u32::try_from(span.millis() / 1000).unwrap_or(u32::MAX)
}

/// A side gives up what the primary lacks only where an operator named it: in a rejoin, or as the old side of a
/// switchover, of which nothing is lost. What a failover leaves or repoints is never rewound by itself (S5).
fn may_give_up(run: &Run, step: &Step) -> bool {
    matches!(run.cause, Cause::Rejoin { .. } | Cause::Switchover { .. }) && step.cluster == run.from
}

/// What a drill that was replaced takes away is nothing of its epoch: the agent hears of it by the present one.
fn epoch(state: &State, run: &Run, step: &Step) -> Epoch {
    let present = || state.applications.get(&run.application).map(|known| known.epoch);
    match step.kind {
        StepKind::Rehearse(_) if step.stage == CLEAN_UP_STAGE => present().unwrap_or(run.epoch_before),
        StepKind::Rehearse(_) | StepKind::Action(_) | StepKind::Decide | StepKind::Unfence => run.epoch_of(step),
    }
}

const fn rehearse(rehearsal: Rehearsal) -> wire::StepKind {
    match rehearsal {
        Rehearsal::Promote => wire::StepKind::RehearsePromote,
        Rehearsal::Restore => wire::StepKind::RehearseRestore,
        Rehearsal::Verify => wire::StepKind::RehearseVerify,
        Rehearsal::Run => wire::StepKind::RehearseRun,
        Rehearsal::CleanUp => wire::StepKind::RehearseCleanUp,
    }
}

/// What a catch-up waits for, and a promotion after it demands: what the old side reported after its fence. That side
/// hears of it when it rejoins, if the new one had all of it before it took over.
fn position(run: &Run, step: &Step) -> Option<u64> {
    if !run.cause.is_planned() {
        return None;
    }
    let resource = step.resource.as_ref()?;
    match step.kind {
        StepKind::Action(Action::CatchUp | Action::Promote) => run.final_position(resource),
        StepKind::Action(Action::Rejoin) if step.cluster == run.from => run.final_position(resource).filter(|last| {
            let switched =
                run.decided.as_ref().is_some_and(|decided| matches!(decided.ground, Ground::Switched { .. }));
            switched && run.caught_up_to(resource).is_some_and(|reached| reached >= *last)
        }),
        _ => None,
    }
}

const fn kind(action: Action) -> Option<wire::StepKind> {
    Some(match action {
        Action::Fence => wire::StepKind::Fence,
        Action::Quiesce => wire::StepKind::Quiesce,
        Action::CatchUp => wire::StepKind::CatchUp,
        Action::Promote => wire::StepKind::Promote,
        Action::Activate => wire::StepKind::Activate,
        Action::Deactivate => wire::StepKind::Deactivate,
        Action::Redirect => wire::StepKind::Redirect,
        Action::Verify => wire::StepKind::Verify,
        Action::Rejoin => wire::StepKind::Rejoin,
        Action::Restore => wire::StepKind::Restore,
        Action::Run => wire::StepKind::Run,
        Action::Approve | Action::Wait => return None,
    })
}

#[cfg(test)]
mod tests {
    use regent_core::application::{DnsProvider, OnFailure};
    use regent_core::id::{CoordinatorId, StepId};
    use regent_core::lease::TimeBound;
    use regent_core::run::UNDO_STAGE;

    use super::*;

    #[test]
    fn a_word_on_the_machine_alone_is_no_report() {
        let mut contact = Contact::default();
        let node = wire::NodeFacts { wall_ms: 1, certificate_until_ms: None };
        let alone = wire::Report { node: Some(node), ..wire::Report::default() };
        take_report(&mut contact, &alone, Moment(1_000));
        assert_eq!(contact.reported, None);
        let seen = wire::ResourceReport { application: "shop".into(), resource: "db".into(), ..Default::default() };
        take_report(&mut contact, &wire::Report { resources: vec![seen], ..alone }, Moment(2_000));
        assert_eq!(contact.reported, Some(Moment(2_000)));
    }

    #[test]
    fn a_ttl_is_that_of_the_step_or_of_the_document() {
        let name =
            DnsName { name: "shop.example.test.".into(), ttl: Span::from_secs(60), provider: DnsProvider::Rfc2136 };
        let step = |stage: u32, duration: Span| Step {
            id: StepId(0),
            stage,
            after: Vec::new(),
            kind: StepKind::Action(Action::Redirect),
            resource: None,
            cluster: ClusterId::new("eu").unwrap(),
            timeout: Span::ZERO,
            retries: 0,
            on_failure: OnFailure::Undo,
            detached: false,
            command: String::new(),
            duration,
            question: String::new(),
        };
        let told = |step: Step| (ttl(&step, &name), step.is_ttl_alone());
        assert_eq!(told(step(0, Span::from_secs(1))), (1, true), "shortened");
        assert_eq!(told(step(5, Span::ZERO)), (60, false), "redirected");
        assert_eq!(told(step(UNDO_STAGE, Span::ZERO)), (60, true), "restored");
    }

    #[test]
    fn both_sets_of_a_joint_consensus_go_down() {
        let sets = [[1, 2, 3], [2, 3, 4]];
        let joint = Terms {
            number: Token { restoration: 0, index: LogIndex(7) },
            epoch: Epoch(1),
            primary: ClusterId::new("eu").unwrap(),
            bound: TimeBound { fail_over_after: Span::from_secs(10), fence_budget: Span::from_secs(1) },
            clusters: BTreeMap::new(),
            guarded: BTreeSet::new(),
            voters: sets.map(|set| set.map(CoordinatorId).into()).into(),
            on_coordinator_loss: OnCoordinatorLoss::Fence,
            paused: false,
        };
        let sent = terms(&State::default(), &ApplicationId::new("shop").unwrap(), &joint);
        assert_eq!(sent.voters, sets.map(|set| wire::VoterSet { coordinators: set.into() }));
    }
}
