//! Measuring: a server on one CPU, the clients on another, the gateway and the floor by turns, and every figure as a ratio.

pub mod case;
pub mod churn;
pub mod fanout;
mod server;
pub mod slow;
pub mod storm;
pub mod table;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::ensure;
use tictac_proto::model::View;

pub use case::{Case, Kind};
pub use server::{Who, pin};

use crate::fleet::{Fleet, Plan};
use server::Server;

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// How long is waited after it until nothing is left to do.
const SETTLED: Duration = Duration::from_millis(1_500);
/// Silence after which everything is taken to be here.
const QUIET: Duration = Duration::from_secs(1);
/// How long after the last change deliveries are waited for.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// Connects a second.
const RAMP: u32 = 20_000;

/// Clients of a case.
fn plan(server: &Server, who: Who, case: &Case) -> Plan {
    let floor = who.is_floor();
    Plan {
        address: server.address,
        transport: case.transport,
        clients: case.clients,
        codec: case.codec,
        view: View::All,
        conflate: case.conflate,
        markets: if floor { vec![Vec::new(); case.clients] } else { case.follows() },
        paces: Vec::new(),
        ramp: RAMP,
        ping_every: Some(Duration::from_secs(1)),
        silence: None,
        floor,
    }
}

/// They are connected and have their books; how long that took.
fn connected(plan: Plan) -> anyhow::Result<(Fleet, Duration)> {
    let clients = plan.clients;
    let mut fleet = Fleet::new(plan)?;
    let took = fleet.connect(CONNECT_WITHIN, |ready| say(&format!("{ready} of {clients} clients")))?;
    fleet.run(SETTLED, false, |_| {})?;
    ensure!(
        fleet.totals.closed == 0,
        "{} connections ended before anything was measured",
        fleet.totals.closed
    );
    Ok((fleet, took))
}

/// What is going on, where somebody looks.
fn say(what: &str) {
    if std::io::stderr().is_terminal() {
        let margin = if what.is_empty() { "" } else { "  " };
        eprint!("\r\x1b[K{margin}{what}");
    }
}

/// What `bench` can be told.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Parts of the names of cases; all but `churn` where none is given.
    pub cases: Vec<String>,
    /// Turns of each, by turns with the floor's.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    pub runs: u64,
    /// How long one turn measures, s.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// The CPU of the server.
    #[arg(long, default_value_t = 0)]
    pub server_cpu: usize,
    /// The CPU of the clients.
    #[arg(long, default_value_t = 1)]
    pub client_cpu: usize,
    /// Write the figures here too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<std::path::PathBuf>,
}
