//! A group that is given orders, and none any more.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::fleet::tests::{frame, plan, server, snapshot};

fn measuring(seconds: u64) -> Measuring {
    Measuring { seconds, ..Measuring::default() }
}

#[test]
fn after_a_pause_several_seconds_are_one() {
    let ms = Duration::from_millis;
    assert_eq!(extended(1, ms(1_003), 10), 1);
    assert_eq!(extended(1, ms(1_400), 10), 1, "the next one is long enough");
    assert_eq!(extended(1, ms(3_700), 10), 4);
    assert_eq!(extended(1, ms(3_700), 3), 3, "what is not measured is no part of it");
    assert_eq!(extended(3, ms(9_000), 3), 3);
}

#[test]
fn what_is_found_after_measuring_is_told_in_the_end() {
    let (address, server) = server(vec![vec![snapshot(View::All, 10, 5)]]);
    let (order, orders) = sync_channel(4);
    let (tell, told) = sync_channel(64);
    let plan = plan(address, 1, View::All, None);
    let group = std::thread::spawn(move || run(0, plan, measuring(1), &orders, tell));
    order.send(Order::Connect).unwrap();
    while !matches!(told.recv().unwrap().1, Told::Connected) {}
    let mut streams = server.join().unwrap();
    order.send(Order::Measure).unwrap();
    while !matches!(told.recv().unwrap().1, Told::Measured(_)) {}
    streams[0].write_all(&frame(b"{\"t\":\"nothing")).unwrap();
    order.send(Order::Watch("m".into())).unwrap();
    // With this it has read what was sent before.
    order.send(Order::NoDocument).unwrap();
    let Told::Checked(Checked::Differs(why)) = told.recv().unwrap().1 else { panic!() };
    assert!(why.contains("m: ") && why.contains("1 clients were not told"), "{why}");
    drop(order);
    let mut wrong = None;
    while let Ok((_, told)) = told.recv() {
        if let Told::Measured(figures) = told {
            wrong = Some(figures.wrong);
        }
    }
    assert_eq!(wrong, Some(1));
    group.join().unwrap();
}

#[test]
fn nobody_s_orders_end_a_measurement() {
    let (address, server) = server(vec![vec![snapshot(View::All, 10, 5)]]);
    let (order, orders) = sync_channel(4);
    let (tell, told) = sync_channel(64);
    let plan = plan(address, 1, View::All, None);
    let group = std::thread::spawn(move || run(0, plan, measuring(3_600), &orders, tell));
    order.send(Order::Connect).unwrap();
    order.send(Order::Measure).unwrap();
    while !matches!(told.recv().unwrap().1, Told::Second(_)) {}
    drop(order);
    let begun = Instant::now();
    while told.recv().is_ok() {}
    group.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(server.join().unwrap());
}
