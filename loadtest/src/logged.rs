//! A source that writes the in-process log itself, so that what is measured is the gateway and nothing before it. The catalogue is
//! told of markets as they come, and of nothing else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tictac_ingest::log::{Batch, LogReader, LogWriter, MemoryLog, MemorySettings, Owner};
use tictac_ingest::update::Update;
use tictac_proto::log::{Alive, CATALOGUE, Entry, FeedReport, shard_of};
use tictac_proto::model::{Book, MarketField, MarketId};
use tictac_proto::position::Position;
use tictac_proto::sequencer::Sequencer;
use tictac_proto::wire::{FeedState, Times};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::pulse::{self, now_us};

/// How often it says that it is alive, as ingest does.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// All markets of a shard are stored anew after so many entries, so that the log forgets those before, as ingest lets it: what
/// is measured over minutes is not to grow with its log.
const STORED_EVERY: usize = 1_024;

#[derive(Debug)]
struct Shard {
    number: u16,
    sequencer: Sequencer,
    /// Entries since all its markets were stored.
    since_stored: usize,
    /// What is held by stored snapshots.
    covered: Position,
    /// What may be forgotten: what was held by those before.
    aged: Position,
}

/// What the log is told, by whom.
#[derive(Debug)]
struct Writing {
    log: LogWriter,
    owner: Owner,
    source: Arc<str>,
    /// The last one is the catalogue's.
    shards: Vec<Shard>,
    /// Where each market is.
    homes: HashMap<MarketId, usize>,
    events: HashMap<Arc<str>, Vec<MarketId>>,
}

/// What goes into one shard's log at once.
#[derive(Debug, Default)]
struct Due {
    entries: Vec<Entry>,
    stored: Vec<MarketId>,
}

/// The writer of a log, who is alive until it is told to end.
#[derive(Debug)]
pub struct Logged {
    writing: Arc<Mutex<Writing>>,
    log: MemoryLog,
}

fn now_ms() -> i64 {
    now_us() / 1_000
}

impl Logged {
    /// The owner of every shard of a new log with this room.
    ///
    /// # Errors
    /// If the log refuses.
    pub fn start(
        runtime: &Runtime,
        shards: u16,
        room: MemorySettings,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let log = MemoryLog::new(room);
        let writing = runtime.block_on(Writing::new(log.clone().into(), shards))?;
        let writing = Arc::new(Mutex::new(writing));
        let (alive, cancel) = (writing.clone(), cancel.clone());
        runtime.spawn(async move {
            let mut every = interval(ALIVE_EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = every.tick() => {
                        if let Err(error) = alive.lock().await.alive().await {
                            // What is measured from here on would be a feed that is stale.
                            eprintln!("✗ the log refused an alive: {error:#}");
                            std::process::exit(1);
                        }
                    }
                    () = cancel.cancelled() => break,
                }
            }
        });
        Ok(Self { writing, log })
    }

    /// What the gateway follows.
    #[must_use]
    pub fn log(&self) -> LogReader {
        self.log.clone().into()
    }

    /// Writes these updates, of this time in Unix ms.
    ///
    /// # Errors
    /// If one can't be taken, or the log refuses.
    pub fn say(&self, runtime: &Runtime, updates: Vec<Update>, at: i64) -> anyhow::Result<()> {
        runtime.block_on(async { self.writing.lock().await.say(updates, at).await })
    }
}

impl Writing {
    async fn new(log: LogWriter, shards: u16) -> anyhow::Result<Self> {
        let owner = Owner { id: "bench".into(), slot: 1 };
        let (homes, events) = (HashMap::new(), HashMap::new());
        let mut writing =
            Self { log, owner, source: pulse::SOURCE.into(), shards: Vec::new(), homes, events };
        for number in (0..shards).chain([CATALOGUE]) {
            let mut sequencer = Sequencer::new();
            let now = u64::try_from(now_ms())?;
            let acquired = writing.log.acquire(number, &writing.owner, 0, now).await?;
            let entries = sequencer.take_over(acquired.epoch, acquired.n, Times::default());
            writing.shards.push(Shard {
                number,
                sequencer,
                since_stored: 0,
                covered: Position::ZERO,
                aged: Position::ZERO,
            });
            let last = writing.shards.len() - 1;
            writing.append(last, Due { entries, stored: Vec::new() }).await?;
        }
        writing.alive().await?;
        Ok(writing)
    }

    async fn alive(&mut self) -> anyhow::Result<()> {
        let now = now_ms();
        for shard in &self.shards {
            let report = FeedReport { source: self.source.clone(), state: FeedState::Live, as_of: now };
            let alive = Alive { at: shard.sequencer.head(), now, feeds: vec![report] };
            self.log.alive(shard.number, &self.owner, alive, Vec::new()).await?;
        }
        Ok(())
    }

    async fn append(&mut self, shard: usize, due: Due) -> anyhow::Result<()> {
        let shard = &mut self.shards[shard];
        let Some(first) = due.entries.first().map(|entry| entry.at.seq) else { return Ok(()) };
        shard.since_stored += due.entries.len();
        let mut stored = due.stored;
        if shard.since_stored >= STORED_EVERY {
            stored = shard.sequencer.markets().map(|(market, ..)| market.clone()).collect();
            (shard.since_stored, shard.aged, shard.covered) = (0, shard.covered, shard.sequencer.head());
        }
        let mut batch = Batch { epoch: shard.sequencer.head().epoch, first, ..Batch::default() };
        batch.entries = due.entries.iter().map(|entry| entry.encode().into()).collect();
        (batch.covered, batch.aged) = (shard.covered, shard.aged);
        for market in stored {
            let stored = shard.sequencer.stored(&market).context("a market that is not there")?;
            batch.snapshots.push((market, stored.into()));
        }
        self.log.append(shard.number, &self.owner, batch).await?;
        Ok(())
    }

    async fn say(&mut self, updates: Vec<Update>, at: i64) -> anyhow::Result<()> {
        let now = now_ms();
        let times = Times { source: at, received: now, published: now, encoded: 0 };
        let mut due: Vec<Due> = self.shards.iter().map(|_| Due::default()).collect();
        for update in updates {
            self.take(update, times, &mut due)?;
        }
        for (shard, due) in due.into_iter().enumerate() {
            self.append(shard, due).await?;
        }
        Ok(())
    }

    fn take(&mut self, update: Update, times: Times, due: &mut [Due]) -> anyhow::Result<()> {
        match update {
            Update::Image { market, book } => {
                let event = book.fields.text(MarketField::Event).context("a market of no event")?;
                let (catalogue, event) = (self.shards.len() - 1, Arc::<str>::from(event));
                let home = usize::from(shard_of(&event, u16::try_from(catalogue)?));
                let mut summary = Book::default();
                summary.fields = book.fields.clone();
                for (shard, book) in [(home, *book), (catalogue, summary)] {
                    let entry = self.shards[shard].sequencer.image(&self.source, &market, book, times)?;
                    due[shard].entries.extend(entry);
                    due[shard].stored.push(market.clone());
                }
                self.homes.insert(market.clone(), home);
                self.events.entry(event).or_default().push(market);
            }
            Update::Change { market, delta, rollback } => {
                let home = *self.homes.get(&market).context("a change of no market")?;
                let sequencer = &mut self.shards[home].sequencer;
                due[home].entries.extend(sequencer.change(&self.source, &market, delta, rollback, times)?);
            }
            Update::Stop { event, reason, .. } => {
                let markets = self.events.get(&event).context("a stop of no event")?;
                let home = markets.first().and_then(|market| self.homes.get(market)).copied().unwrap_or(0);
                due[home].entries.extend(self.shards[home].sequencer.stop(markets, reason, times));
            }
            Update::Gone { market } => bail!("{market} is not to go while it is measured"),
        }
        Ok(())
    }
}
