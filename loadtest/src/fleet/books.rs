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

    /// How many clients hold a market: those that follow it and were not told that it is gone.
    pub fn holders(&mut self, market: &MarketId) -> usize {
        let place = self.judge.place(market);
        let holds = |client: &&super::Client| client.stands().any(|(is, _)| is == place);
        self.clients.iter().filter(holds).count()
    }
}
