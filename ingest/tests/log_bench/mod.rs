//! What the log's tests share: a place to log to (of either kind), a writer that knows what it wrote, and a follower.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, reason = "a module of each test file")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tictac_ingest::log::{
    Acquired, Batch, LiveEvent, LogError, LogReader, LogWriter, MemoryLog, MemorySettings, Owner, RedisLog,
    RedisSettings,
};
use tictac_ingest::testing::{RedisCluster, RedisServer};
use tictac_proto::checksum::checksum;
use tictac_proto::log::{Alive, Entry, Stored, What};
use tictac_proto::model::{
    Book, Delta, MarketField, MarketId, MarketStatus, SelectionKey, Side, Value, View,
};
use tictac_proto::position::Position;
use tictac_proto::wire::Times;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Runs each test over both implementations.
#[allow(unused_macros, reason = "each test file uses a part of this one")]
macro_rules! contract {
    ($($test:ident)*) => {
        $(mod $test {
            #[tokio::test]
            async fn memory() {
                super::$test(super::Place::memory()).await;
            }
            #[tokio::test]
            async fn redis() {
                super::$test(super::Place::redis()).await;
            }
            #[tokio::test]
            async fn cluster() {
                super::$test(super::Place::cluster()).await;
            }
        })*
    };
}

pub const NOW: u64 = 1_764_000_000_000;
/// Long: a slow machine is no reason to lose a lease.
const LEASE: Duration = Duration::from_secs(20);
pub const ENTRIES: usize = 300;
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to log to.
pub struct Place {
    kind: Kind,
    lease: Duration,
}

enum Kind {
    Memory(MemoryLog),
    Redis(RedisServer),
    Cluster(RedisCluster),
}

fn memory(lease: Duration) -> Kind {
    Kind::Memory(MemoryLog::new(MemorySettings { entries: ENTRIES, bytes: 1 << 20, lease }))
}

impl Place {
    pub fn memory() -> Self {
        Self { kind: memory(LEASE), lease: LEASE }
    }

    pub fn redis() -> Self {
        Self { kind: Kind::Redis(RedisServer::start().unwrap()), lease: LEASE }
    }

    pub fn cluster() -> Self {
        Self { kind: Kind::Cluster(RedisCluster::start(0).unwrap()), lease: LEASE }
    }

    /// The same kind of place, still empty, with other leases.
    pub fn with_lease(self, lease: Duration) -> Self {
        let kind = if matches!(self.kind, Kind::Memory(_)) { memory(lease) } else { self.kind };
        Self { kind, lease }
    }

    pub fn redis_log(&self, url: String) -> RedisLog {
        let settings =
            RedisSettings { lease: self.lease, entries: ENTRIES as u64, ..RedisSettings::new(url) };
        RedisLog::new(settings).unwrap()
    }

    pub fn server(&mut self) -> &mut RedisServer {
        match &mut self.kind {
            Kind::Redis(server) => server,
            Kind::Memory(_) | Kind::Cluster(_) => panic!("not one server"),
        }
    }

    pub fn writer(&self) -> LogWriter {
        match &self.kind {
            Kind::Memory(log) => log.clone().into(),
            Kind::Redis(server) => self.redis_log(server.url()).into(),
            Kind::Cluster(cluster) => self.redis_log(cluster.url()).into(),
        }
    }

    pub fn reader(&self) -> LogReader {
        match &self.kind {
            Kind::Memory(log) => log.clone().into(),
            Kind::Redis(server) => self.redis_log(server.url()).into(),
            Kind::Cluster(cluster) => self.redis_log(cluster.url()).into(),
        }
    }

    pub fn forget(&self) {
        match &self.kind {
            Kind::Memory(log) => log.forget(),
            Kind::Redis(server) => {
                server.command(&[b"FLUSHALL"]).unwrap();
            }
            Kind::Cluster(cluster) => {
                for server in &cluster.servers {
                    server.command(&[b"FLUSHALL"]).unwrap();
                }
            }
        }
    }

    /// All that is stored, as text: the lease's time left excepted.
    pub async fn dump(&self, shard: u16) -> String {
        let reader = self.reader();
        let mut all = format!(
            "{:?}\n{:?}\n",
            reader.snapshots(shard).await.unwrap(),
            reader.tail(shard, Position::ZERO).await.unwrap()
        );
        let servers = match &self.kind {
            Kind::Memory(_) => &[],
            Kind::Redis(server) => std::slice::from_ref(server),
            Kind::Cluster(cluster) => &cluster.servers[..],
        };
        for server in servers {
            let keys: Vec<Vec<u8>> =
                redis::from_redis_value(server.command(&[b"KEYS", b"*"]).unwrap()).unwrap();
            let mut values: Vec<String> = keys
                .iter()
                .map(|key| format!("{key:?} {:?}\n", server.command(&[b"DUMP", key]).unwrap()))
                .collect();
            values.sort();
            all.extend(values);
        }
        all
    }
}

pub fn owner(id: &str, slot: u16) -> Owner {
    Owner { id: id.into(), slot }
}

pub fn key(id: i64) -> SelectionKey {
    SelectionKey { id, handicap: 0 }
}

/// A writer with its books: what it wrote is what everybody must come to see.
pub struct Scribe {
    pub log: LogWriter,
    pub owner: Owner,
    pub shard: u16,
    pub at: Position,
    pub books: BTreeMap<MarketId, Stored>,
    pub batch: Batch,
}

impl Scribe {
    pub async fn acquire(log: LogWriter, owner: Owner, shard: u16) -> Result<(Self, Acquired), LogError> {
        Self::acquire_after(log, owner, shard, 0).await
    }

    /// Takes a shard over knowing of an epoch, which a Redis that took another's place may not know of.
    pub async fn acquire_after(
        log: LogWriter,
        owner: Owner,
        shard: u16,
        seen: u64,
    ) -> Result<(Self, Acquired), LogError> {
        let acquired = log.acquire(shard, &owner, seen, NOW).await?;
        let at = Position::new(acquired.epoch, acquired.n);
        let books = acquired.markets.iter().map(|stored| (stored.market.clone(), stored.clone())).collect();
        let mut scribe = Self { log, owner, shard, at, books, batch: Batch::default() };
        scribe.begin(acquired.covered);
        Ok((scribe, acquired))
    }

    fn begin(&mut self, covered: Position) {
        self.batch = Batch { epoch: self.at.epoch, first: self.at.seq + 1, covered, ..Batch::default() };
    }

    fn push(&mut self, what: impl FnOnce(Position) -> What) {
        self.at.seq += 1;
        let entry = Entry { at: self.at, times: Times::default(), what: what(self.at) };
        self.batch.entries.push(entry.encode().into());
    }

    pub fn image(&mut self, market: &str) -> &mut Self {
        let market: MarketId = market.into();
        let mut book = self.books.remove(&market).map(|stored| stored.book).unwrap_or_default();
        book.set(MarketField::Status, MarketStatus::Open.code());
        let (shown, checksum) = (book.clone(), checksum(&market, &book, View::All));
        let id = market.clone();
        self.push(|_| What::Image { market: id, book: shown, stop: Position::ZERO, checksum });
        book.restamp(self.at.seq);
        let stored = Stored { market: market.clone(), at: self.at, stop: Position::ZERO, book, checksum };
        self.books.insert(market, stored);
        self
    }

    pub fn change(&mut self, market: &str, price: i64, size: i64) -> &mut Self {
        let mut delta = Delta::default();
        delta.selection_mut(key(7)).ladder_mut(Side::Back).set(price, size);
        self.delta(market, delta)
    }

    pub fn delta(&mut self, market: &str, delta: Delta) -> &mut Self {
        let id: MarketId = market.into();
        let mut stored = self.books.remove(&id).unwrap();
        stored.book.apply(&delta, self.at.seq + 1);
        stored.checksum = checksum(&id, &stored.book, View::All);
        let check = Some(stored.checksum);
        self.push(|_| What::Delta { market: market.into(), delta, stop: false, checksum: check });
        stored.at = self.at;
        self.books.insert(id, stored);
        self
    }

    pub fn stop(&mut self, market: &str) -> &mut Self {
        let id: MarketId = market.into();
        self.push(|_| What::Stop { markets: vec![market.into()], reason: Some("goal".into()) });
        let stored = self.books.get_mut(&id).unwrap();
        let delta = tictac_proto::log::stop_delta(&stored.book, Some(&"goal".into()));
        stored.book.apply(&delta, self.at.seq);
        (stored.at, stored.stop) = (self.at, self.at);
        stored.checksum = checksum(&id, &stored.book, View::All);
        self
    }

    pub fn gone(&mut self, market: &str) -> &mut Self {
        self.push(|_| What::Gone { market: market.into() });
        self.books.remove(market);
        self.batch.gone.push(market.into());
        self
    }

    /// Stores a market's snapshot with the batch.
    pub fn store(&mut self, market: &str) -> &mut Self {
        self.batch.snapshots.push((market.into(), self.books[market].encode().into()));
        self
    }

    pub fn covered(&mut self, covered: Position, aged: Position) -> &mut Self {
        (self.batch.covered, self.batch.aged) = (covered, aged);
        self
    }

    pub async fn write(&mut self) -> Result<(), LogError> {
        let batch = std::mem::take(&mut self.batch);
        let covered = batch.covered;
        self.begin(covered);
        self.log.append(self.shard, &self.owner, batch).await
    }

    pub async fn alive(&self) -> Result<(), LogError> {
        let alive = Alive { at: self.at, now: NOW as i64, feeds: Vec::new() };
        self.log.alive(self.shard, &self.owner, alive, Vec::new()).await
    }

    pub fn expected(&self) -> Vec<Stored> {
        self.books.values().cloned().collect()
    }
}

/// Takes a shard over, however often it is refused while the lease runs.
pub async fn acquire_patiently(log: &LogWriter, owner: &Owner, shard: u16) -> (Scribe, Acquired) {
    let begun = Instant::now();
    loop {
        match Scribe::acquire(log.clone(), owner.clone(), shard).await {
            Ok(done) => return done,
            Err(LogError::Held { .. } | LogError::Unavailable(_)) if begun.elapsed() < PATIENCE => {
                // A lease that runs out tells nobody: asking again is all there is.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn next(receiver: &mut mpsc::Receiver<LiveEvent>) -> LiveEvent {
    timeout(PATIENCE, receiver.recv()).await.expect("an event in time").expect("an open channel")
}

pub async fn next_message(receiver: &mut mpsc::Receiver<LiveEvent>) -> (u16, Bytes) {
    match next(receiver).await {
        LiveEvent::Message { shard, bytes } => (shard, bytes),
        other => panic!("a message was expected, {other:?} came"),
    }
}

pub async fn subscribed(receiver: &mut mpsc::Receiver<LiveEvent>, expected: u16) {
    match next(receiver).await {
        LiveEvent::Subscribed { shard } => assert_eq!(shard, expected),
        other => panic!("shard {expected}'s confirmation was expected, {other:?} came"),
    }
}

pub async fn lost(receiver: &mut mpsc::Receiver<LiveEvent>) {
    match next(receiver).await {
        LiveEvent::Lost { .. } => {}
        other => panic!("a loss was expected, {other:?} came"),
    }
}

/// Books of a reader at the head: snapshots plus entries, applied the plain way.
pub fn books_at_head(read: &tictac_ingest::log::Snapshots) -> BTreeMap<MarketId, Book> {
    let mut books: BTreeMap<MarketId, (Position, Book)> =
        read.markets.iter().map(|s| (s.market.clone(), (s.at, *s.book.clone()))).collect();
    for entry in &read.entries {
        match &entry.what {
            What::Delta { market, delta, .. } => {
                if let Some((at, book)) = books.get_mut(market).filter(|(at, _)| *at < entry.at) {
                    book.apply(delta, entry.at.seq);
                    *at = entry.at;
                }
            }
            What::Image { market, book, .. } => {
                if books.get(market).is_none_or(|(at, _)| *at < entry.at) {
                    books.insert(market.clone(), (entry.at, *book.clone()));
                }
            }
            What::Stop { markets, reason } => {
                for market in markets {
                    if let Some((at, book)) = books.get_mut(market).filter(|(at, _)| *at < entry.at) {
                        book.apply(&tictac_proto::log::stop_delta(book, reason.as_ref()), entry.at.seq);
                        *at = entry.at;
                    }
                }
            }
            What::Gone { market } => {
                if books.get(market).is_some_and(|(at, _)| *at < entry.at) {
                    books.remove(market);
                }
            }
        }
    }
    books.into_iter().map(|(market, (_, book))| (market, book)).collect()
}

pub fn expected_books(scribe: &Scribe) -> BTreeMap<MarketId, Book> {
    scribe.books.iter().map(|(market, stored)| (market.clone(), *stored.book.clone())).collect()
}

pub fn text_delta(text: &str) -> Delta {
    let mut delta = Delta::default();
    delta.set(MarketField::Reason, Some(Value::Text(text.into())));
    delta
}
