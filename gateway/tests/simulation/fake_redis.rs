//! One shard's log as Redis keeps it, with the contract of `ingest/src/log/mod.rs`: appends are fenced with all checks
//! first, the log is bounded, snapshots may be older than its head but never older than it reaches back. It can also
//! do what Redis does when it fails: come back as a replica that was behind, or empty.
//!
//! The Lua function that does this in a real Redis has tests of its own; here only its contract counts.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tictac_ingest::log::{Acquired, Batch, LogError, Owner, Snapshots, Tail};
use tictac_proto::follower::Follower;
use tictac_proto::guard::{Guard, on};
use tictac_proto::log::{Entry, Live, Stored};
use tictac_proto::model::MarketId;
use tictac_proto::position::{Position, next_epoch};

/// Entries that a log holds: few, so that snapshots matter.
pub const LOG_ENTRIES: usize = 15;

/// A shard's keys.
#[derive(Debug, Clone, Default)]
pub struct ShardLog {
    shard: u16,
    owner: Option<String>,
    epoch: u64,
    n: u64,
    log: VecDeque<(Position, Bytes)>,
    snapshots: BTreeMap<MarketId, Bytes>,
}

fn entry(bytes: &Bytes) -> Entry {
    match Live::decode(bytes) {
        Ok(Live::Entry(entry)) => entry,
        other => panic!("a log holds entries, this one {other:?}"),
    }
}

impl ShardLog {
    pub fn new(shard: u16) -> Self {
        Self { shard, ..Self::default() }
    }

    pub fn head(&self) -> Position {
        Position::new(self.epoch, self.n)
    }

    fn check(&self, owner: &Owner, epoch: u64, n: u64) -> Result<(), LogError> {
        let held = self.epoch == epoch && self.owner.as_ref() == Some(&owner.id) && self.n == n;
        if held || !on(Guard::Fence) {
            return Ok(());
        }
        Err(LogError::Fenced { shard: self.shard, stored: self.head(), owner: self.owner.clone() })
    }

    /// The publish function: every check, then the entries, then the snapshots and the counter.
    pub fn append(&mut self, owner: &Owner, batch: &Batch) -> Result<(), LogError> {
        self.check(owner, batch.epoch, batch.first - 1)?;
        for bytes in &batch.entries {
            self.log.push_back((entry(bytes).at, bytes.clone()));
        }
        self.n = batch.first + batch.entries.len() as u64 - 1;
        for (market, bytes) in &batch.snapshots {
            self.snapshots.insert(market.clone(), bytes.clone());
        }
        for market in &batch.gone {
            self.snapshots.remove(market);
        }
        while self.log.len() > LOG_ENTRIES {
            self.log.pop_front();
        }
        Ok(())
    }

    /// Whether the owner may say that it is alive.
    pub fn alive(&self, owner: &Owner, at: Position) -> Result<(), LogError> {
        self.check(owner, at.epoch, at.seq)
    }

    /// Takes the shard over.
    pub fn acquire(&mut self, owner: &Owner, seen: u64, wall: i64) -> Acquired {
        let before = self.snapshots();
        self.epoch = next_epoch(self.epoch, seen, wall.max(0) as u64, owner.slot);
        self.owner = Some(owner.id.clone());
        let mut reader = Follower::new(self.shard);
        reader.handle_subscribed(0);
        let head = before.head.max(Position::new(0, 1));
        reader.handle_snapshots(head, before.markets, before.entries, 0);
        let mut markets: Vec<Stored> = reader
            .markets()
            .map(|m| Stored {
                market: m.id.clone(),
                at: m.at,
                stop: m.stop,
                book: Box::new(m.book.clone()),
                checksum: 0,
            })
            .collect();
        markets.sort_by(|a, b| a.market.cmp(&b.market));
        Acquired {
            epoch: self.epoch,
            n: self.n,
            covered: before.head,
            markets,
            unreadable: Vec::new(),
            resume: BTreeMap::new(),
        }
    }

    /// The log after a position, if it reaches back to it.
    pub fn tail(&self, after: Position) -> Tail {
        let head = self.head();
        let entries: Vec<Entry> =
            self.log.iter().filter(|(at, _)| *at > after).map(|(_, bytes)| entry(bytes)).collect();
        let connects = match entries.first() {
            Some(first) => first.at == Position::new(after.epoch, after.seq + 1),
            None => after == head,
        };
        let complete = after.epoch == head.epoch && connects;
        Tail { head, entries: if complete { entries } else { Vec::new() }, complete }
    }

    pub fn snapshots(&self) -> Snapshots {
        let markets: Vec<Stored> =
            self.snapshots.values().map(|b| Stored::decode(b).expect("what was encoded decodes")).collect();
        let entries = self.log.iter().map(|(_, bytes)| entry(bytes)).collect();
        Snapshots { head: self.head(), markets, entries, unreadable: Vec::new() }
    }
}
