//! Why a failover would, or would not, start now; to where; with what loss.

use serde::Serialize;

use crate::decide::{self, Trigger, Viewpoint, awaits};
use crate::evidence::Evidence;
use crate::id::{ApplicationId, ClusterId, Epoch};
use crate::plan::{self, Estimate};
use crate::preflight::{self, Note};
use crate::protection;
use crate::readiness;
use crate::restore;
use crate::state::State;
use crate::time::Span;
use crate::verdict::Scene;

/// The answer for one application at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Of which application.
    pub application: ApplicationId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its primary; none until adopted.
    pub primary: Option<ClusterId>,
    /// What the primary looks like.
    pub verdict: Verdict,
    /// A failover would start now.
    pub would_start: bool,
    /// The rules that hold it, most important first; each with a stable code.
    pub held_by: Vec<Rule>,
    /// To where it would go.
    pub target: Option<ClusterId>,
    /// Every other cluster, and why not.
    pub others: Vec<(ClusterId, String)>,
    /// Expected loss, one sentence for each database.
    pub expected_loss: Vec<String>,
    /// Time from now to the earliest promotion, if votes stand.
    pub earliest: Option<Span>,
    /// The same if the primary were lost this moment: `failoverAfter`. None until adopted.
    pub if_lost_now: Option<Span>,
    /// From the beginning of the failover until service is back, as earlier runs took; none without a target.
    pub expected: Option<Estimate>,
    /// What else an operator should know: an open commit window, a hold, missing protection.
    pub notes: Vec<Note>,
}

/// A rule that holds a failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Stable code, e.g. `primary-healthy`, `no-majority`, `cool-down`.
    pub code: String,
    /// For humans.
    pub detail: String,
}

/// What a primary looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is heard and works.
    Healthy,
    /// Something speaks against it.
    Suspect,
    /// A majority has lost it, or it is certain that it failed.
    Lost,
    /// Not enough is known.
    Unknown,
    /// Contact is lost, but something says that it lives.
    AgentUnreachable,
}

/// Explains one application, from this coordinator's point of view; none if it does not exist.
#[must_use]
pub fn explain(
    state: &State,
    evidence: &Evidence,
    view: Viewpoint,
    application: &ApplicationId,
) -> Option<Explanation> {
    let known = state.applications.get(application)?;
    let mut explanation = Explanation {
        application: application.clone(),
        epoch: known.epoch,
        primary: known.primary.clone(),
        verdict: Verdict::Unknown,
        would_start: false,
        held_by: Vec::new(),
        target: None,
        others: Vec::new(),
        expected_loss: Vec::new(),
        earliest: None,
        if_lost_now: None,
        expected: None,
        notes: Vec::new(),
    };
    let Some(scene) = Scene::new(state, evidence, view.now, view.me, application) else {
        let held = match known.recovering {
            Some(_) => restore::recover(state, evidence, view.now, application, known),
            None => decide::adopt(state, evidence, view, application, known),
        };
        explanation.held_by = held.err().into_iter().collect();
        return Some(explanation);
    };
    let assessment = decide::assess(&scene, view);
    explanation.verdict = scene.verdict();
    explanation.would_start = assessment.held_by.is_empty() && assessment.target.is_some();
    explanation.earliest = match &assessment.trigger {
        Trigger::Lost(loss) | Trigger::Unreachable(loss) => Some(loss.ripe.since(view.now)),
        Trigger::Failed(failure) => Some(failure.ripe.since(view.now)),
        Trigger::SelfFenced(due) => Some(due.since(view.now)),
        Trigger::None => None,
    };
    explanation.if_lost_now = Some(scene.fail_over_after());
    explanation.notes = notes(&scene, view);
    // What is expected comes from the plan that would be carried out, and so does what it leaves out.
    if assessment.target.is_some() {
        let shown = plan::assessed(&scene, &assessment);
        explanation.expected = Some(shown.forecast.outage);
        explanation.notes.extend(shown.notes);
        explanation.notes.sort_by_key(|note| note.severity);
    }
    explanation.held_by = assessment.held_by;
    explanation.others = assessment.unfit.into_iter().map(|unfit| (unfit.cluster, unfit.detail)).collect();
    if let Some(candidate) = assessment.target {
        explanation.expected_loss = candidate.sentences();
        explanation.target = Some(candidate.cluster);
    }
    Some(explanation)
}

/// What holds no failover, and an operator should know all the same.
fn notes(scene: &Scene<'_>, view: Viewpoint) -> Vec<Note> {
    let mut notes = Vec::new();
    let protection = protection::of(scene);
    if !protection.is_protected() {
        notes.push(preflight::warning("not-protected", protection.sentence()));
    }
    if let Some(order) = &scene.known.order {
        notes.push(preflight::remark("order", awaits(order, scene.application, scene.primary)));
    }
    if let Some(window) = &scene.known.window {
        let detail = format!(
            "run {} can be rolled back to {} for another {}; a failover closes that",
            window.run,
            window.back_to,
            window.left(view.wall)
        );
        notes.push(preflight::remark("commit-window", detail));
    }
    if let Some(hold) = &scene.known.held {
        let detail = format!("planned moves are held by {}: {}; a failover is not", hold.by, hold.reason);
        notes.push(preflight::remark("held", detail));
    }
    notes.extend(readiness::before_failover(scene, view.wall));
    notes.sort_by_key(|note| note.severity);
    notes
}
