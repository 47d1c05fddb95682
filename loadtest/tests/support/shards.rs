//! The log's shards as Redis has them: who owns them, since when.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tictac_ingest::log::{LogReader, RedisLog, RedisSettings};
use tictac_ingest::testing::RedisServer;
use tictac_proto::log::CATALOGUE;
use tictac_proto::position::Position;

use super::{SHARDS, SOON};

pub struct Shards {
    log: LogReader,
}

impl Shards {
    pub fn new(url: &str) -> Self {
        Self { log: RedisLog::new(RedisSettings::new(url)).unwrap().into() }
    }

    /// The epoch of every shard, the catalogue's included, as Redis has it; 0 where it does not say.
    pub async fn epochs(&self) -> Vec<u64> {
        // Nothing is after the highest position there can be.
        let end = Position::new((1 << 53) - 1, 0);
        let all = (0..SHARDS).chain([CATALOGUE]).map(|shard| self.log.tail(shard, end));
        join_all(all).await.into_iter().map(|tail| tail.map_or(0, |tail| tail.head.epoch)).collect()
    }

    /// Until every shard has a newer epoch; how long that took.
    pub async fn until_newer(&self, than: &[u64]) -> Duration {
        let since = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !self.epochs().await.iter().zip(than).all(|(now, before)| now > before) {
            assert!(since.elapsed() < Duration::from_secs(30), "nobody takes over: {than:?}");
            looks.tick().await;
        }
        since.elapsed()
    }
}

/// Until so many processes listen to sources.
pub async fn until_heard_by(servers: &[RedisServer], processes: usize) {
    let deadline = Instant::now() + SOON;
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    loop {
        let listen = |server: &RedisServer| {
            let list = server.command(&[b"CLIENT", b"LIST"]).unwrap();
            redis::from_redis_value::<String>(list).unwrap().matches(" psub=1 ").count()
        };
        let heard: usize = servers.iter().map(listen).sum();
        if heard >= processes {
            return;
        }
        assert!(Instant::now() < deadline, "{heard} of {processes} listen");
        looks.tick().await;
    }
}
