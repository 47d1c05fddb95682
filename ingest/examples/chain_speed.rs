//! How fast the pure chain is (see `chain/mod.rs`): book changes a second on one core, heap allocations a delta, and with
//! `--instructions` how many instructions a change takes.
//!
//! `cargo run --release -p tictac-ingest --example chain_speed [--instructions] [recording…]`

mod chain;

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use chain::Work;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Book changes a second that one core must reach.
const GOAL_RATE: f64 = 1e6;
/// Heap allocations that a delta may take.
const GOAL_ALLOCATIONS: f64 = 1.0;
/// Passes, of which the fastest counts.
const PASSES: usize = 7;
/// Length of the simulated input.
const SIMULATED_SECONDS: u32 = 300;
/// How this program calls the simulated input among recordings.
const SIMULATED: &str = "simulated";

fn lines(input: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    if input.as_os_str() == SIMULATED { chain::simulated(SIMULATED_SECONDS) } else { chain::recorded(input) }
}

fn inputs(named: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    if !named.is_empty() {
        return Ok(named);
    }
    let Some(folder) = std::env::var_os("TICTAC_RECORDINGS").filter(|f| !f.is_empty()) else {
        println!(
            "No recordings: TICTAC_RECORDINGS names no folder with *.mcm.bz2, so the simulator's markets serve."
        );
        return Ok(vec![SIMULATED.into()]);
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(&folder)
        .with_context(|| format!("TICTAC_RECORDINGS={}", folder.to_string_lossy()))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.to_string_lossy().ends_with(".mcm.bz2"))
        .collect();
    found.sort();
    found.push(SIMULATED.into());
    Ok(found)
}

fn name(input: &Path) -> String {
    input.file_name().map(|n| n.to_string_lossy().replace(".mcm.bz2", "")).unwrap_or_default()
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn verdict(work: &Work, good: bool) -> &'static str {
    match (work.levels, good) {
        (0, _) => "– definitions only",
        (_, true) => "✓",
        (_, false) => "✗",
    }
}

fn speed(inputs: &[PathBuf]) -> anyhow::Result<()> {
    println!(
        "{:<26} {:>7} {:>8} {:>12} {:>10} {:>8} {:>13}  goal: ≥ {}/s, ≤ {GOAL_ALLOCATIONS} allocation",
        "input",
        "deltas",
        "changes",
        "changes/s",
        "ns/change",
        "bytes/Δ",
        "allocations/Δ",
        grouped(GOAL_RATE),
    );
    for input in inputs {
        let lines = lines(input)?;
        let pass = |_| {
            let mut warm = chain::warm(&lines);
            let region = Region::new(ALLOCATOR);
            let start = Instant::now();
            let work = chain::steady(&mut warm);
            (work, start.elapsed().as_secs_f64(), region.change().allocations)
        };
        let Some((work, took, allocations)) = (0..PASSES).map(pass).min_by(|a, b| a.1.total_cmp(&b.1)) else {
            continue;
        };
        let (rate, each) = (work.changes as f64 / took, allocations as f64 / work.deltas.max(1) as f64);
        println!(
            "{:<26} {:>7} {:>8} {:>12} {:>10.0} {:>8.0} {each:>13.2}  {}",
            name(input),
            work.deltas,
            work.changes,
            grouped(rate),
            took * 1e9 / work.changes.max(1) as f64,
            work.bytes as f64 / work.deltas.max(1) as f64,
            verdict(&work, rate >= GOAL_RATE && each <= GOAL_ALLOCATIONS),
        );
    }
    Ok(())
}

/// Counts instructions of the steady path alone, by running this program under callgrind.
fn instructions(inputs: &[PathBuf]) -> anyhow::Result<()> {
    println!(
        "{:<26} {:>8} {:>16} {:>20} {:>20}",
        "input", "changes", "instructions", "instructions/change", "instructions/delta"
    );
    for input in inputs {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*chain::steady*"])
            .arg(std::env::current_exe()?)
            .arg("--once")
            .arg(input)
            .output()
            .context("valgrind can't be started: install it (apt install valgrind)")?;
        let (said, counted) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let mut numbers = said.split_whitespace().map(str::parse::<f64>);
        let (Some(Ok(deltas)), Some(Ok(changes))) = (numbers.next(), numbers.next()) else {
            bail!("{}: {counted}", input.display());
        };
        let collected = counted
            .lines()
            .find_map(|l| l.split("Collected :").nth(1)?.trim().parse::<f64>().ok())
            .filter(|n| *n > 0.0)
            .with_context(|| format!("{}: callgrind counted nothing: {counted}", input.display()))?;
        println!(
            "{:<26} {:>8} {:>16} {:>20} {:>20}",
            name(input),
            changes,
            grouped(collected),
            grouped(collected / changes.max(1.0)),
            grouped(collected / deltas.max(1.0)),
        );
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let mut named: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let mut take = |flag: &str| {
        let at = named.iter().position(|p| p.as_os_str() == flag);
        at.map(|i| named.remove(i)).is_some()
    };
    let (once, count) = (take("--once"), take("--instructions"));
    if let (true, [input]) = (once, &named[..]) {
        let lines = lines(input)?;
        let work = chain::steady(&mut chain::warm(&lines));
        println!("{} {}", work.deltas, work.changes);
        return Ok(());
    }
    let inputs = inputs(named)?;
    if count { instructions(&inputs) } else { speed(&inputs) }
}
