//! Chance, all of it from the seed. One stream for each use, so that a change of one leaves the others as they were.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Dice(SmallRng);

impl Dice {
    /// The stream of this seed for this use.
    #[must_use]
    pub fn of(seed: u64, used: &str) -> Self {
        let mixed = used.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |mixed, byte| {
            (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
        });
        Self(SmallRng::seed_from_u64(mixed))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below the bound, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound
    }

    /// From the first to the last, both included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// So often in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(of.len() as u64)).unwrap_or(0);
        &of[index]
    }
}
