//! The one place that asks for the time.
//!
//! Everything that is decided by how long something took is decided by this clock, so that it must not jump: a clock on the wall that is
//! set back by an hour would make an hour of silence look like none. It goes with the clock on the wall where that is
//! ahead, and never back; where it is ahead itself it runs a tenth slower until the other has caught up.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// By so much it runs slower while it is ahead.
const SLOWER: i64 = 10;

/// A clock that goes with another one, but not back.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    /// When it was read last, by a clock that never jumps, and what it said, µs.
    last: Option<(Duration, i64)>,
}

impl Steady {
    const fn new() -> Self {
        Self { last: None }
    }

    /// The time, Unix ms, where so much has passed since any beginning and the clock on the wall says this (Unix µs).
    pub(crate) fn read(&mut self, passed: Duration, wall: i64) -> i64 {
        let now = match self.last {
            None => wall,
            Some((before, said)) => {
                let elapsed = passed.saturating_sub(before).as_micros();
                let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
                let now = said.saturating_add(elapsed);
                now.saturating_sub((now - wall).clamp(0, elapsed / SLOWER)).max(wall)
            }
        };
        self.last = Some((passed, now));
        now / 1_000
    }
}

static CLOCK: Mutex<Steady> = Mutex::new(Steady::new());
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    #[cfg(feature = "testing")]
    if let Some(now) = crate::testing::virtual_time::now() {
        return now;
    }
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = wall.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX));
    clock.read(BEGAN.elapsed(), wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn it_goes_with_the_clock_on_the_wall_but_not_back() {
        let mut clock = Steady::new();
        let at = |s: u64| Duration::from_secs(s);
        assert_eq!(clock.read(at(5), 1_000 * SECOND), 1_000_000);
        assert_eq!(clock.read(at(6), 1_001 * SECOND), 1_001_000);
        // Set forward it is there at once; a machine that slept looks the same.
        assert_eq!(clock.read(at(7), 5_000 * SECOND), 5_000_000);
        // Set back time goes on, nine tenths as fast, until the other has caught up: of 2 s in 20 s.
        let mut before = 5_000_000;
        for second in 8..=30 {
            let wall = 4_991 + second as i64;
            let now = clock.read(at(second), wall * SECOND);
            assert_eq!(now - before, if second <= 27 { 900 } else { 1_000 }, "{second}");
            before = now;
        }
        assert_eq!(before, (4_991 + 30) * 1_000);
        // However often it is read.
        let mut clock = Steady::new();
        clock.read(at(0), 3_600 * SECOND);
        let readings = (1..=100_000).map(|i| clock.read(Duration::from_micros(i * 100), 0));
        let last = readings.fold(0, |before, now| {
            assert!(now >= before);
            now
        });
        assert_eq!(last, 3_600_000 + 9_000);
    }
}
