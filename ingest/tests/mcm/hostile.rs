//! Whatever comes, the reader does not panic, keeps its bounds, and still reads the next line.

use proptest::prelude::*;
use tictac_ingest::mcm::{MAX_PROBLEMS, McmReader};
use tictac_ingest::update::Update;
use tictac_proto::limits::{MAX_INT, MAX_TEXT};
use tictac_proto::model::{Book, Side, Value};

/// Lines of the kinds that recordings have.
const LINES: [&str; 6] = [
    r#"{"op":"mcm","id":3,"initialClk":"H9","clk":"AA","conflateMs":0,"heartbeatMs":5000,"pt":1746609308664,"ct":"SUB_IMAGE","mc":[{"id":"1.1","marketDefinition":{"bspMarket":true,"eventId":"34","eventTypeId":"7","numberOfWinners":1,"bettingType":"ODDS","marketType":"WIN","marketTime":"2025-05-09T19:00:00.000Z","inPlay":false,"betDelay":0,"status":"OPEN","runners":[{"adjustmentFactor":16.62,"status":"ACTIVE","sortPriority":1,"id":7,"hc":-0.25,"name":"A\u00e9","bsp":4.560308836}],"version":650,"priceLadderDefinition":{"type":"CLASSIC"}},"rc":[{"atb":[[1.17,2],[1.01,3.5]],"atl":[[1000,4.52]],"id":7,"hc":-0.25}],"img":true,"tv":101.81}]}"#,
    r#"{"op":"mcm","clk":"31","pt":1474948909954,"mc":[{"id":"1.1","rc":[{"atb":[[1.12,16.67]],"spn":"NaN","spf":3.1,"trd":[[2,9.5]],"ltp":2,"tv":9.5,"id":7},{"atb":[[1.12,0]],"id":8}],"con":true,"img":false,"tv":101.81}]}"#,
    r#"{"op":"mcm","pt":5,"mc":[{"id":"1.1","rc":[{"batb":[[0,8.8,28.3],[1,8.6,2]],"batl":[[0,9,1],[1,0,0]],"id":7}]},{"id":"1.2","rc":[{"bdatb":[[0,2,1]],"id":1}]}]}"#,
    r#"{"op":"mcm","id":2,"clk":"A","pt":5,"ct":"HEARTBEAT","status":503}"#,
    r#"{"op":"mcm","pt":9,"mc":[{"id":"1.2","marketDefinition":{"status":"CLOSED","bettingType":"LINE","lineMinUnit":0.5,"lineMaxUnit":90,"lineInterval":1,"priceLadderDefinition":{"type":"LINE_RANGE"},"runners":[{"id":1,"status":"WINNER"}]}}]}"#,
    r#"{"op":"mcm","pt":9,"mc":[{"id":"1.2","img":true,"marketDefinition":{"version":4,"runners":[]}},{"id":"1.2","img":true,"marketDefinition":{"version":3,"runners":[]}}]}"#,
];

/// Pieces that turn up in the wrong places.
const PIECES: [&str; 22] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "-",
    "0",
    "1e999",
    "-1",
    "99999999999999999999",
    "0.001",
    "\"NaN\"",
    "\"id\":",
    "[0,0,0]",
    "\u{0}",
    "é",
    "\\ud800",
];

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0usize..4, any::<prop::sample::Index>(), any::<u8>());
    (0..LINES.len(), prop::collection::vec(edit, 0..6)).prop_map(|(line, edits)| {
        let mut bytes = LINES[line].as_bytes().to_vec();
        for (at, kind, piece, byte) in edits {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, PIECES[piece.index(PIECES.len())].bytes())),
                2 if at < bytes.len() => bytes[at] = byte,
                _ => {
                    let end = (at + piece.index(9)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
        bytes
    })
}

/// Every number is one that a browser holds exactly, every text is within its limit, sizes are sizes.
fn check(book: &Book) {
    let value = |value: &Value| match value {
        Value::Int(v) => assert!(v.abs() <= MAX_INT, "{v}"),
        Value::Text(t) => assert!(t.len() <= MAX_TEXT, "{t}"),
    };
    book.fields.iter().for_each(|f| value(f.1));
    for selection in book.selections.values() {
        selection.fields.iter().for_each(|f| value(f.1));
        for (price, size) in Side::ALL.iter().flat_map(|side| selection.ladder(*side).iter()) {
            assert!(price.abs() <= MAX_INT && (1..=MAX_INT).contains(&size), "{price}@{size}");
        }
    }
}

fn survives(lines: &[Vec<u8>]) {
    let mut reader = McmReader::new();
    let mut book = Book::default();
    for line in lines {
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        let read = reader.read("x", line, &mut out, &mut problems);
        assert!(problems.len() <= MAX_PROBLEMS);
        assert!(!read.broken || !problems.is_empty(), "what is lost is named");
        let json = serde_json::from_slice::<serde_json::Value>(line);
        // What a general parser takes, apart from floats' range, is not called broken.
        assert!(json.is_err() || !read.broken, "{}", String::from_utf8_lossy(line));
        for update in out {
            match update {
                Update::Image { book, .. } => check(&book),
                Update::Change { delta, .. } => {
                    assert!(delta.selections.is_sorted_by(|a, b| a.0 < b.0), "the order that codecs rely on");
                    assert!(delta.fields.is_sorted_by(|a, b| a.0 < b.0));
                    book.apply(&delta, 1);
                    check(&book);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    let read = reader.read("x", LINES[0].as_bytes(), &mut out, &mut problems);
    assert_eq!((read.broken, out.len(), problems), (false, 1, vec![]), "and the next line is read");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn mutated_lines(lines in prop::collection::vec(mutated(), 1..5)) {
        survives(&lines);
    }

    #[test]
    fn garbage(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4)) {
        survives(&lines);
    }

    #[test]
    fn pieces_of_json(pieces in prop::collection::vec(0..PIECES.len(), 0..30)) {
        let text: String = pieces.iter().map(|p| PIECES[*p]).collect();
        survives(&[text.clone().into_bytes(), format!("{{\"op\":\"mcm\",\"mc\":[{{\"id\":\"1.1\",\"rc\":[{{\"id\":1,\"atb\":{text}}}]}}]}}").into_bytes()]);
    }
}
