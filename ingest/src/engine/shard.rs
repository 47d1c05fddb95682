//! One shard as its owner sees it: the sequencer, entries that wait to be written, and which snapshots go with them.
//!
//! Each changed market is stored at the latest every few seconds, oldest change first, so that `covered` (up to where
//! snapshots hold every change) follows the log's head closely and the log may forget what is below it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tictac_proto::limits::MAX_MARKETS_PER_SHARD;
use tictac_proto::log::{Entry, What};
use tictac_proto::model::MarketId;
use tictac_proto::position::Position;
use tictac_proto::sequencer::Sequencer;
use tictac_proto::wire::Times;

use super::settings::EngineSettings;
use super::waiting::{Awaited, Going, Orphan, Ready, Said};
use crate::log::{Acquired, Batch};
use crate::stream_id::StreamId;

/// Most entries of one batch.
const MAX_ENTRIES: usize = 1_024;
/// A batch that has reached this many bytes takes nothing more.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// How often the log's head is noted, ms, for knowing where it stood a while ago.
const MARK_EVERY: i64 = 1_000;

/// One shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) sequencer: Sequencer,
    pub(super) owned: bool,
    /// Whether somebody else owned it when we last asked.
    pub(super) held: bool,
    /// The highest epoch of others that we heard of.
    pub(super) seen: u64,
    pub(super) pending: VecDeque<Entry>,
    /// Up to where the log has confirmed.
    pub(super) written: Position,
    /// Number of the last image with which the epoch began.
    imaged: u64,
    /// Last entry of the batch under way; a message without entries has the one before.
    pub(super) in_flight: Option<Position>,
    /// Number of the first change of a market that no snapshot holds.
    dirty: HashMap<MarketId, u64, RandomState>,
    /// When each dirty market became so, oldest first; entries that `dirty` does not confirm are over.
    queue: VecDeque<(i64, u64, MarketId)>,
    /// Markets that are stored with the batch that holds their last change.
    urgent: BTreeSet<MarketId>,
    ready: Vec<Ready>,
    /// Markets that moved away: the entry which says so waits until the one that images them there is written, lest a
    /// death between the two loses them.
    moves: VecDeque<(u64, Awaited)>,
    /// Stored markets that are elsewhere: their snapshots here wait until their images there are written.
    elsewhere: Vec<(MarketId, u16)>,
    /// Snapshots to be deleted with the batch that reaches this number.
    gone: Vec<Going>,
    /// Those whose `gone` is under way.
    leaving: Vec<MarketId>,
    /// Markets that went while the shard was not ours: what is stored of them is not restored.
    gone_unowned: HashSet<MarketId, RandomState>,
    covered: Position,
    /// Most entries that wait. Beyond it they are given up and the shard is taken over anew: its books hold all they said.
    /// Snapshots are ahead of what is written by as much, so that it must leave half of the log's room.
    most_pending: usize,
    marks: VecDeque<(i64, Position)>,
    pub(super) alive_due: i64,
    /// Whether the last that was sent was an `alive`.
    pub(super) alive_last: bool,
    /// What was said last of each source's feed in this epoch.
    pub(super) said: BTreeMap<Arc<str>, Said>,
    /// Streams of which the log holds more than the books that will be written next: what it must be told with them.
    pub(super) lowered: BTreeMap<Arc<str>, StreamId>,
    /// Whether what is under way tells it.
    pub(super) lowering: bool,
    /// How far the log holds sources' streams for sure, as it was told or told us last.
    pub(super) resumed: BTreeMap<Arc<str>, StreamId>,
}

impl Shard {
    pub(super) fn new(log_capacity: u64) -> Self {
        Self {
            sequencer: Sequencer::new(),
            owned: false,
            held: false,
            seen: 0,
            pending: VecDeque::new(),
            written: Position::ZERO,
            imaged: 0,
            in_flight: None,
            dirty: HashMap::default(),
            queue: VecDeque::new(),
            urgent: BTreeSet::new(),
            ready: Vec::new(),
            moves: VecDeque::new(),
            elsewhere: Vec::new(),
            gone: Vec::new(),
            leaving: Vec::new(),
            gone_unowned: HashSet::default(),
            covered: Position::ZERO,
            most_pending: (log_capacity as usize / 2).saturating_sub(2 * MAX_ENTRIES).max(MAX_ENTRIES),
            marks: VecDeque::new(),
            alive_due: 0,
            alive_last: false,
            said: BTreeMap::new(),
            lowered: BTreeMap::new(),
            lowering: false,
            resumed: BTreeMap::new(),
        }
    }

    /// The last entry that waits or is under way.
    pub(super) fn last_waiting(&self) -> Option<Position> {
        let waiting = self.pending.back().map(|entry| entry.at).or(self.in_flight);
        waiting.filter(|at| *at > self.written)
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owned
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn written(&self) -> Position {
        self.written
    }

    /// Whether a stored market is to be taken in again.
    pub(super) fn may_restore(&self, market: &MarketId) -> bool {
        !self.gone_unowned.contains(market)
    }

    /// What went while the shard was not ours may come back.
    pub(super) fn forget_gone(&mut self) {
        self.gone_unowned.clear();
    }

    /// Whether everything is written and stored.
    pub(super) fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self.in_flight.is_none()
            && self.dirty.is_empty()
            && self.ready.is_empty()
            && self.elsewhere.is_empty()
    }

    /// Whether there are stored markets here that are elsewhere.
    pub(super) fn has_elsewhere(&self) -> bool {
        !self.elsewhere.is_empty()
    }

    /// The shards where stored markets are.
    pub(super) fn elsewhere(&self) -> BTreeSet<u16> {
        self.elsewhere.iter().map(|e| e.1).collect()
    }

    /// The images of another shard are written, or not ours to write: what is stored here of its markets can go.
    pub(super) fn let_go(&mut self, shard: u16, times: Times, now: i64) {
        let there: Vec<MarketId> = self.elsewhere.extract_if(.., |e| e.1 == shard).map(|e| e.0).collect();
        there.iter().for_each(|market| self.orphan(market, times, now));
    }

    /// What is stored here and should not be is gone: whoever reads the snapshots before they are deleted must hear it.
    fn orphan(&mut self, market: &MarketId, times: Times, now: i64) {
        let entry = self.sequencer.gone_unseen(market, times);
        self.push(entry, now);
    }

    /// Whether the images with which the epoch began are written, or somebody else's to write.
    pub(super) fn has_images_written(&self) -> bool {
        if self.owned { self.written.seq >= self.imaged } else { self.held }
    }

    /// Whether an entry of this shard is written, or will not be by us.
    pub(super) fn has_written(&self, at: Position) -> bool {
        if !self.owned {
            return true;
        }
        // Of an earlier epoch: all was imaged anew since.
        if at.epoch == self.written.epoch { at <= self.written } else { self.written.seq >= self.imaged }
    }

    /// The market that went by the last entry is in another shard from now on.
    pub(super) fn moved(&mut self, awaited: Awaited) {
        if let Some(last) = self.pending.back().filter(|_| self.owned) {
            self.moves.push_back((last.at.seq, awaited));
        }
    }

    /// The first move away whose other half was not written when it was last looked at.
    pub(super) fn first_move(&self) -> Option<Awaited> {
        self.moves.front().map(|m| m.1)
    }

    /// The other half of the first move is written.
    pub(super) fn pass_move(&mut self) {
        self.moves.pop_front();
    }

    /// Takes in an entry that the sequencer just made.
    pub(super) fn push(&mut self, entry: Entry, now: i64) {
        if !self.owned {
            if let What::Gone { market } = &entry.what
                && self.gone_unowned.len() < MAX_MARKETS_PER_SHARD
            {
                self.gone_unowned.insert(market.clone());
            } else if let What::Image { market, .. } = &entry.what {
                self.gone_unowned.remove(market);
            }
            return;
        }
        let seq = entry.at.seq;
        match &entry.what {
            What::Delta { market, stop, .. } => self.touch(market, seq, now, *stop),
            What::Image { market, .. } => {
                self.gone.iter_mut().filter(|g| g.market == *market).for_each(|g| g.deletes = false);
                self.elsewhere.retain(|e| e.0 != *market);
                self.touch(market, seq, now, true);
            }
            What::Stop { markets, .. } => markets.iter().for_each(|m| self.touch(m, seq, now, true)),
            What::Gone { market } => {
                let ready = self.ready.iter().filter(|r| r.market == *market).map(|r| r.first);
                let first = ready.chain(self.dirty.remove(market)).min().unwrap_or(u64::MAX);
                self.ready.retain(|r| r.market != *market);
                self.gone.push(Going { seq, market: market.clone(), first, deletes: true });
            }
        }
        self.pending.push_back(entry);
        if self.pending.len() > self.most_pending {
            self.lose();
        }
    }

    fn touch(&mut self, market: &MarketId, seq: u64, now: i64, urgent: bool) {
        if !self.dirty.contains_key(market) {
            self.dirty.insert(market.clone(), seq);
            self.queue.push_back((now, seq, market.clone()));
        }
        if urgent {
            self.urgent.insert(market.clone());
        }
    }

    /// Begins an epoch of our own. Stored markets were restored before.
    pub(super) fn take_over(&mut self, acquired: &Acquired, orphans: Vec<Orphan>, times: Times, now: i64) {
        self.lose();
        (self.owned, self.held) = (true, false);
        self.said.clear();
        self.gone_unowned.clear();
        self.written = Position::new(acquired.epoch, acquired.n);
        self.covered = acquired.covered;
        self.alive_due = now;
        self.marks.clear();
        self.pending.extend(self.sequencer.take_over(acquired.epoch, acquired.n, times));
        // Until the last image is stored, changes from before it may still be in the log alone.
        let first = acquired.covered.seq + 1;
        for entry in &self.pending {
            if let What::Image { market, .. } = &entry.what {
                self.dirty.insert(market.clone(), first);
                self.queue.push_back((now, first, market.clone()));
                self.urgent.insert(market.clone());
            }
        }
        for (market, elsewhere) in orphans {
            match elsewhere {
                Some(shard) => self.elsewhere.push((market, shard)),
                None => self.orphan(&market, times, now),
            }
        }
        self.imaged = self.pending.back().map_or(acquired.n, |last| last.at.seq);
    }

    /// The shard is not ours any more, or not known to be. Books stay.
    pub(super) fn lose(&mut self) {
        let going = self.gone.drain(..).map(|going| going.market).chain(self.leaving.drain(..));
        for market in going {
            if self.gone_unowned.len() < MAX_MARKETS_PER_SHARD && self.sequencer.book(&market).is_none() {
                self.gone_unowned.insert(market);
            }
        }
        self.owned = false;
        self.pending.clear();
        self.in_flight = None;
        self.dirty.clear();
        self.queue.clear();
        self.urgent.clear();
        self.ready.clear();
        self.moves.clear();
        self.elsewhere.clear();
    }

    /// The entry that waits for one of another shard: nothing from it on is written before that.
    fn held_at(&self) -> u64 {
        self.moves.front().map_or(u64::MAX, |m| m.0)
    }

    /// Whether something can be written now.
    pub(super) fn has_batch(&mut self, now: i64, settings: &EngineSettings) -> bool {
        if !self.owned || self.in_flight.is_some() || self.held_at() == self.written.seq + 1 {
            return false;
        }
        while self.queue.front().is_some_and(|(_, first, market)| self.dirty.get(market) != Some(first)) {
            self.queue.pop_front();
        }
        let aged = self.queue.front().is_some_and(|(since, ..)| now - since >= settings.snapshot_every);
        aged || !self.pending.is_empty() || !self.gone.is_empty() || !self.ready.is_empty()
    }

    /// The next batch, if there is something to write and nothing is under way.
    pub(super) fn take_batch(&mut self, now: i64, settings: &EngineSettings) -> Option<Batch> {
        if !self.has_batch(now, settings) {
            return None;
        }
        self.alive_last = false;
        if self.pending.is_empty() {
            // Snapshots alone: a failover that loses them must not go unseen, since the log would be trimmed as if they were stored.
            let times = Times { source: now, received: now, ..Times::default() };
            let entry = self.sequencer.nothing(times);
            self.pending.push_back(entry);
        }
        let held_at = self.held_at();
        let mut batch = Batch { epoch: self.written.epoch, first: self.written.seq + 1, ..Batch::default() };
        let mut bytes = 0;
        while batch.entries.len() < MAX_ENTRIES && bytes < MAX_BYTES {
            if self.pending.front().is_none_or(|entry| entry.at.seq >= held_at) {
                break;
            }
            let Some(mut entry) = self.pending.pop_front() else { break };
            entry.times.published = now;
            let encoded = Bytes::from(entry.encode());
            bytes += encoded.len();
            batch.entries.push(encoded);
        }
        let last = self.written.seq + batch.entries.len() as u64;
        self.store(last, bytes, now, settings, &mut batch);
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|going| {
            if going.seq <= last && going.deletes {
                batch.gone.push(going.market.clone());
            }
            going.seq > last
        });
        self.gone = gone;
        self.leaving.clone_from(&batch.gone);
        self.cover(last);
        batch.covered = self.covered;
        let head = Position::new(self.written.epoch, last);
        if self.marks.back().is_none_or(|m| now - m.0 >= MARK_EVERY) {
            self.marks.push_back((now, head));
        }
        while self.marks.get(1).is_some_and(|m| now - m.0 >= settings.keep_log) {
            self.marks.pop_front();
        }
        batch.aged =
            self.marks.front().filter(|m| now - m.0 >= settings.keep_log).map_or(Position::ZERO, |m| m.1);
        self.in_flight = Some(head);
        Some(batch)
    }

    /// Adds the snapshots that go with a batch.
    fn store(&mut self, last: u64, mut bytes: usize, now: i64, settings: &EngineSettings, batch: &mut Batch) {
        let (reached, ahead) = std::mem::take(&mut self.ready).into_iter().partition(|r| r.seq <= last);
        self.ready = ahead;
        // One that changes again is dirty again: its older snapshot helps nobody who gets the newer one.
        batch.snapshots.extend(reached.into_iter().map(|r: Ready| (r.market, r.bytes)));
        let early = batch.snapshots.len();
        for market in std::mem::take(&mut self.urgent) {
            let (Some(at), Some(first)) =
                (self.sequencer.position(&market), self.dirty.get(&market).copied())
            else {
                continue;
            };
            if at.seq > last || bytes >= MAX_BYTES * 2 {
                self.urgent.insert(market);
                continue;
            }
            self.dirty.remove(&market);
            bytes += self.snapshot(market, last, first, batch);
        }
        let full = last.saturating_sub(self.covered.seq) > settings.log_capacity / 2;
        while let Some((since, first, market)) = self.queue.front() {
            if self.dirty.get(market) != Some(first) {
                self.queue.pop_front();
                continue;
            }
            if (now - since < settings.snapshot_every && !full) || *first > last || bytes >= MAX_BYTES * 2 {
                break;
            }
            let Some((_, first, market)) = self.queue.pop_front() else { break };
            self.dirty.remove(&market);
            bytes += self.snapshot(market, last, first, batch);
        }
        self.urgent.retain(|m| self.dirty.contains_key(m));
        let newer: HashSet<MarketId> = if early == 0 {
            HashSet::new()
        } else {
            batch.snapshots[early..].iter().map(|s| s.0.clone()).collect()
        };
        let mut i = 0;
        batch.snapshots.retain(|s| {
            i += 1;
            i > early || !newer.contains(&s.0)
        });
    }

    fn snapshot(&mut self, market: MarketId, last: u64, first: u64, batch: &mut Batch) -> usize {
        let (Some(at), Some(bytes)) = (self.sequencer.position(&market), self.sequencer.stored(&market))
        else {
            return 0;
        };
        let bytes = Bytes::from(bytes);
        let size = bytes.len();
        if at.seq <= last {
            batch.snapshots.push((market, bytes));
        } else {
            self.ready.retain(|r| r.market != market);
            self.ready.push(Ready { seq: at.seq, first, market, bytes });
        }
        size
    }

    /// Moves `covered` up to before the first change that no snapshot holds.
    fn cover(&mut self, last: u64) {
        while self.queue.front().is_some_and(|(_, first, market)| self.dirty.get(market) != Some(first)) {
            self.queue.pop_front();
        }
        let dirty = self.queue.front().map(|q| q.1);
        let ahead = self.ready.iter().map(|r| r.first).min();
        let going = self.gone.iter().map(|g| g.first).min();
        let first = dirty.into_iter().chain(ahead).chain(going).min().unwrap_or(u64::MAX);
        let seq = last.min(first - 1);
        if seq > self.covered.seq || (first > last && seq == last) {
            self.covered = Position::new(self.written.epoch, seq);
        }
    }

    /// The batch or `alive` under way was written.
    pub(super) fn confirm(&mut self) {
        if let Some(head) = self.in_flight.take() {
            self.written = head;
            self.leaving.clear();
            // An `alive` that can't be sent is dropped, but not what holds images.
            if self.lowering && head.seq >= self.imaged {
                self.lowered.clear();
            }
        }
    }
}
