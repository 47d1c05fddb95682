//! Updates → the native format in JSON: what the simulator publishes, and the other half of the reader's round trip.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::fast::RandomState;
use tictac_proto::model::fields::FieldType;
use tictac_proto::model::{
    Book, Cells, Delta, LadderDelta, MarketField, MarketId, SelectionField, SelectionKey, Side, Value,
};

use super::fields::{Written, side_key};
use super::number::{Scale, write_scaled};
use crate::update::{StopScope, Update};

/// Writes updates of one source; remembers every market's scale from its image.
#[derive(Debug, Default)]
pub struct NativeWriter {
    scales: HashMap<MarketId, Scale, RandomState>,
}

impl NativeWriter {
    /// Appends one update as an operation. The source is not written: the envelope says it. A change of a market that
    /// had no image is written on the default scale.
    pub fn write(&mut self, update: &Update, out: &mut String) {
        match update {
            Update::Image { market, book } => {
                let scale = scale_of(book);
                self.scales.insert(Arc::clone(market), scale);
                write_image(market, book, scale, out);
            }
            Update::Change { market, delta, rollback } => {
                let scale = self.scales.get(market).copied().unwrap_or_default();
                write_change(market, delta, *rollback, scale, out);
            }
            Update::Stop { event, scope, reason } => write_stop(event, scope, reason.as_deref(), out),
            Update::Gone { market } => {
                self.scales.remove(market);
                open("gone", out);
                member("market", out);
                text(market, out);
                out.push('}');
            }
        }
    }

    /// Appends a numbered message with these updates as its body.
    pub fn write_envelope(&mut self, source: &str, seq: u64, ts: i64, updates: &[Update], out: &mut String) {
        out.push_str("{\"src\":");
        text(source, out);
        // Writing to a String cannot fail.
        let _ = write!(out, ",\"seq\":{seq},\"ts\":{ts},\"body\":[");
        for (i, update) in updates.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { "," });
            self.write(update, out);
        }
        out.push_str("]}");
    }
}

/// The scale that a book's fields name.
#[must_use]
pub fn scale_of(book: &Book) -> Scale {
    let exponent =
        |field| book.fields.int(field).and_then(|v| u8::try_from(v).ok()).filter(|v| *v <= 8).unwrap_or(2);
    Scale { price: exponent(MarketField::PriceExponent), size: exponent(MarketField::SizeExponent) }
}

fn write_image(market: &str, book: &Book, scale: Scale, out: &mut String) {
    open("market", out);
    member("market", out);
    text(market, out);
    cells(&book.fields, scale, out);
    out.push_str(",\"selections\":[");
    for (i, (key, selection)) in book.selections.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { "," });
        write_key(*key, out);
        cells(&selection.fields, scale, out);
        for side in Side::ALL {
            let ladder = selection.ladder(side);
            if !ladder.is_empty() {
                member(side_key(side), out);
                levels(ladder.iter(), scale, out);
            }
        }
        out.push('}');
    }
    out.push_str("]}");
}

fn write_change(market: &str, delta: &Delta, rollback: bool, scale: Scale, out: &mut String) {
    open("change", out);
    member("market", out);
    text(market, out);
    if rollback {
        out.push_str(",\"rollback\":true");
    }
    for (field, value) in &delta.fields {
        if *field != MarketField::Source {
            write_field(*field, value.as_ref(), scale, out);
        }
    }
    if !delta.removed.is_empty() || !delta.selections.is_empty() {
        out.push_str(",\"selections\":[");
        let mut separator = "";
        // In the order in which a delta is applied: first those that leave.
        for key in &delta.removed {
            out.push_str(std::mem::replace(&mut separator, ","));
            write_key(*key, out);
            out.push_str(",\"remove\":true}");
        }
        for (key, change) in &delta.selections {
            out.push_str(std::mem::replace(&mut separator, ","));
            write_key(*key, out);
            for (field, value) in &change.fields {
                write_field::<SelectionField>(*field, value.as_ref(), scale, out);
            }
            for side in Side::ALL {
                write_ladder(side, change.ladder(side), scale, out);
            }
            out.push('}');
        }
        out.push(']');
    }
    out.push('}');
}

fn write_ladder(side: Side, change: &LadderDelta, scale: Scale, out: &mut String) {
    if change.is_empty() {
        return;
    }
    member(side_key(side), out);
    match (change.replace, change.levels.is_empty()) {
        (true, true) => out.push_str("null"),
        (true, false) => {
            out.push_str("{\"replace\":");
            levels(change.levels.iter().copied(), scale, out);
            out.push('}');
        }
        (false, _) => levels(change.levels.iter().copied(), scale, out),
    }
}

fn write_stop(event: &str, scope: &StopScope, reason: Option<&str>, out: &mut String) {
    open("stop", out);
    member("event", out);
    text(event, out);
    let (key, names) = match scope {
        StopScope::Event => (None, &[][..]),
        StopScope::Types(types) => (Some("types"), &types[..]),
        StopScope::Markets(markets) => (Some("markets"), &markets[..]),
    };
    if let Some(key) = key {
        member(key, out);
        for (i, name) in names.iter().enumerate() {
            out.push(if i == 0 { '[' } else { ',' });
            text(name, out);
        }
        out.push_str(if names.is_empty() { "[]" } else { "]" });
    }
    if let Some(reason) = reason {
        member("reason", out);
        text(reason, out);
    }
    out.push('}');
}

fn cells<F: Written, const N: usize>(cells: &Cells<F, N>, scale: Scale, out: &mut String) {
    for (field, value) in cells.iter() {
        if !field.is_source() {
            write_field(field, Some(value), scale, out);
        }
    }
}

fn write_field<F: Written>(field: F, value: Option<&Value>, scale: Scale, out: &mut String) {
    member(field.name(), out);
    match (value, field.kind()) {
        (None, _) => out.push_str("null"),
        (Some(Value::Text(value)), _) => text(value, out),
        (Some(Value::Int(value)), FieldType::Bool) => {
            out.push_str(if *value == 0 { "false" } else { "true" })
        }
        (Some(Value::Int(value)), FieldType::Enum(names)) => {
            // A code without a name is written as null: nothing is known that it could say.
            match usize::try_from(*value).ok().and_then(|code| names.get(code)) {
                Some(name) => text(name, out),
                None => out.push_str("null"),
            }
        }
        (Some(Value::Int(value)), _) => write_scaled(*value, field.exponent(scale), out),
    }
}

fn write_key(key: SelectionKey, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{{\"id\":{}", key.id);
    if key.handicap != 0 {
        member("handicap", out);
        write_scaled(key.handicap, 2, out);
    }
}

fn levels(levels: impl Iterator<Item = (i64, i64)>, scale: Scale, out: &mut String) {
    out.push('[');
    for (i, (price, size)) in levels.enumerate() {
        out.push_str(if i == 0 { "[" } else { ",[" });
        write_scaled(price, scale.price, out);
        out.push(',');
        write_scaled(size, scale.size, out);
        out.push(']');
    }
    out.push(']');
}

fn open(op: &str, out: &mut String) {
    out.push_str("{\"op\":\"");
    out.push_str(op);
    out.push('"');
}

fn member(key: &str, out: &mut String) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
}

/// A JSON text.
pub(crate) fn text(value: &str, out: &mut String) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Writing to a String cannot fail. (Control characters are all in the basic plane.)
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
