//! Drills that begin by themselves: when they are due, and only while all is well. One that could not begin when it was due
//! begins once that is so; of several that were missed one is made up.

use super::{Assessment, Trigger, Viewpoint};
use crate::breaker::is_frozen;
use crate::entry::Entry;
use crate::target;
use crate::terms::Window;
use crate::verdict::Scene;
use crate::why::Verdict;

/// By whom a scheduled drill is begun.
const BY: &str = "schedule";

/// The drill that is due, if nothing speaks against it.
pub(super) fn drill(scene: &Scene<'_>, assessment: &Assessment, view: Viewpoint) -> Option<Entry> {
    let (state, known) = (scene.state, scene.known);
    let drills = known.document.drills.as_ref()?;
    let since = known.rehearsed.begun?;
    if scene.waits(view.wall).since(since) < drills.every {
        return None;
    }
    let busy = state.runs.values().any(|run| run.application == *scene.application && !run.status.is_final());
    let paused = known.paused.is_some() || state.paused.is_some() || Window::new(&known.terms).any_paused();
    let well = assessment.trigger == Trigger::None && scene.verdict() == Verdict::Healthy && known.confirmed;
    if busy || paused || is_frozen(state) || !well || scene.not_looked_for().is_some() {
        return None;
    }
    let mut fit = target::rank(scene).into_iter().flatten();
    let candidate = fit.find(|one| drills.cluster.as_ref().is_none_or(|wanted| one.cluster == *wanted))?;
    let reasons = vec![format!("drills are due every {}", drills.every)];
    Some(Entry::DrillStarted {
        application: scene.application.clone(),
        cluster: candidate.cluster.clone(),
        by: BY.to_owned(),
        finding: target::finding(scene, &candidate, reasons, view.wall),
    })
}
