//! All of ingest in this process, over the in-process log: what a gateway runs that has no Redis. The feed is the
//! simulator's, or a recording's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::log::{LogReader, LogWriter, MemoryLog, MemorySettings};
use crate::mcm::McmReader;
use crate::metrics::Metrics;
use crate::pacing::{Pacer, Speed};
use crate::recording::{Recording, RecordingError};
use crate::service::{Ingest, Input, Settings, Window};
use crate::simulator::{Config, Simulator};

/// How often the simulator is asked what happened.
const STEP: Duration = Duration::from_millis(20);
/// The room of a shard's log. Less than in Redis: nobody is away for long inside one process.
const LOG: MemorySettings =
    MemorySettings { entries: 16_384, bytes: 64 << 20, lease: Duration::from_secs(3) };

/// An embedded feed, not yet started.
#[derive(Debug)]
pub struct Embedded {
    feed: Feed,
    settings: Settings,
}

#[derive(Debug)]
enum Feed {
    Simulator { seed: u64, config: Config },
    Replay { recording: Recording, speed: Speed },
}

/// A running one.
#[derive(Debug)]
pub struct Running {
    ingest: Ingest,
    driver: JoinHandle<()>,
}

/// Why an embedded feed can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The recording.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The metrics.
    #[error("metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Embedded {
    /// The simulator's markets. `rate` is a factor on their activity: 1 is about 110 updates a second.
    ///
    /// # Errors
    /// As [`Settings::new`].
    pub fn simulator(seed: u64, rate: f64) -> Result<Self, EmbeddedError> {
        Self::simulate(seed, Config { rate, ..Config::default() })
    }

    /// The same with every setting of the simulator.
    ///
    /// # Errors
    /// As [`Settings::new`].
    pub fn simulate(seed: u64, config: Config) -> Result<Self, EmbeddedError> {
        Self::new(Feed::Simulator { seed, config })
    }

    /// A recording of Betfair's `mcm` messages.
    ///
    /// # Errors
    /// Where it can't be opened.
    pub fn replay(path: impl Into<PathBuf>, speed: Speed) -> Result<Self, EmbeddedError> {
        Self::new(Feed::Replay { recording: Recording::open(path.into())?, speed })
    }

    fn new(feed: Feed) -> Result<Self, EmbeddedError> {
        let mut settings = Settings::new()?;
        settings.engine.log_capacity = LOG.entries as u64;
        Ok(Self { feed, settings })
    }

    /// The number of shards; 64 where it is not set.
    #[must_use]
    pub fn with_shards(mut self, shards: u16) -> Self {
        self.settings.engine.shards = shards;
        self
    }

    /// Starts it. Needs a running Tokio. What comes back first is to be followed; the feed runs until the token is
    /// cancelled.
    #[must_use]
    pub fn start(self, cancel: CancellationToken) -> (LogReader, Running) {
        let log = MemoryLog::new(LOG);
        let (ingest, _) = Ingest::start(self.settings, LogWriter::from(log.clone()), cancel.clone());
        let input = ingest.input().clone();
        let driver = tokio::spawn(async move {
            let feed = async {
                match self.feed {
                    Feed::Simulator { seed, config } => simulate(seed, config, &input).await,
                    Feed::Replay { recording, speed } => replay(recording, speed, &input).await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = feed => cancel.cancelled().await,
            }
        });
        (LogReader::from(log), Running { ingest, driver })
    }
}

impl Running {
    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.ingest.metrics()
    }

    /// A way to look at the engine.
    #[must_use]
    pub fn window(&self) -> Window {
        self.ingest.window()
    }

    /// Stops it.
    pub async fn stop(self) {
        let Self { ingest, driver } = self;
        ingest.stop().await;
        if let Err(error) = driver.await {
            tracing::error!(%error, "the embedded feed ended badly");
        }
    }
}

async fn simulate(seed: u64, config: Config, input: &tokio::sync::mpsc::Sender<Input>) {
    let source: Arc<str> = config.source.clone();
    let mut simulator = Simulator::new(seed, config);
    let mut tick = interval(STEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let (at, mut updates) = (now_ms(), Vec::new());
        simulator.advance(at, &mut updates);
        if updates.is_empty() {
            continue;
        }
        // Waits where the engine is behind: what the simulator says then is merged into its next step.
        if input.send(Input::Updates { source: source.clone(), updates, at }).await.is_err() {
            return;
        }
    }
}

async fn replay(mut recording: Recording, speed: Speed, input: &tokio::sync::mpsc::Sender<Input>) {
    let source: Arc<str> = "replay".into();
    let (mut reader, mut pacer, start) = (McmReader::new(), Pacer::new(speed), Instant::now());
    let mut problems = Vec::new();
    loop {
        let mut updates = Vec::new();
        // A line is read in microseconds: the file is local.
        let read = match recording.next_line() {
            Ok(Some(line)) => reader.read(&source, line, &mut updates, &mut problems),
            Ok(None) => {
                tracing::info!(
                    lines = recording.line(),
                    "the recording is over; its markets stay as they ended"
                );
                return;
            }
            Err(error) => {
                tracing::error!(%error, "the recording ends here");
                return;
            }
        };
        for problem in problems.drain(..) {
            tracing::warn!(line = recording.line(), "{problem}");
        }
        if let Some(pt) = read.pt {
            sleep_until(start + pacer.due(pt)).await;
        }
        if updates.is_empty() {
            continue;
        }
        let at = read.pt.unwrap_or_else(now_ms);
        if input.send(Input::Updates { source: source.clone(), updates, at }).await.is_err() {
            return;
        }
    }
}
