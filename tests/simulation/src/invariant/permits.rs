//! What allows an effect: an attempt at a step that has not succeeded yet, by its run and its token. Each allows one effect,
//! and none once its success is committed: that a cluster was asked once is no leave for all time.
//!
//! An attempt that is known to have failed, or whose run has ended otherwise because a higher epoch replaced it, may still
//! be at work: it stays until another attempt at the step takes its place.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::application::Action;
use regent_core::id::{RunId, StepId, Token};
use regent_core::run::{Run, Step, StepKind, StepState};

use super::Sight;

/// The newest attempt at each step.
type Attempts = BTreeMap<(RunId, StepId), Token>;

/// By cluster.
#[derive(Default)]
pub(super) struct Permits {
    open: BTreeMap<String, Attempts>,
    /// Those that have had their effect.
    used: BTreeMap<String, Attempts>,
    /// Had their effect, or have succeeded without: a coordinator that is behind shows them as begun once more.
    over: BTreeSet<Token>,
}

impl Permits {
    /// Takes note of what coordinators have applied since the last moment, of the steps with this leave.
    pub(super) fn learn(&mut self, sight: &Sight<'_>, action: Action, leave: fn(&Run, &Step) -> bool) {
        for run in sight.changed.values().flat_map(|state| state.runs.values()) {
            for (step, progress) in run.walk().filter(|(step, _)| step.kind == StepKind::Action(action)) {
                if !leave(run, step) {
                    continue;
                }
                let Some(token) = progress.token else { continue };
                let (cluster, name) = (step.cluster.to_string(), (run.id, step.id));
                if progress.state == StepState::Succeeded {
                    self.over.insert(token);
                    self.forget(&cluster, name, token);
                } else if !self.over.contains(&token) {
                    let newest = self.open.entry(cluster).or_default().entry(name).or_insert(token);
                    *newest = token.max(*newest);
                }
            }
        }
        // Somebody has opened it by hand: whatever made it a standby may have to do so once more.
        for cluster in sight.databases.by_hand().into_keys() {
            for (name, token) in self.used.remove(&cluster).unwrap_or_default() {
                self.over.remove(&token);
                self.open.entry(cluster.clone()).or_default().entry(name).or_insert(token);
            }
        }
    }

    /// Some attempt is at work on this cluster, whether or not it has had its effect.
    pub(super) fn any(&self, cluster: &str) -> bool {
        let of = |all: &BTreeMap<String, Attempts>| all.get(cluster).is_some_and(|attempts| !attempts.is_empty());
        of(&self.open) || of(&self.used)
    }

    /// The effect of one of them; false if there is none.
    pub(super) fn take(&mut self, cluster: &str) -> bool {
        let first = self.open.get_mut(cluster).and_then(BTreeMap::pop_first);
        let Some((name, token)) = first else { return false };
        self.over.insert(token);
        self.used.entry(cluster.to_owned()).or_default().insert(name, token);
        true
    }

    /// An attempt has succeeded: neither it nor one before it at the same step does anything any more.
    fn forget(&mut self, cluster: &str, name: (RunId, StepId), token: Token) {
        for all in [&mut self.open, &mut self.used] {
            if let Some(attempts) = all.get_mut(cluster)
                && attempts.get(&name).is_some_and(|known| *known <= token)
            {
                attempts.remove(&name);
            }
        }
    }
}
