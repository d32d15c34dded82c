//! An application: where it is, how it is in each cluster, and why a failover would or would not start.

use regent_core::advice::{self, Advice};
use regent_core::application::DnsProvider;
use regent_core::decide::{Viewpoint, awaits};
use regent_core::evidence::{Beat, Contact, LeaseState};
use regent_core::id::{ApplicationId, ClusterId};
use regent_core::preflight::Note;
use regent_core::protection;
use regent_core::restore;
use regent_core::state::ApplicationState;
use regent_core::verdict::Scene;
use regent_core::why;
use serde::Serialize;

use super::cluster::freshness;
use super::readiness::NoteView;
use super::resource::{ResourceView, Spot};
use super::words::{self, Fence, Health, Lease, Role};
use super::{Inputs, PauseView, ms, rfc3339};

/// An application.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApplicationView {
    /// Name of the document.
    pub name: String,
    /// Counts accepted documents.
    pub revision: u64,
    /// The fencing token; 0 until adopted.
    pub epoch: u64,
    /// None until adopted.
    pub primary: Option<String>,
    /// Time without service that is acceptable.
    pub rto_ms: u64,
    /// Time of lost writes that is acceptable.
    pub rpo_ms: u64,
    /// `automatic`, `approve` or `manual`.
    pub mode: &'static str,
    /// D: from the last contact to the earliest promotion.
    pub failover_after_ms: u64,
    /// A candidate further behind is not promoted without more ado.
    pub max_data_loss_ms: u64,
    /// What happens beyond it.
    pub beyond_max_data_loss: String,
    /// The newest terms are confirmed by the primary's agent.
    pub terms_confirmed: bool,
    /// In the order of preference.
    pub clusters: Vec<ClusterInApplication>,
    /// What its DNS names answer.
    pub answers: Vec<AnswerView>,
    /// The application's own pause; the global one stands in the view.
    pub paused: Option<PauseView>,
    /// The group was restored from a backup: what is missing before anything is granted or decided.
    pub recovering: Option<String>,
    /// The cool-down, while it lasts.
    pub cool_down: Option<CoolDownView>,
    /// The automatic action that is being refused now.
    pub refusal: Option<RefusalView>,
    /// The run that is under way.
    pub run: Option<u64>,
    /// Resources left half-changed, with the run that left them.
    pub stuck: Vec<(String, u64)>,
    /// A failover that was ordered or asks: what it waits for.
    pub order: Option<String>,
    /// No planned move begins.
    pub held: Option<PauseView>,
    /// The last switchover can still be rolled back.
    pub commit_window: Option<CommitWindowView>,
    /// Another cluster could take over within the limits; none until adopted.
    pub protection: Option<ProtectionView>,
    /// Where it stands, and what a human can do now.
    pub advice: Advice,
    /// Why a failover would, or would not, start now.
    pub why: WhyView,
    /// What speaks against a move, the worst first.
    pub readiness: Vec<NoteView>,
    /// Cluster, end, run and rehearsed time in milliseconds of each last successful drill.
    pub drills: Vec<(String, String, u64, u64)>,
    /// The primary's health as shown on one line: its verdict in one word.
    pub health: Health,
}

/// An application in one of its clusters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterInApplication {
    /// Which cluster.
    pub cluster: String,
    /// Where it stands; empty if its agent has never registered.
    pub region: String,
    /// By the group's decision, not by the database's word.
    pub role: Role,
    /// The worst of its resources: of all where it is primary, else of the databases.
    pub health: Health,
    /// The databases' furthest lag; none if that of any is unknown.
    pub lag_bytes: Option<u64>,
    /// The same in time.
    pub lag_ms: Option<u64>,
    /// Positions of the databases in their own writing.
    pub positions: Vec<(String, String)>,
    /// Age of the agent's last word on this application; none if there was none.
    pub beat_age_ms: Option<u64>,
    /// The agent's lease.
    pub lease: Lease,
    /// How long it still runs.
    pub lease_left_ms: Option<u64>,
    /// It goes on by promises of the other agents.
    pub failsafe: bool,
    /// Its fence.
    pub fence: Fence,
    /// The epoch that the agent has stored.
    pub stored_epoch: Option<u64>,
    /// Journal and marker are written.
    pub guarded: bool,
    /// Its guard process answers; none if the last word is too old to say, or there is none.
    pub guard_alive: Option<bool>,
    /// Why it is no candidate until an operator's rejoin.
    pub excluded: Option<String>,
    /// Databases that accepted writes where the terms say standby.
    pub rogues: Vec<String>,
    /// Its resources.
    pub resources: Vec<ResourceView>,
}

/// What a DNS name answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnswerView {
    /// Of which resource.
    pub resource: String,
    /// The name.
    pub name: String,
    /// Time to live.
    pub ttl_ms: u64,
    /// `embedded` or `rfc2136`.
    pub provider: &'static str,
    /// To which cluster it points; none until adopted.
    pub cluster: Option<String>,
    /// What it answers there; empty if the agent declares nothing.
    pub addresses: Vec<String>,
}

/// No second automatic failover for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CoolDownView {
    /// When the last automatic change began.
    pub since: String,
    /// How long it still lasts, unless acknowledged.
    pub left_ms: u64,
}

/// The way back is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitWindowView {
    /// The switchover.
    pub run: u64,
    /// Where a rollback goes.
    pub back_to: String,
    /// How long it is still open.
    pub left_ms: u64,
}

/// Whether the loss of the primary could be borne, by what this coordinator sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProtectionView {
    /// Another cluster streams and lies within the limits.
    pub protected: bool,
    /// By whom, or why not.
    pub sentence: String,
}

impl ProtectionView {
    fn build(inputs: &Inputs<'_>, id: &ApplicationId) -> Option<Self> {
        let scene = Scene::new(inputs.state, inputs.evidence, inputs.now, inputs.me, id)?;
        let found = protection::of(&scene);
        Some(Self { protected: found.is_protected(), sentence: found.sentence() })
    }
}

/// An automatic action that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusalView {
    /// Of which application.
    pub application: String,
    /// Stable code of the rule.
    pub rule: String,
    /// For humans.
    pub detail: String,
}

/// Why a failover would, or would not, start now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyView {
    /// `healthy`, `suspect`, `lost`, `unknown` or `agent-unreachable`.
    pub verdict: &'static str,
    /// A failover would start now.
    pub would_start: bool,
    /// The rules that hold it, most important first.
    pub held_by: Vec<WhyRule>,
    /// To where it would go.
    pub target: Option<String>,
    /// Every other cluster, and why not.
    pub others: Vec<(String, String)>,
    /// Expected loss, one sentence for each database.
    pub expected_loss: Vec<String>,
    /// Time to the earliest promotion, if votes stand.
    pub earliest_ms: Option<u64>,
    /// The same if the primary were lost this moment.
    pub if_lost_now_ms: Option<u64>,
    /// From the beginning of a failover until service is back, in words, by what earlier runs took.
    pub expected: Option<String>,
    /// What holds no failover and should be known all the same.
    pub notes: Vec<Note>,
    /// This coordinator leads: it is told what the others see. A follower judges by what it sees itself.
    pub complete: bool,
}

/// A rule that holds a failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WhyRule {
    /// Stable code.
    pub code: String,
    /// For humans.
    pub detail: String,
}

impl ApplicationView {
    pub(super) fn build(inputs: &Inputs<'_>, id: &ApplicationId, known: &ApplicationState) -> Self {
        let document = &known.document;
        let automation = &document.automation;
        let clusters: Vec<_> =
            document.clusters.iter().map(|cluster| ClusterInApplication::build(inputs, id, known, cluster)).collect();
        let why = WhyView::build(inputs, id);
        let at_primary = clusters
            .iter()
            .find(|cluster| cluster.role == Role::Primary)
            .map_or(Health::Unknown, |primary| primary.health);
        Self {
            name: id.to_string(),
            revision: known.revision.0,
            epoch: known.epoch.0,
            primary: known.primary.as_ref().map(ToString::to_string),
            rto_ms: ms(document.objectives.rto),
            rpo_ms: ms(document.objectives.rpo),
            mode: words::mode(automation.mode),
            failover_after_ms: ms(automation.bound.fail_over_after),
            max_data_loss_ms: ms(automation.max_data_loss),
            beyond_max_data_loss: words::beyond(automation.beyond_max_data_loss),
            terms_confirmed: known.confirmed && known.terms.len() == 1,
            clusters,
            answers: answers(inputs, id, known),
            paused: known.paused.as_ref().map(PauseView::build),
            recovering: known.recovering.as_ref().map(|_| {
                let held = restore::recover(inputs.state, inputs.evidence, inputs.now, id, known).err();
                held.map_or_else(|| "all agents have reported".to_owned(), |rule| rule.detail)
            }),
            cool_down: cool_down(inputs, known),
            refusal: known.refusal.as_ref().map(|(rule, detail)| RefusalView {
                application: id.to_string(),
                rule: rule.clone(),
                detail: detail.clone(),
            }),
            run: known.run.map(|run| run.0),
            stuck: known
                .stuck
                .iter()
                .flat_map(|(cluster, stuck)| {
                    stuck.iter().map(move |(resource, run)| (format!("{resource} in {cluster}"), run.0))
                })
                .collect(),
            order: known.order.as_ref().zip(known.primary.as_ref()).map(|(order, from)| awaits(order, id, from)),
            held: known.held.as_ref().map(PauseView::build),
            commit_window: known.window.as_ref().map(|window| CommitWindowView {
                run: window.run.0,
                back_to: window.back_to.to_string(),
                left_ms: ms(window.left(inputs.wall)),
            }),
            protection: ProtectionView::build(inputs, id),
            advice: advice::of_application(inputs.state, id, known, inputs.wall),
            why,
            readiness: super::readiness::notes(inputs, id),
            drills: known
                .rehearsed
                .drills
                .iter()
                .map(|(cluster, drilled)| (cluster.to_string(), rfc3339(drilled.at), drilled.run.0, ms(drilled.rto)))
                .collect(),
            health: at_primary,
        }
    }
}

impl ClusterInApplication {
    fn build(inputs: &Inputs<'_>, id: &ApplicationId, known: &ApplicationState, cluster: &ClusterId) -> Self {
        let is_primary = known.primary.as_ref() == Some(cluster);
        let resources: Vec<ResourceView> = known
            .document
            .resources
            .iter()
            // A name has no health of its own: what it answers stands among the answers.
            .filter(|(_, resource)| resource.dns.is_none())
            .map(|(resource, spec)| {
                let primary = known.primary.as_ref();
                ResourceView::build(inputs, &Spot { application: id, cluster, primary, resource, kind: spec.kind })
            })
            .collect();
        let counted = || resources.iter().filter(|resource| is_primary || resource.guarded);
        let databases = || resources.iter().filter(|resource| resource.guarded);
        // The last word of the agent, and how long it may be relied on.
        let word = newest_word(inputs, cluster, id);
        let beat_age_ms = word.and_then(|(contact, _)| contact.last_beat).map(|at| inputs.age_ms(at));
        let beat = word.map(|(_, beat)| beat);
        let is_fresh = beat_age_ms.is_some_and(|age| age <= ms(freshness(inputs, cluster)));
        let (lease, lease_left_ms) = lease(beat, beat_age_ms, is_fresh);
        Self {
            cluster: cluster.to_string(),
            region: inputs.state.agents.get(cluster).map_or_else(String::new, |agent| agent.region.to_string()),
            role: match &known.primary {
                Some(_) if is_primary => Role::Primary,
                Some(_) => Role::Standby,
                None => Role::Unknown,
            },
            health: worst(counted().map(|resource| resource.health)),
            lag_bytes: worst_lag(databases().map(|resource| resource.lag_bytes)),
            lag_ms: worst_lag(databases().map(|resource| resource.lag_ms)),
            positions: databases()
                .filter(|resource| !resource.position_text.is_empty())
                .map(|resource| (resource.name.clone(), resource.position_text.clone()))
                .collect(),
            beat_age_ms,
            lease,
            lease_left_ms,
            failsafe: is_fresh && beat.is_some_and(|beat| beat.failsafe),
            fence: beat.filter(|_| is_fresh).map_or(Fence::Unknown, |beat| beat.fence.into()),
            stored_epoch: beat.map(|beat| beat.epoch.0),
            guarded: beat.is_some_and(|beat| beat.guarded),
            guard_alive: beat.filter(|_| is_fresh).map(|beat| beat.guard_alive),
            excluded: known.excluded.get(cluster).cloned(),
            rogues: known.rogues.get(cluster).into_iter().flatten().map(ToString::to_string).collect(),
            resources,
        }
    }
}

impl WhyView {
    fn build(inputs: &Inputs<'_>, id: &ApplicationId) -> Self {
        let view = Viewpoint { me: inputs.me, now: inputs.now, wall: inputs.wall };
        let complete = inputs.leads();
        let Some(explained) = why::explain(inputs.state, inputs.evidence, view, id) else {
            return Self {
                verdict: verdict(why::Verdict::Unknown),
                would_start: false,
                held_by: Vec::new(),
                target: None,
                others: Vec::new(),
                expected_loss: Vec::new(),
                earliest_ms: None,
                if_lost_now_ms: None,
                expected: None,
                notes: Vec::new(),
                complete,
            };
        };
        Self {
            verdict: verdict(explained.verdict),
            would_start: explained.would_start,
            held_by: explained
                .held_by
                .into_iter()
                .map(|rule| WhyRule { code: rule.code, detail: rule.detail })
                .collect(),
            target: explained.target.map(|target| target.to_string()),
            others: explained.others.into_iter().map(|(cluster, reason)| (cluster.to_string(), reason)).collect(),
            expected_loss: explained.expected_loss,
            earliest_ms: explained.earliest.map(ms),
            if_lost_now_ms: explained.if_lost_now.map(ms),
            expected: explained.expected.map(|expected| expected.to_string()),
            notes: explained.notes,
            complete,
        }
    }
}

const fn verdict(verdict: why::Verdict) -> &'static str {
    match verdict {
        why::Verdict::Healthy => "healthy",
        why::Verdict::Suspect => "suspect",
        why::Verdict::Lost => "lost",
        why::Verdict::Unknown => "unknown",
        why::Verdict::AgentUnreachable => "agent-unreachable",
    }
}

fn newest_word<'a>(inputs: &Inputs<'a>, cluster: &ClusterId, id: &ApplicationId) -> Option<(&'a Contact, &'a Beat)> {
    let words = inputs.evidence.contacts_of(cluster).filter_map(|contact| Some((contact, contact.beats.get(id)?)));
    words.max_by_key(|(contact, _)| contact.last_beat)
}

/// A lease that was told too long ago may have lapsed or been renewed since: unknown.
fn lease(beat: Option<&Beat>, age_ms: Option<u64>, is_fresh: bool) -> (Lease, Option<u64>) {
    let (Some(beat), Some(age_ms)) = (beat, age_ms) else { return (Lease::Unknown, None) };
    match beat.lease {
        LeaseState::Held => match ms(beat.lease_left).checked_sub(age_ms).filter(|left| *left > 0) {
            Some(left) => (Lease::Held, Some(left)),
            None => (Lease::Unknown, None),
        },
        LeaseState::None | LeaseState::Lacked if !is_fresh => (Lease::Unknown, None),
        LeaseState::None | LeaseState::Lacked => (beat.lease.into(), None),
    }
}

/// Failed if any has failed, unknown if any is unknown, or if there is none.
fn worst(all: impl Iterator<Item = Health>) -> Health {
    let mut worst = None;
    for health in all {
        worst = match (worst, health) {
            (Some(Health::Failed), _) | (_, Health::Failed) => Some(Health::Failed),
            (Some(Health::Unknown), _) | (_, Health::Unknown) => Some(Health::Unknown),
            (None | Some(Health::Healthy), Health::Healthy) => Some(Health::Healthy),
        };
    }
    worst.unwrap_or(Health::Unknown)
}

/// The furthest; none if there is none, or any is unknown.
fn worst_lag(mut lags: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    lags.try_fold(None, |worst: Option<u64>, lag| lag.map(|lag| Some(worst.map_or(lag, |worst| worst.max(lag)))))?
}

fn answers(inputs: &Inputs<'_>, id: &ApplicationId, known: &ApplicationState) -> Vec<AnswerView> {
    let names = known.document.resources.iter().filter_map(|(resource, spec)| Some((resource, spec.dns.as_ref()?)));
    names
        .map(|(resource, dns)| {
            let cluster = known.answers.get(resource).map(|answer| &answer.cluster);
            let endpoint = cluster
                .and_then(|cluster| inputs.state.agents.get(cluster)?.endpoints.get(id)?.get(resource))
                .map(|endpoint| endpoint.addresses.clone());
            AnswerView {
                resource: resource.to_string(),
                name: dns.name.clone(),
                ttl_ms: ms(dns.ttl),
                provider: match dns.provider {
                    DnsProvider::Embedded => "embedded",
                    DnsProvider::Rfc2136 => "rfc2136",
                },
                cluster: cluster.map(ToString::to_string),
                addresses: endpoint.unwrap_or_default(),
            }
        })
        .collect()
}

fn cool_down(inputs: &Inputs<'_>, known: &ApplicationState) -> Option<CoolDownView> {
    let since = known.cooling_since?;
    let left = known.document.automation.cooldown.minus(inputs.wall.since(since));
    (ms(left) > 0).then(|| CoolDownView { since: rfc3339(since), left_ms: ms(left) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unknown_lag_makes_all_unknown() {
        assert_eq!(worst_lag([Some(3), Some(9)].into_iter()), Some(9));
        assert_eq!(worst_lag([Some(3), None].into_iter()), None);
        assert_eq!(worst_lag([].into_iter()), None);
    }

    #[test]
    fn nothing_known_is_not_healthy() {
        assert_eq!(worst([].into_iter()), Health::Unknown);
        assert_eq!(worst([Health::Healthy, Health::Unknown].into_iter()), Health::Unknown);
        assert_eq!(worst([Health::Unknown, Health::Failed].into_iter()), Health::Failed);
    }

    #[test]
    fn an_old_lease_is_unknown() {
        let beat =
            Beat { lease: LeaseState::Held, lease_left: regent_core::time::Span::from_secs(8), ..Beat::default() };
        assert_eq!(lease(Some(&beat), Some(1_000), true), (Lease::Held, Some(7_000)));
        assert_eq!(lease(Some(&beat), Some(8_000), true), (Lease::Unknown, None));
        assert_eq!(lease(None, None, false), (Lease::Unknown, None));
        assert_eq!(lease(Some(&Beat::default()), Some(1_000), true), (Lease::None, None));
        assert_eq!(lease(Some(&Beat::default()), Some(60_000), false), (Lease::Unknown, None));
    }
}
