//! Messages from the gateway to a client: what they hold. How they are written is in `write`, how read in `read`.

mod read;
mod write;

use std::sync::Arc;

use super::keys::{ErrorCode, How};
use super::{Conflate, FeedState, Times};
use crate::model::{Delta, FieldChanges, MarketField, MarketId, View};
use crate::position::Position;

pub(in crate::wire) use read::message_type;
pub(crate) use read::read_position;
pub(crate) use write::write_position;

/// What a delta says beside its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaHead {
    /// The market.
    pub market: MarketId,
    /// The view.
    pub view: View,
    /// The epoch.
    pub epoch: u64,
    /// It starts from here or below.
    pub prev: u64,
    /// It ends here.
    pub seq: u64,
    /// When, by hop.
    pub times: Times,
}

/// What a snapshot says beside the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapHead {
    /// The market.
    pub market: MarketId,
    /// The view.
    pub view: View,
    /// Where the book stands.
    pub at: Position,
    /// The market's last stop, [`Position::ZERO`] where none.
    pub stop: Position,
    /// Its shard.
    pub shard: u16,
    /// The state of its feed.
    pub feed: FeedState,
    /// When, by hop.
    pub times: Times,
}

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// Connection id.
    pub connection: String,
    /// Heartbeat interval, ms.
    pub heartbeat: u64,
    /// Gateway's clock.
    pub now: i64,
    /// Limits by name.
    pub limits: Vec<(String, i64)>,
}

/// A market was subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// The client's request number.
    pub id: i64,
    /// The market; empty where a scope was taken.
    pub market: MarketId,
    /// The view.
    pub view: View,
    /// The conflation in effect.
    pub conflate: Conflate,
    /// Where the market stands.
    pub at: Position,
    /// Its last stop.
    pub stop: Position,
    /// Its shard.
    pub shard: u16,
    /// Its source.
    pub source: Arc<str>,
    /// The state of its feed.
    pub feed: FeedState,
    /// How it starts.
    pub how: How,
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The client's request number, where it had one.
    pub id: Option<i64>,
    /// The market, where it is about one.
    pub market: Option<MarketId>,
    /// The reason.
    pub code: ErrorCode,
    /// The value, why, and what to do.
    pub why: String,
    /// When to try again, ms.
    pub retry: Option<u64>,
    /// Whether trying again is useless.
    pub fatal: bool,
}

/// A feed's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedNews {
    /// The source.
    pub source: Arc<str>,
    /// The shard.
    pub shard: u16,
    /// Its state.
    pub state: FeedState,
    /// Its last sign of life, ms.
    pub as_of: i64,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Gateway's clock.
    pub now: i64,
    /// The ping's time.
    pub echo: Option<i64>,
    /// Subscriptions with something unsent.
    pub behind: u64,
    /// Oldest sign of life among the session's sources.
    pub as_of: Option<i64>,
    /// Digest of the session's positions.
    pub digest: u32,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// Whether it replaces what was known.
    pub full: bool,
    /// Markets with the fields that changed.
    pub markets: Vec<(MarketId, FieldChanges<MarketField>)>,
    /// Markets that left.
    pub gone: Vec<MarketId>,
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "made for one message at a time; the hot path writes heads and deltas by reference"
)]
#[allow(missing_docs, reason = "each variant is its row of PROTOCOL.md")]
pub enum Down {
    Welcome(Welcome),
    Ok(Subscribed),
    Err(Problem),
    /// The delta is that from an empty book.
    Snap(SnapHead, Delta),
    Delta(DeltaHead, Delta),
    Stop {
        market: MarketId,
        at: Position,
        why: Option<Arc<str>>,
    },
    Feed(FeedNews),
    Gap {
        market: MarketId,
        view: View,
        from: Position,
        to: Position,
    },
    Gone {
        market: MarketId,
        at: Position,
        why: String,
    },
    Catalogue(Catalogue),
    Crc {
        market: MarketId,
        view: View,
        at: Position,
        checksum: u32,
    },
    Hb(Heartbeat),
    Bye {
        code: u16,
        why: String,
        retry: u64,
    },
}
