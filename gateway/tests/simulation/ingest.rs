//! A simulated ingest: real sequencers behind a small shell that takes shards over, writes what they say to the fake
//! log and falls back to standby when it is fenced. Every ingest takes in all input; only owners write.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tictac_gateway::hub::Now;
use tictac_ingest::log::{Batch, LogError, Owner};
use tictac_proto::log::{Alive, CATALOGUE, Entry, FeedReport, What, shard_of};
use tictac_proto::model::{Book, MarketField, MarketId, MarketStatus};
use tictac_proto::position::Position;
use tictac_proto::sequencer::{Refused, Sequencer};
use tictac_proto::wire::{FeedState, Times};

use crate::dice::Dice;
use crate::fake_redis::{LOG_ENTRIES, ShardLog};
use crate::history::{History, Violation};
use crate::source::{Brief, Message, SHARDS, SOURCES, Says};

/// Shards in all: the numbered ones, then the catalogue.
pub const LOGS: usize = SHARDS as usize + 1;
const ALIVE_EVERY: i64 = 500;

/// The number that the real code knows a log by.
pub fn number(log: usize) -> u16 {
    if log == SHARDS as usize { CATALOGUE } else { log as u16 }
}

struct Shard {
    sequencer: Sequencer,
    owned: bool,
    seen: u64,
    /// Not yet written, with whether the market was really open then.
    pending: Vec<(Entry, Vec<(MarketId, bool)>)>,
    /// Markets whose stored snapshot is older than their book, since which number.
    unsaved: BTreeMap<MarketId, u64>,
    gone: Vec<MarketId>,
    next_alive: i64,
    retry: i64,
}

pub struct Ingest {
    owner: Owner,
    pub inbox: VecDeque<(i64, Rc<Message>)>,
    pub paused_until: i64,
    shards: Vec<Shard>,
    /// Sources whose truth this ingest does not know yet.
    cold: [bool; SOURCES.len()],
    open: BTreeMap<MarketId, bool>,
    briefs: BTreeMap<MarketId, usize>,
}

/// What an ingest has put on the live channel: (log, bytes).
pub type Published = Vec<(usize, Bytes)>;

/// What surrounds an ingest for one step.
pub struct Around<'a> {
    pub now: Now,
    pub logs: &'a mut [ShardLog],
    pub history: &'a mut History,
    pub dice: &'a mut Dice,
    /// Whether this ingest should own each log.
    pub wanted: [bool; LOGS],
    /// How often, in a thousand, nothing is known of an append.
    pub unknown: u32,
    /// How often it happened.
    pub unknowns: u64,
}

impl Ingest {
    pub fn new(number: u16) -> Self {
        let shards = (0..LOGS)
            .map(|_| Shard {
                sequencer: Sequencer::new(),
                owned: false,
                seen: 0,
                pending: Vec::new(),
                unsaved: BTreeMap::new(),
                gone: Vec::new(),
                next_alive: 0,
                retry: 0,
            })
            .collect();
        Self {
            owner: Owner { id: format!("ingest-{number}"), slot: number },
            inbox: VecDeque::new(),
            paused_until: 0,
            shards,
            cold: [true; SOURCES.len()],
            open: BTreeMap::new(),
            briefs: BTreeMap::new(),
        }
    }

    /// A new process under a new name: all that it knew is gone.
    pub fn restart(&mut self, incarnation: u64) {
        let mut fresh = Self::new(self.owner.slot);
        fresh.owner.id = format!("ingest-{}-{incarnation}", self.owner.slot);
        *self = fresh;
    }

    pub fn owns(&self, log: usize) -> bool {
        self.shards[log].owned
    }

    pub fn book(&self, log: usize, market: &str) -> Option<&Book> {
        self.shards[log].sequencer.book(market)
    }

    /// An ingest hears every owner's epochs, so that it never takes over with a lower one, whatever its clock says.
    pub fn heard(&mut self, log: usize, epoch: u64) {
        self.shards[log].seen = self.shards[log].seen.max(epoch);
    }

    pub fn head(&self, log: usize) -> Position {
        self.shards[log].sequencer.head()
    }

    /// Whether everything it was told is taken in and written.
    pub fn is_settled(&self) -> bool {
        self.inbox.is_empty() && self.shards.iter().all(|s| !s.owned || s.pending.is_empty())
    }

    pub fn step(&mut self, around: &mut Around<'_>) -> Result<Published, Violation> {
        let mut published = Vec::new();
        if around.now.mono < self.paused_until {
            return Ok(published);
        }
        for log in 0..LOGS {
            let shard = &self.shards[log];
            // A lease that is remembered by a log which forgot a later epoch keeps nobody out, its owner included.
            let forgot = shard.owned && shard.sequencer.head().epoch < shard.seen;
            if around.wanted[log] && (forgot || !shard.owned && around.now.mono >= shard.retry) {
                self.take_over(log, around, &mut published);
            }
        }
        while self.inbox.front().is_some_and(|(due, _)| *due <= around.now.mono) {
            let Some((_, message)) = self.inbox.pop_front() else { break };
            if matches!(message.says, Says::All { .. }) {
                for log in 0..LOGS {
                    self.flush(log, around, &mut published);
                }
            }
            self.take_in(&message, around)?;
            for log in 0..LOGS {
                if self.shards[log].pending.len() >= 4 || around.dice.chance(500) {
                    self.flush(log, around, &mut published);
                }
            }
        }
        for log in 0..LOGS {
            self.flush(log, around, &mut published);
            self.alive(log, around, &mut published);
        }
        Ok(published)
    }

    fn times(now: Now) -> Times {
        Times { source: now.wall - 5, received: now.wall - 1, published: now.wall, encoded: now.wall }
    }

    /// Whether a market is open by what this ingest knows at first hand.
    fn knows_open(&self, market: &str) -> bool {
        self.open.get(market).copied().unwrap_or(false)
    }

    fn sequenced(&mut self, log: usize, entry: Option<Entry>, reopened: bool, history: &mut History) {
        let Some(entry) = entry else { return };
        let markets: Vec<MarketId> = match &entry.what {
            What::Delta { market, .. } | What::Image { market, .. } | What::Gone { market } => {
                vec![market.clone()]
            }
            What::Stop { markets, .. } => markets.clone(),
        };
        let known = markets.into_iter().map(|m| (m.clone(), self.knows_open(&m))).collect::<Vec<_>>();
        let shard = &mut self.shards[log];
        if !shard.owned {
            return;
        }
        for (market, _) in &known {
            match entry.what {
                What::Gone { .. } => {
                    shard.unsaved.remove(market);
                    shard.gone.push(market.clone());
                }
                _ => {
                    shard.unsaved.entry(market.clone()).or_insert(entry.at.seq);
                    shard.gone.retain(|g| g != market);
                }
            }
            if reopened && log < LOGS - 1 {
                history.may_reopen(market, entry.at);
            }
        }
        shard.pending.push((entry, known));
    }

    fn take_in(&mut self, message: &Message, around: &mut Around<'_>) -> Result<(), Violation> {
        let source: Arc<str> = SOURCES[message.source].into();
        let times = Self::times(around.now);
        let gone = matches!(message.says, Says::Gone { .. });
        let all = matches!(message.says, Says::All { .. });
        if all {
            self.cold[message.source] = false;
            self.open.retain(|m, _| self.briefs.get(m) != Some(&message.source));
        }
        for brief in &message.briefs {
            self.briefs.insert(brief.market.clone(), brief.source);
            if gone {
                self.open.remove(&brief.market);
            } else if !self.cold[brief.source] || matches!(message.says, Says::Image { .. }) {
                self.open.insert(brief.market.clone(), brief.status == MarketStatus::Open);
            }
        }
        // A source that has nothing left names no market, and that is what ends what the log still holds of it.
        let log = message.briefs.first().map_or(0, |first| shard_of(&first.event, SHARDS) as usize);
        match &message.says {
            Says::Change { market, delta, rollback } => {
                let sequencer = &mut self.shards[log].sequencer;
                let entry = match sequencer.change(&source, market, delta.clone(), *rollback, times) {
                    Ok(entry) => entry,
                    // A cold ingest does not know everything yet.
                    Err(_) if self.cold[message.source] => None,
                    Err(why) => return Err(Violation::new("ingest", why.to_string())),
                };
                self.sequenced(log, entry, *rollback, around.history);
                self.list(&message.briefs, *rollback, around)?;
            }
            Says::Image { market, book } => {
                self.image(log, market, book, &source, around)?;
                self.list(&message.briefs, false, around)?;
            }
            Says::Stop { markets, reason } => {
                let entry = self.shards[log].sequencer.stop(markets, reason.clone(), times);
                self.sequenced(log, entry, false, around.history);
                self.list(&message.briefs, false, around)?;
            }
            Says::Gone { market } => {
                for log in [log, LOGS - 1] {
                    let entry = self.shards[log].sequencer.gone(market, times);
                    self.sequenced(log, entry, true, around.history);
                }
            }
            Says::All { markets } => {
                for ((market, book), brief) in markets.iter().zip(&message.briefs) {
                    let log = shard_of(&brief.event, SHARDS) as usize;
                    self.image(log, market, book, &source, around)?;
                }
                self.list(&message.briefs, true, around)?;
                self.forget_others(message, around);
            }
        }
        Ok(())
    }

    /// A market's whole truth. Where it takes back a terminal status that this ingest only read from the log, the old
    /// one ends and a new one begins.
    fn image(
        &mut self,
        log: usize,
        market: &MarketId,
        book: &Book,
        source: &Arc<str>,
        around: &mut Around<'_>,
    ) -> Result<(), Violation> {
        let times = Self::times(around.now);
        let sequencer = &mut self.shards[log].sequencer;
        let entry = match sequencer.image(source, market, book.clone(), times) {
            Err(Refused::Terminal { .. }) => {
                let gone = sequencer.gone(market, times);
                let entry = sequencer.image(source, market, book.clone(), times);
                self.sequenced(log, gone, true, around.history);
                entry
            }
            other => other,
        };
        let entry = entry.map_err(|why| Violation::new("ingest", why.to_string()))?;
        let stops = entry.as_ref().is_some_and(|e| matches!(e.what, What::Delta { stop: true, .. }));
        if self.shards[log].owned && log < LOGS - 1 && self.knows_open(market) && !stops {
            around.history.confirmed(market);
        }
        self.sequenced(log, entry, true, around.history);
        Ok(())
    }

    /// What the catalogue says of markets.
    fn list(&mut self, briefs: &[Brief], rollback: bool, around: &mut Around<'_>) -> Result<(), Violation> {
        let times = Self::times(around.now);
        for brief in briefs {
            let source: Arc<str> = SOURCES[brief.source].into();
            let log = shard_of(&brief.event, SHARDS) as usize;
            if self.shards[log].sequencer.book(&brief.market).is_none() {
                continue;
            }
            let mut book = Book::default();
            book.set(MarketField::Event, brief.event.as_str());
            book.set(MarketField::Sport, "race");
            book.set(MarketField::Status, brief.status.code());
            if let Some(held) = self.shards[LOGS - 1].sequencer.book(&brief.market).filter(|_| rollback) {
                let delta = held.diff(&{
                    let mut next = held.clone();
                    next.set(MarketField::Status, brief.status.code());
                    next
                });
                let catalogue = &mut self.shards[LOGS - 1].sequencer;
                let entry = catalogue.change(&source, &brief.market, delta, true, times);
                let entry = entry.map_err(|why| Violation::new("ingest", why.to_string()))?;
                self.sequenced(LOGS - 1, entry, true, around.history);
            } else {
                self.image(LOGS - 1, &brief.market, &book, &source, around)?;
            }
        }
        Ok(())
    }

    /// A source told all that it has: what else the log held of it is over.
    fn forget_others(&mut self, message: &Message, around: &mut Around<'_>) {
        let named = |m: &MarketId| message.briefs.iter().any(|b| b.market == *m);
        for log in 0..LOGS {
            let source = SOURCES[message.source];
            let mut over: Vec<MarketId> = self.shards[log]
                .sequencer
                .markets()
                .filter(|(id, of, _)| ***of == *source && !named(id))
                .map(|(id, _, _)| id.clone())
                .collect();
            over.sort_unstable();
            for market in over {
                let entry = self.shards[log].sequencer.gone(&market, Self::times(around.now));
                self.sequenced(log, entry, true, around.history);
            }
        }
    }

    fn take_over(&mut self, log: usize, around: &mut Around<'_>, published: &mut Published) {
        let shard = &mut self.shards[log];
        let acquired = around.logs[log].acquire(&self.owner, shard.seen, around.now.wall);
        shard.seen = acquired.epoch;
        shard.owned = true;
        shard.pending.clear();
        shard.unsaved.clear();
        shard.gone.clear();
        shard.next_alive = around.now.mono;
        shard.sequencer.restore(acquired.markets);
        let times = Self::times(around.now);
        for entry in shard.sequencer.take_over(acquired.epoch, acquired.n, times) {
            self.sequenced(log, Some(entry), true, around.history);
        }
        // Markets that ended while somebody else owned the shard.
        let cold = self.cold;
        let over: Vec<MarketId> = {
            let known = &self.open;
            let source = |s: &str| SOURCES.iter().position(|x| *x == s).unwrap_or(0);
            let markets = self.shards[log].sequencer.markets();
            let mut over: Vec<MarketId> = markets
                .filter(|(id, of, _)| !cold[source(of)] && !known.contains_key(*id))
                .map(|(id, _, _)| id.clone())
                .collect();
            over.sort_unstable();
            over
        };
        for market in over {
            let entry = self.shards[log].sequencer.gone(&market, times);
            self.sequenced(log, entry, true, around.history);
        }
        self.flush(log, around, published);
    }

    fn flush(&mut self, log: usize, around: &mut Around<'_>, published: &mut Published) {
        let shard = &mut self.shards[log];
        let Some(first) = shard.pending.first().map(|p| p.0.at) else { return };
        let pending = std::mem::take(&mut shard.pending);
        let last = first.seq + pending.len() as u64 - 1;
        let entries: Vec<Bytes> = pending.iter().map(|(entry, _)| entry.encode().into()).collect();
        // A snapshot may be left for later, while the log still holds everything that came after it.
        let mut snapshots = Vec::new();
        let room = LOG_ENTRIES as u64 - 6;
        let due: Vec<MarketId> = shard
            .unsaved
            .iter()
            .filter(|(_, since)| last - **since >= room || around.dice.chance(300))
            .map(|(market, _)| market.clone())
            .collect();
        for market in due {
            shard.unsaved.remove(&market);
            if let Some(stored) = shard.sequencer.stored(&market) {
                snapshots.push((market, stored.into()));
            }
        }
        let gone = std::mem::take(&mut shard.gone);
        let (epoch, first) = (first.epoch, first.seq);
        // This log forgets by room alone; that nothing uncovered goes is for the snapshots above to see to.
        let batch = Batch { epoch, first, entries, snapshots, gone, ..Batch::default() };
        let unknown = around.dice.chance(around.unknown);
        if unknown && around.dice.chance(500) {
            // It never came there.
            around.unknowns += 1;
            self.let_go(log, around.now);
            return;
        }
        match around.logs[log].append(&self.owner, &batch) {
            Ok(()) => {
                for (entry, known) in &pending {
                    crate::tell!("{} {} writes {log} {entry:?} {known:?}", around.now.mono, self.owner.id);
                    if log < LOGS - 1 {
                        note(around.history, entry, known);
                    }
                }
                published.extend(batch.entries.into_iter().map(|bytes| (log, bytes)));
                if unknown {
                    // It came there, but the answer got lost.
                    around.unknowns += 1;
                    self.let_go(log, around.now);
                }
            }
            Err(LogError::Fenced { .. }) => {
                self.let_go(log, around.now);
            }
            Err(other) => panic!("the fake log answered {other}"),
        }
    }

    fn let_go(&mut self, log: usize, now: Now) {
        let shard = &mut self.shards[log];
        shard.owned = false;
        shard.pending.clear();
        shard.retry = now.mono + 50;
    }

    fn alive(&mut self, log: usize, around: &mut Around<'_>, published: &mut Published) {
        let shard = &mut self.shards[log];
        if !shard.owned || around.now.mono < shard.next_alive {
            return;
        }
        shard.next_alive = around.now.mono + ALIVE_EVERY;
        let at = shard.sequencer.head();
        if around.logs[log].alive(&self.owner, at).is_err() {
            self.let_go(log, around.now);
            return;
        }
        let feeds = (0..SOURCES.len())
            .map(|source| FeedReport {
                source: SOURCES[source].into(),
                state: if self.cold[source] { FeedState::Recovering } else { FeedState::Live },
                as_of: around.now.wall,
            })
            .collect();
        published.push((log, Alive { at, now: around.now.wall, feeds }.encode().into()));
    }
}

/// Writes down what an entry that the log took in means.
fn note(history: &mut History, entry: &Entry, known: &[(MarketId, bool)]) {
    let stop = match &entry.what {
        What::Delta { stop, .. } => *stop,
        What::Image { stop, .. } => *stop == entry.at,
        What::Stop { .. } => true,
        What::Gone { .. } => false,
    };
    for (market, open) in known {
        history.moved(market, entry.at, *open);
        if stop {
            history.stopped(market, entry.at);
        }
    }
}
