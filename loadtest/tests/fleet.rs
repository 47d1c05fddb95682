//! What measures is measured: many clients on one thread against the gateway and the floor as processes. Everything that was
//! due comes to everybody, is checked, and its time is known.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use tictac_loadtest::bench::{Case, Measured, Who, measure};
use tictac_proto::wire::{Codec, Conflate};

fn case(clients: usize, markets: usize, each: usize, codec: Codec, conflate: Conflate) -> Case {
    Case {
        name: "test".into(),
        clients,
        markets,
        each,
        skew: 0.0,
        rate: 200.0,
        seconds: 1.0,
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
fn the_floor_delivers_everything_too() {
    let measured = run(Who::Floor(150), &case(100, 1, 1, Codec::Json, Conflate::Raw));
    assert!((measured.share - 1.0).abs() < 1e-9, "{measured:?}");
    assert!((measured.frame_bytes - 150.0).abs() < 2.0, "{measured:?}");
}
