//! The guards that keep the feed safe, by name, so that the simulation can take one away and show what it is for.
//!
//! In every ordinary build [`on`] is a constant `true` and costs nothing. Only with the feature `sabotage`, which
//! nothing but tests enables, a test may take guards away for its own thread.

/// A guard of the feed. The simulation has a test for each: with it gone, an invariant breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Guard {
    /// The log refuses a writer that is not its owner, or not where the log is.
    Fence,
    /// A gateway takes only the next number of a shard.
    ShardCounter,
    /// `alive` says how far the log has come.
    AlivePosition,
    /// A client trades only at or above the highest stop.
    StopBarrier,
    /// Snapshots carry the last stop, and who repairs from one raises it at once.
    SnapshotStop,
    /// A depth view deletes what leaves its depth.
    ViewDeletes,
    /// A gateway refuses lower epochs.
    LowerEpochs,
}

impl Guard {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Fence,
        Self::ShardCounter,
        Self::AlivePosition,
        Self::StopBarrier,
        Self::SnapshotStop,
        Self::ViewDeletes,
        Self::LowerEpochs,
    ];
}

/// Whether a guard is there.
#[cfg(not(feature = "sabotage"))]
#[must_use]
#[inline(always)]
pub const fn on(_: Guard) -> bool {
    true
}

#[cfg(feature = "sabotage")]
pub use sabotage::{on, only_without};

#[cfg(feature = "sabotage")]
mod sabotage {
    use super::Guard;
    use std::cell::Cell;

    thread_local! {
        static REMOVED: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    /// Whether a guard is there, for this thread.
    #[must_use]
    pub fn on(guard: Guard) -> bool {
        REMOVED.get() != Some(guard)
    }

    /// Takes one guard away for this thread, or puts all back.
    pub fn only_without(guard: Option<Guard>) {
        REMOVED.set(guard);
    }
}
