//! The engine: everything of ingest that decides, without I/O and without a clock (`now` is an argument, Unix ms).
//! Updates of all sources go in; for each shard come out batches to be written and `alive`s to be sent, for each source
//! what is to be said to it.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | the engine and what its shell calls |
//! | `alive` | what is vouched for of each source's feed, and when |
//! | `apply` | an update → the right shard's sequencer and the catalogue |
//! | `checkpoint` | how far sources' streams are in the log for sure |
//! | [`catalogue`] | what the catalogue has of a market |
//! | `switch` | the operator's acts over the books |
//! | `takeover` | what is stored of a shard → books, when it becomes ours and before that |
//! | `waiting` | what of a shard waits for what |
//! | `shard` | entries that wait, snapshots that go with them, `covered` |
//! | [`input`] | one source: numbers, silence, markets that need images |
//! | [`problems`] | input that could not be taken |
//! | [`settings`] | what can be set |
//!
//! A shard that is not ours (yet, or any more) takes updates all the same: its books are warm, and taking it over images
//! them. What was restored from snapshots alone is not trusted, unless its source's stream is read on from where the
//! snapshots are: its source's feed is *recovering* until every market is imaged. Lost input makes it *stale* until the
//! same.

mod alive;
mod apply;
pub mod catalogue;
mod checkpoint;
pub mod input;
pub mod problems;
pub mod settings;
mod shard;
mod switch;
mod takeover;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use tictac_proto::log::CATALOGUE;
use tictac_proto::model::{Book, MarketId};
use tictac_proto::position::Position;
use tictac_proto::wire::Times;

pub use self::input::{Control, Lane, Sequence};
pub use self::problems::{Problems, Seen};
pub use self::settings::{EngineSettings, MAX_SOURCES};

use self::checkpoint::Checkpoint;
use self::input::InputTracker;
use self::shard::Shard;
pub use self::switch::OPERATOR;
use self::switch::Own;
use crate::log::Batch;
use crate::operator::Ledger;
use crate::problem::{Problem, ProblemKind};

/// Entries that may wait for the log before sources are no longer told to send more.
const HOLD_ABOVE: usize = 4_096;

/// The reason that a market carries which its source did not image in time.
pub const UNCONFIRMED: &str = "unconfirmed";

/// What is known of a market beside its book.
#[derive(Debug)]
struct Meta {
    source: Arc<str>,
    event: Arc<str>,
    shard: u16,
    /// Given up: suspended until it is imaged.
    unconfirmed: bool,
    /// First heard of by a change while its shard was not ours: what was before it may be stored.
    partial: bool,
    terminal_since: Option<i64>,
    matched_at: i64,
    matched_due: bool,
    /// Held by an operator: what its source says meanwhile.
    own: Option<Own>,
}

/// How often what happened, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Updates handed in.
    pub updates: u64,
    /// Messages that had come before.
    pub duplicates: u64,
    /// Times that a source's input was lost.
    pub losses: u64,
    /// Epochs begun.
    pub epochs: u64,
    /// Markets given up because their source did not image them.
    pub unconfirmed: u64,
}

/// Everything of ingest that decides.
#[derive(Debug)]
pub struct Engine {
    settings: EngineSettings,
    shards: Vec<Shard>,
    catalogue: Shard,
    markets: HashMap<MarketId, Meta, RandomState>,
    events: HashMap<Arc<str>, BTreeSet<MarketId>, RandomState>,
    sources: BTreeMap<Arc<str>, InputTracker>,
    matched: BTreeSet<(i64, MarketId)>,
    terminal: VecDeque<(i64, MarketId)>,
    forgotten: Vec<(Arc<str>, MarketId)>,
    /// Markets whose books came from the log, for readers that must know them.
    restored: Vec<MarketId>,
    checkpoint: Checkpoint,
    ledger: Ledger,
    problems: Problems,
    counters: Counters,
    /// What operators did lately may not be known.
    blind: bool,
}

impl Engine {
    /// An engine that owns no shard and knows no market.
    #[must_use]
    pub fn new(settings: EngineSettings) -> Self {
        Self {
            shards: (0..settings.shards.max(1)).map(|_| Shard::new(settings.log_capacity)).collect(),
            catalogue: Shard::new(settings.log_capacity),
            settings,
            markets: HashMap::default(),
            events: HashMap::default(),
            sources: BTreeMap::new(),
            matched: BTreeSet::new(),
            terminal: VecDeque::new(),
            forgotten: Vec::new(),
            restored: Vec::new(),
            checkpoint: Checkpoint::default(),
            ledger: Ledger::default(),
            problems: Problems::default(),
            counters: Counters::default(),
            blind: false,
        }
    }

    /// Every shard, the catalogue last.
    pub fn shards(&self) -> impl Iterator<Item = u16> + use<> {
        (0..self.shards.len() as u16).chain([CATALOGUE])
    }

    fn shard(&self, shard: u16) -> &Shard {
        self.shards.get(usize::from(shard)).unwrap_or(&self.catalogue)
    }

    fn shard_mut(&mut self, shard: u16) -> &mut Shard {
        self.shards.get_mut(usize::from(shard)).unwrap_or(&mut self.catalogue)
    }

    /// What was set.
    #[must_use]
    pub fn settings(&self) -> &EngineSettings {
        &self.settings
    }

    /// A market's book.
    #[must_use]
    pub fn book(&self, market: &str) -> Option<&Book> {
        let meta = self.markets.get(market)?;
        self.shard(meta.shard).sequencer.book(market)
    }

    /// All markets with their shards.
    pub fn markets(&self) -> impl Iterator<Item = (&MarketId, u16)> {
        self.markets.iter().map(|(id, meta)| (id, meta.shard))
    }

    /// The catalogue's book of a market.
    #[must_use]
    pub fn listed(&self, market: &str) -> Option<&Book> {
        self.catalogue.sequencer.book(market)
    }

    /// How many markets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.markets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.markets.is_empty()
    }

    /// Counters so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Deletes of levels that were not there, so far.
    #[must_use]
    pub fn absent_deletes(&self) -> u64 {
        self.shards.iter().map(|s| s.sequencer.absent_deletes()).sum()
    }

    /// Input that could not be taken.
    #[must_use]
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Entries that wait to be written.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.shards.iter().map(Shard::pending).sum::<usize>() + self.catalogue.pending()
    }

    /// Whether a shard is ours.
    #[must_use]
    pub fn owns(&self, shard: u16) -> bool {
        self.shard(shard).is_owned()
    }

    /// A shard was asked for: somebody else owns it, or nothing is known.
    pub fn handle_denied(&mut self, shard: u16, held: bool) {
        self.shard_mut(shard).held = held;
    }

    /// Somebody writes under this epoch: we shall never write under a lower one, whatever a log forgets.
    pub fn handle_epoch(&mut self, shard: u16, epoch: u64) {
        let shard = self.shard_mut(shard);
        shard.seen = shard.seen.max(epoch);
    }

    /// Whether somebody else owned a shard when it was last asked for.
    #[must_use]
    pub fn is_held(&self, shard: u16) -> bool {
        self.shard(shard).held
    }

    /// Whether every shard has an owner, we or somebody else, as far as is known.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.shards.iter().chain([&self.catalogue]).all(|s| s.is_owned() || s.held)
    }

    /// Whether all is written and every change stored, so that whoever comes next has it all.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.shards.iter().chain([&self.catalogue]).all(|s| !s.is_owned() || s.is_settled())
    }

    /// The highest epoch that was seen of a shard.
    #[must_use]
    pub fn seen_epoch(&self, shard: u16) -> u64 {
        let shard = self.shard(shard);
        shard.sequencer.head().epoch.max(shard.seen)
    }

    /// Something that an operator did may have been missed, or not any more: meanwhile no feed is live.
    pub fn handle_blind(&mut self, blind: bool) {
        self.blind = blind;
    }

    /// Makes a source known before it says something. Whether there was room for it.
    pub fn add_source(&mut self, source: &Arc<str>, lane: Lane, now: i64) -> bool {
        if self.sources.contains_key(source) {
            return true;
        }
        if self.sources.len() >= MAX_SOURCES {
            let why = format!(
                "{MAX_SOURCES} sources are known; {source:?} is one more: give sources that replace each other one name"
            );
            self.problem(
                &Arc::from("other"),
                Problem::new(ProblemKind::TooLarge, "src", why, source.as_bytes()),
                now,
            );
            return false;
        }
        self.sources.insert(source.clone(), InputTracker::new(lane));
        true
    }

    /// A message of a source came in, with its number where it has one. Whether its body is to be handled: not that of a
    /// duplicate, nor that of a source for which there is no room.
    pub fn handle_message(&mut self, source: &Arc<str>, seq: Option<u64>, now: i64) -> bool {
        if !self.add_source(source, Lane::Lossy, now) {
            return false;
        }
        let sequence = self.sources.get_mut(source).map(|t| t.hear(seq, now));
        match sequence {
            Some(Sequence::Duplicate) => {
                self.counters.duplicates += 1;
                false
            }
            Some(Sequence::Broken) => {
                self.handle_loss(source);
                true
            }
            _ => true,
        }
    }

    /// Input of a source was lost: its markets are stale until they are imaged.
    pub fn handle_loss(&mut self, source: &Arc<str>) {
        let Some(tracker) = self.sources.get_mut(source) else { return };
        self.counters.losses += 1;
        let mine = |m: &(&MarketId, &Meta)| m.1.source == *source && m.1.terminal_since.is_none();
        tracker.lose(self.markets.iter().filter(mine).map(|m| m.0.clone()));
    }

    /// Our subscription to the sources broke. Where messages have numbers these will show what is missing.
    pub fn handle_input_break(&mut self) {
        let blind: Vec<Arc<str>> =
            self.sources.iter().filter(|s| s.1.is_unsequenced()).map(|s| s.0.clone()).collect();
        for source in blind {
            self.handle_loss(&source);
        }
    }

    /// A message of a source could not be read at all. Where messages have numbers the next one will show it.
    pub fn handle_unreadable(&mut self, source: &Arc<str>) {
        if self.sources.get(source).is_some_and(InputTracker::is_unsequenced) {
            self.handle_loss(source);
        }
    }

    /// A source says that its data are late, or not any more.
    pub fn handle_late(&mut self, source: &str, late: bool) {
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.set_late(late);
        }
    }

    /// Input that could not be taken.
    pub fn problem(&mut self, source: &Arc<str>, problem: Problem, now: i64) {
        self.problems.add(source, problem, now);
    }

    /// A shard is not ours any more, or it is not known what was written: it must be taken over again. Books stay.
    pub fn handle_lost(&mut self, shard: u16) {
        self.shard_mut(shard).lose();
        self.checkpoint.forget();
    }

    /// What was taken last for a shard is written.
    pub fn handle_written(&mut self, shard: u16) {
        self.shard_mut(shard).confirm();
    }

    /// Up to where the log has confirmed a shard.
    #[must_use]
    pub fn written(&self, shard: u16) -> Position {
        self.shard(shard).written()
    }

    /// Whether a batch or an `alive` of a shard is under way.
    #[must_use]
    pub fn is_busy(&self, shard: u16) -> bool {
        self.shard(shard).is_busy()
    }

    /// The next batch of a shard, unless something of it is under way. [`Self::handle_written`] or [`Self::handle_lost`]
    /// must follow.
    pub fn take_batch(&mut self, shard: u16, now: i64) -> Option<Batch> {
        self.settle_moves(shard, now);
        let Self { shards, catalogue, settings, checkpoint, .. } = self;
        let shard = shards.get_mut(usize::from(shard)).unwrap_or(catalogue);
        let mut batch = shard.take_batch(now, settings)?;
        batch.resume = shard.take_resume(checkpoint.held());
        Some(batch)
    }

    /// What waited for another shard goes on where that has written what it waited for.
    fn settle_moves(&mut self, shard: u16, now: i64) {
        while let Some(awaited) = self.shard(shard).first_move()
            && self.shard(awaited.shard).has_written(awaited.at)
        {
            self.shard_mut(shard).pass_move();
        }
        if self.shard(shard).has_elsewhere() {
            for there in self.shard(shard).elsewhere() {
                if self.shard(there).has_images_written() {
                    let times = Times { source: now, received: now, ..Times::default() };
                    self.shard_mut(shard).let_go(there, times, now);
                }
            }
        }
    }

    /// What is to be said to sources now. What was taken in only the catalogue's owner says; images are asked for by
    /// whoever needs them, the catalogue's owner first, whose images warm the others too.
    pub fn take_control(&mut self, now: i64) -> Vec<(Arc<str>, Control)> {
        let leads = self.catalogue.is_owned();
        let hold = self.backlog() > HOLD_ABOVE;
        let (mut all, mut some) = (Vec::new(), Vec::new());
        for (source, tracker) in &mut self.sources {
            tracker.control(now, self.settings.image_every, leads, hold, &mut some);
            all.extend(some.drain(..).map(|c| (source.clone(), c)));
        }
        all
    }

    /// Markets that are gone since the last call, for readers that remember them.
    pub fn take_forgotten(&mut self) -> Vec<(Arc<str>, MarketId)> {
        std::mem::take(&mut self.forgotten)
    }

    /// Markets restored from the log since the last call, for readers that must know them.
    pub fn take_restored(&mut self) -> Vec<(Arc<str>, MarketId)> {
        let restored = std::mem::take(&mut self.restored);
        restored.into_iter().filter_map(|id| Some((self.markets.get(&id)?.source.clone(), id))).collect()
    }

    /// Whether every market is known as it is now: nothing waits for an image, and no stream is behind.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        self.sources.values().all(InputTracker::is_warm) && self.markets.values().all(|m| !m.partial)
    }

    /// What time brings: feed states, matched volumes that waited, terminal markets that go. Call it every 50 ms or so.
    pub fn handle_time(&mut self, now: i64) {
        let times = Times { source: now, received: now, ..Times::default() };
        while let Some((due, _)) = self.matched.first()
            && (*due <= now || due - now > self.settings.matched_every)
        {
            let Some((_, market)) = self.matched.pop_first() else { break };
            self.list(&market, times, now);
        }
        while let Some((since, _)) = self.terminal.front()
            && now - since >= self.settings.gone_after
        {
            let Some((since, market)) = self.terminal.pop_front() else { break };
            if self.markets.get(&market).is_some_and(|m| m.terminal_since == Some(since)) {
                self.remove(&market, times, now);
            }
        }
        self.give_up(times, now);
        self.tell_feeds(now);
        self.check();
    }

    /// Suspends what its source does not image though it is heard.
    fn give_up(&mut self, times: Times, now: i64) {
        // Also of shards that are not ours: what holds up a source there would hold it up here, since a feed is one for all.
        let mut overdue = Vec::new();
        for (source, tracker) in &mut self.sources {
            let stale_after = self.settings.stale_after(source);
            overdue.extend(tracker.overdue(now, self.settings.image_patience, stale_after));
        }
        for market in overdue {
            let Some(meta) = self.markets.get_mut(&market) else { continue };
            // It is asked for all the same: its source may be able to answer later.
            if let Some(tracker) = self.sources.get_mut(&meta.source) {
                tracker.want(market.clone());
            }
            meta.unconfirmed = true;
            self.counters.unconfirmed += 1;
            tracing::warn!(%market, "suspended: its source did not image it after a loss");
            self.suspend(&[market], Some(UNCONFIRMED.into()), times, now);
        }
    }

    fn tell_feeds(&mut self, now: i64) {
        let (mut changed, least) = (false, self.least());
        for (source, tracker) in &mut self.sources {
            let state = tracker.state(now, self.settings.stale_after(source)).max(least);
            if tracker.told != Some(state) {
                tracing::info!(%source, state = state.name(), "feed");
                tracker.told = Some(state);
                changed = true;
            }
        }
        if changed {
            self.shards.iter_mut().chain([&mut self.catalogue]).for_each(|s| s.hasten_alive(now));
        }
    }
}
