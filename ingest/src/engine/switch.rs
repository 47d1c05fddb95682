//! The operator's switch over the books. A market that is held is suspended, whatever its source says; what the source
//! says of its status meanwhile is kept, and counts when it is released.

use std::collections::BTreeMap;

use tictac_proto::model::{Book, Delta, MarketField, MarketId, MarketStatus, Value};
use tictac_proto::wire::Times;

use super::{Engine, UNCONFIRMED};
use crate::operator::{Act, Action, Ledger, Scope};

/// The reason that a market carries which an operator suspended.
pub const OPERATOR: &str = "operator";

/// What a held market's source says of it. Nothing where it was restored as held, so that nobody here knows.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    status: Option<Value>,
    reason: Option<Value>,
}

impl Own {
    fn is_open(&self) -> bool {
        self.status.as_ref().and_then(Value::int) == Some(MarketStatus::Open.code())
    }
}

impl Engine {
    /// What is held.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes in what is stored of the operator's acts: holds and releases by it. What is to be stored.
    pub fn handle_ledger(&mut self, stored: &Ledger, now: i64) -> Vec<Act> {
        let (news, missing) = self.ledger.merge(stored, now);
        for act in &news {
            tracing::info!(action = ?act.action, scope = act.scope, by = act.by, why = act.why, "operator");
        }
        if !news.is_empty() {
            self.apply_ledger(now);
        }
        missing
    }

    fn apply_ledger(&mut self, now: i64) {
        let times = Times { source: now, received: now, ..Times::default() };
        let (mut holds, mut releases) = (Vec::new(), Vec::new());
        for (market, meta) in &self.markets {
            match (meta.own.is_some(), self.ledger.holds(&meta.source, &meta.event, market)) {
                (false, true) => holds.push(market.clone()),
                (true, false) => releases.push(market.clone()),
                _ => {}
            }
        }
        self.hold(&holds, times, now);
        releases.iter().for_each(|market| self.release(market, times, now));
    }

    /// Holds markets that are not held yet.
    fn hold(&mut self, markets: &[MarketId], times: Times, now: i64) {
        let mut open: BTreeMap<u16, Vec<MarketId>> = BTreeMap::new();
        for market in markets {
            let own = self.book(market).map(|book| Own {
                status: book.fields.get(MarketField::Status).cloned(),
                reason: book.fields.get(MarketField::Reason).cloned(),
            });
            let is_open = self.book(market).is_some_and(|book| book.status() == MarketStatus::Open);
            let Some(meta) = self.markets.get_mut(market) else { continue };
            meta.own = own;
            if is_open {
                open.entry(meta.shard).or_default().push(market.clone());
            }
        }
        for markets in open.values() {
            self.suspend(markets, Some(OPERATOR.into()), times, now);
        }
    }

    /// Lets a market be what its source says.
    fn release(&mut self, market: &MarketId, times: Times, now: i64) {
        let Some(meta) = self.markets.get_mut(market) else { return };
        let (own, source, shard, unconfirmed) =
            (meta.own.take(), meta.source.clone(), meta.shard, meta.unconfirmed);
        let over = self.book(market).is_none_or(|book| book.status().is_terminal());
        if over || unconfirmed {
            return;
        }
        let Some(Own { status: Some(status), reason }) = own else {
            return self.want(market, times, now);
        };
        let mut delta = Delta::default();
        delta.set(MarketField::Status, Some(status));
        delta.set(MarketField::Reason, reason);
        let entry = self.shard_mut(shard).sequencer.change(&source, market, delta, true, times);
        self.push(shard, market, entry.unwrap_or_default(), times);
    }

    /// Suspends what is in a scope until its source has imaged it.
    pub fn handle_image_wish(&mut self, scope: &Scope, now: i64) {
        let times = Times { source: now, received: now, ..Times::default() };
        let here = |m: &(&MarketId, &super::Meta)| scope.covers(&m.1.source, &m.1.event, m.0);
        let markets: Vec<MarketId> = self.markets.iter().filter(here).map(|m| m.0.clone()).collect();
        markets.iter().for_each(|market| self.want(market, times, now));
    }

    pub(super) fn want(&mut self, market: &MarketId, times: Times, now: i64) {
        let over = self.book(market).is_none_or(|book| book.status().is_terminal());
        let Some(meta) = self.markets.get_mut(market).filter(|_| !over) else { return };
        meta.unconfirmed = true;
        let source = meta.source.clone();
        if let Some(tracker) = self.sources.get_mut(&source) {
            tracker.want(market.clone());
        }
        if self.book(market).is_some_and(|book| book.status() == MarketStatus::Open) {
            self.suspend(std::slice::from_ref(market), Some(UNCONFIRMED.into()), times, now);
        }
    }

    /// A market's image, as it is to be published. What its source says of it is kept where it is held.
    pub(super) fn hold_image(
        &mut self,
        source: &str,
        event: &str,
        market: &str,
        book: &mut Book,
    ) -> Option<Own> {
        if self.ledger.is_empty() || !self.ledger.holds(source, event, market) {
            return None;
        }
        let own = Own {
            status: Some(Value::Int(book.status().code())),
            reason: book.fields.get(MarketField::Reason).cloned(),
        };
        if book.status() == MarketStatus::Open {
            book.set(MarketField::Status, MarketStatus::Suspended.code());
            book.set(MarketField::Reason, OPERATOR);
        }
        Some(own)
    }

    /// The same of a change. What its source says of it is to be kept once the change is accepted: one that is refused
    /// says nothing.
    pub(super) fn hold_change(&self, market: &MarketId, delta: &mut Delta) -> Option<Own> {
        let mut own = self.markets.get(market)?.own.clone()?;
        let (reason, status) = (delta.get(MarketField::Reason), delta.get(MarketField::Status));
        if reason.is_none() && status.is_none() {
            return None;
        }
        if let Some(reason) = reason {
            own.reason = reason.cloned();
        }
        if let Some(status) = status {
            own.status = status.cloned().or(Some(Value::Int(MarketStatus::Suspended.code())));
        }
        let (status, reason) = if own.is_open() {
            (Some(Value::Int(MarketStatus::Suspended.code())), Some(Value::from(OPERATOR)))
        } else {
            (own.status.clone(), own.reason.clone())
        };
        if delta.get(MarketField::Status).is_some() {
            delta.set(MarketField::Status, status);
        }
        delta.set(MarketField::Reason, reason);
        Some(own)
    }

    /// Keeps what the source of a held market says of it.
    pub(super) fn keep_own(&mut self, market: &MarketId, own: Option<Own>) {
        if let (Some(meta), Some(own)) = (self.markets.get_mut(market), own) {
            meta.own = Some(own);
        }
    }

    /// A market's event changed: it may be held by that now, or not any more.
    pub(super) fn hold_again(&mut self, market: &MarketId, times: Times) {
        let Some(meta) = self.markets.get(market) else { return };
        match (meta.own.is_some(), self.ledger.holds(&meta.source, &meta.event, market)) {
            (false, true) => self.hold(std::slice::from_ref(market), times, times.received),
            (true, false) => self.release(market, times, times.received),
            _ => {}
        }
    }

    /// The same of a stop.
    pub(super) fn hold_stop(&mut self, markets: &[MarketId], reason: Option<&str>) {
        for market in markets {
            let own = self.markets.get_mut(market).and_then(|meta| meta.own.as_mut());
            // As of any market: one that is not open stays what it is.
            if let Some(own) = own.filter(|own| own.is_open()) {
                own.status = Some(Value::Int(MarketStatus::Suspended.code()));
                own.reason = reason.map(Value::from);
            }
        }
    }

    /// What was restored may be held, and is not known then.
    pub(super) fn hold_restored(&mut self, market: &MarketId) {
        let Some(meta) = self.markets.get_mut(market) else { return };
        if self.ledger.holds(&meta.source, &meta.event, market) {
            meta.own = Some(Own::default());
        }
    }
}

impl Act {
    /// Whether it changes what is held.
    #[must_use]
    pub fn is_of_ledger(&self) -> bool {
        self.action != Action::Image
    }
}
