//! A reader and the books that come of it, for tests that read as a story.

use std::collections::BTreeMap;

use tictac_ingest::mcm::{McmReader, Read};
use tictac_ingest::problem::{Problem, ProblemKind};
use tictac_ingest::update::Update;
use tictac_proto::model::{Book, Delta, SelectionField as S, SelectionKey, Side};

/// A reader and the books that come of it.
#[derive(Default)]
pub(crate) struct Feed {
    pub(crate) reader: McmReader,
    pub(crate) books: BTreeMap<String, Book>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) updates: Vec<Update>,
}

impl Feed {
    /// Reads a line and applies it; problems and updates are those of this line.
    pub(crate) fn read(&mut self, line: &str) -> Read {
        self.problems.clear();
        self.updates.clear();
        let read = self.reader.read("bf", line.as_bytes(), &mut self.updates, &mut self.problems);
        for update in &self.updates {
            match update {
                Update::Image { market, book } => {
                    self.books.insert(market.to_string(), (**book).clone());
                }
                Update::Change { market, delta, .. } => {
                    self.books.entry(market.to_string()).or_default().apply(delta, 1);
                }
                other => panic!("{other:?}"),
            }
        }
        read
    }

    /// Reads `mc` elements in a message that must be without fault.
    pub(crate) fn mc(&mut self, mc: &str) -> Read {
        let read = self.read(&format!("{{\"op\":\"mcm\",\"pt\":1,\"clk\":\"A\",\"mc\":[{mc}]}}\r\n"));
        assert_eq!(self.problems, []);
        read
    }

    /// Reads `mc` elements and gives the problems: kind, path.
    pub(crate) fn faulty(&mut self, mc: &str) -> Vec<(ProblemKind, String)> {
        self.read(&format!("{{\"op\":\"mcm\",\"pt\":1,\"mc\":[{mc}]}}"));
        self.problems.iter().map(|p| (p.kind, p.at.clone())).collect()
    }

    pub(crate) fn book(&self) -> &Book {
        &self.books["1.1"]
    }

    pub(crate) fn side(&self, id: i64, side: Side) -> Vec<(i64, i64)> {
        self.book().selections[&runner(id)].ladder(side).iter().collect()
    }

    pub(crate) fn back(&self, id: i64) -> Vec<(i64, i64)> {
        self.side(id, Side::Back)
    }

    pub(crate) fn int(&self, id: i64, field: S) -> Option<i64> {
        self.book().selections[&runner(id)].fields.int(field)
    }

    pub(crate) fn delta(&self) -> &Delta {
        match &self.updates[..] {
            [Update::Change { delta, .. }] => delta,
            other => panic!("one change was expected: {other:?}"),
        }
    }
}

/// A runner without handicap.
pub(crate) fn runner(id: i64) -> SelectionKey {
    SelectionKey { id, handicap: 0 }
}

/// A definition of an open race with runner 7, and more members.
pub(crate) fn definition(more: &str) -> String {
    format!(
        "{{\"eventId\":\"33\",\"eventTypeId\":\"7\",\"bettingType\":\"ODDS\",\"status\":\"OPEN\",\"inPlay\":false,\
         \"version\":5,\"runners\":[{{\"id\":7,\"sortPriority\":1,\"status\":\"ACTIVE\"}}]{more}}}"
    )
}

/// An element of `mc` with a definition.
pub(crate) fn market(definition: &str) -> String {
    format!("{{\"id\":\"1.1\",\"marketDefinition\":{definition}}}")
}
