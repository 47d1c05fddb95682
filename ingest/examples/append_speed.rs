//! How many appends a second one connection to Redis takes: each with one entry and one 900-byte snapshot, 50 under way
//! at once, spread over 50 shards. Starts a server of its own, or takes the address given.
//!
//! `cargo run --release -p tictac-ingest --features testing --example append_speed [redis://…]`

use std::time::{Duration, Instant};

use bytes::Bytes;
use tictac_ingest::log::{Batch, LogWriter, Owner, RedisLog, RedisSettings};
use tictac_ingest::testing::RedisServer;
use tictac_proto::position::Position;

const SHARDS: u16 = 50;
const MEASURED: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = match std::env::args().nth(1) {
        None => Some(RedisServer::start().map_err(anyhow::Error::msg)?),
        Some(_) => None,
    };
    let url = std::env::args().nth(1).or_else(|| server.as_ref().map(RedisServer::url)).unwrap_or_default();
    let settings = RedisSettings {
        prefix: "append_speed".into(),
        lease: Duration::from_secs(60),
        ..RedisSettings::new(url)
    };
    let log = LogWriter::from(RedisLog::new(settings)?);
    let mut tasks = Vec::new();
    for shard in 0..SHARDS {
        tasks.push(tokio::spawn(write(log.clone(), shard)));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    println!(
        "{:.0} appends/s, {SHARDS} under way; one takes p50 {:?}, p99 {:?}, p99.9 {:?}",
        all.len() as f64 / MEASURED.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

/// Writes one batch after the other, and returns how long each took.
async fn write(log: LogWriter, shard: u16) -> anyhow::Result<Vec<Duration>> {
    let owner = Owner { id: "append_speed".into(), slot: 0 };
    let acquired = log.acquire(shard, &owner, 0, 0).await?;
    let (entry, snapshot) = (Bytes::from(vec![1; 150]), Bytes::from(vec![2; 900]));
    let mut took = Vec::new();
    let begun = Instant::now();
    let mut last = acquired.n;
    while begun.elapsed() < MEASURED {
        let market = format!("1.{}", 100_000_000 + last % 20);
        let batch = Batch {
            epoch: acquired.epoch,
            first: last + 1,
            entries: vec![entry.clone()],
            snapshots: vec![(market.into(), snapshot.clone())],
            gone: Vec::new(),
            covered: Position::new(acquired.epoch, last + 1),
            aged: Position::new(acquired.epoch, (last + 1).saturating_sub(4096)),
            resume: Vec::new(),
        };
        let sent = Instant::now();
        log.append(shard, &owner, batch).await?;
        took.push(sent.elapsed());
        last += 1;
    }
    Ok(took)
}
