//! The simulation: the whole chain over the real code, in virtual time, from one seed.
//!
//! sources → two ingests (real `Sequencer`s) → a fake log → gateways (real `Hub` and `Core`s) → sockets that cut bytes
//! anywhere → clients (real `ClientMarket`s), with every fault that the feed must survive, and the invariants of
//! ARCHITECTURE.md as oracles.
//!
//! * `TICTAC_SEEDS=50000 cargo test -p tictac-gateway --test simulation` runs more seeds, `TICTAC_FIRST=50000` those after,
//! * `TICTAC_SEED=42 …` runs one and tells of it.
//!
//! A seed that fails prints itself; once its bug is fixed it goes into `seeds.txt`, which is always run again.
#![allow(unreachable_pub, missing_docs, reason = "a test binary has no callers outside")]

mod agreement;
mod client;
mod coverage;
mod dice;
mod fake_redis;
mod frames;
mod gateway;
mod held;
mod history;
mod ingest;
mod quiet;
mod source;
mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use coverage::{Coverage, Fault, Path};
use history::Violation;
use tictac_proto::guard::{Guard, only_without};
use world::World;

/// Tells what happens, where `TICTAC_SEED` runs one seed alone.
macro_rules! tell {
    ($($arg:tt)*) => { if crate::tells() { println!($($arg)*); } };
}
pub(crate) use tell;

fn tells() -> bool {
    static TELLS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *TELLS.get_or_init(|| number("TICTAC_SEED").is_some())
}

const COMMAND: &str = "cargo test -p tictac-gateway --test simulation -- --nocapture ten_thousand_seeds";

fn run(seed: u64) -> Result<Coverage, Violation> {
    let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed).run()));
    ran.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Err(Violation::new("panic", what.unwrap_or_default()))
    })
}

/// What a campaign found.
#[derive(Default)]
struct Found {
    cover: Coverage,
    failures: Vec<(u64, Violation)>,
}

impl Found {
    fn by_oracle(&self) -> BTreeMap<&'static str, usize> {
        let mut by_oracle = BTreeMap::new();
        for (_, violation) in &self.failures {
            *by_oracle.entry(violation.oracle).or_default() += 1;
        }
        by_oracle
    }

    /// Wrong books, stale opens, undeclared losses.
    fn by_harm(&self) -> [usize; 3] {
        let harm = |violation: &Violation| match violation.oracle {
            "3: no undeclared gap" | "8: lost tail" => 2,
            oracle if oracle.starts_with("4:") || oracle.starts_with("6:") => 1,
            _ => 0,
        };
        let mut by_harm = [0; 3];
        self.failures.iter().for_each(|(_, violation)| by_harm[harm(violation)] += 1);
        by_harm
    }
}

/// Runs seeds on two threads, with one guard taken away or with all of them.
fn campaign(seeds: &[u64], without: Option<Guard>) -> Found {
    let halves = seeds.chunks(seeds.len().div_ceil(2).max(1));
    let mut all = Found::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = halves
            .map(|half| {
                scope.spawn(move || {
                    only_without(without);
                    let mut found = Found::default();
                    for seed in half {
                        match run(*seed) {
                            Ok(cover) => found.cover.add(&cover),
                            Err(violation) => found.failures.push((*seed, violation)),
                        }
                    }
                    found
                })
            })
            .collect();
        for thread in threads {
            let found = thread.join().expect("a run's panics are caught");
            all.cover.add(&found.cover);
            all.failures.extend(found.failures);
        }
    });
    all
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is not a number")))
}

fn kept_seeds() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines();
    let numbers = lines.map(|l| l.split('#').next().unwrap_or("").trim()).filter(|l| !l.is_empty());
    numbers.map(|l| l.parse().expect("seeds.txt holds a number a line")).collect()
}

#[test]
fn ten_thousand_seeds() {
    if let Some(seed) = number("TICTAC_SEED") {
        if let Err(violation) = run(seed) {
            panic!("seed {seed} breaks {}: {}", violation.oracle, violation.what);
        }
        return;
    }
    let count = number("TICTAC_SEEDS").unwrap_or(10_000);
    let mut seeds = kept_seeds();
    let first = number("TICTAC_FIRST").unwrap_or(0);
    seeds.extend(first..first + count);
    let begun = Instant::now();
    let found = campaign(&seeds, None);
    println!("{} seeds of {} updates in {:.1?}", seeds.len(), world::UPDATES, begun.elapsed());
    println!("{}", found.cover.table());
    if let Some(path) = std::env::var_os("TICTAC_FAULTS_FILE") {
        let mut file =
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the faults file");
        let lines = found.cover.lines(seeds.len(), found.by_harm());
        file.write_all(lines.as_bytes()).expect("the faults file");
    }
    for (seed, violation) in found.failures.iter().take(10) {
        println!("TICTAC_SEED={seed} {COMMAND}\n    breaks {}: {}", violation.oracle, violation.what);
    }
    assert!(found.failures.is_empty(), "{} seeds fail: {:?}", found.failures.len(), found.by_oracle());
    // Every fault meets every way to recover: none of the pairs is impossible, since faults come together.
    let thin: Vec<_> = Fault::ALL
        .iter()
        .flat_map(|f| Path::ALL.iter().map(move |p| (*f, *p)))
        .filter(|(f, p)| found.cover.hits(*f, *p) < 100)
        .map(|(f, p)| format!("{} × {}: {}", f.name(), p.name(), found.cover.hits(f, p)))
        .collect();
    assert!(count < 10_000 || thin.is_empty(), "hit less than 100 times: {thin:?}");
}

/// With a guard gone, a campaign must fail in one of the oracles that the guard is there for; `ten_thousand_seeds` runs the
/// same seeds with every guard.
fn needs(guard: Guard, oracles: &[&str]) {
    let seeds: Vec<u64> = (0..number("TICTAC_GUARD_SEEDS").unwrap_or(200)).collect();
    let without = campaign(&seeds, Some(guard));
    let by_oracle = without.by_oracle();
    println!("without {guard:?}: {} of {} seeds fail: {by_oracle:?}", without.failures.len(), seeds.len());
    assert!(
        oracles.iter().any(|o| by_oracle.keys().any(|k| k.starts_with(o))),
        "without {guard:?} none of {oracles:?} failed, but {by_oracle:?}"
    );
}

#[test]
fn without_the_fence_two_owners_write_and_it_is_seen() {
    needs(Guard::Fence, &["1:", "7:"]);
}

#[test]
fn without_the_shard_counter_lost_entries_go_unseen() {
    needs(Guard::ShardCounter, &["1:"]);
}

#[test]
fn without_the_position_in_alive_a_lost_tail_is_not_found() {
    needs(Guard::AlivePosition, &["8:", "1:"]);
}

#[test]
fn without_the_stop_barrier_old_prices_reopen_a_market() {
    needs(Guard::StopBarrier, &["4:"]);
}

#[test]
fn without_the_stop_of_snapshots_prices_run_ahead_of_a_stop() {
    needs(Guard::SnapshotStop, &["4:"]);
}

#[test]
fn without_the_deletes_of_depth_views_ghost_levels_stay() {
    needs(Guard::ViewDeletes, &["1:", "3: checksum"]);
}

#[test]
fn without_the_refusal_of_lower_epochs_positions_go_back() {
    needs(Guard::LowerEpochs, &["1:", "2:", "4:"]);
}
