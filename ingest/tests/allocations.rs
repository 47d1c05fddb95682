//! The steady path (decode, book, difference, number, encode) takes at most one heap allocation a delta.
#![allow(clippy::unwrap_used)]

#[path = "../examples/chain/mod.rs"]
mod chain;

use std::alloc::System;
use std::path::PathBuf;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and deltas of the steady path; nothing else may run in this process meanwhile.
fn counted(name: &str, lines: &[Vec<u8>]) {
    let mut warm = chain::warm(lines);
    let region = Region::new(ALLOCATOR);
    let work = chain::steady(&mut warm);
    let allocations = region.change().allocations as u64;
    let each = allocations as f64 / work.deltas.max(1) as f64;
    eprintln!("{name}: {allocations} allocations, {} deltas: {each:.2} each", work.deltas);
    if work.levels == 0 {
        eprintln!("{name}: definitions only, which are texts: not held to the bound");
        return;
    }
    assert!(work.deltas > 100, "{name}: {} deltas are too few to say anything", work.deltas);
    assert!(allocations <= work.deltas, "{name}: {allocations} allocations for {} deltas", work.deltas);
}

/// One test, so that nothing allocates beside it.
#[test]
fn a_delta_takes_at_most_one_allocation() {
    counted("simulated", &chain::simulated(120).unwrap());
    let Some(folder) = std::env::var_os("TICTAC_RECORDINGS").filter(|f| !f.is_empty()) else {
        eprintln!("TICTAC_RECORDINGS is not set: not counted on recorded markets");
        return;
    };
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_string_lossy().ends_with(".mcm.bz2"))
        .collect();
    inputs.sort();
    for input in inputs {
        counted(&input.display().to_string(), &chain::recorded(&input).unwrap());
    }
}
