//! Over the in-process log.

use tictac_ingest::embedded::Embedded;
use tictac_ingest::log::{LogReader, LogWriter, MemoryLog, MemorySettings};
use tictac_ingest::service::{Ingest, Input, Settings};
use tictac_ingest::simulator::{Config, Simulator};
use tictac_proto::wire::FeedState;
use tokio_util::sync::CancellationToken;

use crate::follow::Gateway;

fn settings() -> Settings {
    let mut settings = Settings::new().unwrap();
    settings.engine.shards = 8;
    settings.engine.log_capacity = 16_384;
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_has_what_the_simulator_means() {
    let log = MemoryLog::new(MemorySettings { entries: 16_384, ..MemorySettings::default() });
    let (ingest, _) = Ingest::start(settings(), LogWriter::from(log.clone()), CancellationToken::new());
    let mut gateway = Gateway::new(&LogReader::from(log), 8);
    gateway.until("every shard is followed", Gateway::all_following).await;
    let mut simulator = Simulator::new(7, Config { rate: 5.0, ..Config::default() });
    for step in 0..600 {
        let mut updates = Vec::new();
        let at = 1_764_000_000_000 + step * 200;
        simulator.advance(at, &mut updates);
        ingest.input().send(Input::Updates { source: "demo".into(), updates, at }).await.unwrap();
    }
    let same = |gateway: &Gateway| {
        let (books, listed) = (gateway.books(), gateway.listed());
        let mut count = 0;
        let right = simulator.truth().all(|(id, truth)| {
            count += 1;
            listed.contains_key(id) && books.get(id).is_some_and(|book| truth.differs(book).is_none())
        });
        right && count == books.len() && count == listed.len()
    };
    gateway.until("books are the simulator's", same).await;
    gateway.until("the feed is live", |g| g.feed("demo") == FeedState::Live).await;
    ingest.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_simulator_is_followed() {
    let cancel = CancellationToken::new();
    let (reader, running) = Embedded::simulator(1, 10.0).unwrap().with_shards(4).start(cancel.clone());
    let mut gateway = Gateway::new(&reader, 4);
    gateway
        .until("its markets move", |g| {
            g.feed("demo") == FeedState::Live
                && g.followers.values().map(|f| f.counters().applied).sum::<u64>() > 500
        })
        .await;
    assert_eq!(gateway.books().len(), gateway.listed().len());
    let text = running.metrics().render();
    assert!(text.contains("tictac_ingest_feed_state{source=\"demo\"} 0"), "{text}");
    running.stop().await;
}
