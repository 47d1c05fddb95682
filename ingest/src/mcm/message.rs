//! A message as it lies in its line: the parts of `mc[]` in flat, reused buffers, before anything is understood of
//! them. Keys come in any order (recordings put a runner's `id` after its ladders and `img` after `rc`), and a message
//! that breaks off must not leave half a market behind: so the whole is read first and applied after.

use std::ops::Range;

use tictac_proto::limits::{MAX_LEVELS, MAX_SELECTIONS};

use super::decimal::Number;
use super::json::{Broken, Cursor, Scalar};
use super::report::{Place, Report};
use crate::problem::ProblemKind;

/// Decimals of every price, size and handicap of the stream.
pub(super) const PLACES: u32 = 2;

/// A ladder of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Atb,
    Atl,
    Batb,
    Batl,
    Bdatb,
    Bdatl,
    Trd,
}

impl Source {
    fn from_key(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"atb" => Self::Atb,
            b"atl" => Self::Atl,
            b"trd" => Self::Trd,
            b"batb" => Self::Batb,
            b"batl" => Self::Batl,
            b"bdatb" => Self::Bdatb,
            b"bdatl" => Self::Bdatl,
            _ => return None,
        })
    }

    /// Its key in the message.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Atb => "atb",
            Self::Atl => "atl",
            Self::Trd => "trd",
            Self::Batb => "batb",
            Self::Batl => "batl",
            Self::Bdatb => "bdatb",
            Self::Bdatl => "bdatl",
        }
    }

    /// Whether its rows are `[level, price, size]`.
    pub(super) fn by_level(self) -> bool {
        matches!(self, Self::Batb | Self::Batl | Self::Bdatb | Self::Bdatl)
    }
}

/// A row of a ladder; `level` only where it is by level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) index: u32,
    pub(super) level: i64,
    pub(super) price: i64,
    pub(super) size: i64,
    pub(super) at: u32,
}

/// A ladder of a runner: which, and its rows among [`Message::rows`].
#[derive(Debug, Clone)]
pub(super) struct RawLadder {
    pub(super) source: Source,
    pub(super) rows: Range<usize>,
}

/// What a message says of a scalar: nothing, cleared, or a value.
pub(super) type Said = Option<Option<i64>>;

/// An element of `rc[]`.
#[derive(Debug, Clone, Default)]
pub(super) struct RawRunner {
    pub(super) index: u32,
    pub(super) id: i64,
    pub(super) handicap: i64,
    pub(super) last: Said,
    pub(super) volume: Said,
    pub(super) near: Said,
    pub(super) far: Said,
    /// Among [`Message::ladders`].
    pub(super) ladders: Range<usize>,
}

/// An element of `mc[]`.
#[derive(Debug, Clone, Default)]
pub(super) struct RawMarket {
    pub(super) index: u32,
    /// The content of its id, in the line.
    pub(super) id: Range<usize>,
    pub(super) image: bool,
    pub(super) matched: Said,
    /// The definition, in the line.
    pub(super) definition: Option<Range<usize>>,
    /// Among [`Message::runners`].
    pub(super) runners: Range<usize>,
}

/// The parts of one message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Whether the line is an object at all.
    pub(super) is_object: bool,
    pub(super) is_mcm: bool,
    pub(super) op: Option<Range<usize>>,
    pub(super) change_type: Option<Range<usize>>,
    pub(super) segment: Option<Range<usize>>,
    pub(super) pt: Option<i64>,
    pub(super) status: Option<i64>,
    pub(super) markets: Vec<RawMarket>,
    pub(super) runners: Vec<RawRunner>,
    pub(super) ladders: Vec<RawLadder>,
    pub(super) rows: Vec<Row>,
}

impl Message {
    /// Reads a line into the buffers. On [`Broken`], the markets that were complete before the break are there.
    pub(super) fn read(&mut self, line: &[u8], report: &mut Report<'_, '_>) -> Result<(), Broken> {
        self.markets.clear();
        self.runners.clear();
        self.ladders.clear();
        self.rows.clear();
        (self.is_object, self.is_mcm, self.op) = (false, false, None);
        (self.change_type, self.segment, self.pt, self.status) = (None, None, None, None);
        let mut cursor = Cursor::new(line, 0..line.len());
        let object = cursor.object(|cursor, key| {
            let at = cursor.at();
            match key {
                b"op" => {
                    self.op = text(cursor, Place::Top("op"), report)?;
                    self.is_mcm = self.op.clone().is_some_and(|op| &line[op] == b"mcm");
                }
                b"ct" => self.change_type = text(cursor, Place::Top("ct"), report)?,
                b"segmentType" => self.segment = text(cursor, Place::Top("segmentType"), report)?,
                b"pt" => self.pt = integer(cursor, Place::Top("pt"), report)?,
                b"status" => self.status = integer(cursor, Place::Top("status"), report)?,
                b"mc" => {
                    let array = cursor.array(|cursor, index| self.market(cursor, index, report))?;
                    if !array && cursor.since(at) != b"null" {
                        report.value(Place::Top("mc"), "an array was expected", at..cursor.at());
                    }
                }
                _ => cursor.skip()?,
            }
            Ok(())
        })?;
        self.is_object = object;
        if !object {
            report.add(ProblemKind::Syntax, Place::Top("message"), "an object was expected", 0..line.len());
        } else if cursor.peek().is_some() {
            return Err(Broken { at: cursor.at(), why: "the message was over: send one message a line" });
        }
        Ok(())
    }

    fn market(
        &mut self,
        cursor: &mut Cursor<'_>,
        index: usize,
        report: &mut Report<'_, '_>,
    ) -> Result<(), Broken> {
        let mc = small(index);
        let start = cursor.at();
        let mut market = RawMarket { index: mc, ..RawMarket::default() };
        let mut id = None;
        let first = self.runners.len();
        let object = cursor.object(|cursor, key| {
            match key {
                b"id" => id = text(cursor, Place::OfMarket(mc, "id"), report)?,
                b"rc" => {
                    let at = cursor.at();
                    let array = cursor.array(|cursor, rc| self.runner(cursor, mc, small(rc), report))?;
                    if !array && cursor.since(at) != b"null" {
                        report.value(Place::OfMarket(mc, "rc"), "an array was expected", at..cursor.at());
                    }
                }
                b"img" => {
                    let at = cursor.at();
                    match cursor.scalar(0)? {
                        Scalar::Bool(image) => market.image = image,
                        Scalar::Null => {}
                        other => {
                            report.wrong_type(
                                Place::OfMarket(mc, "img"),
                                "true or false",
                                &other,
                                at..cursor.at(),
                            );
                        }
                    }
                }
                b"tv" => {
                    market.matched = amount(cursor, Place::OfMarket(mc, "tv"), report)?.or(market.matched)
                }
                b"marketDefinition" => {
                    let null = cursor.peek() == Some(b'n');
                    let range = cursor.range()?;
                    market.definition = (!null).then_some(range);
                }
                _ => cursor.skip()?,
            }
            Ok(())
        })?;
        market.runners = first..self.runners.len();
        match id {
            Some(id) => {
                market.id = id;
                self.markets.push(market);
            }
            None if object => {
                report.value(Place::Market(mc), "the market has no id and is left out", start..cursor.at())
            }
            None => report.value(Place::Market(mc), "an object was expected", start..cursor.at()),
        }
        Ok(())
    }

    fn runner(
        &mut self,
        cursor: &mut Cursor<'_>,
        mc: u32,
        rc: u32,
        report: &mut Report<'_, '_>,
    ) -> Result<(), Broken> {
        let start = cursor.at();
        let mut runner = RawRunner { index: rc, ..RawRunner::default() };
        let (mut id, mut unkeyed) = (None, false);
        let first = self.ladders.len();
        let object = cursor.object(|cursor, key| {
            let place = |key| Place::Change(mc, rc, key);
            match key {
                b"id" => id = integer(cursor, place("id"), report)?,
                b"hc" => match handicap(cursor, place("hc"), report)? {
                    Some(handicap) => runner.handicap = handicap,
                    None => unkeyed = true,
                },
                b"ltp" => runner.last = price(cursor, place("ltp"), report)?.or(runner.last),
                b"tv" => runner.volume = amount(cursor, place("tv"), report)?.or(runner.volume),
                b"spn" => runner.near = price(cursor, place("spn"), report)?.or(runner.near),
                b"spf" => runner.far = price(cursor, place("spf"), report)?.or(runner.far),
                _ => match Source::from_key(key) {
                    Some(source) => self.ladder(cursor, source, mc, rc, report)?,
                    None => cursor.skip()?,
                },
            }
            Ok(())
        })?;
        runner.ladders = first..self.ladders.len();
        match id {
            Some(id) if !unkeyed => {
                runner.id = id;
                self.runners.push(runner);
            }
            _ if object => report.value(
                Place::Change(mc, rc, ""),
                "the runner has no usable id and handicap and is left out",
                start..cursor.at(),
            ),
            _ => report.value(Place::Change(mc, rc, ""), "an object was expected", start..cursor.at()),
        }
        if self.runners.len() == MAX_SELECTIONS * 64 {
            return Err(Broken { at: cursor.at(), why: "more runners than a message may have" });
        }
        Ok(())
    }

    fn ladder(
        &mut self,
        cursor: &mut Cursor<'_>,
        source: Source,
        mc: u32,
        rc: u32,
        report: &mut Report<'_, '_>,
    ) -> Result<(), Broken> {
        let start = cursor.at();
        let first = self.rows.len();
        let wanted = if source.by_level() { 3 } else { 2 };
        let array = cursor.array(|cursor, index| {
            cursor.peek();
            let at = cursor.at();
            if index >= MAX_LEVELS {
                cursor.skip()?;
                return Ok(());
            }
            let mut cells = [0i64; 3];
            let (mut count, mut bad) = (0, None);
            cursor.array(|cursor, cell| {
                // The level is a plain integer; prices and sizes have two decimals.
                let places = if wanted == 3 && cell == 0 { 0 } else { PLACES };
                let number = cursor.number(places);
                let scalar = match number {
                    Some(Number::Exact(v)) if cell < wanted => {
                        cells[cell + 3 - wanted] = v;
                        count += 1;
                        return Ok(());
                    }
                    Some(number) => Scalar::Number(number),
                    None => cursor.scalar(places)?,
                };
                match scalar {
                    Scalar::Number(Number::Exact(_)) => {}
                    Scalar::Number(Number::Rounded(_)) => bad = Some("a number has more than two decimals"),
                    Scalar::Number(Number::TooLarge) => bad = Some("a number is beyond 2^53"),
                    _ => bad = Some("something else than a number is in it"),
                }
                count += 1;
                Ok(())
            })?;
            let [level, price, size] = cells;
            if count != wanted {
                bad = Some(if wanted == 3 {
                    "[level, price, size] was expected"
                } else {
                    "[price, size] was expected"
                });
            } else if bad.is_none() && size < 0 {
                bad = Some("the size is negative");
            }
            match bad {
                None => self.rows.push(Row { index: small(index), level, price, size, at: small(at) }),
                Some(why) => report.value(
                    Place::Row(mc, rc, source.key(), small(index)),
                    format_args!("{why}; the row is left out"),
                    at..cursor.at(),
                ),
            }
            if index + 1 == MAX_LEVELS {
                report.add(
                    ProblemKind::TooLarge,
                    Place::Change(mc, rc, source.key()),
                    format_args!("rows from the {MAX_LEVELS}th on are left out"),
                    at..cursor.at(),
                );
            }
            Ok(())
        })?;
        if array {
            self.ladders.push(RawLadder { source, rows: first..self.rows.len() });
        } else if cursor.since(start) != b"null" {
            report.value(
                Place::Change(mc, rc, source.key()),
                "an array of rows was expected",
                start..cursor.at(),
            );
        }
        Ok(())
    }
}

/// An index or offset of a line, which is far below 2^32.
pub(super) fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// A text's content in the line. `None` for `null` and for what is no text, which is reported.
pub(super) fn text(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    report: &mut Report<'_, '_>,
) -> Result<Option<Range<usize>>, Broken> {
    let at = cursor.at();
    match cursor.scalar(0)? {
        Scalar::Text(range, false) => Ok(Some(range)),
        Scalar::Null => Ok(None),
        other => {
            report.wrong_type(place, "a text without escapes", &other, at..cursor.at());
            Ok(None)
        }
    }
}

/// A whole number.
pub(super) fn integer(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    report: &mut Report<'_, '_>,
) -> Result<Option<i64>, Broken> {
    let at = cursor.at();
    match cursor.number(0) {
        Some(Number::Exact(v)) => return Ok(Some(v)),
        Some(_) => {
            report.value(place, "a whole number below 2^53 was expected", at..cursor.at());
            return Ok(None);
        }
        None => {}
    }
    match cursor.scalar(0)? {
        Scalar::Null => {}
        other => report.wrong_type(place, "a whole number", &other, at..cursor.at()),
    }
    Ok(None)
}

/// A handicap in hundredths; `null` is none, 0.
pub(super) fn handicap(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    report: &mut Report<'_, '_>,
) -> Result<Option<i64>, Broken> {
    let at = cursor.at();
    match cursor.scalar(PLACES)? {
        Scalar::Number(Number::Exact(v)) => return Ok(Some(v)),
        Scalar::Null => return Ok(Some(0)),
        Scalar::Number(_) => {
            report.value(place, "a handicap with two decimals was expected", at..cursor.at())
        }
        other => report.wrong_type(place, "a number", &other, at..cursor.at()),
    }
    Ok(None)
}

/// A volume: zero or more. A sum may carry a float's noise, so it is taken to the nearest hundredth.
fn amount(cursor: &mut Cursor<'_>, place: Place<'_>, report: &mut Report<'_, '_>) -> Result<Said, Broken> {
    let at = cursor.at();
    match cursor.scalar(PLACES)? {
        Scalar::Number(Number::Exact(v) | Number::Rounded(v)) if v >= 0 => return Ok(Some(Some(v))),
        Scalar::Null => {}
        Scalar::Number(Number::TooLarge) => report.value(place, "beyond 2^53 hundredths", at..cursor.at()),
        Scalar::Number(_) => report.value(place, "a volume can't be negative", at..cursor.at()),
        other => report.wrong_type(place, "a number", &other, at..cursor.at()),
    }
    Ok(None)
}

/// A price on its own. `"NaN"`, `"Infinity"` and 0 are how the stream says that there is none. Starting prices, real and
/// projected, have more decimals than prices of offers and are taken to the nearest hundredth.
pub(super) fn price(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    report: &mut Report<'_, '_>,
) -> Result<Said, Broken> {
    let at = cursor.at();
    let offered = matches!(place, Place::Change(_, _, "ltp"));
    match cursor.scalar(PLACES)? {
        Scalar::Number(Number::Exact(0)) => return Ok(Some(None)),
        Scalar::Number(Number::Exact(v)) => return Ok(Some(Some(v))),
        Scalar::Number(Number::Rounded(v)) if !offered => return Ok(Some(Some(v))),
        Scalar::Text(range, false)
            if matches!(cursor.of(range.clone()), b"NaN" | b"Infinity" | b"-Infinity") =>
        {
            return Ok(Some(None));
        }
        Scalar::Null => {}
        Scalar::Number(Number::TooLarge) => report.value(place, "beyond 2^53 hundredths", at..cursor.at()),
        Scalar::Number(_) => report.value(place, "a price has two decimals", at..cursor.at()),
        other => report.wrong_type(place, "a price", &other, at..cursor.at()),
    }
    Ok(None)
}
