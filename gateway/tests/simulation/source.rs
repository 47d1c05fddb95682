//! The independent truth: markets as plain maps, changed at random, and what the sources say about each change. The
//! books of the real code are compared with these maps and never made from each other.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tictac_proto::log::shard_of;
use tictac_proto::model::{
    Book, Delta, LadderDelta, MarketField, MarketId, MarketStatus, SelectionField, SelectionKey,
    SelectionStatus, Side, Value, fields::PriceKind,
};

use crate::dice::Dice;

pub const SHARDS: u16 = 2;
pub const SOURCES: [&str; 2] = ["north", "south"];

/// A market's truth.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub event: String,
    pub source: usize,
    pub fields: BTreeMap<MarketField, Value>,
    pub selections: BTreeMap<SelectionKey, TruthSelection>,
}

#[derive(Debug, Clone, Default)]
pub struct TruthSelection {
    pub fields: BTreeMap<SelectionField, Value>,
    pub ladders: [BTreeMap<i64, i64>; 3],
}

/// What a source says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made one at a time")]
pub enum Says {
    Change { market: MarketId, delta: Delta, rollback: bool },
    Image { market: MarketId, book: Book },
    Stop { markets: Vec<MarketId>, reason: Option<Arc<str>> },
    Gone { market: MarketId },
    All { markets: Vec<(MarketId, Book)> },
}

/// How a market stands once a message is taken in, and where it belongs.
#[derive(Debug, Clone)]
pub struct Brief {
    pub market: MarketId,
    pub event: String,
    pub source: usize,
    pub status: MarketStatus,
}

#[derive(Debug)]
pub struct Message {
    pub source: usize,
    pub says: Says,
    pub briefs: Vec<Brief>,
}

/// Every source and all its markets.
pub struct Sources {
    pub markets: BTreeMap<MarketId, Truth>,
    pub events: Vec<String>,
    next: usize,
}

impl Truth {
    pub fn status(&self) -> MarketStatus {
        self.fields
            .get(&MarketField::Status)
            .and_then(Value::int)
            .and_then(MarketStatus::from_code)
            .unwrap_or(MarketStatus::Inactive)
    }

    /// The truth as a book, as the source would image it.
    pub fn book(&self) -> Book {
        let mut delta = Delta::default();
        for (field, value) in &self.fields {
            delta.set(*field, Some(value.clone()));
        }
        for (key, selection) in &self.selections {
            let change = delta.selection_mut(*key);
            for (field, value) in &selection.fields {
                change.set(*field, Some(value.clone()));
            }
            for side in Side::ALL {
                let levels = selection.ladders[side as usize].iter().map(|(p, s)| (*p, *s)).collect();
                *change.ladder_mut(side) = LadderDelta { replace: false, levels };
            }
        }
        let mut book = Book::default();
        book.apply(&delta, 0);
        book.set(MarketField::Source, SOURCES[self.source]);
        book
    }

    /// Whether best prices cross in some selection, worked out from the maps.
    pub fn is_crossed(&self) -> bool {
        let probability = self.fields.get(&MarketField::PriceKind).and_then(Value::int)
            == Some(PriceKind::Probability.code());
        self.selections.values().any(|s| {
            let [back, lay, _] = &s.ladders;
            let ends = |m: &BTreeMap<i64, i64>| Some((*m.first_key_value()?.0, *m.last_key_value()?.0));
            match (ends(back), ends(lay)) {
                (Some(b), Some(l)) if probability => b.0 <= l.1,
                (Some(b), Some(l)) => b.1 >= l.0,
                _ => false,
            }
        })
    }

    fn set(&mut self, delta: &mut Delta, field: MarketField, value: Option<Value>) {
        match &value {
            Some(v) => self.fields.insert(field, v.clone()),
            None => self.fields.remove(&field),
        };
        delta.set(field, value);
    }

    fn brief(&self, market: &MarketId) -> Brief {
        Brief {
            market: market.clone(),
            event: self.event.clone(),
            source: self.source,
            status: self.status(),
        }
    }
}

impl Sources {
    pub fn new(dice: &mut Dice) -> (Self, Vec<Rc<Message>>) {
        // One event in each shard.
        let events: Vec<String> = (0..SHARDS)
            .map(|shard| {
                (0..)
                    .map(|i| format!("e{i}"))
                    .find(|e| shard_of(e, SHARDS) == shard)
                    .expect("some event does")
            })
            .collect();
        let mut all = Self { markets: BTreeMap::new(), events, next: 0 };
        let count = dice.range(3, 7);
        let first = (0..count).map(|_| all.create(dice)).collect();
        (all, first)
    }

    fn create(&mut self, dice: &mut Dice) -> Rc<Message> {
        let market: MarketId = if self.next > 6 && dice.chance(500) {
            // One that was gone comes back under its old id.
            (0..self.next).map(|i| MarketId::from(format!("m{i}"))).find(|m| !self.markets.contains_key(m))
        } else {
            None
        }
        .unwrap_or_else(|| format!("m{}", self.next).into());
        // A market keeps its event and its source for good: both follow from its number.
        let number: usize = market[1..].parse().expect("ids are numbered");
        self.next = self.next.max(number + 1);
        let mut truth = Truth {
            event: self.events[number % self.events.len()].clone(),
            source: (number / 2) % SOURCES.len(),
            ..Truth::default()
        };
        for (field, value) in [
            (MarketField::Event, Value::from(truth.event.as_str())),
            (MarketField::Sport, Value::from("race")),
            (MarketField::PriceExponent, Value::Int(2)),
            (MarketField::Status, Value::Int(MarketStatus::Open.code())),
        ] {
            truth.fields.insert(field, value);
        }
        for id in 0..dice.range(1, 4) {
            truth.selections.insert(SelectionKey { id, handicap: 0 }, TruthSelection::default());
        }
        let message = Message {
            source: truth.source,
            says: Says::Image { market: market.clone(), book: truth.book() },
            briefs: vec![truth.brief(&market)],
        };
        self.markets.insert(market, truth);
        Rc::new(message)
    }

    /// Everything that a source has, for an ingest that starts.
    pub fn all_of(&self, source: usize) -> Rc<Message> {
        let of = || self.markets.iter().filter(|(_, t)| t.source == source);
        Rc::new(Message {
            source,
            says: Says::All { markets: of().map(|(id, t)| (id.clone(), t.book())).collect() },
            briefs: of().map(|(id, t)| t.brief(id)).collect(),
        })
    }

    fn changed(&self, market: &MarketId, delta: Delta, rollback: bool) -> Rc<Message> {
        let truth = &self.markets[market];
        Rc::new(Message {
            source: truth.source,
            says: Says::Change { market: market.clone(), delta, rollback },
            briefs: vec![truth.brief(market)],
        })
    }

    /// One random change of the world.
    pub fn step(&mut self, dice: &mut Dice) -> Rc<Message> {
        if self.markets.len() < 3 {
            return self.create(dice);
        }
        let ids: Vec<MarketId> = self.markets.keys().cloned().collect();
        let market = dice.pick(&ids).clone();
        match dice.below(1000) {
            0..4 if self.markets.len() < 6 => self.create(dice),
            0..8 if self.markets.len() > 3 => {
                let truth = self.markets.remove(&market).expect("picked from the markets");
                let brief = Brief { status: MarketStatus::Void, ..truth.brief(&market) };
                let says = Says::Gone { market };
                Rc::new(Message { source: truth.source, says, briefs: vec![brief] })
            }
            0..16 => self.image(&market, dice),
            16..76 => self.stop(&market, dice),
            76..200 => self.status(&market, dice),
            200..300 => self.scalars(&market, dice),
            300..350 => self.selection(&market, dice),
            _ => self.levels(&market, dice),
        }
    }

    fn truth(&mut self, market: &MarketId) -> &mut Truth {
        self.markets.get_mut(market).expect("callers name a market that is here")
    }

    /// The whole market again, sometimes with a change of scale or something that no delta told.
    fn image(&mut self, market: &MarketId, dice: &mut Dice) -> Rc<Message> {
        let truth = self.truth(market);
        if dice.chance(500) {
            let exponent = dice.range(1, 4);
            truth.fields.insert(MarketField::PriceExponent, Value::Int(exponent));
        }
        if dice.chance(200) {
            let kind = dice.range(0, 2);
            truth.fields.insert(MarketField::PriceKind, Value::Int(kind));
        }
        if let Some(selection) = truth.selections.values_mut().next() {
            selection.ladders[0].insert(105, dice.range(1, 9));
        }
        Rc::new(Message {
            source: truth.source,
            says: Says::Image { market: market.clone(), book: truth.book() },
            briefs: vec![truth.brief(market)],
        })
    }

    fn stop(&mut self, market: &MarketId, dice: &mut Dice) -> Rc<Message> {
        let (event, source) = (self.markets[market].event.clone(), self.markets[market].source);
        let whole = dice.chance(700);
        let markets: Vec<MarketId> = self
            .markets
            .iter()
            .filter(|(id, t)| t.event == event && (whole || *id == market))
            .map(|(id, _)| id.clone())
            .collect();
        let reason: Option<Arc<str>> = dice.chance(500).then(|| "goal".into());
        for id in &markets {
            let truth = self.truth(id);
            if truth.status() == MarketStatus::Open {
                truth.fields.insert(MarketField::Status, Value::Int(MarketStatus::Suspended.code()));
                match &reason {
                    Some(r) => truth.fields.insert(MarketField::Reason, Value::Text(r.clone())),
                    None => truth.fields.remove(&MarketField::Reason),
                };
            }
        }
        let briefs = markets.iter().map(|id| self.markets[id].brief(id)).collect();
        Rc::new(Message { source, says: Says::Stop { markets, reason }, briefs })
    }

    fn status(&mut self, market: &MarketId, dice: &mut Dice) -> Rc<Message> {
        let truth = self.truth(market);
        let was = truth.status();
        let next = match was {
            MarketStatus::Open if dice.chance(40) => MarketStatus::Closed,
            MarketStatus::Open => MarketStatus::Suspended,
            MarketStatus::Closed if dice.chance(500) => MarketStatus::Settled,
            _ => MarketStatus::Open,
        };
        let rollback = was.is_terminal() && !next.is_terminal();
        let mut delta = Delta::default();
        truth.set(&mut delta, MarketField::Status, Some(Value::Int(next.code())));
        self.changed(market, delta, rollback)
    }

    fn scalars(&mut self, market: &MarketId, dice: &mut Dice) -> Rc<Message> {
        let mut delta = Delta::default();
        let truth = self.truth(market);
        match dice.below(6) {
            0 => truth.set(&mut delta, MarketField::InPlay, Some(Value::Int(dice.range(0, 2)))),
            1 => truth.set(&mut delta, MarketField::BetDelay, Some(Value::Int(dice.range(0, 6)))),
            2 => {
                let score =
                    dice.chance(700).then(|| Value::from(*dice.pick(&["1-0", "<2-1>", "0-0 \u{2028}"])));
                truth.set(&mut delta, MarketField::Score, score);
            }
            3 => truth.set(&mut delta, MarketField::Reason, dice.chance(500).then(|| Value::from("var"))),
            _ => truth.set(&mut delta, MarketField::Matched, Some(Value::Int(dice.range(0, 1 << 40)))),
        }
        self.changed(market, delta, false)
    }

    fn selection(&mut self, market: &MarketId, dice: &mut Dice) -> Rc<Message> {
        let mut delta = Delta::default();
        let key = SelectionKey { id: dice.range(0, 4), handicap: 0 };
        let truth = self.truth(market);
        if truth.selections.contains_key(&key) && dice.chance(500) {
            truth.selections.remove(&key);
            delta.remove(key);
        } else {
            let selection = truth.selections.entry(key).or_default();
            let status = match dice.below(4) {
                0 => SelectionStatus::Removed,
                1 => SelectionStatus::Hidden,
                _ => SelectionStatus::Active,
            };
            for (field, value) in [
                (SelectionField::Status, Value::Int(status.code())),
                (SelectionField::Name, Value::from(*dice.pick(&["Red", "Bl\u{e4}u", "\"x\""]))),
            ] {
                selection.fields.insert(field, value.clone());
                delta.selection_mut(key).set(field, Some(value));
            }
        }
        self.changed(market, delta, false)
    }

    fn levels(&mut self, market: &MarketId, dice: &mut Dice) -> Rc<Message> {
        let mut delta = Delta::default();
        let truth = self.truth(market);
        let keys: Vec<SelectionKey> = truth.selections.keys().copied().collect();
        let key = if keys.is_empty() { SelectionKey { id: 0, handicap: 0 } } else { *dice.pick(&keys) };
        let selection = truth.selections.entry(key).or_default();
        let change = delta.selection_mut(key);
        for _ in 0..dice.range(1, 4) {
            let side = *dice.pick(&Side::ALL);
            let price = if side == Side::Lay { dice.range(106, 120) } else { dice.range(97, 110) };
            let size = dice.range(0, 4);
            if size == 0 {
                selection.ladders[side as usize].remove(&price);
            } else {
                selection.ladders[side as usize].insert(price, size);
            }
            change.ladder_mut(side).set(price, size);
        }
        if dice.chance(200) {
            let last = Value::Int(dice.range(100, 120));
            selection.fields.insert(SelectionField::Last, last.clone());
            change.set(SelectionField::Last, Some(last));
        }
        self.changed(market, delta, false)
    }
}
