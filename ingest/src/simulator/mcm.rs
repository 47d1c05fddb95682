//! A run of the simulator as Betfair's stream format says it: `mcm` messages of its ladder markets, and the books at
//! checkpoints in the shape in which independent clients' books are kept beside real recordings.
//!
//! Ids become Betfair's shapes: market `demo-1001` is `1.900001001`, event `demo-e101` is `90000101`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tictac_proto::model::fields::Kind;
use tictac_proto::model::{
    Delta, MarketField, MarketId, MarketStatus, SelectionField, SelectionKey, SelectionStatus, Side, Value,
};

use super::truth::{TruthMarket, TruthSelection};
use crate::native::number::write_scaled;
use crate::native::writer::text;
use crate::update::{StopScope, Update};

/// Renders updates; remembers the markets, for a definition is always said whole.
#[derive(Debug, Default)]
pub struct McmWriter {
    markets: BTreeMap<MarketId, TruthMarket>,
}

impl McmWriter {
    /// One message of these updates, without a line end; `None` where Betfair's format would say nothing.
    pub fn message(&mut self, updates: &[Update], clk: u64, pt: i64) -> Option<String> {
        let mut changes = Vec::new();
        for update in updates {
            match update {
                Update::Image { market, book } => {
                    let mut truth = TruthMarket::default();
                    apply(&mut truth, &tictac_proto::model::Book::default().diff(book));
                    if is_ladder(&truth) {
                        changes.push(image(market, &truth));
                        self.markets.insert(market.clone(), truth);
                    }
                }
                Update::Change { market, delta, .. } => {
                    if let Some(known) = self.markets.get_mut(market) {
                        changes.extend(change(market, known, delta));
                    }
                }
                Update::Stop { event, scope, .. } => self.stop(event, scope, &mut changes),
                Update::Gone { market } => {
                    self.markets.remove(market);
                }
            }
        }
        (!changes.is_empty()).then(|| {
            format!(
                "{{\"op\":\"mcm\",\"id\":1,\"clk\":\"{clk}\",\"pt\":{pt},\"mc\":[{}]}}",
                changes.join(",")
            )
        })
    }

    fn stop(&mut self, event: &str, scope: &StopScope, changes: &mut Vec<String>) {
        for (id, market) in &mut self.markets {
            let hit = match scope {
                StopScope::Event => true,
                StopScope::Types(types) => types.iter().any(|t| market.text(MarketField::Type) == Some(&**t)),
                StopScope::Markets(ids) => ids.contains(id),
            };
            let hit = hit && market.text(MarketField::Event) == Some(event);
            if hit && !market.status().is_terminal() && market.status() != MarketStatus::Suspended {
                market.fields.insert(MarketField::Status, MarketStatus::Suspended.code().into());
                changes.push(format!("{{\"id\":\"{}\"{}}}", market_id(id), definition(market)));
            }
        }
    }
}

/// Whether Betfair's format can say the market.
#[must_use]
pub fn is_ladder(market: &TruthMarket) -> bool {
    market.int(MarketField::Kind) == Some(Kind::Ladder.code())
}

/// Betfair's id for a market: `1.` and nine digits.
#[must_use]
pub fn market_id(id: &str) -> String {
    format!("1.9{:08}", digits(id) % 100_000_000)
}

fn digits(id: &str) -> u64 {
    let at = id.bytes().rposition(|b| !b.is_ascii_digit()).map_or(0, |i| i + 1);
    id[at..].parse().unwrap_or(0)
}

fn apply(market: &mut TruthMarket, delta: &Delta) {
    fn fields<F: Copy + Ord>(into: &mut BTreeMap<F, Value>, changes: &[(F, Option<Value>)]) {
        for (field, value) in changes {
            match value {
                Some(value) => into.insert(*field, value.clone()),
                None => into.remove(field),
            };
        }
    }
    for key in &delta.removed {
        market.selections.remove(key);
    }
    fields(&mut market.fields, &delta.fields);
    for (key, change) in &delta.selections {
        let selection = market.selections.entry(*key).or_default();
        fields(&mut selection.fields, &change.fields);
        for (ladder, change) in selection.ladders.iter_mut().zip(&change.ladders) {
            if change.replace {
                ladder.clear();
            }
            for (price, size) in &change.levels {
                if *size == 0 {
                    ladder.remove(price)
                } else {
                    ladder.insert(*price, *size)
                };
            }
        }
    }
}

fn image(id: &str, market: &TruthMarket) -> String {
    let mut out = format!("{{\"id\":\"{}\",\"img\":true{}", market_id(id), definition(market));
    runners(&TruthMarket::default(), market, &market.whole(), &mut out);
    out.push('}');
    out
}

/// What changed; a definition only where something of it did.
fn change(id: &str, market: &mut TruthMarket, delta: &Delta) -> Option<String> {
    let before = market.clone();
    apply(market, delta);
    let mut rest = String::new();
    let defines = |f: &MarketField| {
        !matches!(f, MarketField::Matched | MarketField::Score | MarketField::Clock | MarketField::Reason)
    };
    let runner_defines = |f: &SelectionField| {
        matches!(f, SelectionField::Status | SelectionField::Adjustment | SelectionField::Sp)
    };
    if delta.fields.iter().any(|c| defines(&c.0))
        || delta.selections.iter().any(|s| s.1.fields.iter().any(|c| runner_defines(&c.0)))
    {
        rest.push_str(&definition(market));
    }
    runners(&before, market, delta, &mut rest);
    (!rest.is_empty()).then(|| format!("{{\"id\":\"{}\"{rest}}}", market_id(id)))
}

/// `rc` of what a delta changes, and `tv` of the market.
fn runners(before: &TruthMarket, after: &TruthMarket, delta: &Delta, out: &mut String) {
    let empty = TruthSelection::default();
    let mut all = Vec::new();
    for (key, change) in &delta.selections {
        let mut rc = String::new();
        for (field, value) in &change.fields {
            let name = match field {
                SelectionField::Last => "ltp",
                SelectionField::Volume => "tv",
                _ => continue,
            };
            if let Some(value) = value.as_ref().and_then(Value::int) {
                let _ = write!(rc, ",\"{name}\":");
                write_scaled(value, 2, &mut rc);
            }
        }
        for (side, name) in [(Side::Back, "atb"), (Side::Lay, "atl"), (Side::Traded, "trd")] {
            let old = before.selections.get(key).unwrap_or(&empty).ladder(side);
            let change = change.ladder(side);
            let mut levels: BTreeMap<i64, i64> =
                if change.replace { old.keys().map(|p| (*p, 0)).collect() } else { BTreeMap::new() };
            levels.extend(change.levels.iter().copied());
            if !levels.is_empty() {
                let _ = write!(rc, ",\"{name}\":");
                write_levels(levels.iter(), &mut rc);
            }
        }
        if !rc.is_empty() {
            let mut handicap = String::new();
            if key.handicap != 0 {
                handicap.push_str(",\"hc\":");
                write_scaled(key.handicap, 2, &mut handicap);
            }
            all.push(format!("{{\"id\":{}{handicap}{rc}}}", key.id));
        }
    }
    if !all.is_empty() {
        let _ = write!(out, ",\"rc\":[{}]", all.join(","));
    }
    if delta.get(MarketField::Matched).is_some() {
        out.push_str(",\"tv\":");
        write_scaled(after.int(MarketField::Matched).unwrap_or(0), 2, out);
    }
}

fn write_levels<'l>(levels: impl Iterator<Item = (&'l i64, &'l i64)>, out: &mut String) {
    out.push('[');
    for (i, (price, size)) in levels.enumerate() {
        out.push_str(if i == 0 { "[" } else { ",[" });
        write_scaled(*price, 2, out);
        out.push(',');
        write_scaled(*size, 2, out);
        out.push(']');
    }
    out.push(']');
}

/// `,"marketDefinition":{…}`.
fn definition(market: &TruthMarket) -> String {
    let int = |field| market.int(field).unwrap_or(0);
    let quoted = |field| {
        let mut out = String::new();
        text(market.text(field).unwrap_or_default(), &mut out);
        out
    };
    let sport = match market.text(MarketField::Sport) {
        Some("football") => 1,
        Some("tennis") => 2,
        _ => 7,
    };
    let active = market.selections.values().filter(|s| status(s) == SelectionStatus::Active).count();
    let start = iso(int(MarketField::Start));
    let mut out = String::from(",\"marketDefinition\":{\"bspMarket\":false,\"turnInPlayEnabled\":true");
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        ",\"persistenceEnabled\":true,\"marketBaseRate\":5,\"eventId\":\"9{:07}\",\"eventTypeId\":\"{sport}\"\
         ,\"numberOfWinners\":{},\"bettingType\":\"ODDS\",\"marketType\":{},\"marketTime\":\"{start}\"\
         ,\"suspendTime\":\"{start}\",\"bspReconciled\":false,\"complete\":true,\"inPlay\":{},\"crossMatching\":true\
         ,\"runnersVoidable\":false,\"numberOfActiveRunners\":{active},\"betDelay\":{},\"status\":\"{}\"",
        digits(market.text(MarketField::Event).unwrap_or_default()),
        int(MarketField::Winners),
        quoted(MarketField::Type),
        int(MarketField::InPlay) == 1,
        int(MarketField::BetDelay),
        market.status().name().to_uppercase(),
    );
    out.push_str(",\"runners\":[");
    for (i, (key, selection)) in market.selections.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { "," });
        out.push_str(&runner_definition(*key, selection));
    }
    let _ = write!(
        out,
        "],\"regulators\":[\"SIM\"],\"countryCode\":\"GB\",\"discountAllowed\":true,\"timezone\":\"Europe/London\"\
         ,\"openDate\":\"{start}\",\"version\":{},\"priceLadderDefinition\":{{\"type\":\"CLASSIC\"}},\"name\":{}\
         ,\"eventName\":{}}}",
        int(MarketField::Version),
        quoted(MarketField::Name),
        quoted(MarketField::EventName),
    );
    out
}

fn runner_definition(key: SelectionKey, selection: &TruthSelection) -> String {
    let mut out = format!(
        "{{\"status\":\"{}\",\"sortPriority\":{},\"id\":{}",
        status(selection).name().to_uppercase(),
        selection.int(SelectionField::Sort).unwrap_or(0),
        key.id
    );
    for (name, field, exponent) in
        [("adjustmentFactor", SelectionField::Adjustment, 3), ("bsp", SelectionField::Sp, 2)]
    {
        if let Some(value) = selection.int(field) {
            let _ = write!(out, ",\"{name}\":");
            write_scaled(value, exponent, &mut out);
        }
    }
    out.push_str(",\"name\":");
    text(selection.text(SelectionField::Name).unwrap_or_default(), &mut out);
    out.push('}');
    out
}

fn status(selection: &TruthSelection) -> SelectionStatus {
    let code = selection.int(SelectionField::Status);
    code.and_then(SelectionStatus::from_code).unwrap_or(SelectionStatus::Active)
}

/// The books of all ladder markets as a checkpoint's `markets` object.
#[must_use]
pub fn books<'t>(truth: impl Iterator<Item = (&'t MarketId, &'t TruthMarket)>) -> serde_json::Value {
    let number = |value: i64| {
        let mut out = String::new();
        write_scaled(value, 2, &mut out);
        serde_json::from_str::<serde_json::Value>(&out).unwrap_or_default()
    };
    let ladder = |selection: &TruthSelection, side: Side| {
        let levels = selection.ladder(side).iter().map(|(p, s)| serde_json::json!([number(*p), number(*s)]));
        let levels: Vec<_> = if side == Side::Back { levels.rev().collect() } else { levels.collect() };
        serde_json::Value::from(levels)
    };
    let mut markets = serde_json::Map::new();
    for (id, market) in truth.filter(|m| is_ladder(m.1)) {
        let mut runners = serde_json::Map::new();
        for (key, selection) in &market.selections {
            let mut name = format!("{}/", key.id);
            write_scaled(key.handicap, 2, &mut name);
            let book = serde_json::json!({
                "status": status(selection).name().to_uppercase(),
                "ltp": selection.int(SelectionField::Last).map(number),
                "tv": number(selection.int(SelectionField::Volume).unwrap_or(0)),
                "back": ladder(selection, Side::Back),
                "lay": ladder(selection, Side::Lay),
                "traded": ladder(selection, Side::Traded),
            });
            runners.insert(name, book);
        }
        let book = serde_json::json!({
            "status": market.status().name().to_uppercase(),
            "in_play": market.int(MarketField::InPlay) == Some(1),
            "total_matched": number(market.int(MarketField::Matched).unwrap_or(0)),
            "runners": runners,
        });
        markets.insert(market_id(id), book);
    }
    markets.into()
}

/// A Unix time in ms as `2026-05-02T16:00:00.000Z`.
fn iso(ms: i64) -> String {
    let (days, left) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days since 1 March of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second, milli) =
        (left / 3_600_000, left / 60_000 % 60, left / 1_000 % 60, left % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ids_have_their_shape() {
        assert_eq!(iso(1_588_435_200_000), "2020-05-02T16:00:00.000Z");
        assert_eq!(iso(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso(1_709_164_799_999), "2024-02-28T23:59:59.999Z");
        assert_eq!(iso(1_709_208_000_123), "2024-02-29T12:00:00.123Z");
        assert_eq!(market_id("demo-1001"), "1.900001001");
    }
}
