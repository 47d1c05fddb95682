//! The whole way of an update, to be measured: a source that publishes to a Redis of its own, ingest that takes it from there and
//! writes the log, and a gateway that follows it. Redis is a process beside this one, on the same CPU.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tictac_gateway::settings::Settings;
use tictac_ingest::log::{LogReader, LogWriter, RedisLog, RedisSettings};
use tictac_ingest::native::NativeWriter;
use tictac_ingest::redis_input;
use tictac_ingest::service::{Ingest, Settings as IngestSettings};
use tictac_ingest::testing::RedisServer;
use tictac_ingest::update::Update;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::pulse;

/// How long ingest may take until it listens.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// A source, its Redis and ingest.
pub struct Published {
    connection: redis::Connection,
    writer: NativeWriter,
    channel: String,
    message: String,
    seq: u64,
    log: RedisLog,
    ingest: Ingest,
    input: JoinHandle<anyhow::Result<()>>,
    /// Ends when this does.
    _server: RedisServer,
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
    /// Starts Redis and ingest, for a gateway with these settings, until ingest hears the source.
    ///
    /// # Errors
    /// If there is no `redis-server`, or nobody listens.
    pub fn start(runtime: &Runtime, gateway: &Settings, cancel: &CancellationToken) -> anyhow::Result<Self> {
        let server = RedisServer::start().map_err(anyhow::Error::msg)?;
        let mut redis = RedisSettings::new(server.url());
        redis.prefix.clone_from(&gateway.prefix);
        let log = RedisLog::new(redis.clone())?;
        let channel = format!("{}:in:{}", redis.prefix, pulse::SOURCE);
        let (ingest, input) = runtime.block_on(async {
            let mut settings = IngestSettings::new().context("metrics")?;
            settings.engine.shards = gateway.shards;
            let metrics = settings.metrics.clone();
            let (ingest, controls) = Ingest::start(settings, LogWriter::from(log.clone()), cancel.clone());
            let (input, cancel) = (ingest.input().clone(), cancel.clone());
            let input =
                tokio::spawn(
                    async move { Ok(redis_input::run(redis, controls, input, metrics, cancel).await?) },
                );
            anyhow::Ok((ingest, input))
        })?;
        let connection = redis::Client::open(server.url())?.get_connection()?;
        let (writer, message) = (NativeWriter::default(), String::new());
        let mut published =
            Self { connection, writer, channel, message, seq: 0, log, ingest, input, _server: server };
        let begun = Instant::now();
        while published.publish(&[], pulse::now_us() / 1_000)? == 0 {
            ensure!(begun.elapsed() < HEARD_WITHIN, "ingest does not listen after {HEARD_WITHIN:?}");
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
        ensure!(self.publish(updates, at)? > 0, "ingest does not listen any more");
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
