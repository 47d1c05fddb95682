//! The log in Redis: following live channels. Each shard's channel lives on the server that has the shard's keys; this
//! task knows which that is, and gives it to the task that owns the connection to it (`redis_channels`). A shard that
//! moves to another server is followed there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::LiveEvent;
use super::outbox::Outbox;
use super::redis::{RedisLog, Shared};
use super::redis_channels::Channels;

/// How often it is looked whether shards live elsewhere by now.
const CHECK_EVERY: Duration = Duration::from_millis(500);
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(50);
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(500);

impl RedisLog {
    pub(super) fn live(&self, capacity: usize) -> (RedisFollower, mpsc::Receiver<LiveEvent>) {
        let (outbox, receiver) = Outbox::new(capacity);
        let wanted = Arc::new(Wanted::default());
        let end = CancellationToken::new();
        let task = FollowerTask {
            log: self.shared.clone(),
            wanted: wanted.clone(),
            outbox: outbox.clone(),
            moved: Arc::default(),
            servers: BTreeMap::new(),
            placed: BTreeMap::new(),
            told: false,
        };
        let ended = end.clone();
        let closed = outbox.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = closed.closed() => {}
                () = task.run() => {}
            }
        });
        (RedisFollower { wanted, outbox, _end: end.drop_guard() }, receiver)
    }
}

/// One follower of the log in Redis.
#[derive(Debug)]
pub(super) struct RedisFollower {
    wanted: Arc<Wanted>,
    outbox: Outbox,
    _end: DropGuard,
}

/// The shards to be followed. A state and not a queue of requests, so that it can't grow, and so that a new connection
/// finds in it all there is to do.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) shards: Mutex<Requests>,
    pub(super) changed: Notify,
}

/// Each request has a number, so that each is answered.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: u64,
    pub(super) shards: BTreeMap<u16, u64>,
}

impl Wanted {
    /// The shards, each with the number of its request.
    fn shards(&self) -> BTreeMap<u16, u64> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).shards.clone()
    }

    /// Other shards from now on.
    fn replace(&self, shards: BTreeMap<u16, u64>) {
        let mut requests = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.shards != shards {
            requests.shards = shards;
            drop(requests);
            self.changed.notify_one();
        }
    }
}

impl RedisFollower {
    pub(super) fn follow(&self, shard: u16) {
        {
            let mut requests = self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner);
            requests.last += 1;
            let number = requests.last;
            requests.shards.insert(shard, number);
        }
        self.wanted.changed.notify_one();
    }

    pub(super) fn unfollow(&self, shard: u16) {
        self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner).shards.remove(&shard);
        self.outbox.forget(shard);
        self.wanted.changed.notify_one();
    }

    pub(super) fn dropped(&self) -> u64 {
        self.outbox.dropped()
    }
}

/// What follows the channels of one server.
struct Server {
    wanted: Arc<Wanted>,
    _task: AbortOnDropHandle<()>,
}

/// Where a shard is followed, and how often it moved: a request at a new place is a new one.
struct Placed {
    server: String,
    moves: u64,
}

struct FollowerTask {
    log: Arc<Shared>,
    wanted: Arc<Wanted>,
    outbox: Outbox,
    /// Told by whoever finds that shards may live elsewhere.
    moved: Arc<Notify>,
    servers: BTreeMap<String, Server>,
    placed: BTreeMap<u16, Placed>,
    /// Whether it is told that there is no place for a shard.
    told: bool,
}

impl FollowerTask {
    async fn run(mut self) {
        let mut random = SmallRng::from_os_rng();
        let mut longest = SHORTEST_WAIT;
        let mut checks = interval(CHECK_EVERY);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let placed = self.place().await;
            if placed {
                longest = SHORTEST_WAIT;
                tokio::select! {
                    () = self.wanted.changed.notified() => continue,
                    () = self.moved.notified() => {}
                    _ = checks.tick() => {}
                }
            } else {
                longest = (longest * 2).min(LONGEST_WAIT);
                sleep(random.random_range(SHORTEST_WAIT..=longest)).await;
            }
            let begun = Instant::now();
            self.log.link.check().await;
            // Many that find it at once ask once.
            sleep(SHORTEST_WAIT.saturating_sub(begun.elapsed())).await;
        }
    }

    /// Gives every shard to the server that has it; whether each has one.
    async fn place(&mut self) -> bool {
        let wanted = self.wanted.shards();
        self.placed.retain(|shard, _| wanted.contains_key(shard));
        let mut failed = None;
        for shard in wanted.keys() {
            match self.log.link.node_of(&self.log.keys.live(*shard)).await {
                Ok(Some((name, node))) => {
                    if !self.servers.contains_key(&name) {
                        let wanted = Arc::new(Wanted::default());
                        let channels = Channels {
                            node,
                            log: self.log.clone(),
                            wanted: wanted.clone(),
                            outbox: self.outbox.clone(),
                            moved: self.moved.clone(),
                        };
                        let _task = AbortOnDropHandle::new(tokio::spawn(channels.run()));
                        self.servers.insert(name.clone(), Server { wanted, _task });
                    }
                    let placed = self
                        .placed
                        .entry(*shard)
                        .or_insert_with(|| Placed { server: name.clone(), moves: 0 });
                    if placed.server != name {
                        (placed.server, placed.moves) = (name, placed.moves + 1);
                    }
                }
                // The Cluster has lost its slot; the others may be well.
                Ok(None) => failed = Some(format!("no server of the Cluster has shard {shard}")),
                Err(error) => {
                    // The others would fail as well, each after a deadline; they stay where they are.
                    failed = Some(error.to_string());
                    break;
                }
            }
        }
        for (name, server) in &self.servers {
            let here = wanted.iter().filter_map(|(shard, number)| {
                let placed = self.placed.get(shard).filter(|placed| placed.server == *name)?;
                Some((*shard, (*number << 16) | (placed.moves & 0xffff)))
            });
            server.wanted.replace(here.collect());
        }
        let placed = &self.placed;
        self.servers.retain(|name, _| placed.values().any(|placed| placed.server == *name));
        let all = failed.is_none();
        // Once for each outage, not once for each attempt.
        if let Some(reason) = failed.filter(|_| !self.told) {
            self.outbox.lost(wanted.into_keys().filter(|shard| !placed.contains_key(shard)), reason);
        }
        self.told = !all;
        all
    }
}
