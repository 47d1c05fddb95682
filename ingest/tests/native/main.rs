//! The native format: what a reader takes, what it refuses and how it says so; the round trip with the writer.

mod round_trip;

use rmp_serde::to_vec_named;
use serde_json::json;
use tictac_ingest::envelope::{Body, Envelope, MAX_PAYLOAD};
use tictac_ingest::native::NativeReader;
use tictac_ingest::problem::{Problem, ProblemKind};
use tictac_ingest::update::{StopScope, Update};
use tictac_proto::limits::{MAX_DEPTH, MAX_LEVELS, MAX_SELECTIONS};
use tictac_proto::model::{
    Book, Delta, MarketField, MarketStatus, SelectionField, SelectionKey, SelectionStatus, Side, Value,
};

fn read_with(reader: &mut NativeReader, payload: &[u8]) -> (Vec<Update>, Vec<Problem>) {
    let (mut updates, mut problems) = (Vec::new(), Vec::new());
    match Envelope::read(payload, &mut problems) {
        Ok(Envelope { body: Body::Native(node), .. }) => reader.read(&node, &mut updates, &mut problems),
        Ok(other) => panic!("not native: {other:?}"),
        Err(problem) => problems.push(problem),
    }
    (updates, problems)
}

fn reader() -> NativeReader {
    NativeReader::new("demo".into())
}

/// A reader that knows the market `demo-1`.
fn warm() -> NativeReader {
    let mut reader = reader();
    let (updates, problems) =
        read_with(&mut reader, br#"{"op":"market","market":"demo-1","event":"e1","selections":[{"id":1}]}"#);
    assert_eq!((updates.len(), problems.len()), (1, 0), "{problems:?}");
    reader
}

fn read(reader: &mut NativeReader, body: &serde_json::Value) -> (Vec<Update>, Vec<Problem>) {
    let json = read_with(reader, &serde_json::to_vec(body).expect("a value"));
    // The same in MessagePack says the same.
    let packed = read_with(reader, &to_vec_named(body).expect("a value"));
    assert_eq!(json.0, packed.0);
    assert_eq!(
        json.1.iter().map(|p| (p.kind, &p.at)).collect::<Vec<_>>(),
        packed.1.iter().map(|p| (p.kind, &p.at)).collect::<Vec<_>>()
    );
    json
}

fn image(update: &Update) -> &Book {
    match update {
        Update::Image { book, .. } => book,
        other => panic!("no image: {other:?}"),
    }
}

fn delta(update: &Update) -> &Delta {
    match update {
        Update::Change { delta, .. } => delta,
        other => panic!("no change: {other:?}"),
    }
}

const KEY: SelectionKey = SelectionKey { id: 1, handicap: 0 };

#[test]
fn an_image_has_its_defaults_and_exact_numbers() {
    let (updates, problems) = read(
        &mut reader(),
        &json!({"op":"market","market":"demo-1","event":"e1","event_name":"Ashby v Thorne","sport":"football",
            "type":"MATCH_ODDS","source":"someone else","in_play":true,"bet_delay":5,"matched":"1234.5","each_way":0.2,
            "not_yet_known":{"deep":[1]},
            "selections":[{"id":1,"handicap":-0.25,"name":"Ashby","last":2.5,"volume":10.5,"adjustment":12.5,
                "back":[[2.5,100],[2.48,7.25],[2.46,0]],"lay":[["2.52","3"]],"traded":[[2.5,10.5]],
                "native":"6/4","probability":0.4}]}),
    );
    assert_eq!(problems, []);
    let book = image(&updates[0]);
    assert_eq!(book.fields.text(MarketField::Source), Some("demo"));
    assert_eq!(book.fields.text(MarketField::Currency), Some("GBP"));
    assert_eq!(book.fields.int(MarketField::PriceExponent), Some(2));
    assert_eq!(book.fields.int(MarketField::Matched), Some(123_450));
    assert_eq!(book.fields.int(MarketField::EachWay), Some(200));
    assert_eq!(book.fields.int(MarketField::InPlay), Some(1));
    assert_eq!(book.status(), MarketStatus::Open);
    let selection = &book.selections[&SelectionKey { id: 1, handicap: -25 }];
    assert_eq!(selection.status(), SelectionStatus::Active);
    assert_eq!(selection.fields.int(SelectionField::Adjustment), Some(12_500));
    assert_eq!(selection.fields.int(SelectionField::Probability), Some(400_000));
    assert_eq!(selection.ladder(Side::Back).iter().collect::<Vec<_>>(), [(248, 725), (250, 10_000)]);
    assert_eq!(selection.ladder(Side::Lay).iter().collect::<Vec<_>>(), [(252, 300)]);
}

#[test]
fn a_change_tells_absent_from_null_from_zero() {
    let (updates, problems) = read(
        &mut warm(),
        &json!({"op":"change","market":"demo-1","reason":null,"selections":[
            {"id":1,"last":null,"back":[[2.5,120],[2.48,0]],"lay":null,"traded":{"replace":[[2.5,1],[2.6,0]]}},
            {"id":2,"remove":true}]}),
    );
    assert_eq!(problems, []);
    let delta = delta(&updates[0]);
    assert_eq!(delta.fields.as_slice(), [(MarketField::Reason, None)]);
    assert_eq!(delta.removed.as_slice(), [SelectionKey { id: 2, handicap: 0 }]);
    let (key, change) = &delta.selections[0];
    assert_eq!((*key, change.fields.as_slice()), (KEY, &[(SelectionField::Last, None)][..]));
    assert_eq!(change.ladder(Side::Back).levels.as_slice(), [(248, 0), (250, 12_000)]);
    assert!(change.ladder(Side::Lay).replace && change.ladder(Side::Lay).levels.is_empty());
    assert!(change.ladder(Side::Traded).replace);
    assert_eq!(change.ladder(Side::Traded).levels.as_slice(), [(250, 100)]);
}

#[test]
fn the_market_s_own_scale_is_used_until_it_is_gone() {
    let mut reader = reader();
    let market = json!({"op":"market","market":"p","event":"e","price_kind":"probability","price_exponent":4,
        "size_exponent":0,"selections":[{"id":1,"back":[[0.4321,7]]}]});
    let (updates, problems) = read(&mut reader, &market);
    assert_eq!(problems, []);
    assert_eq!(image(&updates[0]).selections[&KEY].ladder(Side::Back).size(4321), 7);
    let change = json!({"op":"change","market":"p","selections":[{"id":1,"back":[[0.43215,7],[0.4320,8]]}]});
    let (updates, problems) = read(&mut reader, &change);
    assert_eq!(delta(&updates[0]).selections[0].1.ladder(Side::Back).levels.as_slice(), [(4320, 8)]);
    assert_eq!(problems[0].at, "body.selections[0].back[0]");
    assert!(
        problems[0].why.contains("0.43215 is off the market's scale (exponent 4)"),
        "{}",
        problems[0].why
    );
    assert_eq!(read(&mut reader, &json!({"op":"gone","market":"p"})).0.len(), 1);
    assert_eq!(reader.markets(), 0);
    let (updates, problems) = read(&mut reader, &change);
    assert!(updates.is_empty());
    assert_eq!(problems[0].kind, ProblemKind::UnknownMarket);
}

#[test]
fn a_scale_changes_only_by_an_image() {
    let mut reader = warm();
    let (updates, problems) =
        read(&mut reader, &json!({"op":"change","market":"demo-1","price_exponent":2,"name":"x"}));
    assert_eq!((updates.len(), problems.len()), (1, 0));
    for exponent in [json!(3), json!(null), json!("x")] {
        let (updates, problems) =
            read(&mut reader, &json!({"op":"change","market":"demo-1","price_exponent":exponent}));
        assert!(updates.is_empty());
        assert_eq!(problems[0].at, "body.price_exponent");
    }
    let (updates, problems) =
        read(&mut reader, &json!({"op":"market","market":"demo-1","event":"e1","price_exponent":9}));
    assert!(updates.is_empty());
    assert_eq!((problems[0].kind, problems[0].at.as_str()), (ProblemKind::Value, "body.price_exponent"));
}

#[test]
fn one_bad_item_costs_only_itself() {
    let (updates, problems) = read(
        &mut warm(),
        &json!([
            {"op":"change","market":"demo-1","in_play":1,"bet_delay":-5,"start":9_007_199_254_740_992_i64,"name":"kept"},
            {"op":"sell"},
            17,
            {"op":"change","market":"nobody"},
            {"op":"change","market":"demo-1","selections":[
                {"name":"no id"},
                "text",
                {"id":1,"last":2.505,"volume":-1,"back":[[2.5,1],[2.505,1],[2.6,-1],[2.7],"x",[2.8,2]],"lay":"none"}]},
            {"op":"alive"},
        ]),
    );
    let at: Vec<_> = problems.iter().map(|p| (p.kind, p.at.as_str())).collect();
    use ProblemKind::{Operation, UnknownMarket, Value};
    let expected = [
        (Value, "body[0].bet_delay"),
        (Value, "body[0].in_play"),
        (Value, "body[0].start"),
        (Operation, "body[1].op"),
        (Value, "body[2]"),
        (UnknownMarket, "body[3].market"),
        (Value, "body[4].selections[0].id"),
        (Value, "body[4].selections[1].id"),
        (Value, "body[4].selections[2].back[1]"),
        (Value, "body[4].selections[2].back[2]"),
        (Value, "body[4].selections[2].back[3]"),
        (Value, "body[4].selections[2].back[4]"),
        (Value, "body[4].selections[2].last"),
        (Value, "body[4].selections[2].lay"),
        (Value, "body[4].selections[2].volume"),
    ];
    let mut sorted = at.clone();
    sorted.sort_by_key(|p| p.1);
    assert_eq!(sorted, expected);
    assert_eq!(updates.len(), 2);
    assert_eq!(delta(&updates[0]).fields.as_slice(), [(MarketField::Name, Some("kept".into()))]);
    let change = &delta(&updates[1]).selections[0].1;
    assert_eq!(change.ladder(Side::Back).levels.as_slice(), [(250, 100), (280, 200)]);
    assert!(problems.iter().all(|p| !p.why.is_empty() && p.excerpt.len() <= 200));
}

#[test]
fn what_cannot_be_read_fails_safe() {
    let mut reader = warm();
    let (updates, problems) = read(
        &mut reader,
        &json!({"op":"change","market":"demo-1","status":"paused","selections":[{"id":1,"status":"resting"}]}),
    );
    assert_eq!(problems.len(), 2);
    let change = delta(&updates[0]);
    assert_eq!(
        change.get(MarketField::Status).flatten().and_then(Value::int),
        Some(MarketStatus::Suspended.code())
    );
    assert_eq!(
        change.selections[0].1.fields.as_slice(),
        [(SelectionField::Status, Some(SelectionStatus::Hidden.code().into()))]
    );
    for (stop, problem) in [
        (json!({"op":"stop","event":"e1","markets":[]}), true),
        (json!({"op":"stop","event":"e1","markets":["a",5]}), true),
        (json!({"op":"stop","event":"e1","types":"MATCH_ODDS"}), true),
        (json!({"op":"stop","event":"e1","types":["a"],"markets":["b"]}), true),
        (json!({"op":"stop","event":"e1","markets":null}), false),
        (json!({"op":"stop","event":"e1"}), false),
    ] {
        let (updates, problems) = read(&mut reader, &stop);
        assert_eq!(!problems.is_empty(), problem, "{stop}");
        let expected = Update::Stop { event: "e1".into(), scope: StopScope::Event, reason: None };
        assert_eq!(updates, [expected], "{stop}");
    }
    let (updates, problems) = read(
        &mut reader,
        &json!([{"op":"stop","event":"e1","markets":["a","b"],"reason":"goal"},{"op":"stop","event":"e1","types":["T"]}]),
    );
    assert_eq!(problems, []);
    let markets = StopScope::Markets(vec!["a".into(), "b".into()]);
    assert_eq!(updates[0], Update::Stop { event: "e1".into(), scope: markets, reason: Some("goal".into()) });
    assert_eq!(
        updates[1],
        Update::Stop { event: "e1".into(), scope: StopScope::Types(vec!["T".into()]), reason: None }
    );
}

#[test]
fn a_market_whose_event_cannot_be_read_is_refused() {
    for event in [json!(7), json!(""), json!("a\nb")] {
        let (updates, problems) = read(&mut reader(), &json!({"op":"market","market":"m","event":event}));
        assert!(updates.is_empty());
        assert_eq!((problems.len(), problems[0].at.as_str()), (1, "body.event"));
        let (updates, problems) = read(&mut warm(), &json!({"op":"change","market":"demo-1","event":event}));
        assert!(delta(&updates[0]).is_empty());
        assert_eq!(problems[0].at, "body.event");
    }
    // A market without one is an event of its own.
    let (updates, _) = read(&mut reader(), &json!({"op":"market","market":"m"}));
    assert_eq!(image(&updates[0]).fields.text(MarketField::Event), Some("m"));
}

#[test]
fn the_deepest_form_fits_in_an_envelope() {
    let body = json!([{"op":"market","market":"m","selections":[{"id":1,"back":{"replace":[["2.5",1]]}}]}]);
    let payload = to_vec_named(&json!({"src":"demo","seq":1,"body":body})).expect("msgpack");
    let (updates, problems) = read_with(&mut reader(), &payload);
    assert_eq!(problems, []);
    assert_eq!(image(&updates[0]).selections[&KEY].ladder(Side::Back).size(250), 100);
}

#[test]
fn bounds_are_named() {
    let mut reader = warm();
    let long = "x".repeat(65);
    let selections: Vec<_> = (0..=MAX_SELECTIONS).map(|id| json!({"id": id})).collect();
    let levels: Vec<_> = (0..=MAX_LEVELS).map(|n| json!([n, 1])).collect();
    for (body, at) in [
        (json!({"op":"market","market":long,"event":"e"}), "body.market"),
        (json!({"op":"market","market":"m","event":long}), "body.event"),
        (json!({"op":"change","market":"demo-1","name":"x".repeat(257)}), "body.name"),
        (json!({"op":"market","market":"m","selections":selections}), "body.selections"),
        (
            json!({"op":"change","market":"demo-1","selections":[{"id":1,"back":levels}]}),
            "body.selections[0].back",
        ),
    ] {
        let (_, problems) = read(&mut reader, &body);
        assert_eq!((problems[0].kind, problems[0].at.as_str()), (ProblemKind::TooLarge, at));
    }
    let (_, problems) = read_with(&mut reader, &vec![b' '; MAX_PAYLOAD + 1]);
    assert_eq!(problems[0].kind, ProblemKind::TooLarge);
    let many = "[".to_owned() + &"0,".repeat(4_000_000) + "0]";
    let (_, problems) = read_with(&mut reader, many.as_bytes());
    assert_eq!(problems[0].kind, ProblemKind::TooLarge);
    let bad: Vec<_> = (0..1000).map(|_| json!({"op":"sell"})).collect();
    let (_, problems) = read(&mut reader, &json!(bad));
    assert_eq!(problems.len(), 65);
    assert!(problems[64].why.starts_with("936 more"), "{}", problems[64].why);
}

#[test]
fn deep_nesting_is_skipped_not_built() {
    let mut reader = warm();
    let deep = "[".repeat(MAX_DEPTH * 10) + &"]".repeat(MAX_DEPTH * 10);
    let body = format!(r#"{{"op":"change","market":"demo-1","name":"n","later":{deep},"reason":{deep}}}"#);
    let (updates, problems) = read_with(&mut reader, body.as_bytes());
    assert_eq!(delta(&updates[0]).fields.as_slice(), [(MarketField::Name, Some("n".into()))]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].at, "body.reason");
    for hostile in
        ["[".repeat(1_000_000).into_bytes(), vec![0x91; 1_000_000], vec![0xdd, 0xff, 0xff, 0xff, 0xff]]
    {
        let (updates, problems) = read_with(&mut reader, &hostile);
        assert!(updates.is_empty());
        assert_eq!(problems[0].kind, ProblemKind::Syntax);
    }
}

#[test]
fn envelopes_are_read_in_both_formats() {
    let body = json!({"op":"gone","market":"m"});
    let whole = json!({"src":"demo","seq":17,"ts":1_764_038_400_123_i64,"body":body,"new":1});
    for payload in [serde_json::to_vec(&whole).expect("json"), to_vec_named(&whole).expect("msgpack")] {
        let mut problems = Vec::new();
        let envelope = Envelope::read(&payload, &mut problems).expect("an envelope");
        assert_eq!(problems, []);
        assert_eq!(envelope.source.as_deref(), Some("demo"));
        assert_eq!((envelope.seq, envelope.ts), (Some(17), Some(1_764_038_400_123)));
    }
    for payload in [serde_json::to_vec(&body).expect("json"), to_vec_named(&body).expect("msgpack")] {
        let envelope = Envelope::read(&payload, &mut Vec::new()).expect("a bare body");
        assert!(envelope.is_unsequenced() && envelope.source.is_none());
    }
    let mut problems = Vec::new();
    let envelope = Envelope::read(br#"{"src":7,"seq":-1,"body":{"op":"alive"}}"#, &mut problems);
    assert!(envelope.is_ok_and(|e| e.is_unsequenced()));
    assert_eq!(problems.iter().map(|p| p.at.as_str()).collect::<Vec<_>>(), ["src", "seq"]);
    for bad in
        [&b"{}"[..], b"", b"  ", b"\xc0", b"{\"src\":\"a\"}", b"{\"body\":", b"17", b"\x93\x01", b"[] []"]
    {
        assert!(Envelope::read(bad, &mut Vec::new()).is_err(), "{bad:?}");
    }
    assert!(Envelope::read(&[0x80, 0x80], &mut Vec::new()).is_err());
}

#[test]
fn mcm_is_passed_on_as_it_came() {
    let mcm = r#"{"op":"mcm", "pt": 1.50e3 ,"mc":[]}"#;
    let enveloped = format!(r#"{{"src":"bf","seq":3,"body":{mcm}}}"#);
    let as_text = to_vec_named(&json!({"src":"bf","seq":3,"body":mcm})).expect("msgpack");
    let mut as_bytes = vec![0x82, 0xa3, b's', b'e', b'q', 3, 0xa4, b'b', b'o', b'd', b'y', 0xc4];
    as_bytes.push(u8::try_from(mcm.len()).expect("short"));
    as_bytes.extend(mcm.as_bytes());
    for payload in [mcm.as_bytes(), enveloped.as_bytes(), &as_text, &as_bytes] {
        let envelope = Envelope::read(payload, &mut Vec::new()).expect("an envelope");
        assert_eq!(envelope.body, Body::Mcm(mcm.as_bytes().into()));
    }
}
