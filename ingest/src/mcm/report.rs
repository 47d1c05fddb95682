//! Where a message's problems are written down: with the path of the value and the value itself, and never more than
//! [`MAX_PROBLEMS`] of one message.

use std::fmt;
use std::ops::Range;

use super::json::Scalar;
use crate::problem::{Problem, ProblemKind};

/// Most problems that one message is worth; what comes after them is refused in silence.
pub const MAX_PROBLEMS: usize = 64;

/// A place in a message: `mc[0].rc[3].ltp`, `mc[0].marketDefinition.runners[2].status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// A key of the message.
    Top(&'a str),
    /// A market as a whole.
    Market(u32),
    /// A key of a market.
    OfMarket(u32, &'a str),
    /// A key of a market's definition.
    Definition(u32, &'a str),
    /// A key of a runner of the definition; empty for the runner itself.
    Runner(u32, u32, &'a str),
    /// A key of a change of a runner; empty for the change itself.
    Change(u32, u32, &'a str),
    /// A row of a ladder.
    Row(u32, u32, &'a str, u32),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top(key) => write!(f, "{key}"),
            Self::Market(mc) => write!(f, "mc[{mc}]"),
            Self::OfMarket(mc, key) => write!(f, "mc[{mc}].{key}"),
            Self::Definition(mc, key) => write!(f, "mc[{mc}].marketDefinition.{key}"),
            Self::Runner(mc, i, "") => write!(f, "mc[{mc}].marketDefinition.runners[{i}]"),
            Self::Runner(mc, i, key) => write!(f, "mc[{mc}].marketDefinition.runners[{i}].{key}"),
            Self::Change(mc, rc, "") => write!(f, "mc[{mc}].rc[{rc}]"),
            Self::Change(mc, rc, key) => write!(f, "mc[{mc}].rc[{rc}].{key}"),
            Self::Row(mc, rc, key, row) => write!(f, "mc[{mc}].rc[{rc}].{key}[{row}]"),
        }
    }
}

/// The problems of one message.
pub(super) struct Report<'a, 'p> {
    line: &'a [u8],
    problems: &'p mut Vec<Problem>,
    left: usize,
}

impl<'a, 'p> Report<'a, 'p> {
    /// A report on one line, which adds to `problems`.
    pub(super) fn new(line: &'a [u8], problems: &'p mut Vec<Problem>) -> Self {
        Self { line, problems, left: MAX_PROBLEMS }
    }

    /// Writes one down. `input` is where the refused value lies.
    #[cold]
    pub(super) fn add(
        &mut self,
        kind: ProblemKind,
        place: Place<'_>,
        why: impl fmt::Display,
        input: Range<usize>,
    ) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let input = self.line.get(input).unwrap_or(self.line);
        self.problems.push(Problem::new(kind, place.to_string(), why.to_string(), input));
    }

    /// A value that is not of its type or range.
    #[cold]
    pub(super) fn value(&mut self, place: Place<'_>, why: impl fmt::Display, input: Range<usize>) {
        self.add(ProblemKind::Value, place, why, input);
    }

    /// A scalar of the wrong type.
    #[cold]
    pub(super) fn wrong_type(&mut self, place: Place<'_>, wanted: &str, found: &Scalar, input: Range<usize>) {
        let found = match found {
            Scalar::Null => "null",
            Scalar::Bool(_) => "a boolean",
            Scalar::Number(_) => "a number",
            Scalar::Text(..) => "a text",
            Scalar::Nested => "an array or an object",
        };
        self.value(
            place,
            format_args!("{wanted} was expected, {found} is there; the value is left out"),
            input,
        );
    }
}
