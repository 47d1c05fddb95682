//! Input that could not be taken: named, counted, and nobody else's loss.

use std::fmt;

/// The closed set of reasons, which is also the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// Not readable as its format at all.
    Syntax,
    /// Readable, but a value has the wrong type or is out of range.
    Value,
    /// An operation that is not known.
    Operation,
    /// Names a market that was never defined.
    UnknownMarket,
    /// A market that another source owns.
    ForeignMarket,
    /// Larger than the limit allows.
    TooLarge,
    /// A terminal market would come back without a rollback.
    Terminal,
}

impl ProblemKind {
    /// All, for registering metrics.
    pub const ALL: [Self; 7] = [
        Self::Syntax,
        Self::Value,
        Self::Operation,
        Self::UnknownMarket,
        Self::ForeignMarket,
        Self::TooLarge,
        Self::Terminal,
    ];

    /// The metric's label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::Value => "value",
            Self::Operation => "operation",
            Self::UnknownMarket => "unknown_market",
            Self::ForeignMarket => "foreign_market",
            Self::TooLarge => "too_large",
            Self::Terminal => "terminal",
        }
    }
}

/// One piece of input that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The reason, as a label.
    pub kind: ProblemKind,
    /// Where: a path into the input, such as `mc[0].rc[3].ltp`.
    pub at: String,
    /// Why, with the value, and what to do.
    pub why: String,
    /// The beginning of the offending input, at most 120 bytes, control characters escaped.
    pub excerpt: String,
}

impl Problem {
    /// A problem with an excerpt of the input.
    #[must_use]
    pub fn new(kind: ProblemKind, at: impl Into<String>, why: impl Into<String>, input: &[u8]) -> Self {
        let shown: String = String::from_utf8_lossy(&input[..input.len().min(120)]).escape_debug().collect();
        Self { kind, at: at.into(), why: why.into(), excerpt: shown }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {} (input: {})", self.kind.label(), self.at, self.why, self.excerpt)
    }
}

impl std::error::Error for Problem {}
