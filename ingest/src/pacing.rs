//! When a line of a recording is due.

use std::str::FromStr;
use std::time::Duration;

/// How fast a recording plays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was.
    Times(f64),
    /// As fast as it is taken.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        match text.parse::<f64>() {
            Ok(times) if times > 0.0 && times <= 10_000.0 => Ok(Self::Times(times)),
            _ => {
                Err("a speed is a number above 0 and up to 10000 (1 is as it was, 10 ten times that), or max"
                    .into())
            }
        }
    }
}

/// Longest silence of a recording that is played out, in its own time: longer ones are cut to this.
const MAX_SILENCE: i64 = 60_000;

/// Turns times of a recording into times since the start.
#[derive(Debug)]
pub struct Pacer {
    speed: Speed,
    last: Option<i64>,
    /// Played so far, in the recording's time, ms.
    played: i64,
}

impl Pacer {
    /// Before the first line.
    #[must_use]
    pub fn new(speed: Speed) -> Self {
        Self { speed, last: None, played: 0 }
    }

    /// How long after the start a line published at `pt` is due. A time that goes backwards is due at once.
    pub fn due(&mut self, pt: i64) -> Duration {
        let step = self.last.map_or(0, |last| (pt - last).clamp(0, MAX_SILENCE));
        self.last = Some(self.last.map_or(pt, |last| last.max(pt)));
        self.played += step;
        match self.speed {
            Speed::Max => Duration::ZERO,
            Speed::Times(times) => Duration::from_secs_f64(self.played as f64 / 1_000.0 / times),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_due_in_their_own_time() {
        let mut pacer = Pacer::new(Speed::Times(10.0));
        let due: Vec<u128> =
            [5_000, 6_000, 5_500, 8_000, 9_000_000].map(|pt| pacer.due(pt).as_millis()).to_vec();
        assert_eq!(due, [0, 100, 100, 300, 6_300]);
        assert_eq!(Pacer::new(Speed::Max).due(7), Duration::ZERO);
    }

    #[test]
    fn speeds_are_read_or_refused() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
        for wrong in ["0", "-1", "fast", "NaN", "inf", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }
}
