//! One group of clients: a [`Fleet`] on a thread of its own, which does what it is ordered to and says what happened.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value as Json;
use tictac_proto::model::{Book, MarketId, View};
use tictac_proto::position::Position;

use super::figures::{GroupFigures, Sum};
use super::unrest::{Measuring, Unrest};
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
/// How long a client may take to come to where the others were: more than the longest conflation, and a pause of the gateway.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How long after its document is gone a client may take to hear that a market is.
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// A second that is shorter than this says nothing: it is part of the one before it.
const SHORTEST: Duration = Duration::from_millis(500);
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
    /// The watched market has no document any more: the clients must know.
    NoDocument,
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The document and the book are the same.
    Equal,
    /// They differ, in this.
    Differs(String),
    /// The clients were told that the market is gone.
    Gone,
    /// No book stands where the document does.
    NotThere,
}

/// One second of a group.
#[derive(Debug)]
pub struct Second {
    /// Which.
    pub at: u64,
    /// The one after it; where the tester was paused for long, several are one.
    pub until: u64,
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
    /// All have passed; and once more when nothing more is to be done.
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
    measuring: Measuring,
    orders: &Receiver<Order>,
    tell: SyncSender<(usize, Told)>,
) {
    let teller = Teller { number, tell };
    // It fails where nobody listens, which is nobody's concern then.
    let _ = match Group::new(plan, &measuring) {
        Ok(mut group) => {
            let obeyed = group.obey(&teller, measuring.seconds, orders);
            // What was found since it was measured counts, too.
            group.settle(None);
            let figures = Box::new(group.figures);
            teller.say(match obeyed {
                Ok(()) => Told::Measured(figures),
                Err(error) => Told::Failed(format!("{error:#}"), figures),
            })
        }
        Err(error) => GroupFigures::new()
            .and_then(|figures| teller.say(Told::Failed(format!("{error:#}"), Box::new(figures)))),
    };
}

/// Where a second ends that was to end at `until` and is over after `elapsed`: after a pause of the tester it is several.
fn extended(until: u64, elapsed: Duration, seconds: u64) -> u64 {
    if elapsed.saturating_sub(Duration::from_secs(until)) <= SHORTEST {
        return until;
    }
    (elapsed.as_secs() + 1).min(seconds).max(until)
}

/// A mistake as it is told. Of an answer that was none the first line says enough, and what can be done.
fn told(mistake: &str) -> String {
    let mut line = mistake.lines().next().unwrap_or_default().to_owned();
    if line.contains("HTTP/1.1 503") {
        line.push_str(
            "; it limits connects from one address: lower --ramp or --churn, or raise its --connects-per-ip",
        );
    }
    line
}

struct Group {
    fleet: Fleet,
    view: View,
    clients: usize,
    ramp: u32,
    figures: GroupFigures,
    watched: Option<Watched>,
    unrest: Unrest,
}

struct Watched {
    market: MarketId,
    books: VecDeque<(Position, Book)>,
}

impl Group {
    fn new(plan: Plan, measuring: &Measuring) -> anyhow::Result<Self> {
        let (view, clients, ramp) = (plan.view, plan.clients, plan.ramp);
        let figures = GroupFigures::new()?;
        let unrest = Unrest::new(measuring, clients);
        Ok(Self { fleet: Fleet::new(plan)?, view, clients, ramp, figures, watched: None, unrest })
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
                    if !self.measure(teller, seconds, orders)? {
                        return Ok(());
                    }
                    self.unrest.end(&mut self.fleet)?;
                    self.fleet.catch_up(CATCH_UP)?;
                    self.settle(None);
                    teller.say(Told::Measured(Box::new(self.figures.clone())))?;
                }
                Ok(Order::Watch(market)) => {
                    self.watched = Some(Watched { market, books: VecDeque::with_capacity(BOOKS) });
                }
                Ok(Order::Check(document)) => {
                    let checked = self.check(&document)?;
                    teller.say(Told::Checked(checked))?;
                }
                Ok(Order::NoDocument) => {
                    let checked = self.gone()?;
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
        let why = first.unwrap_or_else(|| format!("{error:#}"));
        teller.say(Told::Failed(why, Box::new(self.figures.clone())))
    }

    /// Adds what the fleet counted since the last time; with how long that was where it was measured.
    fn settle(&mut self, measured: Option<f64>) -> Sum {
        let mut sum = Sum::of(&self.fleet.totals, measured.is_some());
        sum.add(&Sum::of(&self.fleet.slow, measured.is_some()));
        // Its bounds are right.
        let _ = self.fleet.reset();
        self.figures.sum.add(&sum);
        self.figures.measured_s += measured.unwrap_or(0.0);
        self.figures.ready = self.fleet.ready();
        let found = self.fleet.findings();
        self.figures.wrong = found.wrong;
        self.figures.mistakes = found.mistakes.iter().map(|mistake| told(mistake)).collect();
        self.figures.checksums = found.checksums;
        self.figures.compared = found.compared;
        self.figures.not_compared = found.not_compared;
        self.figures.decoded = found.decoded;
        self.figures.cut = self.unrest.cut;
        if let Some(coming) = &self.unrest.coming {
            self.figures.storm_answered_s = coming.answered.map(|took| took.as_secs_f64());
            self.figures.storm_back_s = coming.all.map(|took| took.as_secs_f64());
        }
        sum
    }

    /// Measures; whether it came to its end before nobody gave orders any more.
    fn measure(&mut self, teller: &Teller, seconds: u64, orders: &Receiver<Order>) -> anyhow::Result<bool> {
        self.settle(None);
        self.fleet.keep_pace();
        let begun = Instant::now();
        let (mut last, mut cpu) = (begun, thread_cpu());
        let mut at = 0;
        while at < seconds {
            let mut until = at + 1;
            loop {
                let end = begun + Duration::from_secs(until);
                self.unrest.run(&mut self.fleet, begun, end)?;
                let later = extended(until, begun.elapsed(), seconds);
                if later == until {
                    break;
                }
                until = later;
            }
            let (now, spent) = (Instant::now(), thread_cpu());
            let took = (now - last).as_secs_f64();
            let sum = self.settle(Some(took));
            let share = (spent - cpu) / took;
            self.figures.cpu_s += spent - cpu;
            self.figures.busiest = self.figures.busiest.max(share);
            let wrong = self.figures.wrong + self.figures.sum.closed;
            teller.say(Told::Second(Box::new(Second { at, until, took, sum, cpu: share, wrong })))?;
            (last, cpu, at) = (now, spent, until);
            // Orders come one at a time, and the next only when this one is done.
            if matches!(orders.try_recv(), Err(TryRecvError::Disconnected)) {
                return Ok(false);
            }
        }
        Ok(true)
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

    /// Whether the clients were told that the watched market is gone.
    fn gone(&mut self) -> anyhow::Result<Checked> {
        let begun = Instant::now();
        loop {
            self.read(WATCHING)?;
            let Some(watched) = &self.watched else { return Ok(Checked::NotThere) };
            let holders = self.fleet.holders(&watched.market);
            if holders == 0 {
                return Ok(Checked::Gone);
            }
            if begun.elapsed() > GONE_WITHIN {
                return Ok(Checked::Differs(format!(
                    "{}: the gateway has no document of it, and {holders} clients were not told that it is gone",
                    watched.market
                )));
            }
        }
    }

    fn check(&mut self, document: &Json) -> anyhow::Result<Checked> {
        let number = |key: &str| document[key].as_u64().unwrap_or(0);
        let at = Position::new(number("epoch"), number("seq"));
        let begun = Instant::now();
        loop {
            self.read(WATCHING)?;
            if self.watched.as_ref().is_some_and(|watched| self.fleet.holders(&watched.market) == 0) {
                return Ok(Checked::Gone);
            }
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

#[cfg(test)]
mod tests;
