//! What is under way between the engine and the log. At most one thing for each shard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use tictac_proto::log::{Alive, CATALOGUE};
use tictac_proto::position::Position;
use tokio::sync::Notify;

use crate::chance::random;
use crate::log::{Acquired, Batch, LogError, LogWriter, Owner, Resume};
use crate::operator::{Act, Ledger};

/// Longest wait between two tries: what was away is found again within this, and it bounds what a return costs.
const MAX_WAIT: Duration = Duration::from_millis(500);
const MIN_WAIT: Duration = Duration::from_millis(50);
/// Tries that stand for an owner whose lease has no end: they are about a tenth of a second apart.
const STANDING_BY: u32 = 2;

/// What came of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A batch is written: so many entries in so many seconds.
    Written { entries: usize, seconds: f64 },
    /// `alive` is sent, or the log is away and the next one will do.
    Said,
    /// The log refused: the shard must be taken over.
    Refused(LogError),
    /// The shard is ours.
    Acquired(Box<Acquired>),
    /// It is not, for now.
    Denied(LogError),
    /// What is stored of a shard that somebody else owns.
    Looked(Box<Acquired>),
    /// What operators did, as it is stored; or why it can't be read or stored now.
    Ledger(Result<Ledger, LogError>),
}

/// A wait before the next try: anything up to twice the last bound, so that many don't come back at once.
pub(crate) fn wait(tries: u32) -> Duration {
    let bound = MIN_WAIT.saturating_mul(1 << tries.min(6)).min(MAX_WAIT);
    bound.mul_f64(random().random_range(0.0..1.0))
}

/// Writes a batch. While the log can't be reached it goes on trying: only the log can say that somebody else owns the
/// shard now, or that the batch was written before the answer was lost.
pub(super) async fn append(log: LogWriter, owner: Owner, shard: u16, batch: Batch) -> (u16, Outcome) {
    let entries = batch.entries.len();
    let last = Position::new(batch.epoch, batch.last());
    let begun = Instant::now();
    let written = || Outcome::Written { entries, seconds: begun.elapsed().as_secs_f64() };
    let mut tries = 0;
    loop {
        match log.append(shard, &owner, batch.clone()).await {
            Ok(()) => return (shard, written()),
            Err(LogError::Unavailable(why)) => {
                if tries == 0 {
                    tracing::warn!(
                        shard,
                        why,
                        "the log can't be reached: trying again until it can; books are kept"
                    );
                }
                tokio::time::sleep(wait(tries)).await;
                tries += 1;
            }
            // It was written, and its answer lost.
            Err(LogError::Fenced { stored, owner: Some(id), .. })
                if tries > 0 && entries > 0 && stored == last && id == owner.id =>
            {
                return (shard, written());
            }
            Err(error) => return (shard, Outcome::Refused(error)),
        }
    }
}

/// Says `alive`.
pub(super) async fn alive(
    log: LogWriter,
    owner: Owner,
    shard: u16,
    alive: Alive,
    resume: Vec<Resume>,
) -> (u16, Outcome) {
    match log.alive(shard, &owner, alive, resume).await {
        Ok(()) => (shard, Outcome::Said),
        // A later one says more.
        Err(LogError::Unavailable(_)) => (shard, Outcome::Said),
        Err(error) => (shard, Outcome::Refused(error)),
    }
}

/// How long until the next try after one that failed: until the owner's lease may have ended, or by the number of tries.
pub(super) fn pause(error: &LogError, tries: u32) -> Duration {
    match error {
        // A lease without an end was not ours; whoever made it may end it at any time.
        LogError::Held { remaining, .. } if remaining.is_zero() => MIN_WAIT + wait(STANDING_BY),
        // All that stand by would ask in the same millisecond.
        LogError::Held { remaining, .. } => *remaining + Duration::from_millis(random().random_range(1..20)),
        _ => wait(tries),
    }
}

/// Tries to take a shard over, after a wait that ends early when the shard is said to be free.
pub(super) async fn acquire(
    log: LogWriter,
    owner: Owner,
    shard: u16,
    seen_epoch: u64,
    pause: Duration,
    free: Arc<Notify>,
) -> (u16, Outcome) {
    if !pause.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = free.notified() => {}
        }
    }
    let now = u64::try_from(crate::clock::now_ms()).unwrap_or(0);
    match log.acquire(shard, &owner, seen_epoch, now).await {
        Ok(acquired) => (shard, Outcome::Acquired(Box::new(acquired))),
        Err(error) => (shard, Outcome::Denied(error)),
    }
}

/// Reads what is stored of a shard that somebody else owns.
pub(super) async fn look(log: LogWriter, shard: u16) -> (u16, Outcome) {
    match log.look(shard).await {
        Ok(stored) => (shard, Outcome::Looked(Box::new(stored))),
        Err(error) => (shard, Outcome::Denied(error)),
    }
}

/// Reads what operators did; stores before what is not there though we know it.
pub(super) async fn ledger(log: LogWriter, missing: Vec<Act>) -> (u16, Outcome) {
    for act in &missing {
        if let Err(error) = log.act(act, false).await {
            tracing::warn!(scope = act.scope, %error, "an operator's act can't be stored again yet");
            return (CATALOGUE, Outcome::Ledger(Err(error)));
        }
    }
    (CATALOGUE, Outcome::Ledger(log.ledger().await))
}
