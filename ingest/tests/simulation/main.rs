//! The simulation of the real service: whole ingests, as they run in production, in virtual time over a log that fails, fed by a
//! source whose messages get lost, followed by real followers. From one seed.
//!
//! Beside `gateway/tests/simulation`, which follows what ingests write to the screens of clients, this is the half before it: the
//! loop around the engine with its writes, leases, takeovers and retries, stopped, killed or cut off at any of its awaits.
//!
//! * `TICTAC_SEEDS=50000 cargo test -p tictac-ingest --test simulation` runs more seeds, `TICTAC_FIRST=50000` those after,
//! * `TICTAC_SEED=42 …` runs one and tells of it.
//!
//! Bounds gate here, since time is virtual: all is well within 3 s of the last fault, a takeover is done within 2 s, and nothing
//! is open for longer than its bound after it closed.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, reason = "a test binary has no callers outside")]

mod faults;
mod process;
mod source;
mod viewer;
mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use world::{Outcome, Play, Spread};

const COMMAND: &str = "cargo test -p tictac-ingest --test simulation -- --nocapture";

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

/// Whether one seed is run alone, and told of.
pub fn tells() -> bool {
    static TELLS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *TELLS.get_or_init(|| number("TICTAC_SEED").is_some())
}

fn run(play: Play, seed: u64) -> Result<Outcome, String> {
    let ran = catch_unwind(AssertUnwindSafe(|| world::run(play, seed)));
    ran.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        Err(what.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
    })
}

/// Runs a play with many seeds, on two threads; what came of it by fault.
fn campaign(play: Play, test: &str, count: u64) -> BTreeMap<&'static str, Spread> {
    if let Some(seed) = number("TICTAC_SEED") {
        match run(play, seed) {
            Ok(outcome) => println!("{outcome:?}"),
            Err(why) => panic!("seed {seed}: {why}"),
        }
        return BTreeMap::new();
    }
    let (count, first) = (number("TICTAC_SEEDS").unwrap_or(count), number("TICTAC_FIRST").unwrap_or(0));
    let begun = Instant::now();
    let half = |of: u64| (first..first + count).filter(move |seed| seed % 2 == of);
    let one = |seed: u64| {
        let ran = run(play, seed);
        if let Err(why) = &ran {
            // At once: a campaign may be long.
            println!("TICTAC_SEED={seed} {COMMAND} {test}\n    {why}");
        }
        if (seed - first + 1).is_multiple_of(1_000) {
            println!("{} of {count} seeds after {:.0?}", seed - first + 1, begun.elapsed());
        }
        ran
    };
    let one = &one;
    let halves: Vec<Vec<Result<Outcome, String>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|of| scope.spawn(move || half(of).map(one).collect())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut by_fault, mut failures) = (BTreeMap::<&'static str, Spread>::new(), 0);
    for ran in halves.into_iter().flatten() {
        let Ok(outcome) = ran else {
            failures += 1;
            continue;
        };
        for (faults, well) in outcome.stretches {
            for fault in faults {
                by_fault.entry(fault).or_default().times.push(well);
            }
        }
    }
    println!("{count} seeds in {:.1?}", begun.elapsed());
    for (fault, spread) in &by_fault {
        println!("{fault:36} {spread}");
    }
    assert!(failures == 0, "{failures} of {count} seeds fail");
    if let Some(path) = std::env::var_os("TICTAC_FAULTS_FILE") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for (fault, spread) in &by_fault {
            writeln!(file, "{}", spread.line(fault, count)).unwrap();
        }
    }
    by_fault
}

/// Takeovers are bounded in virtual time, wherever in its work the owner is.
#[test]
fn a_takeover_is_done_in_two_seconds() {
    campaign(Play::Takeover, "a_takeover_is_done_in_two_seconds", 300);
}

#[test]
fn whole_ingests_survive_every_fault() {
    let by_fault = campaign(Play::Faults, "whole_ingests_survive_every_fault", 1_000);
    let thin: Vec<_> = by_fault.iter().filter(|f| f.1.times.len() < 100).map(|f| f.0).collect();
    assert!(thin.is_empty() || number("TICTAC_SEEDS").is_some(), "seen less than 100 times: {thin:?}");
}
