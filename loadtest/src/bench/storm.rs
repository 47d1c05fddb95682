//! A storm: all clients are cut at once and come back with their positions, while changes go on.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::case::Case;
use super::server::{Server, Who};
use super::{CONNECT_WITHIN, DRAIN_WITHIN, QUIET, connected, plan, say};
use crate::orders::Order;

/// How long changes come before the cut.
const BEFORE: Duration = Duration::from_secs(1);
/// What may take in all.
const SECONDS: f64 = 8.0;

/// What came of a storm.
#[derive(Debug, Clone, Copy, Default)]
pub struct Storm {
    /// Upgrades answered a second, from the first connect to the last answer.
    pub accepts: f64,
    /// Until every client had everything again, s.
    pub took: f64,
    /// The server's CPU until then, s.
    pub cpu: f64,
    /// Markets that came back with nothing to say, with a difference, and with a whole book.
    pub exact: u64,
    /// With a difference.
    pub caught_up: u64,
    /// With a whole book.
    pub snapshots: u64,
}

/// One turn, see [`measure`](super::fanout::measure). In the end every client stands where the newest book does.
///
/// # Errors
/// If the server or a connection fails, or anything that was sent is wrong.
pub fn storm(program: &Path, who: Who, case: &Case, cpu: Option<usize>) -> anyhow::Result<Storm> {
    let mut server = Server::start(program, who, case, cpu)?;
    let floor = who.is_floor();
    let (mut fleet, _) = connected(plan(&server, who, case))?;
    let Case { rate, markets, skew, .. } = *case;
    let rate = if floor { rate * case.deliveries() / case.clients as f64 } else { rate };
    server.order(Order::Pulse { rate, seconds: SECONDS, markets, skew, stops: 0.0, width: 0 })?;
    let begun = Instant::now();
    fleet.run(BEFORE, true, |_| {})?;
    fleet.ensure_right()?;
    fleet.reset()?;
    let before = server.cpu_seconds()?;
    fleet.cut_all();
    let back =
        fleet.come_back(CONNECT_WITHIN, |ready| say(&format!("{ready} of {} are back", case.clients)))?;
    let cpu = server.cpu_seconds()? - before;
    let (exact, caught_up, snapshots) = (fleet.totals.exact, fleet.totals.caught_up, fleet.totals.snapshots);
    fleet.run(Duration::from_secs_f64(SECONDS).saturating_sub(begun.elapsed()), true, |_| {})?;
    fleet.drain(QUIET, DRAIN_WITHIN)?;
    say("");
    server.answer("done")?;
    fleet.ensure_right()?;
    ensure!(fleet.totals.closed == 0, "{} connections ended after the storm", fleet.totals.closed);
    let behind = fleet.behind();
    ensure!(behind == 0, "{behind} books of clients are not the newest when everything is told");
    server.order(Order::Quit)?;
    Ok(Storm {
        accepts: case.clients as f64 / back.answered.as_secs_f64(),
        took: back.all.as_secs_f64(),
        cpu,
        exact,
        caught_up,
        snapshots,
    })
}
