//! How fast the reader of the Betfair stream is, on recordings held in memory:
//!
//! ```text
//! cargo run --release -p tictac-ingest --example mcm_speed -- ROUNDS FILE…
//! ```
//!
//! Reading alone, and reading with the change of the book, by line and by market change. The best of the rounds counts:
//! noise only adds. Allocations: run it under `valgrind` with one round and with two, the difference in "total heap usage"
//! is that of one round of both.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use anyhow::Context;
use tictac_ingest::mcm::McmReader;
use tictac_ingest::recording::Recording;
use tictac_ingest::update::Update;
use tictac_proto::model::{Book, MarketId};

fn main() -> anyhow::Result<()> {
    let usage = "usage: mcm_speed ROUNDS FILE…";
    let mut arguments = std::env::args().skip(1);
    let rounds: u32 = arguments.next().context(usage)?.parse().context(usage)?;
    for path in arguments {
        let mut recording = Recording::open(&path)?;
        let mut lines = Vec::new();
        while let Some(line) = recording.next_line()? {
            lines.push(line.to_vec());
        }
        let bytes: usize = lines.iter().map(Vec::len).sum();
        println!("{path}: {} lines, {bytes} bytes", lines.len());
        for with_book in [false, true] {
            let best =
                (0..rounds).map(|_| round(&lines, with_book)).min_by_key(|r| r.nanos).context("no rounds")?;
            let each = |count: usize| best.nanos as f64 / count.max(1) as f64;
            println!(
                "  {:24} {:7.0} ns a line {:7.0} ns a change {:6.1} ns a level or field {:7.0} MB/s; first line {} µs",
                if with_book { "reading and the book" } else { "reading" },
                each(lines.len()),
                each(best.changes),
                each(best.values),
                bytes as f64 * 1000.0 / best.nanos as f64,
                best.first / 1000,
            );
        }
    }
    Ok(())
}

/// What one pass over a recording took. The first line, which may image hundreds of markets, is told apart.
struct Round {
    nanos: u128,
    first: u128,
    changes: usize,
    values: usize,
}

fn round(lines: &[Vec<u8>], with_book: bool) -> Round {
    let mut reader = McmReader::new();
    let mut books: HashMap<MarketId, Book, foldhash::fast::RandomState> = HashMap::default();
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let mut measured = Round { nanos: 0, first: 0, changes: 0, values: 0 };
    let mut started = Instant::now();
    for (i, line) in lines.iter().enumerate() {
        reader.read("recorded", line, &mut out, &mut problems);
        for update in out.drain(..) {
            if let Update::Change { delta, .. } = &update {
                measured.changes += 1;
                measured.values += delta.fields.len();
                let selections = delta
                    .selections
                    .iter()
                    .map(|(_, s)| s.fields.len() + s.ladders.iter().map(|l| l.levels.len()).sum::<usize>());
                measured.values += selections.sum::<usize>();
            }
            if !with_book {
                black_box(update);
                continue;
            }
            match update {
                Update::Image { market, book } => drop(books.insert(market, *book)),
                Update::Change { market, delta, .. } => {
                    let book = books.entry(market).or_default();
                    black_box(book.apply_effective(delta, i as u64, &mut 0));
                }
                Update::Stop { .. } | Update::Gone { .. } => {}
            }
        }
        if i == 0 {
            measured.first = started.elapsed().as_nanos();
            started = Instant::now();
        }
    }
    measured.nanos = started.elapsed().as_nanos();
    measured
}
