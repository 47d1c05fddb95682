//! One group of clients: a [`Fleet`] on a thread of its own, which does what it is ordered to and says what happened.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value as Json;
use tictac_proto::model::{Book, MarketId, View};
use tictac_proto::position::Position;

use super::figures::{GroupFigures, Sum};
use crate::compare::compare;
use crate::fleet::{Fleet, Plan};

/// How long connecting may take beyond its ramp.
const CONNECT_MORE: Duration = Duration::from_secs(30);
/// How long is read between two looks at the orders, when nothing is measured.
const SLICE: Duration = Duration::from_millis(20);
/// The same while a market is watched: no position is to be missed.
const WATCHING: Duration = Duration::from_millis(1);
/// Books of a watched market that are remembered.
const BOOKS: usize = 256;
/// What a document shows is on its way to the clients, if it is not here yet.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// What a group is to do.
#[derive(Debug)]
pub enum Order {
    /// Connect all.
    Connect,
    /// Measure, second by second.
    Measure,
    /// Remember the books of this market.
    Watch(MarketId),
    /// Compare with a document of the watched market.
    Check(Box<Json>),
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The document and the book are the same.
    Equal,
    /// They differ, in this.
    Differs(String),
    /// No book stands where the document does.
    NotThere,
}

/// One second of a group.
#[derive(Debug)]
pub struct Second {
    /// Which.
    pub at: u64,
    /// How long it was, s.
    pub took: f64,
    /// What happened in it.
    pub sum: Sum,
    /// The thread's CPU, 1 is all of one.
    pub cpu: f64,
    /// Everything that was wrong so far.
    pub wrong: u64,
}

/// What a group says.
#[derive(Debug)]
pub enum Told {
    /// So many have all that they follow.
    Ready(usize),
    /// All have.
    Connected,
    /// A second has passed.
    Second(Box<Second>),
    /// All have passed.
    Measured(Box<GroupFigures>),
    /// What came of a comparison.
    Checked(Checked),
    /// It goes no further: why, and what it has.
    Failed(String, Box<GroupFigures>),
    /// The thread ends, however that came.
    Ended,
}

struct Teller {
    number: usize,
    tell: SyncSender<(usize, Told)>,
}

impl Teller {
    fn say(&self, told: Told) -> anyhow::Result<()> {
        self.tell.send((self.number, told)).ok().context("nobody listens")
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        // Nobody has to listen any more.
        let _ = self.tell.send((self.number, Told::Ended));
    }
}

/// CPU time of the calling thread so far, s.
fn thread_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    // After the name, which may hold anything, and its parenthesis comes the state: utime is the 12th, stime the 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    // A hundred ticks a second on every Linux that Rust runs on.
    (ticks(11) + ticks(12)) / 100.0
}

/// Runs a group until nobody gives orders any more.
pub fn run(
    number: usize,
    plan: Plan,
    seconds: u64,
    orders: &Receiver<Order>,
    tell: SyncSender<(usize, Told)>,
) {
    let teller = Teller { number, tell };
    // It fails where nobody listens, which is nobody's concern then.
    let _ = Group::new(plan).and_then(|mut group| group.obey(&teller, seconds, orders)).or_else(|error| {
        let figures = GroupFigures::new().context("no figures")?;
        teller.say(Told::Failed(format!("{error:#}"), Box::new(figures)))
    });
}

struct Group {
    fleet: Fleet,
    view: View,
    clients: usize,
    ramp: u32,
    figures: GroupFigures,
    watched: Option<Watched>,
}

struct Watched {
    market: MarketId,
    books: VecDeque<(Position, Book)>,
}

impl Group {
    fn new(plan: Plan) -> anyhow::Result<Self> {
        let (view, clients, ramp) = (plan.view, plan.clients, plan.ramp);
        let figures = GroupFigures::new()?;
        Ok(Self { fleet: Fleet::new(plan)?, view, clients, ramp, figures, watched: None })
    }

    fn obey(&mut self, teller: &Teller, seconds: u64, orders: &Receiver<Order>) -> anyhow::Result<()> {
        // Nothing is to be read before anything is connected.
        let mut next = orders.recv().map_err(|_| TryRecvError::Disconnected);
        loop {
            match next {
                Ok(Order::Connect) => {
                    if let Err(error) = self.connect(teller) {
                        return self.failed(teller, &error);
                    }
                    teller.say(Told::Connected)?;
                }
                Ok(Order::Measure) => {
                    self.measure(teller, seconds)?;
                    teller.say(Told::Measured(Box::new(self.figures.clone())))?;
                }
                Ok(Order::Watch(market)) => {
                    self.watched = Some(Watched { market, books: VecDeque::with_capacity(BOOKS) });
                }
                Ok(Order::Check(document)) => {
                    let checked = self.check(&document)?;
                    teller.say(Told::Checked(checked))?;
                }
                Err(TryRecvError::Empty) => self.read(SLICE)?,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            next = orders.try_recv();
        }
    }

    fn connect(&mut self, teller: &Teller) -> anyhow::Result<()> {
        let within = CONNECT_MORE + Duration::from_secs_f64(self.clients as f64 / f64::from(self.ramp));
        let took = self.fleet.connect(within, |ready| {
            // The next one says it, too.
            let _ = teller.tell.try_send((teller.number, Told::Ready(ready)));
        })?;
        self.figures.connect_s = took.as_secs_f64();
        Ok(())
    }

    fn failed(&mut self, teller: &Teller, error: &anyhow::Error) -> anyhow::Result<()> {
        self.settle(None);
        // The others are told with the figures.
        let first = self.figures.mistakes.first().map(|first| format!("while connecting: {first}"));
        let mut why = first.unwrap_or_else(|| format!("{error:#}"));
        if why.contains("HTTP/1.1 503") {
            why.push_str(
                "; it limits connects from one address: lower --ramp, or raise its --connects-per-ip",
            );
        }
        teller.say(Told::Failed(why, Box::new(self.figures.clone())))
    }

    /// Adds what the fleet counted since the last time; with how long that was where it was measured.
    fn settle(&mut self, measured: Option<f64>) -> Sum {
        let sum = Sum::of(&self.fleet.totals, measured.is_some());
        // Its bounds are right.
        let _ = self.fleet.reset();
        self.figures.sum.add(&sum);
        self.figures.measured_s += measured.unwrap_or(0.0);
        self.figures.ready = self.fleet.ready();
        let found = self.fleet.findings();
        self.figures.wrong = found.wrong;
        // Of an answer that was none, the first line says enough.
        let line = |mistake: &String| mistake.lines().next().unwrap_or_default().to_owned();
        self.figures.mistakes = found.mistakes.iter().map(line).collect();
        self.figures.checksums = found.checksums;
        self.figures.compared = found.compared;
        self.figures.not_compared = found.not_compared;
        self.figures.decoded = found.decoded;
        sum
    }

    fn measure(&mut self, teller: &Teller, seconds: u64) -> anyhow::Result<()> {
        self.settle(None);
        let begun = Instant::now();
        let (mut last, mut cpu) = (begun, thread_cpu());
        for at in 0..seconds {
            let end = begun + Duration::from_secs(at + 1);
            self.fleet.run(end.saturating_duration_since(Instant::now()), false, |_| {})?;
            let (now, spent) = (Instant::now(), thread_cpu());
            let took = (now - last).as_secs_f64();
            let sum = self.settle(Some(took));
            let share = (spent - cpu) / took;
            self.figures.cpu_s += spent - cpu;
            self.figures.busiest = self.figures.busiest.max(share);
            let wrong = self.figures.wrong + self.figures.sum.closed;
            teller.say(Told::Second(Box::new(Second { at, took, sum, cpu: share, wrong })))?;
            (last, cpu) = (now, spent);
        }
        Ok(())
    }

    /// Reads for a while, and remembers how the watched market looked meanwhile.
    fn read(&mut self, time: Duration) -> anyhow::Result<()> {
        self.fleet.run(time, false, |_| {})?;
        let Some(watched) = &mut self.watched else { return Ok(()) };
        let Some((at, book)) = self.fleet.book(&watched.market) else { return Ok(()) };
        if watched.books.back().is_none_or(|(last, _)| *last != at) {
            if watched.books.len() == BOOKS {
                watched.books.pop_front();
            }
            watched.books.push_back((at, book.clone()));
        }
        Ok(())
    }

    fn check(&mut self, document: &Json) -> anyhow::Result<Checked> {
        let number = |key: &str| document[key].as_u64().unwrap_or(0);
        let at = Position::new(number("epoch"), number("seq"));
        let begun = Instant::now();
        loop {
            self.read(WATCHING)?;
            let books = self.watched.as_ref().map(|watched| &watched.books);
            let Some((newest, book)) = books.and_then(VecDeque::back) else { return Ok(Checked::NotThere) };
            let same = books.and_then(|books| books.iter().find(|(is, _)| *is == at));
            if let Some((_, book)) = same {
                return Ok(match compare(document, book, self.view) {
                    Ok(()) => Checked::Equal,
                    Err(why) => Checked::Differs(format!("{why:#} (both at {at})")),
                });
            }
            let late = begun.elapsed() > ON_ITS_WAY;
            if !late && *newest < at {
                continue;
            }
            // A view that a change does not touch stays where it was: its content decides then.
            if self.view != View::All && compare(document, book, self.view).is_ok() {
                return Ok(Checked::Equal);
            }
            return Ok(Checked::NotThere);
        }
    }
}
