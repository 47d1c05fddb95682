//! A run: the catalogue, the groups of clients, each a [`Fleet`](crate::fleet::Fleet) on a thread of its own, and one client
//! of each that is looked at closely ([`reference`]); in the end the documents.

pub mod counts;
pub mod documents;
pub mod figures;
pub mod follows;
pub mod group;
pub mod reference;
pub mod unrest;

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tictac_proto::model::{MarketId, View};
use tokio::runtime::Runtime;

use crate::fleet::{Pace, Plan};
use crate::progress::Progress;
use crate::request::get;
use crate::scenario::{Group, Scenario};
use figures::{Figures, Point};
use follows::Catalogue;
use group::{Checked, Order, Told};
use reference::Reference;
use unrest::Measuring;

/// Markets of each group whose books are compared with documents.
const SAMPLE: usize = 5;
/// How long a client and a document may take to stand at the same place.
const COMPARE_WITHIN: Duration = Duration::from_secs(15);
/// How long a document may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Each pings so often, as a browser does.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a client may be without any frame; heartbeats come every second.
const SILENCE: Duration = Duration::from_secs(5);
/// What else is open beside the clients' sockets.
const OTHER_FILES: u64 = 64;
/// What waits to be heard.
const HEARD: usize = 1_024;
/// A thread that is busier than this may be what is measured.
pub const BUSY: f64 = 0.8;

/// Runs a scenario.
///
/// # Errors
/// If nothing could be begun: no gateway, no market, no room for sockets. What goes wrong later is in the figures.
pub fn run(scenario: &Scenario, progress: &mut Progress) -> anyhow::Result<Figures> {
    ensure_files(scenario.clients() as u64)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let address = resolve(&scenario.address)?;
    let catalogue = runtime.block_on(Catalogue::fetch(&scenario.address))?;
    progress.say(&format!(
        "{} markets of {} events at {}; {} clients",
        catalogue.len(),
        catalogue.events(),
        scenario.address,
        scenario.clients()
    ));
    let mut plans = Vec::with_capacity(scenario.groups.len());
    for group in &scenario.groups {
        plans.push(Plan {
            address,
            transport: group.transport,
            clients: group.count,
            codec: group.codec,
            view: group.view,
            conflate: group.conflate,
            markets: catalogue.follows(group)?,
            paces: paces(group),
            ramp: group.ramp,
            ping_every: Some(PING_EVERY),
            silence: Some(SILENCE),
            floor: false,
        });
    }
    let mut figures = Figures::new(scenario, catalogue.len())?;
    let followed: Vec<Vec<MarketId>> = plans.iter().map(|plan| sample(&plan.markets)).collect();
    let closely = |(plan, group): (&Plan, &Group)| reference::Plan {
        address: scenario.address.clone(),
        codec: group.codec,
        view: group.view,
        conflate: group.conflate,
        markets: plan.markets.first().cloned().unwrap_or_default(),
        seconds: scenario.seconds,
    };
    let closely: Vec<_> = plans.iter().zip(&scenario.groups).map(closely).collect();
    std::thread::scope(|scope| {
        let (tell, told) = sync_channel(HEARD);
        let mut groups = Vec::new();
        for (number, (plan, group)) in plans.into_iter().zip(&scenario.groups).enumerate() {
            let (order, orders) = sync_channel(4);
            let tell = tell.clone();
            let measuring =
                Measuring { seconds: scenario.seconds, churn: group.churn, storm_at: group.storm_at };
            let thread = std::thread::Builder::new().name(format!("group {number}"));
            let handle = thread
                .spawn_scoped(scope, move || group::run(number, plan, measuring, &orders, tell))
                .context("no thread")?;
            groups.push((order, handle));
        }
        drop(tell);
        let mut stage = Stage { scenario, runtime: &runtime, figures: &mut figures, progress, told, groups };
        let outcome = stage.play(&followed, closely);
        stage.end();
        outcome
    })?;
    figures.conclude();
    Ok(figures)
}

fn resolve(address: &str) -> anyhow::Result<SocketAddr> {
    let mut all = address.to_socket_addrs().with_context(|| format!("{address}: no such address"))?;
    all.next().with_context(|| format!("{address}: no such address"))
}

/// How fast each reads while it is measured.
fn paces(group: &Group) -> Vec<Pace> {
    let Some(bytes) = group.read else { return Vec::new() };
    vec![Pace::Bytes(u32::try_from(bytes).unwrap_or(u32::MAX)); group.count]
}

/// Whether this process may open so many sockets.
fn ensure_files(clients: u64) -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    let needed = clients + OTHER_FILES;
    if let Some(soft) = soft.filter(|soft| *soft < needed) {
        bail!("{clients} clients need {needed} open files, and {soft} are allowed here: ulimit -n {needed}");
    }
    Ok(())
}

/// Some of the markets that are followed, evenly from the first client to the last.
fn sample(follows: &[Vec<MarketId>]) -> Vec<MarketId> {
    let (mut chosen, count) = (BTreeSet::new(), follows.len());
    for turn in 0..SAMPLE * 8 {
        let markets = &follows[turn * count / (SAMPLE * 8)];
        if chosen.len() == SAMPLE || markets.is_empty() {
            break;
        }
        chosen.insert(markets[turn % markets.len()].clone());
    }
    chosen.into_iter().collect()
}

struct Stage<'a, 'scope> {
    scenario: &'a Scenario,
    runtime: &'a Runtime,
    figures: &'a mut Figures,
    progress: &'a mut Progress,
    told: Receiver<(usize, Told)>,
    groups: Vec<(SyncSender<Order>, ScopedJoinHandle<'scope, ()>)>,
}

impl Stage<'_, '_> {
    /// What one of the groups has to say next.
    fn next(&mut self) -> anyhow::Result<(usize, Told)> {
        let (number, told) = self.told.recv().context("every group has ended")?;
        match told {
            Told::Failed(why, figures) => {
                self.figures.problems.push(why.clone());
                self.figures.measured(number, *figures);
                bail!("{why}")
            }
            Told::Ended => bail!("group {} has ended", number + 1),
            told => Ok((number, told)),
        }
    }

    fn order(&self, number: usize, order: Order) -> anyhow::Result<()> {
        self.groups[number].0.send(order).ok().context("a group has ended")
    }

    /// Connects, measures, compares. What fails on the way is noted in the figures.
    fn play(&mut self, followed: &[Vec<MarketId>], closely: Vec<reference::Plan>) -> anyhow::Result<()> {
        let outcome = self.connect().and_then(|()| {
            let references = closely.into_iter().map(Reference::start).collect::<anyhow::Result<Vec<_>>>()?;
            let done = self.measure(&references);
            for reference in references {
                self.figures.watched(reference.finish()?);
            }
            done
        });
        // A failed run has its figures too, up to where it failed.
        if let Err(error) = outcome {
            let why = format!("{error:#}");
            if !self.figures.problems.contains(&why) {
                self.figures.problems.push(why);
            }
        }
        // Nor is there anything to compare then.
        if !self.figures.problems.is_empty() {
            return Ok(());
        }
        for (number, markets) in followed.iter().enumerate() {
            let view = self.scenario.groups[number].view;
            for market in markets {
                self.progress.comparing(market);
                self.figures.compared.sampled += 1;
                let compared = self.compare(number, market, view);
                match compared {
                    Ok(true) => self.figures.compared.equal += 1,
                    Ok(false) => self.figures.compared.gone += 1,
                    Err(error) => self.figures.compared.wrong.push(format!("{error:#}")),
                }
            }
        }
        Ok(())
    }

    /// One group after the other, so that together they are no faster than the fastest ramp.
    fn connect(&mut self) -> anyhow::Result<()> {
        let (begun, mut before) = (Instant::now(), 0);
        for number in 0..self.groups.len() {
            self.order(number, Order::Connect)?;
            loop {
                match self.next()? {
                    (_, Told::Ready(ready)) => {
                        self.progress.connecting(before + ready, self.scenario.clients(), begun.elapsed());
                    }
                    (_, Told::Connected) => break,
                    _ => {}
                }
            }
            before += self.scenario.groups[number].count;
        }
        Ok(())
    }

    fn measure(&mut self, references: &[Reference]) -> anyhow::Result<()> {
        for number in 0..self.groups.len() {
            self.order(number, Order::Measure)?;
        }
        references.iter().for_each(Reference::measure);
        let mut open = self.groups.len();
        let mut points: Vec<(usize, Point)> = Vec::new();
        while open > 0 {
            match self.next()? {
                (_, Told::Second(second)) => {
                    for at in second.at as usize..second.until as usize {
                        while points.len() <= at {
                            points.push((0, Point::new()?));
                        }
                        let (heard, point) = &mut points[at];
                        *heard += 1;
                        point.add(&second);
                        if *heard == self.groups.len() {
                            point.settle();
                            let watched =
                                || references.iter().filter_map(Reference::last_p99_ms).reduce(f64::max);
                            let p99 = point.p99_ms.or_else(watched);
                            self.progress.second(point, self.scenario, p99);
                        }
                    }
                }
                (number, Told::Measured(group)) => {
                    self.figures.measured(number, *group);
                    open -= 1;
                }
                _ => {}
            }
        }
        self.figures.points = points.into_iter().map(|(_, point)| point).collect();
        Ok(())
    }

    /// Whether the group's book is the document's; `false` where the clients were told that the market is gone.
    fn compare(&mut self, number: usize, market: &MarketId, view: View) -> anyhow::Result<bool> {
        let path = documents::path(market, view);
        let begun = Instant::now();
        self.order(number, Order::Watch(market.clone()))?;
        while begun.elapsed() < COMPARE_WITHIN {
            let answer = get(&self.scenario.address, &path, &[]);
            let answer = async { tokio::time::timeout(ANSWER_WITHIN, answer).await };
            let response = self
                .runtime
                .block_on(answer)
                .with_context(|| format!("GET {path} is not answered within {ANSWER_WITHIN:?}"))??;
            let is_there = response.status != 404;
            if is_there {
                ensure!(response.status == 200, "GET {path} is answered by {}", response.status);
                self.order(number, Order::Check(Box::new(response.json()?)))?;
            } else {
                self.order(number, Order::NoDocument)?;
            }
            loop {
                match self.next()? {
                    (_, Told::Checked(Checked::Equal)) => return Ok(true),
                    (_, Told::Checked(Checked::Gone)) => return Ok(false),
                    (_, Told::Checked(Checked::Differs(why))) => bail!("{why}"),
                    (_, Told::Checked(Checked::NotThere)) => break,
                    _ => {}
                }
            }
        }
        bail!("{market}: clients and document never stood at the same position within {COMPARE_WITHIN:?}")
    }

    /// Every thread is told to end, and waited for.
    fn end(self) {
        let Self { groups, told, figures, .. } = self;
        // Without anybody to give orders a group ends.
        let handles: Vec<_> = groups.into_iter().map(|(_, handle)| handle).collect();
        // What it says last is what it has found in all.
        while let Ok((number, told)) = told.recv() {
            match told {
                Told::Measured(group) => figures.measured(number, *group),
                Told::Failed(why, group) => {
                    figures.measured(number, *group);
                    if !figures.problems.contains(&why) {
                        figures.problems.push(why);
                    }
                }
                _ => {}
            }
        }
        for (number, handle) in handles.into_iter().enumerate() {
            if handle.join().is_err() {
                figures.problems.push(format!("group {} panicked", number + 1));
            }
        }
    }
}
