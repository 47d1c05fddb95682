//! A gateway: its threads and channels, from settings and a log to follow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tictac_ingest::log::LogReader;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::canary::{self, CanaryParts, Report};
use crate::feed::{self, ASKS_WAITING, CORE_WAITING, FeedParts, Readiness};
use crate::http::HttpState;
use crate::hub::Hub;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::time::Clock;
use crate::worker::{self, WorkerParts};

/// Checksums of sources that may wait for the canary.
const TOLD_WAITING: usize = 1_024;

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Its metrics.
    pub metrics: Metrics,
    /// Whether it is ready.
    pub readiness: watch::Receiver<Readiness>,
    /// How its canary does.
    pub canary: watch::Receiver<Report>,
    /// Its limits.
    pub limits: Arc<Limits>,
    workers: Vec<JoinHandle<()>>,
    feed: JoinHandle<()>,
    stopping: CancellationToken,
    stop_workers: CancellationToken,
    stop_feed: CancellationToken,
}

fn thread(name: String, task: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(name);
    Ok(thread.spawn(move || runtime.block_on(task))?)
}

impl Gateway {
    /// Starts a gateway.
    ///
    /// # Errors
    /// If the address can't be bound or a thread not be started.
    pub fn start(settings: Settings, reader: LogReader) -> anyhow::Result<Self> {
        let settings = Arc::new(settings);
        let metrics = Metrics::new();
        let limits = Limits::new(&settings, metrics.clone());
        let clock = Clock::default();
        let cores = match settings.cores {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(64),
            n => usize::from(n),
        };
        let listeners = worker::listen(settings.listen, cores).with_context(|| {
            format!(
                "--listen {}: can't be bound; is another gateway running? choose another port",
                settings.listen
            )
        })?;
        let address = listeners[0].local_addr()?;
        let (stop_workers, stop_feed) = (CancellationToken::new(), CancellationToken::new());
        let (asks_sender, asks) = mpsc::channel(ASKS_WAITING);
        let (readiness_sender, readiness) = watch::channel(Readiness::default());
        let mut senders = Vec::new();
        let mut canary_cores = Vec::new();
        let mut workers = Vec::new();
        for (number, listener) in listeners.into_iter().enumerate() {
            let (sender, news) = mpsc::channel(CORE_WAITING);
            senders.push(sender);
            let (arrivals_sender, arrivals) = mpsc::channel(1024);
            canary_cores.push(arrivals_sender.clone());
            let state = HttpState {
                settings: settings.clone(),
                limits: limits.clone(),
                clock,
                hub: asks_sender.clone(),
                arrivals: arrivals_sender,
            };
            let parts = WorkerParts {
                number,
                settings: settings.clone(),
                limits: limits.clone(),
                metrics: metrics.clone(),
                clock,
                hub: asks_sender.clone(),
                news,
                arrivals,
                stop: stop_workers.clone(),
            };
            let stop = stop_workers.clone();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let builder = std::thread::Builder::new().name(format!("core-{number}"));
            workers.push(builder.spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async move {
                    tokio::task::spawn_local(worker::accept(listener, state, stop));
                    worker::run(parts).await;
                });
            })?);
        }
        let (told_sender, told) = mpsc::channel(TOLD_WAITING);
        let (report, canary) = watch::channel(Report::default());
        let canary_parts = CanaryParts {
            cores: canary_cores,
            told,
            metrics: metrics.clone(),
            // Two and a half heartbeats, as any client, and something for a busy machine.
            silence: Duration::from_millis(u64::from(settings.heartbeat_ms) * 5 / 2 + 1_000),
            report,
            stop: stop_workers.clone(),
        };
        workers.push(thread("canary".into(), canary::run(canary_parts))?);
        let parts = FeedParts {
            reader,
            hub: Hub::new(settings.shards, cores, i64::from(settings.checksum_ms)),
            clock,
            metrics: metrics.clone(),
            asks,
            cores: senders,
            canary: told_sender,
            readiness: readiness_sender,
            stop: stop_feed.clone(),
        };
        let feed = thread("feed".into(), feed::run(parts))?;
        let stopping = CancellationToken::new();
        Ok(Self {
            address,
            metrics,
            readiness,
            canary,
            limits,
            workers,
            feed,
            stopping,
            stop_workers,
            stop_feed,
        })
    }

    /// Whether a thread has ended that should not have: the gateway is to be ended, and started anew by whoever does that.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.feed.is_finished() || self.workers.iter().any(JoinHandle::is_finished)
    }

    /// Cancelled once the gateway is going to stop: it is not ready any more. To say so ahead of [`Self::stop`], cancel it.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Tells every client, waits until they are gone or their deadline is over, then ends the threads.
    ///
    /// # Errors
    /// If a thread panicked.
    pub fn stop(self) -> anyhow::Result<()> {
        self.stopping.cancel();
        self.stop_workers.cancel();
        for worker in self.workers {
            worker.join().map_err(|_| anyhow::anyhow!("a core's thread panicked: see the log"))?;
        }
        self.stop_feed.cancel();
        self.feed.join().map_err(|_| anyhow::anyhow!("the feed's thread panicked: see the log"))
    }
}
