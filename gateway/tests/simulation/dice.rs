//! The one source of chance: everything that a run decides comes from here, so that its seed is the whole run.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A seeded generator with the few questions that a run asks.
pub struct Dice(SmallRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x51CA))
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.0.random_range(0..1000) < per_mille
    }

    /// At or above `low`, below `high`.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        self.0.random_range(low..high)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
