//! Thousands of clients on one thread: sockets, an event loop, and for each market that a client follows a position. What
//! they are sent is checked once for all by the [`judge`].

mod asking;
mod books;
mod client;
mod early;
pub mod events;
pub mod frames;
pub mod judge;
mod pace;
mod served;
mod storm;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use tictac_proto::model::{MarketId, View};
use tictac_proto::wire::{Codec, Conflate};

use client::{Client, Step};
pub use early::Early;
use judge::Judge;
use pace::Paced;
pub use pace::Slowness;
use served::Clock;
pub use storm::{Back, Coming};

/// What one read may bring.
const READ: usize = 256 * 1024;
/// Events taken at once.
const EVENTS: usize = 4_096;
/// A histogram's highest value, µs, and its precision in digits.
const HIGHEST: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// How clients are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket.
    Ws,
    /// Server-sent events.
    Sse,
}

/// How fast a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// As fast as it comes.
    #[default]
    Full,
    /// So many bytes a second.
    Bytes(u32),
    /// Nothing.
    Nothing,
}

/// What the clients are to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub transport: Transport,
    /// How many.
    pub clients: usize,
    /// In which encoding.
    pub codec: Codec,
    /// Of each market.
    pub view: View,
    /// How often.
    pub conflate: Conflate,
    /// What each follows.
    pub markets: Vec<Vec<MarketId>>,
    /// How fast each reads, after [`Fleet::keep_pace`]; as fast as it comes where nothing is said.
    pub paces: Vec<Pace>,
    /// Connects a second.
    pub ramp: u32,
    /// How often each pings; `None` for a server that does not listen.
    pub ping_every: Option<Duration>,
    /// How long a client may be without any frame, of the time in which this fleet reads; `None` for a server that owes none.
    pub silence: Option<Duration>,
    /// The server is the floor: nothing is subscribed.
    pub floor: bool,
}

/// What happened, in sum.
#[derive(Debug, Clone)]
pub struct Totals {
    /// Frames of any kind.
    pub frames: u64,
    /// Deltas that brought a client on.
    pub deltas: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Reads that brought something.
    pub reads: u64,
    /// Messages that were old.
    pub old: u64,
    /// Gaps that the gateway declared.
    pub declared: u64,
    /// Gaps that it did not.
    pub undeclared: u64,
    /// Upgrades and requests that were answered.
    pub answered: u64,
    /// Heartbeats whose digest agreed.
    pub digests: u64,
    /// Those whose digest did not.
    pub wrong_digests: u64,
    /// Connections that ended though nobody wished it.
    pub closed: u64,
    /// Changes that came before they were due: no latencies.
    pub early: Early,
    /// Markets that a client which came back had as they are.
    pub exact: u64,
    /// Those that it was brought up to date in by a difference.
    pub caught_up: u64,
    /// Due to delivered, µs.
    pub latency: Histogram<u64>,
    /// The same of stops.
    pub stops: Histogram<u64>,
    /// From the connect to the last first book, µs.
    pub ready: Histogram<u64>,
}

impl Plan {
    fn pace(&self, number: usize) -> Pace {
        self.paces.get(number).copied().unwrap_or_default()
    }
}

impl Totals {
    fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, HIGHEST, DIGITS).context("a histogram");
        Ok(Self {
            frames: 0,
            deltas: 0,
            snapshots: 0,
            bytes: 0,
            reads: 0,
            old: 0,
            declared: 0,
            undeclared: 0,
            answered: 0,
            digests: 0,
            wrong_digests: 0,
            closed: 0,
            early: Early::default(),
            exact: 0,
            caught_up: 0,
            latency: histogram()?,
            stops: histogram()?,
            ready: histogram()?,
        })
    }
}

/// The clients.
pub struct Fleet {
    plan: Plan,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    judge: Judge,
    buffer: Vec<u8>,
    begun: Instant,
    /// Clients that had more than one turn's worth to read.
    again: VecDeque<usize>,
    pinged: usize,
    ready: usize,
    /// Those that do not read as fast as it comes, when paces are kept.
    paced: Paced,
    /// How long it has read.
    clock: Clock,
    /// What happened since the last [`Fleet::reset`].
    pub totals: Totals,
    /// The same of clients that read slowly.
    pub slow: Totals,
    /// Upgrades and requests that were answered before that.
    answered: u64,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet")
            .field("clients", &self.clients.len())
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

impl Fleet {
    /// None is connected yet.
    ///
    /// # Errors
    /// If the system gives no event queue.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        Ok(Self {
            judge: Judge::new(plan.codec, plan.view),
            poll: Poll::new().context("no event queue")?,
            events: Events::with_capacity(EVENTS),
            clients: Vec::with_capacity(plan.clients),
            plan,
            buffer: vec![0; READ],
            begun: Instant::now(),
            again: VecDeque::new(),
            pinged: 0,
            ready: 0,
            paced: Paced::default(),
            clock: Clock::default(),
            totals: Totals::new()?,
            slow: Totals::new()?,
            answered: 0,
        })
    }

    /// Begins to count anew.
    ///
    /// # Errors
    /// Never: the bounds of histograms are right.
    pub fn reset(&mut self) -> anyhow::Result<()> {
        self.answered = self.answered();
        (self.totals, self.slow) = (Totals::new()?, Totals::new()?);
        Ok(())
    }

    /// Upgrades and requests that were ever answered.
    fn answered(&self) -> u64 {
        self.answered + self.totals.answered + self.slow.answered
    }

    /// How many have all that they follow.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// What the judge found.
    #[must_use]
    pub fn findings(&self) -> &judge::Findings {
        &self.judge.findings
    }

    /// Nothing that was sent was wrong.
    ///
    /// # Errors
    /// What was.
    pub fn ensure_right(&self) -> anyhow::Result<()> {
        let findings = self.findings();
        if findings.wrong > 0 {
            bail!("{} mistakes, such as: {}", findings.wrong, findings.mistakes.join("; "));
        }
        Ok(())
    }

    /// Connects all and waits until each has its books. `progress` hears how many have.
    ///
    /// # Errors
    /// If that takes longer than `within`, or one is refused.
    pub fn connect(&mut self, within: Duration, mut progress: impl FnMut(usize)) -> anyhow::Result<Duration> {
        self.begun = Instant::now();
        let mut told = Instant::now();
        while self.ready < self.plan.clients {
            if self.findings().wrong > 0 {
                bail!("while connecting: {}", self.findings().mistakes.join("; "));
            }
            if self.begun.elapsed() > within {
                bail!(
                    "{} of {} clients have their books after {within:?}: is the gateway's limit of connects lower than the ramp of {} a second?",
                    self.ready,
                    self.plan.clients,
                    self.plan.ramp
                );
            }
            let due = (self.begun.elapsed().as_secs_f64() * f64::from(self.plan.ramp)) as usize + 1;
            while self.clients.len() < due.min(self.plan.clients) {
                let number = self.clients.len();
                let mut client =
                    Client::connect(&self.plan, number, &mut self.judge, self.poll.registry())
                        .with_context(|| format!("client {number} can't connect to {}", self.plan.address))?;
                client.heard(self.clock.ran());
                self.clients.push(client);
            }
            self.turn(Duration::from_millis(1))?;
            if told.elapsed() > Duration::from_millis(200) {
                told = Instant::now();
                progress(self.ready);
            }
        }
        progress(self.ready);
        Ok(self.begun.elapsed())
    }

    /// Reads whatever comes, for so long. `spin` never sleeps, so that nothing is read late.
    ///
    /// # Errors
    /// If the event queue fails.
    pub fn run(
        &mut self,
        time: Duration,
        spin: bool,
        mut progress: impl FnMut(&Totals),
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let mut told = begun;
        while begun.elapsed() < time {
            self.turn(if spin { Duration::ZERO } else { Duration::from_millis(5) })?;
            if told.elapsed() > Duration::from_millis(500) {
                told = Instant::now();
                progress(&self.totals);
            }
        }
        Ok(())
    }

    /// Reads whatever comes until nothing came for a while, at most so long.
    ///
    /// # Errors
    /// If the event queue fails.
    pub fn drain(&mut self, quiet: Duration, within: Duration) -> anyhow::Result<()> {
        let (begun, mut last, mut deltas) = (Instant::now(), Instant::now(), self.totals.deltas);
        while last.elapsed() < quiet && begun.elapsed() < within {
            self.turn(Duration::from_millis(1))?;
            if deltas != self.totals.deltas {
                (last, deltas) = (Instant::now(), self.totals.deltas);
            }
        }
        Ok(())
    }

    fn turn(&mut self, wait: Duration) -> anyhow::Result<()> {
        let wait = if self.again.is_empty() { wait } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        for event in &events {
            let Token(number) = event.token();
            let step = self.clients.get_mut(number).map_or(Step::Nothing, |client| {
                if event.is_writable() { client.writable(&self.plan) } else { Step::Nothing }
            });
            self.took(number, step);
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(number);
            }
        }
        events.clear();
        self.events = events;
        for _ in 0..self.again.len() {
            let Some(number) = self.again.pop_front() else { break };
            self.read(number);
        }
        self.clock.turned();
        self.look_for_silent();
        self.ping();
        self.read_slowly();
        Ok(())
    }

    fn read(&mut self, number: usize) {
        if self.is_slow(number) {
            return;
        }
        let Some(client) = self.clients.get_mut(number) else { return };
        let totals = if self.plan.pace(number) == Pace::Full { &mut self.totals } else { &mut self.slow };
        let frames = totals.frames;
        let step = client.read(&self.plan, &mut self.buffer, usize::MAX, &mut self.judge, totals);
        if totals.frames > frames {
            client.heard(self.clock.ran());
        }
        // One that just got all it follows may have more to read, too.
        if matches!(step, Step::More | Step::Ready) {
            self.again.push_back(number);
        }
        self.took(number, step);
    }

    fn took(&mut self, number: usize, step: Step) {
        match step {
            Step::Ready => self.ready += 1,
            Step::Closed if self.plan.pace(number) == Pace::Full => self.totals.closed += 1,
            Step::Closed => self.slow.closed += 1,
            Step::Nothing | Step::More => {}
        }
    }

    /// The clients' clock, ms.
    fn time(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(0)
    }

    /// Each pings once in its interval, all of them evenly.
    fn ping(&mut self) {
        let Some(every) = self.plan.ping_every else { return };
        let due =
            (self.begun.elapsed().as_secs_f64() / every.as_secs_f64() * self.plan.clients as f64) as usize;
        let time = self.time();
        while self.pinged < due {
            let number = self.pinged % self.plan.clients;
            self.pinged += 1;
            if let Some(client) = self.clients.get_mut(number) {
                let step = client.ping(&self.plan, time);
                self.took(number, step);
            }
        }
    }
}
