//! The log: where ingest writes and every gateway follows, shard by shard. Two implementations hold one contract (the
//! same tests run over both): one in this process, one in Redis.
//!
//! The contract, for each shard:
//! * **append** is fenced and atomic: epoch and owner must be the stored ones and the first entry's number the stored
//!   one plus one, else nothing is written and the answer says what is stored.
//! * **live** delivery is at most once and may lose anything; `alive` says how far the log has come.
//! * **tail** reads the log after a position, or says that it does not reach back that far.
//! * **snapshots** are at or below the log's head, and each is not older than the log's oldest entry allows: snapshots
//!   plus tail is always the whole truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tictac_proto::log::{Entry, Stored};
use tictac_proto::model::MarketId;
use tictac_proto::position::Position;

use crate::stream_id::StreamId;

mod keys;
mod live;
mod memory;
mod outbox;
mod reader;
mod recovery;
mod redis;
mod redis_channels;
mod redis_live;
mod redis_reader;
mod writer;

pub use live::LiveHandle;
#[cfg(feature = "testing")]
pub use memory::Kept;
pub use memory::{MemoryLog, MemorySettings};
pub use reader::LogReader;
pub use redis::RedisLog;
pub use writer::LogWriter;

pub use crate::link::{RedisSettings, TlsFiles};

/// What is written to a shard at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The writer's epoch.
    pub epoch: u64,
    /// Number of the first entry; the others follow it without a gap.
    pub first: u64,
    /// Encoded entries (`Entry::encode`).
    pub entries: Vec<Bytes>,
    /// Encoded snapshots (`Stored::encode`) to be stored with them.
    pub snapshots: Vec<(MarketId, Bytes)>,
    /// Markets whose snapshots are deleted.
    pub gone: Vec<MarketId>,
    /// Every change at or below this is held by a stored snapshot, those of this batch included: the log may forget it.
    pub covered: Position,
    /// Where the log stood a while ago (60 s): what is above it is kept for readers as long as there is room.
    pub aged: Position,
    /// How far sources' streams are in the log, where that is news.
    pub resume: Vec<Resume>,
}

/// How far a source's stream is in a shard's log.
pub type Resume = (Arc<str>, StreamId);

impl Batch {
    /// Number of the last entry; the one before the first where there are none.
    #[must_use]
    pub fn last(&self) -> u64 {
        (self.first + self.entries.len() as u64).saturating_sub(1)
    }

    /// Up to where the log forgets by age; by room it forgets more, but never what is not covered (`check_room`).
    fn forget(&self) -> Position {
        self.covered.min(self.aged)
    }

    /// Refuses what would make the log forget changes that no snapshot holds.
    fn check_room(&self, shard: u16, capacity: u64) -> Result<(), LogError> {
        let uncovered = self.last().saturating_sub(self.covered.seq);
        if uncovered > capacity {
            return Err(LogError::Full { shard, uncovered, covered: self.covered, capacity });
        }
        Ok(())
    }
}

/// Who writes: unique among running ingests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// A name that nobody else has, such as a random id.
    pub id: String,
    /// 0–1023, the low digits of this owner's epochs.
    pub slot: u16,
}

/// A shard, just taken over.
#[derive(Debug)]
pub struct Acquired {
    /// The new epoch, already stored.
    pub epoch: u64,
    /// Number of the last entry so far.
    pub n: u64,
    /// Every stored snapshot, brought up to the log's head where the log held more.
    pub markets: Vec<Stored>,
    /// Snapshots that could not be read, with the reason.
    pub unreadable: Vec<(MarketId, String)>,
    /// Every change at or below this is held by a stored snapshot: where [`Batch::covered`] starts from.
    pub covered: Position,
    /// How far sources' streams are in the log: who goes on reading there misses nothing.
    pub resume: BTreeMap<Arc<str>, StreamId>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Somebody else owns the shard, or the log is not where the writer thought.
    #[error(
        "shard {shard} is fenced: it stands at {stored}, owned by {owner:?}; take it over again before writing"
    )]
    Fenced {
        /// The shard.
        shard: u16,
        /// Where it stands.
        stored: Position,
        /// Who owns it now.
        owner: Option<String>,
    },
    /// Another owner's lease is alive.
    #[error("shard {shard} is held by {owner} for another {remaining:?} at least; standing by")]
    Held {
        /// The shard.
        shard: u16,
        /// Who owns it.
        owner: String,
        /// Under which epoch.
        epoch: u64,
        /// How long the lease still runs, unless it is renewed.
        remaining: Duration,
    },
    /// The log would have to forget changes that no snapshot holds.
    #[error(
        "shard {shard}'s log is full: {uncovered} changes after {covered} are in no snapshot, {capacity} fit; store \
         snapshots of the markets they belong to and raise `covered`"
    )]
    Full {
        /// The shard.
        shard: u16,
        /// How many changes no snapshot holds, with those that were to be written.
        uncovered: u64,
        /// Up to where snapshots hold every change.
        covered: Position,
        /// How many may be uncovered.
        capacity: u64,
    },
    /// The log can't be reached; nothing is known of what was written.
    #[error("the log can't be reached: {0}; trying again")]
    Unavailable(String),
    /// The log answered what it should not.
    #[error("the log answered {0}")]
    Unexpected(String),
}

/// What a shard's log holds after a position.
#[derive(Debug, Default)]
pub struct Tail {
    /// Where the log stands.
    pub head: Position,
    /// The entries after the position asked for, without a gap, or nothing where the log does not reach back.
    pub entries: Vec<Entry>,
    /// Whether `entries` connects to the position asked for.
    pub complete: bool,
}

/// A shard's snapshots.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// Where the shard stood when they were read: every snapshot brought up to it.
    pub head: Position,
    /// One for each market.
    pub markets: Vec<Stored>,
    /// Log entries that bring older snapshots up to `head`: each applies to the markets that are older than it.
    pub entries: Vec<Entry>,
    /// Snapshots that could not be read, with the reason.
    pub unreadable: Vec<(MarketId, String)>,
}

/// What a subscription brings. Delivered over a bounded channel; when the reader does not keep up, messages are
/// dropped and counted, which the follower sees as a gap.
#[derive(Debug, Clone)]
pub enum LiveEvent {
    /// The subscription to a shard is confirmed: from here on nothing is missed by design.
    Subscribed {
        /// The shard.
        shard: u16,
    },
    /// A message of a shard (`Live::decode`).
    Message {
        /// The shard.
        shard: u16,
        /// The message.
        bytes: Bytes,
    },
    /// The connection that brought these shards broke, or could not be made. It is being made anew, without end; told once for
    /// each outage.
    Lost {
        /// The shards.
        shards: Vec<u16>,
        /// Why.
        reason: String,
    },
}
