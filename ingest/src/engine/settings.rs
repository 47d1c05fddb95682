//! What the engine can be told, with its defaults. All times in milliseconds.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Most sources of one deployment: each is a label of metrics and a line of every `alive`.
pub const MAX_SOURCES: usize = 64;

/// Settings of an [`Engine`](super::Engine).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// How many shards events are spread over, beside the catalogue. Every gateway must have the same number.
    pub shards: u16,
    /// Silence of a source after which its feed is stale; down after three times this.
    pub stale_after: i64,
    /// The same for single sources.
    pub stale_after_of: BTreeMap<Arc<str>, i64>,
    /// A changed market is stored anew at the latest after this.
    pub snapshot_every: i64,
    /// How long the log is kept for readers.
    pub keep_log: i64,
    /// How many entries of a shard the log holds at most: markets are stored earlier so that it never has to forget what no
    /// snapshot holds.
    pub log_capacity: u64,
    /// A terminal market is gone after this.
    pub gone_after: i64,
    /// How often `alive` is sent.
    pub alive_every: i64,
    /// A feed of which something came in longer ago and is not written yet is not live: the bound of the way from ingest to
    /// gateway.
    pub write_within: i64,
    /// How often the catalogue tells a market's matched volume.
    pub matched_every: i64,
    /// How long a source that is alive may take to image a market again. After it the market is suspended, so that it does
    /// not hold up the source's others.
    pub image_patience: i64,
    /// How often markets that still need an image are asked for.
    pub image_every: i64,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            shards: 64,
            stale_after: 5_000,
            stale_after_of: BTreeMap::new(),
            snapshot_every: 5_000,
            keep_log: 60_000,
            log_capacity: 65_536,
            gone_after: 600_000,
            alive_every: 500,
            write_within: 1_500,
            matched_every: 1_000,
            image_patience: 30_000,
            image_every: 2_000,
        }
    }
}

impl EngineSettings {
    /// The bound of one source's silence.
    #[must_use]
    pub fn stale_after(&self, source: &str) -> i64 {
        self.stale_after_of.get(source).copied().unwrap_or(self.stale_after)
    }
}
