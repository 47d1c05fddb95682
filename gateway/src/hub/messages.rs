//! What the hub, the cores and the feed say to each other.

use std::sync::Arc;

use bytes::Bytes;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{ErrorCode, FeedNews, FeedState, How};

use super::{Document, Listing, MarketFilter};
use crate::wires::Wire;

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A market as a view shows it.
    Market(MarketId, View),
    /// What there is.
    Catalogue,
}

/// What a run is about, and for what kind of client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// The subject.
    pub subject: Subject,
    /// The wire.
    pub wire: Wire,
}

impl RunKey {
    /// What a session calls the run: its market and view, and the catalogue by an empty name.
    #[must_use]
    pub fn name(&self) -> (MarketId, View) {
        match &self.subject {
            Subject::Market(market, view) => (market.clone(), *view),
            Subject::Catalogue => ("".into(), View::All),
        }
    }
}

/// The hub's number of a run, the same on every core.
pub type RunId = usize;

/// What a core asks of the hub.
#[derive(Debug)]
pub enum ToHub {
    /// Open a run for this core: answered by `Opened` or `Refused`.
    Open {
        /// The core.
        core: usize,
        /// The run.
        key: RunKey,
    },
    /// The core has no reader of the run any more.
    Close {
        /// The core.
        core: usize,
        /// The run.
        run: RunId,
    },
    /// A base from a position, or a snapshot: answered by `Based`.
    Base {
        /// The core.
        core: usize,
        /// The run.
        run: RunId,
        /// From where; `None`: a snapshot.
        from: Option<Position>,
    },
    /// A market's document, for `GET /v1/markets/{id}`.
    Document {
        /// The market.
        market: MarketId,
        /// The view.
        view: View,
        /// Who asks: comes back with the answer.
        ask: u64,
    },
    /// A page of the catalogue, for `GET /v1/markets`.
    List {
        /// Which markets.
        filter: MarketFilter,
        /// Who asks.
        ask: u64,
    },
}

/// What the hub tells a core. In order: a base was made from what came before it.
#[derive(Debug, Clone)]
pub enum ToCore {
    /// A run is open: its frames follow from here on.
    Opened {
        /// What was asked for.
        key: RunKey,
        /// Its number.
        run: RunId,
        /// The market's shard.
        shard: u16,
        /// The market's source.
        source: Arc<str>,
        /// Where the run's head stands.
        head: Position,
    },
    /// A run can't be opened.
    Refused {
        /// What was asked for.
        key: RunKey,
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        why: String,
        /// When to try again, ms.
        retry: Option<u64>,
    },
    /// A frame for every reader of a run.
    Frame {
        /// The run.
        run: RunId,
        /// The bytes.
        bytes: Bytes,
        /// Where it brings readers.
        seq: u64,
        /// Whether conflation must not delay it.
        urgent: bool,
    },
    /// The run starts over: every reader needs a base.
    Reset {
        /// The run.
        run: RunId,
        /// Where it starts.
        head: Position,
        /// The market's source, which may be another one than before.
        source: Arc<str>,
    },
    /// A base that was asked for.
    Based {
        /// The run.
        run: RunId,
        /// What was asked.
        from: Option<Position>,
        /// The frame, empty where the client stands there already.
        frame: Bytes,
        /// Where it brings the client.
        at: Position,
        /// How.
        how: How,
        /// The market's last stop.
        stop: Position,
        /// The state of its feed.
        feed: FeedState,
    },
    /// A stop for every reader of a run, ahead of everything.
    Stop {
        /// The run.
        run: RunId,
        /// The bytes.
        bytes: Bytes,
        /// When its source said so, Unix ms; 0 where it is no news.
        said: i64,
    },
    /// The market of a run is gone: tell its readers, and forget the run.
    Gone {
        /// The run.
        run: RunId,
        /// Where its shard stood.
        at: Position,
        /// The bytes.
        bytes: Bytes,
    },
    /// A feed's state, for sessions with markets of that source and shard.
    Feed {
        /// The news.
        news: FeedNews,
        /// The bytes, by wire.
        frames: [Bytes; Wire::ALL.len()],
    },
    /// How far a shard has come; everything before it was told.
    Head {
        /// The shard.
        shard: u16,
        /// Where it stands.
        at: Position,
        /// The oldest sign of life among its sources, Unix ms.
        as_of: i64,
    },
    /// The hub lives: sent with every tick. A core that misses it must not vouch for anything.
    Beat,
    /// A market joined or moved within the catalogue.
    Joined {
        /// The market.
        market: MarketId,
        /// Its event.
        event: Arc<str>,
        /// Its sport.
        sport: Arc<str>,
        /// Where the catalogue stood when it came.
        since: Position,
    },
    /// A market left the catalogue.
    Left {
        /// The market.
        market: MarketId,
    },
}

/// What the hub asks of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedCommand {
    /// Subscribe to a shard's live channel.
    Follow(u16),
    /// Unsubscribe.
    Unfollow(u16),
    /// Read a shard's log after a position.
    Tail(u16, Position),
    /// Read a shard's snapshots.
    Snapshots(u16),
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A market's document.
    Document(Document),
    /// A page of the catalogue.
    Listing(Listing),
    /// None.
    Refused {
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        why: String,
        /// When to try again, ms.
        retry: Option<u64>,
    },
}
