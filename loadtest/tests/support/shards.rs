//! The log's shards as Redis has them: who owns them, since when.

use std::time::{Duration, Instant};

use tictac_ingest::testing::RedisServer;

use super::{SHARDS, SOON};

pub struct Shards {
    redis: redis::aio::MultiplexedConnection,
}

impl Shards {
    pub async fn new(server: &RedisServer) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        Self { redis: client.get_multiplexed_async_connection().await.unwrap() }
    }

    /// The epoch of every shard, the catalogue's included, as Redis has it.
    pub async fn epochs(&mut self) -> Vec<u64> {
        let mut command = redis::cmd("MGET");
        for shard in (0..SHARDS).map(|s| s.to_string()).chain(["cat".into()]) {
            command.arg(format!("odds:{{{shard}}}:ep"));
        }
        let epochs: Vec<Option<u64>> = command.query_async(&mut self.redis).await.unwrap();
        epochs.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Until so many processes listen to sources.
    pub async fn until_heard_by(&mut self, processes: usize) {
        let deadline = Instant::now() + SOON;
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        loop {
            let mut command = redis::cmd("CLIENT");
            let all: String = command.arg("LIST").query_async(&mut self.redis).await.unwrap();
            let heard = all.matches(" psub=1 ").count();
            if heard >= processes {
                return;
            }
            assert!(Instant::now() < deadline, "{heard} of {processes} listen");
            looks.tick().await;
        }
    }

    /// Until every shard has a newer epoch; how long that took.
    pub async fn until_newer(&mut self, than: &[u64]) -> Duration {
        let since = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !self.epochs().await.iter().zip(than).all(|(now, before)| now > before) {
            assert!(since.elapsed() < Duration::from_secs(30), "nobody takes over: {than:?}");
            looks.tick().await;
        }
        since.elapsed()
    }
}
