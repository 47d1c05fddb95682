//! Who looks: a real follower of every shard, with the eyes of somebody who trades. Whatever it would show wrongly is told.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use rand::rngs::SmallRng;
use tictac_ingest::log::{LiveEvent, LiveHandle, LogError, LogReader, Snapshots, Tail};
use tictac_proto::follower::{Event, Follower};
use tictac_proto::log::{CATALOGUE, Live};
use tictac_proto::model::{MarketField, MarketId, MarketStatus};
use tictac_proto::position::Position;
use tictac_proto::wire::FeedState;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::process::SHARDS;
use crate::source::{NAME, Shared};

/// A price may stand as open for so long after its source closed it: the bounds of both hops (2 s of a source's silence, 1.5 s of an
/// ingest's), since both may fail one after the other, and what looks take.
pub const OPEN_FOR: Duration = Duration::from_millis(3_600);
const TICK: Duration = Duration::from_millis(50);

/// What goes wrong on a viewer's way to the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sight {
    /// Live messages don't come, and nobody says so.
    pub is_deaf: bool,
    /// The subscription is lost, and told so.
    pub is_lost: bool,
    /// Nothing can be read: no answer, or refused at once.
    pub is_cut: bool,
    /// Of a thousand readings so many fail.
    pub failing: u32,
    /// Longest time of a reading, ms.
    pub delay: u64,
}

/// What a viewer shows.
#[derive(Debug, Clone, Default)]
pub struct Shows {
    /// Markets that can be traded, and those that should be.
    pub open: usize,
    pub should: usize,
    /// What differs from the truth, where something does.
    pub differs: Option<String>,
    /// Where each shard stands, for whoever looks into one seed.
    pub shards: Vec<String>,
    /// The first thing that should never be seen.
    pub wrong: Option<String>,
}

impl Shows {
    /// Everything can be traded that is open, and nothing else.
    pub fn is_well(&self) -> bool {
        self.should > 0 && self.open == self.should
    }
}

enum Repair {
    Tail(u16, Result<Tail, LogError>),
    Snapshots(u16, Result<Snapshots, LogError>),
}

type Reading = Pin<Box<dyn Future<Output = Repair> + Send>>;

pub struct Viewer {
    pub reader: LogReader,
    pub truth: Shared,
    pub sight: Arc<Mutex<Sight>>,
    pub dice: SmallRng,
    pub tell: watch::Sender<Shows>,
}

struct State {
    viewer: Viewer,
    handle: LiveHandle,
    followers: BTreeMap<u16, Follower>,
    readings: FuturesUnordered<Reading>,
    epochs: BTreeMap<u16, Position>,
    /// Whether the subscription is lost.
    is_lost: bool,
    wrong: Option<String>,
    counted: HashSet<MarketId>,
}

/// Time as followers know it: it never jumps.
fn now(began: Instant) -> i64 {
    1_000_000 + began.elapsed().as_millis() as i64
}

impl Viewer {
    pub async fn run(self) {
        let began = Instant::now();
        let (handle, mut live): (_, mpsc::Receiver<LiveEvent>) = self.reader.live(65_536);
        let shards = (0..SHARDS).chain([CATALOGUE]);
        let followers: BTreeMap<u16, Follower> = shards.map(|s| (s, Follower::new(s))).collect();
        followers.keys().for_each(|shard| handle.follow(*shard));
        let mut state = State {
            viewer: self,
            handle,
            followers,
            readings: FuturesUnordered::new(),
            epochs: BTreeMap::new(),
            is_lost: false,
            wrong: None,
            counted: HashSet::new(),
        };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = live.recv() => match event {
                    Some(event) => state.live(event, now(began)),
                    None => return,
                },
                Some(repair) = state.readings.next(), if !state.readings.is_empty() => state.repaired(repair, now(began)),
                _ = ticks.tick() => state.tick(now(began)),
            }
            state.drain(now(began));
        }
    }
}

impl State {
    fn live(&mut self, event: LiveEvent, now: i64) {
        let sight = *self.viewer.sight.lock().unwrap();
        match event {
            LiveEvent::Subscribed { shard } => self.followers.get_mut(&shard).unwrap().handle_subscribed(now),
            LiveEvent::Message { .. } if sight.is_deaf || self.is_lost => {}
            LiveEvent::Message { shard, bytes } => {
                let live = Live::decode(&bytes).expect("an entry or an alive");
                self.followers.get_mut(&shard).unwrap().handle_live(live, now);
            }
            LiveEvent::Lost { .. } => panic!("this log loses nobody"),
        }
    }

    fn repaired(&mut self, repair: Repair, now: i64) {
        match repair {
            Repair::Tail(shard, Ok(read)) => {
                self.followers.get_mut(&shard).unwrap().handle_tail(
                    read.head,
                    read.entries,
                    read.complete,
                    now,
                );
            }
            Repair::Snapshots(shard, Ok(read)) => {
                if !read.unreadable.is_empty() {
                    self.wrong.get_or_insert(format!("unreadable: {:?}", read.unreadable));
                }
                let follower = self.followers.get_mut(&shard).unwrap();
                follower.handle_snapshots(read.head, read.markets, read.entries, now);
            }
            Repair::Tail(shard, Err(_)) | Repair::Snapshots(shard, Err(_)) => {
                self.followers.get_mut(&shard).unwrap().handle_unread(now);
            }
        }
    }

    fn tick(&mut self, now: i64) {
        let is_lost = self.viewer.sight.lock().unwrap().is_lost;
        if is_lost != self.is_lost {
            self.is_lost = is_lost;
            for (shard, follower) in &mut self.followers {
                if is_lost {
                    follower.handle_lost();
                } else {
                    self.handle.follow(*shard);
                }
            }
        }
        self.followers.values_mut().for_each(|follower| follower.handle_time(now));
        self.look(now);
    }

    fn drain(&mut self, now: i64) {
        let mut wanted = Vec::new();
        for (shard, follower) in &mut self.followers {
            while let Some(event) = follower.poll(now) {
                match event {
                    Event::NeedTail(after) => wanted.push((*shard, Some(after))),
                    Event::NeedSnapshots => wanted.push((*shard, None)),
                    _ => {}
                }
            }
            let at = follower.at();
            let before = self.epochs.insert(*shard, at).unwrap_or(at);
            if at < before {
                self.wrong.get_or_insert(format!("shard {shard} went back from {before} to {at}"));
            }
            if follower.counters().mismatches > 0 {
                self.wrong.get_or_insert(format!("a checksum of shard {shard} does not match"));
            }
        }
        for (shard, after) in wanted {
            self.read(shard, after);
        }
    }

    fn read(&mut self, shard: u16, after: Option<Position>) {
        let sight = *self.viewer.sight.lock().unwrap();
        let dice = &mut self.viewer.dice;
        let fails = sight.is_cut || dice.random_range(0..1000) < sight.failing;
        let mut delay = || Duration::from_micros(dice.random_range(0..=sight.delay * 1_000));
        let (before, after_it) = (delay(), delay());
        let reader = self.viewer.reader.clone();
        self.readings.push(Box::pin(async move {
            let away = || Err(LogError::Unavailable("away".into()));
            sleep(before).await;
            match after {
                Some(after) => {
                    let read = if fails { away() } else { reader.tail(shard, after).await };
                    sleep(after_it).await;
                    Repair::Tail(shard, read)
                }
                None => {
                    let read = if fails {
                        Err(LogError::Unavailable("away".into()))
                    } else {
                        reader.snapshots(shard).await
                    };
                    sleep(after_it).await;
                    Repair::Snapshots(shard, read)
                }
            }
        }));
    }

    /// Looks at all that is shown.
    fn look(&mut self, now: i64) {
        let truth = self.viewer.truth.look();
        let mut shows = Shows::default();
        let mut open = HashSet::new();
        for (shard, follower) in self.followers.iter().filter(|f| *f.0 != CATALOGUE) {
            let is_live = follower.feed(NAME, now).state == FeedState::Live;
            for market in follower.markets() {
                let status = market.book.fields.int(MarketField::Status);
                let is_open =
                    is_live && status == Some(MarketStatus::Open.code()) && market.stop <= market.at;
                if is_open {
                    open.insert(market.id.clone());
                }
                let since = [&market.id].map(|id| [truth.closed.get(id), truth.held.get(id)]);
                let since = since.into_iter().flatten().flatten().map(Instant::elapsed).max();
                let too_long = is_open && since.is_some_and(|since| since > OPEN_FOR);
                if !too_long {
                    self.counted.remove(&market.id);
                } else if self.counted.insert(market.id.clone()) {
                    let (feed, at) = (follower.feed(NAME, now), follower.at());
                    let what = format!(
                        "{} of shard {shard} is open {since:?} after it closed; {at}, market at {}, {feed:?}, now {}",
                        market.id,
                        market.at,
                        tictac_ingest::clock::now_ms()
                    );
                    self.wrong.get_or_insert(what);
                }
            }
        }
        shows.open = open.len();
        for (id, market) in truth.simulator.truth() {
            let held = truth.held.contains_key(id);
            let should = market.status() == MarketStatus::Open && !held;
            shows.should += usize::from(should);
            let seen = self.followers.iter().filter(|f| *f.0 != CATALOGUE).find_map(|f| f.1.market(id));
            let differs = match seen {
                // What ended may be forgotten before its source forgets it.
                None => (!market.status().is_terminal()).then(|| "not there".into()),
                Some(_) if held => None,
                Some(seen) => market.differs(&seen.book),
            };
            let differs =
                differs.or_else(|| (open.contains(id) != should).then(|| format!("open is not {should}")));
            if let (Some(why), None) = (differs, &shows.differs) {
                shows.differs = Some(format!("{id}: {why}"));
            }
            let listed = self.followers[&CATALOGUE].market(id).is_some();
            if !listed && !market.status().is_terminal() && shows.differs.is_none() {
                shows.differs = Some(format!("{id} is not in the catalogue"));
            }
        }
        if open.iter().any(|id| truth.simulator.truth().all(|market| market.0 != id)) {
            shows.differs.get_or_insert_with(|| "something is open that is not there any more".into());
        }
        shows.wrong.clone_from(&self.wrong);
        if crate::tells() {
            let stands = |f: &Follower| {
                let silent = f.heard().map(|heard| now - heard);
                let (at, following) = (f.at(), f.is_following());
                format!(
                    "{} at {at} following {following} silent {silent:?} {:?}",
                    f.shard(),
                    f.feed(NAME, now)
                )
            };
            shows.shards = self.followers.values().map(stands).collect();
        }
        self.viewer.tell.send_replace(shows);
    }
}
