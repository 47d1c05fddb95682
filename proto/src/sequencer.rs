//! The sequencer: ingest's half of the core. It owns the books of one shard, turns what sources say into numbered
//! log entries, marks what makes something untradable as a stop, and drops what changes nothing.
//!
//! It has no idea whether an entry was written: when the log refuses one, the owner takes the shard over again with
//! [`Sequencer::take_over`], which images every book in a new epoch.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::checksum::checksum;
use crate::limits::{MAX_LEVELS, MAX_MARKETS_PER_SHARD, MAX_SELECTIONS};
use crate::log::{Entry, Stored, StoredRef, What, stop_delta};
use crate::model::{
    Book, Delta, MarketField, MarketId, MarketStatus, SelectionField, SelectionStatus, Side, Value, View,
};
use crate::position::Position;
use crate::wire::Times;

/// How often an entry of a market carries the checksum of its whole book.
pub const CHECKSUM_EVERY: u32 = 32;

/// Why an update was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing defined the market.
    #[error("market {0:?} is unknown here: send its image first")]
    UnknownMarket(MarketId),
    /// Another source owns the market.
    #[error("market {market:?} belongs to source {owner:?}, so {source_name:?} may not change it")]
    ForeignMarket {
        /// The market.
        market: MarketId,
        /// Who owns it.
        owner: Arc<str>,
        /// Who tried.
        source_name: Arc<str>,
    },
    /// A terminal status would be taken back.
    #[error("market {market:?} is {status}, which only an explicit rollback takes back")]
    Terminal {
        /// The market.
        market: MarketId,
        /// Its status.
        status: &'static str,
    },
    /// A bound of [`crate::limits`].
    #[error("market {market:?} would have {count} {what}, {limit} are allowed")]
    TooMany {
        /// The market.
        market: MarketId,
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        limit: usize,
    },
}

#[derive(Debug)]
struct Owned {
    book: Book,
    at: Position,
    stop: Position,
    source: Arc<str>,
    since_checksum: u32,
}

/// One shard's books and its counter.
#[derive(Debug, Default)]
pub struct Sequencer {
    epoch: u64,
    n: u64,
    markets: HashMap<MarketId, Owned, RandomState>,
    absent_deletes: u64,
}

impl Sequencer {
    /// A sequencer without books, before its first epoch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the shard stands.
    #[must_use]
    pub fn head(&self) -> Position {
        Position::new(self.epoch, self.n)
    }

    /// Deletes of levels that were not there, so far: harmless, but a source that sends many is out of step.
    #[must_use]
    pub fn absent_deletes(&self) -> u64 {
        self.absent_deletes
    }

    /// The book of a market.
    #[must_use]
    pub fn book(&self, market: &str) -> Option<&Book> {
        self.markets.get(market).map(|m| &m.book)
    }

    /// Where a market stands.
    #[must_use]
    pub fn position(&self, market: &str) -> Option<Position> {
        self.markets.get(market).map(|m| m.at)
    }

    /// The last stop that named a market.
    #[must_use]
    pub fn stop_of(&self, market: &str) -> Option<Position> {
        self.markets.get(market).map(|m| m.stop)
    }

    /// Every market with its source.
    pub fn markets(&self) -> impl Iterator<Item = (&MarketId, &Arc<str>, &Book)> {
        self.markets.iter().map(|(id, m)| (id, &m.source, &m.book))
    }

    /// How many markets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.markets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.markets.is_empty()
    }

    /// Takes in what an earlier owner stored. A market that is already here is newer and stays.
    pub fn restore(&mut self, stored: Vec<Stored>) {
        for market in stored {
            let source = market.book.fields.text(MarketField::Source).unwrap_or("").into();
            self.markets.entry(market.market).or_insert_with(|| Owned {
                book: *market.book,
                at: market.at,
                stop: market.stop,
                source,
                since_checksum: 0,
            });
        }
    }

    /// Begins an epoch: every book is imaged, and the image of a market that is not open is itself a stop.
    pub fn take_over(&mut self, epoch: u64, n: u64, times: Times) -> Vec<Entry> {
        self.epoch = epoch;
        self.n = n;
        let mut ids: Vec<MarketId> = self.markets.keys().cloned().collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| self.image_entry(id, times)).collect()
    }

    /// A market's whole truth. Without a change of scale it is diffed like any update.
    ///
    /// # Errors
    /// If the market is another source's, terminal, or beyond a limit.
    pub fn image(
        &mut self,
        source: &Arc<str>,
        market: &MarketId,
        mut book: Book,
        times: Times,
    ) -> Result<Option<Entry>, Refused> {
        self.check_size(market, &book)?;
        book.fields.set(MarketField::Source, Some(Value::Text(source.clone())), 0);
        let Some(held) = self.markets.get(market) else {
            if self.markets.len() >= MAX_MARKETS_PER_SHARD {
                return Err(Refused::TooMany {
                    market: market.clone(),
                    what: "markets in its shard",
                    count: self.markets.len() + 1,
                    limit: MAX_MARKETS_PER_SHARD,
                });
            }
            let crossed = book.selections.values().any(|s| book.is_crossed(s));
            book.fields.set(MarketField::Suspensions, Some(Value::Int(0)), 0);
            book.fields.set(MarketField::Crossed, Some(Value::Int(i64::from(crossed))), 0);
            let owned = Owned {
                book,
                at: Position::ZERO,
                // It may have been here before: whoever holds that, and did not hear that it went, holds what is over.
                stop: Position::new(self.epoch, self.n),
                source: source.clone(),
                since_checksum: 0,
            };
            self.markets.insert(market.clone(), owned);
            return Ok(Some(self.image_entry(market.clone(), times)));
        };
        for field in [MarketField::Suspensions, MarketField::Crossed] {
            book.fields.set(field, held.book.fields.get(field).cloned(), 0);
        }
        let delta = held.book.diff(&book);
        if !delta.fields.iter().any(|(field, _)| field.is_scale()) {
            return self.change(source, market, delta, false, times);
        }
        self.check(source, market, &delta, false)?;
        let suspended = held.book.status() == MarketStatus::Open && book.status() != MarketStatus::Open;
        let count = held.book.fields.int(MarketField::Suspensions).unwrap_or(0) + i64::from(suspended);
        let crossed = book.selections.values().any(|s| book.is_crossed(s));
        book.fields.set(MarketField::Suspensions, Some(Value::Int(count)), 0);
        book.fields.set(MarketField::Crossed, Some(Value::Int(i64::from(crossed))), 0);
        if let Some(held) = self.markets.get_mut(market) {
            held.book = book;
        }
        Ok(Some(self.image_entry(market.clone(), times)))
    }

    /// A change of a market. `None` where it changes nothing, which takes no number.
    ///
    /// # Errors
    /// If the market is unknown, another source's, terminal, or the change goes beyond a limit.
    pub fn change(
        &mut self,
        source: &Arc<str>,
        market: &MarketId,
        mut delta: Delta,
        rollback: bool,
        times: Times,
    ) -> Result<Option<Entry>, Refused> {
        self.check(source, market, &delta, rollback)?;
        // These are the sequencer's own to say.
        delta.fields.retain(|(f, _)| !matches!(f, MarketField::Suspensions | MarketField::Crossed));
        let n = self.n + 1;
        let Some(owned) = self.markets.get_mut(market) else {
            return Err(Refused::UnknownMarket(market.clone()));
        };
        let stop = makes_untradable(&owned.book, &delta);
        let leaves_open = owned.book.status() == MarketStatus::Open
            && matches!(delta.get(MarketField::Status), Some(v) if v.and_then(Value::int) != Some(MarketStatus::Open.code()));
        if leaves_open {
            let count = owned.book.fields.int(MarketField::Suspensions).unwrap_or(0) + 1;
            delta.set(MarketField::Suspensions, Some(Value::Int(count)));
        }
        let Some(mut delta) = owned.book.apply_effective(delta, n, &mut self.absent_deletes) else {
            return Ok(None);
        };
        mark_crossed(&mut owned.book, &mut delta, n);
        let at = Position::new(self.epoch, n);
        self.n = n;
        owned.at = at;
        if stop {
            owned.stop = at;
        }
        owned.since_checksum += 1;
        let due = owned.since_checksum >= CHECKSUM_EVERY;
        if due {
            owned.since_checksum = 0;
        }
        let checksum = due.then(|| checksum(market, &owned.book, View::All));
        Ok(Some(Entry { at, times, what: What::Delta { market: market.clone(), delta, stop, checksum } }))
    }

    /// Suspends markets at once: one entry. Unknown ones are passed over; `None` where none is known.
    pub fn stop(&mut self, markets: &[MarketId], reason: Option<Arc<str>>, times: Times) -> Option<Entry> {
        let at = Position::new(self.epoch, self.n + 1);
        let mut named = Vec::new();
        for market in markets {
            let Some(owned) = self.markets.get_mut(market) else { continue };
            let delta = stop_delta(&owned.book, reason.as_ref());
            if !delta.is_empty() {
                owned.book.apply(&delta, at.seq);
                owned.at = at;
            }
            owned.stop = at;
            named.push(market.clone());
        }
        if named.is_empty() {
            return None;
        }
        self.n = at.seq;
        Some(Entry { at, times, what: What::Stop { markets: named, reason } })
    }

    /// Forgets a market.
    pub fn gone(&mut self, market: &MarketId, times: Times) -> Option<Entry> {
        self.markets.remove(market)?;
        Some(self.gone_unseen(market, times))
    }

    /// Says that a market which the log may still have is gone, though nothing is known of it here.
    pub fn gone_unseen(&mut self, market: &MarketId, times: Times) -> Entry {
        self.n += 1;
        let at = Position::new(self.epoch, self.n);
        Entry { at, times, what: What::Gone { market: market.clone() } }
    }

    /// An entry that says nothing. It gives a number to a write without any other entry, so that a log which lost it is found out.
    pub fn nothing(&mut self, times: Times) -> Entry {
        self.n += 1;
        let at = Position::new(self.epoch, self.n);
        Entry { at, times, what: What::Stop { markets: Vec::new(), reason: None } }
    }

    /// A market as it is to be stored.
    #[must_use]
    pub fn stored(&self, market: &str) -> Option<Vec<u8>> {
        let (id, owned) = self.markets.get_key_value(market)?;
        let stored = StoredRef {
            market: id,
            at: owned.at,
            stop: owned.stop,
            book: &owned.book,
            checksum: checksum(id, &owned.book, View::All),
        };
        Some(crate::wire::Codec::Msgpack.encode(stored))
    }

    fn image_entry(&mut self, market: MarketId, times: Times) -> Entry {
        self.n += 1;
        let at = Position::new(self.epoch, self.n);
        let owned = self.markets.get_mut(&market).expect("callers name a market that is here");
        owned.book.restamp(at.seq);
        owned.at = at;
        if owned.book.status() != MarketStatus::Open {
            owned.stop = at;
        }
        owned.since_checksum = 0;
        let what = What::Image {
            checksum: checksum(&market, &owned.book, View::All),
            book: Box::new(owned.book.clone()),
            stop: owned.stop,
            market,
        };
        Entry { at, times, what }
    }

    fn check(
        &self,
        source: &Arc<str>,
        market: &MarketId,
        delta: &Delta,
        rollback: bool,
    ) -> Result<(), Refused> {
        let Some(held) = self.markets.get(market) else {
            return Err(Refused::UnknownMarket(market.clone()));
        };
        if held.source != *source {
            return Err(Refused::ForeignMarket {
                market: market.clone(),
                owner: held.source.clone(),
                source_name: source.clone(),
            });
        }
        let status = held.book.status();
        if status.is_terminal() && !rollback {
            let next = delta
                .get(MarketField::Status)
                .map(|v| v.and_then(Value::int).and_then(MarketStatus::from_code));
            if matches!(next, Some(next) if !next.is_some_and(MarketStatus::is_terminal)) {
                return Err(Refused::Terminal { market: market.clone(), status: status.name() });
            }
        }
        let joining = delta.selections.iter().filter(|s| !held.book.selections.contains_key(&s.0)).count();
        let count = held.book.selections.len() + joining;
        if joining > 0 && count > MAX_SELECTIONS {
            return Err(Refused::TooMany {
                market: market.clone(),
                what: "selections",
                count,
                limit: MAX_SELECTIONS,
            });
        }
        for (key, change) in &delta.selections {
            for side in Side::ALL {
                let new = change.ladder(side).levels.len();
                let old = held.book.selections.get(key).map_or(0, |s| s.ladder(side).len());
                if new + old > MAX_LEVELS {
                    let what = "levels on a side";
                    return Err(Refused::TooMany {
                        market: market.clone(),
                        what,
                        count: new + old,
                        limit: MAX_LEVELS,
                    });
                }
            }
        }
        Ok(())
    }

    fn check_size(&self, market: &MarketId, book: &Book) -> Result<(), Refused> {
        let count = book.selections.len();
        if count > MAX_SELECTIONS {
            return Err(Refused::TooMany {
                market: market.clone(),
                what: "selections",
                count,
                limit: MAX_SELECTIONS,
            });
        }
        Ok(())
    }
}

/// Whether a change makes something untradable, or changes under what terms a bet would be taken.
fn makes_untradable(book: &Book, delta: &Delta) -> bool {
    let market = delta.fields.iter().any(|(field, value)| match field {
        MarketField::Status => {
            let next = value.as_ref().and_then(Value::int);
            next != Some(MarketStatus::Open.code()) && book.fields.int(MarketField::Status) != next
        }
        MarketField::InPlay | MarketField::BetDelay => book.fields.get(*field) != value.as_ref(),
        _ => false,
    });
    market
        || delta.removed.iter().any(|key| book.selections.contains_key(key))
        || delta.selections.iter().any(|(key, change)| {
            let next = change.fields.iter().find(|(f, _)| *f == SelectionField::Status);
            let (Some((_, next)), Some(held)) = (next, book.selections.get(key)) else { return false };
            let next = next.as_ref().and_then(Value::int).unwrap_or(SelectionStatus::Active.code());
            held.status() == SelectionStatus::Active && next != SelectionStatus::Active.code()
        })
}

/// Keeps the crossed flag: only what was touched can start to cross, and only if it was set need the rest be looked at.
fn mark_crossed(book: &mut Book, delta: &mut Delta, stamp: u64) {
    let was = book.fields.int(MarketField::Crossed) == Some(1);
    let touched = delta.selections.iter().any(|(key, change)| {
        let ladders = !change.ladder(Side::Back).is_empty() || !change.ladder(Side::Lay).is_empty();
        ladders && book.selections.get(key).is_some_and(|s| book.is_crossed(s))
    });
    let is = touched || (was && book.selections.values().any(|s| book.is_crossed(s)));
    if is != was {
        let value = Some(Value::Int(i64::from(is)));
        book.fields.set(MarketField::Crossed, value.clone(), stamp);
        delta.set(MarketField::Crossed, value);
    }
}
