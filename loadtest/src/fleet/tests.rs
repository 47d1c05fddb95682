//! A fleet against a server that says what a test wants, to one client or the other.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use tictac_proto::model::{Delta, MarketField, SelectionKey, Side};
use tictac_proto::position::Position;
use tictac_proto::wire::{DeltaHead, Down, ErrorCode, FeedState, Problem, SnapHead, Times};

use super::*;

const EPOCH: u64 = 5;
const CODEC: Codec = Codec::Json;

fn level(size: i64) -> Delta {
    let mut delta = Delta::default();
    delta.selection_mut(SelectionKey { id: 1, handicap: 0 }).ladder_mut(Side::Back).set(200, size);
    delta
}

pub(crate) fn snapshot(view: View, seq: u64, size: i64) -> Down {
    let head = SnapHead {
        market: "m".into(),
        view,
        at: Position::new(EPOCH, seq),
        stop: Position::ZERO,
        shard: 1,
        feed: FeedState::Live,
        times: Times::default(),
    };
    let mut delta = level(size);
    delta.set(MarketField::Status, Some(0.into()));
    Down::Snap(head, delta)
}

fn change(view: View, prev: u64, seq: u64, size: i64) -> Down {
    let head = DeltaHead { market: "m".into(), view, epoch: EPOCH, prev, seq, times: Times::default() };
    Down::Delta(head, level(size))
}

/// A server's frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Lets clients in and sends each its messages, then nothing more while the streams that it gives are kept.
pub(crate) fn server(sent: Vec<Vec<Down>>) -> (SocketAddr, JoinHandle<Vec<std::net::TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        let mut streams = Vec::new();
        for messages in sent {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
            messages.iter().for_each(|message| answer.extend(frame(&CODEC.encode(message))));
            stream.write_all(&answer).unwrap();
            streams.push(stream);
        }
        streams
    };
    (address, std::thread::spawn(serve))
}

/// Clients that follow one market.
pub(crate) fn plan(address: SocketAddr, clients: usize, view: View, silence: Option<Duration>) -> Plan {
    Plan {
        address,
        transport: Transport::Ws,
        clients,
        codec: CODEC,
        view,
        conflate: Conflate::Raw,
        markets: vec![vec!["m".into()]; clients],
        paces: Vec::new(),
        ramp: 1_000,
        ping_every: None,
        silence,
        floor: false,
    }
}

fn fleet(address: SocketAddr, clients: usize, view: View, silence: Option<Duration>) -> Fleet {
    let mut fleet = Fleet::new(plan(address, clients, view, silence)).unwrap();
    fleet.connect(Duration::from_secs(20), |_| {}).unwrap();
    fleet
}

#[test]
fn a_client_that_hears_nothing_is_a_mistake_once() {
    let both = vec![snapshot(View::All, 10, 5)];
    let (address, server) = server(vec![both.clone(), both]);
    let mut fleet = fleet(address, 2, View::All, Some(Duration::from_millis(400)));
    let mut streams = server.join().unwrap();
    for turn in 0..10 {
        // The first goes on to be sent something.
        streams[0].write_all(&frame(&CODEC.encode(change(View::All, 10 + turn, 11 + turn, 6)))).unwrap();
        fleet.run(Duration::from_millis(100), false, |_| {}).unwrap();
    }
    let found = fleet.findings();
    assert_eq!(found.wrong, 1, "{found:?}");
    assert!(found.mistakes[0].contains("client 1 heard nothing"), "{found:?}");
}

#[test]
fn a_pause_of_the_tester_is_nobody_s_silence() {
    let (address, server) = server(vec![vec![snapshot(View::All, 10, 5)]]);
    let mut fleet = fleet(address, 1, View::All, Some(Duration::from_millis(800)));
    let _streams = server.join().unwrap();
    fleet.run(Duration::from_millis(50), false, |_| {}).unwrap();
    // The pause itself: nothing is waited for.
    std::thread::sleep(Duration::from_millis(1_500));
    fleet.run(Duration::from_millis(50), false, |_| {}).unwrap();
    assert_eq!(fleet.findings().wrong, 0, "{:?}", fleet.findings());
}

#[test]
fn who_does_not_come_to_where_the_others_were_is_a_mistake() {
    let first = vec![snapshot(View::All, 10, 5), change(View::All, 10, 12, 6)];
    let (address, server) = server(vec![first, vec![snapshot(View::All, 10, 5)]]);
    let mut fleet = fleet(address, 2, View::All, None);
    let mut streams = server.join().unwrap();
    fleet.run(Duration::from_millis(100), false, |_| {}).unwrap();
    // What goes on meanwhile is not what is waited for.
    streams[0].write_all(&frame(&CODEC.encode(change(View::All, 12, 13, 7)))).unwrap();
    fleet.catch_up(Duration::from_millis(300)).unwrap();
    let found = fleet.findings();
    assert_eq!(found.wrong, 1, "{found:?}");
    let told = &found.mistakes[0];
    assert!(["client 1", "5-10", " m,", "5-12"].iter().all(|part| told.contains(part)), "{told}");

    streams[1].write_all(&frame(&CODEC.encode(change(View::All, 10, 13, 7)))).unwrap();
    fleet.catch_up(Duration::from_secs(5)).unwrap();
    assert_eq!(fleet.findings().wrong, 1, "{:?}", fleet.findings());
}

#[test]
fn with_a_depth_who_stays_at_the_same_book_is_not_behind() {
    for (view, last, wrong) in [(View::Three, 5, 0), (View::Three, 7, 1), (View::All, 5, 1)] {
        let first = vec![snapshot(view, 10, 5), change(view, 10, 12, 6), change(view, 12, 13, last)];
        let (address, server) = server(vec![first, vec![snapshot(view, 10, 5)]]);
        let mut fleet = fleet(address, 2, view, None);
        let _streams = server.join().unwrap();
        fleet.run(Duration::from_millis(100), false, |_| {}).unwrap();
        fleet.catch_up(Duration::from_millis(100)).unwrap();
        assert_eq!(fleet.findings().wrong, wrong, "{view:?} {last}: {:?}", fleet.findings());
    }
}

#[test]
fn what_waited_for_a_slow_reader_is_read_at_full_pace() {
    let (address, server) = server(vec![vec![snapshot(View::All, 10, 5)]]);
    let slow = Plan { paces: vec![Pace::Bytes(5)], ..plan(address, 1, View::All, None) };
    let mut fleet = Fleet::new(slow).unwrap();
    fleet.connect(Duration::from_secs(20), |_| {}).unwrap();
    let mut streams = server.join().unwrap();
    fleet.keep_pace();
    for seq in 11..14 {
        streams[0].write_all(&frame(&CODEC.encode(change(View::All, seq - 1, seq, 6)))).unwrap();
    }
    fleet.run(Duration::from_millis(300), false, |_| {}).unwrap();
    assert_eq!((fleet.slow.deltas, fleet.totals.bytes), (0, 0), "a byte in each sip");
    // The system has told of it, and nothing more comes.
    fleet.full_pace();
    fleet.run(Duration::from_millis(100), false, |_| {}).unwrap();
    assert_eq!(fleet.slow.deltas, 3);
    let place = fleet.judge.place(&"m".into());
    assert_eq!(fleet.judge.newest(place).map(|(at, _)| at), Some(Position::new(EPOCH, 13)));
    assert_eq!(fleet.findings().wrong, 0, "{:?}", fleet.findings());
}

#[test]
fn a_market_that_went_while_a_client_was_away_is_gone() {
    let unknown = Down::Err(Problem {
        id: Some(1),
        market: Some("m".into()),
        code: ErrorCode::UnknownMarket,
        why: "not in the catalogue".into(),
        retry: None,
        fatal: true,
    });
    for with_positions in [true, false] {
        let (address, server) = server(vec![vec![snapshot(View::All, 10, 5)], vec![unknown.clone()]]);
        let mut fleet = fleet(address, 1, View::All, None);
        assert_eq!(fleet.replace([0], with_positions).unwrap(), 1);
        assert_eq!(fleet.ready(), 0);
        fleet.all_back(None, Duration::from_secs(20)).unwrap();
        assert_eq!((fleet.ready(), fleet.holders(&"m".into())), (1, 0));
        assert_eq!(fleet.findings().wrong, 0, "{:?}", fleet.findings());
        drop(server.join().unwrap());
    }
    // Who was never there is refused.
    let (address, server) = server(vec![vec![unknown]]);
    let mut fleet = Fleet::new(plan(address, 1, View::All, None)).unwrap();
    let error = fleet.connect(Duration::from_secs(20), |_| {}).unwrap_err().to_string();
    assert!(error.contains("no market m"), "{error}");
    drop(server.join().unwrap());
}

#[test]
fn who_does_not_come_back_is_a_mistake() {
    let both = vec![snapshot(View::All, 10, 5)];
    let (address, server) = server(vec![both.clone(), both.clone(), both]);
    let mut fleet = fleet(address, 2, View::All, None);
    assert_eq!(fleet.cut_all(), 2);
    let mut coming = fleet.coming();
    // Only one more is let in.
    fleet.all_back(Some(&mut coming), Duration::from_secs(1)).unwrap();
    let found = fleet.findings();
    assert!(
        found.wrong >= 1 && found.mistakes.iter().any(|told| told.contains("1 clients that were cut")),
        "{found:?}"
    );
    assert_eq!((coming.all, fleet.ready()), (None, 1));
    drop(server.join().unwrap());
}
