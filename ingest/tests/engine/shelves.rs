//! A log that is a few maps, and what tests say to an engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tictac_ingest::engine::{Engine, EngineSettings, catalogue};
use tictac_ingest::log::{Acquired, Batch};
use tictac_ingest::stream_id::StreamId;
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::follower::Follower;
use tictac_proto::log::{CATALOGUE, Entry, Live, Stored};
use tictac_proto::model::{Book, Delta, MarketField, MarketId, MarketStatus, SelectionKey, Side, Value};
use tictac_proto::position::Position;
use tictac_proto::wire::Times;

/// One shard of the log.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) epoch: u64,
    pub(crate) n: u64,
    pub(crate) covered: Position,
    pub(crate) entries: Vec<Entry>,
    pub(crate) stored: BTreeMap<MarketId, Stored>,
    pub(crate) resume: BTreeMap<Arc<str>, StreamId>,
}

impl Shelf {
    pub(crate) fn append(&mut self, batch: Batch) {
        assert_eq!((batch.epoch, batch.first), (self.epoch, self.n + 1), "fenced");
        for bytes in &batch.entries {
            let Ok(Live::Entry(entry)) = Live::decode(bytes) else { panic!("no entry") };
            assert_eq!(entry.at, Position::new(self.epoch, self.n + 1));
            self.n += 1;
            self.entries.push(entry);
        }
        for (id, bytes) in &batch.snapshots {
            let stored = Stored::decode(bytes).unwrap();
            assert!(stored.at <= Position::new(self.epoch, self.n), "a snapshot ahead of the log");
            assert!(!batch.gone.contains(id), "stored and deleted at once");
            self.stored.insert(id.clone(), stored);
        }
        for id in &batch.gone {
            self.stored.remove(id);
        }
        assert!(batch.covered >= self.covered, "covered goes back");
        assert!(batch.covered <= Position::new(self.epoch, self.n));
        self.covered = batch.covered;
        self.resume.extend(batch.resume);
        // The harshest trimming that is allowed.
        self.entries.retain(|e| e.at > batch.covered);
    }

    /// What a reader makes of snapshots and log.
    pub(crate) fn books(&self, shard: u16) -> Follower {
        let mut follower = Follower::new(shard);
        follower.handle_subscribed(0);
        let head = Position::new(self.epoch, self.n);
        follower.handle_snapshots(head, self.stored.values().cloned().collect(), self.entries.clone(), 0);
        while follower.poll(0).is_some() {}
        assert_eq!(follower.counters().mismatches, 0);
        follower
    }

    pub(crate) fn acquire(&mut self, shard: u16) -> Acquired {
        self.epoch += 1024;
        let follower = self.books(shard);
        let markets = follower
            .markets()
            .map(|m| Stored {
                market: m.id.clone(),
                at: m.at,
                stop: m.stop,
                book: Box::new(m.book.clone()),
                checksum: 0,
            })
            .collect();
        Acquired {
            epoch: self.epoch,
            n: self.n,
            markets,
            unreadable: Vec::new(),
            covered: self.covered,
            resume: self.resume.clone(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Shelves(pub(crate) BTreeMap<u16, Shelf>);

impl Shelves {
    pub(crate) fn acquire(&mut self, engine: &mut Engine, now: i64) {
        for shard in engine.shards() {
            if !engine.owns(shard) {
                let acquired = self.0.entry(shard).or_default().acquire(shard);
                engine.handle_acquired(shard, acquired, now);
            }
        }
    }

    pub(crate) fn write(&mut self, engine: &mut Engine, now: i64) {
        // Until nothing is left: an entry may wait for one of another shard.
        let mut wrote = true;
        while wrote {
            wrote = false;
            for shard in engine.shards() {
                wrote |= self.write_one(engine, shard, now);
            }
        }
    }

    pub(crate) fn write_one(&mut self, engine: &mut Engine, shard: u16, now: i64) -> bool {
        let Some(batch) = engine.take_batch(shard, now) else { return false };
        self.0.entry(shard).or_default().append(batch);
        engine.handle_written(shard);
        true
    }

    pub(crate) fn check(&self, engine: &Engine) {
        let mut seen = BTreeSet::new();
        for shard in engine.shards() {
            let follower = self.0[&shard].books(shard);
            for market in follower.markets() {
                let book = engine.book(&market.id);
                if shard == CATALOGUE {
                    assert_eq!(Some(&market.book), engine.listed(&market.id));
                    assert!(book.is_some(), "{} is listed and not there", market.id);
                } else {
                    assert_eq!(Some(&market.book), book, "{} in shard {shard}", market.id);
                    assert!(seen.insert(market.id.clone()), "{} in two shards", market.id);
                }
            }
        }
        assert_eq!(seen.len(), engine.len());
        for (id, _) in engine.markets() {
            let (book, listed) =
                (engine.book(id).unwrap(), engine.listed(id).expect("every market is listed"));
            for field in catalogue::FIELDS {
                if *field != MarketField::Matched {
                    assert_eq!(listed.fields.get(*field), book.fields.get(*field), "{id} {field:?}");
                }
            }
        }
    }
}

pub(crate) fn settings() -> EngineSettings {
    EngineSettings { shards: 4, ..EngineSettings::default() }
}

pub(crate) fn times(now: i64) -> Times {
    Times { source: now, received: now, ..Times::default() }
}

pub(crate) fn book(event: &str, status: MarketStatus) -> Book {
    let mut book = Book::default();
    book.set(MarketField::Event, event);
    book.set(MarketField::Kind, 0);
    book.set(MarketField::PriceExponent, 2);
    book.set(MarketField::Status, status.code());
    let mut delta = Delta::default();
    delta.selection_mut(SelectionKey { id: 1, handicap: 0 }).ladder_mut(Side::Back).set(200, 10);
    book.apply(&delta, 0);
    book
}

pub(crate) fn image(market: &str, event: &str) -> Update {
    Update::Image { market: market.into(), book: Box::new(book(event, MarketStatus::Open)) }
}

pub(crate) fn set(market: &str, field: MarketField, value: impl Into<Value>) -> Update {
    let mut delta = Delta::default();
    delta.set(field, Some(value.into()));
    Update::Change { market: market.into(), delta, rollback: false }
}

pub(crate) fn level(market: &str, price: i64, size: i64) -> Update {
    let mut delta = Delta::default();
    delta.selection_mut(SelectionKey { id: 1, handicap: 0 }).ladder_mut(Side::Back).set(price, size);
    Update::Change { market: market.into(), delta, rollback: false }
}

pub(crate) fn status(engine: &Engine, market: &str) -> MarketStatus {
    engine.book(market).unwrap().status()
}

pub(crate) fn update() -> impl Strategy<Value = Update> {
    let market = prop::sample::select(vec!["1.1", "1.2", "1.3", "1.4"]);
    let event = || prop::sample::select(vec!["e1", "e2", "e3", "e4", "e5"]);
    (market, event(), 0i64..7, 0i64..5, 0u8..12).prop_map(|(market, event, code, small, what)| match what {
        0 | 1 => image(market, event),
        2 => Update::Image {
            market: market.into(),
            book: Box::new(book(event, MarketStatus::from_code(code).unwrap())),
        },
        3 => set(market, MarketField::Event, event),
        4 => set(market, MarketField::Status, code),
        5 => set(market, MarketField::Matched, small),
        6 => set(market, MarketField::PriceExponent, small % 2 + 2),
        7 => Update::Stop { event: event.into(), scope: StopScope::Event, reason: Some("goal".into()) },
        8 if small == 0 => Update::Gone { market: market.into() },
        9 => set(market, MarketField::Score, if small == 0 { "0-0" } else { "1-0" }),
        _ => level(market, 200 + code, small),
    })
}
