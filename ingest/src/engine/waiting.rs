//! What of a shard waits: for its number to be written, or for another shard.

use bytes::Bytes;
use tictac_proto::model::MarketId;
use tictac_proto::position::Position;
use tictac_proto::wire::FeedState;

/// A snapshot that is ahead of what is written: it goes with the batch that reaches it.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) seq: u64,
    pub(super) first: u64,
    pub(super) market: MarketId,
    pub(super) bytes: Bytes,
}

/// What was said of a source's feed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) state: FeedState,
    /// It is better now, which may be said when the entries up to this number are written: they made it so.
    pub(super) better_at: Option<u64>,
}

/// A market whose `gone` is not written yet.
#[derive(Debug)]
pub(super) struct Going {
    /// Number of that entry.
    pub(super) seq: u64,
    pub(super) market: MarketId,
    /// Number of its first change that no snapshot holds.
    pub(super) first: u64,
    /// Whether its snapshot is to be deleted: unless it came back meanwhile.
    pub(super) deletes: bool,
}

/// A stored market that is not to be here, and in which other shard it is.
pub(super) type Orphan = (MarketId, Option<u16>);

/// An entry of another shard that must be written first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) shard: u16,
    pub(super) at: Position,
}
