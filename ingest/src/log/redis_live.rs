//! The log in Redis: following live channels. One connection for all shards of a follower, and one task that owns it:
//! it connects, subscribes to what is wanted, drains, and begins anew after every break, without end.
//!
//! The client library's stream is unbounded inside, so the task does nothing that could wait: it moves messages into
//! the bounded outbox, which drops and counts.
//!
//! A half-open connection: the task pings over the subscribed connection every second, and a request without an answer
//! within the deadline (2 s) ends the connection; a silent cut is known after 3 s at most. What pings can't see (a
//! server that answers and no longer publishes, a writer that is gone) shows as silence of `alive`, which the follower
//! watches for each shard.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use redis::Value;
use redis::aio::{PubSub, PubSubSink};
use tokio::sync::{Notify, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::LiveEvent;
use super::outbox::Outbox;
use super::redis::{RedisLog, Shared};

const PING_EVERY: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Channels subscribed with one request.
const CHANNELS: usize = 256;

impl RedisLog {
    pub(super) fn live(&self, capacity: usize) -> (RedisFollower, mpsc::Receiver<LiveEvent>) {
        let (outbox, receiver) = Outbox::new(capacity);
        let wanted = Arc::new(Wanted::default());
        let end = CancellationToken::new();
        let task = FollowerTask { log: self.shared.clone(), wanted: wanted.clone(), outbox: outbox.clone() };
        let ended = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = task.outbox.closed() => {}
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
struct Wanted {
    shards: Mutex<Requests>,
    changed: Notify,
}

/// Each `follow` has a number, so that each is answered.
#[derive(Debug, Default)]
struct Requests {
    last: u64,
    shards: BTreeMap<u16, u64>,
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

struct FollowerTask {
    log: Arc<Shared>,
    wanted: Arc<Wanted>,
    outbox: Outbox,
}

/// A request to the server that is under way, and what it was.
type Request = Pin<Box<dyn Future<Output = Result<Done, String>> + Send>>;

enum Done {
    Subscribed(Vec<u16>),
    Unsubscribed(Vec<u16>),
    Pong,
}

/// What one connection is subscribed to.
#[derive(Default)]
struct Subscriptions {
    /// By shard: the number of the last `follow` that was answered.
    answered: BTreeMap<u16, u64>,
    shards: HashMap<String, u16>,
}

impl FollowerTask {
    async fn run(&self) {
        let mut random = SmallRng::from_os_rng();
        let mut longest = SHORTEST_WAIT;
        let mut told = false;
        loop {
            let mut worked = false;
            let reason = match self.log.link.subscriber().await {
                Ok(connection) => self.serve(connection, &mut worked).await,
                Err(reason) => reason,
            };
            if worked {
                longest = SHORTEST_WAIT;
                told = false;
            }
            // Once for each outage, not once for each attempt.
            if !told {
                self.outbox.lost(reason);
                told = true;
            }
            longest = (longest * 2).min(LONGEST_WAIT);
            sleep(random.random_range(SHORTEST_WAIT..=longest)).await;
        }
    }

    /// Serves one connection until it breaks; says why it did.
    async fn serve(&self, connection: PubSub, worked: &mut bool) -> String {
        let (sink, mut messages) = connection.split();
        let mut subscriptions = Subscriptions::default();
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        let mut request: Option<Request> = None;
        loop {
            if request.is_none() {
                request = self.next_request(&sink, &mut subscriptions, due);
            }
            tokio::select! {
                message = messages.next() => {
                    let Some(message) = message else { return "the server closed the connection".into() };
                    if let Some(shard) = subscriptions.shards.get(message.get_channel_name()) {
                        self.outbox.message(*shard, Bytes::copy_from_slice(message.get_payload_bytes()));
                    }
                }
                done = async { request.as_mut().expect("only polled where there is one").await },
                    if request.is_some() =>
                {
                    request = None;
                    *worked = true;
                    match done {
                        Err(reason) => return reason,
                        Ok(Done::Subscribed(shards)) => self.confirm(&mut subscriptions, &shards),
                        Ok(Done::Unsubscribed(shards)) => {
                            let keys = &self.log.keys;
                            for shard in shards {
                                subscriptions.answered.remove(&shard);
                                subscriptions.shards.remove(&keys.live(shard));
                            }
                        }
                        Ok(Done::Pong) => due = false,
                    }
                }
                () = self.wanted.changed.notified() => {}
                _ = pings.tick() => due = true,
            }
        }
    }

    /// Answers every `follow` of shards that the server has confirmed.
    fn confirm(&self, subscriptions: &mut Subscriptions, shards: &[u16]) {
        let requests = self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in shards {
            let number = requests.shards.get(shard).copied();
            subscriptions.answered.insert(*shard, number.unwrap_or(0));
            if number.is_some() {
                self.outbox.confirmed(*shard);
            }
        }
    }

    /// What to ask of the server next: the difference between what is wanted and what is, else a ping where one is due.
    fn next_request(
        &self,
        sink: &PubSubSink,
        subscriptions: &mut Subscriptions,
        ping: bool,
    ) -> Option<Request> {
        let (mut join, mut again) = (Vec::new(), Vec::new());
        let mut leave: Vec<u16> = Vec::new();
        {
            let requests = self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner);
            for (shard, number) in &requests.shards {
                match subscriptions.answered.get(shard) {
                    None => join.push(*shard),
                    Some(answered) if answered != number => again.push(*shard),
                    Some(_) => {}
                }
            }
            leave.extend(subscriptions.answered.keys().filter(|shard| !requests.shards.contains_key(shard)));
        }
        if !again.is_empty() {
            // Subscribed all along, and asked for again: true at once.
            self.confirm(subscriptions, &again);
        }
        let keys = &self.log.keys;
        let mut sink = sink.clone();
        let deadline = self.log.link.deadline();
        if !join.is_empty() {
            join.truncate(CHANNELS);
            let channels: Vec<String> = join.iter().map(|shard| keys.live(*shard)).collect();
            // Before the confirmation, for what may come with it.
            subscriptions.shards.extend(channels.iter().cloned().zip(join.iter().copied()));
            return Some(Box::pin(async move {
                ask(deadline, "subscribing", sink.subscribe(channels)).await?;
                Ok(Done::Subscribed(join))
            }));
        }
        if !leave.is_empty() {
            leave.truncate(CHANNELS);
            let channels: Vec<String> = leave.iter().map(|shard| keys.live(*shard)).collect();
            return Some(Box::pin(async move {
                ask(deadline, "unsubscribing", sink.unsubscribe(channels)).await?;
                Ok(Done::Unsubscribed(leave))
            }));
        }
        if ping {
            return Some(Box::pin(async move {
                ask(deadline, "a ping", sink.ping::<Value>()).await?;
                Ok(Done::Pong)
            }));
        }
        None
    }
}

async fn ask<T>(
    deadline: Duration,
    what: &str,
    answer: impl Future<Output = redis::RedisResult<T>>,
) -> Result<(), String> {
    match timeout(deadline, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{what} failed: {error}")),
        Err(_) => Err(format!("no answer to {what} within {deadline:?}")),
    }
}
