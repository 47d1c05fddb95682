//! Positions: `(epoch, seq)`, compared in that order. `seq` is the log number of the market's shard.

use std::fmt;

/// Where a book stands: the epoch of its shard's owner, and the number of the last log entry that changed it.
///
/// A position of a market is also the price token of a bet: "I saw this market at (epoch, seq)".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The owner's epoch: rises with every change of ownership, below 2^53.
    pub epoch: u64,
    /// The shard's log number: never resets while the log remembers, below 2^53.
    pub seq: u64,
}

impl Position {
    /// Before everything: no position, or no stop so far.
    pub const ZERO: Self = Self { epoch: 0, seq: 0 };

    /// The position `(epoch, seq)`.
    #[must_use]
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// Whether this is [`Position::ZERO`].
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.epoch == 0 && self.seq == 0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// The epoch that follows: above what is stored and what was ever seen, and above the wall clock's own lane, so that
/// neither a log that lost its memory nor two owners that both believe can produce the same or a lower one.
///
/// `slot` (0–1023) is unique among running ingests.
#[must_use]
pub fn next_epoch(stored: u64, seen: u64, unix_ms: u64, slot: u16) -> u64 {
    let floor = stored.max(seen).max(unix_ms * 1024);
    (floor / 1024 + 1) * 1024 + u64::from(slot & 1023)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_rise_and_carry_the_slot() {
        let e = next_epoch(0, 0, 1_764_000_000_000, 7);
        assert_eq!(e % 1024, 7);
        assert!(e > 1_764_000_000_000 * 1024 && e < 1 << 53);
        assert!(next_epoch(e, 0, 0, 0) > e);
        assert!(next_epoch(0, e, 0, 1023) > e);
        assert_ne!(next_epoch(e, 0, 0, 1), next_epoch(e, 0, 0, 2));
    }

    #[test]
    fn epoch_orders_before_seq() {
        assert!(Position::new(2, 1) > Position::new(1, 99));
        assert!(Position::new(2, 3) > Position::new(2, 2));
    }
}
