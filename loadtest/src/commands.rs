//! `bench`, and the servers that it measures.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{Parser, Subcommand};
use tictac_gateway::settings::Settings;

use crate::bench::{self, pin, table};
use crate::orders::Orders;

/// Names that begin a command rather than an address.
pub const NAMES: [&str; 3] = ["bench", "floor", "serve"];

#[derive(Debug, Parser)]
#[command(name = "tictac-loadtest", version)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the gateway against the floor, one after the other: deliveries, latency, CPU and memory, as ratios.
    Bench(bench::Settings),
    /// The least program that could deliver the same bytes: a mark to measure by. Told what to do on standard input.
    Floor {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Run on this CPU alone.
        #[arg(long)]
        cpu: Option<usize>,
        /// Length of a frame with its header.
        #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(40..=65_000))]
        frame_bytes: u64,
    },
    /// The gateway, told on standard input which changes to bring: over an in-process log, or with `-- --redis URL` by a PUBLISH, ingest
    /// and the log in that Redis.
    Serve {
        /// Run on this CPU alone.
        #[arg(long)]
        cpu: Option<usize>,
        /// Flags of tictac-gateway.
        #[arg(last = true)]
        gateway: Vec<OsString>,
    },
}

/// What a gateway is given that is measured: one core, and limits that a single address does not reach.
const GATEWAY: &[&str] = &[
    "tictac-gateway",
    "--listen=127.0.0.1:0",
    "--admin=127.0.0.1:0",
    "--cores=1",
    "--shards=4",
    "--connects-per-ip=1000000",
    "--requests-per-ip=1000000",
    "--snapshots-per-market=1000000",
];

/// Runs a command.
///
/// # Errors
/// What went wrong. Arguments that can't be used end the program with 64.
pub fn run(arguments: Vec<OsString>) -> anyhow::Result<()> {
    let line = Line::try_parse_from(arguments).unwrap_or_else(|error| {
        // Nobody is left to tell where standard error is closed.
        let _ = error.print();
        std::process::exit(if error.use_stderr() { 64 } else { 0 });
    });
    match line.command {
        Command::Bench(settings) => table::bench(&settings),
        Command::Floor { listen, cpu, frame_bytes } => {
            cpu.map(pin).transpose()?;
            crate::floor::serve(listen, usize::try_from(frame_bytes)?, &Orders::of_stdin())
        }
        Command::Serve { cpu, gateway } => {
            cpu.map(pin).transpose()?;
            let given = GATEWAY.iter().map(OsString::from).chain(gateway);
            let settings = Settings::try_parse_from(given).unwrap_or_else(|error| error.exit());
            let filter = tracing_subscriber::EnvFilter::try_from_env("TICTAC_LOG_FILTER")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            crate::serve::serve(settings, &Orders::of_stdin())
        }
    }
}
