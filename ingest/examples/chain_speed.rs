//! How fast the pure chain is on real input: decode a Betfair message, update books, keep the effective change, number
//! it, encode the log entry. Prints book changes a second on one core and heap allocations a delta.
//!
//! `cargo run --release -p tictac-ingest --example chain_speed [recording…]`; for instruction counts,
//! `valgrind --tool=callgrind target/release/examples/chain_speed --once recording`.

use std::alloc::System;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tictac_ingest::mcm::McmReader;
use tictac_ingest::recording::Recording;
use tictac_ingest::update::Update;
use tictac_proto::log::{Entry, What};
use tictac_proto::model::Book;
use tictac_proto::sequencer::Sequencer;
use tictac_proto::wire::{Message, MsgpackWriter, Times};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Default, Clone, Copy)]
struct Work {
    lines: u64,
    deltas: u64,
    changes: u64,
    bytes: u64,
}

/// A recording's lines in memory, so that only our own work is timed.
fn lines(path: &PathBuf) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut recording = Recording::open(path)?;
    let mut lines = Vec::new();
    while let Some(line) = recording.next_line()? {
        lines.push(line.to_vec());
    }
    Ok(lines)
}

fn changes(entry: &Entry) -> u64 {
    let What::Delta { delta, .. } = &entry.what else { return 0 };
    let in_selection = |levels: &tictac_proto::model::SelectionDelta| {
        levels.fields.len() + levels.ladders.iter().map(|l| l.levels.len()).sum::<usize>()
    };
    (delta.fields.len() + delta.selections.iter().map(|(_, s)| in_selection(s)).sum::<usize>()) as u64
}

struct Chain {
    reader: McmReader,
    sequencer: Sequencer,
    source: Arc<str>,
    updates: Vec<Update>,
    buffer: Vec<u8>,
}

impl Chain {
    fn new() -> Self {
        let mut sequencer = Sequencer::new();
        sequencer.take_over(1 << 40, 0, Times::default());
        Self {
            reader: McmReader::new(),
            sequencer,
            source: "betfair".into(),
            updates: Vec::new(),
            buffer: Vec::new(),
        }
    }

    fn line(&mut self, line: &[u8], work: &mut Work) {
        let mut problems = Vec::new();
        let read = self.reader.read(&self.source, line, &mut self.updates, &mut problems);
        let times = Times { source: read.pt.unwrap_or(0), ..Times::default() };
        work.lines += 1;
        for update in self.updates.drain(..) {
            let entry = match update {
                Update::Image { market, book } => self.sequencer.image(&self.source, &market, *book, times),
                // A market's first word may be a change.
                Update::Change { market, delta, .. } if self.sequencer.book(&market).is_none() => {
                    let mut book = Book::default();
                    book.apply(&delta, 0);
                    self.sequencer.image(&self.source, &market, book, times)
                }
                Update::Change { market, delta, rollback } => {
                    self.sequencer.change(&self.source, &market, delta, rollback, times)
                }
                Update::Stop { .. } | Update::Gone { .. } => Ok(None),
            };
            let Ok(Some(entry)) = entry else { continue };
            let mut writer = MsgpackWriter::with_buffer(std::mem::take(&mut self.buffer));
            entry.write(&mut writer);
            self.buffer = writer.into_bytes();
            work.bytes += self.buffer.len() as u64;
            work.deltas += u64::from(matches!(entry.what, What::Delta { .. }));
            work.changes += changes(&entry);
        }
    }
}

/// One pass: the image and the first tenth warm books and buffers, the rest is the steady path.
fn pass(lines: &[Vec<u8>]) -> (Work, f64, usize) {
    let mut chain = Chain::new();
    let (mut warm, mut work) = (Work::default(), Work::default());
    let (first, rest) = lines.split_at(lines.len() / 10 + 1);
    for line in first {
        chain.line(line, &mut warm);
    }
    let region = Region::new(ALLOCATOR);
    let start = Instant::now();
    for line in rest {
        chain.line(line, &mut work);
    }
    (work, start.elapsed().as_secs_f64(), region.change().allocations)
}

fn main() -> anyhow::Result<()> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let once = paths.first().is_some_and(|p| p.as_os_str() == "--once");
    if once {
        paths.remove(0);
    }
    if paths.is_empty() {
        let Some(folder) = std::env::var_os("TICTAC_RECORDINGS").filter(|f| !f.is_empty()) else {
            anyhow::bail!(
                "no recording given: name files, or set TICTAC_RECORDINGS to a folder of *.mcm.bz2"
            );
        };
        paths = std::fs::read_dir(folder)?
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|p| p.to_string_lossy().ends_with(".mcm.bz2"))
            .collect();
        paths.sort();
    }
    println!(
        "{:<28} {:>7} {:>8} {:>9} {:>12} {:>9} {:>9} {:>12}",
        "recording", "lines", "deltas", "changes", "changes/s", "ns/change", "bytes/Δ", "allocs/delta"
    );
    for path in &paths {
        let lines = lines(path)?;
        let passes = (0..if once { 1 } else { 7 }).map(|_| pass(&lines));
        let Some((work, took, allocations)) = passes.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        let name = path.file_name().map(|n| n.to_string_lossy().replace(".mcm.bz2", "")).unwrap_or_default();
        println!(
            "{name:<28} {:>7} {:>8} {:>9} {:>12.0} {:>9.0} {:>9.0} {:>12.2}",
            work.lines,
            work.deltas,
            work.changes,
            work.changes as f64 / took,
            took * 1e9 / work.changes.max(1) as f64,
            work.bytes as f64 / work.deltas.max(1) as f64,
            allocations as f64 / work.deltas.max(1) as f64,
        );
    }
    Ok(())
}
