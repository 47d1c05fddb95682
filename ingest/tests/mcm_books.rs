//! Recorded streams, line by line, against the books that an independent client computed from the same files. Recordings
//! are not part of the project: `TICTAC_RECORDINGS` names a directory of `<name>.mcm.bz2` with `<name>.books.json`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tictac_ingest::mcm::{Kind, McmReader};
use tictac_ingest::recording::Recording;
use tictac_ingest::update::Update;
use tictac_proto::model::{
    Book, MarketField, MarketStatus, Selection, SelectionField, SelectionKey, SelectionStatus, Side,
};

type Books = BTreeMap<String, Book>;

/// The recordings that have an oracle; says so where there is no directory to look in.
fn recordings(test: &str) -> Vec<PathBuf> {
    let Some(dir) = std::env::var_os("TICTAC_RECORDINGS") else {
        eprintln!("{test}: NOT run on recordings; set TICTAC_RECORDINGS to a directory of them");
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("TICTAC_RECORDINGS={dir:?} can't be read: {e}"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".mcm.bz2") && oracle_path(path).exists())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "TICTAC_RECORDINGS={dir:?} has no .mcm.bz2 with its .books.json");
    found
}

fn oracle_path(recording: &Path) -> PathBuf {
    PathBuf::from(recording.to_string_lossy().replace(".mcm.bz2", ".books.json"))
}

/// Takes updates into books as the sequencer does. Returns whether an image was among them and whether anything changed.
fn take(books: &mut Books, updates: &[Update]) -> (bool, bool) {
    let (mut image, mut changed) = (false, false);
    for update in updates {
        match update {
            Update::Image { market, book } => {
                image = true;
                let mine = books.entry(market.to_string()).or_default();
                changed |= mine != &**book;
                *mine = (**book).clone();
            }
            Update::Change { market, delta, rollback } => {
                assert!(!rollback);
                let mine = books.entry(market.to_string()).or_default();
                changed |= mine.apply_effective(delta.clone(), 1, &mut 0).is_some();
            }
            other => panic!("the stream has no {other:?}"),
        }
    }
    (image, changed)
}

fn hundredths(json: &Json) -> i64 {
    (json.as_f64().unwrap() * 100.0).round() as i64
}

fn levels(json: &Json) -> Vec<(i64, i64)> {
    json.as_array().unwrap().iter().map(|l| (hundredths(&l[0]), hundredths(&l[1]))).collect()
}

fn key(text: &str) -> SelectionKey {
    let (id, handicap) = text.split_once('/').unwrap();
    let handicap = (handicap.parse::<f64>().unwrap() * 100.0).round() as i64;
    SelectionKey { id: id.parse().unwrap(), handicap }
}

fn compare_runner(at: &str, book: &Book, runner: &Selection, want: &Json) {
    let status = match runner.status() {
        SelectionStatus::Active => "ACTIVE",
        SelectionStatus::Removed => "REMOVED",
        SelectionStatus::Winner => "WINNER",
        SelectionStatus::Loser => "LOSER",
        SelectionStatus::Placed => "PLACED",
        SelectionStatus::Hidden => "HIDDEN",
        SelectionStatus::Void => "the stream has no such status",
    };
    assert_eq!(status, want["status"].as_str().unwrap(), "{at} status");
    let last = (!want["ltp"].is_null()).then(|| hundredths(&want["ltp"]));
    assert_eq!(runner.fields.int(SelectionField::Last), last, "{at} last");
    assert_eq!(
        runner.fields.int(SelectionField::Volume).unwrap_or(0),
        hundredths(&want["tv"]),
        "{at} volume"
    );
    for (side, name) in [(Side::Back, "back"), (Side::Lay, "lay"), (Side::Traded, "traded")] {
        let mine: Vec<(i64, i64)> = runner.ladder(side).best_first(book.best_is_high(side)).collect();
        assert_eq!(mine, levels(&want[name]), "{at} {name}");
    }
}

fn compare(at: &str, books: &Books, want: &Json) -> usize {
    let want = want.as_object().unwrap();
    assert!(books.keys().eq(want.keys()), "{at}: the same markets, no more and no fewer");
    for (id, want) in want {
        let (book, at) = (&books[id], format!("{at}, market {id}"));
        let runners = want["runners"].as_object().unwrap();
        let decided =
            runners.values().any(|r| ["WINNER", "LOSER", "PLACED"].contains(&r["status"].as_str().unwrap()));
        let status = match want["status"].as_str().unwrap() {
            "INACTIVE" => MarketStatus::Inactive,
            "OPEN" => MarketStatus::Open,
            "SUSPENDED" => MarketStatus::Suspended,
            "CLOSED" if decided => MarketStatus::Settled,
            "CLOSED" => MarketStatus::Closed,
            other => panic!("{at}: {other}"),
        };
        assert_eq!(book.status(), status, "{at} status");
        assert_eq!(book.in_play(), want["in_play"].as_bool().unwrap(), "{at} in-play");
        let matched = book.fields.int(MarketField::Matched).unwrap_or(0);
        assert_eq!(matched, hundredths(&want["total_matched"]), "{at} matched");
        let mut theirs: Vec<SelectionKey> = runners.keys().map(|k| key(k)).collect();
        theirs.sort_unstable();
        assert!(
            book.selections.keys().eq(&theirs),
            "{at}: runners {:?} but {theirs:?}",
            book.selections.keys()
        );
        for (name, want) in runners {
            compare_runner(&format!("{at}, runner {name}"), book, &book.selections[&key(name)], want);
        }
    }
    want.len()
}

/// How often each line is read.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    Never,
    Images,
    Always,
}

fn run(path: &Path, again: Again) {
    let oracle: Json = serde_json::from_slice(&std::fs::read(oracle_path(path)).unwrap()).unwrap();
    let mut checkpoints = oracle["checkpoints"].as_array().unwrap().iter().peekable();
    let mut recording = Recording::open(path).unwrap();
    let (mut reader, mut books) = (McmReader::new(), Books::new());
    let (mut out, mut problems, mut compared, mut images) = (Vec::new(), Vec::new(), 0, 0);
    let mut number = 0;
    let mut scales: BTreeMap<String, Vec<Option<tictac_proto::model::Value>>> = BTreeMap::new();
    while let Some(line) = recording.next_line().unwrap() {
        number += 1;
        let at = format!("{} line {number}", path.display());
        let read = reader.read("recorded", line, &mut out, &mut problems);
        assert_eq!(problems, [], "{at}");
        assert!(read.pt.is_some() && !read.broken && read.kind != Kind::None, "{at}: {read:?}");
        let (image, _) = take(&mut books, &out);
        images += usize::from(image);
        if again == Again::Always || (again == Again::Images && image) {
            out.clear();
            reader.read("recorded", line, &mut out, &mut problems);
            assert_eq!(take(&mut books, &out), (image, false), "{at}: the same again changes nothing");
        }
        for update in out.drain(..) {
            let (Update::Image { market, .. } | Update::Change { market, .. }) = update else { continue };
            let scale: Vec<_> = MarketField::scale_of(&books[&*market]);
            assert!(scale.iter().all(Option::is_some), "{at}: the scale is there from the first word on");
            assert_eq!(
                scales.entry(market.to_string()).or_insert_with(|| scale.clone()),
                &scale,
                "{at}: scale"
            );
        }
        if checkpoints.peek().is_some_and(|c| c["line"] == number) {
            let checkpoint = checkpoints.next().unwrap();
            assert_eq!(read.pt, checkpoint["pt"].as_i64(), "{at}: pt");
            compared += compare(&at, &books, &checkpoint["markets"]);
        }
    }
    assert!(checkpoints.next().is_none(), "{}: a checkpoint beyond the last line", path.display());
    assert!(compared > 0, "{}: nothing was compared", path.display());
    assert_eq!(oracle["lines"], number, "{}: lines", path.display());
    eprintln!("{}: {number} lines, {images} with images, {compared} books are the oracle's", path.display());
}

/// The scale's fields of a book.
trait Scale {
    fn scale_of(book: &Book) -> Vec<Option<tictac_proto::model::Value>>;
}

impl Scale for MarketField {
    fn scale_of(book: &Book) -> Vec<Option<tictac_proto::model::Value>> {
        use tictac_proto::model::Field;
        Self::ALL.iter().filter(|f| f.is_scale()).map(|f| book.fields.get(*f).cloned()).collect()
    }
}

#[test]
fn recorded_books_are_the_oracles() {
    for path in recordings("recorded_books_are_the_oracles") {
        run(&path, Again::Never);
    }
}

#[test]
fn every_image_twice_changes_nothing() {
    for path in recordings("every_image_twice_changes_nothing") {
        run(&path, Again::Images);
    }
}

#[test]
fn every_line_twice_changes_nothing() {
    for path in recordings("every_line_twice_changes_nothing") {
        run(&path, Again::Always);
    }
}

/// Takes the full ladders out of a line, so that only levels are left.
fn without_full_ladders(line: &[u8]) -> Vec<u8> {
    let mut json: Json = serde_json::from_slice(line).unwrap();
    for market in json["mc"].as_array_mut().unwrap() {
        for runner in market.get_mut("rc").and_then(Json::as_array_mut).into_iter().flatten() {
            let runner = runner.as_object_mut().unwrap();
            runner.remove("atb");
            runner.remove("atl");
        }
    }
    serde_json::to_vec(&json).unwrap()
}

/// The best of a full ladder as levels have it: the exchange adds offers of less than a pound to the next worse price.
fn rolled_up(best_first: impl Iterator<Item = (i64, i64)>, depth: usize) -> Vec<(i64, i64)> {
    let mut ladder = best_first.peekable();
    let (mut levels, mut carried) = (Vec::new(), 0);
    while let Some((price, size)) = ladder.next() {
        carried += size;
        if carried >= 100 || ladder.peek().is_none() {
            levels.push((price, std::mem::take(&mut carried)));
        }
    }
    levels.truncate(depth);
    levels
}

/// Recordings that have both full ladders and levels check the levels at every line: what comes of the levels alone must
/// be the best of what comes of the full ladders.
#[test]
fn levels_are_the_best_of_the_full_ladders() {
    let mut both = 0;
    let paths = recordings("levels_are_the_best_of_the_full_ladders");
    for path in &paths {
        let mut recording = Recording::open(path).unwrap();
        let (mut full, mut levels) = ((McmReader::new(), Books::new()), (McmReader::new(), Books::new()));
        let (mut compared, mut number) = (0u64, 0);
        while let Some(line) = recording.next_line().unwrap() {
            number += 1;
            let stripped = without_full_ladders(line);
            if number == 1 && !line.windows(6).any(|w| w == b"\"batb\"") {
                break;
            }
            for (line, (reader, books)) in [(line, &mut full), (&stripped[..], &mut levels)] {
                let (mut out, mut problems) = (Vec::new(), Vec::new());
                reader.read("recorded", line, &mut out, &mut problems);
                assert_eq!(problems, []);
                take(books, &out);
            }
            for (id, book) in &levels.1 {
                for (key, runner) in &book.selections {
                    for side in [Side::Back, Side::Lay] {
                        let high = book.best_is_high(side);
                        let mine: Vec<_> = runner.ladder(side).best_first(high).collect();
                        let whole = full.1[id].selections[key].ladder(side);
                        let best = rolled_up(whole.best_first(high), 3);
                        assert_eq!(mine, best, "{} line {number}: {id} {key:?} {side:?}", path.display());
                        compared += 1;
                    }
                }
            }
        }
        eprintln!("{}: {compared} sides by level are the best of the full ladder", path.display());
        both += compared;
    }
    assert!(paths.is_empty() || both > 0, "no recording has levels and full ladders");
}
