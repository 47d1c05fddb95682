//! The writer's side of the contract, over either implementation.

use tictac_proto::log::Alive;

use super::{Acquired, Batch, LogError, MemoryLog, Owner, RedisLog, Resume};
use crate::operator::{Act, Ledger};

/// Where an ingest writes. Cheap to clone; clones share the connection, and their calls are pipelined over it.
#[derive(Debug, Clone)]
pub enum LogWriter {
    /// Inside this process.
    Memory(MemoryLog),
    /// In Redis.
    Redis(RedisLog),
    /// For simulations: inside this process, failing as one in Redis can.
    #[cfg(feature = "testing")]
    Faulty(crate::testing::FaultyLog),
}

impl LogWriter {
    /// Takes a shard over under a new epoch, and reads all that the log holds. The lease runs from now and is renewed
    /// by [`alive`](Self::alive).
    ///
    /// `seen_epoch` is the highest epoch of the shard that this owner ever saw, `now_ms` its clock in Unix ms.
    ///
    /// # Errors
    /// [`LogError::Held`] while another owner's lease is alive; [`LogError::Unavailable`] where the log can't be
    /// reached; [`LogError::Unexpected`] where what is stored is no log.
    pub async fn acquire(
        &self,
        shard: u16,
        owner: &Owner,
        seen_epoch: u64,
        now_ms: u64,
    ) -> Result<Acquired, LogError> {
        match self {
            Self::Memory(log) => log.acquire(shard, owner, seen_epoch, now_ms),
            Self::Redis(log) => log.acquire(shard, owner, seen_epoch, now_ms).await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.acquire(shard, owner, seen_epoch, now_ms).await,
        }
    }

    /// What is stored of a shard, whoever owns it, without taking it over.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Unexpected`].
    pub async fn look(&self, shard: u16) -> Result<Acquired, LogError> {
        match self {
            Self::Memory(log) => Ok(log.look(shard)),
            Self::Redis(log) => log.look(shard).await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.look(shard).await,
        }
    }

    /// Writes a batch: all of it, or nothing.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where epoch, owner or number are not the stored ones, [`LogError::Full`] where the log would
    /// have to forget what no snapshot holds: nothing is written. [`LogError::Unavailable`]: nothing is known; take
    /// the shard over again to find out.
    pub async fn append(&self, shard: u16, owner: &Owner, batch: Batch) -> Result<(), LogError> {
        match self {
            Self::Memory(log) => log.append(shard, owner, &batch),
            Self::Redis(log) => log.append(shard, owner, &batch).await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.append(shard, owner, batch).await,
        }
    }

    /// Says how far the log has come, and with it sources' streams, and renews the lease.
    ///
    /// # Errors
    /// As [`append`](Self::append); the position must be exactly the stored one.
    pub async fn alive(
        &self,
        shard: u16,
        owner: &Owner,
        alive: Alive,
        resume: Vec<Resume>,
    ) -> Result<(), LogError> {
        match self {
            Self::Memory(log) => log.alive(shard, owner, &alive, resume),
            Self::Redis(log) => log.alive(shard, owner, &alive, &resume).await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.alive(shard, owner, alive, resume).await,
        }
    }

    /// Gives a shard up, so that another owner need not wait for the lease to run out; tells those that stand by.
    ///
    /// # Errors
    /// [`LogError::Fenced`] where it is owned by somebody else or nobody, [`LogError::Unavailable`].
    pub async fn release(&self, shard: u16, owner: &Owner) -> Result<(), LogError> {
        match self {
            Self::Memory(log) => log.release(shard, owner),
            Self::Redis(log) => log.release(shard, owner).await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.release(shard, owner).await,
        }
    }

    /// What operators did last, by scope.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Unexpected`].
    pub async fn ledger(&self) -> Result<Ledger, LogError> {
        match self {
            Self::Memory(log) => Ok(log.ledger()),
            Self::Redis(log) => log.ledger().await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.ledger().await,
        }
    }

    /// Notes an operator's act and tells every ingest; a new one is also noted in the audit. Whether it counts: not where
    /// there is a later one of the same scope.
    ///
    /// # Errors
    /// [`LogError::Unavailable`], [`LogError::Unexpected`] where too many scopes are remembered.
    pub async fn act(&self, act: &Act, is_new: bool) -> Result<bool, LogError> {
        match self {
            Self::Memory(log) => log.act(act),
            Self::Redis(log) => log.act(act, is_new).await,
            #[cfg(feature = "testing")]
            Self::Faulty(log) => log.act(act).await,
        }
    }
}

impl From<MemoryLog> for LogWriter {
    fn from(log: MemoryLog) -> Self {
        Self::Memory(log)
    }
}

impl From<RedisLog> for LogWriter {
    fn from(log: RedisLog) -> Self {
        Self::Redis(log)
    }
}
