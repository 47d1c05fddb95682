//! Books from what is stored of a shard: snapshots, and the log around them. What the log says of the time before a
//! snapshot is in it already; it only tells when each cell was changed last, so that clients who followed another gateway
//! are served exact deltas from as far back as the log reaches.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::follower::Follower;
use crate::log::{Entry, Stored, What, stop_delta};
use crate::model::{Delta, Market, MarketField, MarketId};
use crate::position::Position;

/// The markets of a shard as of `head`. `entries`: the log without a gap, in order.
pub(crate) fn restore(
    shard: u16,
    head: Position,
    stored: Vec<Stored>,
    entries: Vec<Entry>,
) -> HashMap<MarketId, Market, RandomState> {
    let mut markets: HashMap<MarketId, Market, RandomState> = stored
        .into_iter()
        .map(|s| (s.market.clone(), Market { id: s.market, book: *s.book, at: s.at, stop: s.stop }))
        .collect();
    // A client's position is of its book's epoch: the log serves it from that epoch's first entry on.
    let mut first: Vec<Position> = Vec::new();
    for entry in &entries {
        if first.last().is_none_or(|f| f.epoch != entry.at.epoch) {
            first.push(entry.at);
        }
    }
    for market in markets.values_mut() {
        if let Some(first) = first.iter().find(|f| f.epoch == market.at.epoch && **f <= market.at) {
            market.book.restamp(first.seq - 1);
        }
    }
    for entry in &entries {
        touch(&mut markets, entry);
    }
    // A follower of its own, so that there is one way to apply an entry.
    let mut reader = Follower::of_books(shard, markets);
    for entry in entries {
        if entry.at <= head {
            reader.apply_to_older(entry);
            while reader.take_event().is_some() {}
        }
    }
    reader.into_books()
}

/// Notes in the books that already hold an entry what it changed.
fn touch(markets: &mut HashMap<MarketId, Market, RandomState>, entry: &Entry) {
    let at = entry.at;
    let holds = |m: &&mut Market| m.at.epoch == at.epoch && m.at >= at;
    match &entry.what {
        What::Delta { market, delta, .. } => {
            if let Some(market) = markets.get_mut(market).filter(holds) {
                market.book.touch(delta, at.seq);
            }
        }
        // Before it was another book.
        What::Image { market, .. } | What::Gone { market } => {
            if let Some(market) = markets.get_mut(market).filter(holds) {
                market.book.restamp(at.seq);
            }
        }
        What::Stop { markets: named, .. } => {
            for market in named {
                if let Some(market) = markets.get_mut(market).filter(holds) {
                    market.book.touch(&stop_touches(), at.seq);
                }
            }
        }
    }
}

/// The fields that [`stop_delta`] may change.
fn stop_touches() -> Delta {
    let mut open = crate::model::Book::default();
    open.set(MarketField::Status, crate::model::MarketStatus::Open.code());
    stop_delta(&open, None)
}
