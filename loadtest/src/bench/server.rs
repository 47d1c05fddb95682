//! The servers that are measured: processes of this program, told on their standard input what to bring.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::thread::{CpuSet, Pid, sched_setaffinity};
use tictac_ingest::testing::RedisServer;

use super::case::Case;
use crate::orders::Order;

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The gateway, which is told of changes by a log in its own process.
    Gateway,
    /// The gateway, and all that an update goes through before it: PUBLISH, ingest, the log in Redis.
    Published,
    /// The floor, with frames of this many bytes.
    Floor(usize),
}

impl Who {
    /// Whether it is the floor, which knows no markets and sends everything to everybody.
    #[must_use]
    pub fn is_floor(self) -> bool {
        matches!(self, Self::Floor(_))
    }
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

/// A server that is measured, as a process.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(super) address: SocketAddr,
    /// Of this server alone, on the same CPU; ends with it.
    redis: Option<RedisServer>,
}

fn redis(cpu: Option<usize>) -> anyhow::Result<RedisServer> {
    let server = RedisServer::start().map_err(anyhow::Error::msg)?;
    if let (Some(cpu), Some(process)) = (cpu, server.process_id().and_then(Pid::from_raw)) {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(Some(process), &set).with_context(|| format!("Redis can't run on CPU {cpu}"))?;
    }
    Ok(server)
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// One that has the markets of a case.
    pub(super) fn start(program: &Path, who: Who, case: &Case, cpu: Option<usize>) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        match who {
            Who::Gateway => command.arg("serve"),
            Who::Published => command.arg("serve"),
            Who::Floor(bytes) => command.args(["floor", "--frame-bytes", &bytes.to_string()]),
        };
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        let redis = (who == Who::Published).then(|| redis(cpu)).transpose()?;
        if let Some(redis) = &redis {
            command.args(["--", "--redis", &redis.url()]);
        }
        command.env("TICTAC_LOG_FILTER", "warn");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("a server")?;
        let orders = child.stdin.take().context("its input")?;
        let mut answers = BufReader::new(child.stdout.take().context("its output")?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening ").and_then(|address| address.parse().ok());
        let address = address.with_context(|| format!("the server says {line:?}"))?;
        let mut server = Self { child, orders, answers, address, redis };
        server.order(Order::Markets(case.markets))?;
        server.answer("ready")?;
        Ok(server)
    }

    pub(super) fn order(&mut self, order: Order) -> anyhow::Result<()> {
        self.orders.write_all(order.line().as_bytes()).context("the server has ended")
    }

    pub(super) fn answer(&mut self, word: &str) -> anyhow::Result<u64> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let count = line.trim().strip_prefix(word).and_then(|count| count.trim().parse().ok());
        count.with_context(|| format!("the server says {line:?}, not {word}"))
    }

    /// CPU time so far, seconds, that of its Redis included.
    pub(super) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let redis = self.redis.as_ref().and_then(RedisServer::process_id);
        let redis = redis.map(|id| cpu_seconds(&id.to_string())).transpose()?;
        Ok(cpu_seconds(&self.child.id().to_string())? + redis.unwrap_or(0.0))
    }

    /// How often something was published to its Redis, which needs to be at least once.
    ///
    /// # Errors
    /// If it was not: then something else was measured.
    pub(super) fn ensure_published(&self) -> anyhow::Result<()> {
        let Some(redis) = &self.redis else { return Ok(()) };
        let statistics = redis.ask(&["INFO", "commandstats"]).map_err(anyhow::Error::msg)?;
        ensure!(
            ["publish", "fcall"].iter().all(|name| statistics.contains(&format!("cmdstat_{name}:"))),
            "nothing went through Redis: {statistics}"
        );
        Ok(())
    }

    /// Memory that is its own, bytes.
    pub(super) fn memory(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0).context("no memory in /proc")
    }
}

/// CPU time of a process so far, s: that of its threads by the scheduler's own count, which is exact to the nanosecond where
/// the clock ticks of `stat` are not.
///
/// # Errors
/// If there is no such process.
pub(super) fn cpu_seconds(process: &str) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        // A thread may end meanwhile; those of servers don't.
        let stat = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += stat.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    }
    ensure!(
        nanoseconds > 0.0,
        "/proc/{process}/task has no schedstat: this kernel counts no CPU time of threads"
    );
    Ok(nanoseconds / 1e9)
}
