//! The part that `snap`, `delta`, the log and stored snapshots share: fields and selections.

use super::keys::Key;
use super::node::{DecodeError, Node, NodeKey};
use super::writer::Writer;
use crate::model::fields::{Field, FieldType};
use crate::model::{
    Book, Cells, Delta, FieldChanges, Ladder, MarketField, SelectionDelta, SelectionField, SelectionKey,
    Side, Value, View,
};

const LEVELS: [(u8, &str); 3] = [(16, "b"), (17, "l"), (18, "v")];
const WHOLE: [(u8, &str); 3] = [(20, "B"), (21, "L"), (22, "V")];

fn write_value<W: Writer, F: Field>(w: &mut W, field: F, value: Option<&Value>) {
    w.field(field.index() as u8, field.name());
    match (value, field.kind()) {
        (None, _) => w.null(),
        (Some(Value::Text(v)), _) => w.text(v),
        (Some(Value::Int(v)), FieldType::Bool) => w.flag(*v != 0),
        (Some(Value::Int(v)), FieldType::Enum(names)) => w.code(*v, names),
        (Some(Value::Int(v)), _) => w.int(*v),
    }
}

/// Writes changed fields as a map.
pub fn write_fields<W: Writer, F: Field>(w: &mut W, fields: &[(F, Option<Value>)]) {
    w.map(fields.len());
    for (field, value) in fields {
        write_value(w, *field, value.as_ref());
    }
    w.end_map();
}

fn write_levels<W: Writer>(
    w: &mut W,
    key: (u8, &'static str),
    levels: impl ExactSizeIterator<Item = (i64, i64)>,
) {
    w.field(key.0, key.1);
    w.array(levels.len());
    for (price, size) in levels {
        w.array(2);
        w.int(price);
        w.int(size);
        w.end_array();
    }
    w.end_array();
}

fn write_selection_key<W: Writer>(w: &mut W, key: SelectionKey, more: usize) {
    w.array(2 + more);
    w.int(key.id);
    w.int(key.handicap);
}

/// How many keys [`write_delta`] writes.
pub(crate) fn delta_keys(delta: &Delta) -> usize {
    usize::from(!delta.fields.is_empty())
        + usize::from(!delta.removed.is_empty())
        + usize::from(!delta.selections.is_empty())
}

/// Writes the keys `d`, `x` and `r` of a delta, those that say something.
pub fn write_delta<W: Writer>(w: &mut W, delta: &Delta) {
    if !delta.fields.is_empty() {
        w.key(Key::Fields);
        write_fields(w, &delta.fields);
    }
    if !delta.removed.is_empty() {
        w.key(Key::Removed);
        w.array(delta.removed.len());
        for key in &delta.removed {
            write_selection_key(w, *key, 0);
            w.end_array();
        }
        w.end_array();
    }
    if !delta.selections.is_empty() {
        w.key(Key::Selections);
        w.array(delta.selections.len());
        for (key, change) in &delta.selections {
            write_selection_key(w, *key, 1);
            let ladders = change.ladders.iter().filter(|l| !l.is_empty()).count();
            w.map(change.fields.len() + ladders);
            for (field, value) in &change.fields {
                write_value(w, *field, value.as_ref());
            }
            for side in Side::ALL {
                let ladder = change.ladder(side);
                if !ladder.is_empty() {
                    let key = if ladder.replace { WHOLE } else { LEVELS }[side as usize];
                    write_levels(w, key, ladder.levels.iter().copied());
                }
            }
            w.end_map();
            w.end_array();
        }
        w.end_array();
    }
}

fn count_set<F: Field, const N: usize>(cells: &Cells<F, N>) -> usize {
    cells.iter().count()
}

fn shown(view: View, ladder: &Ladder, best_is_high: bool, out: &mut Vec<(i64, i64)>) {
    out.clear();
    out.extend(view.levels(ladder, best_is_high));
    if best_is_high {
        out.reverse();
    }
}

/// Writes the keys `d` and `r` of a whole book as a view shows it.
pub fn write_book<W: Writer>(w: &mut W, book: &Book, view: View) {
    w.key(Key::Fields);
    w.map(count_set(&book.fields));
    for (field, value) in book.fields.iter() {
        write_value(w, field, Some(value));
    }
    w.end_map();
    w.key(Key::Selections);
    w.array(book.selections.len());
    let mut levels = Vec::new();
    for (key, selection) in &book.selections {
        write_selection_key(w, *key, 1);
        let sides = || Side::ALL.into_iter().filter(|s| view.shows(*s) && !selection.ladder(*s).is_empty());
        w.map(count_set(&selection.fields) + sides().count());
        for (field, value) in selection.fields.iter() {
            write_value(w, field, Some(value));
        }
        for side in sides() {
            shown(view, selection.ladder(side), book.best_is_high(side), &mut levels);
            write_levels(w, LEVELS[side as usize], levels.iter().copied());
        }
        w.end_map();
        w.end_array();
    }
    w.end_array();
}

fn read_value<F: Field>(field: F, node: &Node<'_>) -> Result<Option<Value>, DecodeError> {
    Ok(match (node, field.kind()) {
        (Node::Null, _) => None,
        (node, FieldType::Text) => Some(Value::Text(node.text(field.name())?.into())),
        (node, FieldType::Enum(names)) => Some(Value::Int(node.code(field.name(), names)?)),
        (node, FieldType::Bool) => Some(Value::Int(i64::from(node.flag(field.name())?))),
        (node, FieldType::Int) => Some(Value::Int(node.int(field.name())?)),
    })
}

fn field_of<F: Field>(key: &NodeKey<'_>) -> Option<F> {
    match key {
        NodeKey::Code(code) => usize::try_from(*code).ok().and_then(F::from_index),
        NodeKey::Name(name) => F::from_name(name),
    }
}

/// Refuses what is named twice: which of the two is meant can't be known, and deltas hold each key once.
fn once<T, K: PartialEq + std::fmt::Debug>(
    sorted: &[T],
    key: impl Fn(&T) -> K,
    at: &str,
) -> Result<(), DecodeError> {
    match sorted.windows(2).find(|pair| key(&pair[0]) == key(&pair[1])) {
        Some(pair) => Err(DecodeError::new(at, format!("{:?} is named twice", key(&pair[0])))),
        None => Ok(()),
    }
}

/// Reads changed fields from a map; unknown keys are passed over.
///
/// # Errors
/// If a value has the wrong type, or a field is named twice.
pub fn read_fields<F: Field + Ord>(node: &Node<'_>) -> Result<FieldChanges<F>, DecodeError> {
    let mut changes = FieldChanges::new();
    for (key, value) in node.entries("fields")? {
        if let Some(field) = field_of::<F>(key) {
            changes.push((field, read_value(field, value)?));
        }
    }
    changes.sort_by_key(|c| c.0);
    once(&changes, |c| c.0.name(), "fields")?;
    Ok(changes)
}

fn read_selection_key(items: &[Node<'_>]) -> Result<SelectionKey, DecodeError> {
    match items {
        [id, handicap, ..] => Ok(SelectionKey { id: id.int("r")?, handicap: handicap.int("r")? }),
        _ => Err(DecodeError::new("r", "a selection needs its id and handicap")),
    }
}

fn read_selection(node: &Node<'_>) -> Result<SelectionDelta, DecodeError> {
    let mut change = SelectionDelta::default();
    for (key, value) in node.entries("r")? {
        if let Some(field) = field_of::<SelectionField>(key) {
            change.fields.push((field, read_value(field, value)?));
            continue;
        }
        for side in Side::ALL {
            let replace = key.is(WHOLE[side as usize].0, WHOLE[side as usize].1);
            if !replace && !key.is(LEVELS[side as usize].0, LEVELS[side as usize].1) {
                continue;
            }
            let ladder = change.ladder_mut(side);
            if !ladder.is_empty() {
                return Err(DecodeError::new("r", format!("a selection gives its {side:?} levels twice")));
            }
            ladder.replace = replace;
            for level in value.items("level")? {
                match level.items("level")? {
                    [price, size] => ladder.levels.push((price.int("price")?, size.int("size")?)),
                    _ => return Err(DecodeError::new("level", "expected [price, size]")),
                }
            }
            ladder.levels.sort_unstable_by_key(|l| l.0);
            once(&ladder.levels, |l| l.0, "level")?;
        }
    }
    change.fields.sort_by_key(|c| c.0);
    once(&change.fields, |c| c.0.name(), "r")?;
    Ok(change)
}

/// Reads the keys `d`, `x` and `r`. Of a snapshot this is the delta from an empty book.
///
/// # Errors
/// If a value has the wrong type, or a field, a level or a selection is named twice.
pub fn read_delta(node: &Node<'_>) -> Result<Delta, DecodeError> {
    let mut delta = Delta::default();
    if let Some(fields) = node.get(Key::Fields) {
        delta.fields = read_fields::<MarketField>(fields)?;
    }
    if let Some(removed) = node.get(Key::Removed) {
        for key in removed.items("x")? {
            delta.removed.push(read_selection_key(key.items("x")?)?);
        }
        delta.removed.sort_unstable();
        once(&delta.removed, |k| *k, "x")?;
    }
    if let Some(selections) = node.get(Key::Selections) {
        for selection in selections.items("r")? {
            let items = selection.items("r")?;
            let key = read_selection_key(items)?;
            let body = items.get(2).ok_or_else(|| DecodeError::new("r", "a selection needs a third item"))?;
            delta.selections.push((key, read_selection(body)?));
        }
        delta.selections.sort_by_key(|s| s.0);
        once(&delta.selections, |s| s.0, "r")?;
    }
    Ok(delta)
}
