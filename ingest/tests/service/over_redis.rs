//! Over a real Redis server: sources publish, gateways follow.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tictac_ingest::admin::{self, Admin};
use tictac_ingest::log::{LogReader, LogWriter, RedisLog, RedisSettings};
use tictac_ingest::native::NativeWriter;
use tictac_ingest::pacing::Speed;
use tictac_ingest::replay::{ReplaySettings, replay};
use tictac_ingest::service::{Ingest, Settings};
use tictac_ingest::simulator::recording::Recording;
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::testing::RedisServer;
use tictac_ingest::{redis_input, stream_input, update::Update};
use tictac_proto::model::{Book, MarketId};
use tictac_proto::wire::FeedState;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::follow::Gateway;

pub(crate) const SHARDS: u16 = 4;

/// An ingest as `tictac-ingest run` is one.
pub(crate) struct Process {
    ingest: Ingest,
    tasks: Vec<JoinHandle<()>>,
    cancel: CancellationToken,
}

pub(crate) fn redis(server: &RedisServer) -> RedisSettings {
    RedisSettings { lease: Duration::from_millis(800), ..RedisSettings::new(server.url()) }
}

impl Process {
    pub(crate) fn start(server: &RedisServer) -> Self {
        Self::reading(server, &[])
    }

    /// One that reads streams.
    pub(crate) fn reading(server: &RedisServer, streams: &[&str]) -> Self {
        Self::with(&redis(server), streams)
    }

    pub(crate) fn with(redis: &RedisSettings, streams: &[&str]) -> Self {
        let redis = || redis.clone();
        let mut settings = Settings::new().unwrap();
        settings.engine.shards = SHARDS;
        settings.streams = streams.iter().map(|s| Arc::from(*s)).collect();
        let cancel = CancellationToken::new();
        let log = RedisLog::new(redis()).unwrap();
        let metrics = settings.metrics.clone();
        let (ingest, controls) = Ingest::start(settings, LogWriter::from(log), cancel.clone());
        let run = redis_input::run(redis(), controls, ingest.input().clone(), metrics, cancel.clone());
        let read = stream_input::listen(redis(), ingest.starts(), ingest.input().clone(), cancel.clone());
        let tasks =
            vec![tokio::spawn(async { run.await.unwrap() }), tokio::spawn(async { read.await.unwrap() })];
        Self { ingest, tasks, cancel }
    }

    /// Waits until this one could take over without asking for anything.
    pub(crate) async fn is_warm(&self) {
        let window = self.ingest.window();
        let warm = async {
            while window.look(|e| e.is_covered() && e.is_warm()).await != Some(true) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), warm).await.expect("warm in time");
    }

    /// Its port for operators; where it is.
    pub(crate) async fn admin(&self, server: &RedisServer) -> SocketAddr {
        let listener = admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = RedisLog::new(redis(server)).unwrap().into();
        let port = Admin { metrics: self.ingest.metrics().clone(), window: self.ingest.window(), log };
        tokio::spawn(admin::serve(listener, port, self.cancel.clone()));
        address
    }

    pub(crate) fn kill(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.ingest.kill();
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.ingest.stop().await;
    }
}

/// A source that publishes native envelopes.
pub(crate) struct Source {
    connection: redis::aio::MultiplexedConnection,
    writer: NativeWriter,
    name: &'static str,
    seq: u64,
}

impl Source {
    pub(crate) async fn new(server: &RedisServer, name: &'static str) -> Self {
        Self::at(&server.url(), name).await
    }

    pub(crate) async fn at(url: &str, name: &'static str) -> Self {
        let client = redis::Client::open(url).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        Self { connection, writer: NativeWriter::default(), name, seq: 0 }
    }

    pub(crate) async fn say(&mut self, updates: &[Update]) -> i64 {
        self.seq += 1;
        let mut message = String::new();
        self.writer.write_envelope(self.name, self.seq, 1_764_000_000_000, updates, &mut message);
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("odds:in:{}", self.name)).arg(message);
        publish.query_async(&mut self.connection).await.unwrap()
    }

    /// Says it to the stream, so that nobody has to listen.
    pub(crate) async fn add(&mut self, updates: &[Update]) {
        self.seq += 1;
        let mut message = String::new();
        self.writer.write_envelope(self.name, self.seq, 1_764_000_000_000, updates, &mut message);
        let mut add = redis::cmd("XADD");
        add.arg(format!("odds:in:{}", self.name)).arg("*").arg(stream_input::FIELD).arg(message);
        add.query_async::<String>(&mut self.connection).await.unwrap();
    }

    /// The same source, on a server that was restarted.
    pub(crate) async fn after(server: &RedisServer, before: Self) -> Self {
        Self { connection: Self::new(server, before.name).await.connection, ..before }
    }

    /// Checks that nobody asked this source for an image on a control channel so far.
    pub(crate) async fn heard_out(&mut self, control: &mut redis::aio::PubSub) {
        let mut end = redis::cmd("PUBLISH");
        end.arg(format!("odds:ctl:{}", self.name)).arg("end");
        end.query_async::<i64>(&mut self.connection).await.unwrap();
        let mut messages = control.on_message();
        loop {
            let message: String = messages.next().await.unwrap().get_payload().unwrap();
            assert!(!message.contains("\"op\":\"image\""), "{message}");
            if message == "end" {
                return;
            }
        }
    }

    /// Says nothing until somebody listens.
    pub(crate) async fn heard(&mut self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.say(&[]).await == 0 {
            assert!(tokio::time::Instant::now() < deadline, "nobody listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn same(simulator: &Simulator, books: &BTreeMap<MarketId, Book>) -> bool {
    let mut count = 0;
    simulator.truth().all(|(id, truth)| {
        count += 1;
        books.get(id).is_some_and(|book| truth.differs(book).is_none())
    }) && count == books.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_publishes_is_what_a_gateway_has_also_after_a_kill() {
    let server = RedisServer::start().unwrap();
    let process = Process::start(&server);
    let mut source = Source::new(&server, "demo").await;
    source.heard().await;
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    let mut simulator = Simulator::new(3, Config::default());
    let mut now = 1_764_000_000_000;
    for _ in 0..200 {
        let mut updates = Vec::new();
        simulator.advance(now, &mut updates);
        now += 200;
        source.say(&updates).await;
    }
    gateway.until("books are the source's", |g| same(&simulator, &g.books())).await;
    gateway.until("the feed is live", |g| g.feed("demo") == FeedState::Live).await;
    assert_eq!(gateway.books().len(), gateway.listed().len());
    let before: BTreeMap<u16, _> = gateway.followers.iter().map(|(s, f)| (*s, f.at())).collect();
    let books = gateway.books();

    process.kill();
    let next = Process::start(&server);
    gateway
        .until("the next one takes over", |g| g.followers.iter().all(|(s, f)| f.at().epoch > before[s].epoch))
        .await;
    assert!(gateway.followers.iter().all(|(s, f)| f.at().seq >= before[s].seq), "numbers go on");
    gateway.until("it has the books", |g| g.all_following() && g.books() == books).await;
    gateway.until("it has not heard the source", |g| g.feed("demo") == FeedState::Down).await;

    source.heard().await;
    gateway.until("heard, its books are not confirmed", |g| g.feed("demo") == FeedState::Recovering).await;
    let mut images = Vec::new();
    simulator.images(&mut images);
    source.say(&images).await;
    gateway.until("imaged, it is live", |g| g.feed("demo") == FeedState::Live).await;
    images.clear();
    simulator.advance(now + 5_000, &mut images);
    source.say(&images).await;
    gateway.until("it goes on", |g| same(&simulator, &g.books())).await;

    // One that stops gives its shards up: nobody waits for a lease.
    let books = gateway.books();
    let before = gateway.followers[&0].at().epoch;
    next.stop().await;
    let owner = server.command(&[b"GET", b"odds:{0}:own"]).unwrap();
    assert_eq!(owner, redis::Value::Nil, "the lease is given back");
    let last = Process::start(&server);
    gateway
        .until("the last one has it all", |g| g.followers[&0].at().epoch > before && g.books() == books)
        .await;
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_everything_gets_the_books_again() {
    let mut server = RedisServer::start().unwrap();
    let process = Process::start(&server);
    let mut source = Source::new(&server, "demo").await;
    source.heard().await;
    let reader = LogReader::from(RedisLog::new(redis(&server)).unwrap());
    let mut gateway = Gateway::new(&reader, SHARDS);
    let mut simulator = Simulator::new(9, Config::default());
    let mut updates = Vec::new();
    simulator.advance(1_764_000_000_000, &mut updates);
    source.say(&updates).await;
    gateway
        .until("all is there", |g| same(&simulator, &g.books()) && g.feed("demo") == FeedState::Live)
        .await;
    let before: BTreeMap<u16, _> = gateway.followers.iter().map(|(s, f)| (*s, f.at())).collect();

    server.restart().unwrap();
    let mut after = Source::new(&server, "demo").await;
    (after.seq, after.writer) = (source.seq, source.writer);
    // Who listens anew is told by the receiver count; what was said before that shows as a gap.
    after.heard().await;
    gateway
        .until("a higher epoch with the same books", |g| {
            g.followers.iter().all(|(s, f)| f.at().epoch > before[s].epoch) && same(&simulator, &g.books())
        })
        .await;
    updates.clear();
    simulator.images(&mut updates);
    after.say(&updates).await;
    gateway.until("the feed is live", |g| g.feed("demo") == FeedState::Live).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_stale_and_images_are_asked_for() {
    let server = RedisServer::start().unwrap();
    let process = Process::start(&server);
    let mut source = Source::new(&server, "demo").await;
    source.heard().await;
    let mut control = redis::Client::open(server.url()).unwrap().get_async_pubsub().await.unwrap();
    control.subscribe("odds:ctl:demo").await.unwrap();
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    let mut simulator = Simulator::new(3, Config::default());
    let mut updates = Vec::new();
    simulator.advance(1_764_000_000_000, &mut updates);
    source.say(&updates).await;
    gateway
        .until("all is there", |g| same(&simulator, &g.books()) && g.feed("demo") == FeedState::Live)
        .await;

    source.seq += 1;
    source.say(&[]).await;
    gateway.until("the gap is seen", |g| g.feed("demo") == FeedState::Stale).await;
    let asked = async {
        let mut messages = control.on_message();
        loop {
            let message: String = messages.next().await.unwrap().get_payload().unwrap();
            // Who is new was asked for all.
            if message.contains("\"op\":\"image\"") && !message.contains("[]") {
                return message;
            }
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(10), asked).await.expect("images are asked for");
    assert!(simulator.truth().all(|(id, _)| asked.contains(&format!("\"{id}\""))), "{asked}");
    updates.clear();
    simulator.images(&mut updates);
    source.say(&updates).await;
    gateway.until("imaged, it is live", |g| g.feed("demo") == FeedState::Live).await;
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_at_full_speed_loses_nothing_even_if_ingest_comes_late() {
    let server = RedisServer::start().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run.mcm");
    let (mut lines, mut checkpoints) = (Vec::new(), Vec::new());
    let recording = Recording {
        seed: 5,
        config: Config { rate: 3.0, ..Config::default() },
        start_ms: 1_764_000_000_000,
        seconds: 120,
    };
    let count = recording.write_mcm("run.mcm", 1_000_000, &mut lines, &mut checkpoints).unwrap();
    std::fs::write(&path, lines).unwrap();
    let settings = ReplaySettings {
        to_stream: false,
        redis: redis(&server),
        source: "tape".into(),
        speed: Speed::Max,
        files: vec![path],
        progress: false,
    };
    let replaying = tokio::spawn(replay(settings, CancellationToken::new()));
    // It fills its window first: lines that nobody hears.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !published(&server) {
        assert!(tokio::time::Instant::now() < deadline, "nothing is published");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let process = Process::start(&server);
    let summary = tokio::time::timeout(Duration::from_secs(60), replaying).await.unwrap().unwrap().unwrap();
    assert_eq!((summary.lines, summary.taken, summary.skipped), (count, count, 0));
    assert!(summary.repeated > 0, "the first lines were heard by nobody");

    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    gateway.until("all is followed", Gateway::all_following).await;
    let expected: serde_json::Value = serde_json::from_slice(&checkpoints).unwrap();
    let last = expected["checkpoints"].as_array().unwrap().last().unwrap()["markets"].clone();
    gateway
        .until("the books are the recording's", |g| crate::checkpoint::differs(&last, &g.books()).is_none())
        .await;
    process.stop().await;
}

fn published(server: &RedisServer) -> bool {
    // `publish` counts as a command from the first call.
    let stats = server.command(&[b"INFO", b"commandstats"]).unwrap();
    format!("{stats:?}").contains("cmdstat_publish:calls=")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_recordings_end_in_the_books_of_an_independent_client() {
    let Some(directory) = std::env::var_os("TICTAC_RECORDINGS") else {
        eprintln!("TICTAC_RECORDINGS is not set: no real recording was replayed through ingest");
        return;
    };
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("TICTAC_RECORDINGS names a directory")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".mcm.bz2"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no *.mcm.bz2 in TICTAC_RECORDINGS");
    for file in files {
        let server = RedisServer::start().unwrap();
        let process = Process::start(&server);
        let books = file.to_string_lossy().replace(".mcm.bz2", ".books.json");
        let settings = ReplaySettings {
            to_stream: false,
            redis: redis(&server),
            source: "tape".into(),
            speed: Speed::Max,
            files: vec![file.clone()],
            progress: false,
        };
        let summary = replay(settings, CancellationToken::new()).await.unwrap();
        assert_eq!(summary.taken, summary.lines);
        let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
        gateway.until("all is followed", Gateway::all_following).await;
        let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(books).unwrap()).unwrap();
        let last = expected["checkpoints"].as_array().unwrap().last().unwrap();
        assert_eq!(last["line"].as_u64(), Some(summary.lines), "{}", file.display());
        let mut why = None;
        let settled = tokio::time::timeout(
            Duration::from_secs(8),
            gateway.until("the books are the client's", |g| {
                why = crate::checkpoint::differs(&last["markets"], &g.books());
                why.is_none()
            }),
        );
        let settled = settled.await.is_ok();
        assert!(settled, "{}: {why:?}", file.display());
        process.stop().await;
    }
}
