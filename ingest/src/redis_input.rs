//! Sources over Redis: `<prefix>:in:<source>` → the engine, and what is to be said to them on `<prefix>:ctl:<source>`.
//!
//! The subscriber only drains: its client holds what is not read without a bound. Where the engine does not keep up
//! messages are dropped, counted, and their source is told to be lossy, which stays told until the engine heard it.
//!
//! A subscription can be deaf though its connection lives: a half-open connection, a server of a Cluster that the others
//! can't reach. So ingest publishes a probe twice a second, in a Cluster through a different server each time, and a
//! subscription that does not bring it is made anew.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tictac_proto::limits::MAX_ID;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::engine::{Control, MAX_SOURCES};
use crate::link::{Link, RedisSettings, Server};
use crate::log::LogError;
use crate::metrics::Metrics;
use crate::service::{Input, writing::wait};

/// How soon the engine is told again of a loss that there was no room to tell.
const TELL_AGAIN: Duration = Duration::from_millis(50);
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long a probe that is published may stay unheard.
const PROBE_WITHIN: Duration = Duration::from_millis(1_500);
/// How often Sentinels are asked whether the master is still the master: until we listen to the new one nothing is heard.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Probes that may be under way to servers that hang.
const PROBES: usize = 4;

/// Reads what sources publish, until the token is cancelled, and publishes what is to be said to them until nobody says anything
/// any more. Reconnects for ever.
///
/// # Errors
/// Where the address is none.
pub async fn run(
    settings: RedisSettings,
    control: mpsc::Receiver<(Arc<str>, Control)>,
    input: mpsc::Sender<Input>,
    metrics: Metrics,
    cancel: CancellationToken,
) -> Result<(), LogError> {
    // One for both: what the one finds out of Redis the other knows.
    let link = Link::new(&settings, settings.deadline)?;
    let listening = listen(&link, &settings, input, metrics, cancel);
    tokio::join!(listening, tell(&link, &settings, control));
    Ok(())
}

async fn listen(
    link: &Link,
    settings: &RedisSettings,
    input: mpsc::Sender<Input>,
    metrics: Metrics,
    cancel: CancellationToken,
) {
    let mut drain = Drain {
        prefix: format!("{}:in:", settings.prefix),
        free: format!("{}:free", settings.prefix),
        operator: format!("{}:operator", settings.prefix),
        probe: format!("{}:probe:{:016x}", settings.prefix, SmallRng::from_os_rng().random::<u64>()),
        probes: Probes::default(),
        input,
        metrics,
        lossy: BTreeSet::new(),
    };
    let mut tries = 0;
    loop {
        let ended = tokio::select! {
            () = cancel.cancelled() => return,
            ended = drain.subscription(link, &mut tries) => ended,
        };
        tracing::warn!(why = ended, "the subscription to the sources broke; making it anew");
        // Told now, and again when it is made: what came between is lost too.
        tokio::select! {
            () = cancel.cancelled() => return,
            sent = drain.input.send(Input::Broken) => if sent.is_err() { return },
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(wait(tries)) => tries += 1,
        }
    }
}

struct Drain {
    prefix: String,
    /// Where owners say that a shard is free.
    free: String,
    /// Where operators' acts are told.
    operator: String,
    /// Where we tell ourselves that the subscription lives.
    probe: String,
    probes: Probes,
    input: mpsc::Sender<Input>,
    metrics: Metrics,
    /// Sources of which messages were dropped and which the engine has not heard of yet.
    lossy: BTreeSet<Arc<str>>,
}

impl Drain {
    /// One subscription, until it ends; why it did.
    async fn subscription(&mut self, link: &Link, tries: &mut u32) -> String {
        let (mut subscriber, master) = match link.subscriber().await {
            Ok(subscriber) => subscriber,
            Err(why) => return why,
        };
        let subscribed = async {
            subscriber.psubscribe(format!("{}*", escape(&self.prefix))).await?;
            subscriber.subscribe(&[&self.free, &self.operator, &self.probe]).await
        };
        match timeout(link.deadline(), subscribed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return format!("no answer to subscribing within {:?}", link.deadline()),
        }
        if *tries > 0 && self.input.send(Input::Broken).await.is_err() {
            return "the engine ended".into();
        }
        *tries = 0;
        tracing::info!(channels = format!("{}*", self.prefix), "listening to sources");
        let mut messages = subscriber.into_on_message();
        self.probes.begin();
        let mut ticks = interval(PROBE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let channel = self.probe.clone();
        let mut publishing = FuturesUnordered::new();
        let mut replaced = pin!(replaced(link, master));
        loop {
            let message = tokio::select! {
                message = messages.next() => message,
                () = &mut replaced => return "another server is the master now".into(),
                _ = ticks.tick() => {
                    if self.probes.is_deaf() {
                        return format!("what is published is not heard within {PROBE_WITHIN:?}");
                    }
                    if publishing.len() < PROBES {
                        let number = self.probes.next();
                        let channel = &channel;
                        publishing.push(async move {
                            (number, link.publish(channel, number.to_string().as_bytes()).await.is_ok())
                        });
                    }
                    continue;
                }
                Some((number, done)) = publishing.next() => {
                    if done {
                        self.probes.published(number);
                    }
                    continue;
                }
                () = tokio::time::sleep(TELL_AGAIN), if !self.lossy.is_empty() => {
                    self.tell_lossy();
                    continue;
                }
            };
            let Some(message) = message else { return "the connection ended".into() };
            let channel = message.get_channel_name();
            if channel == self.free {
                // Where there is no room it is found out when the lease would have ended.
                if let Some(shard) = message.get_payload::<String>().ok().and_then(|s| s.parse().ok()) {
                    let _ = self.input.try_send(Input::Free { shard });
                }
                continue;
            }
            if channel == self.probe {
                self.probes
                    .heard(message.get_payload::<String>().ok().and_then(|number| number.parse().ok()));
                continue;
            }
            if channel == self.operator {
                // What is held is found in the ledger too; a wish for images is to be repeated, which its command says.
                match serde_json::from_slice(message.get_payload_bytes()) {
                    Ok(act) => drop(self.input.try_send(Input::Operator { act })),
                    Err(error) => tracing::warn!(%error, "an operator's act can't be read"),
                }
                continue;
            }
            let Some(source) = channel.strip_prefix(&self.prefix) else { continue };
            if source.is_empty() || source.len() > MAX_ID {
                tracing::warn!(channel, "a source's name has 1 to {MAX_ID} bytes; its message is left out");
                continue;
            }
            self.take(source.into(), message.get_payload_bytes().to_vec().into());
        }
    }

    /// Tells the engine which sources lost something, as far as there is room.
    fn tell_lossy(&mut self) {
        while let Some(source) = self.lossy.first().cloned() {
            if self.input.try_send(Input::Dropped { source: source.clone() }).is_err() {
                break;
            }
            self.lossy.remove(&source);
        }
    }

    fn take(&mut self, source: Arc<str>, payload: Bytes) {
        self.tell_lossy();
        let sent =
            self.input.try_send(Input::Message { source: source.clone(), payload, received: now_ms() });
        if let Err(TrySendError::Full(_)) = sent {
            self.metrics.input_dropped.inc();
            if self.lossy.len() < MAX_SOURCES && self.lossy.insert(source.clone()) {
                tracing::warn!(%source, "messages are dropped: the engine does not keep up");
            }
        }
    }
}

/// Until Sentinels name another master than the one we listen to; for ever where none are asked.
async fn replaced(link: &Link, master: Option<Server>) {
    if master.is_none() {
        return std::future::pending().await;
    }
    while link.known_master() == master {
        tokio::time::sleep(CHECK_EVERY).await;
        link.check().await;
    }
}

/// Which probes were published, and heard.
#[derive(Debug, Default)]
struct Probes {
    last: u64,
    published: u64,
    heard: u64,
    /// When one was published that is not heard yet.
    unheard: Option<Instant>,
}

impl Probes {
    /// A new subscription: what was published before says nothing of it.
    fn begin(&mut self) {
        (self.published, self.heard, self.unheard) = (self.last, self.last, None);
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn published(&mut self, number: u64) {
        self.published = self.published.max(number);
        if self.heard < number {
            self.unheard.get_or_insert_with(Instant::now);
        }
    }

    fn heard(&mut self, number: Option<u64>) {
        self.heard = self.heard.max(number.unwrap_or(0));
        if self.heard >= self.published {
            self.unheard = None;
        }
    }

    fn is_deaf(&self) -> bool {
        self.unheard.is_some_and(|since| since.elapsed() > PROBE_WITHIN)
    }
}

/// A pattern that matches a text itself.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Publishes what is to be said to sources. What can't be sent is dropped: the engine says it again.
async fn tell(link: &Link, settings: &RedisSettings, mut control: mpsc::Receiver<(Arc<str>, Control)>) {
    let mut failing = false;
    while let Some((source, message)) = control.recv().await {
        let channel = format!("{}:ctl:{source}", settings.prefix);
        let message = message.to_json();
        let mut sent = link.publish(&channel, message.as_bytes()).await;
        if sent.is_err() {
            // Once more at once: the master may be another one by now, and who asks for images waits for them.
            sent = link.publish(&channel, message.as_bytes()).await;
        }
        if let Err(error) = &sent
            && !failing
        {
            tracing::warn!(%source, %error, "can't tell sources what was taken");
        }
        failing = sent.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_published_and_not_heard_is_deafness() {
        let mut probes = Probes::default();
        // Heard before its publisher hears of it; and what could not be published says nothing.
        let first = probes.next();
        probes.heard(Some(first));
        probes.published(first);
        tokio::time::advance(PROBE_WITHIN * 2).await;
        assert!(!probes.is_deaf());
        let second = probes.next();
        probes.published(second);
        tokio::time::advance(PROBE_WITHIN / 2).await;
        let third = probes.next();
        probes.published(third);
        assert!(!probes.is_deaf());
        tokio::time::advance(PROBE_WITHIN).await;
        assert!(probes.is_deaf(), "the later probe does not make the earlier one heard");
        probes.heard(Some(third));
        assert!(!probes.is_deaf());
        // A new subscription; what an old probe's server still held does not count for it.
        let old = probes.next();
        probes.begin();
        probes.heard(Some(old));
        let fourth = probes.next();
        probes.published(fourth);
        tokio::time::advance(PROBE_WITHIN * 2).await;
        assert!(probes.is_deaf());
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(escape("a*b[c]?\\"), "a\\*b\\[c\\]\\?\\\\");
    }
}
