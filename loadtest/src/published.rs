//! The whole way of an update, to be measured: a source that publishes to Redis, ingest that takes it from there and writes the log,
//! and a gateway that follows it. Source, ingest and gateway are one process; Redis is another.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tictac_gateway::settings::Settings;
use tictac_ingest::log::{LogReader, LogWriter, RedisLog, RedisSettings};
use tictac_ingest::native::NativeWriter;
use tictac_ingest::redis_input;
use tictac_ingest::service::{Ingest, Settings as IngestSettings};
use tictac_ingest::update::Update;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::pulse;

/// How long ingest may take until it listens.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// How long Redis may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A source and ingest.
pub struct Published {
    connection: redis::Connection,
    writer: NativeWriter,
    channel: String,
    message: String,
    seq: u64,
    log: RedisLog,
    ingest: Ingest,
    input: JoinHandle<anyhow::Result<()>>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published")
            .field("channel", &self.channel)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

impl Published {
    /// Starts ingest over the Redis of a gateway with these settings, until it hears the source. Its log has room for as many
    /// `entries` a shard.
    ///
    /// # Errors
    /// If there is no such Redis, or nobody listens.
    pub fn start(
        runtime: &Runtime,
        gateway: &Settings,
        entries: u64,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let url = gateway.redis.clone().context("--redis: say which Redis")?;
        let mut redis = RedisSettings::new(url.clone());
        redis.prefix.clone_from(&gateway.prefix);
        let log = RedisLog::new(redis.clone())?;
        let channel = format!("{}:in:{}", redis.prefix, pulse::SOURCE);
        let (ingest, input) = runtime.block_on(async {
            let mut settings = IngestSettings::new().context("metrics")?;
            settings.engine.shards = gateway.shards;
            settings.engine.log_capacity = entries;
            let metrics = settings.metrics.clone();
            let (ingest, controls) = Ingest::start(settings, LogWriter::from(log.clone()), cancel.clone());
            let (input, cancel) = (ingest.input().clone(), cancel.clone());
            let input =
                tokio::spawn(
                    async move { Ok(redis_input::run(redis, controls, input, metrics, cancel).await?) },
                );
            anyhow::Ok((ingest, input))
        })?;
        let connection = redis::Client::open(url)?.get_connection()?;
        connection.set_read_timeout(Some(ANSWER_WITHIN))?;
        let (writer, message) = (NativeWriter::default(), String::new());
        let mut published = Self { connection, writer, channel, message, seq: 0, log, ingest, input };
        let begun = Instant::now();
        while published.publish(&[], pulse::now_us() / 1_000)? == 0 {
            ensure!(
                begun.elapsed() < HEARD_WITHIN,
                "nobody listens to {:?} after {HEARD_WITHIN:?}: TICTAC_LOG_FILTER=info says what ingest does",
                published.channel
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(published)
    }

    /// What the gateway follows.
    #[must_use]
    pub fn log(&self) -> LogReader {
        self.log.clone().into()
    }

    /// Publishes; how many heard it.
    fn publish(&mut self, updates: &[Update], at: i64) -> anyhow::Result<i64> {
        self.seq += 1;
        self.message.clear();
        self.writer.write_envelope(pulse::SOURCE, self.seq, at, updates, &mut self.message);
        let mut publish = redis::cmd("PUBLISH");
        Ok(publish.arg(&self.channel).arg(&self.message).query(&mut self.connection)?)
    }

    /// Publishes these updates, of this time in Unix ms.
    ///
    /// # Errors
    /// If Redis is gone, or ingest does not listen any more.
    pub fn say(&mut self, updates: &[Update], at: i64) -> anyhow::Result<()> {
        let heard = self.publish(updates, at).with_context(|| format!("PUBLISH {:?}", self.channel))?;
        ensure!(
            heard > 0,
            "nobody listens to {:?} any more: the warnings above say why, or TICTAC_LOG_FILTER=info",
            self.channel
        );
        Ok(())
    }

    /// Waits until ingest has ended, once it was told to.
    ///
    /// # Errors
    /// If taking in had failed.
    pub fn end(self, runtime: &Runtime) -> anyhow::Result<()> {
        let Self { ingest, input, .. } = self;
        runtime.block_on(async {
            ingest.finished().await;
            input.await?
        })
    }
}
