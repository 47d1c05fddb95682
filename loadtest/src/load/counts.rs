//! What is counted while clients are there.

use anyhow::Context;

use crate::fleet::{Early, Totals};

/// Latencies, µs.
pub type Histogram = hdrhistogram::Histogram<u64>;

/// Highest value of a histogram, µs, and its precision in digits: those of the fleet.
const HIGHEST: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// An empty histogram.
///
/// # Errors
/// Never: its bounds are right.
pub fn histogram() -> anyhow::Result<Histogram> {
    Histogram::new_with_bounds(1, HIGHEST, DIGITS).context("a histogram")
}

/// A quantile in ms; `None` of nothing.
#[must_use]
pub fn quantile_ms(histogram: &Histogram, share: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(share) as f64 / 1e3)
}

/// What a fleet counted. What can be wrong counts from the first connect on, the rest only while it is measured.
#[derive(Debug, Clone)]
pub struct Sum {
    /// Deltas that brought a client on.
    pub deliveries: u64,
    /// Frames of any kind.
    pub frames: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Reads that brought something.
    pub reads: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Gaps that the gateway declared.
    pub declared: u64,
    /// Gaps that it did not.
    pub undeclared: u64,
    /// Heartbeats whose digest agreed.
    pub digests: u64,
    /// Those whose digest did not.
    pub wrong_digests: u64,
    /// Connections that ended though nobody wished it.
    pub closed: u64,
    /// Markets that clients which came back had as they are, or were told of by a difference.
    pub resumed: u64,
    /// Changes that came before they were due.
    pub early: Early,
    /// Due to delivered, µs, of feeds whose changes say when they were due.
    pub latency: Histogram,
    /// From the connect to the last first book, µs.
    pub ready: Histogram,
}

impl Sum {
    /// Nothing yet.
    ///
    /// # Errors
    /// Never: the bounds of histograms are right.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            deliveries: 0,
            frames: 0,
            bytes: 0,
            reads: 0,
            snapshots: 0,
            declared: 0,
            undeclared: 0,
            digests: 0,
            wrong_digests: 0,
            closed: 0,
            resumed: 0,
            early: Early::default(),
            latency: histogram()?,
            ready: histogram()?,
        })
    }

    /// A fleet's, of a time that was measured or not.
    #[must_use]
    pub fn of(totals: &Totals, measured: bool) -> Self {
        let counted = |count: u64| if measured { count } else { 0 };
        let mut latency = totals.latency.clone();
        if !measured {
            latency.reset();
        }
        Self {
            deliveries: counted(totals.deltas),
            frames: counted(totals.frames),
            bytes: counted(totals.bytes),
            reads: counted(totals.reads),
            snapshots: totals.snapshots,
            declared: totals.declared,
            undeclared: totals.undeclared,
            digests: totals.digests,
            wrong_digests: totals.wrong_digests,
            closed: totals.closed,
            resumed: totals.exact + totals.caught_up,
            early: if measured { totals.early } else { Early::default() },
            latency,
            ready: totals.ready.clone(),
        }
    }

    /// Adds another.
    pub fn add(&mut self, other: &Self) {
        self.deliveries += other.deliveries;
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.reads += other.reads;
        self.snapshots += other.snapshots;
        self.declared += other.declared;
        self.undeclared += other.undeclared;
        self.digests += other.digests;
        self.wrong_digests += other.wrong_digests;
        self.closed += other.closed;
        self.resumed += other.resumed;
        self.early.add(other.early);
        // Both have the same bounds, so that they always fit.
        let _ = self.latency.add(&other.latency);
        let _ = self.ready.add(&other.ready);
    }
}
