//! Fan-out: how much of what was due came, how late, and what it cost the server.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::case::Case;
use super::server::{Server, Who, cpu_seconds};
use super::{DRAIN_WITHIN, QUIET, connected, plan, say};
use crate::orders::Order;

/// What came of one turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// Deliveries that were offered a second.
    pub offered: f64,
    /// The share of them that was delivered.
    pub share: f64,
    /// Due to delivered, ms.
    pub p50: f64,
    /// The same of 99 of a hundred.
    pub p99: f64,
    /// The worst.
    pub max: f64,
    /// Server's CPU time for each delivery, µs.
    pub cpu_us: f64,
    /// Server's CPU while it was measured, 1 is all of one.
    pub cpu: f64,
    /// The clients' CPU.
    pub own_cpu: f64,
    /// Frames of one read.
    pub frames_per_read: f64,
    /// Bytes of one frame.
    pub frame_bytes: f64,
    /// Connects a second, until every client had its books.
    pub connects: f64,
    /// Bytes of memory that each client costs the server, with its subscriptions and first books.
    pub memory: f64,
}

/// One turn. The server is `program` (this one, or a test's), on one CPU or on all; the clients run in this process, which is
/// to be pinned elsewhere.
///
/// # Errors
/// If the server or a connection fails, or anything that was sent is wrong.
pub fn measure(program: &Path, who: Who, case: &Case, cpu: Option<usize>) -> anyhow::Result<Measured> {
    let mut server = Server::start(program, who, case, cpu)?;
    let floor = who.is_floor();
    let before = server.memory()?;
    let (mut fleet, took) = connected(plan(&server, who, case))?;
    let memory = (server.memory()? - before) / case.clients as f64;
    fleet.reset()?;
    let (cpu, own, begun) = (server.cpu_seconds()?, cpu_seconds("self")?, Instant::now());
    let Case { rate, seconds, markets, skew, .. } = *case;
    // The floor sends everything to everybody: as many deliveries.
    let rate = if floor { rate * case.deliveries() / case.clients as f64 } else { rate };
    server.order(Order::Pulse { rate, seconds, markets, skew, stops: 0.0, width: 0 })?;
    fleet.run(Duration::from_secs_f64(seconds), true, |totals| {
        let p99 = totals.latency.value_at_quantile(0.99) as f64 / 1e3;
        say(&format!("{} delivered, p99 {p99:.1} ms", totals.deltas));
    })?;
    let elapsed = begun.elapsed().as_secs_f64();
    let (cpu, own) = (server.cpu_seconds()? - cpu, cpu_seconds("self")? - own);
    // What the CPU was spent for; the rest comes later.
    let meanwhile = fleet.totals.deltas.max(1) as f64;
    fleet.drain(QUIET, DRAIN_WITHIN)?;
    say("");
    let count = server.answer("done")?;
    fleet.ensure_right()?;
    server.ensure_published()?;
    let totals = &fleet.totals;
    ensure!(totals.closed == 0, "{} connections ended", totals.closed);
    let expected = count as f64 * if floor { case.clients as f64 } else { case.deliveries() };
    let ms = |share: f64| totals.latency.value_at_quantile(share) as f64 / 1e3;
    server.order(Order::Quit)?;
    Ok(Measured {
        offered: expected / seconds,
        share: totals.deltas as f64 / expected,
        p50: ms(0.5),
        p99: ms(0.99),
        max: totals.latency.max() as f64 / 1e3,
        cpu_us: cpu * 1e6 / meanwhile,
        cpu: cpu / elapsed,
        own_cpu: own / elapsed,
        frames_per_read: totals.frames as f64 / totals.reads.max(1) as f64,
        frame_bytes: totals.bytes as f64 / totals.frames.max(1) as f64,
        connects: case.clients as f64 / took.as_secs_f64(),
        memory,
    })
}

/// For how long there is nothing to do before memory is looked at: what a connect needs for a moment is given back late.
const SETTLE: Duration = Duration::from_secs(3);

/// What one client costs the gateway in memory, bytes: with its subscriptions, when it was told everything and has nothing but
/// pings and heartbeats for a while.
///
/// # Errors
/// If the server or a connection fails, or anything that was sent is wrong.
pub fn idle(program: &Path, case: &Case, cpu: Option<usize>) -> anyhow::Result<f64> {
    let mut server = Server::start(program, Who::Gateway, case, cpu)?;
    std::thread::sleep(SETTLE);
    let before = server.memory()?;
    let (mut fleet, _) = connected(plan(&server, Who::Gateway, case))?;
    fleet.run(SETTLE, true, |_| say("idle"))?;
    say("");
    let after = server.memory()?;
    fleet.ensure_right()?;
    ensure!(fleet.totals.closed == 0, "{} connections ended", fleet.totals.closed);
    server.order(Order::Quit)?;
    Ok((after - before) / case.clients as f64)
}
