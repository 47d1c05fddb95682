//! `bench`: the cases, their turns, and the tables.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::{Value as Json, json};
use tictac_ingest::testing::RedisServer;

use super::case::{Case, Kind, cases, short};
use super::churn::{Churn, churn};
use super::fanout::{Measured, idle, measure};
use super::slow::{Slow, slow};
use super::storm::{Storm, storm};
use super::{Settings, Who, pin};

/// A floor whose turns are further apart than this, as a share of their median, is not steady.
const STEADY: f64 = 0.2;
/// How often a case is measured anew because its floor was not steady.
const AGAIN: usize = 2;

/// How often and how long a case of growth is measured at most.
const GROWTH_RUNS: u64 = 3;
const GROWTH_SECONDS: f64 = 3.0;
/// How long a bar is.
const BAR_PER_US: f64 = 4.0;
const LONGEST_BAR: usize = 60;

fn median<T>(all: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// How far the values are apart, as a share of their median.
fn spread<T>(all: &[T], of: impl Fn(&T) -> f64 + Copy) -> f64 {
    let values = all.iter().map(of);
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(v), most.max(v)));
    (most - least) / median(all, of).max(f64::MIN_POSITIVE)
}

/// Where and how often cases are measured.
struct Bench<'a> {
    program: &'a Path,
    cpu: Option<usize>,
    runs: u64,
}

/// Measures and prints.
///
/// # Errors
/// If a server or a connection fails, something that was sent is wrong, or a file can't be written.
pub fn bench(settings: &Settings) -> anyhow::Result<()> {
    let named = |case: &Case| {
        // That takes as long as one says.
        let by_default = settings.cases.is_empty() && case.kind != Kind::Churn;
        by_default || settings.cases.iter().any(|part| case.name.contains(&**part))
    };
    let chosen: Vec<Case> =
        cases().into_iter().filter(named).map(|case| Case { seconds: settings.seconds, ..case }).collect();
    if chosen.is_empty() {
        let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
        anyhow::bail!("no case is named so; there are:\n  {}", names.join("\n  "));
    }
    if chosen.iter().any(|case| case.kind == Kind::Published) {
        // Better now than in the middle.
        RedisServer::start().map_err(anyhow::Error::msg)?;
    }
    pin(settings.client_cpu)?;
    let program = std::env::current_exe()?;
    let bench = Bench { program: &program, cpu: Some(settings.server_cpu), runs: settings.runs };
    let (mut lines, mut kind) = (Vec::new(), None);
    for case in chosen {
        if kind.replace(case.kind) != Some(case.kind) {
            let (bold, end) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            println!("{}{bold}{}{end}", if lines.is_empty() { "" } else { "\n" }, heading(case.kind));
        }
        let (row, line) = match case.kind {
            Kind::FanOut => bench.fan_out(&case)?,
            Kind::Published => bench.published(&case)?,
            Kind::Growth => bench.growth(&case)?,
            Kind::Idle => bench.idle(&case)?,
            Kind::Slow => bench.slow(&case)?,
            Kind::Storm => bench.storm(&case)?,
            Kind::Churn => bench.churn(&case)?,
        };
        println!("{:<30} {row}", case.name);
        std::io::stdout().flush()?;
        lines.push(line);
        // As far as it came, where a later case fails.
        if let Some(path) = &settings.json {
            std::fs::write(path, serde_json::to_string_pretty(&lines)?)
                .with_context(|| format!("{} can't be written", path.display()))?;
        }
    }
    Ok(())
}

fn heading(kind: Kind) -> String {
    match kind {
        Kind::FanOut => format!(
            "{:<30} {:>9} {:>7} {:>15} {:>15} {:>17} {:>7} {:>7} {:>7}",
            "fan-out",
            "offered/s",
            "share",
            "p50 ms (floor)",
            "p99 ms (floor)",
            "CPU µs (floor)",
            "× CPU",
            "spread",
            "clients",
        ),
        Kind::Published => format!(
            "{:<30} {:>9} {:>7} {:>18} {:>18} {:>18}",
            "from PUBLISH", "offered/s", "share", "p50 ms (inside)", "p99 ms (inside)", "CPU µs (inside)",
        ),
        Kind::Growth => format!(
            "{:<30} {:>9} {:>7} {:>7} {:>9}  CPU µs of a delivered update",
            "growth", "offered/s", "share", "CPU", "CPU µs"
        ),
        Kind::Idle => format!("{:<30} {:>12} {:>8}", "memory", "B/client", "spread"),
        Kind::Slow => format!(
            "{:<30} {:>18} {:>7} {:>18} {:>7} {:>6} {:>6} {:>7} {:>7} {:>14}",
            "slow clients",
            "p99 ms (without)",
            "×",
            "stop ms (without)",
            "×",
            "old s",
            "aware",
            "deltas",
            "closed",
            "MiB (without)",
        ),
        Kind::Storm => format!(
            "{:<30} {:>19} {:>7} {:>17} {:>8} {:>8} {:>8} {:>8}",
            "reconnect storm",
            "accepts/s (floor)",
            "×",
            "all back s (fl.)",
            "CPU s",
            "as is",
            "deltas",
            "books",
        ),
        Kind::Churn => format!(
            "{:<30} {:>9} {:>9} {:>9} {:>18}  memory of the last turn",
            "churn", "cut", "resumed", "books", "MiB, first to last"
        ),
    }
}

/// Values as a line of blocks, from none to the highest.
fn sparkline(values: &[f64], width: usize) -> String {
    let highest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let columns = values.chunks(values.len().div_ceil(width).max(1));
    let block = |column: &[f64]| {
        let mean = column.iter().sum::<f64>() / column.len() as f64;
        ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'][((mean / highest * 8.0) as usize).min(7)]
    };
    columns.map(block).collect()
}

impl Bench<'_> {
    /// Turns of the gateway and the floor, again where the floor is not steady by `of`.
    fn by_turns<T>(
        &self,
        mut turn: impl FnMut(Who) -> anyhow::Result<T>,
        bytes: impl Fn(&[T]) -> usize,
        of: impl Fn(&T) -> f64 + Copy,
    ) -> anyhow::Result<(Vec<T>, Vec<T>)> {
        let mut again = 0;
        loop {
            let (mut gateway, mut floor) = (Vec::new(), Vec::new());
            for _ in 0..self.runs {
                gateway.push(turn(Who::Gateway)?);
                floor.push(turn(Who::Floor(bytes(&gateway)))?);
            }
            if spread(&floor, of) <= STEADY || again == AGAIN {
                return Ok((gateway, floor));
            }
            again += 1;
        }
    }

    fn fan_out(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        let bytes = |all: &[Measured]| median(all, |m| m.frame_bytes).round() as usize;
        let (gateway, floor) =
            self.by_turns(|who| measure(self.program, who, case, self.cpu), bytes, |m| m.cpu_us)?;
        let both = |of: fn(&Measured) -> f64| (median(&gateway, of), median(&floor, of));
        let ((p50, f50), (p99, f99), (cpu, fcpu)) = (both(|m| m.p50), both(|m| m.p99), both(|m| m.cpu_us));
        let row = format!(
            "{:>9} {:>6.1}% {:>7.1} ({:>5.1}) {:>7.1} ({:>5.1}) {:>8.2} ({:>5.2}) {:>7.2} {:>6.0}% {:>6.0}%",
            short(median(&gateway, |m| m.offered)),
            100.0 * median(&gateway, |m| m.share),
            p50,
            f50,
            p99,
            f99,
            cpu,
            fcpu,
            cpu / fcpu,
            100.0 * spread(&floor, |m| m.cpu_us),
            100.0 * median(&gateway, |m| m.own_cpu),
        );
        let all = |who: &[Measured]| {
            json!({
                "share": median(who, |m| m.share),
                "p50_ms": median(who, |m| m.p50),
                "p99_ms": median(who, |m| m.p99),
                "max_ms": median(who, |m| m.max),
                "cpu_us": median(who, |m| m.cpu_us),
                "cpu_spread": spread(who, |m| m.cpu_us),
                "cpu": median(who, |m| m.cpu),
                "client_cpu": median(who, |m| m.own_cpu),
                "frames_per_read": median(who, |m| m.frames_per_read),
                "frame_bytes": median(who, |m| m.frame_bytes),
                "connects": median(who, |m| m.connects),
                "memory": median(who, |m| m.memory),
            })
        };
        let line = json!({
            "case": case.name,
            "clients": case.clients,
            "offered": median(&gateway, |m| m.offered),
            "gateway": all(&gateway),
            "floor": all(&floor),
        });
        Ok((row, line))
    }

    /// All that an update goes through against ingest and the gateway alone: what the source, that it writes JSON, ingest, that it reads
    /// it, and Redis cost, all on the same CPU.
    fn published(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        let (mut whole, mut inside) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            whole.push(measure(self.program, Who::Published, case, self.cpu)?);
            inside.push(measure(self.program, Who::Gateway, case, self.cpu)?);
        }
        let both = |of: fn(&Measured) -> f64| (median(&whole, of), median(&inside, of));
        let ((p50, p50_0), (p99, p99_0), (cpu, cpu_0)) =
            (both(|m| m.p50), both(|m| m.p99), both(|m| m.cpu_us));
        let (offered, share) = (median(&whole, |m| m.offered), median(&whole, |m| m.share));
        let row = format!(
            "{:>9} {:>6.1}% ({:>5.1}%) {p50:>8.1} ({p50_0:>7.1}) {p99:>8.1} ({p99_0:>7.1}) {cpu:>8.2} ({cpu_0:>7.2})",
            short(offered),
            100.0 * share,
            100.0 * median(&inside, |m| m.share),
        );
        let all = |who: &[Measured]| {
            json!({
                "share": median(who, |m| m.share),
                "p50_ms": median(who, |m| m.p50),
                "p99_ms": median(who, |m| m.p99),
                "p99_spread": spread(who, |m| m.p99),
                "max_ms": median(who, |m| m.max),
                "cpu_us": median(who, |m| m.cpu_us),
            })
        };
        Ok((
            row,
            json!({ "case": case.name, "offered": offered, "published": all(&whole), "inside": all(&inside) }),
        ))
    }

    /// Of the gateway alone, with a bar to see at a glance.
    fn growth(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        let case = Case { seconds: case.seconds.min(GROWTH_SECONDS), ..case.clone() };
        let turn = |_| measure(self.program, Who::Gateway, &case, self.cpu);
        let turns = (0..self.runs.min(GROWTH_RUNS)).map(turn).collect::<anyhow::Result<Vec<Measured>>>()?;
        let of = |of: fn(&Measured) -> f64| median(&turns, of);
        let (offered, share, busy, cpu) =
            (of(|m| m.offered), of(|m| m.share), of(|m| m.cpu), of(|m| m.cpu_us));
        let bar = "█".repeat(((cpu * BAR_PER_US).round() as usize).clamp(1, LONGEST_BAR));
        let row =
            format!("{:>9} {:>6.1}% {:>6.0}% {cpu:>9.2}  {bar}", short(offered), 100.0 * share, 100.0 * busy);
        let apart = spread(&turns, |m| m.cpu_us);
        let line = json!({ "case": case.name, "clients": case.clients, "markets": case.markets,
            "offered": offered, "share": share, "cpu": busy, "cpu_us": cpu, "cpu_spread": apart });
        Ok((row, line))
    }

    fn idle(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        let turns: anyhow::Result<Vec<f64>> =
            (0..self.runs).map(|_| idle(self.program, case, self.cpu)).collect();
        let turns = turns?;
        let (bytes, apart) = (median(&turns, |b| *b), spread(&turns, |b| *b));
        let row = format!("{bytes:>12.0} {:>7.0}%", 100.0 * apart);
        Ok((row, json!({ "case": case.name, "clients": case.clients, "memory": bytes, "spread": apart })))
    }

    fn slow(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        let (mut with, mut without): (Vec<Slow>, Vec<Slow>) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            with.push(slow(self.program, case, true, self.cpu)?);
            without.push(slow(self.program, case, false, self.cpu)?);
        }
        let both = |of: fn(&Slow) -> f64| (median(&with, of), median(&without, of));
        let ((p99, p99_0), (stop, stop_0)) = (both(|s| s.p99), both(|s| s.stop_p99));
        let (memory, memory_0) = both(|s| s.memory);
        let of = |of: fn(&Slow) -> f64| median(&with, of);
        let row = format!(
            "{p99:>8.1} ({p99_0:>7.1}) {:>7.2} {stop:>8.1} ({stop_0:>7.1}) {:>7.2} {:>6.1} {:>6.0} {:>7.1} {:>7.0} {memory:>6.0} ({memory_0:>5.0})",
            p99 / p99_0,
            stop / stop_0,
            of(|s| s.slowness.data_age as f64 / 1e3),
            of(|s| s.slowness.aware as f64),
            of(|s| s.slow_deltas),
            of(|s| s.slow_closed as f64),
        );
        let all = |who: &[Slow]| {
            json!({
                "p99_ms": median(who, |s| s.p99),
                "p99_spread": spread(who, |s| s.p99),
                "stop_p99_ms": median(who, |s| s.stop_p99),
                "share": median(who, |s| s.share),
                "slow": median(who, |s| s.slow as f64),
                "slow_aware": median(who, |s| s.slowness.aware as f64),
                "slow_echo_age_ms": median(who, |s| s.slowness.echo_age as f64),
                "slow_data_age_ms": median(who, |s| s.slowness.data_age as f64),
                "slow_deltas": median(who, |s| s.slow_deltas),
                "slow_digests": median(who, |s| s.slow_digests as f64),
                "slow_closed": median(who, |s| s.slow_closed as f64),
                "compared": median(who, |s| s.compared as f64),
                "memory_mib": median(who, |s| s.memory),
                "cpu": median(who, |s| s.cpu),
            })
        };
        Ok((row, json!({ "case": case.name, "with": all(&with), "without": all(&without) })))
    }

    fn storm(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        // Its frames are as long as those of a change of one price.
        let bytes = |_: &[Storm]| 250;
        let (gateway, floor) =
            self.by_turns(|who| storm(self.program, who, case, self.cpu), bytes, |s| s.accepts)?;
        let both = |of: fn(&Storm) -> f64| (median(&gateway, of), median(&floor, of));
        let ((accepts, faccepts), (took, ftook)) = (both(|s| s.accepts), both(|s| s.took));
        let of = |of: fn(&Storm) -> f64| median(&gateway, of);
        let row = format!(
            "{accepts:>9.0} ({faccepts:>7.0}) {:>7.2} {took:>8.2} ({ftook:>6.2}) {:>8.2} {:>8.0} {:>8.0} {:>8.0}",
            accepts / faccepts,
            of(|s| s.cpu),
            of(|s| s.exact as f64),
            of(|s| s.caught_up as f64),
            of(|s| s.snapshots as f64),
        );
        let all = |who: &[Storm]| {
            json!({
                "accepts": median(who, |s| s.accepts),
                "accepts_spread": spread(who, |s| s.accepts),
                "took_s": median(who, |s| s.took),
                "cpu_s": median(who, |s| s.cpu),
                "exact": median(who, |s| s.exact as f64),
                "deltas": median(who, |s| s.caught_up as f64),
                "snapshots": median(who, |s| s.snapshots as f64),
            })
        };
        Ok((row, json!({ "case": case.name, "gateway": all(&gateway), "floor": all(&floor) })))
    }

    /// What it keeps is of all turns; the line shows the last one.
    fn churn(&self, case: &Case) -> anyhow::Result<(String, Json)> {
        let turns: anyhow::Result<Vec<Churn>> =
            (0..self.runs).map(|_| churn(self.program, case, self.cpu)).collect();
        let turns = turns?;
        let of = |of: fn(&Churn) -> f64| median(&turns, of);
        let (cut, resumed, books) =
            (of(|c| c.cut as f64), of(|c| c.resumed as f64), of(|c| c.snapshots as f64));
        let (first, last) = (of(|c| c.ends().0), of(|c| c.ends().1));
        let line = turns.last().map_or(String::new(), |turn| sparkline(&turn.memory, 40));
        let row = format!("{cut:>9.0} {resumed:>9.0} {books:>9.0} {first:>9.1} {last:>8.1}  {line}");
        Ok((
            row,
            json!({ "case": case.name, "seconds": case.seconds, "cut": cut, "resumed": resumed, "snapshots": books,
            "first_mib": first, "last_mib": last }),
        ))
    }
}
