//! The Betfair Exchange Stream's market changes (`"op":"mcm"`) → [`Update`]s. Pure: a line in, updates and problems out.
//!
//! | file | what it holds |
//! |---|---|
//! | `json` | a cursor over a line, which tells broken JSON from a wrong value |
//! | `decimal` | number text → scaled integer, exactly |
//! | `instant` | ISO 8601 → Unix milliseconds |
//! | `message` | a line → the parts of `mc[]`, in reused buffers, before any of it is understood |
//! | `definition` | `marketDefinition` → fields |
//! | `levels` | ladders by level → changes by price |
//! | `market` | what is remembered of a market; parts → change of a book |
//! | `report` | problems with their paths |
//!
//! # What becomes of what
//!
//! - `img:true`, and every market of a `SUB_IMAGE`, is an [`Update::Image`]; all else is an [`Update::Change`], also where
//!   the market was not seen before: the first word of a market carries its scale and source.
//! - `CLOSED` is `settled` where a runner of the definition has a result (winner, loser or placed), else `closed`.
//! - Each side of a market follows one ladder: `atb`/`atl` if the market ever sent one since its last image, else
//!   `batb`/`batl`, else `bdatb`/`bdatl`. A better one that appears late replaces what the lesser one had told.
//! - Sides are not swapped on LINE markets: their price kind says how to read them.
//! - `"NaN"`, `"Infinity"` and 0 clear a price. Projected and real starting prices are taken to the nearest hundredth, as
//!   are volumes; every other price and size must have two decimals (a float's noise aside).
//! - A definition is whole: what it leaves out is cleared, but for names (only historic files have them) and the event. A
//!   runner that it leaves out stays; only an image takes runners away.
//! - What an image of a subscription no longer names is gone, if the caller asks: [`McmReader::drop_unnamed`].
//! - A market that lies twice in one message as an image (it moved between events) is taken by its higher version.
//!
//! # What can't be taken
//!
//! A value of the wrong type or range costs that value, and a runner or market without a usable key itself. Where a line
//! stops being JSON, the markets that were complete before are taken, the broken one is not, and [`Read::broken`] says so.

mod decimal;
mod definition;
mod instant;
mod json;
mod levels;
mod market;
mod message;
mod report;

use std::collections::HashMap;
use std::sync::Arc;

use tictac_proto::limits::MAX_ID;
use tictac_proto::model::{Book, MarketId};

use self::definition::Definition;
use self::market::Market;
use self::message::{Message, RawMarket};
pub use self::report::MAX_PROBLEMS;
use self::report::{Place, Report};
use crate::problem::{Problem, ProblemKind};
use crate::update::Update;

/// Longest line, in bytes. The image of a large subscription comes in segments well below this.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// Most markets that one reader remembers. Whoever drops a market must say so by [`McmReader::forget`].
pub const MAX_MARKETS: usize = 100_000;

/// What kind of message a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// No market message: blank, unreadable, or another operation.
    #[default]
    None,
    /// The first image of a subscription.
    Image,
    /// The changes since a resumed position.
    Resumed,
    /// A sign of life without changes.
    Heartbeat,
    /// Changes.
    Change,
}

/// What a line was, beside its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Read {
    /// The kind of message.
    pub kind: Kind,
    /// When the source published it, Unix milliseconds.
    pub pt: Option<i64>,
    /// The source's own state; 503 where its data are late.
    pub status: Option<i64>,
    /// Whether this ends the image of a subscription (its last segment, where it comes in several).
    pub image_ends: bool,
    /// Whether the line stopped being JSON, or spoke by level of a market whose levels are not known: what it said beyond
    /// the updates is lost, so that books may be wrong until the next image.
    pub broken: bool,
}

impl Read {
    /// Whether the source says that its data are late. The connection is sound; do not drop it.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.status == Some(503)
    }
}

/// Reads the messages of one connection, or one recording, in their order.
#[derive(Debug, Default)]
pub struct McmReader {
    message: Message,
    markets: HashMap<Arc<str>, Market, foldhash::fast::RandomState>,
    /// Messages so far.
    messages: u64,
    /// Number of the message that began the last image of a subscription.
    image_began: u64,
    /// Whether this message had a ladder by level of a restored market.
    blind: bool,
}

impl McmReader {
    /// A reader that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one line, with or without its line end. Updates are added to `out` in the order in which they are to be
    /// applied, problems to `problems` (at most [`MAX_PROBLEMS`] a line). `source` becomes the books' source.
    pub fn read(
        &mut self,
        source: &str,
        line: &[u8],
        out: &mut Vec<Update>,
        problems: &mut Vec<Problem>,
    ) -> Read {
        let mut report = Report::new(line, problems);
        if line.len() > MAX_LINE {
            let why = format_args!("{} bytes are more than the {MAX_LINE} allowed", line.len());
            report.add(ProblemKind::TooLarge, Place::Top("message"), why, 0..line.len());
            return Read { broken: true, ..Read::default() };
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return Read::default();
        }
        let mut message = std::mem::take(&mut self.message);
        let whole = message.read(line, &mut report);
        if let Err(broken) = whole {
            let why = format_args!("no JSON from byte {} on: {}", broken.at, broken.why);
            report.add(ProblemKind::Syntax, Place::Top("message"), why, broken.at..line.len());
        }
        let mut read = Read { broken: whole.is_err(), ..Read::default() };
        if message.is_mcm {
            let change_type = message.change_type.clone().map_or(&b""[..], |range| &line[range]);
            read.kind = match change_type {
                b"SUB_IMAGE" => Kind::Image,
                b"RESUB_DELTA" => Kind::Resumed,
                b"HEARTBEAT" => Kind::Heartbeat,
                _ => Kind::Change,
            };
            (read.pt, read.status) = (message.pt, message.status);
            self.messages += 1;
            self.blind = false;
            if read.kind == Kind::Image {
                let segment = message.segment.clone().map(|range| &line[range]);
                if matches!(segment, None | Some(b"SEG_START")) {
                    self.image_began = self.messages;
                }
                read.image_ends = matches!(segment, None | Some(b"SEG_END")) && whole.is_ok();
            }
            for raw in &message.markets {
                self.market(source, line, &message, raw, read.kind == Kind::Image, out, &mut report);
            }
            read.broken |= self.blind;
        } else if whole.is_ok() && message.is_object {
            let why = "only \"op\":\"mcm\" is known here; the line is left out";
            report.add(
                ProblemKind::Operation,
                Place::Top("op"),
                why,
                message.op.clone().unwrap_or(0..line.len()),
            );
        }
        self.message = message;
        read
    }

    #[allow(clippy::too_many_arguments, reason = "a message's parts and its three outputs")]
    fn market(
        &mut self,
        source: &str,
        line: &[u8],
        message: &Message,
        raw: &RawMarket,
        all_images: bool,
        out: &mut Vec<Update>,
        report: &mut Report<'_, '_>,
    ) {
        let place = Place::OfMarket(raw.index, "id");
        let id = match std::str::from_utf8(&line[raw.id.clone()]) {
            Ok(id) if (1..=MAX_ID).contains(&id.len()) => id,
            _ => {
                let why = format_args!("an id of 1 to {MAX_ID} bytes was expected; the market is left out");
                return report.value(place, why, raw.id.clone());
            }
        };
        let definition = match &raw.definition {
            Some(part) => match definition::read(line, part.clone(), raw.index, report) {
                Ok(definition) => Some(definition),
                Err(broken) => {
                    let place = Place::OfMarket(raw.index, "marketDefinition");
                    return report.add(ProblemKind::Syntax, place, broken.why, part.clone());
                }
            },
            None => None,
        };
        let image = raw.image || all_images;
        let parts = Parts { source, message, raw, definition, image, number: self.messages };
        // Found at once where it is known, which is nearly always.
        if let Some(market) = self.markets.get_mut(id) {
            take(market, parts, out, report);
            self.blind |= std::mem::take(&mut market.blind);
            return;
        }
        if self.markets.len() >= MAX_MARKETS {
            let why = format_args!("more than {MAX_MARKETS} markets; this one is left out");
            return report.add(ProblemKind::TooLarge, place, why, raw.id.clone());
        }
        let id = Arc::<str>::from(id);
        take(self.markets.entry(Arc::clone(&id)).or_insert(Market::new(id)), parts, out, report);
    }

    /// After a subscription's image ([`Read::image_ends`]): forgets the markets that it did not name and says so to `out`.
    ///
    /// A subscription's image is all that the connection will speak of. It is for the caller to ask, since only it knows
    /// whether what it reads is one connection, or several that share one name.
    pub fn drop_unnamed(&mut self, out: &mut Vec<Update>) {
        let began = self.image_began;
        let first = out.len();
        out.extend(
            self.markets
                .values()
                .filter(|market| market.named < began)
                .map(|market| Update::Gone { market: Arc::clone(&market.id) }),
        );
        for update in &out[first..] {
            if let Update::Gone { market } = update {
                self.markets.remove(market);
            }
        }
    }

    /// A market's book is known from elsewhere: the log, of which another one read the start. What the source says of it
    /// by price can be read on; by level only after the next image ([`Read::broken`]).
    pub fn restore(&mut self, market: &MarketId, book: &Book) {
        if self.markets.len() < MAX_MARKETS || self.markets.contains_key(market) {
            self.markets.insert(Arc::clone(market), Market::restored(Arc::clone(market), book));
        }
    }

    /// Forgets a market that is gone. Without this a reader would remember every market that it ever saw.
    pub fn forget(&mut self, market: &str) {
        self.markets.remove(market);
    }

    /// How many markets are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.markets.len()
    }
}

/// What a message says of one market.
struct Parts<'a> {
    source: &'a str,
    message: &'a Message,
    raw: &'a RawMarket,
    definition: Option<Definition>,
    image: bool,
    /// Of the message.
    number: u64,
}

/// Takes it into what is remembered of the market, and puts the update out.
fn take(market: &mut Market, parts: Parts<'_>, out: &mut Vec<Update>, report: &mut Report<'_, '_>) {
    let Parts { source, message, raw, definition, image, number } = parts;
    market.named = number;
    if !image {
        let delta = market.change(source, message, raw, definition, report);
        if !delta.is_empty() {
            out.push(Update::Change { market: Arc::clone(&market.id), delta, rollback: false });
        }
        return;
    }
    let again = market.imaged.0 == number;
    let version = definition.as_ref().and_then(|definition| definition.version);
    if again && version < market.version {
        return;
    }
    market.reset();
    let delta = market.change(source, message, raw, definition, report);
    let mut book = Box::<Book>::default();
    book.apply(&delta, 0);
    let update = Update::Image { market: Arc::clone(&market.id), book };
    match out.get_mut(market.imaged.1) {
        Some(earlier) if again => *earlier = update,
        _ => {
            market.imaged = (number, out.len());
            out.push(update);
        }
    }
}
