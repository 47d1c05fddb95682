//! The client's half of the core: one market and view as a client holds it. The browser module is its twin; both run
//! `vectors/follow.json`.

use std::sync::Arc;

use crate::checksum::checksum;
use crate::guard::{Guard, on};
use crate::model::{Book, MarketField, MarketId, MarketStatus, SelectionKey, SelectionStatus, View};
use crate::position::Position;
use crate::wire::{Down, FeedState, How};

/// What a message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A delta was applied.
    Applied,
    /// It was old, or about something else.
    Dropped,
    /// Continuity is lost: ask for a snapshot. The old book stays, marked.
    Gap,
    /// A snapshot replaced the book.
    Replaced,
    /// A stop was raised.
    Stopped,
    /// The checksum agrees.
    Checked,
    /// It does not: ask for a snapshot.
    Mismatch,
    /// Nothing to do with the book.
    Noted,
}

/// One market as one view, followed by a client.
#[derive(Debug, Clone)]
pub struct ClientMarket {
    market: MarketId,
    view: View,
    held: Option<(Book, Position)>,
    stop: Position,
    gap: bool,
    /// Where the last `ok` said that a base brings this client.
    promised: Position,
    shard: Option<u16>,
    /// The source that `ok` named, for markets whose book names none.
    source: Option<Arc<str>>,
    feed: FeedState,
}

impl ClientMarket {
    /// A subscription that has heard nothing yet.
    #[must_use]
    pub fn new(market: MarketId, view: View) -> Self {
        Self {
            market,
            view,
            held: None,
            stop: Position::ZERO,
            gap: false,
            promised: Position::ZERO,
            shard: None,
            source: None,
            feed: FeedState::Live,
        }
    }

    /// The book, if one is held. While [`Self::in_gap`] it is old and must be shown so.
    #[must_use]
    pub fn book(&self) -> Option<&Book> {
        self.held.as_ref().map(|h| &h.0)
    }

    /// The position, if a book is held.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.held.as_ref().map(|h| h.1)
    }

    /// The highest stop that named the market.
    #[must_use]
    pub fn stop(&self) -> Position {
        self.stop
    }

    /// Whether continuity is lost and a snapshot awaited.
    #[must_use]
    pub fn in_gap(&self) -> bool {
        self.gap
    }

    /// The shard, once an `ok` or a `snap` said it.
    #[must_use]
    pub fn shard(&self) -> Option<u16> {
        self.shard
    }

    /// The connection ended. The book stays, to come back with; nothing is tradable until an `ok` or a `snap` of the
    /// next connection says how the feed stands and which stop was the last.
    pub fn disconnected(&mut self) {
        self.feed = FeedState::Down;
    }

    /// Comes back with a position of its shard, at or below which everything was seen: the book is the book there, too.
    pub fn seen_up_to(&mut self, shard: u16, seen: Position) {
        if let Some((_, at)) = &mut self.held
            && self.shard == Some(shard)
            && at.epoch == seen.epoch
        {
            at.seq = at.seq.max(seen.seq);
        }
    }

    /// The view.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// Checksum of what is held.
    #[must_use]
    pub fn checksum(&self) -> Option<u32> {
        self.held.as_ref().map(|(book, _)| checksum(&self.market, book, self.view))
    }

    /// Whether bets on the market can be meant, the connection's liveness aside.
    #[must_use]
    pub fn tradable_market(&self) -> bool {
        let Some((book, at)) = &self.held else { return false };
        let behind_stop = *at < self.stop && on(Guard::StopBarrier);
        let current = !self.gap && *at >= self.promised && !behind_stop;
        book.status() == MarketStatus::Open && self.feed == FeedState::Live && current
    }

    /// Whether bets on a selection can be meant, the connection's liveness aside.
    #[must_use]
    pub fn tradable(&self, key: SelectionKey) -> bool {
        let selection = self.held.as_ref().and_then(|(book, _)| book.selections.get(&key));
        self.tradable_market() && selection.is_some_and(|s| s.status() == SelectionStatus::Active)
    }

    fn raise(&mut self, stop: Position) -> bool {
        let higher = stop > self.stop;
        self.stop = self.stop.max(stop);
        higher
    }

    /// Takes a message in. Messages about other markets or views are dropped.
    pub fn handle(&mut self, message: &Down) -> Outcome {
        match message {
            Down::Snap(head, delta) if head.market == self.market && head.view == self.view => {
                self.raise(head.stop);
                if self.held.as_ref().is_some_and(|(_, at)| head.at < *at) {
                    return Outcome::Dropped;
                }
                let mut book = Book::default();
                book.apply(delta, head.at.seq);
                self.held = Some((book, head.at));
                self.gap = false;
                self.shard = Some(head.shard);
                self.feed = head.feed;
                Outcome::Replaced
            }
            Down::Delta(head, delta) if head.market == self.market && head.view == self.view => {
                let Some((book, at)) = &mut self.held else {
                    self.gap = true;
                    return Outcome::Gap;
                };
                if head.epoch < at.epoch || (head.epoch == at.epoch && head.seq <= at.seq) {
                    return Outcome::Dropped;
                }
                if self.gap || head.epoch > at.epoch || head.prev > at.seq {
                    self.gap = true;
                    return Outcome::Gap;
                }
                book.apply(delta, head.seq);
                at.seq = head.seq;
                Outcome::Applied
            }
            Down::Stop { market, at, .. } if *market == self.market => {
                if self.raise(*at) {
                    Outcome::Stopped
                } else {
                    Outcome::Dropped
                }
            }
            Down::Crc { market, view, at, checksum } if *market == self.market && *view == self.view => {
                if self.position() != Some(*at) || self.gap {
                    return Outcome::Noted;
                }
                if self.checksum() == Some(*checksum) {
                    return Outcome::Checked;
                }
                self.gap = true;
                Outcome::Mismatch
            }
            Down::Gap { market, view, .. } if *market == self.market && *view == self.view => {
                self.gap = true;
                Outcome::Gap
            }
            Down::Ok(ok) if ok.market == self.market && ok.view == self.view => {
                self.raise(ok.stop);
                self.shard = Some(ok.shard);
                self.source = Some(ok.source.clone());
                self.feed = ok.feed;
                self.promised = if ok.how == How::Exact { Position::ZERO } else { ok.at };
                Outcome::Noted
            }
            Down::Feed(news) => {
                let named = self.book().and_then(|book| book.fields.text(MarketField::Source));
                let source = named.or(self.source.as_deref());
                if self.shard == Some(news.shard) && source == Some(&*news.source) {
                    self.feed = news.state;
                }
                Outcome::Noted
            }
            Down::Gone { market, .. } if *market == self.market => {
                self.held = None;
                self.gap = false;
                Outcome::Noted
            }
            _ => Outcome::Dropped,
        }
    }
}
