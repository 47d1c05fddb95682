//! The hub: the one place where the feed is applied and encoded. It follows the shards that somebody wants, keeps a
//! desk for each market that somebody watches, and hands every core the same encoded frames. Pure: no I/O, no clock;
//! the thread around it is `crate::feed`.

mod answers;
mod desk;
mod document;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tictac_proto::follower::{Counters, Event, Follower};
use tictac_proto::log::{CATALOGUE, Entry, FeedReport, Live, Stored, shard_of};
use tictac_proto::model::{MarketField, MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Down, ErrorCode, FeedNews, FeedState, How};

pub use answers::{Listing, MAX_PAGE, MarketFilter};
pub use document::Document;

use crate::wires::Wire;
use desk::Desk;

/// How long a shard that nobody wants any more is still followed, ms.
const LINGER: i64 = 30_000;
/// How long an opening waits for its shard, ms.
const OPEN_DEADLINE: i64 = 5_000;
/// How long a document waits for the first `alive` of a shard newly followed, ms.
const FIRST_ALIVE: i64 = 1_000;
/// Openings and questions that may wait for shards at once.
const MAX_WAITING: usize = 50_000;

/// Both clocks, in ms: one that never jumps, for bounds; one that people share, for stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic.
    pub mono: i64,
    /// Unix.
    pub wall: i64,
}

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A market as a view shows it.
    Market(MarketId, View),
    /// What there is.
    Catalogue,
}

/// What a run is about, and for what kind of client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKey {
    /// The subject.
    pub subject: Subject,
    /// The wire.
    pub wire: Wire,
}

/// The hub's number of a run, the same on every core.
pub type RunId = usize;

/// What a core asks of the hub.
#[derive(Debug)]
pub enum ToHub {
    /// Open a run for this core: answered by `Opened` or `Refused`.
    Open {
        /// The core.
        core: usize,
        /// The run.
        key: RunKey,
    },
    /// The core has no reader of the run any more.
    Close {
        /// The core.
        core: usize,
        /// The run.
        run: RunId,
    },
    /// A base from a position, or a snapshot: answered by `Based`.
    Base {
        /// The core.
        core: usize,
        /// The run.
        run: RunId,
        /// From where; `None`: a snapshot.
        from: Option<Position>,
    },
    /// A market's document, for `GET /v1/markets/{id}`.
    Document {
        /// The market.
        market: MarketId,
        /// The view.
        view: View,
        /// Who asks: comes back with the answer.
        ask: u64,
    },
    /// A page of the catalogue, for `GET /v1/markets`.
    List {
        /// Which markets.
        filter: MarketFilter,
        /// Who asks.
        ask: u64,
    },
}

/// What the hub tells a core. In order: a base was made from what came before it.
#[derive(Debug, Clone)]
pub enum ToCore {
    /// A run is open: its frames follow from here on.
    Opened {
        /// What was asked for.
        key: RunKey,
        /// Its number.
        run: RunId,
        /// The market's shard.
        shard: u16,
        /// The market's source.
        source: Arc<str>,
        /// Where the run's head stands.
        head: Position,
    },
    /// A run can't be opened.
    Refused {
        /// What was asked for.
        key: RunKey,
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        why: String,
        /// When to try again, ms.
        retry: Option<u64>,
    },
    /// A frame for every reader of a run.
    Frame {
        /// The run.
        run: RunId,
        /// The bytes.
        bytes: Bytes,
        /// Where it brings readers.
        seq: u64,
        /// Whether conflation must not delay it.
        urgent: bool,
    },
    /// The run starts over: every reader needs a base.
    Reset {
        /// The run.
        run: RunId,
        /// Where it starts.
        head: Position,
    },
    /// A base that was asked for.
    Based {
        /// The run.
        run: RunId,
        /// What was asked.
        from: Option<Position>,
        /// The frame, empty where the client stands there already.
        frame: Bytes,
        /// Where it brings the client.
        at: Position,
        /// How.
        how: How,
        /// The market's last stop.
        stop: Position,
        /// The state of its feed.
        feed: FeedState,
    },
    /// A stop for every reader of a run, ahead of everything.
    Stop {
        /// The run.
        run: RunId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The market of a run is gone: tell its readers, and forget the run.
    Gone {
        /// The run.
        run: RunId,
        /// The bytes.
        bytes: Bytes,
    },
    /// A feed's state, for sessions with markets of that source and shard.
    Feed {
        /// The news.
        news: FeedNews,
        /// The bytes, by wire.
        frames: [Bytes; Wire::ALL.len()],
    },
    /// How far a shard has come; everything before it was told.
    Head {
        /// The shard.
        shard: u16,
        /// Where it stands.
        at: Position,
        /// The oldest sign of life among its sources, Unix ms.
        as_of: i64,
    },
    /// The hub lives: sent with every tick. A core that misses it must not vouch for anything.
    Beat,
    /// A market joined or moved within the catalogue.
    Joined {
        /// The market.
        market: MarketId,
        /// Its event.
        event: Arc<str>,
        /// Its sport.
        sport: Arc<str>,
    },
    /// A market left the catalogue.
    Left {
        /// The market.
        market: MarketId,
    },
}

/// What the hub asks of the feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedCommand {
    /// Subscribe to a shard's live channel.
    Follow(u16),
    /// Unsubscribe.
    Unfollow(u16),
    /// Read a shard's log after a position.
    Tail(u16, Position),
    /// Read a shard's snapshots.
    Snapshots(u16),
}

/// The answer to a question.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A market's document.
    Document(Document),
    /// A page of the catalogue.
    Listing(Listing),
    /// None.
    Refused {
        /// Why.
        code: ErrorCode,
        /// Why, for people.
        why: String,
        /// When to try again, ms.
        retry: Option<u64>,
    },
}

#[derive(Debug)]
struct Watched {
    follower: Follower,
    wanted: usize,
    idle_since: i64,
    /// Since the first tick after following it.
    followed_at: Option<i64>,
    told_head: Position,
}

#[derive(Debug)]
struct Outlet {
    key: RunKey,
    cores: u64,
}

type Outlets = HashMap<RunId, Outlet, RandomState>;

#[derive(Debug)]
enum Waiter {
    Run { core: usize, key: RunKey },
    Document { view: View, ask: u64 },
}

#[derive(Debug)]
struct Waiting {
    market: MarketId,
    deadline: i64,
    waiter: Waiter,
}

/// Follows, applies, encodes.
#[derive(Debug)]
pub struct Hub {
    shards: u16,
    checksum_interval: i64,
    followers: BTreeMap<u16, Watched>,
    outlets: Outlets,
    /// Numbers of runs are never used again: what a core says of an old one can't meet a new one.
    next_run: RunId,
    runs: HashMap<RunKey, RunId, RandomState>,
    desks: HashMap<MarketId, Desk, RandomState>,
    /// Event and sport of every market of the catalogue, as cores were told.
    events: HashMap<MarketId, (Arc<str>, Arc<str>), RandomState>,
    catalogue_seq: u64,
    waiting: Vec<Waiting>,
    cores: Vec<Vec<ToCore>>,
    commands: Vec<FeedCommand>,
    answers: Vec<(u64, Answer)>,
}

impl Hub {
    /// A hub for so many shards and cores. `checksum_interval`: least ms between two checksums of one market and view;
    /// 0 sends one after every delta.
    #[must_use]
    pub fn new(shards: u16, cores: usize, checksum_interval: i64) -> Self {
        assert!(cores <= 64, "a run's readers are a set of at most 64 cores");
        let mut hub = Self {
            shards,
            checksum_interval,
            followers: BTreeMap::new(),
            outlets: HashMap::default(),
            next_run: 0,
            runs: HashMap::default(),
            desks: HashMap::default(),
            events: HashMap::default(),
            catalogue_seq: 0,
            waiting: Vec::new(),
            cores: (0..cores).map(|_| Vec::new()).collect(),
            commands: Vec::new(),
            answers: Vec::new(),
        };
        hub.want(CATALOGUE);
        hub
    }

    /// What to tell each core since the last call.
    pub fn take_for_core(&mut self, core: usize) -> Vec<ToCore> {
        std::mem::take(&mut self.cores[core])
    }

    /// What to do for the hub.
    pub fn take_commands(&mut self) -> Vec<FeedCommand> {
        std::mem::take(&mut self.commands)
    }

    /// Answers to questions, with who asked.
    pub fn take_answers(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// Counters of every followed shard, added up.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for c in self.followers.values().map(|w| w.follower.counters()) {
            sum.applied += c.applied;
            sum.duplicates += c.duplicates;
            sum.old_epochs += c.old_epochs;
            sum.gaps += c.gaps;
            sum.tails += c.tails;
            sum.snapshots += c.snapshots;
            sum.overflow += c.overflow;
            sum.mismatches += c.mismatches;
        }
        sum
    }

    /// Shards that are wanted and whose `alive` was not heard lately: empty means ready.
    #[must_use]
    pub fn silent_shards(&self, now: Now) -> Vec<u16> {
        let silent = |w: &&Watched| {
            // One newly followed has had no time yet; one that nobody wants any more is nobody's trouble.
            let since = w.follower.heard().or(w.followed_at).unwrap_or(now.mono);
            w.wanted > 0 && now.mono - since > tictac_proto::follower::STALE_AFTER
        };
        self.followers.values().filter(silent).map(|w| w.follower.shard()).collect()
    }

    /// How many shards are followed, desks kept and runs open.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("shards", self.followers.len()),
            ("desks", self.desks.len()),
            ("runs", self.outlets.len()),
            ("waiting", self.waiting.len()),
        ]
    }

    /// The market as the hub holds it, for comparing.
    #[must_use]
    pub fn market(&self, id: &str) -> Option<&tictac_proto::model::Market> {
        let shard = self.shard_of_market(id)?;
        self.followers.get(&shard)?.follower.market(id)
    }

    /// How many markets of a shard are held; `None` where it is not followed.
    #[must_use]
    pub fn market_count(&self, shard: u16) -> Option<usize> {
        self.followers.get(&shard).map(|w| w.follower.markets().count())
    }

    fn want(&mut self, shard: u16) {
        let commands = &mut self.commands;
        let watched = self.followers.entry(shard).or_insert_with(|| {
            commands.push(FeedCommand::Follow(shard));
            Watched {
                follower: Follower::new(shard),
                wanted: 0,
                idle_since: 0,
                followed_at: None,
                told_head: Position::ZERO,
            }
        });
        watched.wanted += 1;
    }

    fn unwant(&mut self, shard: u16, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.wanted = watched.wanted.saturating_sub(1);
            watched.idle_since = now.mono;
        }
    }

    /// The shard of a market, as the catalogue knows it.
    fn shard_of_market(&self, market: &str) -> Option<u16> {
        self.events.get(market).map(|(event, _)| shard_of(event, self.shards))
    }

    /// A shard's live subscription is confirmed.
    pub fn subscribed(&mut self, shard: u16, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.follower.handle_subscribed(now.mono);
        }
        self.drain(shard, now);
    }

    /// Every live subscription broke.
    pub fn lost(&mut self) {
        for watched in self.followers.values_mut() {
            watched.follower.handle_lost();
        }
    }

    /// A live message of a shard.
    pub fn live(&mut self, shard: u16, live: Live, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.follower.handle_live(live, now.mono);
        }
        self.drain(shard, now);
    }

    /// A shard's log, asked for by [`FeedCommand::Tail`].
    pub fn tail(&mut self, shard: u16, head: Position, entries: Vec<Entry>, complete: bool, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.follower.handle_tail(head, entries, complete, now.mono);
        }
        self.drain(shard, now);
    }

    /// A shard's snapshots, asked for by [`FeedCommand::Snapshots`].
    pub fn snapshots(
        &mut self,
        shard: u16,
        head: Position,
        stored: Vec<Stored>,
        entries: Vec<Entry>,
        now: Now,
    ) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.follower.handle_snapshots(head, stored, entries, now.mono);
        }
        self.drain(shard, now);
    }

    /// Bounds of time: silent feeds, unanswered repairs and openings, shards that nobody wants. Call it a few times a
    /// second.
    pub fn tick(&mut self, now: Now) {
        for core in &mut self.cores {
            core.push(ToCore::Beat);
        }
        let shards: Vec<u16> = self.followers.keys().copied().collect();
        for shard in shards {
            let Some(watched) = self.followers.get_mut(&shard) else { continue };
            watched.followed_at.get_or_insert(now.mono);
            watched.follower.handle_time(now.mono);
            if watched.wanted == 0 && now.mono - watched.idle_since > LINGER {
                self.followers.remove(&shard);
                self.commands.push(FeedCommand::Unfollow(shard));
                continue;
            }
            self.drain(shard, now);
        }
        self.serve_waiting(now);
    }

    fn drain(&mut self, shard: u16, now: Now) {
        let mut news = false;
        while let Some(event) = self.followers.get_mut(&shard).and_then(|w| w.follower.poll(now.mono)) {
            news = true;
            match event {
                Event::NeedTail(after) => self.commands.push(FeedCommand::Tail(shard, after)),
                Event::NeedSnapshots => self.commands.push(FeedCommand::Snapshots(shard)),
                Event::Feed(report) => self.tell_feed(shard, report),
                event if shard == CATALOGUE => self.catalogue_event(event),
                event => self.market_event(shard, event, now),
            }
        }
        if news && !self.waiting.is_empty() {
            self.serve_waiting(now);
        }
        self.tell_head(shard);
    }

    /// Tells every core how far a shard has come.
    fn tell_head(&mut self, shard: u16) {
        let Some(watched) = self.followers.get_mut(&shard) else { return };
        let at = watched.follower.at();
        if at == watched.told_head {
            return;
        }
        watched.told_head = at;
        for core in &mut self.cores {
            core.push(ToCore::Head { shard, at, as_of: 0 });
        }
    }

    fn tell_feed(&mut self, shard: u16, report: FeedReport) {
        let news = FeedNews { source: report.source, shard, state: report.state, as_of: report.as_of };
        let message = Down::Feed(news.clone());
        let frames = Wire::ALL.map(|wire| wire.frame("feed", &message));
        for core in &mut self.cores {
            core.push(ToCore::Feed { news: news.clone(), frames: frames.clone() });
        }
    }

    /// The state of a market's feed.
    fn feed_of(&self, shard: u16, market: &str, now: Now) -> FeedReport {
        match self.followers.get(&shard) {
            Some(watched) => {
                let source = watched.follower.source_of(market).unwrap_or("");
                watched.follower.feed(source, now.mono)
            }
            None => FeedReport { source: "".into(), state: FeedState::Down, as_of: 0 },
        }
    }

    /// The state of a market's feed as it was told last.
    fn told_feed_of(&self, shard: u16, market: &str, now: Now) -> FeedState {
        let follower = self.followers.get(&shard).map(|w| &w.follower);
        follower.map_or(FeedState::Down, |f| f.told_feed(f.source_of(market).unwrap_or(""), now.mono).state)
    }

    /// What a core asks.
    pub fn handle(&mut self, ask: ToHub, now: Now) {
        match ask {
            ToHub::Open { core, key } => self.open(core, key, now),
            ToHub::Close { core, run } => self.close(core, run, now),
            ToHub::Base { core, run, from } => self.base(core, run, from, now),
            ToHub::Document { market, view, ask } => {
                self.wait(market, Waiter::Document { view, ask }, now);
            }
            ToHub::List { filter, ask } => {
                let answer = match self.list(&filter) {
                    Some(listing) => Answer::Listing(listing),
                    None => Answer::Refused {
                        code: ErrorCode::BadRequest,
                        why: format!(
                            "after={}: not in this list any more; start over",
                            filter.after.unwrap_or_default()
                        ),
                        retry: None,
                    },
                };
                self.answers.push((ask, answer));
            }
        }
    }

    fn open(&mut self, core: usize, key: RunKey, now: Now) {
        match &key.subject {
            Subject::Catalogue => self.opened(core, key, CATALOGUE, "".into()),
            Subject::Market(market, _) => {
                let market = market.clone();
                self.wait(market, Waiter::Run { core, key }, now);
            }
        }
    }

    /// Serves somebody at once if the market is here, else follows its shard and lets them wait.
    fn wait(&mut self, market: MarketId, waiter: Waiter, now: Now) {
        if let Some(shard) = self.shard_of_market(&market) {
            // Wanted while it waits, so that it is not let go meanwhile.
            self.want(shard);
            self.unwant(shard, now);
        }
        let waiting = Waiting { market, deadline: now.mono + OPEN_DEADLINE, waiter };
        if let Some(waiting) = self.serve(waiting, now) {
            if self.waiting.len() < MAX_WAITING {
                self.waiting.push(waiting);
            } else {
                self.refuse(
                    waiting,
                    ErrorCode::NotReady,
                    "too many requests wait for the feed".into(),
                    Some(2_000),
                );
            }
        }
    }

    fn serve_waiting(&mut self, now: Now) {
        for waiting in std::mem::take(&mut self.waiting) {
            if let Some(waiting) = self.serve(waiting, now) {
                self.waiting.push(waiting);
            }
        }
    }

    /// Serves somebody if it can be decided now; gives them back if not.
    fn serve(&mut self, waiting: Waiting, now: Now) -> Option<Waiting> {
        let catalogue = self.followers.get(&CATALOGUE).is_some_and(|w| w.follower.has_books());
        let Some(shard) = self.shard_of_market(&waiting.market) else {
            if catalogue {
                let why =
                    format!("market {:?} is not in the catalogue: see GET /v1/markets", &*waiting.market);
                self.refuse(waiting, ErrorCode::UnknownMarket, why, None);
                return None;
            }
            return self.unless_late(waiting, now);
        };
        if !self.followers.contains_key(&shard) {
            self.want(shard);
            self.unwant(shard, now);
        }
        let here = self.followers.get(&shard).is_some_and(|w| {
            // A document can't be corrected later: it waits for the first sign of life of a shard newly followed.
            let document = matches!(waiting.waiter, Waiter::Document { .. });
            let heard =
                w.follower.heard().is_some() || waiting.deadline - now.mono < OPEN_DEADLINE - FIRST_ALIVE;
            w.follower.market(&waiting.market).is_some() && (heard || !document)
        });
        if !here {
            return self.unless_late(waiting, now);
        }
        match waiting.waiter {
            Waiter::Run { core, key } => {
                let source = self.feed_of(shard, &waiting.market, now).source;
                self.opened(core, key, shard, source);
            }
            Waiter::Document { view, ask } => {
                let feed = self.feed_of(shard, &waiting.market, now);
                if let Some(market) = self.market(&waiting.market) {
                    let document = Document::new(market, view, &feed, now);
                    self.answers.push((ask, Answer::Document(document)));
                }
            }
        }
        None
    }

    fn unless_late(&mut self, waiting: Waiting, now: Now) -> Option<Waiting> {
        if now.mono < waiting.deadline {
            return Some(waiting);
        }
        let why = format!("the feed of market {:?} is not there: the gateway keeps trying", &*waiting.market);
        self.refuse(waiting, ErrorCode::NotReady, why, Some(2_000));
        None
    }

    fn refuse(&mut self, waiting: Waiting, code: ErrorCode, why: String, retry: Option<u64>) {
        match waiting.waiter {
            Waiter::Run { core, key } => self.cores[core].push(ToCore::Refused { key, code, why, retry }),
            Waiter::Document { ask, .. } => self.answers.push((ask, Answer::Refused { code, why, retry })),
        }
    }

    /// How many runs there are for a market's event to be found by: markets by event and sport.
    pub fn catalogue(&self) -> impl Iterator<Item = &tictac_proto::model::Market> {
        self.followers.get(&CATALOGUE).into_iter().flat_map(|w| w.follower.markets())
    }

    fn catalogue_field(&self, market: &str, field: MarketField) -> Arc<str> {
        let book = self.followers.get(&CATALOGUE).and_then(|w| w.follower.market(market)).map(|m| &m.book);
        book.and_then(|b| b.fields.text(field)).unwrap_or("").into()
    }
}
