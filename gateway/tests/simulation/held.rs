//! What a simulated client asks for, and what it holds for that.

use tictac_proto::client::ClientMarket;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, Scope};

/// A market and view as a client holds it.
pub struct Held {
    pub market: ClientMarket,
    /// Whether the gateway's digest counts it.
    pub counted: bool,
    /// Whether this connection answered for it.
    pub subscribed: bool,
    pub asked: Option<i64>,
    pub stop_heard: Position,
    pub resumed: bool,
    /// Where the gateway has brought this client: its own position, unless it came from a gateway that was ahead.
    pub sent: Option<Position>,
}

impl Held {
    pub fn new(market: &MarketId, view: View) -> Self {
        Self {
            market: ClientMarket::new(market.clone(), view),
            counted: false,
            subscribed: false,
            asked: None,
            stop_heard: Position::ZERO,
            resumed: false,
            sent: None,
        }
    }
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Wish {
    pub scope: Scope,
    pub view: View,
    pub conflate: Conflate,
}
