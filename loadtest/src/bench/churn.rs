//! Churn: clients leave and others come, all the time. What they leave behind would show in the server's memory.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::case::Case;
use super::server::{Server, Who};
use super::{CONNECT_WITHIN, DRAIN_WITHIN, QUIET, connected, plan, say};
use crate::orders::Order;

/// Of all clients, so many are replaced a second.
const SHARE: f64 = 0.05;
/// How often some are.
const EVERY: Duration = Duration::from_millis(100);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The share of the time that does not count in the beginning: tables and buffers find their size, and the log in memory fills.
const BEGINNING: f64 = 0.25;
/// What the end may have more than the beginning: a share, and MiB.
const GROWTH: f64 = 0.05;
const SLACK: f64 = 2.0;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Churn {
    /// Connections that were cut, and came back or came anew.
    pub cut: usize,
    /// Markets that those who came back were told of by a difference, or had as they are.
    pub resumed: u64,
    /// Books that were sent whole.
    pub snapshots: u64,
    /// The server's memory each second, MiB.
    pub memory: Vec<f64>,
}

fn median(of: &[f64]) -> f64 {
    let mut sorted = of.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

impl Churn {
    /// Memory in the first and in the last third of what counts, MiB.
    #[must_use]
    pub fn ends(&self) -> (f64, f64) {
        let counts = &self.memory[(self.memory.len() as f64 * BEGINNING) as usize..];
        let third = counts.len().div_ceil(3);
        (median(&counts[..third]), median(&counts[counts.len() - third..]))
    }

    /// Memory does not grow.
    ///
    /// # Errors
    /// If it does: from what to what.
    pub fn ensure_flat(&self) -> anyhow::Result<()> {
        let (first, last) = self.ends();
        ensure!(
            last <= first * (1.0 + GROWTH) + SLACK,
            "memory grew from {first:.1} to {last:.1} MiB while {} connections came and went: something is kept of each",
            self.cut
        );
        Ok(())
    }
}

/// One turn of `case.seconds`, see [`measure`](super::fanout::measure): half of those that are cut come back with their positions, the
/// others as new clients. In the end every client stands where the newest book does.
///
/// # Errors
/// If the server or a connection fails, anything that was sent is wrong, or memory grows.
pub fn churn(program: &Path, case: &Case, cpu: Option<usize>) -> anyhow::Result<Churn> {
    let mut server = Server::start(program, Who::Gateway, case, cpu)?;
    let (mut fleet, _) = connected(plan(&server, Who::Gateway, case))?;
    let Case { rate, markets, skew, seconds, clients, .. } = *case;
    server.order(Order::Pulse { rate, seconds, markets, skew, stops: 0.0, width: 0 })?;
    fleet.reset()?;
    let (begun, mut churn, mut next) = (Instant::now(), Churn::default(), 0);
    let each = (clients as f64 * SHARE * EVERY.as_secs_f64()).ceil() as usize;
    while begun.elapsed().as_secs_f64() < seconds {
        let some = (next..next + each).map(|number| number % clients);
        // Each comes back as it was in one round, and anew in the next.
        churn.cut += fleet.replace(some, (next / each + next / clients).is_multiple_of(2))?;
        next += each;
        fleet.run(EVERY, false, |_| {})?;
        fleet.ensure_right()?;
        if begun.elapsed() >= LOOK * churn.memory.len() as u32 {
            churn.memory.push(server.memory()? / 1024.0 / 1024.0);
            let now = churn.memory.last().copied().unwrap_or_default();
            say(&format!(
                "{:.0} of {seconds:.0} s: {} came and went, {now:.1} MiB",
                begun.elapsed().as_secs_f64(),
                churn.cut
            ));
        }
    }
    // Nobody is cut any more: all are to come back.
    let deadline = Instant::now() + CONNECT_WITHIN;
    while fleet.ready() < clients {
        ensure!(Instant::now() < deadline, "{} of {clients} clients are back in the end", fleet.ready());
        fleet.run(EVERY, false, |_| {})?;
    }
    fleet.drain(QUIET, DRAIN_WITHIN)?;
    say("");
    server.answer("done")?;
    fleet.ensure_right()?;
    ensure!(fleet.totals.closed == 0, "{} connections ended that nobody cut", fleet.totals.closed);
    let behind = fleet.behind();
    ensure!(behind == 0, "{behind} books of clients are not the newest when everything is told");
    churn.resumed = fleet.totals.exact + fleet.totals.caught_up;
    churn.snapshots = fleet.totals.snapshots;
    server.order(Order::Quit)?;
    let planned = seconds * clients as f64 * SHARE;
    ensure!(churn.cut as f64 > planned / 2.0, "{} of {planned:.0} clients could be replaced", churn.cut);
    churn.ensure_flat()?;
    Ok(churn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_is_found_and_a_beginning_is_not() {
        let of = |memory: Vec<f64>| Churn { cut: 1, memory, ..Churn::default() };
        let grows = of((0..100).map(|second| 50.0 + f64::from(second) * 0.2).collect());
        let error = grows.ensure_flat().unwrap_err().to_string();
        assert!(error.starts_with("memory grew from 57.4 to 67.4 MiB"), "{error}");
        let begins = (0..100).map(|second| 50.0 + f64::from(second.min(15)) * 2.0);
        assert!(of(begins.collect()).ensure_flat().is_ok());
        assert_eq!(of((0..10).map(f64::from).collect()).ends(), (3.0, 8.0));
    }
}
