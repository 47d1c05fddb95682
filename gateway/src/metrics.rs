//! Metrics: every series of the gateway, made at start-up with closed label sets. Never a market id as a label.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::wires::Wire;

/// All series of a gateway.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Open sessions, by wire.
    pub sessions: [IntGauge; Wire::ALL.len()],
    /// Sessions whose prices pause: the client is silent, or has not read what it was sent.
    pub paused: IntGauge,
    /// Sessions opened, by wire.
    pub opened: [IntCounter; Wire::ALL.len()],
    /// Sessions closed, by code.
    pub closed: IntCounterVec,
    /// Bytes written to clients.
    pub bytes: IntCounter,
    /// Frames replaced by merged ones.
    pub merged: IntCounter,
    /// Bases because a run no longer reached back.
    pub lapsed: IntCounter,
    /// What a limit refused, by limit.
    pub limited: IntCounterVec,
    /// Messages of clients that could not be read or done, by error.
    pub refused: IntCounterVec,
    /// Log entries applied.
    pub applied: IntGauge,
    /// What the follower found and how it was repaired.
    pub follower: IntGaugeVec,
    /// Sizes of what the hub holds.
    pub sizes: IntGaugeVec,
    /// Whether the live subscription is up.
    pub feed_connected: IntGauge,
    /// Live messages that could not be read.
    pub unreadable: IntCounter,
    /// What the canary compared, by what with and how it came out.
    pub canary: IntCounterVec,
    /// Whether the canary found something wrong.
    pub canary_trouble: IntGauge,
    /// Seconds from a stop's time at its source until it was written to its clients' sockets.
    pub stop_seconds: Histogram,
    /// Age of the oldest sign of life, by hop, ms.
    pub age: IntGaugeVec,
}

/// Seconds.
const STOP_BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("the name is a valid metric name");
    registry.register(Box::new(counter.clone())).expect("each name is registered once");
    counter
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("the name is a valid metric name");
    registry.register(Box::new(gauge.clone())).expect("each name is registered once");
    gauge
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    let counters =
        IntCounterVec::new(Opts::new(name, help), &[label]).expect("the name is a valid metric name");
    registry.register(Box::new(counters.clone())).expect("each name is registered once");
    counters
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    let gauges = IntGaugeVec::new(Opts::new(name, help), &[label]).expect("the name is a valid metric name");
    registry.register(Box::new(gauges.clone())).expect("each name is registered once");
    gauges
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All series, at zero.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        r.register(Box::new(process)).expect("the process collector is registered once");
        let sessions = gauges(r, "tictac_sessions", "Open sessions.", "wire");
        let opened = counters(r, "tictac_sessions_opened_total", "Sessions opened.", "wire");
        Self {
            sessions: Wire::ALL.map(|w| sessions.with_label_values(&[w.label()])),
            paused: gauge(
                r,
                "tictac_sessions_paused",
                "Sessions whose prices pause: silent, or not reading what they were sent.",
            ),
            opened: Wire::ALL.map(|w| opened.with_label_values(&[w.label()])),
            closed: counters(r, "tictac_sessions_closed_total", "Sessions closed, by close code.", "code"),
            bytes: counter(r, "tictac_sent_bytes_total", "Bytes written to clients."),
            merged: counter(r, "tictac_merged_frames_total", "Frames that a merged delta replaced."),
            lapsed: counter(r, "tictac_lapsed_total", "Readers further behind than a run reaches."),
            limited: counters(r, "tictac_limited_total", "What a limit refused.", "limit"),
            refused: counters(r, "tictac_refused_total", "Messages of clients that were refused.", "error"),
            applied: gauge(r, "tictac_applied_entries", "Log entries applied since start."),
            follower: gauges(r, "tictac_follower_events", "Gaps, repairs and refusals since start.", "event"),
            sizes: gauges(r, "tictac_hub_size", "What the hub holds.", "what"),
            feed_connected: gauge(r, "tictac_feed_connected", "1 while the live subscription is up."),
            unreadable: counter(
                r,
                "tictac_unreadable_messages_total",
                "Messages of the log that could not be read.",
            ),
            canary: {
                let opts = Opts::new("tictac_canary_checks_total", "Books that the canary compared.");
                let checks = IntCounterVec::new(opts, &["with", "found"]).expect("a valid name");
                registry.register(Box::new(checks.clone())).expect("each name is registered once");
                checks
            },
            canary_trouble: gauge(r, "tictac_canary_trouble", "1 while the canary finds something wrong."),
            stop_seconds: {
                let help = "From a stop's time at its source until it was written to its clients' sockets.";
                let opts =
                    HistogramOpts::new("tictac_stop_to_socket_seconds", help).buckets(STOP_BUCKETS.to_vec());
                let histogram = Histogram::with_opts(opts).expect("a valid name");
                registry.register(Box::new(histogram.clone())).expect("each name is registered once");
                histogram
            },
            age: gauges(r, "tictac_oldest_sign_of_life_ms", "Age of the oldest sign of life, by hop.", "hop"),
            registry,
        }
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let families = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode(&families, &mut out) {
            tracing::error!(%error, "metrics can't be written");
        }
        out
    }
}
