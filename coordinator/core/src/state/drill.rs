//! A drill begins, and what is remembered of those that succeeded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Applied;
use super::apply::{Applying, refused};
use super::change::begin;
use super::recovery::refuse_recovering;
use crate::application::Action;
use crate::entry::{Cause, Finding};
use crate::id::{ApplicationId, ClusterId, ResourceId, RunId};
use crate::plan;
use crate::run::{Opening, Rehearsal, Run, StepKind, StepState};
use crate::time::{Span, Timestamp};

/// What was rehearsed last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rehearsed {
    /// When a drill last began, whatever became of it; until one has, since when they are scheduled.
    pub begun: Option<Timestamp>,
    /// The last successful drill of each cluster.
    pub drills: BTreeMap<ClusterId, Drilled>,
    /// When a backup of each database was last restored and looked at, by cluster.
    pub restores: BTreeMap<ClusterId, BTreeMap<ResourceId, Timestamp>>,
}

/// A drill that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drilled {
    /// Its run.
    pub run: RunId,
    /// When it ended.
    pub at: Timestamp,
    /// How long a failover would have taken by what was rehearsed.
    pub rto: Span,
}

pub(super) fn started(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    cluster: &ClusterId,
    by: &str,
    finding: &Finding,
) -> Applied {
    let Some(known) = applying.state.applications.get(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    if let Err(refused) = refuse_recovering(known) {
        return refused;
    }
    let Some(primary) = known.primary.clone() else {
        return refused("not-adopted", "no primary is known, and so no standby either");
    };
    if primary == *cluster {
        return refused("drill-primary", format!("{cluster} is the primary; a drill is done where a standby is"));
    }
    if !known.document.clusters.contains(cluster) {
        return refused("unlisted-cluster", format!("{cluster} is not listed"));
    }
    if !applying.state.agents.contains_key(cluster) {
        return refused("no-agent", format!("no agent of {cluster} has registered"));
    }
    if let Some(reason) = known.excluded.get(cluster) {
        return refused("quarantined", format!("{cluster} is no standby: {reason}"));
    }
    if !known.document.runbooks.contains_key(plan::DRILL) {
        let detail = format!("{application} has no runbook named {}; add it to the document", plan::DRILL);
        return refused("no-drill-runbook", detail);
    }
    // Also one that a failover replaced and that has not cleaned up.
    let open = |run: &&Run| run.application == *application && !run.status.is_final();
    if let Some(run) = applying.state.runs.values().find(open) {
        return refused("run-under-way", format!("run {} is under way", run.id));
    }
    let steps = plan::drill(&known.document, cluster);
    let id = RunId(applying.index.0);
    let opening = Opening {
        application: application.clone(),
        cause: Cause::Drill { by: by.to_owned() },
        from: primary,
        to: cluster.clone(),
        epoch: known.epoch,
        finding: finding.clone(),
        at: applying.at,
    };
    begin(applying, Run::begin(id, steps, opening));
    let at = applying.at;
    if let Some(known) = applying.state.applications.get_mut(application) {
        known.rehearsed.begun = Some(at);
    }
    applying.audit("drill", Some(application), Some(id), by, format!("in {cluster}"));
    crate::run::apply::finish_if_done(applying, id);
    applying.done()
}

/// What a successful drill has shown.
pub(crate) fn note_success(applying: &mut Applying<'_>, id: RunId) {
    let at = applying.at;
    let Some(run) = applying.state.runs.get(&id) else { return };
    let restored: Vec<ResourceId> = run
        .walk()
        .filter(|(step, progress)| restores(step.kind) && progress.state == StepState::Succeeded)
        .filter_map(|(step, _)| step.resource.clone())
        .collect();
    let (application, cluster) = (run.application.clone(), run.to.clone());
    let Some(known) = applying.state.applications.get_mut(&application) else { return };
    let Some(rto) = run.rehearsed_time(known.document.automation.bound.fail_over_after) else { return };
    known.rehearsed.drills.insert(cluster.clone(), Drilled { run: id, at, rto });
    for resource in restored {
        known.rehearsed.restores.entry(cluster.clone()).or_default().insert(resource, at);
    }
}

const fn restores(kind: StepKind) -> bool {
    matches!(kind, StepKind::Rehearse(Rehearsal::Restore) | StepKind::Action(Action::Restore))
}
