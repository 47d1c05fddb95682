//! How far sources' streams are in the log for sure: a cut through all our shards, one at a time. It begins with what was
//! read by then and what waited in each shard; when all of that is written, every shard's log holds all that the streams
//! said up to there, wherever a market moved meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use tictac_proto::log::CATALOGUE;
use tictac_proto::position::Position;

use super::Engine;
use super::input::InputTracker;
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
