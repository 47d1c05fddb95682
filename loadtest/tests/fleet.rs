//! What measures is measured: many clients on one thread against the gateway and the floor as processes. Everything that was
//! due comes to everybody, is checked, and its time is known.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use tictac_loadtest::bench::churn::churn;
use tictac_loadtest::bench::fanout::{Measured, measure};
use tictac_loadtest::bench::slow::slow;
use tictac_loadtest::bench::storm::storm;
use tictac_loadtest::bench::{Case, Kind, Who};
use tictac_loadtest::fleet::Transport;
use tictac_proto::wire::{Codec, Conflate};

fn case(clients: usize, markets: usize, each: usize, codec: Codec, conflate: Conflate) -> Case {
    Case {
        kind: Kind::FanOut,
        name: "test".into(),
        clients,
        markets,
        each,
        skew: 0.0,
        rate: 200.0,
        seconds: 1.0,
        transport: Transport::Ws,
        codec,
        conflate,
    }
}

fn run(who: Who, case: &Case) -> Measured {
    measure(Path::new(env!("CARGO_BIN_EXE_tictac-loadtest")), who, case, None).unwrap()
}

#[test]
fn every_change_comes_to_every_client_of_a_hot_market() {
    for codec in [Codec::Json, Codec::Msgpack] {
        let measured = run(Who::Gateway, &case(100, 1, 1, codec, Conflate::Raw));
        assert!((measured.share - 1.0).abs() < 1e-9, "{measured:?}");
        assert!(measured.p50 > 0.0 && measured.p50 <= measured.p99 && measured.p99 <= measured.max);
        assert!(measured.cpu_us > 0.0 && measured.frame_bytes > 50.0);
    }
}

#[test]
fn every_change_that_is_published_comes_to_every_client() {
    // That it went through Redis is asked there.
    let measured = run(Who::Published, &case(100, 1, 1, Codec::Json, Conflate::Raw));
    assert!((measured.share - 1.0).abs() < 1e-9, "{measured:?}");
    assert!(measured.p50 > 0.0 && measured.frame_bytes > 50.0);
}

#[test]
fn every_change_comes_to_every_stream_too() {
    let case = Case { transport: Transport::Sse, ..case(100, 3, 2, Codec::Json, Conflate::Raw) };
    let measured = run(Who::Gateway, &case);
    assert!((0.9..1.1).contains(&measured.share), "{measured:?}");
    assert!(measured.p50 > 0.0 && measured.frame_bytes > 50.0);
}

#[test]
fn who_follows_some_of_many_markets_gets_those() {
    let case = case(50, 40, 20, Codec::Json, Conflate::Raw);
    assert!(case.follows().iter().all(|markets| markets.len() == 20));
    assert!((case.deliveries() - 25.0).abs() < 1e-9, "20 of 40 markets each");
    let measured = run(Who::Gateway, &case);
    // Every market has about as many followers, not exactly.
    assert!((0.9..1.1).contains(&measured.share), "{measured:?}");
}

#[test]
fn who_wants_to_hear_ten_times_a_second_does() {
    let measured = run(Who::Gateway, &case(50, 1, 1, Codec::Json, Conflate::Every(100)));
    assert!((0.02..0.2).contains(&measured.share), "ten of two hundred a second: {measured:?}");
}

#[test]
fn who_is_cut_comes_back_to_where_it_was() {
    for transport in [Transport::Ws, Transport::Sse] {
        let case = Case { transport, ..case(100, 6, 2, Codec::Json, Conflate::Auto) };
        let program = Path::new(env!("CARGO_BIN_EXE_tictac-loadtest"));
        let back = storm(program, Who::Gateway, &case, None).unwrap();
        assert_eq!((back.exact + back.caught_up, back.snapshots), (200, 0), "{transport:?} {back:?}");
        assert!(back.accepts > 0.0 && back.took > 0.0 && back.cpu > 0.0);
    }
}

#[test]
fn who_comes_and_goes_leaves_nothing_behind() {
    let case = Case { seconds: 4.0, ..case(100, 6, 2, Codec::Json, Conflate::Auto) };
    let came = churn(Path::new(env!("CARGO_BIN_EXE_tictac-loadtest")), &case, None).unwrap();
    assert!(came.cut > 10 && came.memory.len() >= 4, "{came:?}");
    // Every other one came back with its positions.
    assert!(came.resumed > 0 && came.snapshots > 0, "{came:?}");
    assert_eq!(came.resumed + came.snapshots, 2 * came.cut as u64, "{came:?}");
}

#[test]
fn who_reads_slowly_knows_it_and_holds_up_nobody() {
    let case = Case { rate: 20.0, seconds: 6.0, ..case(40, 1, 1, Codec::Json, Conflate::Auto) };
    let program = Path::new(env!("CARGO_BIN_EXE_tictac-loadtest"));
    // Two of forty read 2 KiB a second of what is a dozen times as much, and one nothing; that none takes old prices for
    // live ones was seen there.
    let with = slow(program, &case, true, None).unwrap();
    assert!((0.5..=1.0).contains(&with.share), "{with:?}");
    assert_eq!((with.slow, with.slowness.aware), (3, 3), "{with:?}");
    assert!(with.slow_deltas > 0.0 && with.slowness.data_age > 2_500 && with.stop_p99 > 0.0, "{with:?}");
    let without = slow(program, &case, false, None).unwrap();
    assert_eq!((without.slow, without.slowness.aware), (0, 0), "{without:?}");
}

#[test]
fn the_floor_delivers_everything_too() {
    let measured = run(Who::Floor(150), &case(100, 1, 1, Codec::Json, Conflate::Raw));
    assert!((measured.share - 1.0).abs() < 1e-9, "{measured:?}");
    assert!((measured.frame_bytes - 150.0).abs() < 2.0, "{measured:?}");
}
