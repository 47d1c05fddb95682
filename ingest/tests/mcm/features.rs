//! What the Betfair stream can say, one thing a test, on inline lines.

use tictac_ingest::mcm::{Kind, Read};
use tictac_ingest::update::Update;
use tictac_proto::model::{
    MarketField as M, MarketStatus, SelectionField as S, SelectionKey, SelectionStatus, Side, Value,
};

use crate::feed::{Feed, definition, market, runner};

#[test]
fn a_definition_becomes_fields() {
    let mut feed = Feed::default();
    feed.mc(
        r#"{"id":"1.1","img":true,"tv":12.5,"marketDefinition":{"eventId":"33","eventName":"Caf\u00e9 \"Cup\"","eventTypeId":"7",
        "venue":"Ascot","marketTime":"2025-05-09T19:00:00.000Z","marketType":"EACH_WAY","name":"1m Hcap","bettingType":"ODDS",
        "numberOfWinners":3,"eachWayDivisor":4.5,"betDelay":5,"version":123456789012,"status":"SUSPENDED","inPlay":true,
        "suspendReason":"VAR","priceLadderDefinition":{"type":"CLASSIC"},"newThing":{"a":[1,{}]},
        "runners":[{"id":7,"hc":-0.25,"name":"Red Rum","sortPriority":2,"status":"ACTIVE","adjustmentFactor":26.285},
                   {"id":8,"sortPriority":1,"status":"REMOVED","bsp":4.5603088365589795,"removalDate":"x"}]}}"#,
    );
    let text = |field| feed.book().fields.text(field);
    for (field, want) in [
        (M::Event, "33"),
        (M::EventName, "Café \"Cup\""),
        (M::Sport, "horse_racing"),
        (M::Venue, "Ascot"),
        (M::Source, "bf"),
        (M::Type, "EACH_WAY"),
        (M::Name, "1m Hcap"),
        (M::Currency, "GBP"),
        (M::Ticks, "classic"),
        (M::Reason, "VAR"),
    ] {
        assert_eq!(text(field), Some(want), "{field:?}");
    }
    let int = |field| feed.book().fields.int(field);
    for (field, want) in [
        (M::Start, 1_746_817_200_000),
        (M::Kind, 0),
        (M::PriceKind, 0),
        (M::PriceExponent, 2),
        (M::SizeKind, 0),
        (M::SizeExponent, 2),
        (M::Winners, 3),
        (M::EachWay, 4500),
        (M::BetDelay, 5),
        (M::Version, 123_456_789_012),
        (M::Status, MarketStatus::Suspended.code()),
        (M::InPlay, 1),
        (M::Matched, 1250),
    ] {
        assert_eq!(int(field), Some(want), "{field:?}");
    }
    let rum = &feed.book().selections[&SelectionKey { id: 7, handicap: -25 }].fields;
    assert_eq!(
        (rum.text(S::Name), rum.int(S::Sort), rum.int(S::Adjustment)),
        (Some("Red Rum"), Some(2), Some(26_285))
    );
    assert_eq!(
        (feed.int(8, S::Sp), feed.int(8, S::Status)),
        (Some(456), Some(SelectionStatus::Removed.code()))
    );

    // The next one leaves out what no longer holds: cleared. Names stay, they may come from elsewhere.
    feed.mc(&market(&definition("")));
    let fields = &feed.book().fields;
    for field in [M::Venue, M::Start, M::EachWay, M::BetDelay, M::Reason, M::Winners] {
        assert_eq!(fields.get(field), None, "{field:?}");
    }
    assert_eq!(fields.text(M::Name), Some("1m Hcap"));
    assert!(feed.book().selections.contains_key(&runner(8)), "a runner that a definition leaves out stays");
}

#[test]
fn sports_are_named_and_unknown_ones_numbered() {
    for (id, want) in [("1", "football"), ("4339", "greyhound_racing"), ("987654", "987654")] {
        let mut feed = Feed::default();
        feed.mc(&market(&definition("").replace("\"7\"", &format!("\"{id}\""))));
        assert_eq!(feed.book().fields.text(M::Sport), Some(want));
    }
}

#[test]
fn line_markets_say_that_the_price_is_a_line() {
    let line = definition(
        r#","priceLadderDefinition":{"type":"LINE_RANGE"},"lineMinUnit":-10.5,"lineMaxUnit":100.5,"lineInterval":0.5"#,
    )
    .replace("\"ODDS\"", "\"LINE\"");
    let mut feed = Feed::default();
    feed.mc(&format!(
        "{{\"id\":\"1.1\",\"rc\":[{{\"ltp\":-1.5,\"atb\":[[-2.5,3],[0,4]],\"id\":7}}],\"img\":true,\"marketDefinition\":{line}}}"
    ));
    assert_eq!(feed.book().fields.int(M::PriceKind), Some(2));
    assert_eq!(feed.book().fields.text(M::Ticks), Some("line:-1050:10050:50"));
    assert_eq!(feed.back(7), [(-250, 300), (0, 400)]);
    assert_eq!(feed.int(7, S::Last), Some(-150));
}

#[test]
fn the_scale_is_there_before_the_definition() {
    let mut feed = Feed::default();
    feed.mc(r#"{"id":"1.1","rc":[{"atb":[[2,3]],"id":7}]}"#);
    for field in
        [M::Source, M::Kind, M::PriceKind, M::PriceExponent, M::SizeKind, M::SizeExponent, M::Currency]
    {
        assert!(feed.book().fields.get(field).is_some(), "{field:?}");
    }
    let before = feed.book().clone();
    feed.mc(r#"{"id":"1.1","rc":[{"atl":[[2.1,3]],"id":7}]}"#);
    assert!(feed.delta().fields.is_empty(), "told once");
    feed.mc(&market(&definition("")));
    let later = feed.book();
    assert_eq!((later.status(), feed.back(7)), (MarketStatus::Open, vec![(200, 300)]));
    assert!(before.diff(later).fields.iter().all(|(field, _)| !field.is_scale()));
}

#[test]
fn prices_are_absolute_and_zero_deletes() {
    let mut feed = Feed::default();
    feed.mc(
        r#"{"id":"1.1","rc":[{"atb":[[1.01,3.5],[2,1],[1.5,0.01]],"trd":[[1.01,9]],"atl":[[3,1]],"id":7}]}"#,
    );
    feed.mc(
        r#"{"id":"1.1","con":true,"rc":[{"id":7,"atb":[[2,0],[1.5,7],[9,0]],"trd":[[1.01,10]],"atl":[]}]}"#,
    );
    assert_eq!(feed.back(7), [(101, 350), (150, 700)]);
    assert_eq!(feed.side(7, Side::Lay), [(300, 100)]);
    assert_eq!(feed.side(7, Side::Traded), [(101, 1000)]);
}

#[test]
fn the_same_runner_twice_and_the_same_price_twice_the_last_counts() {
    let mut feed = Feed::default();
    feed.mc(
        r#"{"id":"1.1","rc":[{"id":9,"ltp":5},{"id":7,"ltp":2,"atb":[[2,1],[2,5]]},{"id":7,"hc":0.5,"ltp":8},{"id":7,"ltp":3,"atb":[[2,6]]}]}"#,
    );
    assert_eq!((feed.back(7), feed.int(7, S::Last)), (vec![(200, 600)], Some(300)));
    let keys: Vec<i64> = feed.delta().selections.iter().map(|s| s.0.id * 1000 + s.0.handicap).collect();
    assert_eq!(keys, [7000, 7050, 9000], "by key, once each");
    let many: Vec<String> = (1..=40).rev().map(|p| format!("[{p},{p}]")).collect();
    feed.mc(&format!("{{\"id\":\"1.1\",\"rc\":[{{\"id\":8,\"atb\":[{},[5,77]]}}]}}", many.join(",")));
    let want: Vec<(i64, i64)> = (1..=40).map(|p| (p * 100, if p == 5 { 7700 } else { p * 100 })).collect();
    assert_eq!(feed.back(8), want);
    assert!(feed.delta().selections[0].1.ladder(Side::Back).levels.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn scalars_only_where_they_changed_and_not_a_number_clears() {
    let mut feed = Feed::default();
    feed.mc(r#"{"id":"1.1","tv":5.25,"rc":[{"id":7,"ltp":2.5,"tv":4.1,"spn":3.857142,"spf":4,"spb":[[1.5,2.123]],"spl":[[1.5,2]]}]}"#);
    assert_eq!((feed.int(7, S::Last), feed.int(7, S::Volume)), (Some(250), Some(410)));
    assert_eq!((feed.int(7, S::SpNear), feed.int(7, S::SpFar)), (Some(386), Some(400)));
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"spn":"NaN","spf":"Infinity","ltp":null}]}"#);
    assert_eq!((feed.int(7, S::SpNear), feed.int(7, S::SpFar)), (None, None));
    assert_eq!((feed.int(7, S::Last), feed.book().fields.int(M::Matched)), (Some(250), Some(525)));
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"spb":[[1.5,3]]}]}"#);
    assert!(feed.updates.is_empty(), "what is not kept is no update");
}

#[test]
fn level_ladders_become_prices() {
    let mut feed = Feed::default();
    feed.mc(r#"{"id":"1.1","img":true,"rc":[{"id":7,"batb":[[0,2,10],[1,1.9,20],[2,1.8,30]],"batl":[[0,2.1,1]]}]}"#);
    assert_eq!(feed.back(7), [(180, 3000), (190, 2000), (200, 1000)]);
    // The best price is taken: all moves up, in two messages, so that 1.8 stands at two levels in between.
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"batb":[[0,1.9,20],[1,1.8,35]]}]}"#);
    assert_eq!(feed.back(7), [(180, 3500), (190, 2000)]);
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"batb":[[2,0,0]]}]}"#);
    assert_eq!(feed.back(7), [(180, 3500), (190, 2000)]);
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"batb":[[9,0,0],[1,0,0]]}]}"#);
    assert_eq!(feed.back(7), [(190, 2000)]);
    assert_eq!(feed.side(7, Side::Lay), [(210, 100)]);
}

#[test]
fn the_better_ladder_is_followed_until_an_image() {
    let mut feed = Feed::default();
    // Both runners start on best levels, with virtual ones beside.
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"bdatb":[[0,5,5]],"batb":[[0,2,1]]},{"id":8,"batb":[[0,3,1]],"bdatl":[[0,9,9]]}]}"#);
    assert_eq!((feed.back(7), feed.back(8)), (vec![(200, 100)], vec![(300, 100)]));
    assert_eq!(feed.side(8, Side::Lay), [(900, 900)], "sides choose on their own");
    // Then one runner shows a full ladder: the market's back sides follow those, and best levels are gone.
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"atb":[[2.5,1],[1.01,9]],"batb":[[0,2.5,1]]}]}"#);
    assert_eq!((feed.back(7), feed.back(8)), (vec![(101, 900), (250, 100)], vec![]));
    feed.mc(r#"{"id":"1.1","rc":[{"id":8,"batb":[[0,4,1]]},{"id":7,"bdatb":[[0,6,6]]}]}"#);
    assert_eq!((feed.back(7), feed.back(8)), (vec![(101, 900), (250, 100)], vec![]));
    // An image starts anew.
    feed.mc(r#"{"id":"1.1","img":true,"rc":[{"id":8,"bdatb":[[0,4,1]]}]}"#);
    assert_eq!(feed.back(8), [(400, 100)]);
    assert!(!feed.book().selections.contains_key(&runner(7)));
    feed.mc(r#"{"id":"1.1","rc":[{"id":8,"bdatb":[[0,4.1,1]]}]}"#);
    assert_eq!(feed.back(8), [(410, 100)]);
}

#[test]
fn an_image_replaces_wherever_its_key_stands() {
    let mut feed = Feed::default();
    feed.mc(&market(&definition("")));
    feed.mc(r#"{"id":"1.1","rc":[{"id":7,"atb":[[2,1]]},{"id":99,"ltp":3}]}"#);
    let image = format!(
        r#"{{"rc":[{{"atb":[[3,1]],"id":7}}],"marketDefinition":{},"img":true,"id":"1.1"}}"#,
        definition("")
    );
    feed.mc(&image);
    assert!(matches!(feed.updates[..], [Update::Image { .. }]));
    assert_eq!(feed.back(7), [(300, 100)]);
    assert_eq!(feed.book().selections.len(), 1);
    assert_eq!(feed.book().fields.text(M::Source), Some("bf"));
    feed.mc(r#"{"id":"1.1","img":false,"rc":[{"id":7,"ltp":3}]}"#);
    assert!(matches!(feed.updates[..], [Update::Change { .. }]));
}

#[test]
fn a_subscriptions_image_is_an_image_of_each_market() {
    let mut feed = Feed::default();
    let read = feed.read(
        r#"{"mc":[{"id":"1.1","rc":[{"id":7,"ltp":2}]},{"id":"1.2","tv":1}],"pt":77,"ct":"SUB_IMAGE","id":2,"op":"mcm"}"#,
    );
    assert_eq!((read.kind, read.pt, read.broken), (Kind::Image, Some(77), false));
    assert!(matches!(feed.updates[..], [Update::Image { .. }, Update::Image { .. }]));
    let read = feed.read(
        r#"{"op":"mcm","ct":"RESUB_DELTA","pt":78,"mc":[{"id":"1.1","tv":2},{"id":"1.2","img":true}]}"#,
    );
    assert_eq!(read.kind, Kind::Resumed);
    assert!(matches!(feed.updates[..], [Update::Change { .. }, Update::Image { .. }]));
}

#[test]
fn what_a_subscriptions_image_leaves_out_can_be_dropped() {
    let mut feed = Feed::default();
    feed.mc(r#"{"id":"1.1","tv":1},{"id":"1.2","tv":1},{"id":"1.3","tv":1},{"id":"1.4","tv":1}"#);
    let segment = |segment: &str, id: &str| {
        format!(
            r#"{{"op":"mcm","ct":"SUB_IMAGE","segmentType":"{segment}","mc":[{{"id":"{id}","img":true}}]}}"#
        )
    };
    assert!(!feed.read(&segment("SEG_START", "1.1")).image_ends);
    assert!(!feed.read(&segment("SEG", "1.3")).image_ends);
    assert!(feed.read(&segment("SEG_END", "1.5")).image_ends);
    feed.mc(r#"{"id":"1.4","tv":2}"#);
    let mut out = Vec::new();
    feed.reader.drop_unnamed(&mut out);
    assert_eq!(out, [Update::Gone { market: "1.2".into() }]);
    assert_eq!(feed.reader.remembered(), 4);
    assert!(feed.read(r#"{"op":"mcm","ct":"SUB_IMAGE","mc":[{"id":"1.3","img":true}]}"#).image_ends);
    out.clear();
    feed.reader.drop_unnamed(&mut out);
    assert_eq!((out.len(), feed.reader.remembered()), (3, 1));
    let cut = feed.read(r#"{"op":"mcm","ct":"SUB_IMAGE","mc":[{"id":"1.3","img":true},{"id":"#);
    assert!(cut.broken && !cut.image_ends, "half an image is no reason to drop anything");
}

#[test]
fn heartbeats_and_late_data() {
    let mut feed = Feed::default();
    let read = feed.read("{\"op\":\"mcm\",\"id\":2,\"clk\":\"A\",\"pt\":5,\"ct\":\"HEARTBEAT\"}\r\n");
    assert_eq!((read.kind, read.pt, read.is_late()), (Kind::Heartbeat, Some(5), false));
    let read = feed.read(r#"{"op":"mcm","pt":6,"ct":"HEARTBEAT","status":503,"mc":null,"clk":null}"#);
    assert_eq!((read.pt, read.status, read.is_late()), (Some(6), Some(503), true));
    let nulls =
        r#"{"op":"mcm","pt":7,"mc":[{"id":"1.1","img":null,"rc":null,"tv":null,"marketDefinition":null}]}"#;
    assert_eq!(feed.read(nulls).kind, Kind::Change);
    assert!(feed.problems.is_empty());
    let read = feed.read(r#"{"op":"mcm","pt":7,"status":null,"mc":[]}"#);
    assert_eq!((read.kind, read.status), (Kind::Change, None));
    assert_eq!((feed.read("\r\n"), feed.read("")), (Read::default(), Read::default()));
    assert!(feed.updates.is_empty() && feed.problems.is_empty());
}

#[test]
fn a_market_twice_in_an_image_is_its_higher_version() {
    let one = |event: &str, version: i64, ltp: i64| {
        format!(
            r#"{{"id":"1.1","img":true,"marketDefinition":{},"rc":[{{"id":7,"ltp":{ltp},"batb":[[0,{ltp},1]]}}]}}"#,
            definition("")
                .replace("\"33\"", event)
                .replace("\"version\":5", &format!("\"version\":{version}"))
        )
    };
    for order in [[one("\"new\"", 9, 3), one("\"old\"", 8, 2)], [one("\"old\"", 8, 2), one("\"new\"", 9, 3)]]
    {
        let mut feed = Feed::default();
        feed.mc(&format!("{},{{\"id\":\"1.2\",\"img\":true}},{}", order[0], order[1]));
        assert_eq!(feed.updates.len(), 2, "one image a market");
        assert_eq!(feed.book().fields.text(M::Event), Some("new"));
        assert_eq!(feed.int(7, S::Last), Some(300));
        feed.mc(r#"{"id":"1.1","rc":[{"id":7,"batb":[[0,4,1]]}]}"#);
        assert_eq!(feed.back(7), [(400, 100)], "levels are the kept one's");
        // In another message an older version is no duplicate: versions need not rise.
        feed.mc(&one("\"back\"", 2, 5));
        assert_eq!(feed.book().fields.text(M::Event), Some("back"));
    }
}

#[test]
fn runners_come_late_go_and_get_results() {
    let mut feed = Feed::default();
    feed.mc(&market(&definition("")));
    feed.mc(r#"{"id":"1.1","rc":[{"id":8,"ltp":3.1}]}"#);
    assert_eq!(feed.book().selections[&runner(8)].status(), SelectionStatus::Active);
    let runners = |first: &str, second: &str| {
        market(&definition("").replace(
            r#"{"id":7,"sortPriority":1,"status":"ACTIVE"}"#,
            &format!(r#"{{"id":7,"status":"{first}"}},{{"id":8,"status":"{second}"}}"#),
        ))
    };
    feed.mc(&runners("REMOVED", "ACTIVE"));
    assert_eq!(feed.book().selections[&runner(7)].status(), SelectionStatus::Removed);
    assert_eq!(feed.int(8, S::Last), Some(310));
    let closed = |line: String| line.replace("\"OPEN\"", "\"CLOSED\"");
    feed.mc(&closed(runners("REMOVED", "REMOVED")));
    assert_eq!(feed.book().status(), MarketStatus::Closed, "no results");
    for (first, second, want) in [
        ("WINNER", "LOSER", [SelectionStatus::Winner, SelectionStatus::Loser]),
        ("PLACED", "HIDDEN", [SelectionStatus::Placed, SelectionStatus::Hidden]),
    ] {
        feed.mc(&closed(runners(first, second)));
        assert_eq!(feed.book().status(), MarketStatus::Settled);
        assert_eq!([7, 8].map(|id| feed.book().selections[&runner(id)].status()), want);
    }
}

#[test]
fn a_forgotten_market_starts_anew() {
    let mut feed = Feed::default();
    feed.mc(r#"{"id":"1.1","tv":1}"#);
    feed.reader.forget("1.1");
    assert_eq!(feed.reader.remembered(), 0);
    feed.mc(r#"{"id":"1.1","tv":1}"#);
    assert_eq!(feed.delta().get(M::Source), Some(Some(&Value::from("bf"))));
}
