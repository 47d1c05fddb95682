//! Fields and ladders of a market and its selections, from the input's values.

use std::sync::Arc;

use smallvec::SmallVec;
use tictac_proto::limits::{MAX_EXPONENT, MAX_ID, MAX_INT, MAX_LEVELS, MAX_TEXT};
use tictac_proto::model::fields::FieldType;
use tictac_proto::model::{Field, LadderDelta, MarketField, SelectionField, Side, Value};

use super::number::{Scale, scaled};
use super::path::Path;
use crate::node::Node;
use crate::problem::{Problem, ProblemKind};

/// Most problems that one message names one by one; the rest are counted.
pub const MAX_PROBLEMS: usize = 64;

/// The problems of one message, bounded.
#[derive(Debug)]
pub struct Report<'r> {
    problems: &'r mut Vec<Problem>,
    named: usize,
    unnamed: usize,
}

impl<'r> Report<'r> {
    /// An empty report that adds to `problems`.
    pub fn new(problems: &'r mut Vec<Problem>) -> Self {
        Self { problems, named: 0, unnamed: 0 }
    }

    /// Adds a problem with one value.
    pub fn add(&mut self, kind: ProblemKind, at: &Path<'_>, why: impl Into<String>, node: &Node<'_>) {
        if self.named == MAX_PROBLEMS {
            self.unnamed += 1;
            return;
        }
        self.named += 1;
        self.problems.push(Problem::new(kind, at.to_string(), why, node.excerpt().as_bytes()));
    }

    /// Says how many were not named.
    pub fn finish(self) {
        if self.unnamed > 0 {
            let why = format!("{} more problems in this message", self.unnamed);
            self.problems.push(Problem::new(ProblemKind::Value, "body", why, b""));
        }
    }
}

/// How a field is written in this format, beyond its type.
pub trait Written: Field {
    /// Decimals of the input that the integer holds.
    fn exponent(self, scale: Scale) -> u8;
    /// Smallest and largest integer.
    fn range(self) -> (i64, i64);
    /// Longest text.
    fn max_text(self) -> usize;
    /// Whether it is the source, which the envelope says.
    fn is_source(self) -> bool {
        false
    }
}

impl Written for MarketField {
    fn exponent(self, scale: Scale) -> u8 {
        match self {
            Self::EachWay => 3,
            Self::Matched => scale.size,
            _ => 0,
        }
    }

    fn range(self) -> (i64, i64) {
        match self {
            Self::Start | Self::Version => (-MAX_INT, MAX_INT),
            Self::PriceExponent | Self::SizeExponent => (0, MAX_EXPONENT),
            _ => (0, MAX_INT),
        }
    }

    fn is_source(self) -> bool {
        self == Self::Source
    }

    fn max_text(self) -> usize {
        if matches!(self, Self::Event | Self::Sport | Self::Source) { MAX_ID } else { MAX_TEXT }
    }
}

impl Written for SelectionField {
    fn exponent(self, scale: Scale) -> u8 {
        match self {
            Self::Adjustment | Self::VoidFactor | Self::DeadHeat => 3,
            Self::Last | Self::SpNear | Self::SpFar | Self::Sp | Self::Price => scale.price,
            Self::Volume | Self::MaxStake => scale.size,
            Self::Probability => 6,
            _ => 0,
        }
    }

    fn range(self) -> (i64, i64) {
        match self {
            Self::Sort => (-MAX_INT, MAX_INT),
            Self::Probability => (0, 1_000_000),
            Self::Certainty => (0, 100),
            _ => (0, MAX_INT),
        }
    }

    fn max_text(self) -> usize {
        MAX_TEXT
    }
}

/// A value that cannot be taken: the reason's label and the reason.
pub type Refusal = (ProblemKind, String);

/// A field's value; `None` for null.
///
/// # Errors
/// Why it cannot be taken.
pub fn value<F: Written>(field: F, node: &Node<'_>, scale: Scale) -> Result<Option<Value>, Refusal> {
    if *node == Node::Null {
        return Ok(None);
    }
    let wrong = |need: &str| {
        let why = format!("{} is {}; {} must be {need}", node.excerpt(), node.kind(), field.name());
        (ProblemKind::Value, why)
    };
    let value = match field.kind() {
        FieldType::Bool => match node {
            Node::Bool(v) => Value::Int(i64::from(*v)),
            _ => return Err(wrong("true or false")),
        },
        FieldType::Text => {
            let text = node.text().ok_or_else(|| wrong("a text"))?;
            let most = field.max_text();
            if text.len() > most {
                let why =
                    format!("{} bytes; {} has at most {most}: send a shorter text", text.len(), field.name());
                return Err((ProblemKind::TooLarge, why));
            }
            Value::Text(text.into())
        }
        FieldType::Enum(names) => {
            let code = node.text().and_then(|text| names.iter().position(|n| *n == text));
            let code = code.ok_or_else(|| wrong(&format!("one of {}", names.join(", "))))?;
            // The tables have a handful of names.
            Value::Int(i64::try_from(code).unwrap_or(0))
        }
        FieldType::Int => {
            let value = scaled(node, field.exponent(scale)).map_err(|why| (ProblemKind::Value, why))?;
            let (least, most) = field.range();
            if !(least..=most).contains(&value) {
                let why = format!("{} is out of range for {}", node.excerpt(), field.name());
                let need = if value < least {
                    "it must not be negative".to_owned()
                } else {
                    format!("it is at most {most} on its scale")
                };
                return Err((ProblemKind::Value, format!("{why}; {need}")));
            }
            Value::Int(value)
        }
    };
    Ok(Some(value))
}

/// An id: a text of 1 to [`MAX_ID`] bytes without control characters.
///
/// # Errors
/// Why it is none.
pub fn id(node: Option<&Node<'_>>, what: &str) -> Result<Arc<str>, Refusal> {
    let Some(node) = node else {
        return Err((ProblemKind::Value, format!("no {what}; every operation on one needs its id")));
    };
    match node.text() {
        None => {
            let why = format!("{} is {}; {what} must be a text", node.excerpt(), node.kind());
            Err((ProblemKind::Value, why))
        }
        Some(text) if text.len() > MAX_ID => {
            let why = format!("{} bytes; an id has at most {MAX_ID}: use a shorter one", text.len());
            Err((ProblemKind::TooLarge, why))
        }
        Some(text) if text.is_empty() || text.chars().any(char::is_control) => {
            let why = format!("{what} is empty or has control characters; use printable ones");
            Err((ProblemKind::Value, why))
        }
        Some(text) => Ok(text.into()),
    }
}

/// Which ladder a key names.
#[must_use]
pub fn side(key: &str) -> Option<Side> {
    match key {
        "back" => Some(Side::Back),
        "lay" => Some(Side::Lay),
        "traded" => Some(Side::Traded),
        _ => None,
    }
}

/// The key of a ladder.
#[must_use]
pub fn side_key(side: Side) -> &'static str {
    match side {
        Side::Back => "back",
        Side::Lay => "lay",
        Side::Traded => "traded",
    }
}

/// A ladder's change: an array of `[price, size]`, null for "nothing left", or `{"replace": […]}` for "this is all".
/// `None` where it cannot be taken at all; a level that cannot be taken is left out.
pub fn ladder(node: &Node<'_>, scale: Scale, at: &Path<'_>, report: &mut Report<'_>) -> Option<LadderDelta> {
    let (levels, replace, replaced_at) = match node {
        Node::Null => return Some(LadderDelta { replace: true, levels: SmallVec::new() }),
        Node::List(levels) => (levels, false, *at),
        Node::Map(_) => match node.get("replace") {
            Some(Node::List(levels)) => (levels, true, at.key("replace")),
            _ => {
                let why = "an object here must be {\"replace\": [[price, size], …]}";
                report.add(ProblemKind::Value, at, why, node);
                return None;
            }
        },
        other => {
            let why = format!("{}; a ladder is an array of [price, size], or null", other.kind());
            report.add(ProblemKind::Value, at, why, node);
            return None;
        }
    };
    if levels.len() > MAX_LEVELS {
        let why = format!("{} levels; a ladder has at most {MAX_LEVELS}: send fewer", levels.len());
        report.add(ProblemKind::TooLarge, &replaced_at, why, node);
        return None;
    }
    let mut delta = LadderDelta { replace, levels: SmallVec::with_capacity(levels.len()) };
    for (i, entry) in levels.iter().enumerate() {
        match level(entry, scale) {
            Ok((price, size)) => delta.set(price, size),
            Err(why) => report.add(ProblemKind::Value, &replaced_at.index(i), why, entry),
        }
    }
    if replace {
        delta.levels.retain(|l| l.1 != 0);
    }
    Some(delta)
}

fn level(node: &Node<'_>, scale: Scale) -> Result<(i64, i64), String> {
    let Node::List(pair) = node else {
        return Err(format!("{}; a level is [price, size]", node.kind()));
    };
    let [price, size] = pair.as_slice() else {
        return Err(format!("{} values; a level is [price, size]", pair.len()));
    };
    let positive = |what: &str, value: i64, node: &Node<'_>| {
        if value < 0 { Err(format!("{what} {} is negative", node.excerpt())) } else { Ok(value) }
    };
    let price = scaled(price, scale.price).and_then(|v| positive("price", v, price));
    let size = scaled(size, scale.size).and_then(|v| positive("size", v, size));
    Ok((price.map_err(|e| format!("price: {e}"))?, size.map_err(|e| format!("size: {e}"))?))
}
