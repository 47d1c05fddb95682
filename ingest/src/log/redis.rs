//! The log in Redis: the writer's side. Every write is one call of a function in `function.lua`, which checks all
//! before it writes; here are its arguments and its answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use tictac_proto::log::Alive;
use tictac_proto::position::Position;
use tokio::time::{MissedTickBehavior, interval};

use super::keys::Keys;
use super::{Acquired, Batch, LogError, Owner, Resume};
use crate::link::{Link, RedisSettings};
use crate::operator::{Act, Ledger, MAX_SCOPES};
use crate::stream_id::StreamId;

/// About how many acts the audit keeps.
const AUDIT: u32 = 10_000;

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
    /// How long the owner's lease still runs, where it keeps others out.
    remaining: Option<Duration>,
}

impl RedisLog {
    /// A log at an address. Connects when it is first used.
    ///
    /// # Errors
    /// [`LogError::Unexpected`] where the address is none.
    pub fn new(settings: RedisSettings) -> Result<Self, LogError> {
        // A command that hangs must leave time for the next one before the lease ends.
        let deadline = settings.deadline.min(settings.lease * 2 / 3);
        let link = Link::new(&settings, deadline)?;
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
        let mut command = self.function("tictac_acquire_4", shard, &[]);
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
        let reading = async { Ok((self.resume(shard).await?, self.holdings(shard).await?)) };
        let (resume, holdings) = tokio::select! {
            read = reading => read?,
            error = renewing => return Err(error),
        };
        let recovered = holdings.recover();
        self.renew(shard, owner, at.epoch).await?;
        Ok(recovered.into_acquired(at, resume))
    }

    /// What is stored of a shard, whoever owns it.
    pub(super) async fn look(&self, shard: u16) -> Result<Acquired, LogError> {
        // First how far it has come: what is read after it is at least that far.
        let resume = self.resume(shard).await?;
        let holdings = self.holdings(shard).await?;
        let head = holdings.head;
        Ok(holdings.recover().into_acquired(head, resume))
    }

    /// How far sources' streams are in the log.
    async fn resume(&self, shard: u16) -> Result<BTreeMap<Arc<str>, StreamId>, LogError> {
        let key = self.shared.keys.resume(shard);
        let mut command = redis::cmd("HGETALL");
        command.arg(&key);
        let stored: Vec<(String, String)> = self.shared.link.query(&key, &command).await?;
        let read = |(source, id): (String, String)| match id.parse() {
            Ok(id) => Ok((Arc::from(source), id)),
            Err(why) => Err(LogError::Unexpected(format!("{why}; delete {key}"))),
        };
        stored.into_iter().map(read).collect()
    }

    async fn renew(&self, shard: u16, owner: &Owner, epoch: u64) -> Result<(), LogError> {
        let mut command = self.function("tictac_renew_4", shard, &[]);
        command.arg(epoch).arg(&owner.id).arg(self.lease());
        self.call(shard, &command).await.map(drop)
    }

    pub(super) async fn release(&self, shard: u16, owner: &Owner) -> Result<(), LogError> {
        let mut command = self.function("tictac_release_4", shard, &[]);
        command.arg(&owner.id).arg(self.shared.keys.free()).arg(shard);
        self.call(shard, &command).await.map(drop)
    }

    pub(super) async fn append(&self, shard: u16, owner: &Owner, batch: &Batch) -> Result<(), LogError> {
        batch.check_room(shard, self.shared.settings.entries)?;
        let keys = &self.shared.keys;
        let markets = batch.snapshots.iter().map(|(market, _)| market).chain(&batch.gone);
        let more: Vec<String> = markets.map(|market| keys.snapshot(shard, market)).collect();
        let mut command = self.function("tictac_append_4", shard, &more);
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
        note(&mut command, &batch.resume);
        self.call(shard, &command).await.map(drop)
    }

    pub(super) async fn alive(
        &self,
        shard: u16,
        owner: &Owner,
        alive: &Alive,
        resume: &[Resume],
    ) -> Result<(), LogError> {
        let mut command = self.function("tictac_alive_4", shard, &[]);
        command.arg(alive.at.epoch).arg(&owner.id).arg(alive.at.seq).arg(self.shared.keys.live(shard));
        command.arg(alive.encode()).arg(self.lease());
        note(&mut command, resume);
        self.call(shard, &command).await.map(drop)
    }

    /// What operators did last, by scope.
    pub(super) async fn ledger(&self) -> Result<Ledger, LogError> {
        let key = self.shared.keys.ledger();
        let mut command = redis::cmd("HVALS");
        command.arg(&key);
        let stored: Vec<Vec<u8>> = self.shared.link.query(&key, &command).await?;
        let mut ledger = Ledger::default();
        for act in stored {
            // One that can't be read was written by hand: the others count all the same.
            let noted =
                serde_json::from_slice(&act).map_err(|e| e.to_string()).and_then(|act| ledger.note(act));
            if let Err(why) = noted {
                let act = String::from_utf8_lossy(&act);
                tracing::error!(key, %act, why, "an operator's act can't be read: delete it and act again");
            }
        }
        Ok(ledger)
    }

    /// Notes an act, and tells every ingest. Whether there is none that is later.
    pub(super) async fn act(&self, act: &Act, is_new: bool) -> Result<bool, LogError> {
        let keys = &self.shared.keys;
        let mut command = redis::cmd("FCALL");
        command.arg("tictac_operate_4").arg(2).arg(keys.ledger()).arg(keys.audit());
        let json = serde_json::to_string(act).map_err(|error| LogError::Unexpected(error.to_string()))?;
        command.arg(&act.scope).arg(json).arg(keys.operator());
        command.arg(u8::from(act.is_of_ledger())).arg(u8::from(is_new)).arg(MAX_SCOPES).arg(AUDIT);
        self.shared.link.call::<i64>(&keys.ledger(), &command).await.map(|done| done == 1)
    }

    fn lease(&self) -> u64 {
        u64::try_from(self.shared.settings.lease.as_millis()).unwrap_or(u64::MAX)
    }

    /// A call of a function on a shard's keys, its arguments still to come.
    fn function(&self, name: &str, shard: u16, more: &[String]) -> Cmd {
        let keys = &self.shared.keys;
        let mut command = redis::cmd("FCALL");
        command.arg(name).arg(6 + more.len());
        command.arg(keys.owner(shard)).arg(keys.epoch(shard)).arg(keys.number(shard)).arg(keys.log(shard));
        command.arg(keys.markets(shard)).arg(keys.resume(shard)).arg(more);
        command
    }

    /// Where the shard stands after a call that was done.
    async fn call(&self, shard: u16, command: &Cmd) -> Result<Position, LogError> {
        let key = self.shared.keys.owner(shard);
        let answer = Answer::read(&self.shared.link.call::<Vec<Vec<u8>>>(&key, command).await?)?;
        if answer.done {
            return Ok(answer.stored);
        }
        if let (Some(remaining), Some(owner)) = (answer.remaining, &answer.owner) {
            return Err(LogError::Held {
                shard,
                owner: owner.clone(),
                epoch: answer.stored.epoch,
                remaining,
            });
        }
        Err(LogError::Fenced { shard, stored: answer.stored, owner: answer.owner })
    }
}

impl Answer {
    fn read(parts: &[Vec<u8>]) -> Result<Self, LogError> {
        let [done, epoch, number, owner, rest @ ..] = parts else {
            return Err(LogError::Unexpected(format!(
                "{} values to a function call, not at least 4",
                parts.len()
            )));
        };
        let owner = (!owner.is_empty()).then(|| String::from_utf8_lossy(owner).into_owned());
        let stored = Position::new(integer(epoch)?, integer(number)?);
        // A lease without an end (-1) was set by hand; one that just ended (-2) is free.
        let remaining = rest.first().map(|ms| {
            let ms: i64 = String::from_utf8_lossy(ms).parse().unwrap_or(0);
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        });
        Ok(Self { done: done == b"1", stored, owner, remaining })
    }
}

/// What `note` in the functions takes.
fn note(command: &mut Cmd, resume: &[Resume]) {
    command.arg(resume.len());
    for (source, id) in resume {
        command.arg(&source[..]).arg(id.to_string());
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
