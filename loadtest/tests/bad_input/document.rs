//! What came of each row, checked against what the row wants, and kept as a document.

use std::fmt::Write as _;
use std::path::PathBuf;

const INTRODUCTION: &str = "\
# Bad input, and what one gets

Every line was sent to a running chain by `loadtest/tests/bad_input`, which also writes this page
(`TICTAC_BLESS=1 cargo test -p tictac-loadtest --test bad_input`) and fails where it differs. After every line, clients of
another source beside it were live, with the right book, without a gap, a wrong checksum or a second snapshot.

* **Redis**: what a source publishes to `odds:in:<source>`. One gets a problem: in ingest's log, counted in
  `tictac_ingest_problems_total` by source and kind, and among the last hundred at ingest's `GET /problems`. What can be
  read of the message is taken all the same, unless said otherwise. A message that cannot be read at all is lost input:
  that source's markets are not tradable until it images them again; no other source's are touched.
* **WebSocket**: what a client sends. One gets an `err`, or `bye` and a close frame. Where nothing is closed the connection
  and its subscriptions go on.
* **HTTP**: a request. One gets a status, and in the body a `code` and a `why`.
";

/// What a row got, beside what it wants.
pub struct Row {
    pub input: &'static str,
    pub got: String,
    pub wants: Vec<&'static str>,
}

#[derive(Default)]
pub struct Document {
    rows: Vec<(&'static str, &'static str, String)>,
    wrong: Vec<String>,
}

impl Document {
    /// Takes a row in; each of `wants` has to be in what one got.
    pub fn add(&mut self, part: &'static str, input: &'static str, got: &str, wants: &[&str]) {
        assert!(!wants.is_empty(), "{part}, {input}: a row that wants nothing shows nothing");
        for want in wants {
            if !got.contains(want) {
                self.wrong.push(format!("{part}, {input}: wanted {want:?}, got {got:?}"));
            }
        }
        self.rows.push((part, input, got.to_owned()));
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    fn text(&self) -> String {
        let mut out = INTRODUCTION.to_owned();
        let mut last = "";
        for (part, input, got) in &self.rows {
            if *part != last {
                last = part;
                write!(out, "\n## {part}\n\n| input | what one gets |\n|---|---|\n").unwrap();
            }
            let cell = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ").trim().to_owned();
            writeln!(out, "| {} | {} |", cell(input), cell(got)).unwrap();
        }
        out
    }

    /// Fails where a row got something else than it wants, or the document says something else than was got.
    pub fn check(&self) {
        assert!(self.wrong.is_empty(), "\n{}", self.wrong.join("\n"));
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/BAD_INPUT.md"));
        let text = self.text();
        if std::env::var_os("TICTAC_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let held = std::fs::read_to_string(&path).unwrap_or_default();
        for (i, (now, then)) in text.lines().zip(held.lines()).enumerate() {
            assert_eq!(now, then, "line {} of {}: TICTAC_BLESS=1 writes it anew", i + 1, path.display());
        }
        assert_eq!(text, held, "{}: TICTAC_BLESS=1 writes it anew", path.display());
    }
}
