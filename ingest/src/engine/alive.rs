//! What is vouched for of each source's feed, and when it is said.
//!
//! `alive` says that the log holds everything up to a number. Where entries wait for long that is true and still says
//! nothing good: what they bring is not seen by anybody, so that the feed is not live. And since one thing at a time is
//! under way for each shard, an `alive` that is always due must not keep entries waiting: they take turns, and a stop
//! goes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use tictac_proto::log::{Alive, Entry, FeedReport, What};
use tictac_proto::wire::FeedState;

use super::input::InputTracker;
use super::shard::Shard;
use super::waiting::Said;
use super::{Engine, EngineSettings};
use crate::log::Resume;
use crate::stream_id::StreamId;

impl Engine {
    /// The feed of every source.
    #[must_use]
    pub fn feeds(&self, now: i64) -> Vec<FeedReport> {
        let report = |(source, tracker): (&Arc<str>, &InputTracker)| FeedReport {
            source: source.clone(),
            state: tracker.state(now, self.settings.stale_after(source)).max(self.least()),
            as_of: tracker.as_of(now),
        };
        self.sources.iter().map(report).collect()
    }

    /// The feed of one source.
    #[must_use]
    pub fn feed(&self, source: &str, now: i64) -> Option<FeedState> {
        self.sources.get(source).map(|t| t.state(now, self.settings.stale_after(source)).max(self.least()))
    }

    /// No feed is better than this.
    pub(super) fn least(&self) -> FeedState {
        if self.blind { FeedState::Recovering } else { FeedState::Live }
    }

    /// The next `alive` of a shard, and how far sources' streams are in its log, if it is due and nothing is under way.
    /// The same must follow.
    pub fn take_alive(&mut self, shard: u16, now: i64) -> Option<(Alive, Vec<Resume>)> {
        // Whether there are entries to go before it depends on that.
        self.settle_moves(shard, now);
        let Self { shards, catalogue, settings, .. } = self;
        let mine = shards.get_mut(usize::from(shard)).unwrap_or(catalogue);
        if !mine.begin_alive(now, settings) {
            return None;
        }
        let least = if mine.is_late(now, settings) { FeedState::Stale } else { FeedState::Live };
        let mut feeds = self.feeds(now);
        let mine = self.shard_mut(shard);
        feeds.iter_mut().for_each(|feed| feed.state = mine.say(&feed.source, feed.state.max(least)));
        let alive = Alive { at: self.written(shard), now, feeds };
        let Self { shards, catalogue, checkpoint, .. } = self;
        let resume = shards.get_mut(usize::from(shard)).unwrap_or(catalogue).take_resume(checkpoint.held());
        Some((alive, resume))
    }
}

fn is_stop(entry: &Entry) -> bool {
    match &entry.what {
        What::Stop { .. } => true,
        What::Delta { stop, .. } => *stop,
        What::Image { stop, .. } => *stop == entry.at,
        What::Gone { .. } => false,
    }
}

impl Shard {
    /// `alive` is to be sent as soon as nothing is under way.
    pub(super) fn hasten_alive(&mut self, now: i64) {
        self.alive_due = self.alive_due.min(now);
    }

    /// Whether `alive` is due, and entries don't go before it; if so it is under way from now on.
    fn begin_alive(&mut self, now: i64, settings: &EngineSettings) -> bool {
        let every = settings.alive_every;
        // A clock that was set back must not silence us.
        let due = now >= self.alive_due || self.alive_due - now > every;
        if !due || !self.is_owned() || self.is_busy() {
            return false;
        }
        // Nor may stops one after another silence us for long.
        let stops = now < self.alive_due.saturating_add(every) && self.pending.iter().any(is_stop);
        if (self.alive_last || stops) && self.has_batch(now, settings) {
            return false;
        }
        self.alive_due = now + every;
        self.alive_last = true;
        self.in_flight = Some(self.written());
        true
    }

    /// Whether something that came in a while ago is not written yet.
    fn is_late(&self, now: i64, settings: &EngineSettings) -> bool {
        self.pending.front().is_some_and(|entry| now - entry.times.received > settings.write_within)
    }

    /// What may be said of a source's feed, whose state is this now: what is worse at once, what is better only when all
    /// that made it so is written.
    fn say(&mut self, source: &Arc<str>, state: FeedState) -> FeedState {
        let written = self.written().seq;
        let last = self.pending.back().map_or(written, |entry| entry.at.seq);
        let begun = if self.pending.is_empty() { state } else { FeedState::Recovering };
        let said =
            self.said.entry(source.clone()).or_insert(Said { state: begun.max(state), better_at: None });
        if state < said.state && *said.better_at.get_or_insert(last) > written {
            return said.state;
        }
        *said = Said { state, better_at: None };
        state
    }

    /// How far sources' streams are in the log for sure, where that is news to it.
    pub(super) fn take_resume(&mut self, held: &BTreeMap<Arc<str>, StreamId>) -> Vec<Resume> {
        self.lowering = true;
        let mut news: Vec<Resume> = self.lowered.clone().into_iter().collect();
        for (source, id) in held {
            if self.resumed.insert(source.clone(), *id) != Some(*id) {
                news.push((source.clone(), *id));
            }
        }
        news
    }

    /// The books that will be written next hold less of these streams than the log.
    pub(super) fn lower(&mut self, lowered: BTreeMap<Arc<str>, StreamId>) {
        (self.lowered, self.lowering) = (lowered, false);
    }
}
