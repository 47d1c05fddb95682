//! Sources that are read from streams, and how far the log holds these for sure: a cut through all our shards, one at a
//! time. It begins with what was read by then and what waited in each shard; when all of that is written, every shard's
//! log holds all that the streams said up to there, wherever a market moved meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use tictac_proto::log::CATALOGUE;
use tictac_proto::position::Position;

use super::input::InputTracker;
use super::{Engine, Lane};
use crate::stream_id::StreamId;

/// Positions by source.
type Positions = BTreeMap<Arc<str>, StreamId>;

/// The last cut that is written, and the one under way.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    held: Positions,
    under_way: Option<(Positions, BTreeMap<u16, Position>)>,
}

impl Checkpoint {
    /// What the log holds for sure.
    pub(super) fn held(&self) -> &Positions {
        &self.held
    }

    /// A shard was taken over or lost: what is under way may never be written, and what was held says nothing of it.
    pub(super) fn forget(&mut self) {
        self.held.clear();
        self.under_way = None;
    }
}

impl Engine {
    /// A source is read from a stream, of which nothing is lost: until it says otherwise, it is behind. Whether there was
    /// room for it.
    pub fn open_stream(&mut self, source: &Arc<str>, now: i64) -> bool {
        let room = self.add_source(source, Lane::Stream, now);
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.open_stream();
        }
        room
    }

    /// The next message of a source is this entry of its stream.
    pub fn handle_stream_entry(&mut self, source: &str, id: StreamId) {
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.set_stream_position(id);
        }
    }

    /// One reading of a source's stream is done: whether it was read as far as it went.
    pub fn handle_stream_end(&mut self, source: &str, reached: bool) {
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.handle_stream_end(reached);
        }
    }

    /// A source's stream began anew: positions in the old one say nothing, and what it held is lost.
    pub fn handle_stream_reset(&mut self, source: &Arc<str>) {
        if let Some(tracker) = self.sources.get_mut(source) {
            tracker.set_stream_position(StreamId::ZERO);
        }
        self.checkpoint.forget();
        self.handle_loss(source);
    }

    /// Moves the checkpoint on. Time brings this, so that it costs little.
    pub(super) fn check(&mut self) {
        if !self.sources.values().any(InputTracker::is_stream) {
            return;
        }
        let Self { shards, catalogue, checkpoint, .. } = &mut *self;
        if let Some((read, mut waits)) = checkpoint.under_way.take() {
            let written = |shard: u16, at: Position| {
                shards.get(usize::from(shard)).unwrap_or(catalogue).has_written(at)
            };
            waits.retain(|shard, at| !written(*shard, *at));
            if !waits.is_empty() {
                checkpoint.under_way = Some((read, waits));
                return;
            }
            checkpoint.held = read;
        }
        let streams =
            self.sources.iter().filter(|s| s.1.is_stream() && s.1.stream_position() > StreamId::ZERO);
        let read = streams.map(|(source, tracker)| (source.clone(), tracker.stream_position())).collect();
        let every =
            self.shards.iter().enumerate().map(|(i, s)| (i as u16, s)).chain([(CATALOGUE, &self.catalogue)]);
        let waits = every.filter_map(|(i, s)| Some((i, s.last_waiting()?))).collect();
        self.checkpoint.under_way = Some((read, waits));
    }
}
