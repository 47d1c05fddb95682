//! The worker's loop: news of the hub, arrivals, time, and the end.

use std::cell::RefCell;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tictac_proto::wire::CloseCode;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::conn::Conns;
use super::{Arrival, Shared, Worker, socket, tap};
use crate::core::{Core, SessionLimits};
use crate::feed::HubInput;
use crate::hub::ToCore;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::time::Clock;

/// How often bounds of time are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Sessions that are not gone by then after being told are cut, ms.
const DRAIN_DEADLINE: i64 = 6_000;
/// What one read from a client may bring.
const READ: usize = 16 * 1024;
/// How often connections may go on between two passes, as long as they have something to do.
const TURNS: usize = 64;
/// Batches of news that one pass takes in at most; more wait for the next one.
const BATCHES: usize = 64;

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// Its number.
    pub number: usize,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Shared limits.
    pub limits: Arc<Limits>,
    /// Metrics.
    pub metrics: Metrics,
    /// The clock.
    pub clock: Clock,
    /// To the hub.
    pub hub: mpsc::Sender<HubInput>,
    /// From the hub.
    pub news: mpsc::Receiver<Vec<ToCore>>,
    /// Arrivals, from the accept loop's handlers.
    pub arrivals: mpsc::Receiver<Arrival>,
    /// When to end.
    pub stop: CancellationToken,
}

impl Worker {
    /// One without connections.
    pub(super) fn new(
        number: usize,
        settings: Arc<Settings>,
        limits: Arc<Limits>,
        metrics: Metrics,
        clock: Clock,
        hub: mpsc::Sender<HubInput>,
    ) -> Self {
        let session_limits = SessionLimits { subscriptions: settings.subscriptions, scopes: 64 };
        let mut core = Core::new(number, session_limits);
        core.set_shards(settings.shards);
        Self {
            core,
            conns: Conns::default(),
            hub,
            asks: VecDeque::new(),
            due: BinaryHeap::new(),
            settings,
            limits,
            metrics,
            clock,
            heard_hub: clock.mono(),
            next_sweep: if number == 0 { 0 } else { i64::MAX },
            draining: None,
            tasks: 0,
            buffer: vec![0; READ].into(),
            scratch: Vec::new(),
            turns: 0,
            pass_is_due: false,
        }
    }

    fn take_news(&mut self, batch: Vec<ToCore>) {
        self.heard_hub = self.clock.mono();
        for message in batch {
            self.core.handle(message);
        }
    }

    /// Writes what is new to everybody. What the hub says meanwhile is taken in at once: who comes later in the pass is told of
    /// it in the same write, and who came before is told in the next pass, which begins with those.
    fn pass(&mut self, news: &mut mpsc::Receiver<Vec<ToCore>>) {
        let mut batches = 0;
        let mut take_news = |worker: &mut Self| {
            while batches < BATCHES
                && let Ok(batch) = news.try_recv()
            {
                worker.take_news(batch);
                batches += 1;
            }
        };
        take_news(self);
        let (dirty, stops) = (self.core.take_dirty(), self.core.take_stops_said());
        self.flush_all(&dirty, take_news);
        self.measure_stops(stops);
    }

    /// How long stops took that were just written to everybody whose socket has room.
    pub(super) fn measure_stops(&mut self, said: Vec<i64>) {
        if said.is_empty() {
            return;
        }
        let now = self.clock.now().wall;
        for said in said {
            self.metrics.stop_seconds.observe((now - said).max(0) as f64 / 1_000.0);
        }
    }
}

/// A pass over thousands of clients takes long, and under load the next one is due already: clients must be heard in between,
/// or they are taken for silent. The runtime lets some dozens of connections go on at a time.
async fn hear(shared: &Shared, arrivals: &mut mpsc::Receiver<Arrival>, news: &mpsc::Receiver<Vec<ToCore>>) {
    for _ in 0..TURNS {
        let before = {
            let worker = &mut *shared.borrow_mut();
            worker.pass_is_due = worker.core.is_dirty() || !news.is_empty();
            worker.turns
        };
        while let Ok(arrival) = arrivals.try_recv() {
            arrived(shared, arrival);
        }
        tokio::task::yield_now().await;
        if shared.borrow().turns == before {
            break;
        }
    }
    shared.borrow_mut().pass_is_due = false;
}

/// Begins a connection's task.
fn arrived(shared: &Shared, arrival: Arrival) {
    shared.borrow_mut().tasks += 1;
    let shared = shared.clone();
    tokio::task::spawn_local(async move {
        match arrival {
            Arrival::Socket(arrival) => socket::serve(shared.clone(), arrival).await,
            Arrival::Tap(tap) => tap::serve(shared.clone(), tap).await,
        }
        shared.borrow_mut().tasks -= 1;
    });
}

/// Runs a worker until it is told to stop.
pub async fn run(parts: WorkerParts) {
    let WorkerParts { number, settings, limits, metrics, clock, hub, mut news, mut arrivals, stop } = parts;
    let shared: Shared = Rc::new(RefCell::new(Worker::new(number, settings, limits, metrics, clock, hub)));
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            batch = news.recv() => {
                let Some(batch) = batch else { break };
                {
                    let mut worker = shared.borrow_mut();
                    worker.take_news(batch);
                    worker.pass(&mut news);
                }
                hear(&shared, &mut arrivals, &news).await;
            }
            // News that came during a pass.
            () = std::future::ready(()), if shared.borrow().core.is_dirty() => {
                shared.borrow_mut().pass(&mut news);
                hear(&shared, &mut arrivals, &news).await;
            }
            // Once nobody accepts any more there are those that are here already.
            Some(arrival) = arrivals.recv() => arrived(&shared, arrival),
            _ = tick.tick() => {
                let mut worker = shared.borrow_mut();
                worker.tick();
                let late = |since: i64| worker.clock.now().mono - since > DRAIN_DEADLINE;
                if worker.draining.is_some_and(|since| (worker.tasks == 0 && arrivals.is_empty()) || late(since)) {
                    break;
                }
            }
            () = stop.cancelled(), if shared.borrow().draining.is_none() => {
                let mut worker = shared.borrow_mut();
                worker.draining = Some(worker.clock.now().mono);
                for id in worker.core.sessions() {
                    worker.core.close(id, CloseCode::Restart, "the gateway restarts");
                }
                worker.flush_touched();
            }
        }
    }
}
