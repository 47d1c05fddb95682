//! What could not be taken: counted by source and kind, the last ones kept for whoever looks into it, and told to the
//! log of the process at a bounded rate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::problem::{Problem, ProblemKind};

/// How many are kept.
pub const KEPT: usize = 100;
/// Lines of the process log in one window.
const LINES: u32 = 5;
/// The window, ms.
const WINDOW: i64 = 10_000;

/// A problem that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When, Unix ms.
    pub at: i64,
    /// Whose input it was.
    pub source: Arc<str>,
    /// What.
    pub problem: Problem,
}

/// All problems so far.
#[derive(Debug, Default)]
pub struct Problems {
    counts: BTreeMap<(Arc<str>, &'static str), u64>,
    last: VecDeque<Seen>,
    window: i64,
    lines: u32,
    unsaid: u64,
}

impl Problems {
    /// Takes one in.
    pub fn add(&mut self, source: &Arc<str>, problem: Problem, now: i64) {
        *self.counts.entry((source.clone(), problem.kind.label())).or_default() += 1;
        if now.abs_diff(self.window) >= WINDOW.unsigned_abs() {
            if self.unsaid > 0 {
                tracing::warn!(count = self.unsaid, "more problems with input than are told here");
            }
            (self.window, self.lines, self.unsaid) = (now, 0, 0);
        }
        if self.lines < LINES {
            self.lines += 1;
            tracing::warn!(%source, kind = problem.kind.label(), "{problem}");
        } else {
            self.unsaid += 1;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Seen { at: now, source: source.clone(), problem });
    }

    /// How many of a kind a source had.
    #[must_use]
    pub fn count(&self, source: &str, kind: ProblemKind) -> u64 {
        self.counts.iter().filter(|((s, k), _)| **s == *source && *k == kind.label()).map(|c| *c.1).sum()
    }

    /// Counts by source and kind.
    pub fn counts(&self) -> impl Iterator<Item = (&Arc<str>, &'static str, u64)> {
        self.counts.iter().map(|((source, kind), count)| (source, *kind, *count))
    }

    /// The last ones, oldest first.
    pub fn last(&self) -> impl Iterator<Item = &Seen> {
        self.last.iter()
    }
}
