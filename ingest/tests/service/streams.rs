//! Over a real Redis server: a source's stream, read by ingests that die, stop and take over from each other.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use tictac_ingest::log::{LogReader, RedisLog};
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::testing::RedisServer;
use tictac_ingest::update::Update;
use tictac_proto::wire::FeedState;

use crate::follow::Gateway;
use crate::over_redis::{Process, SHARDS, Source, redis, same};

/// A source that never sends an image again.
struct Told {
    source: Source,
    simulator: Simulator,
    now: i64,
}

impl Told {
    async fn new(server: &RedisServer) -> Self {
        let source = Source::new(server, "demo").await;
        Self { source, simulator: Simulator::new(3, Config::default()), now: 1_764_000_000_000 }
    }

    async fn go_on(&mut self, messages: usize) {
        let mut updates: Vec<Update> = Vec::new();
        for _ in 0..messages {
            updates.clear();
            self.simulator.advance(self.now, &mut updates);
            self.now += 200;
            self.source.add(&updates).await;
        }
    }
}

async fn settled(gateway: &mut Gateway, told: &Told, what: &str) {
    gateway.until(what, |g| g.feed("demo") == FeedState::Live && same(&told.simulator, &g.books())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_while_no_ingest_runs_is_not_missed() {
    let server = RedisServer::start().unwrap();
    let mut told = Told::new(&server).await;
    told.go_on(100).await;
    let process = Process::reading(&server, &["demo"]);
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    settled(&mut gateway, &told, "what was there before the first ingest").await;

    // Whoever asks for an image here was not able to go on without.
    let mut control = redis::Client::open(server.url()).unwrap().get_async_pubsub().await.unwrap();
    control.subscribe("odds:ctl:demo").await.unwrap();
    told.go_on(50).await;
    process.kill();
    told.go_on(50).await;
    let process = Process::reading(&server, &["demo"]);
    settled(&mut gateway, &told, "killed and started again").await;
    process.stop().await;
    told.go_on(50).await;
    let process = Process::reading(&server, &["demo"]);
    settled(&mut gateway, &told, "stopped and started again").await;
    process.stop().await;
    told.source.heard_out(&mut control).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_is_never_recovering_for_longer_than_it_takes_to_read_the_rest() {
    let server = RedisServer::start().unwrap();
    let mut told = Told::new(&server).await;
    told.go_on(50).await;
    let mut owner = Process::reading(&server, &["demo"]);
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    settled(&mut gateway, &told, "the first one").await;
    for round in 0..3 {
        let next = Process::reading(&server, &["demo"]);
        next.is_warm().await;
        let before: BTreeMap<u16, _> = gateway.followers.iter().map(|(s, f)| (*s, f.at())).collect();
        told.go_on(20).await;
        owner.stop().await;
        told.go_on(20).await;
        gateway
            .until("taken over", |g| g.followers.iter().all(|(s, f)| f.at().epoch > before[s].epoch))
            .await;
        settled(&mut gateway, &told, &format!("round {round}")).await;
        owner = next;
    }
    owner.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_trimmed_before_it_was_read_is_asked_for() {
    let server = RedisServer::start().unwrap();
    let mut told = Told::new(&server).await;
    told.go_on(50).await;
    let process = Process::reading(&server, &["demo"]);
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    settled(&mut gateway, &told, "before").await;
    process.stop().await;
    told.go_on(50).await;
    server.command(&[b"XTRIM", b"odds:in:demo", b"MAXLEN", b"3"]).unwrap();
    let mut control = redis::Client::open(server.url()).unwrap().get_async_pubsub().await.unwrap();
    control.subscribe("odds:ctl:demo").await.unwrap();
    let process = Process::reading(&server, &["demo"]);
    gateway.until("the loss is seen", |g| g.feed("demo") == FeedState::Stale).await;
    let mut messages = control.on_message();
    let asked = async {
        loop {
            let message: String = messages.next().await.unwrap().get_payload().unwrap();
            if message.contains("\"op\":\"image\"") {
                return;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), asked).await.expect("images are asked for");
    let mut images = Vec::new();
    told.simulator.images(&mut images);
    told.source.add(&images).await;
    settled(&mut gateway, &told, "imaged").await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_the_stream_too_costs_images() {
    let mut server = RedisServer::start().unwrap();
    let mut told = Told::new(&server).await;
    told.go_on(50).await;
    let process = Process::reading(&server, &["demo"]);
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    settled(&mut gateway, &told, "before").await;
    server.restart().unwrap();
    told.source = Source::after(&server, told.source).await;
    told.go_on(5).await;
    gateway.until("the loss is seen", |g| g.feed("demo") == FeedState::Stale).await;
    let mut images = Vec::new();
    told.simulator.images(&mut images);
    told.source.add(&images).await;
    settled(&mut gateway, &told, "imaged").await;
    process.stop().await;
}
