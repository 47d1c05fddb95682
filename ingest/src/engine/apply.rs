//! Updates → sequencers. Routes each market to its event's shard, moves it when its event changes, keeps the catalogue
//! in step, and answers what is refused with a problem.

use std::sync::Arc;

use tictac_proto::limits::MAX_MARKETS_PER_SHARD;
use tictac_proto::log::{Entry, What, shard_of};
use tictac_proto::model::{Book, Delta, MarketField, MarketId, MarketStatus, Value};
use tictac_proto::sequencer::Refused;
use tictac_proto::wire::Times;

use super::catalogue::{Touch, project, step, touch};
use super::waiting::Awaited;
use super::{Engine, Meta};
use crate::problem::{Problem, ProblemKind};
use crate::update::{StopScope, Update};

impl Engine {
    /// Takes in what a source says. `times.received` is now.
    pub fn handle_updates(
        &mut self,
        source: &Arc<str>,
        updates: impl IntoIterator<Item = Update>,
        times: Times,
    ) {
        let now = times.received;
        for update in updates {
            self.counters.updates += 1;
            let done = match update {
                Update::Image { market, book } => self.image(source, &market, *book, false, times),
                Update::Change { market, delta, rollback } => {
                    self.change(source, &market, delta, rollback, times)
                }
                Update::Stop { event, scope, reason } => {
                    self.stop(source, &event, &scope, reason, times);
                    Ok(())
                }
                Update::Gone { market } => self.source_gone(source, &market, times),
            };
            if let Err(refused) = done {
                self.problem(source, problem_of(&refused), now);
            }
        }
    }

    fn image(
        &mut self,
        source: &Arc<str>,
        market: &MarketId,
        mut book: Book,
        rollback: bool,
        times: Times,
    ) -> Result<(), Refused> {
        let event: Arc<str> = match book.fields.text(MarketField::Event) {
            Some(event) => event.into(),
            None => {
                book.set(MarketField::Event, &**market);
                market.clone()
            }
        };
        let home = shard_of(&event, self.settings.shards);
        let own = self.hold_image(source, &event, market, &mut book);
        match self.markets.get(market) {
            None => {
                self.check_room(market)?;
                let entry = self.shard_mut(home).sequencer.image(source, market, book, times)?;
                self.adopt(market, source, event, home, times.received);
                self.push(home, market, entry, times);
            }
            Some(meta) if meta.shard != home => {
                self.check_owner(source, market)?;
                self.check_terminal(market, &book, rollback)?;
                self.relocate(source, market, event, home, book, times)?;
            }
            Some(_) => {
                let entry = self.shard_mut(home).sequencer.image(source, market, book, times)?;
                self.push(home, market, entry, times);
                self.rehome(market, event, home);
            }
        }
        if let Some(meta) = self.markets.get_mut(market) {
            meta.unconfirmed = false;
            meta.partial = false;
            meta.own = own;
        }
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.trust(market);
        }
        Ok(())
    }

    fn change(
        &mut self,
        source: &Arc<str>,
        market: &MarketId,
        mut delta: Delta,
        rollback: bool,
        times: Times,
    ) -> Result<(), Refused> {
        let Some(meta) = self.markets.get(market) else {
            // A market's first word may be a change, if it defines the market.
            if delta.get(MarketField::Kind).is_none() {
                return Err(Refused::UnknownMarket(market.clone()));
            }
            let mut book = Book::default();
            book.apply(&delta, 0);
            self.image(source, market, book, rollback, times)?;
            let owned = self.markets.get(market).is_some_and(|m| self.owns(m.shard));
            if let Some(meta) = self.markets.get_mut(market) {
                meta.partial = !owned;
            }
            return Ok(());
        };
        if meta.source != *source {
            return self.check_owner(source, market);
        }
        let shard = meta.shard;
        if meta.unconfirmed {
            // Only an image makes it whole again; until then it stays suspended.
            let open = Some(MarketStatus::Open.code());
            delta.fields.retain(|(f, v)| {
                *f != MarketField::Reason
                    && (*f != MarketField::Status || v.as_ref().and_then(Value::int) != open)
            });
        }
        let own = self.hold_change(market, &mut delta);
        // What a stop may name.
        let stands = [MarketField::Event, MarketField::Type].iter().any(|f| delta.get(*f).is_some());
        // Without an event a market is one of its own.
        if delta.get(MarketField::Event) == Some(None) {
            delta.set(MarketField::Event, Some(Value::Text(market.clone())));
        }
        let event: Option<Arc<str>> =
            delta.get(MarketField::Event).flatten().and_then(Value::text).map(Arc::from);
        if let Some(event) = &event {
            let home = shard_of(event, self.settings.shards);
            if home != shard {
                let Some(mut book) = self.book(market).cloned() else { return Ok(()) };
                book.apply(&delta, 0);
                self.check_terminal(market, &book, rollback)?;
                self.relocate(source, market, event.clone(), home, book, times)?;
                self.keep_own(market, own);
                self.hold_again(market, times);
                self.doubt_stops(source, market, times);
                return Ok(());
            }
        }
        // A change of scale by a change is a change of everything that is measured by it.
        let held = self.book(market);
        let scale = delta
            .fields
            .iter()
            .any(|(f, v)| f.is_scale() && held.is_some_and(|b| b.fields.get(*f) != v.as_ref()));
        let entry = if let Some(held) = held.filter(|_| scale) {
            let mut book = held.clone();
            book.apply(&delta, 0);
            self.shard_mut(shard).sequencer.image(source, market, book, times)?
        } else {
            self.shard_mut(shard).sequencer.change(source, market, delta, rollback, times)?
        };
        self.push(shard, market, entry, times);
        self.keep_own(market, own);
        if let Some(event) = event {
            self.rehome(market, event, shard);
            self.hold_again(market, times);
        }
        if stands {
            self.doubt_stops(source, market, times);
        }
        Ok(())
    }

    fn stop(
        &mut self,
        source: &Arc<str>,
        event: &str,
        scope: &StopScope,
        reason: Option<Arc<str>>,
        times: Times,
    ) {
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.note_stop();
        }
        let Some(markets) = self.events.get(event) else { return };
        let named = |id: &&MarketId| {
            let mine = self.markets.get(*id).is_some_and(|m| m.source == *source);
            mine && match scope {
                StopScope::Event => true,
                StopScope::Types(types) => {
                    let kind = self.book(id).and_then(|b| b.fields.text(MarketField::Type));
                    // One whose type is not known may be meant.
                    kind.is_none_or(|kind| types.iter().any(|t| **t == *kind))
                }
                StopScope::Markets(markets) => markets.contains(id),
            }
        };
        let markets: Vec<MarketId> = markets.iter().filter(named).cloned().collect();
        self.hold_stop(&markets, reason.as_deref());
        self.suspend(&markets, reason, times, times.received);
    }

    /// Suspends markets of one shard by one entry.
    pub(super) fn suspend(&mut self, markets: &[MarketId], reason: Option<Arc<str>>, times: Times, now: i64) {
        let Some(shard) = markets.first().and_then(|m| self.markets.get(m)).map(|m| m.shard) else { return };
        let mine = self.shard_mut(shard);
        if let Some(entry) = mine.sequencer.stop(markets, reason, times) {
            mine.push(entry, now);
            markets.iter().for_each(|m| self.list(m, times, now));
        }
    }

    fn source_gone(&mut self, source: &Arc<str>, market: &MarketId, times: Times) -> Result<(), Refused> {
        if !self.markets.contains_key(market) {
            return Err(Refused::UnknownMarket(market.clone()));
        }
        self.check_owner(source, market)?;
        self.remove(market, times, times.received);
        Ok(())
    }

    /// Forgets a market everywhere.
    pub(super) fn remove(&mut self, market: &MarketId, times: Times, now: i64) {
        let Some(meta) = self.markets.remove(market) else { return };
        if let Some(event) = self.events.get_mut(&meta.event) {
            event.remove(market);
            if event.is_empty() {
                self.events.remove(&meta.event);
            }
        }
        let shard = self.shard_mut(meta.shard);
        if let Some(entry) = shard.sequencer.gone(market, times) {
            shard.push(entry, now);
        }
        self.unlist(market, times, now);
        if let Some(tracker) = self.sources.get_mut(&meta.source) {
            tracker.trust(market);
        }
        self.forgotten.push((meta.source, market.clone()));
    }

    /// A market goes to another shard: gone there, then imaged here.
    fn relocate(
        &mut self,
        source: &Arc<str>,
        market: &MarketId,
        event: Arc<str>,
        home: u16,
        book: Book,
        times: Times,
    ) -> Result<(), Refused> {
        let from = self.markets.get(market).map_or(home, |m| m.shard);
        // First what can be refused.
        let entry = self.shard_mut(home).sequencer.image(source, market, book, times)?;
        let awaited = entry.as_ref().map(|entry| Awaited { shard: home, at: entry.at });
        let old = self.shard_mut(from);
        if let Some(gone) = old.sequencer.gone(market, times) {
            old.push(gone, times.received);
            awaited.into_iter().for_each(|awaited| old.moved(awaited));
        }
        self.rehome(market, event, home);
        self.push(home, market, entry, times);
        Ok(())
    }

    /// Notes where a market is.
    pub(super) fn rehome(&mut self, market: &MarketId, event: Arc<str>, shard: u16) {
        let Some(meta) = self.markets.get_mut(market) else { return };
        meta.shard = shard;
        if meta.event == event {
            return;
        }
        let old = std::mem::replace(&mut meta.event, event.clone());
        if let Some(markets) = self.events.get_mut(&old) {
            markets.remove(market);
            if markets.is_empty() {
                self.events.remove(&old);
            }
        }
        self.events.entry(event).or_default().insert(market.clone());
    }

    /// Notes a new market.
    pub(super) fn adopt(
        &mut self,
        market: &MarketId,
        source: &Arc<str>,
        event: Arc<str>,
        shard: u16,
        now: i64,
    ) {
        self.events.entry(event.clone()).or_default().insert(market.clone());
        let meta = Meta {
            source: source.clone(),
            event,
            shard,
            unconfirmed: false,
            partial: false,
            terminal_since: None,
            matched_at: now,
            matched_due: false,
            own: None,
        };
        self.markets.insert(market.clone(), meta);
    }

    /// Takes in an entry of a market's shard, and what follows from it.
    pub(super) fn push(&mut self, shard: u16, market: &MarketId, entry: Option<Entry>, times: Times) {
        let Some(entry) = entry else { return };
        let now = times.received;
        let touched = match &entry.what {
            What::Delta { delta, .. } => touch(delta),
            _ => Touch::More,
        };
        self.shard_mut(shard).push(entry, now);
        match touched {
            Touch::Nothing => {}
            Touch::Matched => self.list_matched(market, times),
            Touch::More => {
                self.list(market, times, now);
                self.note_status(market, now);
            }
        }
    }

    /// The matched volume goes to the catalogue now, or when its time has come.
    fn list_matched(&mut self, market: &MarketId, times: Times) {
        let (now, every) = (times.received, self.settings.matched_every);
        let Some(meta) = self.markets.get_mut(market) else { return };
        if now.abs_diff(meta.matched_at) >= every.unsigned_abs() {
            self.list(market, times, now);
        } else if !meta.matched_due {
            meta.matched_due = true;
            self.matched.insert((meta.matched_at + every, market.clone()));
        }
    }

    /// Brings the catalogue's book of a market in step.
    pub(super) fn list(&mut self, market: &MarketId, times: Times, now: i64) {
        let Some(meta) = self.markets.get_mut(market) else { return };
        let shard = self.shards.get(usize::from(meta.shard));
        let Some(book) = shard.and_then(|s| s.sequencer.book(market)) else { return };
        meta.matched_at = now;
        meta.matched_due = false;
        let catalogue = &mut self.catalogue;
        let entry = match catalogue.sequencer.book(market) {
            None => catalogue.sequencer.image(&meta.source, market, project(book), times),
            Some(held) => {
                let delta = step(held, book);
                if delta.is_empty() {
                    return;
                }
                if delta.fields.iter().any(|(f, _)| f.is_scale()) {
                    catalogue.sequencer.image(&meta.source, market, project(book), times)
                } else {
                    catalogue.sequencer.change(&meta.source, market, delta, true, times)
                }
            }
        };
        match entry {
            Ok(Some(entry)) => self.catalogue.push(entry, now),
            Ok(None) => {}
            Err(refused) => {
                let source = meta.source.clone();
                self.problem(&source, problem_of(&refused), now);
            }
        }
    }

    /// Takes a market out of the catalogue.
    pub(super) fn unlist(&mut self, market: &MarketId, times: Times, now: i64) {
        if let Some(entry) = self.catalogue.sequencer.gone(market, times) {
            self.catalogue.push(entry, now);
        }
    }

    /// Notes since when a market is terminal.
    pub(super) fn note_status(&mut self, market: &MarketId, now: i64) {
        let terminal = self.book(market).is_some_and(|b| b.status().is_terminal());
        let Some(meta) = self.markets.get_mut(market) else { return };
        match (terminal, meta.terminal_since) {
            (true, None) => {
                meta.terminal_since = Some(now);
                self.terminal.push_back((now, market.clone()));
                let source = meta.source.clone();
                if let Some(tracker) = self.sources.get_mut(&source) {
                    tracker.trust(market);
                }
            }
            (false, Some(_)) => meta.terminal_since = None,
            _ => {}
        }
    }

    fn check_room(&self, market: &MarketId) -> Result<(), Refused> {
        if self.markets.len() < MAX_MARKETS_PER_SHARD {
            return Ok(());
        }
        Err(Refused::TooMany {
            market: market.clone(),
            what: "markets in the catalogue",
            count: self.markets.len() + 1,
            limit: MAX_MARKETS_PER_SHARD,
        })
    }

    fn check_owner(&self, source: &Arc<str>, market: &MarketId) -> Result<(), Refused> {
        match self.markets.get(market) {
            Some(meta) if meta.source != *source => Err(Refused::ForeignMarket {
                market: market.clone(),
                owner: meta.source.clone(),
                source_name: source.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn check_terminal(&self, market: &MarketId, next: &Book, rollback: bool) -> Result<(), Refused> {
        match self.book(market).map(Book::status) {
            Some(status) if status.is_terminal() && !rollback && !next.status().is_terminal() => {
                Err(Refused::Terminal { market: market.clone(), status: status.name() })
            }
            _ => Ok(()),
        }
    }
}

fn problem_of(refused: &Refused) -> Problem {
    let (kind, market) = match refused {
        Refused::UnknownMarket(market) => (ProblemKind::UnknownMarket, market),
        Refused::ForeignMarket { market, .. } => (ProblemKind::ForeignMarket, market),
        Refused::Terminal { market, .. } => (ProblemKind::Terminal, market),
        Refused::TooMany { market, .. } => (ProblemKind::TooLarge, market),
    };
    Problem::new(kind, "market", refused.to_string(), market.as_bytes())
}
