//! What a primary looks like: votes and the time bound on one side, signs of life on the other.
//!
//! Region loss needs a majority of standing votes, D to have passed since each observer's last grant, *and* that
//! nothing says the primary is alive. A sign of life is dated by when the primary produced it; a plain answer of some
//! address is none (safety.md, "Evidence").

use std::collections::BTreeSet;

use crate::evidence::{Evidence, FenceState, Health, LeaseState, UpstreamSight};
use crate::id::{ApplicationId, ClusterId, CoordinatorId, LogIndex, ResourceId};
use crate::lease;
use crate::state::{ApplicationState, State};
use crate::terms::{self, Window};
use crate::time::{Moment, Span, Timestamp, Waits};
use crate::why::{Rule, Verdict};

/// One application looked at, at one moment, by one coordinator.
pub struct Scene<'a> {
    /// The applied state.
    pub state: &'a State,
    /// What is known beside it.
    pub evidence: &'a Evidence,
    /// Local time.
    pub now: Moment,
    /// Who looks.
    pub me: CoordinatorId,
    /// Which application.
    pub application: &'a ApplicationId,
    /// Its state.
    pub known: &'a ApplicationState,
    /// Its primary.
    pub primary: &'a ClusterId,
}

/// How far a majority of observers has lost the primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The votes that a decision would rest on: those of the majority that ripens first.
    pub votes: BTreeSet<LogIndex>,
    /// From when the bound D has passed for each of them.
    pub ripe: Moment,
}

/// A guarded resource that failed while its agent talks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub resource: ResourceId,
    /// What was seen.
    pub detail: String,
    /// The standbys' view agrees; without it there is only one kind of evidence.
    pub confirmed_by_standby: bool,
    /// Since when its probes have failed without a break.
    pub since: Moment,
    /// When it counts: at once where it is certain that it does not work; where it only does not answer, after D, since
    /// slow is not dead.
    pub ripe: Moment,
}

impl<'a> Scene<'a> {
    /// None if the application does not exist or is not adopted.
    #[must_use]
    pub fn new(
        state: &'a State,
        evidence: &'a Evidence,
        now: Moment,
        me: CoordinatorId,
        application: &'a ApplicationId,
    ) -> Option<Self> {
        let known = state.applications.get(application)?;
        let primary = known.primary.as_ref()?;
        Some(Self { state, evidence, now, me, application, known, primary })
    }

    /// D: the largest of all terms in question.
    #[must_use]
    pub fn fail_over_after(&self) -> Span {
        Window::new(&self.known.terms).fail_over_after()
    }

    /// By what waits that began with a stamp in the log are measured here.
    #[must_use]
    pub fn waits(&self, wall: Timestamp) -> Waits {
        Waits { wall, led: self.evidence.leading_since.map_or(Span::ZERO, |since| self.now.since(since)) }
    }

    /// Between two heartbeats.
    #[must_use]
    pub fn interval(&self) -> Span {
        lease::heartbeat(self.fail_over_after())
    }

    /// The majority of standing votes that ripens first; none while there is no majority.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        let window = Window::new(&self.known.terms);
        let recent = self.interval().times(3);
        let ballots = self.state.votes.get(self.primary)?;
        let mut ripening: Vec<(Moment, CoordinatorId, LogIndex)> = ballots
            .iter()
            .filter(|(observer, _)| {
                // Only voters heard from just now: one that is cut off may have withdrawn since.
                **observer == self.me
                    || self.evidence.voters_heard.get(observer).is_some_and(|heard| self.now.since(*heard) <= recent)
            })
            .filter_map(|(observer, ballot)| {
                let vote = ballot.standing?;
                let applied = self.evidence.votes_applied.get(&vote.index).copied().unwrap_or(self.now);
                Some((applied.before(vote.silence).after(self.fail_over_after()), *observer, vote.index))
            })
            .collect();
        ripening.sort_unstable();
        let mut observers = BTreeSet::new();
        let mut votes = BTreeSet::new();
        for (ripe, observer, index) in ripening {
            observers.insert(observer);
            votes.insert(index);
            if window.is_majority(&observers) {
                return Some(Loss { votes, ripe });
            }
        }
        None
    }

    /// What says that the primary is alive, dated and bound to its epoch; each a rule that holds a failover.
    #[must_use]
    pub fn signs_of_life(&self) -> Vec<Rule> {
        let young = self.interval().times(3).min(self.fail_over_after().divided(2));
        let fresh = |moment: Option<Moment>| moment.is_some_and(|moment| self.now.since(moment) < young);
        let mut signs = Vec::new();
        // An agent that fenced itself says so everywhere, and is no life.
        let fenced =
            self.evidence.beat(self.primary, self.application).is_some_and(|beat| beat.fence == FenceState::SelfFenced);
        if !fenced && fresh(self.evidence.last_two_way(self.primary)) {
            signs.push(rule(
                "agent-heard",
                format!("a coordinator still hears the agent of {} both ways", self.primary),
            ));
        }
        for cluster in self.others() {
            for resource in self.known.document.guarded() {
                let Some(seen) = self.evidence.sighting(cluster, self.application, &resource) else { continue };
                let of_it = |upstream: &&UpstreamSight| upstream.connected && upstream.is_of(self.primary);
                let Some(upstream) = seen.upstream.as_ref().filter(of_it) else { continue };
                if fresh(upstream.last_heard) {
                    signs.push(rule(
                        "replication-alive",
                        format!("{resource} in {cluster} still receives from its upstream"),
                    ));
                } else if fresh(seen.advanced) {
                    // For engines that do not say when they last heard, or say it in whole seconds.
                    signs.push(rule("position-advances", format!("{resource} in {cluster} still moves on")));
                }
            }
            for contact in self.evidence.contacts_of(cluster) {
                let witness = contact.witnesses.get(self.primary);
                if witness.is_some_and(|seen| {
                    seen.answered
                        && fresh(Some(seen.at))
                        && seen.leases.get(self.application) == Some(&self.known.epoch)
                }) {
                    signs.push(rule(
                        "witness-signed",
                        format!("the agent of {} signed for its lease to {cluster}", self.primary),
                    ));
                }
            }
            if fresh(self.promise_asked(cluster)) {
                signs.push(rule(
                    "promise-asked",
                    format!("the agent of {} asked {cluster} for a promise", self.primary),
                ));
            }
        }
        signs.dedup();
        signs
    }

    /// When the primary's agent last asked another for a promise at this epoch.
    fn promise_asked(&self, cluster: &ClusterId) -> Option<Moment> {
        self.evidence
            .contacts_of(cluster)
            .filter_map(|contact| contact.promises.get(self.application)?.get(self.primary))
            .filter(|asked| asked.epoch == self.known.epoch)
            .map(|asked| asked.at)
            .max()
    }

    /// True while signs of life may hold a failover: they end at D + 3 intervals, unless the primary's agent asked
    /// for a promise at this epoch within D. What lives longer without that is fenced.
    #[must_use]
    pub fn life_counts(&self, loss: &Loss) -> bool {
        let asked = self.others().filter_map(|cluster| self.promise_asked(cluster)).max();
        self.now < loss.ripe.after(self.interval().times(3))
            || asked.is_some_and(|asked| self.now.since(asked) < self.fail_over_after())
    }

    /// The primary's agent is heard by some coordinator just now, though a majority has lost it.
    #[must_use]
    pub fn agent_reachable(&self) -> bool {
        self.evidence.last_two_way(self.primary).is_some_and(|heard| self.now.since(heard) <= self.interval().times(3))
    }

    /// Absence counts only when it was looked for: since when, or what is still missing.
    #[must_use]
    pub fn not_looked_for(&self) -> Option<Rule> {
        let Some(leading) = self.evidence.leading_since else {
            return Some(rule("not-leader", "only the leader decides"));
        };
        let looked = self.interval().times(3);
        if self.now.since(leading) < looked {
            return Some(rule("leads-too-briefly", format!("the leader has not led for {looked} yet")));
        }
        for cluster in self.others() {
            // A cluster that never had an agent can say nothing and is no reason to wait for ever.
            if !self.state.agents.contains_key(cluster) || is_lost(self.state, cluster) {
                continue;
            }
            let reported = self.evidence.freshest(cluster).and_then(|contact| contact.reported);
            let heard = self.evidence.last_beat(cluster).is_some_and(|at| self.now.since(at) <= looked);
            if !heard || reported.is_none_or(|at| at < leading) {
                return Some(rule(
                    "not-all-reported",
                    format!("the agent of {cluster} has not reported since, and is not voted lost"),
                ));
            }
        }
        None
    }

    /// A guarded resource of the primary that failed by the word of its own agent, or has not answered it for long.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        if !self.agent_reachable() {
            return None;
        }
        let needed = self.known.document.automation.probe_failures;
        let failures = self.known.document.guarded().into_iter().filter_map(|resource| {
            let seen = self.evidence.sighting(self.primary, self.application, &resource)?;
            let unlinked = self.standbys_unlinked_since(&resource);
            let confirmed_by_standby = unlinked.is_some();
            let covered = seen.interval.times(u64::from(seen.failures).saturating_add(2));
            let without_doubt = seen.ailing_since.is_none_or(|since| seen.at.since(since) <= covered);
            let (since, ripe, detail) = match seen.health {
                Health::Failed if seen.failures >= needed && without_doubt => {
                    let since = seen.at.before(seen.interval.times(u64::from(seen.failures)));
                    (since, since, format!("{} probes in a row failed: {}", seen.failures, seen.detail))
                }
                Health::Failed | Health::Unknown => {
                    let since = seen.ailing_since?;
                    let lasted = self.now.since(since);
                    if lasted < seen.interval.times(u64::from(needed)) {
                        return None;
                    }
                    // Both kinds of evidence must have held together for so long.
                    let ripe = Some(since).max(unlinked).unwrap_or(since).after(self.fail_over_after());
                    (since, ripe, format!("no answer for {lasted}: {}", seen.detail))
                }
                Health::Healthy => return None,
            };
            seen.is_fresh(self.now).then_some(Failure { resource, detail, confirmed_by_standby, since, ripe })
        });
        // One that does not count yet must not hide one that does.
        failures.max_by_key(|failure| (failure.confirmed_by_standby, failure.ripe <= self.now))
    }

    /// Since when the primary's agent, which talks, has held no lease and has fenced its primaries itself; none if it
    /// serves, or is silent. Nobody but the agent can tell why: its guard does not answer, its clock jumped, its
    /// disk is full. Before this coordinator led it may have been for the lack of a quorum, which moves nobody (S6).
    #[must_use]
    pub fn self_fenced_since(&self) -> Option<Moment> {
        let beat = self.evidence.beat(self.primary, self.application)?;
        let since = beat.self_fenced_since.filter(|_| self.agent_reachable() && beat.epoch == self.known.epoch)?;
        Some(since.max(self.evidence.leading_since?))
    }

    /// From then on an agent that has fenced itself is left.
    #[must_use]
    pub fn self_fenced_due(&self) -> Option<Moment> {
        self.self_fenced_since().map(|since| since.after(self.fail_over_after()))
    }

    /// What no failover ends and nothing else would say.
    #[must_use]
    pub fn needs_hand(&self) -> Option<Rule> {
        self.leaseless().or_else(|| self.closed())
    }

    /// The primary's agent talks and has held no lease for D, and has not said that it fenced itself: a target that never
    /// got one, so that its promotion waits, or a primary in a pause. It says why in its own log.
    #[must_use]
    pub fn leaseless(&self) -> Option<Rule> {
        let beat = self.evidence.beat(self.primary, self.application)?;
        let since = beat.lacking_since.filter(|_| self.agent_reachable() && beat.epoch == self.known.epoch)?;
        let lasted = self.now.since(since.max(self.evidence.leading_since?));
        (lasted >= self.fail_over_after() && beat.fence == FenceState::Open).then(|| {
            let guard = if beat.guard_alive { "its log says why" } else { "its guard does not answer" };
            let detail = format!("the agent of {} talks and has held no lease for {lasted}: {guard}", self.primary);
            rule("lease-lacked", detail)
        })
    }

    /// A guarded database of the primary that works and has refused writes for D, though the lease runs and no run is
    /// under way: nobody will open it. It serves nobody, and nothing else would say so.
    #[must_use]
    pub fn closed(&self) -> Option<Rule> {
        let beat = self.evidence.beat(self.primary, self.application)?;
        let leads = beat.lease == LeaseState::Held && beat.epoch == self.known.epoch && self.agent_reachable();
        if !leads || self.known.run.is_some() {
            return None;
        }
        let lasted = |resource: &ResourceId| {
            let seen = self.evidence.sighting(self.primary, self.application, resource)?;
            seen.closed_since.filter(|_| seen.is_fresh(self.now)).map(|since| self.now.since(since))
        };
        let guarded = self.known.document.guarded().into_iter();
        let closed = guarded.filter_map(|resource| lasted(&resource).map(|lasted| (resource, lasted)));
        let (resource, lasted) =
            closed.filter(|(_, lasted)| *lasted >= self.fail_over_after()).max_by_key(|one| one.1)?;
        let primary = self.primary;
        Some(rule(
            "primary-closed",
            format!(
                "{resource} in {primary} has refused writes for {lasted} though its agent holds the lease; open it"
            ),
        ))
    }

    /// Since when every standby that looked just now has been without its upstream; none if one still has it, or none
    /// looked. A quarantined side follows nobody, so it has no voice.
    fn standbys_unlinked_since(&self, resource: &ResourceId) -> Option<Moment> {
        let voices: Vec<Option<Moment>> = self
            .others()
            .filter(|cluster| !self.known.excluded.contains_key(*cluster))
            .filter_map(|cluster| self.evidence.sighting(cluster, self.application, resource))
            .filter(|seen| seen.is_fresh(self.now))
            .filter_map(|seen| {
                let upstream = seen.upstream.as_ref().filter(|upstream| upstream.is_of(self.primary))?;
                Some((!upstream.connected).then(|| seen.unlinked_since.unwrap_or(seen.at)))
            })
            .collect();
        voices.into_iter().collect::<Option<Vec<Moment>>>()?.into_iter().max()
    }

    /// The listed clusters beside the primary.
    pub fn others(&self) -> impl Iterator<Item = &'a ClusterId> {
        let primary = self.primary;
        self.known.document.clusters.iter().filter(move |cluster| *cluster != primary)
    }

    /// One word for the whole.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if let Some(loss) = self.loss() {
            if !self.signs_of_life().is_empty() && self.life_counts(&loss) {
                return Verdict::AgentUnreachable;
            }
            return if loss.ripe <= self.now { Verdict::Lost } else { Verdict::Suspect };
        }
        if let Some(failure) = self.failure() {
            let counts = failure.confirmed_by_standby && failure.ripe <= self.now;
            return if counts { Verdict::Lost } else { Verdict::Suspect };
        }
        let heard = self.evidence.last_two_way(self.primary);
        match heard {
            None => Verdict::Unknown,
            Some(heard) if self.now.since(heard) > self.fail_over_after().divided(4) => Verdict::Suspect,
            Some(_) if self.self_fenced_since().is_some() || self.needs_hand().is_some() => Verdict::Suspect,
            Some(_) => self.health_of_resources(),
        }
    }

    fn health_of_resources(&self) -> Verdict {
        let mut verdict = Verdict::Healthy;
        for resource in self.known.document.guarded() {
            match self.evidence.sighting(self.primary, self.application, &resource) {
                Some(seen) if seen.is_fresh(self.now) => match seen.health {
                    Health::Healthy => {}
                    Health::Failed => return Verdict::Suspect,
                    Health::Unknown => verdict = Verdict::Unknown,
                },
                Some(_) | None => verdict = Verdict::Unknown,
            }
        }
        verdict
    }
}

/// True if a majority of the voters has a standing vote on the cluster.
#[must_use]
pub fn is_lost(state: &State, cluster: &ClusterId) -> bool {
    let observers: BTreeSet<CoordinatorId> = state
        .votes
        .get(cluster)
        .into_iter()
        .flatten()
        .filter(|(_, ballot)| ballot.standing.is_some())
        .map(|(observer, _)| *observer)
        .collect();
    terms::is_majority(&state.voters, &observers)
}

pub(crate) fn rule(code: &str, detail: impl Into<String>) -> Rule {
    Rule { code: code.to_owned(), detail: detail.into() }
}
