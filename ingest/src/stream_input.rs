//! Sources over Redis Streams: `<prefix>:in:<source>`, field `m`, the same envelopes as over pub/sub.
//!
//! Each ingest reads every entry for itself, from where the log says that it was taken in to; the log moves that position
//! on together with what came of the entries. So nothing is lost by a restart or a takeover, and nothing is dropped
//! when the engine does not keep up: reading waits. What the stream itself has lost (trimmed before it was read, deleted,
//! or a Redis that forgot) shows, since the entry that was read last is not there any more: the source's markets are
//! stale until they are imaged, as after a loss over pub/sub.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use redis::streams::{StreamRangeReply, StreamReadReply};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::link::{Link, RedisSettings};
use crate::log::LogError;
use crate::service::{Input, Starts, writing::wait};
use crate::stream_id::StreamId;

/// The field of an entry that holds the message.
pub const FIELD: &str = "m";
/// Most entries read at once.
const AT_ONCE: usize = 256;
/// How long one reading waits for an entry. Shorter than the shortest deadline of a command.
const BLOCK: Duration = Duration::from_millis(500);

/// Reads the streams of all sources in `starts`, once it is known, until the token is cancelled.
///
/// # Errors
/// Where the address is none.
pub async fn listen(
    settings: RedisSettings,
    mut starts: watch::Receiver<Option<Starts>>,
    input: mpsc::Sender<Input>,
    cancel: CancellationToken,
) -> Result<(), LogError> {
    let starts = tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        known = starts.wait_for(Option::is_some) => match known {
            Ok(known) => known.clone().unwrap_or_default(),
            Err(_) => return Ok(()),
        },
    };
    let mut readers = JoinSet::new();
    for (source, at) in starts {
        let reader = Reader {
            link: Link::new(&settings, settings.deadline)?,
            key: format!("{}:in:{source}", settings.prefix),
            source,
            at,
            input: input.clone(),
        };
        tracing::info!(stream = reader.key, from = %at, "reading a source's stream");
        readers.spawn(reader.run());
    }
    cancel.cancelled().await;
    readers.shutdown().await;
    Ok(())
}

/// The engine ended.
struct Ended;

/// One stream.
struct Reader {
    link: Link,
    key: String,
    source: Arc<str>,
    /// The last entry that was read.
    at: StreamId,
    input: mpsc::Sender<Input>,
}

impl Reader {
    async fn run(mut self) {
        let mut tries = 0;
        loop {
            match self.step().await {
                Ok(Ok(())) => tries = 0,
                Ok(Err(error)) => {
                    if tries == 0 {
                        tracing::warn!(stream = self.key, %error, "can't be read: trying again until it can");
                    }
                    if self.tell(false).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(wait(tries)).await;
                    tries += 1;
                }
                Err(Ended) => return,
            }
        }
    }

    /// Reads what comes next.
    async fn step(&mut self) -> Result<Result<(), LogError>, Ended> {
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        read.arg("STREAMS").arg(&self.key).arg(self.at.to_string());
        let reply = match self.link.query::<Option<StreamReadReply>>(&self.key, &read).await {
            Ok(reply) => reply,
            Err(error) => return Ok(Err(error)),
        };
        let entries = reply.and_then(|mut reply| reply.keys.pop()).map_or_else(Vec::new, |stream| stream.ids);
        match self.lost(entries.is_empty()).await {
            Ok(Lost::Nothing) => {}
            Ok(Lost::Something) => {
                tracing::warn!(stream = self.key, after = %self.at, "entries were trimmed before they were read");
                self.send(Input::Dropped { source: self.source.clone() }).await?;
            }
            Ok(Lost::Everything) => {
                tracing::warn!(stream = self.key, after = %self.at, "the stream began anew: reading it from its start");
                self.send(Input::StreamReset { source: self.source.clone() }).await?;
                self.at = StreamId::ZERO;
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        }
        let reached = entries.len() < AT_ONCE;
        if !reached {
            self.tell(false).await?;
        }
        for entry in entries {
            let id = match entry.id.parse() {
                Ok(id) => id,
                Err(why) => return Ok(Err(LogError::Unexpected(why))),
            };
            // One without the field is unreadable as an empty message is, and told as such.
            let payload = match entry.map.get(FIELD) {
                Some(Value::BulkString(bytes)) => Bytes::copy_from_slice(bytes),
                _ => Bytes::new(),
            };
            let source = self.source.clone();
            self.send(Input::Entry { source, id, payload, received: now_ms() }).await?;
            self.at = id;
        }
        if reached {
            self.tell(true).await?;
        }
        Ok(Ok(()))
    }

    /// Whether something after `at` may be gone unread. As long as the entry itself is there nothing is, since streams are
    /// trimmed from their old end; asked after the reading, that holds for the reading.
    async fn lost(&self, idle: bool) -> Result<Lost, LogError> {
        if self.at == StreamId::ZERO {
            return Ok(Lost::Nothing);
        }
        let mut there = redis::cmd("XRANGE");
        there.arg(&self.key).arg(self.at.to_string()).arg(self.at.to_string());
        if !self.link.query::<StreamRangeReply>(&self.key, &there).await?.ids.is_empty() {
            return Ok(Lost::Nothing);
        }
        if !idle {
            return Ok(Lost::Something);
        }
        // Nothing new, and what we read last is gone: trimmed to nothing, which costs nothing, or another stream.
        let mut last = redis::cmd("XREVRANGE");
        last.arg(&self.key).arg("+").arg("-").arg("COUNT").arg(1);
        let newest = self.link.query::<StreamRangeReply>(&self.key, &last).await?.ids.pop();
        let older = newest.and_then(|entry| entry.id.parse::<StreamId>().ok()).is_some_and(|id| id < self.at);
        Ok(if older { Lost::Everything } else { Lost::Nothing })
    }

    /// Tells the engine whether the end is reached.
    async fn tell(&self, reached: bool) -> Result<(), Ended> {
        self.send(Input::StreamEnd { source: self.source.clone(), reached }).await
    }

    async fn send(&self, input: Input) -> Result<(), Ended> {
        self.input.send(input).await.map_err(|_| Ended)
    }
}

/// What of a stream is gone unread.
enum Lost {
    Nothing,
    Something,
    Everything,
}
