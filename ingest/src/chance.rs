//! The one place that asks for randomness that no seed gives.

use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Randomness from the system; in a simulation from its seed.
pub(crate) fn random() -> SmallRng {
    #[cfg(feature = "testing")]
    if let Some(seeded) = crate::testing::virtual_time::random() {
        return seeded;
    }
    SmallRng::from_os_rng()
}
