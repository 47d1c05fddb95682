//! The log inside this process: for the gateway's embedded mode and for tests. One lock, never held over decoding;
//! followers are served under it, so that they see a shard's entries in order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tictac_proto::log::Alive;
use tictac_proto::model::MarketId;
use tictac_proto::position::{Position, next_epoch};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outbox::Outbox;
use super::recovery::{self, Holdings, RawEntry};
use super::{Acquired, Batch, LiveEvent, LogError, Owner, Resume, Snapshots, Tail};
use crate::operator::{Act, Ledger};
use crate::stream_id::StreamId;

/// Bounds of each shard's log.
#[derive(Debug, Clone, Copy)]
pub struct MemorySettings {
    /// Most entries.
    pub entries: usize,
    /// Most bytes of entries.
    pub bytes: usize,
    /// How long a lease lives without a sign of life.
    pub lease: Duration,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self { entries: 4096, bytes: 16 << 20, lease: Duration::from_secs(3) }
    }
}

/// A log inside this process. Clones share it.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

/// What a replica of an in-process log has.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Default)]
pub struct Kept {
    shards: HashMap<u16, Shard>,
    ledger: Ledger,
}

#[derive(Debug)]
struct Shared {
    settings: MemorySettings,
    shards: Mutex<HashMap<u16, Shard>>,
    ledger: Mutex<Ledger>,
}

#[derive(Debug, Clone, Default)]
struct Shard {
    at: Position,
    lease: Option<Lease>,
    log: VecDeque<RawEntry>,
    /// Of the log's entries.
    bytes: usize,
    snapshots: BTreeMap<MarketId, Bytes>,
    resume: BTreeMap<Arc<str>, StreamId>,
    followers: Vec<Outbox>,
}

#[derive(Debug, Clone)]
struct Lease {
    owner: String,
    until: Instant,
}

impl Shard {
    /// Whose lease is alive.
    fn owner(&self) -> Option<&str> {
        self.living().map(|lease| lease.owner.as_str())
    }

    /// The lease that is alive.
    fn living(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|lease| Instant::now() < lease.until)
    }

    fn fenced(&self, shard: u16) -> LogError {
        LogError::Fenced { shard, stored: self.at, owner: self.owner().map(Into::into) }
    }

    fn check(&self, shard: u16, owner: &Owner, at: Position) -> Result<(), LogError> {
        if self.owner() == Some(owner.id.as_str()) && self.at == at {
            Ok(())
        } else {
            Err(self.fenced(shard))
        }
    }

    fn publish(&self, shard: u16, bytes: &Bytes) {
        for follower in &self.followers {
            follower.message(shard, bytes.clone());
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.log.pop_front() {
            self.bytes -= first.bytes.len();
        }
    }

    fn after(&self, after: Position) -> Vec<RawEntry> {
        let from = self.log.partition_point(|entry| entry.at < after);
        self.log.range(from..).cloned().collect()
    }

    fn holdings(&self) -> Holdings {
        Holdings {
            head: self.at,
            snapshots: self
                .snapshots
                .iter()
                .map(|(market, bytes)| (market.clone(), Some(bytes.clone())))
                .collect(),
            log: self.log.iter().cloned().collect(),
        }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(MemorySettings::default())
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(settings: MemorySettings) -> Self {
        Self { shared: Arc::new(Shared { settings, shards: Mutex::default(), ledger: Mutex::default() }) }
    }

    fn shards(&self) -> MutexGuard<'_, HashMap<u16, Shard>> {
        self.shared.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that it holds now, as a replica has it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn copy(&self) -> Kept {
        let ledger = self.ledger();
        Kept { shards: self.shards().clone(), ledger }
    }

    /// Falls back to what a replica has: what came after it is lost, but for the followers.
    #[cfg(feature = "testing")]
    pub fn fall_back(&self, to: &Kept) {
        let mut shards = self.shards();
        for (number, shard) in &mut *shards {
            let old = to.shards.get(number).cloned().unwrap_or_default();
            *shard = Shard { followers: std::mem::take(&mut shard.followers), ..old };
        }
        *self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner) = to.ledger.clone();
    }

    /// Loses everything but its followers, as a Redis without persistence does when it starts anew.
    #[cfg(feature = "testing")]
    pub fn forget(&self) {
        for shard in self.shards().values_mut() {
            *shard = Shard { followers: std::mem::take(&mut shard.followers), ..Shard::default() };
        }
        *self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Ledger::default();
    }

    pub(crate) fn acquire(
        &self,
        shard: u16,
        owner: &Owner,
        seen_epoch: u64,
        now_ms: u64,
    ) -> Result<Acquired, LogError> {
        let (at, holdings, resume) = {
            let mut shards = self.shards();
            let state = shards.entry(shard).or_default();
            // A lease that is remembered by a log which forgot a later epoch keeps nobody out.
            let forgot = seen_epoch > state.at.epoch;
            if let Some(lease) = state.living().filter(|lease| lease.owner != owner.id && !forgot) {
                let remaining = lease.until.duration_since(Instant::now());
                let (owner, epoch) = (lease.owner.clone(), state.at.epoch);
                return Err(LogError::Held { shard, owner, epoch, remaining });
            }
            let holdings = state.holdings();
            state.at.epoch = next_epoch(state.at.epoch, seen_epoch, now_ms, owner.slot);
            state.lease =
                Some(Lease { owner: owner.id.clone(), until: Instant::now() + self.shared.settings.lease });
            (state.at, holdings, state.resume.clone())
        };
        Ok(holdings.recover().into_acquired(at, resume))
    }

    pub(crate) fn look(&self, shard: u16) -> Acquired {
        let (at, holdings, resume) = {
            let mut shards = self.shards();
            let state = shards.entry(shard).or_default();
            (state.at, state.holdings(), state.resume.clone())
        };
        holdings.recover().into_acquired(at, resume)
    }

    pub(crate) fn append(&self, shard: u16, owner: &Owner, batch: &Batch) -> Result<(), LogError> {
        let settings = self.shared.settings;
        let mut shards = self.shards();
        let state = shards.entry(shard).or_default();
        state.check(shard, owner, Position::new(batch.epoch, batch.first.wrapping_sub(1)))?;
        batch.check_room(shard, settings.entries as u64)?;
        let added: usize = batch.entries.iter().map(Bytes::len).sum();
        if state.bytes + added > settings.bytes {
            let kept: Vec<usize> =
                state.log.iter().filter(|e| e.at > batch.covered).map(|e| e.bytes.len()).collect();
            if kept.iter().sum::<usize>() + added > settings.bytes {
                return Err(LogError::Full {
                    shard,
                    uncovered: (kept.len() + batch.entries.len()) as u64,
                    covered: batch.covered,
                    capacity: settings.entries as u64,
                });
            }
        }

        for (i, bytes) in batch.entries.iter().enumerate() {
            let at = Position::new(batch.epoch, batch.first + i as u64);
            state.log.push_back(RawEntry { at, bytes: bytes.clone() });
        }
        state.bytes += added;
        for (market, bytes) in &batch.snapshots {
            state.snapshots.insert(market.clone(), bytes.clone());
        }
        for market in &batch.gone {
            state.snapshots.remove(market);
        }
        state.at.seq = batch.last();
        state.resume.extend(batch.resume.iter().cloned());
        while let Some(first) = state.log.front() {
            let crowded = state.log.len() > settings.entries || state.bytes > settings.bytes;
            if first.at > batch.covered || (first.at > batch.forget() && !crowded) {
                break;
            }
            state.forget_first();
        }
        if let Some(lease) = &mut state.lease {
            lease.until = Instant::now() + settings.lease;
        }
        for bytes in &batch.entries {
            state.publish(shard, bytes);
        }
        Ok(())
    }

    pub(crate) fn alive(
        &self,
        shard: u16,
        owner: &Owner,
        alive: &Alive,
        resume: Vec<Resume>,
    ) -> Result<(), LogError> {
        let mut shards = self.shards();
        let state = shards.entry(shard).or_default();
        state.check(shard, owner, alive.at)?;
        if let Some(lease) = &mut state.lease {
            lease.until = Instant::now() + self.shared.settings.lease;
        }
        state.resume.extend(resume);
        state.publish(shard, &alive.encode().into());
        Ok(())
    }

    pub(crate) fn release(&self, shard: u16, owner: &Owner) -> Result<(), LogError> {
        let mut shards = self.shards();
        let state = shards.entry(shard).or_default();
        if state.owner() != Some(owner.id.as_str()) {
            return Err(state.fenced(shard));
        }
        state.lease = None;
        Ok(())
    }

    pub(crate) fn ledger(&self) -> Ledger {
        self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn act(&self, act: &Act) -> Result<bool, LogError> {
        let mut ledger = self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let later = ledger.acts().any(|stored| stored.scope == act.scope && stored.at > act.at);
        if later {
            return Ok(false);
        }
        ledger.note(act.clone()).map_err(LogError::Unexpected)?;
        Ok(true)
    }

    pub(super) fn tail(&self, shard: u16, after: Position) -> Result<Tail, LogError> {
        let (head, log) = match self.shards().get(&shard) {
            Some(state) => (state.at, state.after(after)),
            None => Default::default(),
        };
        recovery::tail(after, head, log)
    }

    pub(super) fn snapshots(&self, shard: u16) -> Result<Snapshots, LogError> {
        let holdings = self.shards().get(&shard).map(Shard::holdings).unwrap_or_default();
        holdings.into_snapshots()
    }

    pub(super) fn live(&self, capacity: usize) -> (MemoryFollower, mpsc::Receiver<LiveEvent>) {
        let (outbox, receiver) = Outbox::new(capacity);
        (MemoryFollower { log: self.clone(), outbox }, receiver)
    }
}

/// One follower of the in-process log.
#[derive(Debug)]
pub(super) struct MemoryFollower {
    log: MemoryLog,
    outbox: Outbox,
}

impl MemoryFollower {
    pub(super) fn follow(&self, shard: u16) {
        let mut shards = self.log.shards();
        let followers = &mut shards.entry(shard).or_default().followers;
        if !followers.iter().any(|follower| follower.is_same(&self.outbox)) {
            followers.push(self.outbox.clone());
        }
        self.outbox.confirmed(shard);
    }

    pub(super) fn unfollow(&self, shard: u16) {
        if let Some(state) = self.log.shards().get_mut(&shard) {
            state.followers.retain(|follower| !follower.is_same(&self.outbox));
        }
        self.outbox.forget(shard);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.outbox.dropped()
    }
}

impl Drop for MemoryFollower {
    fn drop(&mut self) {
        for state in self.log.shards().values_mut() {
            state.followers.retain(|follower| !follower.is_same(&self.outbox));
        }
    }
}
