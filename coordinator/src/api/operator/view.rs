//! How current an answer is, and the status of everything, from the applied state and this coordinator's evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regent_core::advice;
use regent_core::application::Application;
use regent_core::decide::Viewpoint;
use regent_core::entry::Coordinator;
use regent_core::evidence::Evidence;
use regent_core::id::{ApplicationId, ClusterId, CoordinatorId};
use regent_core::lease::DEFAULT_FAIL_OVER_AFTER;
use regent_core::protection;
use regent_core::restore;
use regent_core::state::{ApplicationState, State};
use regent_core::time::{Moment, Span, Timestamp};
use regent_core::verdict::Scene;
use regent_proto::operator::v1 as wire;
use tokio::time::Instant;

use super::failover::order;
use super::readiness::noted_of;
use super::sight::{Look, placement, sight};
use crate::api::convert::{self, span, time};
use crate::replica::Leadership;

/// A status also shows runs that ended within this time.
const RECENT: Span = Span::from_secs(3600);

/// How current an answer from here is.
pub(super) fn view(state: &State, leadership: &Leadership, now: Instant, wall: Timestamp) -> wire::View {
    let quorum = leadership.quorum(&state.voters, now);
    let age = quorum.age.map(|age| Span::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    let notice = match (quorum.held, age) {
        (true, _) => too_far(leadership),
        (false, Some(age)) => format!(
            "no quorum: coordinator {} has heard of no majority for {age}; nothing is decided, and this view may be as old",
            leadership.me
        ),
        (false, None) => format!(
            "no quorum: coordinator {} has heard of no majority since it started; nothing is decided, and this view may be older",
            leadership.me
        ),
    };
    wire::View {
        coordinator: leadership.me.0,
        applied: state.applied.0,
        term: leadership.term,
        leader: leadership.leader.map_or(0, |leader| leader.0),
        quorum: quorum.held,
        age: age.map(span),
        at: Some(time(wall)),
        notice,
    }
}

/// A heartbeat that is too short for the ways between the regions, while leadership still lasts.
fn too_far(leadership: &Leadership) -> String {
    let far = leadership.too_far().map(|(id, took)| {
        let heartbeat = leadership.heartbeat.unwrap_or_default();
        format!(
            "answers of coordinator {id} take {took:?}, the heartbeat of raft is {heartbeat:?}: raise raft.heartbeat"
        )
    });
    far.collect::<Vec<_>>().join("; ")
}

/// Everything at a glance.
pub(super) fn status(
    state: &State,
    evidence: &Evidence,
    leadership: &Leadership,
    now: Moment,
    wall: Timestamp,
) -> wire::Status {
    let look = Look { me: leadership.me, state, evidence, now, wall };
    wire::Status {
        view: None,
        group: state.group.0.clone(),
        paused: state.paused.as_ref().map(convert::pause),
        frozen: state.frozen.iter().flatten().map(ToString::to_string).collect(),
        coordinators: coordinators(state, leadership),
        clusters: clusters(&look),
        applications: state.applications.iter().map(|(id, known)| application(&look, id, known)).collect(),
        runs: recent_runs(state, wall),
        restoration: state.restoration,
        limit: Some(super::limit::shown(state, wall)),
    }
}

/// The members as raft and the state know them.
pub(super) fn coordinators(state: &State, leadership: &Leadership) -> Vec<wire::Coordinator> {
    let now = Instant::now();
    let mut ids: BTreeSet<CoordinatorId> = state.voters.iter().flatten().copied().collect();
    ids.extend(state.coordinators.keys());
    ids.into_iter()
        .map(|id| {
            let known: Option<&Coordinator> = state.coordinators.get(&id);
            let heard = if id == leadership.me && leadership.is_leader() {
                Some(Duration::ZERO)
            } else {
                leadership.heard.get(&id).map(|at| now.saturating_duration_since(*at))
            };
            wire::Coordinator {
                id: id.0,
                region: known.map(|known| known.region.to_string()).unwrap_or_default(),
                grpc: known.map(|known| known.grpc.clone()).unwrap_or_default(),
                dashboard: known.map(|known| known.dashboard.clone()).unwrap_or_default(),
                dns: known.map(|known| known.dns.clone()).unwrap_or_default(),
                leader: leadership.leader == Some(id),
                voter: state.is_voter(id),
                heard: heard.and_then(|age| age.try_into().ok()),
                round_trip: leadership.round_trips.get(&id).and_then(|took| (*took).try_into().ok()),
            }
        })
        .collect()
}

fn clusters(look: &Look<'_>) -> Vec<wire::Cluster> {
    let state = look.state;
    let mut patience: BTreeMap<&ClusterId, Span> =
        state.agents.keys().map(|cluster| (cluster, DEFAULT_FAIL_OVER_AFTER)).collect();
    for known in state.applications.values() {
        for cluster in &known.document.clusters {
            let own = known.document.automation.bound.fail_over_after;
            patience.entry(cluster).and_modify(|least| *least = own.min(*least)).or_insert(own);
        }
    }
    patience
        .into_iter()
        .map(|(cluster, fail_over_after)| {
            let agent = state.agents.get(cluster);
            wire::Cluster {
                name: cluster.to_string(),
                region: agent.map(|agent| agent.region.to_string()).unwrap_or_default(),
                registered: agent.is_some(),
                sights: observers(state, look.me)
                    .into_iter()
                    .map(|observer| sight(look, cluster, observer, fail_over_after.divided(4)))
                    .collect(),
            }
        })
        .collect()
}

fn observers(state: &State, me: CoordinatorId) -> BTreeSet<CoordinatorId> {
    let mut all: BTreeSet<CoordinatorId> = state.coordinators.keys().copied().collect();
    all.extend(state.voters.iter().flatten());
    all.insert(me);
    all
}

/// What a restored group still waits for; in the moment between the last report and its commit, nothing.
fn recovering(look: &Look<'_>, id: &ApplicationId, known: &ApplicationState) -> wire::Rule {
    match restore::recover(look.state, look.evidence, look.now, id, known) {
        Err(rule) => convert::rule(&rule),
        Ok(_) => {
            let (code, detail) = ("recovering".to_owned(), "all agents have reported".to_owned());
            wire::Rule { code, detail }
        }
    }
}

/// One application in all its clusters.
pub(super) fn application(look: &Look<'_>, id: &ApplicationId, known: &ApplicationState) -> wire::Application {
    let document: &Application = &known.document;
    let cooldown = document.automation.cooldown;
    wire::Application {
        name: id.to_string(),
        revision: known.revision.0,
        epoch: known.epoch.0,
        primary: known.primary.as_ref().map(ToString::to_string).unwrap_or_default(),
        mode: document.automation.mode.as_str().to_owned(),
        objectives: Some(objectives(document)),
        failover_after: Some(span(document.automation.bound.fail_over_after)),
        confirmed: known.confirmed && known.terms.len() == 1,
        paused: known.paused.as_ref().map(convert::pause),
        cooling_until: known.cooling_since.map(|since| time(later(since, cooldown))),
        refusal: known.refusal.as_ref().map(|(code, detail)| wire::Rule { code: code.clone(), detail: detail.clone() }),
        run: known.run.map_or(0, |run| run.0),
        recovering: known.recovering.as_ref().map(|_| recovering(look, id, known)),
        placements: document.clusters.iter().map(|cluster| placement(look, id, known, cluster)).collect(),
        answers: answers(look.state, id, known),
        readiness: noted_of(look.state, look.evidence, looking(look), id).unwrap_or_default(),
        drills: known
            .rehearsed
            .drills
            .iter()
            .map(|(cluster, drilled)| wire::Drilled {
                cluster: cluster.to_string(),
                run: drilled.run.0,
                at: Some(time(drilled.at)),
                rto: Some(span(drilled.rto)),
            })
            .collect(),
        stuck: known
            .stuck
            .iter()
            .flat_map(|(cluster, stuck)| stuck.iter().map(move |(resource, run)| (cluster, resource, run)))
            .map(|(cluster, resource, run)| wire::StuckResource {
                resource: resource.to_string(),
                run: run.0,
                cluster: cluster.to_string(),
            })
            .collect(),
        advice: Some(convert::advice(advice::of_application(look.state, id, known, look.wall))),
        held: known.held.as_ref().map(convert::pause),
        commit_window: known.window.as_ref().map(|window| wire::CommitWindow {
            run: window.run.0,
            back_to: window.back_to.to_string(),
            until: Some(time(later(window.since, window.within))),
            left: Some(span(window.left(look.wall))),
        }),
        protection: protected(look, id),
        order: known.order.as_ref().zip(known.primary.as_ref()).map(|(known, from)| order(known, id, from, look.wall)),
    }
}

/// By what this coordinator has heard; a follower hears less than the leader.
fn protected(look: &Look<'_>, id: &ApplicationId) -> Option<wire::Protection> {
    let scene = Scene::new(look.state, look.evidence, look.now, look.me, id)?;
    let found = protection::of(&scene);
    Some(wire::Protection {
        protected: found.is_protected(),
        by: found.by.iter().map(ToString::to_string).collect(),
        sentence: found.sentence(),
    })
}

const fn looking(look: &Look<'_>) -> Viewpoint {
    Viewpoint { me: look.me, now: look.now, wall: look.wall }
}

pub(super) fn objectives(document: &Application) -> wire::Objectives {
    wire::Objectives { rto: Some(span(document.objectives.rto)), rpo: Some(span(document.objectives.rpo)) }
}

fn answers(state: &State, id: &ApplicationId, known: &ApplicationState) -> Vec<wire::Answer> {
    let names = known.document.resources.iter().filter_map(|(resource, spec)| Some((resource, spec.dns.as_ref()?)));
    names
        .map(|(resource, dns)| {
            let cluster = known.answers.get(resource).map(|answer| &answer.cluster);
            let addresses = cluster
                .and_then(|cluster| state.agents.get(cluster)?.endpoints.get(id)?.get(resource))
                .map(|endpoint| endpoint.addresses.clone());
            wire::Answer {
                resource: resource.to_string(),
                name: dns.name.clone(),
                cluster: cluster.map(ToString::to_string).unwrap_or_default(),
                addresses: addresses.unwrap_or_default(),
            }
        })
        .collect()
}

fn recent_runs(state: &State, wall: Timestamp) -> Vec<wire::Run> {
    let recent = |ended: Option<Timestamp>| ended.is_none_or(|ended| wall.since(ended) <= RECENT);
    state.runs.values().rev().filter(|run| recent(run.ended)).map(|run| convert::run(state, run)).collect()
}

fn later(at: Timestamp, by: Span) -> Timestamp {
    Timestamp(at.0.saturating_add(i64::try_from(by.millis()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_voters() -> State {
        State { voters: vec![(1..=3).map(CoordinatorId).collect()], ..State::default() }
    }

    fn led(quorum_at: Option<Instant>) -> Leadership {
        Leadership { me: CoordinatorId(1), term: 4, leader: Some(CoordinatorId(2)), quorum_at, ..Leadership::default() }
    }

    #[test]
    fn an_old_word_of_a_leader_is_no_quorum() {
        let now = Instant::now() + Duration::from_secs(60);
        let fresh = view(&three_voters(), &led(Some(now)), now, Timestamp(0));
        assert!(fresh.quorum && fresh.notice.is_empty());
        let stale = view(&three_voters(), &led(Some(now - Duration::from_secs(30))), now, Timestamp(0));
        assert!(!stale.quorum);
        assert!(stale.notice.contains("no majority for 30s"), "{}", stale.notice);
        let never = view(&three_voters(), &led(None), now, Timestamp(0));
        assert!(!never.quorum && never.age.is_none() && never.notice.contains("since it started"));
    }

    #[test]
    fn a_heartbeat_that_is_too_short_is_told() {
        let now = Instant::now();
        let millis = Duration::from_millis;
        let mut leadership = led(Some(now));
        leadership.heartbeat = Some(millis(100));
        leadership.round_trips = [(CoordinatorId(2), millis(99)), (CoordinatorId(3), millis(140))].into();
        let notice = view(&three_voters(), &leadership, now, Timestamp(0)).notice;
        assert_eq!(notice, "answers of coordinator 3 take 140ms, the heartbeat of raft is 100ms: raise raft.heartbeat");
        let members = coordinators(&three_voters(), &leadership);
        assert!(members[0].round_trip.is_none() && members[1].round_trip.is_some_and(|took| took.nanos == 99_000_000));
    }

    #[test]
    fn members_are_the_voters_and_those_that_joined() {
        let members = coordinators(&three_voters(), &led(None));
        assert_eq!(
            members.iter().map(|member| (member.id, member.leader)).collect::<Vec<_>>(),
            [(1, false), (2, true), (3, false)]
        );
        assert!(members.iter().all(|member| member.voter && member.heard.is_none()));
    }
}
