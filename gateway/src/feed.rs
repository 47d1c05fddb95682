//! The feed: the hub's thread. It brings the hub what the log says, reads for it what it needs, and carries its news
//! to the cores. One thread applies and encodes. It waits for a core that does not keep up, never for a client; a core that
//! takes nothing for half a minute ends the gateway, and clients meanwhile see no echo and show themselves stale.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tictac_ingest::log::{LiveEvent, LogError, LogReader, Snapshots, Tail};
use tictac_proto::follower::Told;
use tictac_proto::log::Live;
use tictac_proto::model::{MarketId, View};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::hub::{Answer, FeedCommand, Hub, MarketFilter, ToCore, ToHub};
use crate::metrics::Metrics;
use crate::time::Clock;

/// Live messages that may wait for the hub; more are dropped, which the follower finds and repairs.
const LIVE_WAITING: usize = 16_384;
/// How long a core may take nothing.
const CORE_PATIENCE: Duration = Duration::from_secs(30);
/// Batches that may wait for a core.
pub const CORE_WAITING: usize = 256;
/// Questions that may wait for the hub.
pub const ASKS_WAITING: usize = 65_536;
/// Questions of HTTP requests that may be open.
const MAX_QUESTIONS: usize = 10_000;
/// Messages taken in before the cores are told.
const BATCH: usize = 256;

/// What the hub's thread takes in beside the log.
#[derive(Debug)]
pub enum HubInput {
    /// From a core.
    Core(ToHub),
    /// From an HTTP request.
    Ask(Question, oneshot::Sender<Answer>),
}

/// What an HTTP request asks.
#[derive(Debug)]
pub enum Question {
    /// A market.
    Document(MarketId, View),
    /// The catalogue.
    List(MarketFilter),
}

/// What the admin port wants to know.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Wanted shards whose `alive` was not heard lately.
    pub silent: Vec<u16>,
    /// Whether the live subscription is up.
    pub connected: bool,
}

enum Repair {
    Tail(u16, Result<Tail, LogError>),
    Snapshots(u16, Result<Snapshots, LogError>),
}

/// What the feed's thread is made of.
#[derive(Debug)]
pub struct FeedParts {
    /// The log to follow.
    pub reader: LogReader,
    /// The hub.
    pub hub: Hub,
    /// The clock.
    pub clock: Clock,
    /// Metrics.
    pub metrics: Metrics,
    /// Questions.
    pub asks: mpsc::Receiver<HubInput>,
    /// One channel for each core.
    pub cores: Vec<mpsc::Sender<Vec<ToCore>>>,
    /// Where the source's checksums go.
    pub canary: mpsc::Sender<Told>,
    /// Where readiness goes.
    pub readiness: watch::Sender<Readiness>,
    /// When to end.
    pub stop: CancellationToken,
}

struct Feed {
    parts: FeedParts,
    questions: HashMap<u64, oneshot::Sender<Answer>, RandomState>,
    next_question: u64,
    /// Whether a subscription was ever confirmed.
    subscribed: bool,
    followed: BTreeSet<u16>,
    /// Those of them whose subscription broke.
    lost: BTreeSet<u16>,
}

impl Feed {
    fn live(&mut self, event: LiveEvent) {
        let now = self.parts.clock.now();
        match event {
            LiveEvent::Subscribed { shard } => {
                self.subscribed = true;
                self.lost.remove(&shard);
                self.parts.hub.subscribed(shard, now);
            }
            LiveEvent::Message { shard, bytes } => match Live::decode(&bytes) {
                Ok(live) => self.parts.hub.live(shard, live, now),
                Err(error) => {
                    self.parts.metrics.unreadable.inc();
                    tracing::warn!(shard, %error, "a message of the log can't be read: its shard will be repaired");
                }
            },
            LiveEvent::Lost { shards, reason } => {
                tracing::warn!(shards = shards.len(), reason, "the live subscription broke: connecting anew");
                self.parts.hub.lost(&shards);
                self.lost.extend(shards.into_iter().filter(|shard| self.followed.contains(shard)));
            }
        }
    }

    fn ask(&mut self, input: HubInput) {
        let now = self.parts.clock.now();
        match input {
            HubInput::Core(ask) => self.parts.hub.handle(ask, now),
            HubInput::Ask(question, reply) => {
                if self.questions.len() >= MAX_QUESTIONS {
                    return;
                }
                self.next_question += 1;
                let ask = self.next_question;
                self.questions.insert(ask, reply);
                let ask = match question {
                    Question::Document(market, view) => ToHub::Document { market, view, ask },
                    Question::List(filter) => ToHub::List { filter, ask },
                };
                self.parts.hub.handle(ask, now);
            }
        }
    }

    fn repaired(&mut self, repair: Repair) {
        let now = self.parts.clock.now();
        match repair {
            Repair::Tail(shard, Ok(tail)) => {
                self.parts.hub.tail(shard, tail.head, tail.entries, tail.complete, now);
            }
            Repair::Snapshots(shard, Ok(read)) => {
                for (market, error) in &read.unreadable {
                    self.parts.metrics.unreadable.inc();
                    tracing::error!(shard, market = &**market, error, "a stored snapshot can't be read");
                }
                self.parts.hub.snapshots(shard, read.head, read.markets, read.entries, now);
            }
            Repair::Tail(shard, Err(error)) | Repair::Snapshots(shard, Err(error)) => {
                tracing::warn!(shard, %error, "the log can't be read: trying again");
                self.parts.hub.unread(shard, now);
            }
        }
    }

    /// Carries the hub's news to the cores, its answers to whoever asked; gives its commands back.
    /// `None` where a core takes nothing any more.
    async fn deliver(&mut self) -> Option<Vec<FeedCommand>> {
        for (ask, answer) in self.parts.hub.take_answers() {
            if let Some(reply) = self.questions.remove(&ask) {
                // Whoever asked may have left.
                let _ = reply.send(answer);
            }
        }
        for (core, sender) in self.parts.cores.iter().enumerate() {
            let news = self.parts.hub.take_for_core(core);
            if news.is_empty() {
                continue;
            }
            match tokio::time::timeout(CORE_PATIENCE, sender.send(news)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tracing::debug!(core, "a core has ended"),
                Err(_) => {
                    tracing::error!(core, "a core takes nothing: the gateway ends");
                    return None;
                }
            }
        }
        for told in self.parts.hub.take_checksums() {
            // A canary that is busy compares the next ones.
            let _ = self.parts.canary.try_send(told);
        }
        Some(self.parts.hub.take_commands())
    }

    fn report(&mut self) {
        let now = self.parts.clock.now();
        self.parts.hub.tick(now);
        let metrics = &self.parts.metrics;
        let counters = self.parts.hub.counters();
        metrics.applied.set(counters.applied as i64);
        for (event, count) in [
            ("duplicate", counters.duplicates),
            ("old_epoch", counters.old_epochs),
            ("gap", counters.gaps),
            ("tail", counters.tails),
            ("snapshot", counters.snapshots),
            ("overflow", counters.overflow),
            ("checksum_mismatch", counters.mismatches),
        ] {
            metrics.follower.with_label_values(&[event]).set(count as i64);
        }
        for (what, size) in self.parts.hub.sizes() {
            metrics.sizes.with_label_values(&[what]).set(size as i64);
        }
        let (source, ingest) = self.parts.hub.ages(now);
        metrics.age.with_label_values(&["source"]).set(source);
        metrics.age.with_label_values(&["ingest"]).set(ingest);
        let connected = self.subscribed && self.lost.is_empty();
        metrics.feed_connected.set(i64::from(connected));
        let silent = self.parts.hub.silent_shards(now);
        let _ = self.parts.readiness.send(Readiness { silent, connected });
    }
}

/// Runs the feed until it is told to stop.
pub async fn run(parts: FeedParts) {
    let reader = Arc::new(parts.reader.clone());
    let stop = parts.stop.clone();
    let (handle, mut live) = reader.live(LIVE_WAITING);
    let (repairs, mut repaired) = mpsc::channel::<Repair>(64);
    let mut feed = Feed {
        parts,
        questions: HashMap::default(),
        next_question: 0,
        subscribed: false,
        followed: BTreeSet::new(),
        lost: BTreeSet::new(),
    };
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = live.recv() => match event {
                Some(event) => {
                    feed.live(event);
                    for _ in 0..BATCH {
                        let Ok(event) = live.try_recv() else { break };
                        feed.live(event);
                    }
                }
                None => {
                    tracing::error!("the log's reader has ended");
                    return;
                }
            },
            Some(input) = feed.parts.asks.recv() => {
                feed.ask(input);
                for _ in 0..BATCH {
                    let Ok(input) = feed.parts.asks.try_recv() else { break };
                    feed.ask(input);
                }
            }
            Some(repair) = repaired.recv() => feed.repaired(repair),
            _ = tick.tick() => feed.report(),
            () = stop.cancelled() => return,
        }
        let Some(commands) = feed.deliver().await else { return };
        for command in commands {
            match command {
                FeedCommand::Follow(shard) => {
                    feed.followed.insert(shard);
                    handle.follow(shard);
                }
                FeedCommand::Unfollow(shard) => {
                    feed.followed.remove(&shard);
                    feed.lost.remove(&shard);
                    handle.unfollow(shard);
                }
                FeedCommand::Tail(shard, after) => {
                    let (reader, repairs) = (reader.clone(), repairs.clone());
                    tokio::spawn(async move {
                        let tail = reader.tail(shard, after).await;
                        let _ = repairs.send(Repair::Tail(shard, tail)).await;
                    });
                }
                FeedCommand::Snapshots(shard) => {
                    let (reader, repairs) = (reader.clone(), repairs.clone());
                    tokio::spawn(async move {
                        let snapshots = reader.snapshots(shard).await;
                        let _ = repairs.send(Repair::Snapshots(shard, snapshots)).await;
                    });
                }
            }
        }
    }
}
