//! The service: the engine's async shell. One task owns the engine; around it are futures that write to the log, at
//! most one a shard, while the shard's next batch gathers. What is to be written goes as soon as the log is free.
//!
//! | file | what it holds |
//! |---|---|
//! | `mod` | settings, the handle |
//! | `task` | the loop around the engine |
//! | `writing` | batches, `alive`s and takeovers under way |
//! | `intake` | a source's bytes → updates |

mod intake;
mod task;
pub(crate) mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chance::random;
use crate::engine::{Control, Engine, EngineSettings};
use crate::log::{LogWriter, Owner};
use crate::metrics::Metrics;
use crate::operator::Act;
use crate::stream_id::StreamId;
use crate::update::Update;

/// Messages that may wait for the engine.
const INPUT_CAPACITY: usize = 8_192;
/// Messages to sources that may wait to be sent.
const CONTROL_CAPACITY: usize = 256;

/// What others may take that wait to try again, and something for the way: who has just started lets them go first.
pub const GRACE: Duration = Duration::from_millis(600);

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The engine's.
    pub engine: EngineSettings,
    /// Who writes.
    pub owner: Owner,
    /// Where it is counted.
    pub metrics: Metrics,
    /// How many messages may wait for the engine.
    pub input_capacity: usize,
    /// Sources that are read from streams.
    pub streams: Vec<Arc<str>>,
    /// How long after its start it takes no shard that is free: whoever runs already knows more, and goes first.
    pub grace: Duration,
    /// For simulations: while it is true nothing of the service runs, as in a process that is stopped.
    #[cfg(feature = "testing")]
    pub pause: watch::Receiver<bool>,
}

/// Where each source's stream is to be read from.
pub type Starts = BTreeMap<Arc<str>, StreamId>;

impl Settings {
    /// Defaults, with an owner that nobody else has.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut random = random();
        let owner =
            Owner { id: format!("{:016x}", random.random::<u64>()), slot: random.random_range(0..1024) };
        Ok(Self {
            engine: EngineSettings::default(),
            owner,
            metrics: Metrics::new()?,
            input_capacity: INPUT_CAPACITY,
            streams: Vec::new(),
            grace: Duration::ZERO,
            #[cfg(feature = "testing")]
            pause: watch::channel(false).1,
        })
    }
}

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A message of a source, as it came.
    Message {
        /// The source.
        source: Arc<str>,
        /// The message.
        payload: Bytes,
        /// When it came, Unix ms.
        received: i64,
    },
    /// An entry of a source's stream, none left out since the one before.
    Entry {
        /// The source.
        source: Arc<str>,
        /// Which one.
        id: StreamId,
        /// The message in it.
        payload: Bytes,
        /// When it was read, Unix ms.
        received: i64,
    },
    /// A source's stream is read up to its end, or there is more of it.
    StreamEnd {
        /// The source.
        source: Arc<str>,
        /// Whether the end is reached.
        reached: bool,
    },
    /// A source's stream can't be read on where it was left: what was there is lost, and ids begin anew.
    StreamReset {
        /// The source.
        source: Arc<str>,
    },
    /// An owner gave a shard up.
    Free {
        /// The shard.
        shard: u16,
    },
    /// An operator did something.
    Operator {
        /// What.
        act: Act,
    },
    /// Updates of a source in this process, of which nothing is ever lost.
    Updates {
        /// The source.
        source: Arc<str>,
        /// The updates.
        updates: Vec<Update>,
        /// When the source said them, Unix ms.
        at: i64,
    },
    /// Messages of a source were dropped.
    Dropped {
        /// The source.
        source: Arc<str>,
    },
    /// The subscription to the sources broke.
    Broken,
}

type Look = Box<dyn FnOnce(&Engine) + Send>;

/// A running ingest.
#[derive(Debug)]
pub struct Ingest {
    input: mpsc::Sender<Input>,
    looks: mpsc::Sender<Look>,
    task: JoinHandle<()>,
    cancel: CancellationToken,
    metrics: Metrics,
    starts: watch::Receiver<Option<Starts>>,
}

impl Ingest {
    /// Starts. The receiver brings what is to be said to sources; where nobody reads it, it is dropped.
    #[must_use]
    pub fn start(
        settings: Settings,
        log: LogWriter,
        cancel: CancellationToken,
    ) -> (Self, mpsc::Receiver<(Arc<str>, Control)>) {
        let (input, inputs) = mpsc::channel(settings.input_capacity);
        let (looks, look_requests) = mpsc::channel(16);
        let (control, controls) = mpsc::channel(CONTROL_CAPACITY);
        let metrics = settings.metrics.clone();
        let (starts_known, starts) = watch::channel(None);
        #[cfg(feature = "testing")]
        let pause = settings.pause.clone();
        let task = task::Task::new(settings, log, control, starts_known);
        let task = task.run(inputs, look_requests, cancel.clone());
        #[cfg(feature = "testing")]
        let task = crate::testing::virtual_time::Pausable::new(task, pause);
        let task = tokio::spawn(task);
        (Self { input, looks, task, cancel, metrics, starts }, controls)
    }

    /// Where input goes.
    #[must_use]
    pub fn input(&self) -> &mpsc::Sender<Input> {
        &self.input
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where sources' streams are to be read from: known once the log of every shard is.
    #[must_use]
    pub fn starts(&self) -> watch::Receiver<Option<Starts>> {
        self.starts.clone()
    }

    /// A way to look at the engine from elsewhere.
    #[must_use]
    pub fn window(&self) -> Window {
        Window { looks: self.looks.clone() }
    }

    /// Stops: what waits is written, the shards are given up.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.finished().await;
    }

    /// Waits until the service has stopped, after its token was cancelled.
    pub async fn finished(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the engine's task ended badly");
        }
    }

    /// Ends at once, as a killed process does: nothing is written any more and no shard is given up.
    pub fn kill(self) {
        self.task.abort();
    }
}

/// Looks at the engine while it runs.
#[derive(Clone)]
pub struct Window {
    looks: mpsc::Sender<Look>,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Window")
    }
}

impl Window {
    /// What `look` makes of the engine; `None` where the service has ended.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let look: Look = Box::new(move |engine| {
            // Nobody waits any more: fine.
            let _ = answer.send(look(engine));
        });
        self.looks.send(look).await.ok()?;
        answered.await.ok()
    }
}
