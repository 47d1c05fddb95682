//! tictac-loadtest: opens clients, keeps and checks every book, and says how it went.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tictac_loadtest::progress::Progress;
use tictac_loadtest::report::{json, page, table};
use tictac_loadtest::scenario::Scenario;
use tictac_loadtest::settings::{Settings, SettingsError};
use tictac_loadtest::{commands, load};

/// The gateway's own, since what is measured is a gateway.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why nothing was begun, and the code to exit with: 64 for a bad setting.
fn refused(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell where standard error is closed.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { 64 } else { 0 })
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).and_then(|name| name.to_str()).is_some_and(|name| commands::NAMES.contains(&name)) {
        return match commands::run(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let scenario = match Settings::load(arguments) {
        Ok(scenario) => scenario,
        Err(SettingsError::Arguments(error)) => return refused(&error),
        Err(SettingsError::Scenario(why)) => {
            eprintln!("error: {why}");
            return ExitCode::from(64);
        }
    };
    match run(&scenario) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: &Scenario) -> anyhow::Result<bool> {
    // Better now than when everything is measured.
    for path in scenario.json.iter().chain(&scenario.report) {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.with_context(|| format!("{} can't be written", path.display()))?;
    }
    let mut progress = Progress::of_stderr();
    let outcome = load::run(scenario, &mut progress);
    progress.clear();
    let figures = outcome?;
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // A reader that has enough, such as head, is no failure of the run.
    let _ = writeln!(std::io::stdout(), "\n{}", table::table(&figures, colours));
    if let Some(path) = &scenario.json {
        write(path, &format!("{:#}\n", json::document(&figures)))?;
    }
    if let Some(path) = &scenario.report {
        write(path, &page::page(&figures))?;
        eprintln!("report: {}", path.display());
    }
    Ok(figures.good())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} can't be written", path.display()))
}
