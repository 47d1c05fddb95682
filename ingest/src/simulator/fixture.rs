//! What all sports share: an event with its markets, which are stopped, opened, closed and forgotten together.

use std::sync::Arc;

use tictac_proto::model::{MarketField, MarketStatus, Value};

use super::chance::Chance;
use super::market::{Market, MarketPlan};
use super::names::Names;
use crate::update::{StopScope, Update};

/// Ids, which never come back.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    pub(super) prefix: Arc<str>,
    pub(super) source: Arc<str>,
    pub(super) next_event: u64,
    pub(super) next_market: u64,
    pub(super) next_selection: i64,
    pub(super) linger_ms: i64,
    pub(super) names: Names,
}

impl Ids {
    /// The next selection id.
    pub(super) fn selection(&mut self) -> i64 {
        self.next_selection += 1;
        self.next_selection
    }
}

/// An event and its markets.
#[derive(Debug, Clone)]
pub(super) struct Fixture {
    pub(super) event: Arc<str>,
    pub(super) markets: Vec<Market>,
    /// Fields that all its markets share.
    common: Vec<(MarketField, Value)>,
    /// When suspended markets open again; `None` while nothing waits for that.
    resume_at: Option<i64>,
    linger_ms: i64,
}

impl Fixture {
    pub(super) fn new(
        ids: &mut Ids,
        name: &str,
        sport: &str,
        competition: &str,
        venue: Option<&str>,
        start: i64,
    ) -> Self {
        ids.next_event += 1;
        let event: Arc<str> = format!("{}-e{}", ids.prefix, ids.next_event).into();
        let mut common = vec![
            (MarketField::Event, Value::Text(Arc::clone(&event))),
            (MarketField::EventName, name.into()),
            (MarketField::Sport, sport.into()),
            (MarketField::Competition, competition.into()),
            (MarketField::Start, start.into()),
            (MarketField::Source, Value::Text(Arc::clone(&ids.source))),
            (MarketField::InPlay, 0.into()),
            (MarketField::BetDelay, 0.into()),
        ];
        if let Some(venue) = venue {
            common.push((MarketField::Venue, venue.into()));
        }
        Self { event, markets: Vec::new(), common, resume_at: None, linger_ms: ids.linger_ms }
    }

    /// Adds a market, priced and with some past.
    pub(super) fn offer(&mut self, ids: &mut Ids, plan: MarketPlan, chance: &mut Chance) -> &mut Market {
        ids.next_market += 1;
        let id = format!("{}-{}", ids.prefix, ids.next_market).into();
        let mut market = Market::new(id, plan, &self.common);
        market.price_all(chance);
        market.trade_history(chance);
        let index = self.markets.len();
        self.markets.push(market);
        &mut self.markets[index]
    }

    /// Sets a field on every live market, and on those that are offered later.
    pub(super) fn set_all(&mut self, field: MarketField, value: impl Into<Value>) {
        let value = value.into();
        self.common.retain(|c| c.0 != field);
        self.common.push((field, value.clone()));
        for market in self.markets.iter_mut().filter(|m| m.is_live()) {
            market.set(field, value.clone());
        }
    }

    /// Stops markets at once and clears them; what is suspended by then opens again at `until`.
    pub(super) fn stop(&mut self, scope: StopScope, reason: &str, until: i64, out: &mut Vec<Update>) {
        self.flush(out);
        let hit = |m: &Market| {
            m.is_live()
                && match &scope {
                    StopScope::Event => true,
                    StopScope::Types(types) => types.iter().any(|t| m.type_is(t)),
                    StopScope::Markets(ids) => ids.contains(&m.id),
                }
        };
        for market in self.markets.iter_mut().filter(|m| hit(m)) {
            market.suspend(reason);
        }
        out.push(Update::Stop { event: Arc::clone(&self.event), scope, reason: Some(reason.into()) });
        self.resume_at = Some(self.resume_at.map_or(until, |r| r.max(until)));
        self.flush(out);
    }

    /// Whether markets wait to be opened again.
    pub(super) fn is_stopped(&self) -> bool {
        self.resume_at.is_some()
    }

    /// Opens what is suspended when its time has come.
    pub(super) fn resume(&mut self, now: i64, chance: &mut Chance) {
        if self.resume_at.is_some_and(|at| now >= at) {
            self.resume_at = None;
            for market in &mut self.markets {
                if market.truth.status() == MarketStatus::Suspended {
                    market.price_all(chance);
                    market.clear(MarketField::Reason);
                    market.set(MarketField::Status, MarketStatus::Open.code());
                    market.next_version();
                }
            }
        }
    }

    /// Closes every live market that `which` names; `won` says of a market and a selection's index whether it won.
    pub(super) fn close(
        &mut self,
        now: i64,
        which: impl Fn(&Market) -> bool,
        won: impl Fn(&Market, usize) -> bool,
    ) {
        for market in &mut self.markets {
            if market.is_live() && which(market) {
                let winners: Vec<bool> = (0..market.quotes.len()).map(|i| won(market, i)).collect();
                market.close(now + self.linger_ms, |i| winners[i]);
            }
        }
    }

    /// Forgets terminal markets whose time has come.
    pub(super) fn expire(&mut self, now: i64, out: &mut Vec<Update>) {
        self.markets.retain(|market| {
            let over = market.gone_at.is_some_and(|at| now >= at);
            if over {
                out.push(Update::Gone { market: Arc::clone(&market.id) });
            }
            !over
        });
    }

    /// Says what is pending.
    pub(super) fn flush(&mut self, out: &mut Vec<Update>) {
        for market in &mut self.markets {
            market.flush(out);
        }
    }
}
