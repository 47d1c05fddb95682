//! Two ingest processes on one Redis: whoever owns the shards dies, or is stopped and comes back to life. The other one takes
//! over, Redis and gateways refuse the old one, and no client sees a price that is wrong or open again behind a stop.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::chain::gateway;
use support::process::Process;
use support::shards::{Shards, until_heard_by};
use support::source::Source;
use support::watched::{Watched, clients, documents_agree, play};
use support::{SHARDS, SOON};
use tictac_ingest::testing::RedisServer;

/// What a takeover may take, from the owner's end to the next one's epoch on every shard.
const TAKEOVER: Duration = Duration::from_secs(2);
/// What it may take until clients trade everything again.
const LIVE: Duration = Duration::from_secs(5);

/// The first owns every shard, the second waits.
async fn pair(server: &RedisServer, shards: &Shards) -> (Process, Process) {
    let owner = Process::ingest(server);
    shards.until_newer(&[0; SHARDS as usize + 1]).await;
    let standby = Process::ingest(server);
    until_heard_by(std::slice::from_ref(server), 2).await;
    (owner, standby)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over_from_an_owner_that_was_killed() {
    let server = RedisServer::start().unwrap();
    let shards = Shards::new(&server.url());
    let (mut owner, _standby) = pair(&server, &shards).await;
    let (gateway, address) = gateway(&server, &["--snapshots-per-market", "100000"]);
    let mut source = Source::new(&server, 5).await;
    let mut clients = clients(&address).await;
    play(&mut source, &mut clients, 150).await;
    let (heads, before) = (clients.each_ref().map(Watched::head), shards.epochs().await);

    owner.kill();
    let killed = Instant::now();
    // The source goes on while nobody owns anything.
    let (took, ()) = tokio::join!(shards.until_newer(&before), play(&mut source, &mut clients, 100));
    let live = killed.elapsed();
    support::took("taken over", took, TAKEOVER);
    support::took("everything live again", live, LIVE);
    for (client, head) in clients.iter().zip(heads) {
        assert!(client.head().epoch > head.epoch, "{:?} after {head:?}", client.head());
    }
    documents_agree(&address, &clients[0]).await;
    drop(clients);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_stopped_and_comes_back_changes_nothing() {
    let server = RedisServer::start().unwrap();
    let shards = Shards::new(&server.url());
    let (owner, _standby) = pair(&server, &shards).await;
    let (gateway, address) = gateway(&server, &["--snapshots-per-market", "100000"]);
    let mut source = Source::new(&server, 6).await;
    let mut clients = clients(&address).await;
    play(&mut source, &mut clients, 100).await;
    let before = shards.epochs().await;

    owner.signal("STOP");
    let stopped = Instant::now();
    let (took, ()) = tokio::join!(shards.until_newer(&before), play(&mut source, &mut clients, 100));
    support::took("taken over", took, TAKEOVER);
    // It sleeps through much that happens.
    while stopped.elapsed() < Duration::from_secs(10) {
        play(&mut source, &mut clients, 20).await;
    }
    let taken = shards.epochs().await;
    owner.signal("CONT");
    // What it thinks it owns it can't write, whatever is said meanwhile; it says so, and waits like any other.
    let revived = Instant::now();
    while !owner.said("refused by the log") || !owner.said("standing by with warm books") {
        assert!(revived.elapsed() < SOON, "it does not say that it stepped down");
        play(&mut source, &mut clients, 10).await;
    }
    play(&mut source, &mut clients, 50).await;
    assert_eq!(shards.epochs().await, taken, "nothing was taken back");
    documents_agree(&address, &clients[1]).await;
    drop(clients);
    tokio::task::spawn_blocking(|| gateway.stop().unwrap()).await.unwrap();
}
