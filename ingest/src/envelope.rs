//! The envelope around a message of a source: who says it, its number, when, and what.
//!
//! `{"src":"demo","seq":17,"ts":1764038400123,"body":…}` in JSON or MessagePack, told apart by the first byte. A body
//! without an envelope is taken too: it has no number, so that its loss cannot be seen (the source is *unsequenced*).
//! A Betfair `mcm` body is passed on as the bytes that came, for its own reader; in a MessagePack envelope it is a
//! text or bytes that hold the JSON.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use tictac_proto::limits::{MAX_ID, MAX_INT};

use crate::node::Node;
use crate::problem::{Problem, ProblemKind};

/// Largest message of a source, in bytes.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// One message of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// Who says it; `None` where the message does not say (the channel it came through does).
    pub source: Option<Arc<str>>,
    /// The message's number, one higher than the source's message before; `None` where unsequenced.
    pub seq: Option<u64>,
    /// When the source sent it, Unix milliseconds.
    pub ts: Option<i64>,
    /// What it says.
    pub body: Body<'a>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// In the native format: an object with `op`, or an array of such.
    Native(Node<'a>),
    /// A Betfair `mcm` message, as the JSON bytes that came.
    Mcm(Cow<'a, [u8]>),
}

/// The outermost object, its members unread.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    src: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    op: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Reads a message. What is wrong with the envelope's own members costs only them: it goes to `problems`.
    ///
    /// # Errors
    /// Too large, unreadable, or no body in it.
    pub fn read(payload: &'a [u8], problems: &mut Vec<Problem>) -> Result<Self, Problem> {
        if payload.len() > MAX_PAYLOAD {
            let why = format!(
                "{} bytes; a message has at most {MAX_PAYLOAD}: send several smaller ones",
                payload.len()
            );
            return Err(Problem::new(ProblemKind::TooLarge, "message", why, payload));
        }
        match payload.iter().find(|b| !b.is_ascii_whitespace()) {
            None => Err(Problem::new(
                ProblemKind::Syntax,
                "message",
                "empty; send one JSON or MessagePack document",
                payload,
            )),
            Some(b'[') => Ok(Self::bare(Body::Native(Node::from_json(payload)?))),
            Some(b'{') => Self::read_json(payload, problems),
            Some(_) => Self::read_msgpack(payload, problems),
        }
    }

    /// Whether the message has no number.
    #[must_use]
    pub fn is_unsequenced(&self) -> bool {
        self.seq.is_none()
    }

    fn bare(body: Body<'a>) -> Self {
        Self { source: None, seq: None, ts: None, body }
    }

    fn read_json(payload: &'a [u8], problems: &mut Vec<Problem>) -> Result<Self, Problem> {
        let outer: Outer<'a> = serde_json::from_slice(payload).map_err(|e| {
            let why = format!("not readable as JSON ({e}); send one whole document");
            Problem::new(ProblemKind::Syntax, "message", why, payload)
        })?;
        if outer.op.is_some() {
            return Ok(Self::bare(json_body(payload)?));
        }
        let body = outer.body.ok_or_else(|| no_body(payload))?;
        let body = json_body(body.get().as_bytes())?;
        let node = |raw: Option<&'a RawValue>| raw.map(|r| Node::from_json(r.get().as_bytes())).transpose();
        Ok(Self::with(node(outer.src)?, node(outer.seq)?, node(outer.ts)?, body, problems))
    }

    fn read_msgpack(payload: &'a [u8], problems: &mut Vec<Problem>) -> Result<Self, Problem> {
        let root = Node::from_msgpack(payload)?;
        let mut members = match root {
            Node::Map(members) => members,
            Node::List(_) => return Ok(Self::bare(Body::Native(root))),
            other => {
                let why = format!("the message is {}; it must be an envelope or a body", other.kind());
                return Err(Problem::new(ProblemKind::Syntax, "message", why, payload));
            }
        };
        if members.iter().any(|m| m.0 == "op") {
            return Ok(Self::bare(Body::Native(Node::Map(members))));
        }
        let mut take = |key: &str| members.iter().rposition(|m| m.0 == key).map(|i| members.swap_remove(i).1);
        let (source, seq, ts) = (take("src"), take("seq"), take("ts"));
        let body = match take("body").ok_or_else(|| no_body(payload))? {
            Node::Text(Cow::Borrowed(text)) => json_body(text.as_bytes())?,
            Node::Bytes(Cow::Borrowed(bytes)) => json_body(bytes)?,
            node => Body::Native(node),
        };
        Ok(Self::with(source, seq, ts, body, problems))
    }

    fn with(
        source: Option<Node<'a>>,
        seq: Option<Node<'a>>,
        ts: Option<Node<'a>>,
        body: Body<'a>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let source = source.and_then(|node| match node.text() {
            Some(text) if !text.is_empty() && text.len() <= MAX_ID => Some(Arc::from(text)),
            _ => {
                problems.push(wrong("src", &node, &format!("a text of 1 to {MAX_ID} bytes")));
                None
            }
        });
        let mut whole = |at: &str, node: Option<Node<'a>>| match node {
            None | Some(Node::Null) => None,
            Some(Node::Int(n)) if (0..=MAX_INT).contains(&n) => Some(n),
            Some(other) => {
                problems.push(wrong(at, &other, "an integer from 0 to 2^53 - 1"));
                None
            }
        };
        let seq = whole("seq", seq).map(i64::unsigned_abs);
        let ts = whole("ts", ts);
        Self { source, seq, ts, body }
    }
}

/// A JSON body: `mcm` as it came, anything else read.
fn json_body(bytes: &[u8]) -> Result<Body<'_>, Problem> {
    #[derive(Deserialize)]
    struct Peek<'a> {
        #[serde(borrow)]
        op: Option<Cow<'a, str>>,
    }
    let is_mcm = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
        && serde_json::from_slice::<Peek<'_>>(bytes).is_ok_and(|p| p.op.as_deref() == Some("mcm"));
    Ok(if is_mcm { Body::Mcm(Cow::Borrowed(bytes)) } else { Body::Native(Node::from_json(bytes)?) })
}

fn no_body(payload: &[u8]) -> Problem {
    let why =
        "neither an envelope (no \"body\") nor a body (no \"op\"); send {\"src\",\"seq\",\"ts\",\"body\"}";
    Problem::new(ProblemKind::Value, "message", why, payload)
}

fn wrong(at: &str, node: &Node<'_>, need: &str) -> Problem {
    let why = format!("{} is {}; it must be {need}", node.excerpt(), node.kind());
    Problem::new(ProblemKind::Value, at, why, node.excerpt().as_bytes())
}
