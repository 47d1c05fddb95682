//! The gateway's clock: the only place that reads it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::hub::Now;

/// Reads both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock {
    /// Now, by both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Now { mono: self.mono(), wall }
    }

    /// Now, by the clock that never jumps: half the cost.
    #[must_use]
    pub fn mono(&self) -> i64 {
        self.start.elapsed().as_millis() as i64
    }
}
