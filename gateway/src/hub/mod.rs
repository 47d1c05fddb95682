//! The hub: the one place where the feed is applied and encoded. It follows the shards that somebody wants, keeps a
//! desk for each market that somebody watches, and hands every core the same encoded frames. Pure: no I/O, no clock;
//! the thread around it is `crate::feed`.

mod answers;
mod desk;
mod document;
mod messages;
mod waiting;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use tictac_proto::follower::{Counters, Event, Follower, Told};
use tictac_proto::log::{CATALOGUE, Entry, FeedReport, Live, Stored, shard_of};
use tictac_proto::model::{MarketField, MarketId};
use tictac_proto::position::Position;
use tictac_proto::wire::{Down, ErrorCode, FeedNews, FeedState};

pub use answers::{Listing, MAX_PAGE, MarketFilter};
pub use document::Document;
pub use messages::{Answer, FeedCommand, RunId, RunKey, Subject, ToCore, ToHub};

use crate::wires::Wire;
use desk::Desk;
use waiting::{Waiter, WaitingRoom};

/// How long a shard that nobody wants any more is still followed, ms.
/// Checksums of sources that wait for the canary.
const MAX_CHECKSUMS: usize = 1_024;
const LINGER: i64 = 30_000;

/// Both clocks, in ms: one that never jumps, for bounds; one that people share, for stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic.
    pub mono: i64,
    /// Unix.
    pub wall: i64,
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

/// Follows, applies, encodes.
#[derive(Debug)]
pub struct Hub {
    shards: u16,
    checksum_interval: i64,
    followers: BTreeMap<u16, Watched>,
    outlets: Outlets,
    /// Numbers of runs are not used again before four thousand million others were: what a core says of an old one can't meet
    /// a new one.
    next_run: RunId,
    runs: HashMap<RunKey, RunId, RandomState>,
    desks: HashMap<MarketId, Desk, RandomState>,
    /// Event and sport of every market of the catalogue, and where it stood when the market came, as cores were told.
    events: HashMap<MarketId, (Arc<str>, Arc<str>, Position), RandomState>,
    catalogue_seq: u64,
    /// The whole catalogue by wire, and as of which of its changes.
    catalogue_frames: [Option<(u64, Bytes)>; Wire::ALL.len()],
    /// The catalogue in the order of its list, until that changes.
    order: Option<Vec<MarketId>>,
    waiting: WaitingRoom,
    /// Markets of the catalogue that scopes lost by a `gone`, or could not open: they are told of when the market comes.
    missed: HashSet<MarketId, RandomState>,
    cores: Vec<Vec<ToCore>>,
    commands: Vec<FeedCommand>,
    answers: Vec<(u64, Answer)>,
    /// What sources said of their books, for the canary.
    checksums: VecDeque<Told>,
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
            catalogue_frames: Default::default(),
            order: None,
            waiting: WaitingRoom::default(),
            missed: HashSet::default(),
            cores: (0..cores).map(|_| Vec::new()).collect(),
            commands: Vec::new(),
            answers: Vec::new(),
            checksums: VecDeque::new(),
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

    /// Whether a shard's books are in step with its log as far as is known: no repair is awaited.
    #[must_use]
    pub fn is_following(&self, shard: u16) -> bool {
        self.followers.get(&shard).is_some_and(|w| w.follower.is_following())
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
        self.events.get(market).map(|(event, ..)| shard_of(event, self.shards))
    }

    /// A shard's live subscription is confirmed.
    pub fn subscribed(&mut self, shard: u16, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.follower.handle_subscribed(now.mono);
        }
        self.drain(shard, now);
    }

    /// The live subscriptions of these shards broke.
    pub fn lost(&mut self, shards: &[u16]) {
        for shard in shards {
            if let Some(watched) = self.followers.get_mut(shard) {
                watched.follower.handle_lost();
            }
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

    /// What sources said of their books since the last call, the latest of it.
    pub fn take_checksums(&mut self) -> VecDeque<Told> {
        std::mem::take(&mut self.checksums)
    }

    /// Ages of the oldest signs of life, ms: of a source as ingest heard it, and of ingest as we hear it.
    #[must_use]
    pub fn ages(&self, now: Now) -> (i64, i64) {
        let wanted = self.followers.values().filter(|w| w.wanted > 0);
        let (mut source, mut ingest) = (0, 0);
        for watched in wanted {
            let said = watched.follower.oldest_sign_of_life().map_or(0, |said| now.wall - said);
            let heard = watched.follower.heard().or(watched.followed_at).map_or(0, |heard| now.mono - heard);
            (source, ingest) = (source.max(said), ingest.max(heard));
        }
        (source, ingest)
    }

    /// What was asked for of a shard could not be read.
    pub fn unread(&mut self, shard: u16, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard) {
            watched.follower.handle_unread(now.mono);
        }
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
        // A shard with a market that scopes miss is followed on, or they would never hear of it.
        let missed: HashSet<u16> = self.missed.iter().filter_map(|m| self.shard_of_market(m)).collect();
        for shard in shards {
            let Some(watched) = self.followers.get_mut(&shard) else { continue };
            watched.followed_at.get_or_insert(now.mono);
            watched.follower.handle_time(now.mono);
            if watched.wanted == 0 && now.mono - watched.idle_since > LINGER && !missed.contains(&shard) {
                self.followers.remove(&shard);
                self.commands.push(FeedCommand::Unfollow(shard));
                continue;
            }
            self.drain(shard, now);
        }
        self.serve_all(now);
    }

    fn drain(&mut self, shard: u16, now: Now) {
        if let Some(watched) = self.followers.get_mut(&shard).filter(|_| shard != CATALOGUE) {
            self.checksums.extend(watched.follower.take_checksums());
            let excess = self.checksums.len().saturating_sub(MAX_CHECKSUMS);
            self.checksums.drain(..excess);
        }
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
        if news {
            self.serve_shard(shard, now);
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

    /// How many runs there are for a market's event to be found by: markets by event and sport.
    pub fn catalogue(&self) -> impl Iterator<Item = &tictac_proto::model::Market> {
        self.followers.get(&CATALOGUE).into_iter().flat_map(|w| w.follower.markets())
    }

    fn catalogue_field(&self, market: &str, field: MarketField) -> Arc<str> {
        let book = self.followers.get(&CATALOGUE).and_then(|w| w.follower.market(market)).map(|m| &m.book);
        book.and_then(|b| b.fields.text(field)).unwrap_or("").into()
    }
}
