//! The log in Redis: the writer's side. Every write is one call of a function in `function.lua`, which checks all
//! before it writes; here are its arguments and its answer.

use std::sync::Arc;

use redis::Cmd;
use tictac_proto::log::Alive;
use tictac_proto::position::Position;
use tokio::time::{MissedTickBehavior, interval};

use super::connection::{Link, RedisSettings};
use super::keys::Keys;
use super::{Acquired, Batch, LogError, Owner};

/// A log in Redis. Clones share one connection, over which their calls are pipelined.
#[derive(Debug, Clone)]
pub struct RedisLog {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) keys: Keys,
    settings: RedisSettings,
}

/// What a function answered.
struct Answer {
    done: bool,
    stored: Position,
    owner: Option<String>,
}

impl RedisLog {
    /// A log at an address. Connects when it is first used.
    ///
    /// # Errors
    /// [`LogError::Unexpected`] where the address is none.
    pub fn new(settings: RedisSettings) -> Result<Self, LogError> {
        let link = Link::new(&settings.url, settings.deadline)?;
        let keys = Keys::new(settings.prefix.clone());
        Ok(Self { shared: Arc::new(Shared { link, keys, settings }) })
    }

    pub(super) async fn acquire(
        &self,
        shard: u16,
        owner: &Owner,
        seen_epoch: u64,
        now_ms: u64,
    ) -> Result<Acquired, LogError> {
        let mut command = self.function("tictac_acquire_2", shard, &[]);
        command.arg(&owner.id).arg(now_ms).arg(owner.slot).arg(self.lease()).arg(seen_epoch);
        let at = self.call(shard, &command).await?;

        // From here on nobody else writes. Reading a large shard may outlast the lease: renew it meanwhile, and once
        // more at the end, which also says whether it is still ours.
        // Both are polled side by side: awaiting a renewal while the reading stands still could wait for a lock that the
        // reading holds.
        let renewing = async {
            let mut renewals = interval(self.shared.settings.lease / 3);
            renewals.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                renewals.tick().await;
                if let Err(error) = self.renew(shard, owner, at.epoch).await {
                    return error;
                }
            }
        };
        let holdings = tokio::select! {
            holdings = self.holdings(shard) => holdings?,
            error = renewing => return Err(error),
        };
        let recovered = holdings.recover();
        self.renew(shard, owner, at.epoch).await?;
        Ok(Acquired {
            epoch: at.epoch,
            n: at.seq,
            markets: recovered.markets,
            unreadable: recovered.unreadable,
            covered: recovered.covered,
        })
    }

    async fn renew(&self, shard: u16, owner: &Owner, epoch: u64) -> Result<(), LogError> {
        let mut command = self.function("tictac_renew_2", shard, &[]);
        command.arg(epoch).arg(&owner.id).arg(self.lease());
        self.call(shard, &command).await.map(drop)
    }

    pub(super) async fn release(&self, shard: u16, owner: &Owner) -> Result<(), LogError> {
        let mut command = self.function("tictac_release_2", shard, &[]);
        command.arg(&owner.id);
        self.call(shard, &command).await.map(drop)
    }

    pub(super) async fn append(&self, shard: u16, owner: &Owner, batch: &Batch) -> Result<(), LogError> {
        batch.check_room(shard, self.shared.settings.entries)?;
        let keys = &self.shared.keys;
        let markets = batch.snapshots.iter().map(|(market, _)| market).chain(&batch.gone);
        let more: Vec<String> = markets.map(|market| keys.snapshot(shard, market)).collect();
        let mut command = self.function("tictac_append_2", shard, &more);
        command.arg(batch.epoch).arg(&owner.id).arg(batch.first).arg(keys.live(shard));
        let forget = batch.forget();
        if forget.is_zero() {
            command.arg("");
        } else {
            command.arg(format!("{}-{}", forget.epoch, forget.seq + 1));
        }
        command.arg(self.shared.settings.entries);
        command.arg(batch.entries.len()).arg(batch.snapshots.len()).arg(batch.gone.len()).arg(self.lease());
        for entry in &batch.entries {
            command.arg(&entry[..]);
        }
        for (market, bytes) in &batch.snapshots {
            command.arg(&market[..]).arg(&bytes[..]);
        }
        for market in &batch.gone {
            command.arg(&market[..]);
        }
        self.call(shard, &command).await.map(drop)
    }

    pub(super) async fn alive(&self, shard: u16, owner: &Owner, alive: &Alive) -> Result<(), LogError> {
        let mut command = self.function("tictac_alive_2", shard, &[]);
        command.arg(alive.at.epoch).arg(&owner.id).arg(alive.at.seq).arg(self.shared.keys.live(shard));
        command.arg(alive.encode()).arg(self.lease());
        self.call(shard, &command).await.map(drop)
    }

    fn lease(&self) -> u64 {
        u64::try_from(self.shared.settings.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// A call of a function on a shard's keys, its arguments still to come.
    fn function(&self, name: &str, shard: u16, more: &[String]) -> Cmd {
        let keys = &self.shared.keys;
        let mut command = redis::cmd("FCALL");
        command.arg(name).arg(5 + more.len());
        command.arg(keys.owner(shard)).arg(keys.epoch(shard)).arg(keys.number(shard)).arg(keys.log(shard));
        command.arg(keys.markets(shard)).arg(more);
        command
    }

    /// Where the shard stands after a call that was done.
    async fn call(&self, shard: u16, command: &Cmd) -> Result<Position, LogError> {
        let answer = Answer::read(&self.shared.link.call::<Vec<Vec<u8>>>(command).await?)?;
        if answer.done {
            return Ok(answer.stored);
        }
        Err(LogError::Fenced { shard, stored: answer.stored, owner: answer.owner })
    }
}

impl Answer {
    fn read(parts: &[Vec<u8>]) -> Result<Self, LogError> {
        let [done, epoch, number, owner] = parts else {
            return Err(LogError::Unexpected(format!("{} values to a function call, not 4", parts.len())));
        };
        let owner = (!owner.is_empty()).then(|| String::from_utf8_lossy(owner).into_owned());
        Ok(Self { done: done == b"1", stored: Position::new(integer(epoch)?, integer(number)?), owner })
    }
}

/// A stored integer; 0 where there is none.
pub(super) fn integer(bytes: &[u8]) -> Result<u64, LogError> {
    if bytes.is_empty() {
        return Ok(0);
    }
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| LogError::Unexpected(format!("{text:?} where an epoch or a number should be")))
}
