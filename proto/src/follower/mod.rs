//! The follower: the gateway's half of the core. It follows one shard's log, entry by entry: the next must be
//! `n = mine + 1`; anything else is repaired from the log or the snapshots. It never accepts a lower epoch, takes a
//! higher one only by snapshots, finds a lost tail by `alive`, and says when a feed is no longer to be trusted.
//!
//! Pull-based: `handle_*` takes something in, [`Follower::poll`] gives one event at a time, with the books as of that
//! event, so that whoever encodes views sees each state that existed.

mod events;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

pub use self::events::{Counters, Event, Told};

use crate::guard::{Guard, on};
use crate::log::{Alive, Entry, FeedReport, Live, Stored, What, stop_delta};
use crate::model::{Market, MarketField, MarketId, View};
use crate::position::Position;
use crate::restore::restore;
use crate::wire::{FeedState, Times};

/// Silence of `alive` after which feeds are stale, ms.
pub const STALE_AFTER: i64 = 1_500;
/// Silence of `alive` after which feeds are down, ms.
pub const DOWN_AFTER: i64 = 5_000;
/// Entries that wait while a repair is under way. Beyond it the newest are dropped, and found again by the next repair.
const MAX_WAITING: usize = 16_384;
/// A repair that was not answered by then is asked for again, ms.
const REPAIR_DEADLINE: i64 = 3_000;
/// Checksums of the source that are kept for whoever compares them.
const MAX_CHECKSUMS: usize = 64;
/// How soon a repair that failed is asked for again, ms.
const REPAIR_AGAIN: i64 = 400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is known yet, or the subscription broke.
    Waiting,
    /// In step with the log.
    Following,
    /// A repair was asked for at this time: from snapshots, or from the log.
    Repairing { since: i64, snapshots: bool },
}

/// Follows one shard.
#[derive(Debug)]
pub struct Follower {
    shard: u16,
    at: Position,
    state: State,
    markets: HashMap<MarketId, Market, RandomState>,
    queue: VecDeque<Entry>,
    out: VecDeque<Event>,
    feeds: BTreeMap<Arc<str>, FeedReport>,
    told: BTreeMap<Arc<str>, FeedState>,
    heard: Option<i64>,
    checksums: VecDeque<Told>,
    counters: Counters,
}

impl Follower {
    /// A follower that has heard nothing yet.
    #[must_use]
    pub fn new(shard: u16) -> Self {
        Self {
            shard,
            at: Position::ZERO,
            state: State::Waiting,
            markets: HashMap::default(),
            queue: VecDeque::new(),
            out: VecDeque::new(),
            feeds: BTreeMap::new(),
            told: BTreeMap::new(),
            heard: None,
            checksums: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Books to apply entries to, and nothing else.
    pub(crate) fn of_books(shard: u16, markets: HashMap<MarketId, Market, RandomState>) -> Self {
        Self { markets, ..Self::new(shard) }
    }

    /// The books.
    pub(crate) fn into_books(self) -> HashMap<MarketId, Market, RandomState> {
        self.markets
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Where the follower stands.
    #[must_use]
    pub fn at(&self) -> Position {
        self.at
    }

    /// Whether it is in step with the log as far as it knows.
    #[must_use]
    pub fn is_following(&self) -> bool {
        self.state == State::Following
    }

    /// Whether it has ever been in step: its books mean something.
    #[must_use]
    pub fn has_books(&self) -> bool {
        !self.at.is_zero()
    }

    /// A market.
    #[must_use]
    pub fn market(&self, id: &str) -> Option<&Market> {
        self.markets.get(id)
    }

    /// All markets.
    pub fn markets(&self) -> impl Iterator<Item = &Market> {
        self.markets.values()
    }

    /// Counters so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// When `alive` was last heard while in step; the clock is the caller's.
    #[must_use]
    pub fn heard(&self) -> Option<i64> {
        self.heard
    }

    /// The feed of a source: the worse of what ingest says and of how silent the shard is.
    #[must_use]
    pub fn feed(&self, source: &str, now: i64) -> FeedReport {
        let own = self.silence(now);
        match self.feeds.get(source) {
            Some(report) => FeedReport { state: report.state.max(own), ..report.clone() },
            None => FeedReport { source: source.into(), state: own.max(FeedState::Stale), as_of: 0 },
        }
    }

    /// The feed of a source as [`Event::Feed`] told it last, so that who joins in between hears every change after it.
    #[must_use]
    pub fn told_feed(&self, source: &str, now: i64) -> FeedReport {
        let report = self.feed(source, now);
        let state = self.told.get(source).copied().unwrap_or(report.state);
        FeedReport { state, ..report }
    }

    /// The oldest sign of life among its sources, Unix ms; `None` where there are none, or one was never heard.
    #[must_use]
    pub fn oldest_sign_of_life(&self) -> Option<i64> {
        self.feeds.values().map(|report| report.as_of).min().filter(|as_of| *as_of > 0)
    }

    fn silence(&self, now: i64) -> FeedState {
        match self.heard {
            Some(heard) if now - heard <= STALE_AFTER => FeedState::Live,
            Some(heard) if now - heard <= DOWN_AFTER => FeedState::Stale,
            _ => FeedState::Down,
        }
    }

    /// The subscription to the live channel is confirmed: what was before it must be read.
    pub fn handle_subscribed(&mut self, now: i64) {
        self.repair(now, self.at.is_zero());
    }

    /// The subscription broke. Books stay as they are; silence will make them stale.
    pub fn handle_lost(&mut self) {
        self.state = State::Waiting;
        self.queue.clear();
    }

    /// A message of the live channel.
    pub fn handle_live(&mut self, live: Live, now: i64) {
        match live {
            Live::Entry(entry) => self.handle_entry(entry, now),
            Live::Alive(alive) => self.handle_alive(alive, now),
        }
    }

    fn handle_entry(&mut self, entry: Entry, now: i64) {
        if self.state != State::Following || !self.queue.is_empty() {
            if self.queue.len() < MAX_WAITING {
                self.queue.push_back(entry);
            } else {
                self.counters.overflow += 1;
            }
            return;
        }
        self.consider(entry, now);
    }

    /// Applies the next entry, drops an old one, or starts a repair and keeps what came too early.
    fn consider(&mut self, entry: Entry, now: i64) {
        if entry.at.epoch < self.at.epoch && on(Guard::LowerEpochs) {
            self.counters.old_epochs += 1;
        } else if entry.at.epoch == self.at.epoch && entry.at <= self.at {
            self.counters.duplicates += 1;
        } else if entry.at.epoch != self.at.epoch {
            self.counters.gaps += 1;
            self.queue.push_front(entry);
            self.repair(now, true);
        } else if entry.at.seq == self.at.seq + 1 || !on(Guard::ShardCounter) {
            self.apply(entry);
        } else {
            self.counters.gaps += 1;
            self.queue.push_front(entry);
            self.repair(now, false);
        }
    }

    fn handle_alive(&mut self, alive: Alive, now: i64) {
        if alive.at.epoch < self.at.epoch && on(Guard::LowerEpochs) {
            self.counters.old_epochs += 1;
            return;
        }
        // While behind, a sign of life says nothing about our books: freshness is not laundered.
        if self.state != State::Following || !self.queue.is_empty() {
            return;
        }
        if (alive.at > self.at || alive.at.epoch != self.at.epoch) && on(Guard::AlivePosition) {
            self.counters.gaps += 1;
            self.repair(now, alive.at.epoch != self.at.epoch);
            return;
        }
        self.heard = Some(now);
        for report in alive.feeds {
            self.feeds.insert(report.source.clone(), report);
        }
        self.tell_feeds(now);
    }

    fn repair(&mut self, now: i64, snapshots: bool) {
        self.state = State::Repairing { since: now, snapshots };
        self.out.push_back(if snapshots { Event::NeedSnapshots } else { Event::NeedTail(self.at) });
    }

    /// The log after the position that [`Event::NeedTail`] asked for. `complete` says that `entries` connects to it.
    pub fn handle_tail(&mut self, head: Position, entries: Vec<Entry>, complete: bool, now: i64) {
        if self.state == State::Waiting {
            return;
        }
        if head.epoch < self.at.epoch && on(Guard::LowerEpochs) {
            // A log that forgot. Its owner will take over with a higher epoch; until then silence makes us stale.
            self.counters.old_epochs += 1;
            self.handle_unread(now);
            return;
        }
        let connects = complete
            && head.epoch == self.at.epoch
            && entries.first().is_none_or(|e| e.at.seq <= self.at.seq + 1);
        if !connects {
            self.repair(now, true);
            return;
        }
        self.counters.tails += 1;
        self.state = State::Following;
        let waiting = std::mem::take(&mut self.queue);
        self.queue.extend(entries);
        self.queue.extend(waiting);
        self.sort_queue();
    }

    /// The snapshots, as of `head`; `entries` bring those that are older up to it.
    pub fn handle_snapshots(&mut self, head: Position, stored: Vec<Stored>, entries: Vec<Entry>, now: i64) {
        if self.state == State::Waiting {
            return;
        }
        let is_behind = self.queue.iter().any(|entry| entry.at.epoch > head.epoch);
        if is_behind || head < self.at && (on(Guard::LowerEpochs) || head.epoch == self.at.epoch) {
            self.counters.old_epochs += 1;
            self.handle_unread(now);
            return;
        }
        self.counters.snapshots += 1;
        let restored = restore(self.shard, head, stored, entries);
        let mut gone: Vec<MarketId> =
            self.markets.keys().filter(|m| !restored.contains_key(*m)).cloned().collect();
        gone.sort_unstable();
        for market in gone {
            self.markets.remove(&market);
            self.out.push_back(Event::Gone { market, at: head });
        }
        if head.epoch > self.at.epoch {
            // What the old owner said of its sources does not hold for the new one, which may have read its books
            // from a log that forgot: until it speaks, it recovers.
            for report in self.feeds.values_mut() {
                report.state = report.state.max(FeedState::Recovering);
            }
        }
        self.at = head;
        self.state = State::Following;
        // In one order whatever the map's: a run is repeatable.
        let mut markets: Vec<_> = restored.into_iter().collect();
        markets.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (id, new) in markets {
            self.install(id, new);
        }
        self.sort_queue();
        self.tell_feeds(now);
    }

    /// Replaces a market by what was stored. In the same epoch the step between them is a delta like any other.
    fn install(&mut self, id: MarketId, new: Market) {
        let Some(held) = self.markets.get_mut(&id) else {
            let stop = !new.stop.is_zero() && on(Guard::SnapshotStop);
            self.markets.insert(id.clone(), new);
            self.out.push_back(Event::Replaced { market: id, stop, times: Times::default() });
            return;
        };
        let stop = new.stop > held.stop && on(Guard::SnapshotStop);
        if on(Guard::SnapshotStop) {
            held.stop = held.stop.max(new.stop);
        }
        if new.at <= held.at && (on(Guard::LowerEpochs) || new.at.epoch == held.at.epoch) {
            if stop {
                self.out.push_back(Event::Stopped { market: id });
            }
            return;
        }
        let delta = held.book.diff(&new.book);
        let scale = delta.fields.iter().any(|(f, _)| f.is_scale());
        if new.at.epoch != held.at.epoch || scale {
            let stop_at = held.stop;
            *held = new;
            held.stop = stop_at;
            self.out.push_back(Event::Replaced { market: id, stop, times: Times::default() });
            return;
        }
        let prev = held.at;
        held.at = new.at;
        held.book.leap(&delta, prev.seq, new.at.seq);
        self.out.push_back(Event::Changed { market: id, prev, delta, stop, times: Times::default() });
    }

    fn sort_queue(&mut self) {
        self.queue.make_contiguous().sort_by_key(|e| e.at);
    }

    /// The source's checksums that came since the last call, the latest ones.
    pub fn take_checksums(&mut self) -> VecDeque<Told> {
        std::mem::take(&mut self.checksums)
    }

    /// A repair that was asked for could not be read, or what was read is older than we are: it is asked for again soon.
    pub fn handle_unread(&mut self, now: i64) {
        if let State::Repairing { since, .. } = &mut self.state {
            *since = (*since).min(now - REPAIR_DEADLINE + REPAIR_AGAIN);
        }
    }

    /// Asks again for a repair that was not answered, and tells feeds that fell silent. Call it a few times a second.
    pub fn handle_time(&mut self, now: i64) {
        if let State::Repairing { since, snapshots } = self.state
            && now - since >= REPAIR_DEADLINE
        {
            self.repair(now, snapshots);
        }
        self.tell_feeds(now);
    }

    fn tell_feeds(&mut self, now: i64) {
        let sources: Vec<Arc<str>> = self.feeds.keys().cloned().collect();
        for source in sources {
            let report = self.feed(&source, now);
            if self.told.get(&source) != Some(&report.state) {
                self.told.insert(source, report.state);
                self.out.push_back(Event::Feed(report));
            }
        }
    }

    /// The next event. The follower's books are as of it when it is an event about a market.
    pub fn poll(&mut self, now: i64) -> Option<Event> {
        loop {
            if let Some(event) = self.out.pop_front() {
                return Some(event);
            }
            if self.state != State::Following {
                return None;
            }
            let entry = self.queue.pop_front()?;
            self.consider(entry, now);
        }
    }

    /// The next event that is there already.
    pub(crate) fn take_event(&mut self) -> Option<Event> {
        self.out.pop_front()
    }

    fn apply(&mut self, entry: Entry) {
        self.at = entry.at;
        self.counters.applied += 1;
        self.apply_to_older(entry);
    }

    /// Applies an entry to each of its markets that is older than it.
    pub(crate) fn apply_to_older(&mut self, entry: Entry) {
        let Entry { at, times, what } = entry;
        match what {
            What::Delta { market, delta, stop, checksum } => {
                let Some(held) = self.markets.get_mut(&market).filter(|m| m.at < at) else { return };
                held.book.apply(&delta, at.seq);
                let prev = held.at;
                held.at = at;
                if stop {
                    held.stop = at;
                }
                if let Some(checksum) = checksum {
                    let mine = crate::checksum::checksum(&market, &held.book, View::All);
                    self.counters.mismatches += u64::from(mine != checksum);
                    if self.checksums.len() == MAX_CHECKSUMS {
                        self.checksums.pop_front();
                    }
                    self.checksums.push_back(Told { market: market.clone(), at, checksum });
                }
                self.out.push_back(Event::Changed { market, prev, delta, stop, times });
            }
            What::Image { market, book, stop, .. } => {
                if self.markets.get(&market).is_some_and(|m| m.at >= at) {
                    return;
                }
                let raised = self.markets.get(&market).map_or(Position::ZERO, |m| m.stop) < stop
                    && on(Guard::SnapshotStop);
                let held = Market { id: market.clone(), book: *book, at, stop };
                self.markets.insert(market.clone(), held);
                self.out.push_back(Event::Replaced { market, stop: raised, times });
            }
            What::Stop { markets, reason } => {
                for market in markets {
                    let Some(held) = self.markets.get_mut(&market).filter(|m| m.at < at && m.stop < at)
                    else {
                        continue;
                    };
                    held.stop = at;
                    let delta = stop_delta(&held.book, reason.as_ref());
                    if delta.is_empty() {
                        self.out.push_back(Event::Stopped { market });
                        continue;
                    }
                    held.book.apply(&delta, at.seq);
                    let prev = held.at;
                    held.at = at;
                    self.out.push_back(Event::Changed { market, prev, delta, stop: true, times });
                }
            }
            What::Gone { market } => {
                if self.markets.get(&market).is_some_and(|m| m.at < at) {
                    self.markets.remove(&market);
                    self.out.push_back(Event::Gone { market, at });
                }
            }
        }
    }

    /// The source of a market.
    #[must_use]
    pub fn source_of(&self, market: &str) -> Option<&str> {
        self.markets.get(market).and_then(|m| m.book.fields.text(MarketField::Source))
    }
}
