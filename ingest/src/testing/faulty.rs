//! A log that fails as a Redis behind a network does, in virtual time: requests and answers take their time or get lost, a
//! link is cut, the server refuses. What it holds is the in-process log, which keeps the same contract as the one in Redis.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tictac_proto::log::Alive;
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep, sleep_until};

use crate::log::{Acquired, Batch, LogError, LogWriter, MemoryLog, Owner, Resume};
use crate::operator::{Act, Ledger};

/// How long a call may take, as the one to Redis.
const DEADLINE: Duration = Duration::from_secs(1);

/// What goes wrong on one way to the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Shortest and longest time that a request takes, and an answer.
    pub delay: (Duration, Duration),
    /// Of a thousand requests so many never arrive.
    pub lost_requests: u32,
    /// Of a thousand answers so many never arrive.
    pub lost_answers: u32,
    /// Nothing gets through, and nobody says so.
    pub is_cut: bool,
    /// Everything is refused at once.
    pub is_refused: bool,
    /// Writes are refused, as by a Redis that is full.
    pub is_full: bool,
}

/// One process's way to the log.
#[derive(Debug, Clone)]
pub struct FaultyLog {
    log: MemoryLog,
    way: Arc<Mutex<Way>>,
    /// Where it is told that a shard is free.
    free: broadcast::Sender<u16>,
}

#[derive(Debug)]
struct Way {
    faults: Faults,
    dice: SmallRng,
}

fn unavailable(why: &str) -> LogError {
    LogError::Unavailable(why.into())
}

impl FaultyLog {
    /// A way on which nothing goes wrong yet.
    #[must_use]
    pub fn new(log: MemoryLog, dice: SmallRng, free: broadcast::Sender<u16>) -> Self {
        Self { log, way: Arc::new(Mutex::new(Way { faults: Faults::default(), dice })), free }
    }

    /// From now on this goes wrong.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.way().faults);
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Half of a call; whether it gets through.
    async fn half(&self, lost: impl FnOnce(&Faults) -> u32) -> bool {
        let (delay, lost) = {
            let way = &mut *self.way();
            let (least, most) = way.faults.delay;
            let delay = way.dice.random_range(least..=most);
            (delay, way.dice.random_range(0..1000) < lost(&way.faults))
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        !lost && !self.way().faults.is_cut
    }

    async fn call<T>(
        &self,
        writes: bool,
        act: impl FnOnce(&MemoryLog) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let deadline = Instant::now() + DEADLINE;
        if self.way().faults.is_refused {
            return Err(unavailable("refused"));
        }
        if self.half(|faults| faults.lost_requests).await {
            if writes && self.way().faults.is_full {
                return Err(unavailable("full"));
            }
            let answer = act(&self.log);
            if self.half(|faults| faults.lost_answers).await {
                return answer;
            }
        }
        sleep_until(deadline).await;
        Err(unavailable("no answer"))
    }

    pub(crate) async fn acquire(
        &self,
        shard: u16,
        owner: &Owner,
        seen: u64,
        now: u64,
    ) -> Result<Acquired, LogError> {
        self.call(true, |log| log.acquire(shard, owner, seen, now)).await
    }

    pub(crate) async fn look(&self, shard: u16) -> Result<Acquired, LogError> {
        self.call(false, |log| Ok(log.look(shard))).await
    }

    pub(crate) async fn append(&self, shard: u16, owner: &Owner, batch: Batch) -> Result<(), LogError> {
        self.call(true, |log| log.append(shard, owner, &batch)).await
    }

    pub(crate) async fn alive(
        &self,
        shard: u16,
        owner: &Owner,
        alive: Alive,
        resume: Vec<Resume>,
    ) -> Result<(), LogError> {
        self.call(true, |log| log.alive(shard, owner, &alive, resume)).await
    }

    pub(crate) async fn release(&self, shard: u16, owner: &Owner) -> Result<(), LogError> {
        let released = |log: &MemoryLog| {
            let done = log.release(shard, owner);
            if done.is_ok() {
                // Nobody listens: they find out when the lease would have ended.
                let _ = self.free.send(shard);
            }
            done
        };
        self.call(true, released).await
    }

    pub(crate) async fn ledger(&self) -> Result<Ledger, LogError> {
        self.call(false, |log| Ok(log.ledger())).await
    }

    pub(crate) async fn act(&self, act: &Act) -> Result<bool, LogError> {
        self.call(true, |log| log.act(act)).await
    }
}

impl From<FaultyLog> for LogWriter {
    fn from(log: FaultyLog) -> Self {
        Self::Faulty(log)
    }
}
