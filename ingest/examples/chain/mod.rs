//! The pure chain on one core: decode a Betfair message, update books, keep the effective change, number it, encode the
//! log entry. What the bench times and the allocation test counts.

#![allow(unreachable_pub, reason = "part of an example and of a test")]

use std::path::Path;
use std::sync::Arc;

use tictac_ingest::mcm::McmReader;
use tictac_ingest::recording::Recording;
use tictac_ingest::simulator::{Config, recording};
use tictac_ingest::update::Update;
use tictac_proto::log::{Entry, What};
use tictac_proto::model::{Book, SelectionDelta};
use tictac_proto::sequencer::Sequencer;
use tictac_proto::wire::{Message, MsgpackWriter, Times};

/// What was done.
#[derive(Default, Clone, Copy)]
pub struct Work {
    pub lines: u64,
    pub deltas: u64,
    /// Fields and price levels that changed.
    pub changes: u64,
    /// Price levels that changed.
    pub levels: u64,
    pub bytes: u64,
}

/// A recording's lines in memory, so that only our own work is measured.
pub fn recorded(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut recording = Recording::open(path)?;
    let mut lines = Vec::new();
    while let Some(line) = recording.next_line()? {
        lines.push(line.to_vec());
    }
    Ok(lines)
}

/// Lines of the project's own simulator, for machines without recordings.
pub fn simulated(seconds: u32) -> anyhow::Result<Vec<Vec<u8>>> {
    let recording =
        recording::Recording { seed: 7, config: Config::default(), start_ms: 1_764_000_000_000, seconds };
    let mut lines = Vec::new();
    recording.write_mcm("simulated", u64::MAX, &mut lines, &mut std::io::sink())?;
    Ok(lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect())
}

/// Books and buffers in use, and the lines that are still to come: the steady path.
pub struct Warm<'a> {
    chain: Chain,
    rest: &'a [Vec<u8>],
}

/// Takes in the images and the first tenth.
pub fn warm(lines: &[Vec<u8>]) -> Warm<'_> {
    let mut chain = Chain::new();
    let mut work = Work::default();
    let (first, rest) = lines.split_at(lines.len().min(lines.len() / 10 + 1));
    for line in first {
        chain.line(line, &mut work);
    }
    Warm { chain, rest }
}

/// Takes in the rest. Never inlined: instruction counts are of what happens between its call and its return.
#[inline(never)]
pub fn steady(warm: &mut Warm<'_>) -> Work {
    let mut work = Work::default();
    for line in warm.rest {
        warm.chain.line(line, &mut work);
    }
    work
}

fn count(entry: &Entry, work: &mut Work) {
    let What::Delta { delta, .. } = &entry.what else { return };
    let levels = |s: &SelectionDelta| s.ladders.iter().map(|l| l.levels.len() as u64).sum::<u64>();
    work.deltas += 1;
    work.levels += delta.selections.iter().map(|(_, s)| levels(s)).sum::<u64>();
    work.changes += delta.fields.len() as u64;
    work.changes += delta.selections.iter().map(|(_, s)| s.fields.len() as u64 + levels(s)).sum::<u64>();
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
            count(&entry, work);
        }
    }
}
