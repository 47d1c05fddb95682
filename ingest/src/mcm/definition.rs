//! A market's definition → fields. The stream sends it whole whenever any of it changes, so what it leaves out is
//! cleared; but for names, which only historic files carry and which may come from elsewhere. A value that can't be used
//! is left as it was.

use std::ops::Range;

use tictac_proto::limits::{MAX_ID, MAX_SELECTIONS, MAX_TEXT};
use tictac_proto::model::fields::PriceKind;
use tictac_proto::model::{
    Delta, MarketField, MarketStatus, SelectionDelta, SelectionField, SelectionKey, SelectionStatus, Value,
};

use super::decimal::Number;
use super::instant::unix_ms;
use super::json::{Broken, Cursor, Scalar, unescape};
use super::message::{handicap, integer, price, small};
use super::report::{Place, Report};
use crate::problem::ProblemKind;

/// Names of sports by event type; others are known by their number.
const SPORTS: &[(&str, &str)] = &[
    ("1", "football"),
    ("2", "tennis"),
    ("3", "golf"),
    ("4", "cricket"),
    ("5", "rugby_union"),
    ("6", "boxing"),
    ("7", "horse_racing"),
    ("8", "motor_sport"),
    ("10", "special_bets"),
    ("11", "cycling"),
    ("1477", "rugby_league"),
    ("3503", "darts"),
    ("4339", "greyhound_racing"),
    ("6231", "financial_bets"),
    ("6422", "snooker"),
    ("6423", "american_football"),
    ("7511", "baseball"),
    ("7522", "basketball"),
    ("7524", "ice_hockey"),
    ("61420", "australian_rules"),
    ("468328", "handball"),
    ("998917", "volleyball"),
    ("2152880", "gaelic_games"),
    ("2378961", "politics"),
    ("26420387", "mixed_martial_arts"),
    ("27454571", "esports"),
];

/// What a definition says.
#[derive(Debug, Default)]
pub(super) struct Definition {
    /// Fields of the market and of its runners; every runner is there.
    pub(super) delta: Delta,
    /// Its version.
    pub(super) version: Option<i64>,
    /// Whether prices are lines.
    pub(super) line: bool,
}

/// Parts of the definition that mean something only together.
#[derive(Default)]
struct Parts {
    betting: Option<Range<usize>>,
    ladder: Option<Range<usize>>,
    unit: [Option<i64>; 3],
    status: Option<MarketStatus>,
    settled: bool,
    suspended_for: Option<Value>,
}

/// Reads the definition that lies at `part` of a line, of `mc[mc]`.
pub(super) fn read(
    line: &[u8],
    part: Range<usize>,
    mc: u32,
    report: &mut Report<'_, '_>,
) -> Result<Definition, Broken> {
    use MarketField as F;
    let mut definition = Definition::default();
    let mut parts = Parts::default();
    let mut seen = 0u64;
    let mut cursor = Cursor::new(line, part.clone());
    let object = cursor.object(|cursor, key| {
        let place = |key| Place::Definition(mc, key);
        let at = cursor.at();
        let mut said = |field: F, value: Option<Value>| {
            // What is here but unusable stays as it was; only what is not here at all is cleared.
            seen |= 1 << field as u32;
            if value.is_some() {
                definition.delta.set(field, value);
            }
        };
        match key {
            b"eventId" => said(F::Event, words(cursor, place("eventId"), MAX_ID, report)?),
            b"eventName" => said(F::EventName, words(cursor, place("eventName"), MAX_TEXT, report)?),
            b"eventTypeId" => {
                let sport = words(cursor, place("eventTypeId"), MAX_ID, report)?;
                said(F::Sport, sport.map(named_sport));
            }
            b"venue" => said(F::Venue, words(cursor, place("venue"), MAX_TEXT, report)?),
            b"name" => said(F::Name, words(cursor, place("name"), MAX_TEXT, report)?),
            b"marketType" => said(F::Type, words(cursor, place("marketType"), MAX_TEXT, report)?),
            b"marketTime" => {
                let time = words(cursor, place("marketTime"), MAX_TEXT, report)?;
                let start = time.as_ref().and_then(Value::text).and_then(unix_ms);
                if time.is_some() && start.is_none() {
                    let why = "an instant such as 2025-05-09T19:00:00.000Z was expected";
                    report.value(place("marketTime"), why, at..cursor.at());
                }
                said(F::Start, start.map(Value::Int));
            }
            b"numberOfWinners" => {
                said(F::Winners, integer(cursor, place("numberOfWinners"), report)?.map(Value::Int))
            }
            b"eachWayDivisor" => said(F::EachWay, thousandths(cursor, place("eachWayDivisor"), report)?),
            b"betDelay" => said(F::BetDelay, integer(cursor, place("betDelay"), report)?.map(Value::Int)),
            b"version" => {
                definition.version = integer(cursor, place("version"), report)?;
                said(F::Version, definition.version.map(Value::Int));
            }
            b"inPlay" => match cursor.scalar(0)? {
                Scalar::Bool(in_play) => said(F::InPlay, Some(Value::Int(i64::from(in_play)))),
                Scalar::Null => {}
                other => {
                    said(F::InPlay, None);
                    report.wrong_type(place("inPlay"), "true or false", &other, at..cursor.at());
                }
            },
            b"status" => {
                parts.status = status(cursor, place("status"), report, |name| match name {
                    "INACTIVE" => Some(MarketStatus::Inactive),
                    "OPEN" => Some(MarketStatus::Open),
                    "SUSPENDED" => Some(MarketStatus::Suspended),
                    "CLOSED" => Some(MarketStatus::Closed),
                    _ => None,
                })?;
                said(F::Status, None);
            }
            b"suspendReason" => {
                parts.suspended_for = words(cursor, place("suspendReason"), MAX_TEXT, report)?
            }
            b"bettingType" => parts.betting = super::message::text(cursor, place("bettingType"), report)?,
            b"priceLadderDefinition" => {
                cursor.object(|cursor, key| match key {
                    b"type" => {
                        parts.ladder =
                            super::message::text(cursor, place("priceLadderDefinition.type"), report)?;
                        Ok(())
                    }
                    _ => cursor.skip(),
                })?;
            }
            b"lineMinUnit" => parts.unit[0] = handicap(cursor, place("lineMinUnit"), report)?,
            b"lineMaxUnit" => parts.unit[1] = handicap(cursor, place("lineMaxUnit"), report)?,
            b"lineInterval" => parts.unit[2] = handicap(cursor, place("lineInterval"), report)?,
            b"runners" => {
                let array = cursor.array(|cursor, index| {
                    let settled = runner(cursor, mc, small(index), &mut definition.delta, report)?;
                    parts.settled |= settled;
                    Ok(())
                })?;
                if !array && cursor.since(at) != b"null" {
                    report.value(place("runners"), "an array was expected", at..cursor.at());
                }
            }
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    if !object {
        report.value(Place::OfMarket(mc, "marketDefinition"), "an object was expected", part);
        return Ok(definition);
    }
    for field in [F::Venue, F::Start, F::Winners, F::EachWay, F::BetDelay, F::InPlay, F::Type] {
        if seen & (1 << field as u32) == 0 {
            definition.delta.set(field, None);
        }
    }
    together(line, mc, parts, &mut definition, report);
    Ok(definition)
}

/// The fields that follow from several keys.
fn together(line: &[u8], mc: u32, parts: Parts, definition: &mut Definition, report: &mut Report<'_, '_>) {
    if let Some(status) = parts.status {
        // The stream has one word for the end; results in the runners tell that it is final.
        let settled = status == MarketStatus::Closed && parts.settled;
        let status = if settled { MarketStatus::Settled } else { status };
        definition.delta.set(MarketField::Status, Some(Value::Int(status.code())));
    }
    definition.delta.set(MarketField::Reason, parts.suspended_for);
    let betting = parts.betting.map_or(&b""[..], |range| &line[range]);
    definition.line = betting == b"LINE";
    let price_kind = if definition.line { PriceKind::Line } else { PriceKind::Odds };
    definition.delta.set(MarketField::PriceKind, Some(Value::Int(price_kind.code())));
    // Files from before the key existed are of a time when all odds markets were CLASSIC.
    let ticks = match parts.ladder.as_ref().map(|range| &line[range.clone()]) {
        Some(b"CLASSIC") => Some("classic".into()),
        Some(b"FINEST") => Some("finest".into()),
        Some(b"LINE_RANGE") => match parts.unit {
            [Some(min), Some(max), Some(step)] => {
                Some(Value::from(format!("line:{min}:{max}:{step}").as_str()))
            }
            _ => None,
        },
        Some(_) => {
            let why = "CLASSIC, FINEST or LINE_RANGE was expected; the market has no tick ladder";
            report.value(
                Place::Definition(mc, "priceLadderDefinition.type"),
                why,
                parts.ladder.unwrap_or(0..0),
            );
            None
        }
        None if betting == b"ODDS" => Some("classic".into()),
        None => None,
    };
    definition.delta.set(MarketField::Ticks, ticks);
}

/// One runner into `delta`. Says whether it has a result.
fn runner(
    cursor: &mut Cursor<'_>,
    mc: u32,
    index: u32,
    delta: &mut Delta,
    report: &mut Report<'_, '_>,
) -> Result<bool, Broken> {
    use SelectionField as F;
    let start = cursor.at();
    let place = |key| Place::Runner(mc, index, key);
    let (mut id, mut hundredths, mut settled) = (None, Some(0), false);
    // By field: not there (cleared), there but unusable (as it was), a value.
    let mut found: [Option<Option<Value>>; SelectionField::COUNT] = Default::default();
    let object = cursor.object(|cursor, key| {
        match key {
            b"id" => id = integer(cursor, place("id"), report)?,
            b"hc" => hundredths = handicap(cursor, place("hc"), report)?,
            b"name" => found[F::Name as usize] = Some(words(cursor, place("name"), MAX_TEXT, report)?),
            b"sortPriority" => {
                found[F::Sort as usize] =
                    Some(integer(cursor, place("sortPriority"), report)?.map(Value::Int));
            }
            b"status" => {
                let status = status(cursor, place("status"), report, |name| match name {
                    "ACTIVE" => Some(SelectionStatus::Active),
                    "REMOVED" | "REMOVED_VACANT" => Some(SelectionStatus::Removed),
                    "WINNER" => Some(SelectionStatus::Winner),
                    "LOSER" => Some(SelectionStatus::Loser),
                    "PLACED" => Some(SelectionStatus::Placed),
                    "HIDDEN" => Some(SelectionStatus::Hidden),
                    _ => None,
                })?;
                use SelectionStatus::{Loser, Placed, Winner};
                settled = matches!(status, Some(Winner | Loser | Placed));
                found[F::Status as usize] = Some(status.map(|status| Value::Int(status.code())));
            }
            b"adjustmentFactor" => {
                found[F::Adjustment as usize] = Some(thousandths(cursor, place("adjustmentFactor"), report)?);
            }
            b"bsp" => {
                // "NaN" clears; what can't be read leaves the price as it was.
                match price(cursor, place("bsp"), report)? {
                    Some(price) if price.is_none_or(|v| v > 0) => {
                        found[F::Sp as usize] = price.map(|v| Some(Value::Int(v)));
                    }
                    Some(_) => {
                        found[F::Sp as usize] = Some(None);
                        report.value(place("bsp"), "a starting price can't be negative", start..cursor.at());
                    }
                    None => found[F::Sp as usize] = Some(None),
                }
            }
            _ => cursor.skip()?,
        }
        Ok(())
    })?;
    let (Some(id), Some(handicap)) = (id, hundredths) else {
        let why = if object {
            "the runner has no usable id and handicap and is left out"
        } else {
            "an object was expected"
        };
        report.value(place(""), why, start..cursor.at());
        return Ok(false);
    };
    let key = SelectionKey { id, handicap };
    let mut change = SelectionDelta::default();
    for field in [F::Name, F::Sort, F::Status, F::Adjustment, F::Sp] {
        match std::mem::take(&mut found[field as usize]) {
            Some(None) => {}
            None if matches!(field, F::Name | F::Status) => {}
            None => change.fields.push((field, None)),
            Some(value) => change.fields.push((field, value)),
        }
    }
    if delta.selections.len() < MAX_SELECTIONS || delta.selections.iter().any(|s| s.0 == key) {
        *delta.selection_mut(key) = change;
    } else {
        let why = format_args!("more than {MAX_SELECTIONS} runners; this one is left out");
        report.add(ProblemKind::TooLarge, place(""), why, start..cursor.at());
    }
    Ok(settled)
}

fn named_sport(sport: Value) -> Value {
    let name = sport.text().and_then(|id| SPORTS.iter().find(|s| s.0 == id)).map(|s| s.1);
    name.map_or(sport, Value::from)
}

/// A text of at most so many bytes.
fn words(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    longest: usize,
    report: &mut Report<'_, '_>,
) -> Result<Option<Value>, Broken> {
    let at = cursor.at();
    match cursor.scalar(0)? {
        Scalar::Text(range, escapes) => match unescape(cursor.of(range.clone()), escapes) {
            Some(text) if text.len() <= longest => return Ok(Some(Value::from(&*text))),
            Some(text) => {
                let why =
                    format_args!("{} bytes are more than the {longest} allowed; it is left out", text.len());
                report.add(ProblemKind::TooLarge, place, why, at..cursor.at());
            }
            None => report.value(place, "the text is not Unicode", at..cursor.at()),
        },
        Scalar::Null => {}
        other => report.wrong_type(place, "a text", &other, at..cursor.at()),
    }
    Ok(None)
}

/// A factor of zero or more, in thousandths, to the nearest.
fn thousandths(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    report: &mut Report<'_, '_>,
) -> Result<Option<Value>, Broken> {
    let at = cursor.at();
    match cursor.scalar(3)? {
        Scalar::Number(Number::Exact(v) | Number::Rounded(v)) if v >= 0 => return Ok(Some(Value::Int(v))),
        Scalar::Null => {}
        Scalar::Number(_) => {
            report.value(place, "a factor from 0 to 2^53 thousandths was expected", at..cursor.at())
        }
        other => report.wrong_type(place, "a number", &other, at..cursor.at()),
    }
    Ok(None)
}

/// A status by its name.
fn status<S>(
    cursor: &mut Cursor<'_>,
    place: Place<'_>,
    report: &mut Report<'_, '_>,
    known: impl Fn(&str) -> Option<S>,
) -> Result<Option<S>, Broken> {
    let at = cursor.at();
    let Some(range) = super::message::text(cursor, place, report)? else { return Ok(None) };
    let status = std::str::from_utf8(cursor.of(range)).ok().and_then(known);
    if status.is_none() {
        report.value(place, "an unknown status; it stays what it was", at..cursor.at());
    }
    Ok(status)
}
