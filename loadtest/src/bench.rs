//! Measuring: a server on one CPU, the clients on another, the gateway and the floor by turns, and every figure as a ratio.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::thread::{CpuSet, sched_setaffinity};
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Codec, Conflate};

use crate::fleet::{Fleet, Plan};
use crate::orders::Order;
use crate::pulse;

/// Clock ticks a second of `/proc`, the same on every Linux that Rust runs on.
const TICKS: f64 = 100.0;
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Silence after which everything is taken to be here.
const QUIET: Duration = Duration::from_secs(1);
/// How long after the last change deliveries are waited for.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// What is measured.
#[derive(Debug, Clone)]
pub struct Case {
    /// For people.
    pub name: String,
    /// How many clients.
    pub clients: usize,
    /// Markets that there are.
    pub markets: usize,
    /// Markets that each client follows.
    pub each: usize,
    /// Zipf's exponent, of changes and of what is followed.
    pub skew: f64,
    /// Changes a second, of all markets together.
    pub rate: f64,
    /// For how long.
    pub seconds: f64,
    /// The encoding.
    pub codec: Codec,
    /// How often each client wants to hear.
    pub conflate: Conflate,
}

impl Case {
    /// Sums of the markets' shares, of changes and of what is followed.
    fn sums(&self) -> Vec<f64> {
        let mut sum = 0.0;
        let add = |rank: usize| {
            sum += (rank as f64).powf(-self.skew);
            sum
        };
        (1..=self.markets).map(add).collect()
    }

    /// How many clients one change goes to, on average.
    #[must_use]
    pub fn deliveries(&self) -> f64 {
        let mut followers = std::collections::HashMap::<MarketId, f64>::new();
        for market in self.follows().into_iter().flatten() {
            *followers.entry(market).or_default() += 1.0;
        }
        let (sums, mut before) = (self.sums(), 0.0);
        let all = sums.last().copied().unwrap_or(1.0);
        let of = |(number, sum): (usize, &f64)| {
            let share = (sum - std::mem::replace(&mut before, *sum)) / all;
            share * followers.get(&pulse::market(number)).copied().unwrap_or(0.0)
        };
        sums.iter().enumerate().map(of).sum()
    }

    /// What each client follows: as many different markets, the first ones more often.
    #[must_use]
    pub fn follows(&self) -> Vec<Vec<MarketId>> {
        let mut dice = SmallRng::seed_from_u64(7);
        let sums = self.sums();
        let sum = sums.last().copied().unwrap_or(1.0);
        let some = |dice: &mut SmallRng| {
            let mut chosen = Vec::with_capacity(self.each);
            while chosen.len() < self.each.min(self.markets) {
                let number = sums.partition_point(|s| *s <= dice.random_range(0.0..sum));
                if !chosen.contains(&number) {
                    chosen.push(number);
                }
            }
            chosen.into_iter().map(pulse::market).collect()
        };
        (0..self.clients).map(|_| some(&mut dice)).collect()
    }
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The gateway.
    Gateway,
    /// The floor, with frames of this many bytes.
    Floor(usize),
}

/// What came of one turn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// Deliveries that were offered a second.
    pub offered: f64,
    /// The share of them that was delivered.
    pub share: f64,
    /// Due to delivered, ms.
    pub p50: f64,
    /// The same of 99 of a hundred.
    pub p99: f64,
    /// The worst.
    pub max: f64,
    /// Server's CPU time for each delivery, µs.
    pub cpu_us: f64,
    /// Server's CPU while it was measured, 1 is all of one.
    pub cpu: f64,
    /// The clients' CPU.
    pub own_cpu: f64,
    /// Frames of one read.
    pub frames_per_read: f64,
    /// Bytes of one frame.
    pub frame_bytes: f64,
    /// Connects a second, until every client had its books.
    pub connects: f64,
    /// Bytes of memory that each client costs the server, with its subscriptions and first books.
    pub memory: f64,
}

/// Runs this process on one CPU from now on.
///
/// # Errors
/// If there is no such CPU.
pub fn pin(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    ensure!(cpu < CpuSet::MAX_CPU, "there is no CPU {cpu}");
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("can't run on CPU {cpu}"))
}

struct Server {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(program: &Path, who: Who, cpu: Option<usize>) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        match who {
            Who::Gateway => command.arg("serve"),
            Who::Floor(bytes) => command.args(["floor", "--frame-bytes", &bytes.to_string()]),
        };
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        command.env("TICTAC_LOG_FILTER", "warn");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("a server")?;
        let orders = child.stdin.take().context("its input")?;
        let mut answers = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening ").and_then(|address| address.parse().ok());
        let address = address.with_context(|| format!("the server says {line:?}"))?;
        Ok(Self { child, orders, answers, address })
    }

    fn order(&mut self, order: Order) -> anyhow::Result<()> {
        self.orders.write_all(order.line().as_bytes()).context("the server has ended")
    }

    fn answer(&mut self, word: &str) -> anyhow::Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let count = line.trim().strip_prefix(word).and_then(|count| count.trim().parse().ok());
        count.with_context(|| format!("the server says {line:?}, not {word}"))
    }

    /// CPU time so far, seconds.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&self.child.id().to_string())
    }

    /// Memory that is its own, bytes.
    fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0).context("no memory in /proc")
    }
}

fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the name, which may hold anything, and its parenthesis comes the state: utime is the 12th, stime the 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS)
}

/// One turn. The server is `program` (this one, or a test's), on one CPU or on all; the clients run in this process, which is
/// to be pinned elsewhere.
///
/// # Errors
/// If the server or a connection fails, or anything that was sent is wrong.
pub fn measure(program: &Path, who: Who, case: &Case, cpu: Option<usize>) -> anyhow::Result<Measured> {
    let mut server = Server::start(program, who, cpu)?;
    server.order(Order::Markets(case.markets))?;
    server.answer("ready")?;
    let floor = who != Who::Gateway;
    let plan = Plan {
        address: server.address,
        clients: case.clients,
        codec: case.codec,
        view: View::All,
        conflate: case.conflate,
        markets: if floor { vec![Vec::new(); case.clients] } else { case.follows() },
        ramp: 20_000,
        ping_every: (!floor).then_some(Duration::from_secs(1)),
        floor,
    };
    let before = server.memory()?;
    let mut fleet = Fleet::new(plan)?;
    let live = std::io::stderr().is_terminal();
    let say = |what: String| {
        if live {
            eprint!("\r\x1b[K  {what}");
        }
    };
    let took = fleet.connect(CONNECT_WITHIN, |ready| say(format!("{ready} of {} clients", case.clients)))?;
    fleet.run(Duration::from_millis(1_500), false, |_| {})?;
    ensure!(
        fleet.totals.closed == 0,
        "{} connections ended before anything was measured",
        fleet.totals.closed
    );
    let memory = (server.memory()? - before) / case.clients as f64;
    fleet.reset()?;
    let (cpu, own, begun) = (server.cpu_seconds()?, cpu_seconds("self")?, Instant::now());
    let Case { rate, seconds, markets, skew, .. } = *case;
    // The floor sends everything to everybody: as many deliveries.
    let rate = if floor { rate * case.deliveries() / case.clients as f64 } else { rate };
    server.order(Order::Pulse { rate, seconds, markets, skew })?;
    fleet.run(Duration::from_secs_f64(seconds), true, |totals| {
        say(format!(
            "{} delivered, p99 {:.1} ms",
            totals.deltas,
            totals.latency.value_at_quantile(0.99) as f64 / 1e3
        ));
    })?;
    let elapsed = begun.elapsed().as_secs_f64();
    let (cpu, own) = (server.cpu_seconds()? - cpu, cpu_seconds("self")? - own);
    // What the CPU was spent for; the rest comes later.
    let meanwhile = fleet.totals.deltas.max(1) as f64;
    fleet.drain(QUIET, DRAIN_WITHIN)?;
    say(String::new());
    let count = server.answer("done")?;
    let totals = &fleet.totals;
    let findings = fleet.findings();
    ensure!(findings.wrong == 0, "{} mistakes, such as: {}", findings.wrong, findings.mistakes.join("; "));
    if totals.closed > 0 {
        bail!("{} connections ended", totals.closed);
    }
    let expected = count as f64 * if floor { case.clients as f64 } else { case.deliveries() };
    let ms = |share: f64| totals.latency.value_at_quantile(share) as f64 / 1e3;
    server.order(Order::Quit)?;
    Ok(Measured {
        offered: expected / seconds,
        share: totals.deltas as f64 / expected,
        p50: ms(0.5),
        p99: ms(0.99),
        max: totals.latency.max() as f64 / 1e3,
        cpu_us: cpu * 1e6 / meanwhile,
        cpu: cpu / elapsed,
        own_cpu: own / elapsed,
        frames_per_read: totals.frames as f64 / totals.reads.max(1) as f64,
        frame_bytes: totals.bytes as f64 / totals.frames.max(1) as f64,
        connects: case.clients as f64 / took.as_secs_f64(),
        memory,
    })
}

/// What `bench` can be told.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Parts of the names of cases; all where none is given.
    pub cases: Vec<String>,
    /// Turns of each, by turns with the floor's.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=99))]
    pub runs: u64,
    /// How long one turn measures, s.
    #[arg(long, default_value_t = 5.0)]
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
