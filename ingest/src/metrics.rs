//! What ingest tells Prometheus. Every label set is closed: kinds of problems, and sources, of which there are at most
//! [`MAX_SOURCES`](crate::engine::MAX_SOURCES).

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::engine::Engine;

/// All metrics of one ingest.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Entries written.
    pub entries: IntCounter,
    /// Batches written.
    pub batches: IntCounter,
    /// How long writing a batch took, seconds.
    pub append_seconds: Histogram,
    /// Messages dropped because the engine did not keep up.
    pub input_dropped: IntCounter,
    /// `taken` messages sent.
    pub taken: IntCounter,
    updates: IntCounter,
    epochs: IntCounter,
    losses: IntCounter,
    absent_deletes: IntCounter,
    problems: IntCounterVec,
    markets: IntGauge,
    shards_owned: IntGauge,
    backlog: IntGauge,
    feed: IntGaugeVec,
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

impl Metrics {
    /// A registry with all of them in it.
    ///
    /// # Errors
    /// Never with these names; the library can't promise it.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let append_seconds = Histogram::with_opts(
            HistogramOpts::new("tictac_ingest_append_seconds", "Time to write a batch to the log")
                .buckets(vec![0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]),
        )?;
        r.register(Box::new(append_seconds.clone()))?;
        let problems = IntCounterVec::new(
            Opts::new("tictac_ingest_problems_total", "Input that could not be taken"),
            &["source", "kind"],
        )?;
        r.register(Box::new(problems.clone()))?;
        let feed = IntGaugeVec::new(
            Opts::new("tictac_ingest_feed_state", "0 live, 1 recovering, 2 stale, 3 down"),
            &["source"],
        )?;
        r.register(Box::new(feed.clone()))?;
        Ok(Self {
            entries: counter(r, "tictac_ingest_entries_total", "Log entries written")?,
            batches: counter(r, "tictac_ingest_batches_total", "Batches written to the log")?,
            append_seconds,
            input_dropped: counter(
                r,
                "tictac_ingest_input_dropped_total",
                "Messages of sources dropped because the engine did not keep up",
            )?,
            taken: counter(r, "tictac_ingest_taken_total", "Confirmations sent to sources")?,
            updates: counter(r, "tictac_ingest_updates_total", "Updates of sources taken in")?,
            epochs: counter(r, "tictac_ingest_epochs_total", "Times that a shard was taken over")?,
            losses: counter(r, "tictac_ingest_losses_total", "Times that a source's input was lost")?,
            absent_deletes: counter(
                r,
                "tictac_ingest_absent_deletes_total",
                "Deletes of price levels that were not there",
            )?,
            problems,
            markets: gauge(r, "tictac_ingest_markets", "Markets known")?,
            shards_owned: gauge(r, "tictac_ingest_shards_owned", "Shards owned, the catalogue included")?,
            backlog: gauge(r, "tictac_ingest_backlog_entries", "Entries that wait for the log")?,
            feed,
            registry,
        })
    }

    /// Takes over what the engine counts.
    pub fn observe(&self, engine: &Engine, now: i64) {
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        let counters = engine.counters();
        raise(&self.updates, counters.updates);
        raise(&self.epochs, counters.epochs);
        raise(&self.losses, counters.losses);
        raise(&self.absent_deletes, engine.absent_deletes());
        self.markets.set(engine.len() as i64);
        self.shards_owned.set(engine.shards().filter(|s| engine.owns(*s)).count() as i64);
        self.backlog.set(engine.backlog() as i64);
        for (source, kind, count) in engine.problems().counts() {
            raise(&self.problems.with_label_values(&[&**source, kind]), count);
        }
        for report in engine.feeds(now) {
            self.feed.with_label_values(&[&*report.source]).set(report.state as i64);
        }
    }

    /// The text that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        // Writing to memory fails only for an invalid registry, which was checked when it was made.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}
