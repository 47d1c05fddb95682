//! What really happened, position by position, as far as the log took it in: the judge of what clients show.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;

/// A broken invariant.
#[derive(Debug, Clone)]
pub struct Violation {
    pub oracle: &'static str,
    pub what: String,
}

impl Violation {
    pub fn new(oracle: &'static str, what: impl Into<String>) -> Self {
        Self { oracle, what: what.into() }
    }
}

/// What the log took in.
#[derive(Debug, Default)]
pub struct History {
    /// Markets that there are, which a client can ask a gateway at any time.
    pub listed: BTreeSet<MarketId>,
    /// Whether a market was really open, from each of its positions on.
    open: BTreeMap<MarketId, BTreeMap<Position, bool>>,
    stops: BTreeMap<MarketId, BTreeSet<Position>>,
    /// Where a terminal status may have been taken back.
    reopened: BTreeMap<MarketId, BTreeSet<Position>>,
    checksums: HashMap<(MarketId, View, Position), u32>,
}

impl History {
    pub fn moved(&mut self, market: &MarketId, at: Position, open: bool) {
        self.open.entry(market.clone()).or_default().insert(at, open);
    }

    /// A market that an ingest had only read from the log turns out to be open. Whatever made it untradable on the way
    /// would have been a stop, so it was open since the last one.
    pub fn confirmed(&mut self, market: &MarketId) {
        let last = Position::new(u64::MAX, u64::MAX);
        let stop = self.stop_at(market, last);
        let Some(open) = self.open.get_mut(market) else { return };
        // The stop itself may leave it open (play begins), and where it did not the book says so.
        for (_, open) in open.range_mut(stop..) {
            *open = true;
        }
    }

    pub fn stopped(&mut self, market: &MarketId, at: Position) {
        self.stops.entry(market.clone()).or_default().insert(at);
    }

    pub fn may_reopen(&mut self, market: &MarketId, at: Position) {
        self.reopened.entry(market.clone()).or_default().insert(at);
    }

    /// Whether a market was really open as of a position.
    pub fn was_open(&self, market: &str, at: Position) -> bool {
        let seen = self.open.get(market).and_then(|m| m.range(..=at).next_back());
        seen.is_some_and(|(_, open)| *open)
    }

    /// The last stop of a market at or below a position.
    pub fn stop_at(&self, market: &str, at: Position) -> Position {
        let stops = self.stops.get(market).and_then(|s| s.range(..=at).next_back());
        stops.copied().unwrap_or(Position::ZERO)
    }

    /// Whether a terminal status may have been taken back above one position, at or below the other.
    pub fn reopened_within(&self, market: &str, after: Position, to: Position) -> bool {
        after < to
            && self.reopened.get(market).is_some_and(|r| {
                r.range((std::ops::Bound::Excluded(after), std::ops::Bound::Included(to))).next().is_some()
            })
    }

    /// Every client that stands at one position with one view sees the same.
    pub fn agree(&mut self, market: &MarketId, view: View, at: Position, sum: u32) -> Result<(), Violation> {
        let before = *self.checksums.entry((market.clone(), view, at)).or_insert(sum);
        if before == sum {
            return Ok(());
        }
        let what = format!("{market} view {} at {at}: checksums {before:08x} and {sum:08x}", view.code());
        Err(Violation::new("7: equal at equal position", what))
    }
}
