//! One simulated market: its truth, and the pen that writes a change into the truth and into the pending delta at
//! once.

use std::sync::Arc;

use tictac_proto::model::fields::{Kind, PriceKind, SizeKind};
use tictac_proto::model::{
    Book, Delta, MarketField, MarketId, MarketStatus, SelectionField, SelectionKey, SelectionStatus, Side,
    Value,
};

use super::truth::{TruthMarket, TruthSelection};
use crate::update::Update;

/// What a market begins as.
#[derive(Debug, Clone)]
pub(super) struct MarketPlan {
    pub(super) kind: Kind,
    pub(super) type_: &'static str,
    pub(super) name: String,
    pub(super) line: Option<String>,
    pub(super) winners: i64,
    /// Median stake that is offered at a price, in whole units.
    pub(super) liquidity: f64,
    /// How much of the activity it draws, relative to the others.
    pub(super) weight: f64,
    /// Selection ids, names and first probabilities.
    pub(super) runners: Vec<(i64, String, f64)>,
}

/// What the price model knows of one selection.
#[derive(Debug, Clone)]
pub(super) struct Quote {
    pub(super) key: SelectionKey,
    /// Probability by the event's model; of all active selections these add up to the winners.
    pub(super) model: f64,
    /// The crowd's deviation from the model, in log odds.
    pub(super) mood: f64,
    /// Levels that a side should have.
    pub(super) depth: usize,
    /// Ticks between the best prices that nobody offers.
    pub(super) gap: usize,
}

/// A market, its prices and what is not yet said of it.
#[derive(Debug, Clone)]
pub(super) struct Market {
    pub(super) id: MarketId,
    pub(super) kind: Kind,
    pub(super) winners: f64,
    pub(super) liquidity: f64,
    pub(super) weight: f64,
    pub(super) truth: TruthMarket,
    pub(super) quotes: Vec<Quote>,
    /// When a terminal market goes; `None` while it lives.
    pub(super) gone_at: Option<i64>,
    pending: Delta,
}

impl Market {
    /// A market without prices.
    pub(super) fn new(id: MarketId, plan: MarketPlan, common: &[(MarketField, Value)]) -> Self {
        let mut truth = TruthMarket { fields: common.iter().cloned().collect(), ..TruthMarket::default() };
        let mut set = |field, value: Value| truth.fields.insert(field, value);
        set(MarketField::Type, plan.type_.into());
        set(MarketField::Name, plan.name.as_str().into());
        set(MarketField::Kind, plan.kind.code().into());
        set(MarketField::PriceKind, PriceKind::Odds.code().into());
        set(MarketField::PriceExponent, 2.into());
        set(MarketField::SizeKind, SizeKind::Stake.code().into());
        set(MarketField::SizeExponent, 2.into());
        set(MarketField::Currency, "GBP".into());
        set(MarketField::Winners, plan.winners.into());
        set(MarketField::Version, 1.into());
        set(MarketField::Status, MarketStatus::Open.code().into());
        if let Some(line) = &plan.line {
            set(MarketField::Line, line.as_str().into());
        }
        if plan.kind == Kind::Ladder {
            set(MarketField::Ticks, "classic".into());
            set(MarketField::Matched, 0.into());
        }
        let mut quotes = Vec::with_capacity(plan.runners.len());
        for (sort, (id, name, model)) in (1_i64..).zip(plan.runners) {
            let key = SelectionKey { id, handicap: 0 };
            let mut selection = TruthSelection::default();
            selection.fields.insert(SelectionField::Name, name.as_str().into());
            selection.fields.insert(SelectionField::Sort, sort.into());
            selection.fields.insert(SelectionField::Status, SelectionStatus::Active.code().into());
            truth.selections.insert(key, selection);
            quotes.push(Quote { key, model, mood: 0.0, depth: 0, gap: 0 });
        }
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let winners = plan.winners as f64;
        Self {
            id,
            kind: plan.kind,
            winners,
            liquidity: plan.liquidity,
            weight: plan.weight,
            truth,
            quotes,
            gone_at: None,
            pending: Delta::default(),
        }
    }

    /// The whole truth as an update; forgets what is pending, for it is in it.
    pub(super) fn image(&mut self) -> Update {
        self.pending = Delta::default();
        let mut book = Book::default();
        book.apply(&self.truth.whole(), 0);
        Update::Image { market: Arc::clone(&self.id), book: Box::new(book) }
    }

    /// Says what is pending.
    pub(super) fn flush(&mut self, out: &mut Vec<Update>) {
        if !self.pending.is_empty() {
            let delta = std::mem::take(&mut self.pending);
            out.push(Update::Change { market: Arc::clone(&self.id), delta, rollback: false });
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.truth.status() == MarketStatus::Open
    }

    pub(super) fn is_live(&self) -> bool {
        !self.truth.status().is_terminal()
    }

    pub(super) fn type_is(&self, type_: &str) -> bool {
        self.truth.text(MarketField::Type) == Some(type_)
    }

    pub(super) fn set(&mut self, field: MarketField, value: impl Into<Value>) {
        let value = value.into();
        if self.truth.fields.get(&field) != Some(&value) {
            self.truth.fields.insert(field, value.clone());
            self.pending.set(field, Some(value));
        }
    }

    pub(super) fn clear(&mut self, field: MarketField) {
        if self.truth.fields.remove(&field).is_some() {
            self.pending.set(field, None);
        }
    }

    /// The definition changed: its version rises.
    pub(super) fn next_version(&mut self) {
        let version = self.truth.int(MarketField::Version).unwrap_or(0) + 1;
        self.set(MarketField::Version, version);
    }

    pub(super) fn set_runner(&mut self, key: SelectionKey, field: SelectionField, value: impl Into<Value>) {
        let value = value.into();
        let Some(selection) = self.truth.selections.get_mut(&key) else { return };
        if selection.fields.get(&field) != Some(&value) {
            selection.fields.insert(field, value.clone());
            self.pending.selection_mut(key).set(field, Some(value));
        }
    }

    pub(super) fn clear_runner(&mut self, key: SelectionKey, field: SelectionField) {
        let Some(selection) = self.truth.selections.get_mut(&key) else { return };
        if selection.fields.remove(&field).is_some() {
            self.pending.selection_mut(key).set(field, None);
        }
    }

    pub(super) fn runner_status(&self, key: SelectionKey) -> SelectionStatus {
        let code = self.truth.selections.get(&key).and_then(|s| s.int(SelectionField::Status));
        code.and_then(SelectionStatus::from_code).unwrap_or(SelectionStatus::Active)
    }

    /// Sets one level; size 0 deletes.
    pub(super) fn level(&mut self, key: SelectionKey, side: Side, price: i64, size: i64) {
        let Some(selection) = self.truth.selections.get_mut(&key) else { return };
        let ladder = &mut selection.ladders[side as usize];
        let changed = if size == 0 {
            ladder.remove(&price).is_some()
        } else {
            ladder.insert(price, size) != Some(size)
        };
        if changed {
            let change = self.pending.selection_mut(key).ladder_mut(side);
            change.set(price, size);
            if change.replace {
                change.levels.retain(|l| l.1 != 0);
            }
        }
    }

    /// Takes all offers of all selections away.
    pub(super) fn clear_offers(&mut self) {
        for quote in 0..self.quotes.len() {
            let key = self.quotes[quote].key;
            let Some(selection) = self.truth.selections.get_mut(&key) else { continue };
            for side in [Side::Back, Side::Lay] {
                let ladder = &mut selection.ladders[side as usize];
                if !ladder.is_empty() {
                    ladder.clear();
                    let change = self.pending.selection_mut(key).ladder_mut(side);
                    change.replace = true;
                    change.levels.clear();
                }
            }
            if self.kind == Kind::Fixed {
                for field in [SelectionField::Price, SelectionField::Native, SelectionField::Probability] {
                    self.clear_runner(key, field);
                }
            }
        }
    }

    /// Suspends it for a reason; its offers go.
    pub(super) fn suspend(&mut self, reason: &str) {
        if self.is_live() {
            self.set(MarketField::Status, MarketStatus::Suspended.code());
            self.set(MarketField::Reason, reason);
            self.clear_offers();
        }
    }

    /// Closes it: selections for which `won` says so are winners, the other active ones losers.
    pub(super) fn close(&mut self, gone_at: i64, won: impl Fn(usize) -> bool) {
        self.clear_offers();
        self.clear(MarketField::Reason);
        self.set(MarketField::Status, MarketStatus::Closed.code());
        self.next_version();
        for i in 0..self.quotes.len() {
            let key = self.quotes[i].key;
            if self.runner_status(key) == SelectionStatus::Active {
                let status = if won(i) { SelectionStatus::Winner } else { SelectionStatus::Loser };
                self.set_runner(key, SelectionField::Status, status.code());
                self.set_runner(key, SelectionField::Certainty, 100);
            }
        }
        self.gone_at = Some(gone_at);
    }
}
