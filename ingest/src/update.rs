//! What a source says, in the project's own terms: the one type that every reader of a source's format produces and
//! that the sequencer takes.

use std::sync::Arc;

use tictac_proto::model::{Book, Delta, MarketId};

/// One statement of a source about one market, or about an event at once.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "the large variant is the frequent one; boxing it would cost an allocation a change"
)]
pub enum Update {
    /// The market's whole truth; what was known before and is not in it is gone.
    Image {
        /// The market.
        market: MarketId,
        /// All of it.
        book: Box<Book>,
    },
    /// What changed. Values are absolute.
    Change {
        /// The market.
        market: MarketId,
        /// The changes.
        delta: Delta,
        /// Whether a terminal status may be taken back by this.
        rollback: bool,
    },
    /// Suspends markets of an event at once.
    Stop {
        /// The event.
        event: Arc<str>,
        /// Which of its markets.
        scope: StopScope,
        /// Why, where the source says.
        reason: Option<Arc<str>>,
    },
    /// The source will say nothing more of the market.
    Gone {
        /// The market.
        market: MarketId,
    },
}

/// Which markets of an event a stop suspends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopScope {
    /// All.
    Event,
    /// Those of these types.
    Types(Vec<Arc<str>>),
    /// These.
    Markets(Vec<MarketId>),
}
