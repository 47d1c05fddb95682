//! A source of simulated markets over a real Redis, which knows the truth, answers when it is asked for images, and
//! outlives the Redis and the ingest that it speaks to.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use redis::aio::MultiplexedConnection;
use tictac_ingest::native::NativeWriter;
use tictac_ingest::simulator::truth::TruthMarket;
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::testing::RedisServer;
use tictac_ingest::update::Update;
use tictac_proto::model::MarketId;
use tokio_util::sync::CancellationToken;

use super::now_ms;
use super::store::Doors;

/// The markets as they are.
pub type Truth = BTreeMap<MarketId, TruthMarket>;

/// Simulated time between two messages, ms.
const STEP: i64 = 100;
/// How many messages may be published and not yet taken.
const WINDOW: u64 = 200;
/// How long ingest may take to say something.
const WITHIN: Duration = Duration::from_secs(30);

/// How long saying something may take where nobody waits for it.
const SHORT: Duration = Duration::from_millis(500);

type Controls = Pin<Box<dyn Stream<Item = redis::Msg> + Send>>;

pub struct Source {
    doors: Doors,
    /// Which of them is tried next.
    turn: usize,
    publish: MultiplexedConnection,
    control: Controls,
    simulator: Simulator,
    writer: NativeWriter,
    now: i64,
    seq: u64,
    taken: u64,
    wanted: bool,
    /// Markets that ingest asked for.
    asked: BTreeSet<MarketId>,
    /// How often images were sent because ingest asked for them.
    pub imaged: u64,
}

async fn connect(doors: &Doors, turn: usize) -> redis::RedisResult<(MultiplexedConnection, Controls)> {
    let client = doors.now(turn).await?;
    let publish = client.get_multiplexed_async_connection().await?;
    let mut control = client.get_async_pubsub().await?;
    control.subscribe("odds:ctl:demo").await?;
    Ok((publish, Box::pin(control.into_on_message())))
}

impl Source {
    /// A source whose markets are all imaged to an ingest that listens.
    pub async fn new(server: &RedisServer, seed: u64) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let mut source = Self::through(Doors::Servers(vec![client]), seed).await;
        let deadline = tokio::time::Instant::now() + WITHIN;
        while source.say(&[]).await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "no ingest listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        source
    }

    /// The same, where there is more than one way in, once an ingest listens: in a Cluster nobody says how many do.
    pub async fn through(doors: Doors, seed: u64) -> Self {
        let (publish, control) = connect(&doors, 0).await.unwrap();
        Self {
            doors,
            turn: 0,
            publish,
            control,
            simulator: Simulator::new(seed, Config::default()),
            writer: NativeWriter::default(),
            now: now_ms() as i64,
            seq: 0,
            taken: 0,
            wanted: false,
            asked: BTreeSet::new(),
            imaged: 0,
        }
    }

    /// The markets as they are now.
    pub fn truth(&self) -> Truth {
        self.simulator.truth().map(|(id, market)| (id.clone(), market.clone())).collect()
    }

    /// Publishes; to how many. What is lost has a number all the same.
    async fn say(&mut self, updates: &[Update]) -> i64 {
        self.seq += 1;
        let mut message = String::new();
        self.writer.write_envelope("demo", self.seq, self.now, updates, &mut message);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg("odds:in:demo").arg(message);
        if let Ok(heard) = publish.query_async(&mut self.publish).await {
            return heard;
        }
        self.connect().await;
        0
    }

    async fn connect(&mut self) {
        let deadline = tokio::time::Instant::now() + WITHIN;
        loop {
            self.turn += 1;
            match connect(&self.doors, self.turn).await {
                Ok((publish, control)) => {
                    (self.publish, self.control) = (publish, control);
                    return;
                }
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn take(&mut self, message: &redis::Msg) {
        let text: String = message.get_payload().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        match json["op"].as_str().unwrap() {
            "taken" => self.taken = self.taken.max(json["seq"].as_u64().unwrap()),
            "image" => {
                self.wanted = true;
                let markets = json["markets"].as_array().unwrap().iter();
                self.asked.extend(markets.map(|market| MarketId::from(market.as_str().unwrap())));
            }
            other => panic!("ingest says {other}"),
        }
    }

    async fn answer(&mut self) {
        while let Some(Some(message)) = self.control.next().now_or_never() {
            self.take(&message);
        }
        if std::mem::take(&mut self.wanted) {
            let images = self.images();
            self.say(&images).await;
            self.imaged += 1;
        }
    }

    /// Every market whole; what was asked for and is not there any more is gone.
    fn images(&mut self) -> Vec<Update> {
        let mut images = Vec::new();
        self.simulator.images(&mut images);
        for (market, _) in self.simulator.truth() {
            self.asked.remove(market);
        }
        images.extend(std::mem::take(&mut self.asked).into_iter().map(|market| Update::Gone { market }));
        images
    }

    /// Lets so much happen, in steps of a tenth of a second, as fast as ingest takes it.
    pub async fn play(&mut self, steps: u32) {
        for _ in 0..steps {
            self.now += STEP;
            let mut updates = Vec::new();
            self.simulator.advance(self.now, &mut updates);
            let heard = self.say(&updates).await;
            self.answer().await;
            while heard > 0 && self.seq - self.taken > WINDOW {
                let message = tokio::time::timeout(WITHIN, self.control.next()).await;
                let message = message.expect("ingest says what it takes");
                match message {
                    Some(message) => self.take(&message),
                    None => self.connect().await,
                }
                self.answer().await;
            }
        }
    }

    /// Goes on by so many steps, or says that it is alive; answers what it is asked. Never waits for long: what can't be
    /// said now is lost.
    pub async fn tick(&mut self, steps: u32) {
        let mut updates = Vec::new();
        for _ in 0..steps {
            self.now += STEP;
            self.simulator.advance(self.now, &mut updates);
        }
        let said = tokio::time::timeout(SHORT, self.try_say(&updates)).await;
        if !matches!(said, Ok(Ok(()))) {
            self.turn += 1;
            let again = tokio::time::timeout(SHORT, connect(&self.doors, self.turn)).await;
            if let Ok(Ok((publish, control))) = again {
                (self.publish, self.control) = (publish, control);
            }
            return;
        }
        while let Some(Some(message)) = self.control.next().now_or_never() {
            self.take(&message);
        }
        if std::mem::take(&mut self.wanted) {
            let images = self.images();
            let said = tokio::time::timeout(SHORT, self.try_say(&images)).await;
            self.imaged += u64::from(matches!(said, Ok(Ok(()))));
        }
    }

    async fn try_say(&mut self, updates: &[Update]) -> redis::RedisResult<()> {
        self.seq += 1;
        let mut message = String::new();
        self.writer.write_envelope("demo", self.seq, self.now, updates, &mut message);
        redis::cmd("PUBLISH").arg("odds:in:demo").arg(message).query_async(&mut self.publish).await
    }

    /// Says nothing new, but that it is alive, and what it is asked for.
    pub async fn attend(&mut self, until: &CancellationToken) {
        while !until.is_cancelled() {
            self.say(&[]).await;
            self.answer().await;
            tokio::select! {
                () = until.cancelled() => {}
                message = self.control.next() => match message {
                    Some(message) => self.take(&message),
                    None => self.connect().await,
                },
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    }
}
