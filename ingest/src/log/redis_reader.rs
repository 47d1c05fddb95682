//! The log in Redis: reading it. All in pages, so that no single command holds Redis, or a reader, for long.

use bytes::Bytes;
use redis::Value;
use redis::streams::{StreamId, StreamRangeReply};
use tictac_proto::model::MarketId;
use tictac_proto::position::Position;

use super::recovery::{self, Holdings, RawEntry, connect, is_gapless};
use super::redis::{RedisLog, integer};
use super::{LogError, Snapshots, Tail};

/// Entries read at once.
const ENTRIES: usize = 512;
/// Snapshots read at once.
const SNAPSHOTS: usize = 128;
/// How often a reading that the log's trimming overtook begins anew.
const ATTEMPTS: usize = 5;

impl RedisLog {
    pub(super) async fn tail(&self, shard: u16, after: Position) -> Result<Tail, LogError> {
        let head = self.head(shard).await?;
        let log = self.read_log(shard, after, head).await?;
        recovery::tail(after, head, log)
    }

    pub(super) async fn snapshots(&self, shard: u16) -> Result<Snapshots, LogError> {
        self.holdings(shard).await?.into_snapshots()
    }

    /// Reads snapshots and log while a writer may go on writing and trimming.
    ///
    /// Order: the whole log, then the list of markets, their snapshots, the head, then the log's new tail. Why that is
    /// whole: let a snapshot be read at time t, at position p. The writer's promise is that the log at t holds every
    /// change of that market above p. All that the log held at t is in what we have: its part that is older than our
    /// first reading we read then, before it could be trimmed (trimming only ever takes from the old end), and its
    /// newer part is in the tail, which we take only if it connects without a gap. A market that joins after the
    /// listing has its image in the tail; one that goes after the listing has its `gone` there. The head is read after
    /// the snapshots, so none of them is above what we read.
    ///
    /// The other order (snapshots, then log) has a hole: between the two the writer may store a newer snapshot and
    /// trim the entries that the older one, which we hold, still needs.
    pub(super) async fn holdings(&self, shard: u16) -> Result<Holdings, LogError> {
        for _ in 0..ATTEMPTS {
            let start = self.head(shard).await?;
            let mut log = self.read_log(shard, Position::ZERO, start).await?;
            let reached = log.last().map_or(start, |last| last.at);
            let markets = self.markets(shard).await?;
            let snapshots = self.read_snapshots(shard, markets).await?;
            let head = self.head(shard).await?;
            let rest = connect(reached, head, self.read_log(shard, reached, head).await?);
            if let Some(rest) = rest.filter(|_| is_gapless(&log)) {
                log.extend(rest);
                let head = log.last().map_or(head, |last| last.at.max(head));
                return Ok(Holdings { head, snapshots, log });
            }
        }
        Err(LogError::Unexpected(format!(
            "a log of shard {shard} that would not connect in {ATTEMPTS} readings: it is trimmed faster than it can be \
             read, or entries were deleted by hand (then delete {} and let the owner store images)",
            self.shared.keys.log(shard)
        )))
    }

    /// Where the shard stands.
    async fn head(&self, shard: u16) -> Result<Position, LogError> {
        let keys = &self.shared.keys;
        let mut command = redis::cmd("MGET");
        command.arg(keys.epoch(shard)).arg(keys.number(shard));
        let stored: Vec<Option<Vec<u8>>> = self.shared.link.query(&keys.epoch(shard), &command).await?;
        let [epoch, number] = &stored[..] else {
            return Err(LogError::Unexpected(format!("{} values for 2 keys", stored.len())));
        };
        let read = |value: &Option<Vec<u8>>| integer(value.as_deref().unwrap_or_default());
        Ok(Position::new(read(epoch)?, read(number)?))
    }

    /// Reads the log from a position on, itself included, until `head` or the end.
    async fn read_log(&self, shard: u16, from: Position, head: Position) -> Result<Vec<RawEntry>, LogError> {
        let mut log: Vec<RawEntry> = Vec::new();
        let mut start = from.to_string();
        let key = self.shared.keys.log(shard);
        loop {
            let mut command = redis::cmd("XRANGE");
            command.arg(&key).arg(&start).arg("+").arg("COUNT").arg(ENTRIES);
            let page: StreamRangeReply = self.shared.link.query(&key, &command).await?;
            let is_last = page.ids.len() < ENTRIES;
            for id in page.ids {
                log.push(entry(id)?);
            }
            match log.last() {
                Some(last) if !is_last && last.at < head => start = format!("({}", last.at),
                _ => return Ok(log),
            }
        }
    }

    /// The markets that have a snapshot, of those that can be.
    async fn markets(&self, shard: u16) -> Result<Vec<MarketId>, LogError> {
        let key = self.shared.keys.markets(shard);
        let mut command = redis::cmd("SMEMBERS");
        command.arg(&key);
        let mut markets: Vec<MarketId> =
            self.shared.link.query::<Vec<Vec<u8>>>(&key, &command).await?.iter().map(|id| text(id)).collect();
        markets.sort_unstable();
        Ok(markets)
    }

    async fn read_snapshots(
        &self,
        shard: u16,
        markets: Vec<MarketId>,
    ) -> Result<Vec<(MarketId, Option<Bytes>)>, LogError> {
        let mut snapshots = Vec::with_capacity(markets.len());
        for page in markets.chunks(SNAPSHOTS) {
            let mut command = redis::cmd("MGET");
            for market in page {
                command.arg(self.shared.keys.snapshot(shard, market));
            }
            let found: Vec<Option<Vec<u8>>> =
                self.shared.link.query(&self.shared.keys.markets(shard), &command).await?;
            if found.len() != page.len() {
                return Err(LogError::Unexpected(format!("{} values for {} keys", found.len(), page.len())));
            }
            snapshots.extend(page.iter().cloned().zip(found.into_iter().map(|bytes| bytes.map(Bytes::from))));
        }
        Ok(snapshots)
    }
}

/// An id as a text: one that is none was written by hand, finds no snapshot, and is listed as missing.
fn text(id: &[u8]) -> MarketId {
    String::from_utf8_lossy(id).into()
}

fn entry(id: StreamId) -> Result<RawEntry, LogError> {
    let strange =
        || LogError::Unexpected(format!("log entry {}, which is no entry of ours: delete it", id.id));
    let (epoch, seq) = id.id.split_once('-').ok_or_else(strange)?;
    let at = Position::new(epoch.parse().map_err(|_| strange())?, seq.parse().map_err(|_| strange())?);
    let Some(Value::BulkString(bytes)) = id.map.get("e") else { return Err(strange()) };
    Ok(RawEntry { at, bytes: Bytes::copy_from_slice(bytes) })
}
