//! `tictac-faults`: writes the table of faults into a document.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use tictac_loadtest::faults::Faults;

const EXAMPLES: &str = "\
How the lines come about:
  make chaos FAULTS=$PWD/target/faults.jsonl   real faults, 20 times each
  make soak FAULTS=$PWD/target/faults.jsonl    simulated ones
then
  cargo run -p tictac-loadtest --bin tictac-faults -- target/faults.jsonl --into ARCHITECTURE.md";

/// Puts reports of faults together and writes the table into a document, between its marks.
#[derive(Debug, Parser)]
#[command(name = "tictac-faults", version, after_help = EXAMPLES)]
struct Cli {
    /// Files of reports, one JSON object a line.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The document; without it the table goes to standard output.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Leave rows of faults that no report speaks of.
    #[arg(long)]
    keep: bool,
    /// Refuse fewer simulated runs than this.
    #[arg(long, default_value_t = 0, value_name = "N")]
    at_least: u64,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let mut faults = Faults::default();
    for path in &cli.files {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} can't be read", path.display()))?;
        faults.read(&text).with_context(|| path.display().to_string())?;
    }
    ensure!(
        faults.seeds() >= cli.at_least,
        "{} simulated runs, fewer than the {} asked for: run make soak with more SEEDS",
        faults.seeds(),
        cli.at_least
    );
    let Some(into) = cli.into else {
        print!("{}", faults.table());
        return Ok(());
    };
    let document =
        std::fs::read_to_string(&into).with_context(|| format!("{} can't be read", into.display()))?;
    std::fs::write(&into, faults.put(&document, cli.keep)?)
        .with_context(|| format!("{} can't be written", into.display()))?;
    println!("{}: {} simulated runs", into.display(), faults.seeds());
    Ok(())
}
