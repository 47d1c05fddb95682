//! One run: a source, a few ingests, a log that fails, and two who look, in virtual time, from one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tictac_ingest::clock::now_ms;
use tictac_ingest::log::{Kept, LogReader, LogWriter, MemoryLog, MemorySettings};
use tictac_ingest::operator::{Act, Action};
use tictac_ingest::service::Input;
use tictac_ingest::testing::{Lossy, virtual_time};
use tictac_proto::model::MarketId;
use tictac_proto::position::Position;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::faults::{Fault, PLACES, Step, VIEWERS};
use crate::process::{LOG_ENTRIES, Place, ROOM, SHARDS};
use crate::source::{Shared, Source};
use crate::viewer::{Shows, Sight, Viewer};

const STRETCHES: usize = 4;
/// All is well again within this after the last fault, whatever they were.
const WITHIN: Duration = Duration::from_secs(3);
/// Until what is well is also right, once nothing new happens.
const SETTLE: Duration = Duration::from_secs(3);
/// What a takeover may take.
const TAKEOVER: Duration = Duration::from_secs(2);
/// One hop when all is well, ms.
const HOP: u64 = 2;

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Play {
    /// Stretches with faults, each until all is well again.
    Faults,
    /// The owner dies, is stopped or is cut off: somebody else owns everything in time, and one that comes back changes nothing.
    Takeover,
}

/// What came of it.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// The faults of each stretch, and how long after their end all was well.
    pub stretches: Vec<(Vec<&'static str>, Duration)>,
}

/// How long after a fault all was well.
#[derive(Debug, Default)]
pub struct Spread {
    pub times: Vec<Duration>,
}

impl Spread {
    /// One line for the table of faults; a campaign that fails in anything writes none.
    pub fn line(&self, fault: &str, seeds: u64) -> String {
        let mut times = BTreeMap::<u64, u64>::new();
        for time in &self.times {
            *times.entry(time.as_millis() as u64).or_default() += 1;
        }
        let fault = format!("whole ingests, {fault}");
        let (wrong, stale_open, undeclared) = (0, 0, 0);
        serde_json::json!({
            "kind": "simulated", "fault": fault, "seeds": seeds, "converge_ms": times,
            "wrong": wrong, "stale_open": stale_open, "undeclared": undeclared,
        })
        .to_string()
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at =
            |share: f64| times.get(((times.len() - 1) as f64 * share) as usize).map_or(0, |t| t.as_millis());
        write!(
            f,
            "{:6} times, well after {:5} ms (half), {:5} (99 %), {:5} (all)",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        )
    }
}

/// Runs a play in virtual time.
pub fn run(play: Play, seed: u64) -> Result<Outcome, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let time = virtual_time::begin(seed, 1_764_000_000_000);
        let mut world = World::new(seed, time);
        match play {
            Play::Faults => world.faults().await,
            Play::Takeover => world.takeover().await,
        }
    })
}

struct World {
    time: virtual_time::VirtualTime,
    dice: SmallRng,
    log: MemoryLog,
    kept: Kept,
    places: Vec<Place>,
    sights: Vec<Arc<Mutex<Sight>>>,
    shows: Vec<watch::Receiver<Shows>>,
    truth: Shared,
    quiet: watch::Sender<bool>,
    mute: watch::Sender<bool>,
    /// Whether the log can be written: an operator's act that it does not take is none.
    is_writable: bool,
    /// What an operator ever held.
    ever_held: BTreeSet<MarketId>,
    /// When an operator acted last: later acts count, whatever the clock says.
    acted: i64,
}

impl World {
    fn new(seed: u64, time: virtual_time::VirtualTime) -> Self {
        let mut dice = SmallRng::seed_from_u64(seed);
        let mut some = || SmallRng::seed_from_u64(dice.random());
        let settings =
            MemorySettings { entries: LOG_ENTRIES, bytes: 1 << 22, lease: Duration::from_millis(1_500) };
        let log = MemoryLog::new(settings);
        let free = broadcast::channel(64).0;
        let (asked, asks) = mpsc::channel(ROOM);
        let places = (0..PLACES).map(|i| Place::new(i as u16, log.clone(), &free, asked.clone(), some()));
        let (places, wires): (Vec<_>, Vec<_>) = places.unzip();
        let truth = Shared::new(seed);
        let (quiet, mute) = (watch::channel(false).0, watch::channel(false).0);
        let (hush, still) = (quiet.subscribe(), mute.subscribe());
        let source =
            Source { truth: truth.clone(), dice: some(), wires, asked: asks, quiet: hush, mute: still };
        tokio::spawn(source.run());
        let (mut sights, mut shows) = (Vec::new(), Vec::new());
        for i in 0..VIEWERS {
            let sight: Arc<Mutex<Sight>> = Arc::default();
            let (tell, seen) = watch::channel(Shows::default());
            let mut reader = LogReader::from(log.clone());
            if i > 0 {
                reader = LogReader::Lossy(Box::new(Lossy { reader, percent: 1.0, seed }));
            }
            let viewer = Viewer { reader, truth: truth.clone(), sight: sight.clone(), dice: some(), tell };
            tokio::spawn(viewer.run());
            sights.push(sight);
            shows.push(seen);
        }
        Self {
            time,
            dice,
            log,
            kept: Kept::default(),
            places,
            sights,
            shows,
            truth,
            quiet,
            mute,
            is_writable: true,
            ever_held: BTreeSet::new(),
            acted: 0,
        }
    }

    async fn faults(&mut self) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        self.end_all().await;
        self.well("the beginning").await?;
        for _ in 0..STRETCHES {
            let until = self.dice.random_range(1_000..12_000);
            let mut faults = Vec::new();
            for _ in 0..self.dice.random_range(1..5) {
                let fault = *Fault::ALL.choose(&mut self.dice).unwrap();
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
            let mut steps: Vec<(u64, Step)> =
                faults.iter().flat_map(|fault| fault.plot(&mut self.dice, until)).collect();
            steps.sort_by_key(|step| step.0);
            let begun = Instant::now();
            for (at, step) in steps {
                sleep_until(begun + Duration::from_millis(at)).await;
                if crate::tells() {
                    println!("{:?} {step:?}", now_ms());
                }
                self.step(step).await;
            }
            sleep_until(begun + Duration::from_millis(until)).await;
            self.end_all().await;
            let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
            let took = self.well(&format!("{names:?}")).await?;
            outcome.stretches.push((names, took));
            self.settle().await?;
        }
        Ok(outcome)
    }

    /// The epochs of shards.
    async fn epochs(&self, shards: &[u16]) -> Vec<u64> {
        let reader = LogReader::from(self.log.clone());
        let mut epochs = Vec::new();
        for shard in shards {
            epochs.push(reader.tail(*shard, Position::new(u64::MAX, 0)).await.unwrap().head.epoch);
        }
        epochs
    }

    /// Who owns most, and what, once everybody could take over.
    async fn owner(&self) -> (usize, Vec<u16>) {
        loop {
            let (mut most, mut owned, mut warm) = ((0, Vec::new()), 0, true);
            for (i, place) in self.places.iter().enumerate() {
                let shards = place.owned().await;
                owned += shards.len();
                warm &= place.is_warm().await;
                if shards.len() > most.1.len() {
                    most = (i, shards);
                }
            }
            if warm && owned == usize::from(SHARDS) + 1 {
                return most;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn takeover(&mut self) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        self.end_all().await;
        self.well("the beginning").await?;
        for what in ["takeover: killed", "takeover: stopped and revived", "takeover: cut off and back"] {
            let Ok((owner, shards)) = timeout(Duration::from_secs(10), self.owner()).await else {
                return Err(format!("{what}: not every shard is owned with all of the ingests warm"));
            };
            sleep(Duration::from_micros(self.dice.random_range(0..1_000_000))).await;
            let before = self.epochs(&shards).await;
            let begun = Instant::now();
            match what {
                "takeover: killed" => self.places[owner].kill(),
                "takeover: stopped and revived" => self.places[owner].pause(true),
                _ => self.places[owner].log.set(|faults| faults.is_cut = true),
            }
            while !self.epochs(&shards).await.iter().zip(&before).all(|(now, before)| now > before) {
                if begun.elapsed() > TAKEOVER {
                    return Err(format!("{what}: not taken over after {:?}", begun.elapsed()));
                }
                sleep(Duration::from_millis(1)).await;
            }
            outcome.stretches.push((vec![what], begun.elapsed()));
            self.well(what).await?;
            sleep_until(begun + Duration::from_secs(10)).await;
            let taken = self.epochs(&shards).await;
            self.end_all().await;
            sleep(Duration::from_secs(2)).await;
            if what != "takeover: killed" && self.epochs(&shards).await != taken {
                return Err(format!("{what}: it came back and changed epochs {taken:?}"));
            }
            self.well(what).await?;
            self.settle().await?;
        }
        Ok(outcome)
    }

    /// Nothing is wrong any more.
    async fn end_all(&mut self) {
        for place in &mut self.places {
            place.log.set(|faults| {
                *faults = tictac_ingest::testing::Faults {
                    delay: (Duration::ZERO, Duration::from_millis(HOP)),
                    ..Default::default()
                }
            });
            let was_deaf = {
                let mut wire = place.wire.lock().unwrap();
                let was = wire.is_deaf;
                *wire = crate::process::Wire { delay: HOP, ..Default::default() };
                was
            };
            place.pause(false);
            if !place.runs() {
                place.start();
            }
            if was_deaf {
                place.tell(Input::Broken);
            }
        }
        for sight in &self.sights {
            *sight.lock().unwrap() = Sight { delay: HOP, ..Sight::default() };
        }
        self.mute.send_replace(false);
        self.is_writable = true;
        let held: Vec<MarketId> = self.truth.look().held.keys().cloned().collect();
        for market in held {
            self.act(&market, false).await;
            self.truth.hold(&market, false);
        }
    }

    /// Waits until everybody shows all that is open, and nothing else; how long that took.
    async fn well(&mut self, what: &str) -> Result<Duration, String> {
        let begun = Instant::now();
        let mut all = self.shows.clone();
        let well = async {
            for shows in &mut all {
                shows.mark_changed();
            }
            while !all.iter().all(|shows| shows.borrow().is_well() || shows.borrow().wrong.is_some()) {
                all[0].changed().await.unwrap();
            }
        };
        let done = timeout(WITHIN, well).await;
        self.nothing_wrong(what)?;
        if done.is_err() {
            let shows: Vec<Shows> = self.shows.iter().map(|s| s.borrow().clone()).collect();
            return Err(format!("{what}: not well after {WITHIN:?}: {shows:?}"));
        }
        Ok(begun.elapsed())
    }

    /// Nothing new happens: soon all is as it is in truth.
    async fn settle(&mut self) -> Result<(), String> {
        self.quiet.send_replace(true);
        let mut all = self.shows.clone();
        let settled = async {
            while !all.iter().all(|shows| shows.borrow().differs.is_none()) {
                all[0].changed().await.unwrap();
            }
        };
        let done = timeout(SETTLE, settled).await;
        self.quiet.send_replace(false);
        self.nothing_wrong("quiet")?;
        if done.is_err() {
            let shows: Vec<Shows> = self.shows.iter().map(|s| s.borrow().clone()).collect();
            return Err(format!("not right after {SETTLE:?} of quiet: {shows:?}"));
        }
        Ok(())
    }

    fn nothing_wrong(&self, what: &str) -> Result<(), String> {
        match self.shows.iter().find_map(|shows| shows.borrow().wrong.clone()) {
            Some(wrong) => Err(format!("{what}: {wrong}")),
            None => Ok(()),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Kill(i) => self.places[i].kill(),
            Step::Stop(i) => self.places[i].stop(),
            Step::Start(i) => {
                if !self.places[i].runs() {
                    self.places[i].start();
                }
            }
            Step::Pause(i, pause) => self.places[i].pause(pause),
            Step::Cut(i, cut) => self.places[i].log.set(|faults| faults.is_cut = cut),
            Step::Delay(i, (least, most)) => {
                let delay = (Duration::from_millis(least), Duration::from_millis(most));
                self.places[i].log.set(|faults| faults.delay = delay);
            }
            Step::Lose(i, some) => {
                self.places[i].log.set(|faults| (faults.lost_requests, faults.lost_answers) = (some, some))
            }
            Step::Away { away, silent } => {
                self.is_writable = !away;
                for place in &self.places {
                    place
                        .log
                        .set(|faults| (faults.is_cut, faults.is_refused) = (away && silent, away && !silent));
                    let was = std::mem::replace(&mut place.wire.lock().unwrap().is_deaf, away);
                    if was != away {
                        place.tell(Input::Broken);
                    }
                }
                for sight in &self.sights {
                    let mut sight = sight.lock().unwrap();
                    (sight.is_lost, sight.is_cut) = (away, away);
                }
            }
            Step::Full(full) => {
                self.is_writable = !full;
                self.places.iter().for_each(|place| place.log.set(|faults| faults.is_full = full));
            }
            Step::Copy => self.kept = self.log.copy(),
            Step::FallBack => {
                self.log.fall_back(&self.kept);
                self.hold_again().await;
            }
            Step::Forget => {
                self.log.forget();
                self.hold_again().await;
            }
            Step::InputLost(i, some) => self.places[i].wire.lock().unwrap().lost = some,
            Step::InputDeaf { place, deaf, told } => {
                self.places[place].wire.lock().unwrap().is_deaf = deaf;
                if told {
                    self.places[place].tell(Input::Broken);
                }
            }
            Step::InputSlow(i, ms) => self.places[i].wire.lock().unwrap().delay = ms,
            Step::Mute(mute) => {
                self.mute.send_replace(mute);
            }
            Step::ViewerDeaf(i, deaf) => self.sights[i].lock().unwrap().is_deaf = deaf,
            Step::ViewerLost(i, lost) => self.sights[i].lock().unwrap().is_lost = lost,
            Step::ViewerFails(i, some) => {
                let mut sight = self.sights[i].lock().unwrap();
                (sight.failing, sight.delay) = (some, u64::from(some));
            }
            Step::Jump(ms) => self.time.jump(ms),
            Step::Hold(_) if !self.is_writable => {}
            Step::Hold(hold) => {
                let market = {
                    let truth = self.truth.look();
                    let of: Vec<MarketId> = if hold {
                        truth.simulator.truth().map(|market| market.0.clone()).collect()
                    } else {
                        truth.held.keys().cloned().collect()
                    };
                    of.choose(&mut self.dice).cloned()
                };
                if let Some(market) = market {
                    self.act(&market, hold).await;
                    self.truth.hold(&market, hold);
                }
            }
        }
    }

    /// What an operator did is stored again, where the log may have forgotten it before anybody knew.
    async fn hold_again(&mut self) {
        for market in self.ever_held.clone() {
            let held = self.truth.look().held.contains_key(&market);
            self.act(&market, held).await;
        }
    }

    async fn act(&mut self, market: &MarketId, hold: bool) {
        self.acted = now_ms().max(self.acted + 1);
        self.ever_held.insert(market.clone());
        let act = Act {
            action: if hold { Action::Suspend } else { Action::Resume },
            scope: format!("market:{market}"),
            by: "ann".into(),
            why: String::new(),
            at: self.acted,
        };
        LogWriter::from(self.log.clone()).act(&act, true).await.unwrap();
        for place in self.places.iter().filter(|place| !place.wire.lock().unwrap().is_deaf) {
            place.tell(Input::Operator { act: act.clone() });
        }
        sleep(Duration::from_millis(1)).await;
    }
}
