//! The log's contract, held to both implementations: who owns a shard, and how everybody else is kept out.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod log_bench;

use std::time::{Duration, Instant};

use bytes::Bytes;
use log_bench::*;
use tictac_ingest::log::{Batch, LogError};
use tictac_ingest::stream_id::StreamId;
use tictac_proto::log::Alive;
use tictac_proto::position::Position;

contract! {
    whoever_is_fenced_changes_nothing
    a_lease_keeps_others_out_until_it_ends
    a_released_shard_is_free_at_once
    epochs_rise_though_all_is_forgotten
    two_who_fight_leave_a_gapless_log
    a_lease_of_a_log_that_forgot_keeps_nobody_out
}

async fn whoever_is_fenced_changes_nothing(place: Place) {
    let writer = place.writer();
    let (mut old, _) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    old.image("m").store("m").write().await.unwrap();
    let revived = old.at;
    old.log.release(0, &old.owner).await.unwrap();
    let (mut new, _) = Scribe::acquire(writer.clone(), owner("b", 2), 0).await.unwrap();
    new.image("m").change("m", 300, 1).write().await.unwrap();

    let before = place.dump(0).await;
    let entry = Bytes::from_static(b"x");
    let batch = |epoch, first| Batch {
        epoch,
        first,
        entries: vec![entry.clone()],
        snapshots: vec![("m".into(), entry.clone()), ("other".into(), entry.clone())],
        gone: vec!["m".into()],
        covered: Position::new(new.at.epoch, first - 1),
        aged: Position::new(new.at.epoch, first - 1),
        resume: vec![("s".into(), StreamId { ms: 7, n: 0 })],
    };
    let (mine, theirs) = (new.owner.clone(), old.owner.clone());
    let next = new.at.seq + 1;
    for (who, epoch, first) in [
        (&theirs, revived.epoch, revived.seq + 1),
        (&theirs, revived.epoch, next),
        (&theirs, new.at.epoch, next),
        (&mine, revived.epoch, next),
        (&mine, new.at.epoch + 1024, next),
        (&mine, new.at.epoch, next - 1),
        (&mine, new.at.epoch, next + 1),
    ] {
        let refused = writer.append(0, who, batch(epoch, first)).await;
        let expected = LogError::Fenced { shard: 0, stored: new.at, owner: Some("b".into()) };
        assert_eq!(refused, Err(expected), "{who:?} {epoch} {first}");
    }
    for (who, at) in [
        (&theirs, new.at),
        (&mine, Position::new(revived.epoch, new.at.seq)),
        (&mine, Position::new(new.at.epoch, next)),
        (&mine, Position::new(new.at.epoch, new.at.seq - 1)),
    ] {
        let refused = writer.alive(0, who, Alive { at, now: 0, feeds: Vec::new() }, Vec::new()).await;
        assert!(matches!(refused, Err(LogError::Fenced { .. })), "{who:?} {at}");
    }
    assert!(matches!(writer.release(0, &theirs).await, Err(LogError::Fenced { .. })));
    assert_eq!(place.dump(0).await, before);
    new.alive().await.unwrap();
    new.change("m", 301, 1).write().await.unwrap();
}

async fn a_lease_keeps_others_out_until_it_ends(place: Place) {
    let lease = Duration::from_millis(700);
    let place = place.with_lease(lease);
    let writer = place.writer();
    let (mut first, _) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    first.image("m").write().await.unwrap();
    // Signs of life keep it for longer than one lease.
    let begun = Instant::now();
    let mut refusals = 0;
    while begun.elapsed() < lease * 2 {
        first.alive().await.unwrap();
        let refused = writer.acquire(0, &owner("b", 2), 0, NOW).await.unwrap_err();
        let LogError::Held { shard: 0, owner, epoch, remaining } = refused else { panic!("{refused}") };
        assert_eq!(epoch, first.at.epoch);
        assert!(owner == "a" && remaining <= lease && remaining > lease / 2, "{owner} {remaining:?}");
        refusals += 1;
        tokio::time::sleep(lease / 10).await;
    }
    assert!(refusals > 5);
    // Silence gives it up, and whoever was silent is out though nobody else came yet.
    let (second, acquired) = acquire_patiently(&writer, &owner("b", 2), 0).await;
    assert!(acquired.epoch > first.at.epoch);
    assert_eq!(acquired.n, 1);
    assert!(matches!(first.alive().await, Err(LogError::Fenced { owner: Some(o), .. }) if o == "b"));
    second.log.release(0, &second.owner).await.unwrap();
    assert!(matches!(second.alive().await, Err(LogError::Fenced { owner: None, .. })));
}

async fn a_released_shard_is_free_at_once(place: Place) {
    let writer = place.writer();
    let (first, _) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    first.log.release(0, &first.owner).await.unwrap();
    let (second, _) = Scribe::acquire(writer.clone(), owner("b", 2), 0).await.unwrap();
    // The owner itself may take over again at any time, under a higher epoch.
    let again = writer.acquire(0, &second.owner, 0, NOW).await.unwrap();
    assert!(again.epoch > second.at.epoch && second.at.epoch > first.at.epoch);
}

async fn epochs_rise_though_all_is_forgotten(place: Place) {
    let writer = place.writer();
    let (mut first, _) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    first.image("m").store("m").write().await.unwrap();
    let mut seen = first.at.epoch;
    place.forget();
    let refused = first.image("m").write().await;
    assert_eq!(refused, Err(LogError::Fenced { shard: 0, stored: Position::ZERO, owner: None }));
    assert!(matches!(first.alive().await, Err(LogError::Fenced { .. })));
    assert!(!place.reader().tail(0, first.at).await.unwrap().complete);
    // A clock that went back does not bring an old epoch back.
    for now in [NOW, NOW - 3_600_000, 0] {
        place.forget();
        let again = writer.acquire(0, &owner("a", 1), seen, now).await.unwrap();
        assert!(again.epoch > seen && again.epoch % 1024 == 1 && again.epoch < 1 << 53, "{}", again.epoch);
        assert_eq!(again.n, 0);
        seen = again.epoch;
    }
}

async fn two_who_fight_leave_a_gapless_log(place: Place) {
    let until = Instant::now() + Duration::from_secs(1);
    let fight = |id: &'static str, slot: u16| {
        let writer = place.writer();
        async move {
            let (mut written, mut taken) = (0u64, 0u64);
            while Instant::now() < until {
                let Ok((mut scribe, acquired)) = Scribe::acquire(writer.clone(), owner(id, slot), 0).await
                else {
                    tokio::task::yield_now().await;
                    continue;
                };
                assert!(acquired.unreadable.is_empty(), "{:?}", acquired.unreadable);
                taken += 1;
                scribe.image("m").store("m");
                scribe.covered(scribe.at, Position::ZERO);
                // Some turns end by giving up the lease, and go on writing as if it were still held.
                for i in 0..8 {
                    let entries = scribe.batch.entries.len() as u64;
                    match scribe.write().await {
                        Ok(()) => written += entries,
                        Err(LogError::Fenced { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                    if i == 4 {
                        let _ = writer.release(0, &scribe.owner).await;
                        tokio::task::yield_now().await;
                    }
                    scribe.change("m", 100 + i, 1).store("m");
                    scribe.covered(scribe.at, Position::ZERO);
                }
            }
            (written, taken)
        }
    };
    let (a, b) = tokio::join!(tokio::spawn(fight("a", 1)), tokio::spawn(fight("b", 2)));
    let ((a, a_taken), (b, b_taken)) = (a.unwrap(), b.unwrap());
    assert!(a > 0 && b > 0 && a_taken > 1 && b_taken > 1, "{a} {b} {a_taken} {b_taken}");
    let reader = place.reader();
    let read = reader.snapshots(0).await.unwrap();
    assert_eq!(read.head.seq, a + b, "each number was given once");
    assert!(read.entries.len() > 10);
    for pair in read.entries.windows(2) {
        assert_eq!(pair[1].at.seq, pair[0].at.seq + 1);
        assert!(pair[1].at.epoch >= pair[0].at.epoch);
    }
    assert_eq!(read.entries.last().unwrap().at.seq, a + b);
}

async fn a_lease_of_a_log_that_forgot_keeps_nobody_out(place: Place) {
    let writer = place.writer();
    let (first, _) = Scribe::acquire(writer.clone(), owner("a", 1), 0).await.unwrap();
    let refused = writer.acquire(0, &owner("b", 2), first.at.epoch, NOW).await;
    assert!(matches!(refused, Err(LogError::Held { .. })), "what is stored is what was seen");
    // One that owned it later, before the log fell back to what it was.
    let seen = first.at.epoch + 5 * 1024;
    let acquired = writer.acquire(0, &owner("b", 2), seen, NOW).await.unwrap();
    assert!(acquired.epoch > seen);
    assert!(matches!(first.alive().await, Err(LogError::Fenced { .. })), "the old one is out");
}
