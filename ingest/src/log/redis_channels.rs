//! The live channels of one server. One connection for all its shards of a follower, and one task that owns it: it
//! connects, subscribes to what is wanted, and begins anew after every break, without end.
//!
//! What comes is moved at once from the connection into the bounded outbox, which drops and counts: nothing is held
//! without a bound, and nothing waits.
//!
//! Three ways to hear nothing though all seems well, and what finds them. A half-open connection: it is pinged every second,
//! and a request without an answer within the deadline (2 s) ends it. A server that answers and is no longer the one
//! that others write to: the link asks Sentinels, or the Cluster, twice a second. A server that answers and brings
//! nothing: where nothing came between four pings though a shard has an owner, which would say so twice a second, the
//! connection is made anew. A writer that is gone shows as silence of `alive`, which the follower watches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{ErrorKind, PushInfo, PushKind, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use super::redis::Shared;
use super::redis_live::{LONGEST_WAIT, SHORTEST_WAIT, Wanted};
use crate::link::{Node, Server};

const PING_EVERY: Duration = Duration::from_secs(1);
/// Channels subscribed at once.
const CHANNELS: usize = 256;
/// Pings without a message between them, and with an owner that should have said something, after which a connection is
/// taken for deaf.
const DEAF_PINGS: u32 = 2;

/// The channels of one server.
pub(super) struct Channels {
    pub(super) node: Arc<Node>,
    pub(super) log: Arc<Shared>,
    pub(super) wanted: Arc<Wanted>,
    pub(super) outbox: Outbox,
    /// Where it is told that shards may live elsewhere.
    pub(super) moved: Arc<Notify>,
}

/// A request to the server that is under way, and what it was.
type Request = Pin<Box<dyn Future<Output = Result<Done, String>> + Send>>;

enum Done {
    Subscribed { here: Vec<u16>, elsewhere: Vec<u16> },
    Unsubscribed(Vec<u16>),
    Pong { has_owner: bool },
}

/// What the connection itself tells.
#[derive(Debug, Default)]
struct Heard {
    shards: Mutex<HashMap<String, u16>>,
    /// Channels that the server took away.
    taken: Mutex<BTreeSet<u16>>,
    news: Notify,
    messages: AtomicU64,
    ended: CancellationToken,
}

impl Heard {
    fn shard(&self, channel: &Value) -> Option<u16> {
        let Value::BulkString(channel) = channel else { return None };
        let channel = std::str::from_utf8(channel).ok()?;
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).get(channel).copied()
    }

    fn push(&self, push: PushInfo, outbox: &Outbox) {
        let mut data = push.data.into_iter();
        match push.kind {
            PushKind::SMessage => {
                let shard = data.next().and_then(|channel| self.shard(&channel));
                if let (Some(shard), Some(Value::BulkString(bytes))) = (shard, data.next()) {
                    self.messages.fetch_add(1, Ordering::Relaxed);
                    outbox.message(shard, Bytes::from(bytes));
                }
            }
            PushKind::SUnsubscribe => {
                if let Some(shard) = data.next().and_then(|channel| self.shard(&channel)) {
                    self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
                    self.news.notify_one();
                }
            }
            PushKind::Disconnection => self.ended.cancel(),
            _ => {}
        }
    }
}

/// What one connection is subscribed to.
#[derive(Default)]
struct Subscriptions {
    /// By shard: the number of the last request that was answered.
    answered: BTreeMap<u16, u64>,
    /// The server says that they live elsewhere. Asked again with the next ping, where they are still wanted here.
    elsewhere: BTreeSet<u16>,
    /// Messages at the last ping, and how many pings in a row there was none though somebody owns a shard.
    messages: u64,
    deaf: u32,
    /// Which shard's owner is asked for next.
    turn: usize,
}

impl Channels {
    pub(super) async fn run(self) {
        let mut random = SmallRng::from_os_rng();
        let mut longest = SHORTEST_WAIT;
        let mut told = false;
        loop {
            let mut worked = false;
            let heard = Arc::new(Heard::default());
            let (to, outbox) = (heard.clone(), self.outbox.clone());
            let push = move |push: PushInfo| {
                to.push(push, &outbox);
                Ok::<(), ()>(())
            };
            let reason = match self.node.pusher(push).await {
                Ok((connection, master)) => {
                    self.serve(connection, master.as_ref(), &heard, &mut worked).await
                }
                Err(reason) => reason,
            };
            if worked {
                longest = SHORTEST_WAIT;
                told = false;
            }
            // Once for each outage, not once for each attempt.
            if !told {
                let shards = self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner).shards.clone();
                self.outbox.lost(shards.into_keys(), reason);
                told = true;
            }
            self.moved.notify_one();
            longest = (longest * 2).min(LONGEST_WAIT);
            sleep(random.random_range(SHORTEST_WAIT..=longest)).await;
        }
    }

    /// Serves one connection until it breaks; says why it did.
    async fn serve(
        &self,
        connection: MultiplexedConnection,
        master: Option<&Server>,
        heard: &Heard,
        worked: &mut bool,
    ) -> String {
        let mut subscriptions = Subscriptions::default();
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = false;
        let mut request: Option<Request> = None;
        loop {
            if request.is_none() {
                request = self.next_request(&connection, heard, &mut subscriptions, due);
            }
            tokio::select! {
                () = heard.ended.cancelled() => return "the server closed the connection".into(),
                done = async { request.as_mut().expect("only polled where there is one").await },
                    if request.is_some() =>
                {
                    request = None;
                    *worked |= done.is_ok();
                    match done {
                        Err(reason) => return reason,
                        Ok(Done::Subscribed { here, elsewhere }) => {
                            self.confirm(&mut subscriptions, &here);
                            if !elsewhere.is_empty() {
                                subscriptions.elsewhere.extend(elsewhere);
                                self.moved.notify_one();
                            }
                        }
                        Ok(Done::Unsubscribed(shards)) => {
                            let mut names = heard.shards.lock().unwrap_or_else(PoisonError::into_inner);
                            names.retain(|_, shard| !shards.contains(shard));
                        }
                        Ok(Done::Pong { has_owner }) => {
                            due = false;
                            subscriptions.elsewhere.clear();
                            let messages = heard.messages.load(Ordering::Relaxed);
                            let silent = has_owner && messages == subscriptions.messages;
                            subscriptions.deaf = if silent { subscriptions.deaf + 1 } else { 0 };
                            subscriptions.messages = messages;
                            if subscriptions.deaf > DEAF_PINGS {
                                return "the server answers and brings nothing, though shards have an owner".into();
                            }
                        }
                    }
                }
                () = self.wanted.changed.notified() => {}
                () = heard.news.notified() => {
                    let taken = std::mem::take(&mut *heard.taken.lock().unwrap_or_else(PoisonError::into_inner));
                    // What we gave back ourselves is not among the answered any more.
                    let mut taken: Vec<u16> =
                        taken.into_iter().filter(|s| subscriptions.answered.remove(s).is_some()).collect();
                    // What is not wanted here any more is followed at its new place already.
                    taken.retain(|shard| self.wants(*shard));
                    if !taken.is_empty() {
                        subscriptions.elsewhere.extend(&taken);
                        self.outbox.lost(taken, "the server gave the shards to another one".into());
                        self.moved.notify_one();
                    }
                }
                _ = pings.tick() => {
                    due = true;
                    if self.node.known_master().as_ref() != master {
                        return "another server is the master now".into();
                    }
                }
            }
        }
    }

    fn wants(&self, shard: u16) -> bool {
        self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner).shards.contains_key(&shard)
    }

    /// Answers every request for shards that the server has confirmed.
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
        connection: &MultiplexedConnection,
        heard: &Heard,
        subscriptions: &mut Subscriptions,
        ping: bool,
    ) -> Option<Request> {
        let (mut join, mut again) = (Vec::new(), Vec::new());
        let mut leave: Vec<u16> = Vec::new();
        {
            let requests = self.wanted.shards.lock().unwrap_or_else(PoisonError::into_inner);
            for (shard, number) in &requests.shards {
                match subscriptions.answered.get(shard) {
                    None if subscriptions.elsewhere.contains(shard) => {}
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
        let named = |shards: &[u16]| -> Vec<(u16, String)> {
            shards.iter().map(|shard| (*shard, self.log.keys.live(*shard))).collect()
        };
        let (connection, deadline) = (connection.clone(), self.node.deadline());
        if !join.is_empty() {
            join.truncate(CHANNELS);
            let channels = named(&join);
            // Before the confirmation, for what may come with it.
            let names = channels.iter().map(|(shard, channel)| (channel.clone(), *shard));
            heard.shards.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
            return Some(Box::pin(ask(deadline, "subscribing", subscribe(connection, channels))));
        }
        if !leave.is_empty() {
            leave.truncate(CHANNELS);
            for shard in &leave {
                subscriptions.answered.remove(shard);
            }
            let channels = named(&leave);
            return Some(Box::pin(ask(deadline, "unsubscribing", unsubscribe(connection, channels))));
        }
        if ping {
            subscriptions.turn += 1;
            let shard =
                subscriptions.answered.keys().nth(subscriptions.turn % subscriptions.answered.len().max(1));
            let owner = shard.map(|shard| self.log.keys.owner(*shard));
            return Some(Box::pin(ask(deadline, "a ping", pong(connection, owner))));
        }
        None
    }
}

async fn ask(
    deadline: Duration,
    what: &str,
    answer: impl Future<Output = Result<Done, String>>,
) -> Result<Done, String> {
    match timeout(deadline, answer).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(format!("{what} failed: {error}")),
        Err(_) => Err(format!("no answer to {what} within {deadline:?}")),
    }
}

/// One command for each channel: they may have different slots, and each may be refused by itself.
async fn each(
    connection: &MultiplexedConnection,
    name: &str,
    channels: &[(u16, String)],
) -> Vec<(u16, Result<Value, redis::RedisError>)> {
    let all = channels.iter().map(|(shard, channel)| {
        let mut connection = connection.clone();
        async move {
            let mut command = redis::cmd(name);
            command.arg(channel);
            (*shard, connection.req_packed_command(&command).await.and_then(Value::extract_error))
        }
    });
    join_all(all).await
}

async fn subscribe(connection: MultiplexedConnection, channels: Vec<(u16, String)>) -> Result<Done, String> {
    let (mut here, mut elsewhere) = (Vec::new(), Vec::new());
    let answers = each(&connection, "SSUBSCRIBE", &channels).await;
    for ((shard, answer), (_, channel)) in answers.into_iter().zip(&channels) {
        match answer {
            // A channel that is taken away meanwhile would answer in the place of another one.
            Ok(Value::Push { kind: PushKind::SSubscribe, data }) if matches!(data.first(), Some(Value::BulkString(name)) if name == channel.as_bytes()) =>
            {
                here.push(shard);
            }
            Ok(other) => return Err(format!("the answer {other:?}")),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => elsewhere.push(shard),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Done::Subscribed { here, elsewhere })
}

async fn unsubscribe(
    connection: MultiplexedConnection,
    channels: Vec<(u16, String)>,
) -> Result<Done, String> {
    for (_, answer) in each(&connection, "SUNSUBSCRIBE", &channels).await {
        match answer {
            Ok(_) => {}
            // Where the slot went the subscription went too.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Done::Unsubscribed(channels.into_iter().map(|c| c.0).collect()))
}

/// A ping that also asks whether a shard has an owner, which would say something.
async fn pong(mut connection: MultiplexedConnection, owner: Option<String>) -> Result<Done, String> {
    let Some(owner) = owner else {
        let pong = connection.req_packed_command(&redis::cmd("PING")).await;
        return pong.map(|_| Done::Pong { has_owner: false }).map_err(|error| error.to_string());
    };
    let mut exists = redis::cmd("EXISTS");
    exists.arg(owner);
    match connection.req_packed_command(&exists).await.and_then(Value::extract_error) {
        Ok(value) => Ok(Done::Pong { has_owner: value == Value::Int(1) }),
        // The shard is leaving this server.
        Err(error) if error.is_cluster_error() => Ok(Done::Pong { has_owner: false }),
        Err(error) => Err(error.to_string()),
    }
}
