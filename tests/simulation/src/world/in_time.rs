//! The time to a promotion that SAFETY.md publishes, held where nothing happens but the loss of the primary's region.

use regent_core::lease::TimeBound;
use regent_core::time::Span;

use crate::Failure;
use crate::database::Effect;
use crate::fault::{Fault, Manner};
use crate::world::World;

/// An election, by the defaults of `raft`: that of a leader that was lost, too.
const ELECTION: u64 = 1_000;
/// Three commits and the dispatch.
const COMMITS: u64 = 500;
/// The promotion itself, which comes on top.
const PROMOTION: u64 = 1_000;
/// Clocks go by so much of the true time slower at most: two of a hundred.
const SLOWER: u64 = 50;

impl World {
    /// What has just begun may be what a promotion has to follow.
    pub(super) fn awaits(&mut self, fault: &Fault) {
        if self.manner == Manner::Plain && matches!(fault, Fault::PowerOff { .. }) {
            self.awaited = self.awaited.or(Some(self.time.now()));
        }
    }

    /// Nothing is promoted later than is published.
    pub(super) fn in_time(&mut self, effects: &[(u64, String, Effect)]) -> Result<(), Failure> {
        let Some(lost) = self.awaited else { return Ok(()) };
        if effects.iter().any(|(.., effect)| *effect == Effect::Promoted { standby: true }) {
            self.awaited = None;
            return Ok(());
        }
        let heartbeat = TimeBound::new(Span::from_millis(self.bound)).heartbeat().millis();
        let published = self.bound + ELECTION + 3 * heartbeat + COMMITS;
        let waited = self.time.now() - lost;
        if waited <= published + PROMOTION + self.bound / SLOWER {
            return Ok(());
        }
        let how = format!("nothing was promoted {waited} ms after the loss, and {published} ms are published");
        Err(self.failure("L1", &how))
    }
}
