//! What a follower tells, and what it counts.

use crate::log::FeedReport;
use crate::model::{Delta, MarketId};
use crate::position::Position;
use crate::wire::Times;

/// What the follower tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the frequent one")]
pub enum Event {
    /// A market changed; the follower's book is as of this change.
    Changed {
        /// The market.
        market: MarketId,
        /// Its position before.
        prev: Position,
        /// The change.
        delta: Delta,
        /// Whether a stop names the market: to be told ahead of prices.
        stop: bool,
        /// When, by hop.
        times: Times,
    },
    /// A stop names a market without changing its book.
    Stopped {
        /// The market.
        market: MarketId,
    },
    /// A market is new, or its book was replaced: what was known of it before does not connect.
    Replaced {
        /// The market.
        market: MarketId,
        /// Whether its last stop is higher than any told before.
        stop: bool,
        /// When, by hop.
        times: Times,
    },
    /// A market is gone.
    Gone {
        /// The market.
        market: MarketId,
        /// Where its shard stood.
        at: Position,
    },
    /// A feed's state changed.
    Feed(FeedReport),
    /// Read the log after this position and answer with [`Follower::handle_tail`].
    NeedTail(Position),
    /// Read the snapshots and answer with [`Follower::handle_snapshots`].
    NeedSnapshots,
}

/// How often what happened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Entries applied.
    pub applied: u64,
    /// Entries seen before.
    pub duplicates: u64,
    /// Entries or `alive`s of a lower epoch.
    pub old_epochs: u64,
    /// Gaps found, by an entry or by `alive`.
    pub gaps: u64,
    /// Repairs from the log.
    pub tails: u64,
    /// Repairs from snapshots.
    pub snapshots: u64,
    /// Entries dropped while a repair was under way.
    pub overflow: u64,
    /// Books whose checksum was not the source's.
    pub mismatches: u64,
}

/// The source's checksum of a market's whole book, as a log entry told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The market.
    pub market: MarketId,
    /// The position that it holds for.
    pub at: Position,
    /// Of the whole book, all levels included.
    pub checksum: u32,
}
