//! A plan as an operator sees it before anything is begun: the steps, what is expected of them, and every note. It changes
//! nothing; begun at this moment, exactly these steps are carried out, since both come from [`super::of`].

use std::collections::BTreeMap;

use super::{Begins, Digest, Estimate, Forecast, forecast, of, spared};
use crate::decide::{self, Assessment, Trigger, Viewpoint, Way, look_at_order};
use crate::entry::Cause;
use crate::id::{ApplicationId, ClusterId, Epoch};
use crate::preflight::{self, Note, Severity};
use crate::readiness;
use crate::run::Step;
use crate::state::Wish;
use crate::switchover::{self, Purpose};
use crate::target::{self, Candidate};
use crate::time::Span;
use crate::verdict::Scene;
use crate::why::Verdict;

/// A plan, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Of which application.
    pub application: ApplicationId,
    /// The epoch that it starts from.
    pub epoch: Epoch,
    /// Why it would begin.
    pub cause: Cause,
    /// The primary.
    pub from: ClusterId,
    /// Where it goes; none if nowhere.
    pub to: Option<ClusterId>,
    /// The digest of its steps, which a log entry carries; none without a target. People name it by [`Shown::name`].
    pub digest: Option<Digest>,
    /// In order.
    pub steps: Vec<Step>,
    /// How long it is expected to take.
    pub forecast: Forecast,
    /// How long the old side is silent before this can be decided, which `forecast` does not count: `failoverAfter` of a
    /// failover that begins with its decision. None where the old side serves, or is fenced first.
    pub detection: Option<Span>,
    /// What would be lost, one sentence for each database.
    pub expected_loss: Vec<String>,
    /// The worst first.
    pub notes: Vec<Note>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Who asks.
    pub by: &'a str,
    /// A switchover, the way back, or a rollback.
    pub purpose: Purpose,
    /// To where; none: the first fit cluster in order of preference.
    pub to: Option<&'a ClusterId>,
    /// None: the document's.
    pub max_write_outage: Option<Span>,
}

impl Shown {
    /// True if it would not start.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.notes.iter().any(|note| note.severity == Severity::Blocker)
    }

    /// For how long no write succeeds, as a report measures it: since the last contact where silence comes first.
    #[must_use]
    pub fn outage(&self) -> Estimate {
        let Estimate { span, unknown } = self.forecast.outage;
        Estimate { span: span.plus(self.detection.unwrap_or_default()), unknown }
    }

    /// The name of the plan for people: of its steps, and of how long a planned move may keep writes out.
    #[must_use]
    pub fn name(&self) -> Option<Digest> {
        let digest = self.digest.as_ref()?;
        Some(match self.cause {
            Cause::Switchover { max_write_outage, .. } => digest.within(max_write_outage),
            Cause::RegionLost
            | Cause::ResourceFailed { .. }
            | Cause::AgentUnreachable
            | Cause::SelfFenced
            | Cause::Forced { .. }
            | Cause::Rejoin { .. }
            | Cause::Recovered
            | Cause::Drill { .. } => digest.clone(),
        })
    }
}

/// The plan of a planned move.
#[must_use]
pub fn switchover(scene: &Scene<'_>, view: Viewpoint, asked: &Asked<'_>) -> Shown {
    let automation = &scene.known.document.automation;
    let max_write_outage = asked.max_write_outage.unwrap_or(automation.max_write_outage);
    let (candidate, refusals) = switchover::look(scene, asked.purpose, asked.to, max_write_outage);
    let cause = Cause::Switchover { by: asked.by.to_owned(), max_write_outage, purpose: asked.purpose };
    // With something in the way the plan is shown all the same.
    let to = candidate.as_ref().map(|candidate| candidate.cluster.clone());
    let to = to.or_else(|| asked.to.cloned()).or_else(|| scene.others().next().cloned());
    let mut shown = show(scene, cause, to, Begins::Before, candidate.as_ref());
    shown.notes.extend(refusals.into_iter().map(Note::from));
    let more = preflight::of_move(scene, &shown, max_write_outage, view.wall);
    shown.notes.extend(more);
    if let Some(candidate) = &candidate {
        let lags = candidate.gaps.iter().map(|(resource, gap)| {
            let lag = gap.lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
            preflight::remark("lag", format!("{resource} in {} is behind by {lag} ({})", candidate.cluster, gap.text))
        });
        shown.notes.extend(lags);
        let nothing = |resource: &_| format!("{resource}: nothing; the decision waits for its last position");
        shown.expected_loss = candidate.gaps.keys().map(nothing).collect();
    }
    finish(shown)
}

/// The plan of the failover that would start by itself now.
#[must_use]
pub fn failover(scene: &Scene<'_>, view: Viewpoint) -> Shown {
    let assessment = decide::assess(scene, view);
    let mut shown = assessed(scene, &assessment);
    shown.notes.extend(assessment.held_by.into_iter().map(Note::from));
    shown.notes.extend(readiness::before_failover(scene, view.wall));
    finish(shown)
}

/// The same of what was assessed already, with no other note than on what the plan leaves out.
pub(crate) fn assessed(scene: &Scene<'_>, assessment: &Assessment) -> Shown {
    let (cause, begins) = match &assessment.trigger {
        Trigger::Failed(failure) => (
            Cause::ResourceFailed { resource: failure.resource.clone(), detail: failure.detail.clone() },
            Begins::Before,
        ),
        Trigger::SelfFenced(_) => (Cause::SelfFenced, Begins::Before),
        Trigger::Unreachable(_) => (Cause::AgentUnreachable, Begins::Before),
        Trigger::Lost(_) | Trigger::None => (Cause::RegionLost, Begins::Decided),
    };
    let to = assessment.target.as_ref().map(|candidate| candidate.cluster.clone());
    let to = to.or_else(|| scene.others().next().cloned());
    let mut shown = show(scene, cause, to, begins, assessment.target.as_ref());
    shown.expected_loss = losses(scene, shown.to.as_ref(), assessment.target.as_ref());
    shown
}

/// The plan of a failover that an operator would order.
#[must_use]
pub fn ordered(scene: &Scene<'_>, view: Viewpoint, wish: &Wish) -> Shown {
    let (candidate, way, refusals) = look_at_order(scene, wish);
    let begins = if way == Way::Fence { Begins::Before } else { Begins::Decided };
    let cause = Cause::Forced { by: wish.by.clone(), reason: wish.why().to_owned() };
    let mut shown = show(scene, cause, Some(wish.to.clone()), begins, candidate.as_ref());
    shown.notes.extend(refusals.into_iter().map(Note::from));
    shown.notes.extend(readiness::before_failover(scene, view.wall));
    shown.notes.push(preflight::remark("way", way.sentence()));
    shown.notes.extend(preflight::ends_run(scene));
    if scene.verdict() == Verdict::Healthy {
        let detail = format!("{} serves: `regentctl switchover` would lose nothing", scene.primary);
        shown.notes.push(preflight::warning("primary-serves", detail));
    }
    shown.expected_loss = losses(scene, shown.to.as_ref(), candidate.as_ref());
    finish(shown)
}

/// What would be lost there. If it is not fit, as far as its databases tell: whoever asks has to decide on that very loss.
fn losses(scene: &Scene<'_>, to: Option<&ClusterId>, fit: Option<&Candidate>) -> Vec<String> {
    match (fit, to) {
        (Some(candidate), _) => candidate.sentences(),
        (None, Some(to)) => target::sentences_of_unfit(scene, to),
        (None, None) => Vec::new(),
    }
}

fn show(
    scene: &Scene<'_>,
    cause: Cause,
    to: Option<ClusterId>,
    begins: Begins,
    candidate: Option<&Candidate>,
) -> Shown {
    let document = &scene.known.document;
    let to = to.filter(|to| document.clusters.contains(to) && to != scene.primary);
    // What it has counts whatever else speaks against it: allowed by an operator, it would have this plan.
    let gaps = match (candidate, &to) {
        (Some(candidate), _) => candidate.gaps.clone(),
        (None, Some(to)) => target::at_hand(scene, to),
        (None, None) => BTreeMap::new(),
    };
    let steps = to.as_ref().and_then(|to| of(scene.known, &cause, to, begins, &gaps)).unwrap_or_default();
    let fails_over = !cause.is_planned();
    let left_out = to.as_ref().filter(|_| fails_over).map(|to| spared::notes(document, to, &gaps));
    let digest = to.as_ref().map(|to| Digest::of(scene.application, scene.known.epoch, scene.primary, to, &steps));
    Shown {
        application: scene.application.clone(),
        epoch: scene.known.epoch,
        cause,
        from: scene.primary.clone(),
        to,
        digest,
        forecast: forecast(scene.state, scene.application, &steps),
        detection: (begins == Begins::Decided).then(|| scene.fail_over_after()),
        steps,
        expected_loss: Vec::new(),
        notes: left_out.unwrap_or_default(),
    }
}

/// Says what is expected, and orders the notes.
fn finish(mut shown: Shown) -> Shown {
    if !shown.steps.is_empty() {
        let Forecast { outage, total, .. } = &shown.forecast;
        let text = match (shown.detection, shown.outage()) {
            (Some(detection), all) => format!(
                "the primary is silent for {detection} until it is decided (failoverAfter), and writes are kept out for {outage} \
                 after that: since the last contact {all}, which the report will measure; the run takes {total}"
            ),
            (None, _) => format!("writes are kept out for {outage}; the whole takes {total}"),
        };
        shown.notes.push(preflight::remark("expected-time", text));
    }
    shown.notes.sort_by_key(|note| note.severity);
    shown
}
