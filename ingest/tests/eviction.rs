//! A day of markets, as fast as it goes, into a real Redis: what is over leaves memory and Redis, so that the evening holds no
//! more than the morning. `TICTAC_HOURS` makes it longer.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use tictac_ingest::engine::{Engine, EngineSettings};
use tictac_ingest::log::{LogWriter, Owner, RedisLog, RedisSettings};
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::testing::RedisServer;
use tictac_proto::wire::Times;

const START: i64 = 1_764_000_000_000;
const STEP: i64 = 10_000;
const HOUR: i64 = 3_600_000;

/// What there is at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    markets: usize,
    keys: u64,
    bytes: u64,
}

fn number(server: &RedisServer, parts: &[&[u8]]) -> u64 {
    redis::from_redis_value(server.command(parts).unwrap()).unwrap()
}

fn bytes(server: &RedisServer) -> u64 {
    let info: String = redis::from_redis_value(server.command(&[b"INFO", b"memory"]).unwrap()).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn the_evening_holds_no_more_than_the_morning() {
    let hours: i64 = std::env::var("TICTAC_HOURS").map_or(8, |hours| hours.parse().unwrap());
    let server = RedisServer::start().unwrap();
    let log = LogWriter::from(RedisLog::new(RedisSettings::new(server.url())).unwrap());
    let owner = Owner { id: "day".into(), slot: 1 };
    let settings = EngineSettings { shards: 4, ..EngineSettings::default() };
    let mut engine = Engine::new(settings);
    let source: Arc<str> = "demo".into();
    let mut simulator = Simulator::new(7, Config { rate: 0.05, ..Config::default() });
    let (mut now, mut seen, mut samples) = (START, 0, Vec::new());
    let mut updates = Vec::new();
    while now < START + hours * HOUR {
        now += STEP;
        updates.clear();
        simulator.advance(now, &mut updates);
        seen += updates.len();
        engine.handle_message(&source, None, now);
        let times = Times { source: now, received: now, ..Times::default() };
        engine.handle_updates(&source, updates.drain(..), times);
        engine.handle_time(now);
        engine.take_forgotten();
        let mut wrote = true;
        while wrote {
            wrote = false;
            for shard in engine.shards() {
                if !engine.owns(shard) {
                    let seen = engine.seen_epoch(shard);
                    let acquired = log.acquire(shard, &owner, seen, now as u64).await.unwrap();
                    engine.handle_acquired(shard, acquired, now);
                }
                let Some(batch) = engine.take_batch(shard, now) else { continue };
                // Here days pass in seconds, the lease in its own time.
                match log.append(shard, &owner, batch).await {
                    Ok(()) => engine.handle_written(shard),
                    Err(_) => engine.handle_lost(shard),
                }
                wrote = true;
            }
        }
        if (now - START) % (HOUR / 4) == 0 {
            let keys = number(&server, &[b"DBSIZE"]);
            samples.push(Holds { markets: engine.len(), keys, bytes: bytes(&server) });
        }
    }
    let most = |part: &[Holds]| {
        part.iter().fold(Holds::default(), |most, holds| Holds {
            markets: most.markets.max(holds.markets),
            keys: most.keys.max(holds.keys),
            bytes: most.bytes.max(holds.bytes),
        })
    };
    let (morning, evening) = samples.split_at(samples.len() / 2);
    let (morning, evening) = (most(morning), most(evening));
    eprintln!("{hours} h, {seen} updates: at most {morning:?} in the first half, {evening:?} in the second");
    assert!(morning.markets > 5 && seen > 10_000, "a day with nothing in it");
    // The same number of events goes on all day; a quarter more is chance, twice as much would be a leak.
    let flat = |before: u64, after: u64| after * 4 <= before * 5 + 20;
    assert!(flat(morning.markets as u64, evening.markets as u64), "markets stay");
    assert!(flat(morning.keys, evening.keys), "keys stay");
    assert!(evening.bytes * 2 <= morning.bytes * 3, "memory grows");
}
