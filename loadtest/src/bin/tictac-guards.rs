//! `tictac-guards`: takes each guard of ARCHITECTURE.md away and shows that its test fails then.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use tictac_loadtest::guards::scratch::Scratch;
use tictac_loadtest::guards::tried::{Found, Tried, table};
use tictac_loadtest::guards::{self, Guard};
use tictac_loadtest::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  make guards                    all of them
  make guards ONLY=clock         those with \"clock\" in their name, or in their test's
  cargo run -p tictac-loadtest --bin tictac-guards -- --list

The code is copied to target/guards/src; the working tree is not touched. Each entry of loadtest/guards.toml says what text of
which file is a guard and what stands there instead. Its test is run with the guard, and must pass; then without it, and must
fail. That nothing was built, that no such test was run, or that it did not end are no failures of a test: they are
errors. Tests that take their guard away themselves (itself = true) must pass.

Exit codes: 0 every guard is seen; 1 one is not.";

/// Takes each guard out of the code, one at a time, and runs the test that must fail then.
#[derive(Debug, Parser)]
#[command(name = "tictac-guards", version, after_help = EXAMPLES)]
struct Cli {
    /// Only guards with this in their name or in their test's, package and target included.
    #[arg(value_name = "PART")]
    only: Vec<String>,
    /// Say what there is and run nothing.
    #[arg(long)]
    list: bool,
    /// How long one test may run, s; one that takes longer has not seen anything.
    #[arg(long, default_value_t = 120, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    within: u64,
    /// The repository.
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    root: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let root = cli.root.canonicalize().with_context(|| format!("{} is no folder", cli.root.display()))?;
    let list = root.join("loadtest/guards.toml");
    let text = std::fs::read_to_string(&list).with_context(|| format!("{} can't be read", list.display()))?;
    let mut guards = guards::read(&text).with_context(|| list.display().to_string())?;
    let of = |guard: &Guard| {
        let name =
            format!("{} {} {} {}", guard.guard, guard.package, guard.target, guard.test).to_lowercase();
        cli.only.is_empty() || cli.only.iter().any(|part| name.contains(&part.to_lowercase()))
    };
    guards.retain(of);
    ensure!(!guards.is_empty(), "no guard has {:?} in its name: --list says what there is", cli.only);
    if cli.list {
        let lines: String = guards.iter().map(|g| format!("{}: {}\n", g.guard, g.test)).collect();
        print!("{lines}");
        return Ok(ExitCode::SUCCESS);
    }
    let tried = tokio::select! {
        tried = all(&root, guards, Duration::from_secs(cli.within)) => tried?,
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
    };
    print!("{}", table(&tried, std::io::stdout().is_terminal()));
    let good = tried.iter().all(|one| one.found.is_good());
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tries all guards, those of one target one after the other, so that little is built anew.
async fn all(root: &Path, mut guards: Vec<Guard>, within: Duration) -> anyhow::Result<Vec<Tried>> {
    let order = ["tictac-proto", "tictac-ingest", "tictac-gateway", "tictac-loadtest"];
    let place = |guard: &Guard| order.iter().position(|package| *package == guard.package);
    guards.sort_by_key(|guard| (place(guard), guard.target.clone()));
    let scratch = Scratch::new(root, within)?;
    let mut progress = Progress::of_stderr();
    let (mut tried, total) = (Vec::new(), guards.len());
    for group in guards.chunk_by(|a, b| (&a.package, &a.target) == (&b.package, &b.target)) {
        progress.working(&format!("{} {}: with every guard", group[0].package, group[0].target));
        let mut tests: Vec<&Guard> = Vec::new();
        for guard in group {
            if tests.iter().all(|known| known.test != guard.test) {
                tests.push(guard);
            }
        }
        let begun = Instant::now();
        let went = scratch.with_all(&tests).await?;
        let share = begun.elapsed() / u32::try_from(group.len()).unwrap_or(1);
        let with: HashMap<&str, _> = tests.iter().map(|guard| &*guard.test).zip(went).collect();
        for guard in group {
            let begun = Instant::now();
            let number = tried.len() + 1;
            progress.working(&format!("{number} of {total}: without {}", guard.guard));
            let found = match Found::with(&with[&*guard.test], guard.itself) {
                Some(found) => found,
                None => scratch.without(guard).await?,
            };
            let took = begun.elapsed() + if guard.itself { share } else { Duration::ZERO };
            progress.say(&format!(
                "{number} of {total}: {} ({}): {}, {:.0} s",
                guard.guard,
                guard.test,
                found.described(),
                took.as_secs_f64()
            ));
            tried.push(Tried { guard: guard.clone(), found, took });
        }
    }
    Ok(tried)
}
