//! The follower, where a few steps say it all. What holds for every order of things is for the simulations.
#![allow(clippy::unwrap_used)]

use tictac_proto::follower::{Event, Follower};
use tictac_proto::log::{Alive, Entry, Live, What};
use tictac_proto::position::Position;
use tictac_proto::wire::Times;

fn events(follower: &mut Follower, now: i64) -> Vec<Event> {
    std::iter::from_fn(|| follower.poll(now)).collect()
}

/// In step with an empty shard.
fn following(at: Position) -> Follower {
    let mut follower = Follower::new(0);
    follower.handle_subscribed(0);
    assert!(matches!(events(&mut follower, 0)[..], [Event::NeedSnapshots]));
    follower.handle_snapshots(at, Vec::new(), Vec::new(), 0);
    follower.handle_live(Live::Alive(Alive { at, now: 0, feeds: Vec::new() }), 0);
    assert!(follower.is_following() && follower.heard() == Some(0));
    follower
}

#[test]
fn a_log_that_forgot_is_read_again_soon() {
    let at = Position::new(5, 7);
    let mut follower = following(at);
    follower.handle_lost();
    follower.handle_subscribed(1_000);
    assert!(matches!(events(&mut follower, 1_000)[..], [Event::NeedTail(after)] if after == at));
    // The log was empty just then; its owner writes it anew a moment later.
    follower.handle_tail(Position::ZERO, Vec::new(), false, 1_010);
    follower.handle_time(1_200);
    assert!(events(&mut follower, 1_200).is_empty(), "not at once");
    follower.handle_time(1_500);
    assert!(matches!(events(&mut follower, 1_500)[..], [Event::NeedTail(_)]));
    // The same for snapshots, which a new epoch needs.
    let next = Position::new(6, 2);
    follower.handle_tail(next, Vec::new(), false, 1_510);
    assert!(matches!(events(&mut follower, 1_510)[..], [Event::NeedSnapshots]));
    follower.handle_snapshots(Position::ZERO, Vec::new(), Vec::new(), 1_520);
    follower.handle_time(2_000);
    assert!(matches!(events(&mut follower, 2_000)[..], [Event::NeedSnapshots]));
    follower.handle_snapshots(next, Vec::new(), Vec::new(), 2_010);
    assert!(follower.is_following() && follower.at() == next);
}

#[test]
fn snapshots_from_before_what_was_heard_are_read_again_soon_and_not_at_once() {
    let at = Position::new(5, 7);
    let mut follower = following(at);
    let entry =
        Entry { at: Position::new(6, 1), times: Times::default(), what: What::Gone { market: "1.1".into() } };
    follower.handle_live(Live::Entry(entry), 100);
    assert!(matches!(events(&mut follower, 100)[..], [Event::NeedSnapshots]));
    follower.handle_snapshots(at, Vec::new(), Vec::new(), 110);
    assert!(events(&mut follower, 110).is_empty(), "a log that is behind is not read without a pause");
    follower.handle_time(600);
    assert!(matches!(events(&mut follower, 600)[..], [Event::NeedSnapshots]));
    follower.handle_snapshots(Position::new(6, 1), Vec::new(), Vec::new(), 610);
    assert!(events(&mut follower, 610).is_empty() && follower.at() == Position::new(6, 1));
}
