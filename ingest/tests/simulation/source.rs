//! The source: a simulator of markets that speaks the native format, and answers when it is asked for images.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use tictac_ingest::clock::now_ms;
use tictac_ingest::native::NativeWriter;
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::update::Update;
use tictac_proto::model::{MarketId, MarketStatus};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

pub const NAME: &str = "demo";
/// It says something so often.
pub const EVERY: Duration = Duration::from_millis(100);
/// How much of its markets' time passes meanwhile.
const STEP: i64 = 100;

/// What is true.
pub struct Truth {
    pub simulator: Simulator,
    /// Markets that are not open by their source, or not there any more, since when.
    pub closed: HashMap<MarketId, Instant>,
    /// What an operator holds, since when.
    pub held: BTreeMap<MarketId, Instant>,
}

impl Truth {
    fn note(&mut self) {
        let now = Instant::now();
        let open: BTreeMap<MarketId, bool> = self
            .simulator
            .truth()
            .map(|(id, market)| (id.clone(), market.status() == MarketStatus::Open))
            .collect();
        for (id, open) in &open {
            if *open {
                self.closed.remove(id);
            } else {
                self.closed.entry(id.clone()).or_insert(now);
            }
        }
    }

    /// What was there and is not any more.
    fn forget(&mut self, before: &BTreeSet<MarketId>) {
        let now = Instant::now();
        let there: BTreeSet<&MarketId> = self.simulator.truth().map(|market| market.0).collect();
        for id in before.iter().filter(|id| !there.contains(id)) {
            self.closed.entry(id.clone()).or_insert(now);
        }
    }
}

#[derive(Clone)]
pub struct Shared(Arc<Mutex<Truth>>);

impl Shared {
    pub fn new(seed: u64) -> Self {
        let config = Config {
            rate: 0.3,
            pace: 60.0,
            football: 1,
            tennis: 1,
            races: 1,
            linger_ms: 5_000,
            ..Config::default()
        };
        let simulator = Simulator::new(seed, config);
        let truth = Truth { simulator, closed: HashMap::new(), held: BTreeMap::new() };
        Self(Arc::new(Mutex::new(truth)))
    }

    pub fn look(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap()
    }

    /// An operator holds a market, or lets it go.
    pub fn hold(&self, market: &MarketId, hold: bool) {
        let mut truth = self.look();
        if hold {
            truth.held.insert(market.clone(), Instant::now());
        } else {
            truth.held.remove(market);
        }
    }
}

pub struct Source {
    pub truth: Shared,
    pub dice: SmallRng,
    /// To each ingest.
    pub wires: Vec<mpsc::Sender<Bytes>>,
    /// What ingests ask for.
    pub asked: mpsc::Receiver<Vec<MarketId>>,
    /// Nothing new happens while it is true.
    pub quiet: watch::Receiver<bool>,
    /// It does not answer while it is true.
    pub mute: watch::Receiver<bool>,
}

impl Source {
    pub async fn run(mut self) {
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut writer = NativeWriter::default();
        let (mut seq, mut now) = (0, 1_764_000_000_000);
        loop {
            let mut updates = Vec::new();
            tokio::select! {
                _ = every.tick() => {
                    if !*self.quiet.borrow() {
                        now += STEP;
                        let mut truth = self.truth.look();
                        let before = truth.simulator.truth().map(|market| market.0.clone()).collect();
                        truth.simulator.advance(now, &mut updates);
                        truth.note();
                        truth.forget(&before);
                    }
                }
                asked = self.asked.recv() => {
                    let Some(markets) = asked else { return };
                    sleep(Duration::from_millis(self.dice.random_range(1..30))).await;
                    let mut all: BTreeSet<MarketId> = markets.into_iter().collect();
                    while let Ok(more) = self.asked.try_recv() {
                        all.extend(more);
                    }
                    if *self.mute.borrow() {
                        continue;
                    }
                    let mut truth = self.truth.look();
                    truth.simulator.images(&mut updates);
                    for (market, _) in truth.simulator.truth() {
                        all.remove(market);
                    }
                    updates.extend(all.into_iter().map(|market| Update::Gone { market }));
                }
            }
            seq += 1;
            let mut message = String::new();
            writer.write_envelope(NAME, seq, now_ms(), &updates, &mut message);
            let message = Bytes::from(message);
            for wire in &self.wires {
                wire.try_send(message.clone()).expect("wires have room and live as long as the world");
            }
        }
    }
}
