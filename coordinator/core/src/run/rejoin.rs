//! The end of a quarantine: a side that was left follows the present primary, with every guarded database.
//!
//! Only that ends it, and only for the epoch in which it was seen: by a run of its own, which an operator begins, or
//! by the `rejoin` lines of a failover. Those are not awaited, so their end may come after the run's.

use std::collections::BTreeSet;

use super::{StepKind, StepState};
use crate::application::Action;
use crate::effect::Effect;
use crate::entry::Outcome;
use crate::id::{Attempt, ClusterId, ResourceId, RunId, StepId};
use crate::state::Applied;
use crate::state::apply::{Applying, ignored};
use crate::state::register::renew_terms;
use crate::state::window;

/// Readmits a cluster once the run has seen all of its guarded databases follow the primary of this epoch.
pub(crate) fn readmit(applying: &mut Applying<'_>, id: RunId, cluster: &ClusterId) {
    let Some(run) = applying.state.runs.get(&id) else { return };
    let application = run.application.clone();
    let Some(known) = applying.state.applications.get(&application) else { return };
    let epoch = run.decided.as_ref().map_or(run.epoch_before, |decided| decided.epoch);
    let current = known.primary.as_ref() == Some(&run.to) && known.epoch == epoch;
    let rejoining =
        || run.walk().filter(|(step, _)| step.kind == StepKind::Action(Action::Rejoin) && step.cluster == *cluster);
    let all_follow = rejoining().all(|(_, progress)| progress.state == StepState::Succeeded);
    let following: BTreeSet<&ResourceId> = rejoining().filter_map(|(step, _)| step.resource.as_ref()).collect();
    let complete = known.document.guarded().iter().all(|resource| following.contains(resource));
    if !(current && all_follow && complete) {
        return;
    }
    if let Some(known) = applying.state.applications.get_mut(&application)
        && known.excluded.remove(cluster).is_some()
    {
        renew_terms(applying, &application);
        applying.audit("readmitted", Some(&application), Some(id), "leader", cluster.to_string());
        window::open_late(applying, id, cluster);
    }
}

/// The code of a side that was not taken back, because it has what the primary lacks.
pub(crate) const DIVERGED: &str = "rejoin-diverged";

/// A side has what the primary lacks: it stays out, or is put out, and what it has is shown where it is shown. Only an
/// operator's rejoin gives that up (S5).
pub(super) fn note_divergence(applying: &mut Applying<'_>, id: RunId, cluster: &ClusterId, code: &str, message: &str) {
    let Some(application) = applying.state.runs.get(&id).map(|run| run.application.clone()) else { return };
    let Some(known) = applying.state.applications.get_mut(&application) else { return };
    if code != DIVERGED || known.primary.as_ref() == Some(cluster) {
        return;
    }
    if known.excluded.insert(cluster.clone(), message.to_owned()).as_deref() == Some(message) {
        return;
    }
    renew_terms(applying, &application);
    applying.audit("diverged", Some(&application), Some(id), &format!("agent {cluster}"), message);
}

/// An outcome that comes after its run has ended: that a database follows is still worth something, and that it cannot
/// follow without giving something up. An ordinary failure changes nothing any more.
pub(super) fn late(
    applying: &mut Applying<'_>,
    id: RunId,
    step: StepId,
    attempt: Attempt,
    outcome: &Outcome,
) -> Applied {
    let at = applying.at;
    let Some(run) = applying.state.runs.get_mut(&id) else { return ignored("unknown run") };
    let Some((spec, progress)) = run.step(step) else { return ignored("unknown step") };
    if !run.hears(spec, progress) || progress.attempts != attempt {
        return ignored("the run has ended");
    }
    let cluster = spec.cluster.clone();
    let report = match outcome {
        Outcome::Succeeded(report) => report,
        Outcome::Failed { code, .. } if code != DIVERGED => return ignored("the run has ended"),
        Outcome::Failed { code, message, .. } => {
            let failure = Some((code.clone(), message.clone()));
            if progress.failure == failure {
                return ignored("told before");
            }
            if let Some(progress) = run.progress_mut(step) {
                progress.failure = failure;
            }
            applying.effects.push(Effect::RunChanged(id));
            note_divergence(applying, id, &cluster, code, message);
            return applying.done();
        }
    };
    if let Some(progress) = run.progress_mut(step) {
        progress.state = StepState::Succeeded;
        progress.ended = Some(at);
        progress.report = Some(report.clone());
        progress.failure = None;
    }
    applying.effects.push(Effect::RunChanged(id));
    readmit(applying, id, &cluster);
    applying.done()
}
