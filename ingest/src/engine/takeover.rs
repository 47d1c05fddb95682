//! What is stored of a shard → books: before it is ours, so that we are warm, and when it becomes ours.
//!
//! Of a source that is read from a stream the log says how far it holds it for sure (`resume`, see `checkpoint`). It is
//! read on from there, so that nothing needs an image. Some entries are applied again, to books that hold them: all of
//! them are absolute, and until the stream's end is reached the source's feed is recovering. Only whom a stop names depends
//! on where markets stood when it came: one that is told again where it stands, after a stop was read again, is suspended
//! until it is imaged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tictac_proto::log::{CATALOGUE, Stored, shard_of};
use tictac_proto::model::{Book, MarketField, MarketId};
use tictac_proto::wire::Times;

use super::waiting::Orphan;
use super::{Engine, Lane, Meta};
use crate::log::Acquired;
use crate::stream_id::StreamId;

impl Engine {
    /// What is stored of a shard that is not ours: its books are warm from now on.
    pub fn handle_primed(&mut self, shard: u16, mut stored: Acquired, now: i64) {
        self.note_resume(shard, &stored.resume);
        if shard == CATALOGUE || self.owns(shard) {
            return;
        }
        let markets = std::mem::take(&mut stored.markets);
        self.restore(shard, markets, &stored.resume, now);
        if self.owns(CATALOGUE) {
            self.list_all(shard, now);
        }
    }

    /// The catalogue has every market that we know of a shard.
    fn list_all(&mut self, shard: u16, now: i64) {
        let times = Times { source: now, received: now, ..Times::default() };
        let all: Vec<MarketId> = self.shard(shard).sequencer.markets().map(|m| m.0.clone()).collect();
        all.iter().for_each(|market| self.list(market, times, now));
    }

    /// Where each stream must be read from, so that nothing is missed of any shard: from its start, where a shard's log
    /// says nothing of it. It counts as read up to there from now on.
    pub fn start_streams(&mut self) -> BTreeMap<Arc<str>, StreamId> {
        let of = |source: &Arc<str>| {
            let reached = self.shards.iter().chain([&self.catalogue]).map(|s| s.resumed.get(source).copied());
            reached.min().flatten().unwrap_or(StreamId::ZERO)
        };
        let streams = self.sources.iter().filter(|s| s.1.is_stream());
        let starts: BTreeMap<Arc<str>, StreamId> = streams.map(|s| (s.0.clone(), of(s.0))).collect();
        for (source, tracker) in &mut self.sources {
            starts.get(source).into_iter().for_each(|start| tracker.start_stream(*start));
        }
        // What is read again makes books older for a moment, and so is what is written of them.
        for shard in self.shards.iter_mut().chain([&mut self.catalogue]).filter(|s| s.is_owned()) {
            let further = starts
                .iter()
                .filter(|(source, start)| shard.resumed.get(*source).is_some_and(|resumed| resumed > *start));
            let lowered: BTreeMap<_, _> = further.map(|(source, start)| (source.clone(), *start)).collect();
            shard.lower(lowered);
        }
        starts
    }

    fn note_resume(&mut self, shard: u16, resume: &BTreeMap<Arc<str>, StreamId>) {
        let of_streams = resume.iter().filter(|r| self.sources.get(r.0).is_some_and(|t| t.is_stream()));
        let known = of_streams.map(|(source, id)| (source.clone(), *id)).collect();
        self.shard_mut(shard).resumed = known;
    }

    /// A shard is ours from now on: what is stored and not known here is restored, and every book is imaged.
    pub fn handle_acquired(&mut self, shard: u16, mut acquired: Acquired, now: i64) {
        for (market, why) in &acquired.unreadable {
            tracing::error!(shard, %market, why, "a stored market can't be read; it is missing until its source images it");
        }
        let times = Times { source: now, received: now, ..Times::default() };
        self.note_resume(shard, &acquired.resume);
        self.checkpoint.forget();
        let stored = std::mem::take(&mut acquired.markets);
        let lowered = self.seek_ends(shard, &acquired.resume, times, now);
        let orphans = self.restore(shard, stored, &acquired.resume, now);
        for meta in self.markets.values_mut().filter(|m| m.shard == shard) {
            meta.partial = false;
        }
        let mine = self.shard_mut(shard);
        mine.take_over(&acquired, orphans, times, now);
        mine.lower(lowered);
        self.counters.epochs += 1;
        if shard == CATALOGUE {
            let known: Vec<MarketId> = self.markets.keys().cloned().collect();
            known.iter().for_each(|m| self.list(m, times, now));
        } else {
            self.reconcile(shard, times, now);
        }
    }

    /// Whoever owned a shard may have read streams further than we, so that they must be read to the end now. How far the
    /// log will hold them when our books are in it, where that is less than it holds now.
    fn seek_ends(
        &mut self,
        shard: u16,
        resume: &BTreeMap<Arc<str>, StreamId>,
        times: Times,
        now: i64,
    ) -> BTreeMap<Arc<str>, StreamId> {
        let mut lowered = BTreeMap::new();
        let mut unread = BTreeSet::new();
        for (source, tracker) in self.sources.iter_mut().filter(|s| s.1.is_stream()) {
            tracker.seek_end();
            let read = tracker.stream_position();
            if !tracker.is_started() {
                unread.insert(source.clone());
            } else if resume.get(source).is_some_and(|stored| read < *stored) {
                lowered.insert(source.clone(), read);
            }
        }
        // Books of a stream that we did not begin to read were restored from an earlier look at the log.
        let here = |m: &(&MarketId, &Meta)| m.1.shard == shard && unread.contains(&m.1.source);
        let older: Vec<MarketId> = self.markets.iter().filter(here).map(|m| m.0.clone()).collect();
        if shard != CATALOGUE && !unread.is_empty() {
            older.iter().for_each(|market| self.remove(market, times, now));
            self.shard_mut(shard).forget_gone();
        }
        lowered
    }

    /// Takes stored books in; those that are not to be here, with where they are.
    fn restore(
        &mut self,
        shard: u16,
        stored: Vec<Stored>,
        resume: &BTreeMap<Arc<str>, StreamId>,
        now: i64,
    ) -> Vec<Orphan> {
        let times = Times { source: now, received: now, ..Times::default() };
        let mut orphans = Vec::new();
        let mut restored = Vec::new();
        for stored in stored {
            let id = stored.market.clone();
            let event: Arc<str> = stored.book.fields.text(MarketField::Event).unwrap_or(&id).into();
            let home = shard_of(&event, self.settings.shards);
            let keep = if shard == CATALOGUE {
                // Until its own shard is ours nothing is known of it; after that it would be known.
                self.markets.contains_key(&id) || !self.owns(home)
            } else {
                if self.is_doubtful(&id, &stored.book) {
                    // What is stored was written by one that heard more. (The entry is for nobody: the shard is not ours.)
                    let _ = self.shard_mut(shard).sequencer.gone(&id, times);
                }
                let known = self.markets.get(&id).map(|m| m.shard);
                let source = stored.book.fields.text(MarketField::Source).unwrap_or("");
                // Of a stream of which we missed nothing we know all, or will read it.
                let missed = self.sources.get(source).is_none_or(|t| !t.is_whole());
                known.map_or_else(
                    || missed && home == shard && self.shard(shard).may_restore(&id),
                    |known| known == shard,
                )
            };
            if !keep {
                let elsewhere = self.markets.get(&id).map(|m| m.shard).filter(|_| shard != CATALOGUE);
                orphans.push((id, elsewhere));
                continue;
            }
            restored.push((id, event, stored));
        }
        let mut books = Vec::with_capacity(restored.len());
        for (id, event, stored) in restored {
            let fresh = !self.markets.contains_key(&id) || self.shard(shard).sequencer.book(&id).is_none();
            if shard != CATALOGUE && fresh {
                let source: Arc<str> = stored.book.fields.text(MarketField::Source).unwrap_or("").into();
                if self.markets.contains_key(&id) {
                    self.rehome(&id, event, shard);
                } else {
                    self.adopt(&id, &source, event, shard, now);
                }
                self.restored.push(id.clone());
                self.hold_restored(&id);
                if let Some(meta) = self.markets.get_mut(&id) {
                    meta.partial = false;
                }
                let room = self.add_source(&source, Lane::Lossy, now);
                if let Some(tracker) = self.sources.get_mut(&source) {
                    tracker.note_restored(id.clone());
                }
                if !stored.book.status().is_terminal()
                    && room
                    && let Some(tracker) = self.sources.get_mut(&source)
                    && !(tracker.is_stream() && resume.contains_key(&source))
                {
                    tracker.distrust([id.clone()].into_iter());
                }
            }
            books.push(stored);
        }
        self.shard_mut(shard).sequencer.restore(books);
        orphans
    }

    /// A market was told where it stands. If it was restored it stood there already, and not where a stop that was read again
    /// before found it the first time.
    pub(super) fn doubt_stops(&mut self, source: &str, market: &MarketId, times: Times) {
        if self.sources.get(source).is_some_and(|tracker| tracker.may_have_missed_a_stop(market)) {
            self.want(market, times, times.received);
        }
    }

    /// Whether our own book of a market is less to be trusted than what is stored.
    fn is_doubtful(&self, market: &MarketId, stored: &Book) -> bool {
        let Some(meta) = self.markets.get(market) else { return false };
        let untrusted = self.sources.get(&meta.source).is_some_and(|t| t.untrusted().contains(market));
        let same = stored.fields.text(MarketField::Source) == Some(&*meta.source);
        same && !meta.unconfirmed && (meta.partial || untrusted)
    }

    /// Brings the catalogue in step with a shard that was just taken over.
    fn reconcile(&mut self, shard: u16, times: Times, now: i64) {
        self.list_all(shard, now);
        let mine: Vec<MarketId> = self.shard(shard).sequencer.markets().map(|m| m.0.clone()).collect();
        mine.iter().for_each(|market| self.note_status(market, now));
        let shards = self.settings.shards;
        let home =
            |id: &MarketId, book: &Book| shard_of(book.fields.text(MarketField::Event).unwrap_or(id), shards);
        let unknown: Vec<MarketId> = self
            .catalogue
            .sequencer
            .markets()
            .filter(|(id, _, book)| home(id, book) == shard && !self.markets.contains_key(*id))
            .map(|m| m.0.clone())
            .collect();
        for market in unknown {
            self.unlist(&market, times, now);
        }
    }
}
