//! Slow clients: what they cost those that are not, and what they hold themselves.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use super::case::Case;
use super::server::{Server, Who};
use super::{DRAIN_WITHIN, QUIET, connected, plan, say};
use crate::fleet::{Pace, Slowness};
use crate::orders::Order;

/// One of so many is slow.
const ONE_OF: usize = 20;
/// What a slow one reads, bytes a second.
const BYTES: u32 = 2_048;
/// How old an echo may be for a client to take itself to be live: two and a half of a gateway's heartbeats.
const BOUND: Duration = Duration::from_millis(2_500);
/// How long it takes at least, s: slow ones get behind slowly.
const SECONDS: f64 = 8.0;
/// Levels of each change beside one: about a kilobyte in all.
const WIDTH: usize = 60;
/// Stops a second.
const STOPS: f64 = 2.0;

/// What came of one turn.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    /// Due to delivered of healthy clients, ms.
    pub p99: f64,
    /// The same of stops.
    pub stop_p99: f64,
    /// The share of the changes due that healthy ones got one by one, and not merged with others.
    pub share: f64,
    /// How many slow ones there are.
    pub slow: usize,
    /// How they stand when everything was due.
    pub slowness: Slowness,
    /// Deltas that a slow one got, on average.
    pub slow_deltas: f64,
    /// Digests that agreed with what slow ones hold.
    pub slow_digests: u64,
    /// Slow ones that were closed.
    pub slow_closed: u64,
    /// Merged deltas that were compared with the books that others were told step by step.
    pub compared: u64,
    /// The server's memory after it, MiB.
    pub memory: f64,
    /// The server's CPU while it was measured, 1 is all of one.
    pub cpu: f64,
}

/// One turn of the gateway, with slow clients or the same without any.
///
/// # Errors
/// If the server or a connection fails, or anything that was sent is wrong, to whomever.
pub fn slow(program: &Path, case: &Case, with: bool, cpu: Option<usize>) -> anyhow::Result<Slow> {
    let mut server = Server::start(program, Who::Gateway, case, cpu)?;
    let mut plan = plan(&server, Who::Gateway, case);
    if with {
        let pace = |number| match number {
            1 => Pace::Nothing,
            number if number % ONE_OF == 0 => Pace::Bytes(BYTES),
            _ => Pace::Full,
        };
        plan.paces = (0..case.clients).map(pace).collect();
    }
    let slow = plan.paces.iter().filter(|pace| **pace != Pace::Full).count();
    let (mut fleet, _) = connected(plan)?;
    fleet.reset()?;
    fleet.keep_pace();
    let before = server.cpu_seconds()?;
    let Case { rate, markets, skew, .. } = *case;
    let seconds = case.seconds.max(SECONDS);
    server.order(Order::Pulse { rate, seconds, markets, skew, stops: STOPS, width: WIDTH })?;
    fleet.run(Duration::from_secs_f64(seconds), true, |totals| {
        let p99 = totals.latency.value_at_quantile(0.99) as f64 / 1e3;
        say(&format!("{} delivered, p99 {p99:.1} ms", totals.deltas));
    })?;
    let slowness = fleet.slowness(BOUND);
    let (cpu, memory) = (server.cpu_seconds()? - before, server.memory()?);
    fleet.drain(QUIET, DRAIN_WITHIN)?;
    say("");
    let count = server.answer("done")?;
    fleet.ensure_right()?;
    ensure!(
        slowness.deceived == 0,
        "{} slow clients take old prices for live ones: {slowness:?}",
        slowness.deceived
    );
    ensure!(fleet.totals.closed == 0, "{} healthy connections ended", fleet.totals.closed);
    server.order(Order::Quit)?;
    let ms = |h: &hdrhistogram::Histogram<u64>| h.value_at_quantile(0.99) as f64 / 1e3;
    Ok(Slow {
        p99: ms(&fleet.totals.latency),
        stop_p99: ms(&fleet.totals.stops),
        share: fleet.totals.latency.len() as f64 / (count as f64 * (case.clients - slow) as f64),
        slow,
        slowness,
        slow_deltas: fleet.slow.deltas as f64 / slow.max(1) as f64,
        slow_digests: fleet.slow.digests,
        slow_closed: fleet.slow.closed,
        compared: fleet.findings().compared,
        memory: memory / f64::from(1 << 20),
        cpu: cpu / seconds,
    })
}
