//! A log in this process, a sequencer that a test drives by hand, and a gateway over it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses its part")]

pub mod chain;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod shards;
pub mod source;
pub mod store;
pub mod watched;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use tictac_gateway::gateway::Gateway;
use tictac_gateway::settings::Settings;
use tictac_ingest::log::{Batch, LogReader, LogWriter, MemoryLog, Owner};
use tictac_proto::log::{Alive, CATALOGUE, Entry, FeedReport, shard_of};
use tictac_proto::model::{
    Book, Delta, MarketField, MarketId, MarketStatus, SelectionField, SelectionKey, Side, Value,
};
use tictac_proto::sequencer::Sequencer;
use tictac_proto::wire::{FeedState, Times};

pub const SHARDS: u16 = 4;

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A market of two selections with a ladder on each side.
pub fn book(event: &str, sport: &str) -> Book {
    let mut book = Book::default();
    for (field, text) in [
        (MarketField::Event, event),
        (MarketField::EventName, "Reds v Blues"),
        (MarketField::Sport, sport),
        (MarketField::Name, "Match odds"),
    ] {
        book.set(field, text);
    }
    book.set(MarketField::Status, MarketStatus::Open.code());
    book.set(MarketField::PriceExponent, 2);
    book.set(MarketField::SizeExponent, 2);
    book.set(MarketField::InPlay, 0);
    let mut delta = Delta::default();
    for id in [1, 2] {
        let selection = delta.selection_mut(SelectionKey { id, handicap: 0 });
        selection.set(SelectionField::Name, Some(Value::from("Reds")));
        for (i, price) in (190..200).enumerate() {
            selection.ladder_mut(Side::Back).set(price, 1000 + i as i64);
            selection.ladder_mut(Side::Lay).set(price + 12, 2000 + i as i64);
        }
        selection.ladder_mut(Side::Traded).set(195, 50_000);
    }
    book.apply(&delta, 0);
    book
}

/// A change of one level.
pub fn level(id: i64, side: Side, price: i64, size: i64) -> Delta {
    let mut delta = Delta::default();
    delta.selection_mut(SelectionKey { id, handicap: 0 }).ladder_mut(side).set(price, size);
    delta
}

pub fn status(status: MarketStatus) -> Delta {
    let mut delta = Delta::default();
    delta.set(MarketField::Status, Some(Value::Int(status.code())));
    delta
}

struct Shard {
    number: u16,
    sequencer: Sequencer,
}

/// Writes to a log what a test says.
pub struct Publisher {
    log: LogWriter,
    owner: Owner,
    source: Arc<str>,
    shards: Vec<Shard>,
    pub feed: FeedState,
}

impl Publisher {
    pub async fn new(log: impl Into<LogWriter>) -> Self {
        let mut publisher = Self {
            log: log.into(),
            owner: Owner { id: "test".into(), slot: 1 },
            source: "test".into(),
            shards: Vec::new(),
            feed: FeedState::Live,
        };
        for number in (0..SHARDS).chain([CATALOGUE]) {
            publisher.shards.push(Shard { number, sequencer: Sequencer::new() });
        }
        publisher.take_over().await;
        publisher
    }

    /// Takes every shard over in a new epoch.
    pub async fn take_over(&mut self) {
        for i in 0..self.shards.len() {
            let shard = &mut self.shards[i];
            let seen = shard.sequencer.head().epoch;
            let acquired = self.log.acquire(shard.number, &self.owner, seen, now_ms()).await.unwrap();
            let entries = shard.sequencer.take_over(acquired.epoch, acquired.n, Times::default());
            self.write(i, entries).await;
        }
        self.alive().await;
    }

    async fn write(&mut self, i: usize, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|e| e.at.seq) else { return };
        let shard = &self.shards[i];
        let mut batch = Batch { epoch: shard.sequencer.head().epoch, first, ..Batch::default() };
        batch.entries = entries.iter().map(|e| e.encode().into()).collect();
        batch.snapshots = shard
            .sequencer
            .markets()
            .map(|(id, ..)| (id.clone(), shard.sequencer.stored(id).unwrap().into()))
            .collect();
        self.log.append(shard.number, &self.owner, batch).await.unwrap();
    }

    pub async fn alive(&mut self) {
        for shard in &self.shards {
            let report = FeedReport { source: self.source.clone(), state: self.feed, as_of: now_ms() as i64 };
            let alive = Alive { at: shard.sequencer.head(), now: now_ms() as i64, feeds: vec![report] };
            self.log.alive(shard.number, &self.owner, alive, Vec::new()).await.unwrap();
        }
    }

    fn shard_of(&self, market: &str) -> usize {
        self.shards[..SHARDS as usize].iter().position(|s| s.sequencer.book(market).is_some()).unwrap()
    }

    fn times() -> Times {
        let now = now_ms() as i64;
        Times { source: now, received: now, published: now, encoded: 0 }
    }

    pub async fn image(&mut self, market: &str, book: Book) {
        let id = MarketId::from(market);
        let i = usize::from(shard_of(book.fields.text(MarketField::Event).unwrap(), SHARDS));
        let mut summary = Book::default();
        summary.fields = book.fields.clone();
        let entry = self.shards[i].sequencer.image(&self.source, &id, book, Self::times()).unwrap();
        self.write(i, entry.into_iter().collect()).await;
        let last = self.shards.len() - 1;
        let entry = self.shards[last].sequencer.image(&self.source, &id, summary, Self::times()).unwrap();
        self.write(last, entry.into_iter().collect()).await;
    }

    pub async fn change(&mut self, market: &str, delta: Delta) {
        let (id, i) = (MarketId::from(market), self.shard_of(market));
        let source = self.source.clone();
        let entry = self.shards[i].sequencer.change(&source, &id, delta, false, Self::times()).unwrap();
        self.write(i, entry.into_iter().collect()).await;
    }

    /// A change with the checksum of the book that comes of it, or with another one.
    pub async fn change_with_checksum(&mut self, market: &str, delta: Delta, right: bool) {
        let (id, i) = (MarketId::from(market), self.shard_of(market));
        let source = self.source.clone();
        let entry = self.shards[i].sequencer.change(&source, &id, delta, false, Self::times()).unwrap();
        let Some(mut entry) = entry else { return };
        let sum = tictac_proto::checksum::checksum(&id, self.book(market), tictac_proto::model::View::All);
        if let tictac_proto::log::What::Delta { checksum, .. } = &mut entry.what {
            *checksum = Some(if right { sum } else { !sum });
        }
        self.write(i, vec![entry]).await;
    }

    pub async fn stop(&mut self, markets: &[&str]) {
        let ids: Vec<MarketId> = markets.iter().map(|m| MarketId::from(*m)).collect();
        let i = self.shard_of(markets[0]);
        let entry = self.shards[i].sequencer.stop(&ids, Some("goal".into()), Self::times());
        self.write(i, entry.into_iter().collect()).await;
    }

    pub fn book(&self, market: &str) -> &Book {
        self.shards[self.shard_of(market)].sequencer.book(market).unwrap()
    }

    pub fn position(&self, market: &str) -> tictac_proto::position::Position {
        self.shards[self.shard_of(market)].sequencer.position(market).unwrap()
    }
}

/// Settings for a gateway on free ports, with a checksum after every delta.
pub fn settings(more: &[&str]) -> Settings {
    let base =
        ["t", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--shards", "4", "--checksum-ms", "0"];
    Settings::parse_from(base.iter().chain(more))
}

pub fn start(log: impl Into<LogReader>, more: &[&str]) -> (Gateway, String) {
    let gateway = Gateway::start(settings(more), log.into()).unwrap();
    let address = gateway.address.to_string();
    (gateway, address)
}

pub fn memory() -> MemoryLog {
    MemoryLog::default()
}

pub const SOON: Duration = Duration::from_secs(10);

/// Tells how long something took. Its bound is held where nothing else runs: with `TICTAC_STRICT` set, as `make chaos` does.
pub fn took(what: &str, took: Duration, bound: Duration) {
    eprintln!("{what}: {} ms, of {} allowed", took.as_millis(), bound.as_millis());
    if std::env::var_os("TICTAC_STRICT").is_some() {
        assert!(took <= bound, "{what} took {took:?}, more than {bound:?}");
    }
}
