//! What the log's keys and channels are called. A shard's all carry its hash tag, so that they share a slot of a
//! Redis Cluster and one function may touch them all.

use tictac_proto::log::CATALOGUE;

/// Names under one prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    fn shard(&self, shard: u16, rest: &str) -> String {
        let prefix = &self.prefix;
        if shard == CATALOGUE {
            format!("{prefix}:{{cat}}:{rest}")
        } else {
            format!("{prefix}:{{{shard}}}:{rest}")
        }
    }

    /// The owner's lease: its id, while it lives.
    pub(crate) fn owner(&self, shard: u16) -> String {
        self.shard(shard, "own")
    }

    /// The epoch.
    pub(crate) fn epoch(&self, shard: u16) -> String {
        self.shard(shard, "ep")
    }

    /// The number of the last entry.
    pub(crate) fn number(&self, shard: u16) -> String {
        self.shard(shard, "n")
    }

    /// The log itself, a stream.
    pub(crate) fn log(&self, shard: u16) -> String {
        self.shard(shard, "log")
    }

    /// The ids of the markets that have a snapshot, a set.
    pub(crate) fn markets(&self, shard: u16) -> String {
        self.shard(shard, "markets")
    }

    /// How far each source's stream is in the log, a hash.
    pub(crate) fn resume(&self, shard: u16) -> String {
        self.shard(shard, "resume")
    }

    /// A market's snapshot.
    pub(crate) fn snapshot(&self, shard: u16, market: &str) -> String {
        self.shard(shard, &format!("snap:{market}"))
    }

    /// The operator's ledger, a hash.
    pub(crate) fn ledger(&self) -> String {
        self.shard(CATALOGUE, "ledger")
    }

    /// What operators did, a stream.
    pub(crate) fn audit(&self) -> String {
        self.shard(CATALOGUE, "audit")
    }

    /// Where operators' acts are told. Plain pub/sub.
    pub(crate) fn operator(&self) -> String {
        format!("{}:operator", self.prefix)
    }

    /// Where owners say that a shard is free. Plain pub/sub, for all shards.
    pub(crate) fn free(&self) -> String {
        format!("{}:free", self.prefix)
    }

    /// The live channel.
    pub(crate) fn live(&self, shard: u16) -> String {
        self.shard(shard, "live")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_prefix_and_tag() {
        let keys = Keys::new("odds");
        assert_eq!(keys.snapshot(7, "1.234"), "odds:{7}:snap:1.234");
        assert_eq!(keys.owner(0), "odds:{0}:own");
        assert_eq!(keys.live(CATALOGUE), "odds:{cat}:live");
    }

    #[test]
    fn a_market_with_braces_stays_in_its_slot() {
        // Redis hashes what is inside the first braces only.
        assert!(Keys::new("odds").snapshot(7, "{x}").starts_with("odds:{7}:"));
    }
}
