//! Draws that the models need, from one seeded generator.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The simulator's only source of chance.
#[derive(Debug, Clone)]
pub(super) struct Chance(SmallRng);

impl Chance {
    /// The same seed draws the same.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Uniform in [0, 1).
    pub(super) fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// Uniform in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in [low, high].
    pub(super) fn whole(&mut self, low: i64, high: i64) -> i64 {
        self.0.random_range(low..=high)
    }

    /// Uniform below `count`; 0 for 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { self.0.random_range(0..count) }
    }

    /// Whether something of this probability happens.
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of these.
    pub(super) fn pick<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    /// Puts these in a random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// Standard normal (Box–Muller).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// How many events of a Poisson process of this mean happen.
    pub(super) fn count(&mut self, mean: f64) -> usize {
        if mean > 30.0 {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "not negative, and small"
            )]
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as usize;
        }
        let limit = (-mean).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }

    /// A log-normal stake in hundredths: `median` in whole units, at least 2.00, with whole units the more usual.
    pub(super) fn stake(&mut self, median: f64) -> i64 {
        let units = (median * (0.9 * self.normal()).exp()).clamp(2.0, 50_000.0);
        #[allow(clippy::cast_possible_truncation, reason = "clamped")]
        let hundredths = (units * 100.0) as i64;
        if self.happens(0.3) { hundredths / 100 * 100 } else { hundredths }
    }
}
