//! One place for an ingest: its process, its way to the log, and the wire that brings it what sources and others say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tictac_ingest::clock::now_ms;
use tictac_ingest::engine::{Control, Engine};
use tictac_ingest::log::{LogWriter, MemoryLog, Owner};
use tictac_ingest::service::{GRACE, Ingest, Input, Settings};
use tictac_ingest::testing::FaultyLog;
use tictac_proto::model::MarketId;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::source::NAME;

pub const SHARDS: u16 = 3;
/// Messages that may be on their way; more would be a mistake of the world's.
pub const ROOM: usize = 10_000;
/// Most entries of a shard's log, and how many the engine counts on.
pub const LOG_ENTRIES: usize = 600;
const COUNTED_ON: u64 = 400;

/// What goes wrong on the wire of one ingest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wire {
    /// Nothing comes.
    pub is_deaf: bool,
    /// Of a thousand messages so many are lost, and as many of what it says.
    pub lost: u32,
    /// Longest time that one takes, ms.
    pub delay: u64,
}

pub struct Place {
    number: u16,
    pub log: FaultyLog,
    pub wire: Arc<Mutex<Wire>>,
    /// Where what comes over the wire goes.
    input: Arc<Mutex<Option<mpsc::Sender<Input>>>>,
    ingest: Option<Ingest>,
    pause: watch::Sender<bool>,
    lives: u64,
    asked: mpsc::Sender<Vec<MarketId>>,
    dice: SmallRng,
}

impl Place {
    /// An empty place, and the end of its wire that a source holds.
    pub fn new(
        number: u16,
        log: MemoryLog,
        free: &broadcast::Sender<u16>,
        asked: mpsc::Sender<Vec<MarketId>>,
        mut dice: SmallRng,
    ) -> (Self, mpsc::Sender<Bytes>) {
        let way = SmallRng::seed_from_u64(dice.random());
        let (wire, input) = (Arc::<Mutex<Wire>>::default(), Arc::default());
        let (sender, receiver) = mpsc::channel(ROOM);
        let along = SmallRng::seed_from_u64(dice.random());
        tokio::spawn(bring(receiver, free.subscribe(), wire.clone(), Arc::clone(&input), along));
        let log = FaultyLog::new(log, way, free.clone());
        let pause = watch::channel(false).0;
        (Self { number, log, wire, input, ingest: None, pause, lives: 0, asked, dice }, sender)
    }

    pub fn start(&mut self) {
        self.lives += 1;
        let mut settings = Settings::new().unwrap();
        settings.owner = Owner { id: format!("{}-{}", self.number, self.lives), slot: self.number * 100 };
        settings.grace = GRACE;
        settings.engine.shards = SHARDS;
        settings.engine.log_capacity = COUNTED_ON;
        settings.engine.stale_after = 2_000;
        settings.engine.snapshot_every = 1_000;
        settings.engine.keep_log = 4_000;
        settings.engine.gone_after = 3_000;
        self.pause = watch::channel(false).0;
        settings.pause = self.pause.subscribe();
        let (ingest, controls) =
            Ingest::start(settings, LogWriter::from(self.log.clone()), CancellationToken::new());
        *self.input.lock().unwrap() = Some(ingest.input().clone());
        let along = SmallRng::seed_from_u64(self.dice.random());
        tokio::spawn(carry(controls, self.wire.clone(), self.asked.clone(), along));
        self.ingest = Some(ingest);
    }

    /// It ends at once, wherever it is.
    pub fn kill(&mut self) {
        *self.input.lock().unwrap() = None;
        if let Some(ingest) = self.ingest.take() {
            ingest.kill();
        }
    }

    /// It is told to stop, and ends in its time.
    pub fn stop(&mut self) {
        if let Some(ingest) = self.ingest.take() {
            tokio::spawn(ingest.stop());
        }
        *self.input.lock().unwrap() = None;
    }

    /// Nothing of it runs, or it goes on.
    pub fn pause(&self, pause: bool) {
        self.pause.send_replace(pause);
    }

    /// The shards that it owns.
    pub async fn owned(&self) -> Vec<u16> {
        let owned = |engine: &Engine| engine.shards().filter(|shard| engine.owns(*shard)).collect();
        self.look(owned).await.unwrap_or_default()
    }

    /// Whether it could take over what others own without asking for anything.
    pub async fn is_warm(&self) -> bool {
        self.look(|engine| engine.is_covered() && engine.is_warm()).await == Some(true)
    }

    async fn look<T: Send + 'static>(&self, at: impl FnOnce(&Engine) -> T + Send + 'static) -> Option<T> {
        self.ingest.as_ref()?.window().look(at).await
    }

    pub fn runs(&self) -> bool {
        self.ingest.is_some()
    }

    /// It is told of something, if it listens.
    pub fn tell(&self, input: Input) {
        tell(&self.input, input);
    }
}

fn tell(to: &Mutex<Option<mpsc::Sender<Input>>>, input: Input) {
    if let Some(sender) = &*to.lock().unwrap()
        && sender.try_send(input).is_err()
    {
        // A process that was stopped for long: what does not fit is told as lost when it goes on.
        let _ = sender.try_send(Input::Broken);
    }
}

/// Brings what sources and owners say.
async fn bring(
    mut messages: mpsc::Receiver<Bytes>,
    mut free: broadcast::Receiver<u16>,
    wire: Arc<Mutex<Wire>>,
    to: Arc<Mutex<Option<mpsc::Sender<Input>>>>,
    mut dice: SmallRng,
) {
    loop {
        let input = tokio::select! {
            payload = messages.recv() => {
                let Some(payload) = payload else { return };
                Input::Message { source: NAME.into(), payload, received: 0 }
            }
            Ok(shard) = free.recv() => Input::Free { shard },
        };
        let now = *wire.lock().unwrap();
        if now.is_deaf || dice.random_range(0..1000) < now.lost {
            continue;
        }
        if now.delay > 0 {
            sleep(Duration::from_millis(dice.random_range(0..=now.delay))).await;
        }
        let input = match input {
            Input::Message { source, payload, .. } => Input::Message { source, payload, received: now_ms() },
            other => other,
        };
        tell(&to, input);
    }
}

/// Carries what an ingest says to its sources.
async fn carry(
    mut controls: mpsc::Receiver<(Arc<str>, Control)>,
    wire: Arc<Mutex<Wire>>,
    asked: mpsc::Sender<Vec<MarketId>>,
    mut dice: SmallRng,
) {
    while let Some((_, control)) = controls.recv().await {
        let now = *wire.lock().unwrap();
        let lost = now.is_deaf || dice.random_range(0..1000) < now.lost;
        if let (Control::Image(markets), false) = (control, lost) {
            // Where there is no room it is asked again.
            let _ = asked.try_send(markets);
        }
    }
}
