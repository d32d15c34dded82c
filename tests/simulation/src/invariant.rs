//! The promises of safety.md, each in a file, as something that looks at the whole world after every moment of it.

use std::collections::BTreeMap;

use regent_core::application::Action;
use regent_core::id::{ApplicationId, RunId};
use regent_core::run::StepKind;
use regent_core::state::State;

use crate::client::Acknowledged;
use crate::database::{Databases, Effect};

mod by_hand;
mod coordinators_alone;
mod effects_once;
mod epochs_rise;
mod intent_first;
mod nothing_deleted;
mod nothing_missing;
mod old_disk;
mod one_writer;
mod pause_holds;
mod permits;
mod replicas_agree;
mod restored;

/// What is seen at one moment.
pub struct Sight<'a> {
    /// When.
    pub now: u64,
    /// The databases.
    pub databases: &'a Databases,
    /// Applied states of the coordinators that run, if they changed since the last moment.
    pub changed: &'a BTreeMap<u64, State>,
    /// What drivers did since the last moment.
    pub effects: &'a [(u64, String, Effect)],
    /// What was acknowledged since the last moment.
    pub acknowledged: &'a [Acknowledged],
    /// Only coordinators were disturbed.
    pub coordinators_only: bool,
    /// Coordinators that were given an old disk.
    pub old_disks: &'a [u64],
}

/// A promise that is watched.
pub trait Invariant {
    /// By its number in safety.md.
    fn promise(&self) -> &'static str;

    /// Looks at a moment.
    ///
    /// # Errors
    /// How it is broken.
    fn look(&mut self, sight: &Sight<'_>) -> Result<(), String>;

    /// A coordinator's process began anew: what it has applied may be less than before.
    fn forget(&mut self, _coordinator: u64) {}

    /// Looks at the healed world in the end.
    ///
    /// # Errors
    /// How it is broken.
    fn conclude(&mut self, _state: &State, _databases: &Databases) -> Result<(), String> {
        Ok(())
    }
}

/// The first of them that is broken at a moment, and how.
pub(super) fn broken(invariants: &mut [Box<dyn Invariant>], sight: &Sight<'_>) -> Option<(&'static str, String)> {
    invariants.iter_mut().find_map(|invariant| invariant.look(sight).err().map(|how| (invariant.promise(), how)))
}

/// The first of them that does not hold in the end, and how.
pub(super) fn broken_in_the_end(
    invariants: &mut [Box<dyn Invariant>],
    state: &State,
    databases: &Databases,
) -> Option<(&'static str, String)> {
    let mut invariants = invariants.iter_mut();
    invariants.find_map(|invariant| invariant.conclude(state, databases).err().map(|how| (invariant.promise(), how)))
}

/// All of them, for one application: what they see is of no other.
#[must_use]
pub fn all(application: &ApplicationId) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_writer::OneWriter),
        Box::new(by_hand::RogueWriter::default()),
        Box::new(epochs_rise::EpochsRise::default()),
        Box::new(intent_first::IntentFirst::default()),
        Box::new(effects_once::EffectsOnce::default()),
        Box::new(nothing_missing::NothingMissing::of(application)),
        Box::new(nothing_deleted::NothingDeleted::default()),
        Box::new(pause_holds::PauseHolds::default()),
        Box::new(old_disk::OldDisk),
        Box::new(coordinators_alone::CoordinatorsAlone::default()),
        Box::new(replicas_agree::ReplicasAgree::default()),
        Box::new(restored::Restored::default()),
    ]
}

/// Promotions that were asked for: by which run, of which cluster.
fn promotions<'a>(sight: &'a Sight<'_>) -> impl Iterator<Item = (RunId, String)> + 'a {
    let runs = sight.changed.values().flat_map(|state| state.runs.values());
    runs.flat_map(|run| {
        let promotes =
            |(step, progress): &(&_, &regent_core::run::Progress)| promotes(step) && progress.token.is_some();
        run.walk().filter(promotes).map(|(step, _)| (run.id, step.cluster.to_string()))
    })
}

fn promotes(step: &regent_core::run::Step) -> bool {
    step.kind == StepKind::Action(Action::Promote)
}
