//! The books that the judge keeps, to look at.

use tictac_proto::model::{Book, MarketId};
use tictac_proto::position::Position;

use super::Fleet;

impl Fleet {
    /// The newest book of a market that any of the clients was brought to, and where it stands; `None` before the first.
    pub fn book(&mut self, market: &MarketId) -> Option<(Position, &Book)> {
        let place = self.judge.place(market);
        self.judge.newest(place)
    }
}
