//! The loop around the engine.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tictac_proto::log::CATALOGUE;
use tictac_proto::wire::Times;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::intake::Intake;
use super::writing::{Outcome, acquire, alive, append};
use super::{Input, Look, Settings};
use crate::clock::now_ms;
use crate::engine::{Control, Engine, Lane};
use crate::log::{LogError, LogWriter};

/// How often the engine is told the time.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks for metrics.
const METRICS_TICKS: u32 = 10;
/// Messages taken in at once before what came of them is written.
const AT_ONCE: usize = 256;
/// How long stopping may take.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// Tries that stand for another owner's lease: they are about a tenth of a second apart, so that its end is soon seen.
const STANDING_BY: u32 = 2;
/// How often a shard that is not to be had is told of.
const TELL_EVERY: Duration = Duration::from_secs(10);

type Work = Pin<Box<dyn Future<Output = (u16, Outcome)> + Send>>;

/// What a shard is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Writing,
    Acquiring,
}

#[derive(Debug)]
struct Desk {
    doing: Doing,
    tries: u32,
}

/// The engine and what is under way around it.
pub(super) struct Task {
    engine: Engine,
    intake: Intake,
    settings: Settings,
    log: LogWriter,
    control: mpsc::Sender<(Arc<str>, Control)>,
    desks: BTreeMap<u16, Desk>,
    work: FuturesUnordered<Work>,
    told: Option<Instant>,
    stopping: bool,
}

impl Task {
    pub(super) fn new(
        settings: Settings,
        log: LogWriter,
        control: mpsc::Sender<(Arc<str>, Control)>,
    ) -> Self {
        let engine = Engine::new(settings.engine.clone());
        let desks = engine.shards().map(|s| (s, Desk { doing: Doing::Nothing, tries: 0 })).collect();
        Self {
            engine,
            intake: Intake::default(),
            settings,
            log,
            control,
            desks,
            work: FuturesUnordered::new(),
            told: None,
            stopping: false,
        }
    }

    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut looks: mpsc::Receiver<Look>,
        cancel: CancellationToken,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = 0u32;
        let mut buffer = Vec::with_capacity(AT_ONCE);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some((shard, outcome)) = self.work.next(), if !self.work.is_empty() => self.done(shard, outcome),
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.time(ticks.is_multiple_of(METRICS_TICKS));
                }
                Some(look) = looks.recv() => look(&self.engine),
                count = inputs.recv_many(&mut buffer, AT_ONCE) => {
                    if count == 0 {
                        // Every sender is gone: there is still time to be told, and the token to wait for.
                        tokio::select! {
                            () = cancel.cancelled() => break,
                            () = tokio::time::sleep(TICK) => self.time(true),
                        }
                    }
                    for input in buffer.drain(..) {
                        self.take(input);
                    }
                    self.say();
                }
            }
            self.start();
        }
        self.stop().await;
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Message { source, payload, received } => {
                self.intake.message(&mut self.engine, &source, &payload, received);
            }
            Input::Updates { source, updates, at } => {
                let received = now_ms();
                if self.engine.add_source(&source, Lane::Embedded, received) {
                    self.engine.handle_updates(
                        &source,
                        updates,
                        Times { source: at, received, ..Times::default() },
                    );
                }
            }
            Input::Dropped { source } => self.engine.handle_loss(&source),
            Input::Broken => self.engine.handle_input_break(),
        }
    }

    fn time(&mut self, metrics: bool) {
        let now = now_ms();
        self.engine.handle_time(now);
        self.intake.forget(&mut self.engine);
        self.say();
        if metrics {
            self.settings.metrics.observe(&self.engine, now);
        }
    }

    /// Says to sources what is to be said. Where the channel is full it is lost: all of it is said again in time.
    fn say(&mut self) {
        for (source, control) in self.engine.take_control(now_ms()) {
            if matches!(control, Control::Taken { .. }) {
                self.settings.metrics.taken.inc();
            }
            if self.control.try_send((source, control)).is_err() {
                break;
            }
        }
    }

    /// Starts what can be started.
    fn start(&mut self) {
        let now = now_ms();
        for (shard, desk) in &mut self.desks {
            if desk.doing != Doing::Nothing {
                continue;
            }
            let (log, owner, shard) = (self.log.clone(), self.settings.owner.clone(), *shard);
            if !self.engine.owns(shard) {
                if !self.stopping {
                    desk.doing = Doing::Acquiring;
                    let seen = self.engine.seen_epoch(shard);
                    self.work.push(Box::pin(acquire(log, owner, shard, seen, desk.tries)));
                }
            } else if let Some(message) = self.engine.take_alive(shard, now) {
                desk.doing = Doing::Writing;
                self.work.push(Box::pin(alive(log, owner, shard, message)));
            } else if let Some(batch) = self.engine.take_batch(shard, now) {
                desk.doing = Doing::Writing;
                self.work.push(Box::pin(append(log, owner, shard, batch)));
            }
        }
    }

    fn done(&mut self, shard: u16, outcome: Outcome) {
        let Some(desk) = self.desks.get_mut(&shard) else { return };
        desk.doing = Doing::Nothing;
        match outcome {
            Outcome::Written { entries, seconds } => {
                let metrics = &self.settings.metrics;
                metrics.entries.inc_by(entries as u64);
                metrics.batches.inc();
                metrics.append_seconds.observe(seconds);
                // Where the engine gave the shard up meanwhile, this says nothing to it.
                self.engine.handle_written(shard);
            }
            Outcome::Said => self.engine.handle_written(shard),
            Outcome::Refused(error) => {
                tracing::warn!(shard = name(shard), %error, "refused by the log: taking the shard over again");
                self.engine.handle_lost(shard);
            }
            Outcome::Acquired(acquired) => {
                desk.tries = 0;
                tracing::debug!(
                    shard = name(shard),
                    epoch = acquired.epoch,
                    n = acquired.n,
                    markets = acquired.markets.len(),
                    "taken over"
                );
                self.engine.handle_acquired(shard, *acquired, now_ms());
                // One line when it matters, not one for each of dozens of shards.
                if self.engine.shards().all(|s| self.engine.owns(s)) {
                    let (shards, markets) = (self.engine.shards().count(), self.engine.len());
                    tracing::info!(shards, markets, "every shard is ours");
                }
            }
            Outcome::Denied(error) => {
                let standing_by = matches!(error, LogError::Fenced { owner: Some(_), .. });
                desk.tries = if standing_by { STANDING_BY } else { desk.tries + 1 };
                if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    self.told = Some(Instant::now());
                    let missing = self.engine.shards().filter(|s| !self.engine.owns(*s)).count();
                    match error {
                        LogError::Fenced { owner: Some(owner), .. } => tracing::info!(
                            missing,
                            owner,
                            "another ingest owns the shards: standing by with warm books"
                        ),
                        error => {
                            tracing::warn!(missing, %error, "shards can't be taken over yet: trying again")
                        }
                    }
                }
            }
        }
    }

    /// Writes what waits, then gives the shards up.
    async fn stop(&mut self) {
        self.stopping = true;
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            self.start();
            let waits = self.engine.backlog() > 0 || self.desks.values().any(|d| d.doing == Doing::Writing);
            if !waits {
                break;
            }
            match tokio::time::timeout_at(deadline, self.work.next()).await {
                Ok(Some((shard, outcome))) => self.done(shard, outcome),
                Ok(None) | Err(_) => break,
            }
        }
        let owned: Vec<u16> = self.engine.shards().filter(|s| self.engine.owns(*s)).collect();
        for shard in owned {
            let release = self.log.release(shard, &self.settings.owner);
            match tokio::time::timeout_at(deadline, release).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(shard = name(shard), %error, "not given up; its lease will run out")
                }
                Err(_) => break,
            }
        }
        self.settings.metrics.observe(&self.engine, now_ms());
    }
}

fn name(shard: u16) -> String {
    if shard == CATALOGUE { "catalogue".into() } else { shard.to_string() }
}
