//! One client that is looked at closely: it decodes everything it is sent, follows stops, and knows by the messages' times how
//! long they were on their way from the source.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tictac_proto::model::{MarketId, MarketStatus, View};
use tictac_proto::wire::{Codec, Conflate, Down, Resume};
use tokio::sync::watch;

use super::figures::{Histogram, ReferenceFigures, histogram, quantile_ms};
use crate::fleet::Early;
use crate::pulse::now_us;
use crate::websocket::WsClient;

/// How long its first books may take.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// What it follows.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway, `host:port`.
    pub address: String,
    /// In which encoding.
    pub codec: Codec,
    /// How much of each book.
    pub view: View,
    /// How often.
    pub conflate: Conflate,
    /// Which markets.
    pub markets: Vec<MarketId>,
    /// How long is measured, s.
    pub seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Measuring(Instant),
    Over,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What it found.
    pub figures: ReferenceFigures,
    /// Its latency of 99 of a hundred, ms, second by second.
    pub seconds: Vec<Option<f64>>,
    /// Why it did not go on to the end.
    pub problem: Option<String>,
}

/// The client, on a thread of its own.
#[derive(Debug)]
pub struct Reference {
    phase: watch::Sender<Phase>,
    thread: JoinHandle<anyhow::Result<Outcome>>,
    /// Of the last whole second, µs; 0 for nothing.
    p99: Arc<AtomicU64>,
}

impl Reference {
    /// Connects, and waits until it has its books.
    ///
    /// # Errors
    /// If it does not get them.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let (phase, phases) = watch::channel(Phase::Waiting);
        let (ready, is_ready) = mpsc::sync_channel(1);
        let p99 = Arc::new(AtomicU64::new(0));
        let shared = p99.clone();
        let follow = move || -> anyhow::Result<Outcome> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let begun = begin(&plan).await;
                let worked = begun.is_ok();
                // Fails only where nobody waits for it any more.
                let _ = ready.send(worked);
                let mut watcher = Watcher::new(plan, begun?, shared)?;
                let ended = watcher.follow(phases).await;
                Ok(watcher.conclude(ended.err()))
            })
        };
        let thread =
            std::thread::Builder::new().name("reference".into()).spawn(follow).context("no thread")?;
        let reference = Self { phase, thread, p99 };
        if !is_ready.recv().unwrap_or(false) {
            let outcome = reference.finish();
            let error = outcome.err().unwrap_or_else(|| anyhow::anyhow!("it has ended"));
            return Err(error.context("the client that is looked at closely"));
        }
        Ok(reference)
    }

    /// Begins to measure.
    pub fn measure(&self) {
        self.phase.send_replace(Phase::Measuring(Instant::now()));
    }

    /// Latency of 99 of a hundred in the last second, ms.
    #[must_use]
    pub fn last_p99_ms(&self) -> Option<f64> {
        let p99 = self.p99.load(Ordering::Relaxed);
        (p99 > 0).then_some(p99 as f64 / 1e3)
    }

    /// Ends it, and hears what it found.
    ///
    /// # Errors
    /// If it never began.
    pub fn finish(self) -> anyhow::Result<Outcome> {
        self.phase.send_replace(Phase::Over);
        self.thread.join().unwrap_or_else(|_| bail!("it panicked"))
    }
}

async fn begin(plan: &Plan) -> anyhow::Result<WsClient> {
    let connected = WsClient::connect(&plan.address, plan.codec, "");
    let mut client = tokio::time::timeout(READY_WITHIN, connected).await.context("no answer in time")??;
    client.subscribe(&plan.markets, plan.view, plan.conflate, Resume::default()).await?;
    // Those that ended meanwhile are not held any more.
    let come = |f: &crate::follow::Followed| f.markets().all(|(_, market)| market.book().is_some());
    client.until(READY_WITHIN, "its books", come).await?;
    Ok(client)
}

struct Watcher {
    plan: Plan,
    client: WsClient,
    figures: ReferenceFigures,
    seconds: Vec<Option<f64>>,
    second: Histogram,
    p99: Arc<AtomicU64>,
    /// Which markets were tradable when they were heard of last.
    tradable: HashMap<MarketId, bool>,
}

impl Watcher {
    fn new(plan: Plan, client: WsClient, p99: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let figures = ReferenceFigures {
            markets: plan.markets.len(),
            latency: histogram()?,
            deltas: 0,
            stops: 0,
            agreed: 0,
            wrong: 0,
            stale_opens: 0,
            early: Early::default(),
        };
        let (seconds, second) = (Vec::new(), histogram()?);
        let mut watcher = Self { plan, client, figures, seconds, second, p99, tradable: HashMap::new() };
        watcher.look_at_all();
        Ok(watcher)
    }

    async fn follow(&mut self, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
        loop {
            let phase = *phases.borrow_and_update();
            let end_of_second = match phase {
                Phase::Over => return Ok(()),
                Phase::Waiting => None,
                Phase::Measuring(begun) => {
                    let next = Duration::from_secs(self.seconds.len() as u64 + 1);
                    ((self.seconds.len() as u64) < self.plan.seconds).then(|| begun + next)
                }
            };
            let until = async {
                match end_of_second {
                    Some(end) => tokio::time::sleep_until(end.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = phases.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = until => self.second_is_over(),
                message = self.client.step() => {
                    let message = message?;
                    ensure!(message.is_some(), "the gateway closed with {:?}", self.client.closed);
                    if let Some(message) = message {
                        self.take(&message, end_of_second.is_some());
                    }
                }
            }
        }
    }

    fn conclude(mut self, problem: Option<anyhow::Error>) -> Outcome {
        // The second in which it ended is not whole, but what was measured in it was.
        if !self.second.is_empty() {
            self.second_is_over();
        }
        self.p99.store(0, Ordering::Relaxed);
        let counts = self.client.followed.counts;
        self.figures.deltas = counts.deltas;
        self.figures.stops = counts.stops;
        self.figures.agreed = counts.checked + counts.digests;
        self.figures.wrong = counts.mismatches + counts.digest_mismatches + (counts.gaps - counts.declared);
        let problem = problem.map(|error| format!("the client that is looked at closely: {error:#}"));
        Outcome { figures: self.figures, seconds: self.seconds, problem }
    }

    fn second_is_over(&mut self) {
        let p99 = quantile_ms(&self.second, 0.99);
        self.seconds.push(p99);
        self.p99.store(p99.map_or(0, |ms| (ms * 1e3) as u64), Ordering::Relaxed);
        // Both have the same bounds, so that they always fit.
        let _ = self.figures.latency.add(&self.second);
        self.second.reset();
    }

    fn is_tradable(&self, market: &MarketId) -> bool {
        let held = self.client.followed.market(market, self.plan.view);
        held.is_some_and(|held| held.tradable_market())
    }

    fn look_at_all(&mut self) {
        let held = self.client.followed.markets();
        let all: HashMap<MarketId, bool> =
            held.map(|((id, _), market)| (id.clone(), market.tradable_market())).collect();
        self.tradable = all;
    }

    /// Takes in a message that the client has taken in already.
    fn take(&mut self, message: &Down, measuring: bool) {
        let market = match message {
            Down::Delta(head, _) => {
                if measuring && head.times.source > 0 {
                    // Its times are whole ms, so that this is up to one too much.
                    let late = now_us() - head.times.source * 1_000;
                    if let Some(late) = self.figures.early.checked(late) {
                        self.second.saturating_record(late);
                    }
                }
                let held = self.client.followed.market(&head.market, self.plan.view);
                let book = held.filter(|held| !held.in_gap()).and_then(|held| held.book());
                let ended = book.is_some_and(|book| book.status() != MarketStatus::Open);
                // Stops go ahead of prices: one that was tradable until now was not told to be otherwise.
                if ended && self.tradable.get(&head.market) == Some(&true) {
                    self.figures.stale_opens += 1;
                }
                &head.market
            }
            Down::Snap(head, _) => &head.market,
            Down::Ok(ok) => &ok.market,
            Down::Stop { market, .. }
            | Down::Crc { market, .. }
            | Down::Gap { market, .. }
            | Down::Gone { market, .. } => market,
            Down::Feed(_) => return self.look_at_all(),
            _ => return,
        };
        let is = self.is_tradable(market);
        self.tradable.insert(market.clone(), is);
    }
}
