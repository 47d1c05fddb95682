//! The whole chain over a real Redis: sources publish, ingest takes, a gateway follows.

use std::time::Duration;

use futures_util::StreamExt;
use tictac_gateway::gateway::Gateway;
use tictac_ingest::log::{LogReader, LogWriter, RedisLog, RedisSettings};
use tictac_ingest::redis_input;
use tictac_ingest::service::{Ingest, Settings, Window};
use tictac_ingest::testing::RedisServer;
use tictac_proto::model::Book;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SHARDS;

/// How many lines may be published and not yet taken.
const WINDOW: u64 = 200;

pub fn redis_settings(server: &RedisServer) -> RedisSettings {
    RedisSettings { lease: Duration::from_secs(3), ..RedisSettings::new(server.url()) }
}

pub fn reader(server: &RedisServer) -> LogReader {
    RedisLog::new(redis_settings(server)).unwrap().into()
}

/// An ingest as `tictac-ingest run` is one.
pub struct IngestProcess {
    ingest: Ingest,
    tasks: Vec<JoinHandle<()>>,
    cancel: CancellationToken,
}

impl IngestProcess {
    pub fn start(server: &RedisServer) -> Self {
        let mut settings = Settings::new().unwrap();
        settings.engine.shards = SHARDS;
        let cancel = CancellationToken::new();
        let log = RedisLog::new(redis_settings(server)).unwrap();
        let metrics = settings.metrics.clone();
        let (ingest, controls) = Ingest::start(settings, LogWriter::from(log), cancel.clone());
        let input = ingest.input().clone();
        let run = redis_input::run(redis_settings(server), controls, input, metrics, cancel.clone());
        let tasks = vec![tokio::spawn(async { run.await.unwrap() })];
        Self { ingest, tasks, cancel }
    }

    pub fn window(&self) -> Window {
        self.ingest.window()
    }

    /// Its own book of a market.
    pub async fn book(&self, market: &str) -> Option<Book> {
        let market = market.to_owned();
        self.ingest.window().look(move |engine| engine.book(&market).cloned()).await.unwrap()
    }

    /// Ends it as SIGKILL would: nothing is finished, no lease given back.
    pub fn kill(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.ingest.kill();
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        self.ingest.stop().await;
    }
}

/// A source that publishes messages as envelopes, paced by what ingest says it took.
pub struct Upstream {
    name: String,
    publish: redis::aio::MultiplexedConnection,
    control: redis::aio::PubSub,
    seq: u64,
    taken: u64,
}

impl Upstream {
    pub async fn new(server: &RedisServer, name: &str) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let publish = client.get_multiplexed_async_connection().await.unwrap();
        let mut control = client.get_async_pubsub().await.unwrap();
        control.subscribe(format!("odds:ctl:{name}")).await.unwrap();
        let mut upstream = Self { name: name.to_owned(), publish, control, seq: 0, taken: 0 };
        // Until somebody listens.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while upstream.send("{\"op\":\"alive\"}").await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "no ingest listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        upstream
    }

    /// Goes on with the same numbers once an ingest listens again.
    pub async fn resume(server: &RedisServer, before: Self) -> Self {
        let mut next = Self::new(server, &before.name).await;
        (next.seq, next.taken) = (before.seq.max(next.seq), before.taken);
        next
    }

    async fn send(&mut self, body: &str) -> i64 {
        let envelope =
            format!("{{\"src\":\"{}\",\"seq\":{},\"ts\":1,\"body\":{body}}}", self.name, self.seq + 1);
        let channel = format!("odds:in:{}", self.name);
        let heard: i64 =
            redis::cmd("PUBLISH").arg(channel).arg(envelope).query_async(&mut self.publish).await.unwrap();
        // What nobody heard was not said.
        self.seq += u64::from(heard > 0);
        heard
    }

    /// Publishes one message body.
    pub async fn say(&mut self, body: &str) {
        assert!(self.send(body).await > 0, "no ingest listens any more");
        if self.seq - self.taken > WINDOW {
            self.until_taken(self.seq - WINDOW / 2).await;
        }
    }

    /// Waits until ingest has taken everything.
    pub async fn settle(&mut self) {
        self.until_taken(self.seq).await;
    }

    async fn until_taken(&mut self, seq: u64) {
        let mut messages = self.control.on_message();
        while self.taken < seq {
            let message = tokio::time::timeout(Duration::from_secs(30), messages.next()).await;
            let message = message.expect("ingest says what it takes").expect("the control channel stays");
            let text: String = message.get_payload().unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            if json["op"] == "taken" {
                self.taken = self.taken.max(json["seq"].as_u64().unwrap());
            }
        }
    }
}

pub fn gateway(server: &RedisServer, more: &[&str]) -> (Gateway, String) {
    super::start(reader(server), more)
}
