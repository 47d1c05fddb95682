//! What only the log in Redis can meet: a server that dies, a connection that is cut or hangs, keys written by hand.
#![allow(clippy::unwrap_used)]

mod log_bench;

use std::time::{Duration, Instant};

use log_bench::*;
use tictac_ingest::log::{LogError, LogReader, LogWriter, RedisLog, RedisSettings};
use tictac_proto::log::Live;
use tictac_proto::position::Position;

#[tokio::test]
async fn a_server_that_died_comes_back_empty() {
    let mut place = Place::redis();
    let (handle, mut events) = place.reader().live(100);
    handle.follow(0);
    subscribed(&mut events, 0).await;
    handle.follow(1);
    subscribed(&mut events, 1).await;
    let (mut first, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    first.image("m").store("m").write().await.unwrap();
    next_message(&mut events).await;

    place.server().kill();
    lost(&mut events).await;
    let refused = first.change("m", 1, 1).write().await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(matches!(place.reader().tail(0, Position::ZERO).await, Err(LogError::Unavailable(_))));

    place.server().restart().unwrap();
    // Both shards, in either order, and nothing else: one outage is one loss.
    subscribed(&mut events, 0).await;
    subscribed(&mut events, 1).await;
    // The same writer goes on over a new connection, loading its functions there; what is stored is nothing.
    let refused = first.alive().await;
    assert_eq!(refused, Err(LogError::Fenced { shard: 0, stored: Position::ZERO, owner: None }));
    let again = first.log.acquire(0, &first.owner, first.at.epoch, NOW).await.unwrap();
    assert!(again.epoch > first.at.epoch);
    assert!(again.markets.is_empty());
}

#[tokio::test]
async fn a_cut_subscription_is_made_anew_and_the_tail_has_what_was_missed() {
    let mut place = Place::redis();
    let (handle, mut events) = place.reader().live(100);
    handle.follow(0);
    subscribed(&mut events, 0).await;
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    scribe.image("m").write().await.unwrap();
    next_message(&mut events).await;
    let heard = scribe.at;
    place.server().command(&[b"CLIENT", b"KILL", b"TYPE", b"pubsub"]).unwrap();
    scribe.change("m", 100, 1).change("m", 101, 1).write().await.unwrap();
    lost(&mut events).await;
    subscribed(&mut events, 0).await;
    let tail = place.reader().tail(0, heard).await.unwrap();
    assert!(tail.complete);
    assert_eq!(tail.entries.len(), 2);
    scribe.change("m", 102, 1).write().await.unwrap();
    let (_, bytes) = next_message(&mut events).await;
    assert!(matches!(Live::decode(&bytes).unwrap(), Live::Entry(entry) if entry.at == scribe.at));
}

#[tokio::test]
async fn a_server_that_hangs_is_found_out() {
    let mut place = Place::redis();
    let url = place.server().url();
    let settings = RedisSettings { deadline: Duration::from_millis(300), ..RedisSettings::new(url) };
    let log = RedisLog::new(settings).unwrap();
    let (handle, mut events) = LogReader::from(log.clone()).live(100);
    handle.follow(0);
    subscribed(&mut events, 0).await;
    let writer = LogWriter::from(log);
    let held = writer.acquire(0, &owner("a", 1), 0, NOW).await.unwrap();
    // The sockets stay open, and nothing answers.
    place.server().hang(true);
    let begun = Instant::now();
    let refused = writer.acquire(0, &owner("a", 1), 0, NOW).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    lost(&mut events).await;
    place.server().hang(false);
    subscribed(&mut events, 0).await;
    let again = writer.acquire(0, &owner("a", 1), held.epoch, NOW).await.unwrap();
    assert!(again.epoch > held.epoch);
}

#[tokio::test]
async fn keys_written_by_hand_do_not_break_a_reader() {
    let mut place = Place::redis();
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    scribe.image("m").store("m").image("n").store("n").write().await.unwrap();
    let server = place.server();
    server.command(&[b"SET", b"odds:{0}:snap:m", b"\x00\xff\xfe{not a snapshot"]).unwrap();
    server.command(&[b"SADD", b"odds:{0}:markets", b"nobody", b"\xff\xfe"]).unwrap();
    let read = place.reader().snapshots(0).await.unwrap();
    assert_eq!(read.markets.len(), 1);
    let unreadable: Vec<_> = read.unreadable.iter().map(|(market, _)| &**market).collect();
    assert_eq!(unreadable, ["m", "nobody", "\u{fffd}\u{fffd}"]);

    place.server().command(&[b"SET", b"odds:{0}:n", b"many"]).unwrap();
    let error = place.reader().snapshots(0).await.unwrap_err();
    assert!(matches!(error, LogError::Unexpected(_)), "{error}");
    assert!(matches!(scribe.alive().await, Err(LogError::Fenced { .. } | LogError::Unexpected(_))));
}

#[tokio::test]
async fn a_counter_that_was_lost_goes_on_from_the_log() {
    let mut place = Place::redis();
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    scribe.image("m").change("m", 100, 1).write().await.unwrap();
    let before = scribe.at;
    for key in ["odds:{0}:n", "odds:{0}:ep"] {
        place.server().command(&[b"DEL", key.as_bytes()]).unwrap();
    }
    assert!(matches!(scribe.change("m", 1, 1).write().await, Err(LogError::Fenced { .. })));
    let again = scribe.log.acquire(0, &scribe.owner, 0, 0).await.unwrap();
    assert_eq!(again.n, before.seq);
    assert!(again.epoch > before.epoch, "though the clock says 1970 and no epoch was seen");
    assert_eq!(again.markets.len(), 1);
}

#[tokio::test]
async fn functions_that_were_flushed_are_loaded_again() {
    let mut place = Place::redis();
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    place.server().command(&[b"FUNCTION", b"FLUSH"]).unwrap();
    scribe.image("m").write().await.unwrap();
}

#[tokio::test]
async fn numbers_near_the_bound_are_exact() {
    let mut place = Place::redis();
    let (mut scribe, _) = Scribe::acquire(place.writer(), owner("a", 1), 0).await.unwrap();
    let high = (1u64 << 53) - 10;
    place.server().command(&[b"SET", b"odds:{0}:n", high.to_string().as_bytes()]).unwrap();
    scribe.at.seq = high;
    scribe.batch.first = high + 1;
    scribe.batch.covered = scribe.at;
    scribe.image("m").change("m", 1, 1).write().await.unwrap();
    let tail = place.reader().tail(0, Position::new(scribe.at.epoch, high)).await.unwrap();
    assert_eq!(tail.entries.iter().map(|e| e.at.seq).collect::<Vec<_>>(), [high + 1, high + 2]);
    // An epoch that would reach 2^53 is refused, not rounded.
    let refused = scribe.log.acquire(1, &scribe.owner, (1 << 53) - 1, NOW).await;
    assert!(matches!(refused, Err(LogError::Unexpected(_))), "{refused:?}");
}

#[tokio::test]
async fn a_unix_socket_will_do() {
    let mut place = Place::redis();
    let url = place.server().socket_url();
    let log = place.redis_log(url);
    let (handle, mut events) = LogReader::from(log.clone()).live(10);
    handle.follow(0);
    subscribed(&mut events, 0).await;
    let (mut scribe, _) = Scribe::acquire(log.into(), owner("a", 1), 0).await.unwrap();
    scribe.image("m").write().await.unwrap();
    next_message(&mut events).await;
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    let mut place = Place::redis();
    let plain = place.server().url();
    // A server that speaks no TLS refuses it with an error too, not a panic.
    let encrypted = plain.replace("redis://", "rediss://");
    place.writer().acquire(0, &owner("a", 1), 0, NOW).await.unwrap();
    for url in [encrypted.as_str(), "redis://127.0.0.1:1"] {
        let log = LogReader::from(RedisLog::new(RedisSettings::new(url)).unwrap());
        assert!(matches!(log.tail(0, Position::ZERO).await, Err(LogError::Unavailable(_))), "{url}");
    }
    assert!(matches!(RedisLog::new(RedisSettings::new("http://x")), Err(LogError::Unexpected(_))));
}

#[tokio::test]
async fn many_shards_share_a_connection() {
    let mut place = Place::redis();
    let writer = place.writer();
    let tasks: Vec<_> = (0..64)
        .map(|shard| {
            let writer = writer.clone();
            tokio::spawn(async move {
                let (mut scribe, _) = Scribe::acquire(writer, owner("a", 1), shard).await.unwrap();
                scribe.image("m").store("m").write().await.unwrap();
                for i in 0..20 {
                    scribe.change("m", 100 + i, 1).write().await.unwrap();
                }
                scribe.at
            })
        })
        .collect();
    for (shard, task) in (0..).zip(tasks) {
        let at = task.await.unwrap();
        assert_eq!(place.reader().tail(shard, Position::ZERO).await.unwrap().head, at);
    }
    let clients = place.server().command(&[b"CLIENT", b"LIST", b"TYPE", b"normal"]).unwrap();
    let clients: String = redis::from_redis_value(clients).unwrap();
    let writing = clients.lines().filter(|line| line.contains("cmd=fcall")).count();
    assert_eq!(writing, 1, "{clients}");
}
