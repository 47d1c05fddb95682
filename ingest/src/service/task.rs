//! The loop around the engine.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tictac_proto::log::CATALOGUE;
use tictac_proto::wire::Times;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::intake::Intake;
use super::writing::{Outcome, acquire, alive, append, ledger, look, pause};
use super::{Input, Look, Settings, Starts};
use crate::clock::now_ms;
use crate::engine::{Control, Engine, Lane};
use crate::log::{LogError, LogWriter};
use crate::operator::{Act, Action, Ledger};

/// How often the engine is told the time.
const TICK: Duration = Duration::from_millis(50);
/// Ticks between two looks for metrics.
const METRICS_TICKS: u32 = 10;
/// Messages taken in at once before what came of them is written.
const AT_ONCE: usize = 256;
/// How long stopping may take.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How often the operators' ledger is read, though nobody told of an act.
const LEDGER_EVERY: Duration = Duration::from_secs(1);
/// The same while it was never read, or can't be reached.
const LEDGER_AGAIN: Duration = Duration::from_millis(100);
/// How often a shard that is not to be had is told of.
const TELL_EVERY: Duration = Duration::from_secs(10);

type Work = Pin<Box<dyn Future<Output = (u16, Outcome)> + Send>>;

/// What a shard is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Writing,
    Acquiring,
    Looking,
}

#[derive(Debug)]
struct Desk {
    doing: Doing,
    tries: u32,
    /// Before the next try.
    pause: Duration,
    /// Whether what is stored is known: the shard was ours once, or we looked.
    primed: bool,
    /// The epoch that somebody else was last seen to write under.
    epoch: u64,
    /// An owner that has just begun may not have written its images yet when we look: the next time we are denied we look
    /// (again).
    look_next: bool,
    look_now: bool,
    /// Told when the shard is said to be free.
    free: Arc<Notify>,
}

impl Desk {
    fn new(pause: Duration) -> Self {
        let free = Arc::new(Notify::new());
        Self {
            doing: Doing::Nothing,
            tries: 0,
            pause,
            primed: false,
            epoch: 0,
            look_next: false,
            look_now: false,
            free,
        }
    }

    /// Somebody else owns the shard, under this epoch.
    fn held(&mut self, epoch: u64) {
        self.look_now = !self.primed || self.look_next && epoch == self.epoch;
        self.look_next = epoch != self.epoch;
        self.epoch = epoch;
    }
}

/// The engine and what is under way around it.
pub(super) struct Task {
    engine: Engine,
    intake: Intake,
    settings: Settings,
    log: LogWriter,
    control: mpsc::Sender<(Arc<str>, Control)>,
    desks: BTreeMap<u16, Desk>,
    /// Where sources' streams are to be read from, once it is known.
    starts: watch::Sender<Option<Starts>>,
    work: FuturesUnordered<Work>,
    told: Option<Instant>,
    /// Whether it is known what operators did: before that nothing is taken in, so that nothing is opened.
    ledger_known: bool,
    /// Whether the ledger that is being read is read since we were last told that we missed what was said.
    ledger_is_news: bool,
    /// When the ledger is to be read next; `None` while that is under way.
    ledger_due: Option<Instant>,
    /// Acts that are to be stored again.
    ledger_missing: Vec<Act>,
    stopping: bool,
}

impl Task {
    pub(super) fn new(
        settings: Settings,
        log: LogWriter,
        control: mpsc::Sender<(Arc<str>, Control)>,
        starts: watch::Sender<Option<Starts>>,
    ) -> Self {
        let mut engine = Engine::new(settings.engine.clone());
        for source in &settings.streams {
            engine.open_stream(source, now_ms());
        }
        let desks = engine.shards().map(|s| (s, Desk::new(settings.grace))).collect();
        Self {
            engine,
            intake: Intake::default(),
            settings,
            log,
            control,
            desks,
            starts,
            work: FuturesUnordered::new(),
            told: None,
            ledger_known: false,
            ledger_is_news: false,
            ledger_due: Some(Instant::now()),
            ledger_missing: Vec::new(),
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
                count = inputs.recv_many(&mut buffer, AT_ONCE), if self.ledger_known => {
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
            Input::Entry { source, id, payload, received } => {
                self.engine.handle_stream_entry(&source, id);
                self.intake.message(&mut self.engine, &source, &payload, received);
            }
            Input::StreamEnd { source, reached } => self.engine.handle_stream_end(&source, reached),
            Input::Operator { act } => self.operate(&act),
            Input::StreamReset { source } => self.engine.handle_stream_reset(&source),
            Input::Free { shard } => {
                if let Some(desk) = self.desks.get(&shard) {
                    desk.free.notify_one();
                }
            }
            Input::Dropped { source } => self.engine.handle_loss(&source),
            Input::Broken => {
                self.engine.handle_input_break();
                // What an operator did may be among what was missed: nothing is live before that is known.
                self.engine.handle_blind(true);
                self.ledger_is_news = false;
                self.ledger_due = self.ledger_due.map(|due| due.min(Instant::now()));
            }
        }
    }

    /// An act that was told of: what is held is read from the ledger, at once.
    fn operate(&mut self, act: &Act) {
        let Ok(scope) = act.check() else { return };
        if act.action == Action::Image {
            tracing::info!(action = ?act.action, scope = act.scope, by = act.by, why = act.why, "operator");
            self.engine.handle_image_wish(&scope, now_ms());
        } else {
            self.ledger_due = self.ledger_due.map(|due| due.min(Instant::now()));
        }
    }

    fn read_ledger(&mut self, stored: Result<Ledger, LogError>) {
        let is_read = stored.is_ok();
        match stored {
            Ok(stored) => {
                self.ledger_known = true;
                if self.ledger_is_news {
                    self.engine.handle_blind(false);
                }
                self.ledger_missing = self.engine.handle_ledger(&stored, now_ms());
            }
            Err(error) => tracing::debug!(%error, "the operators' ledger can't be read"),
        }
        self.ledger_due = Some(Instant::now() + if is_read { LEDGER_EVERY } else { LEDGER_AGAIN });
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
        if self.ledger_due.is_some_and(|due| due <= Instant::now()) && !self.stopping {
            self.ledger_due = None;
            self.ledger_is_news = true;
            let missing = std::mem::take(&mut self.ledger_missing);
            self.work.push(Box::pin(ledger(self.log.clone(), missing)));
        }
        if !self.ledger_known {
            return;
        }
        let now = now_ms();
        for (shard, desk) in &mut self.desks {
            if desk.doing != Doing::Nothing {
                continue;
            }
            let (log, owner, shard) = (self.log.clone(), self.settings.owner.clone(), *shard);
            if !self.engine.owns(shard) {
                if !self.stopping && desk.look_now && self.engine.is_held(shard) {
                    (desk.doing, desk.look_now) = (Doing::Looking, false);
                    self.work.push(Box::pin(look(log, shard)));
                } else if !self.stopping {
                    desk.doing = Doing::Acquiring;
                    let seen = self.engine.seen_epoch(shard);
                    self.work.push(Box::pin(acquire(log, owner, shard, seen, desk.pause, desk.free.clone())));
                }
            } else if let Some((message, resume)) = self.engine.take_alive(shard, now) {
                desk.doing = Doing::Writing;
                self.work.push(Box::pin(alive(log, owner, shard, message, resume)));
            } else if let Some(batch) = self.engine.take_batch(shard, now) {
                desk.doing = Doing::Writing;
                self.work.push(Box::pin(append(log, owner, shard, batch)));
            }
        }
    }

    fn done(&mut self, shard: u16, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Ledger(stored) => return self.read_ledger(stored),
            other => other,
        };
        let Some(desk) = self.desks.get_mut(&shard) else { return };
        let was = std::mem::replace(&mut desk.doing, Doing::Nothing);
        match outcome {
            Outcome::Written { entries, seconds } => {
                let metrics = &self.settings.metrics;
                metrics.entries.inc_by(entries as u64);
                metrics.batches.inc();
                metrics.append_seconds.observe(seconds);
                // Where the engine gave the shard up meanwhile, this says nothing to it.
                self.engine.handle_written(shard);
            }
            Outcome::Ledger(_) => {}
            Outcome::Said => self.engine.handle_written(shard),
            Outcome::Refused(error) => {
                tracing::warn!(shard = name(shard), %error, "refused by the log: taking the shard over again");
                self.engine.handle_lost(shard);
                if let LogError::Fenced { stored, .. } = error {
                    self.engine.handle_epoch(shard, stored.epoch);
                }
            }
            Outcome::Acquired(acquired) => {
                (desk.tries, desk.pause, desk.primed) = (0, Duration::ZERO, true);
                tracing::debug!(
                    shard = name(shard),
                    epoch = acquired.epoch,
                    n = acquired.n,
                    markets = acquired.markets.len(),
                    "taken over"
                );
                self.engine.handle_acquired(shard, *acquired, now_ms());
                self.intake.restore(&mut self.engine);
                self.say_starts();
                // One line when it matters, not one for each of dozens of shards.
                if self.engine.shards().all(|s| self.engine.owns(s)) {
                    let (shards, markets) = (self.engine.shards().count(), self.engine.len());
                    tracing::info!(shards, markets, "every shard is ours");
                }
            }
            Outcome::Looked(stored) => {
                (desk.tries, desk.primed) = (0, true);
                self.engine.handle_primed(shard, *stored, now_ms());
                self.intake.restore(&mut self.engine);
                self.say_starts();
            }
            Outcome::Denied(error) => {
                desk.look_next |= was == Doing::Looking;
                desk.tries = if matches!(error, LogError::Held { .. }) { 0 } else { desk.tries + 1 };
                desk.pause = pause(&error, desk.tries);
                self.engine.handle_denied(shard, matches!(error, LogError::Held { .. }));
                if let LogError::Held { epoch, .. } = error {
                    desk.held(epoch);
                    self.engine.handle_epoch(shard, epoch);
                }
                if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    self.told = Some(Instant::now());
                    let missing = self.engine.shards().filter(|s| !self.engine.owns(*s)).count();
                    match error {
                        LogError::Held { owner, .. } => tracing::info!(
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

    /// Says where sources' streams are to be read from, once it is known what every shard's log holds of them.
    fn say_starts(&mut self) {
        if self.starts.borrow().is_none() && self.desks.values().all(|d| d.primed) {
            self.starts.send_replace(Some(self.engine.start_streams()));
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
