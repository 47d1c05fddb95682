//! The follower's side of the contract, over either implementation.

use tictac_proto::position::Position;
use tokio::sync::mpsc;

use super::live::{Follower, LiveHandle};
use super::{LiveEvent, LogError, MemoryLog, RedisLog, Snapshots, Tail};

/// What a gateway follows. Cheap to clone. It writes nothing, and loads no function.
#[derive(Debug, Clone)]
pub enum LogReader {
    /// Inside this process.
    Memory(MemoryLog),
    /// In Redis.
    Redis(RedisLog),
    /// For tests: another one whose live channel loses, repeats and swaps messages.
    #[cfg(feature = "testing")]
    Lossy(Box<crate::testing::Lossy>),
}

impl LogReader {
    /// A live channel that holds `capacity` messages, with no shard followed yet. Needs a running Tokio.
    #[must_use]
    pub fn live(&self, capacity: usize) -> (LiveHandle, mpsc::Receiver<LiveEvent>) {
        match self {
            Self::Memory(log) => {
                let (follower, receiver) = log.live(capacity);
                (LiveHandle { follower: Follower::Memory(follower) }, receiver)
            }
            Self::Redis(log) => {
                let (follower, receiver) = log.live(capacity);
                (LiveHandle { follower: Follower::Redis(follower) }, receiver)
            }
            #[cfg(feature = "testing")]
            Self::Lossy(lossy) => lossy.live(capacity),
        }
    }

    /// Reads the log after a position, up to where it stands when the reading starts or a little further.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]; [`LogError::Unexpected`] where an entry can't be read.
    pub async fn tail(&self, shard: u16, after: Position) -> Result<Tail, LogError> {
        match self {
            Self::Memory(log) => log.tail(shard, after),
            Self::Redis(log) => log.tail(shard, after).await,
            #[cfg(feature = "testing")]
            Self::Lossy(lossy) => Box::pin(lossy.reader.tail(shard, after)).await,
        }
    }

    /// Reads every snapshot and the log with them.
    ///
    /// # Errors
    /// As [`tail`](Self::tail). A snapshot that can't be read is no error: it is listed.
    pub async fn snapshots(&self, shard: u16) -> Result<Snapshots, LogError> {
        match self {
            Self::Memory(log) => log.snapshots(shard),
            Self::Redis(log) => log.snapshots(shard).await,
            #[cfg(feature = "testing")]
            Self::Lossy(lossy) => Box::pin(lossy.reader.snapshots(shard)).await,
        }
    }
}

impl From<MemoryLog> for LogReader {
    fn from(log: MemoryLog) -> Self {
        Self::Memory(log)
    }
}

impl From<RedisLog> for LogReader {
    fn from(log: RedisLog) -> Self {
        Self::Redis(log)
    }
}
