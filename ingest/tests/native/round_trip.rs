//! What is written reads the same, and what was never written is read or refused, whatever it is.

use std::sync::Arc;

use proptest::prelude::*;
use rmp_serde::to_vec_named;
use serde_json::json;
use tictac_ingest::envelope::{Body, Envelope};
use tictac_ingest::native::{NativeReader, NativeWriter};
use tictac_ingest::update::Update;
use tictac_proto::limits::MAX_INT;
use tictac_proto::model::fields::FieldType;
use tictac_proto::model::{Book, Delta, Field, MarketField, SelectionField, SelectionKey, Side, Value};

use super::{read_with, reader};

fn value_of<F: Field>(field: F, n: i64, signed: bool) -> Value {
    match field.kind() {
        FieldType::Bool => Value::Int(n.rem_euclid(2)),
        FieldType::Enum(names) => Value::Int(n.rem_euclid(names.len() as i64)),
        FieldType::Text => Value::Text(format!("t{n} \"\\\u{7}é").into()),
        FieldType::Int if signed => Value::Int(n),
        FieldType::Int => Value::Int(n.abs()),
    }
}

prop_compose! {
    fn market_changes(clears: bool)(
        list in prop::collection::vec((0..MarketField::COUNT, -MAX_INT..=MAX_INT, any::<bool>()), 0..12)
    ) -> Vec<(MarketField, Option<Value>)> {
        list.into_iter()
            .map(|(i, n, clear)| (MarketField::from_index(i).expect("in the table"), n, clear && clears))
            .filter(|(f, ..)| !f.is_scale() && *f != MarketField::Source && *f != MarketField::Event)
            .map(|(f, n, clear)| {
                (f, (!clear).then(|| value_of(f, n, matches!(f, MarketField::Start | MarketField::Version))))
            })
            .collect()
    }
}

prop_compose! {
    fn selection_delta(clears: bool)(
        fields in prop::collection::vec((0..SelectionField::COUNT, -MAX_INT..=MAX_INT, any::<bool>()), 0..6),
        ladders in prop::collection::vec((0..3_usize, any::<bool>(), prop::collection::vec((0..=MAX_INT, 0..=MAX_INT), 0..6)), 0..3),
    ) -> tictac_proto::model::SelectionDelta {
        let mut change = tictac_proto::model::SelectionDelta::default();
        for (i, n, clear) in fields {
            let field = SelectionField::from_index(i).expect("in the table");
            let n = match field {
                SelectionField::Probability => n.rem_euclid(1_000_001),
                SelectionField::Certainty => n.rem_euclid(101),
                _ => n,
            };
            let clear = clear && clears;
            change.set(field, (!clear).then(|| value_of(field, n, field == SelectionField::Sort)));
        }
        for (side, replace, levels) in ladders {
            let ladder = change.ladder_mut(Side::ALL[side]);
            ladder.replace = replace;
            ladder.levels.clear();
            for (price, size) in levels {
                ladder.set(price, if replace { size.max(1) } else { size });
            }
        }
        change
    }
}

prop_compose! {
    fn selections(clears: bool)(
        list in prop::collection::btree_map((-5..5_i64, -3..3_i64), selection_delta(clears), 0..5)
    ) -> Vec<(SelectionKey, tictac_proto::model::SelectionDelta)> {
        list.into_iter().map(|((id, handicap), d)| (SelectionKey { id, handicap: handicap * 25 }, d)).collect()
    }
}

fn reread(reader: &mut NativeReader, writer: &mut NativeWriter, update: &Update) {
    let mut text = String::new();
    writer.write_envelope("demo", 1, 2, std::slice::from_ref(update), &mut text);
    let (updates, problems) = read_with(reader, text.as_bytes());
    assert_eq!(problems, [], "{text}");
    assert_eq!(updates, std::slice::from_ref(update), "{text}");
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(
        price_exponent in 0..=8_i64,
        size_exponent in 0..=8_i64,
        (fields, members) in (market_changes(false), selections(false)),
        changes in prop::collection::vec((market_changes(true), selections(true), any::<bool>(), -5..5_i64), 0..4),
    ) {
        let market: Arc<str> = "m \"1\"".into();
        let mut delta = Delta::default();
        for (field, value) in fields {
            delta.set(field, value);
        }
        for (field, value) in [
            (MarketField::Kind, 1.into()), (MarketField::PriceKind, 1.into()), (MarketField::SizeKind, 2.into()),
            (MarketField::PriceExponent, price_exponent.into()), (MarketField::SizeExponent, size_exponent.into()),
            (MarketField::Currency, "EUR".into()), (MarketField::Event, "e".into()), (MarketField::Source, "demo".into()),
        ] {
            delta.set(field, Some(value));
        }
        if delta.get(MarketField::Status).is_none() {
            delta.set(MarketField::Status, Some(0.into()));
        }
        for (key, mut change) in members {
            if !change.fields.iter().any(|f| f.0 == SelectionField::Status) {
                change.set(SelectionField::Status, Some(3.into()));
            }
            *delta.selection_mut(key) = change;
        }
        let mut book = Book::default();
        book.apply(&delta, 0);
        let (mut reader, mut writer) = (reader(), NativeWriter::default());
        reread(&mut reader, &mut writer, &Update::Image { market: Arc::clone(&market), book: Box::new(book) });
        for (fields, members, rollback, removed) in changes {
            let mut delta = Delta::default();
            for (field, value) in fields {
                delta.set(field, value);
            }
            delta.remove(SelectionKey { id: removed, handicap: 5 });
            for (key, change) in members {
                *delta.selection_mut(key) = change;
            }
            reread(&mut reader, &mut writer, &Update::Change { market: Arc::clone(&market), delta, rollback });
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_with_any(&bytes);
    }

    #[test]
    fn a_cut_or_bent_message_is_read_or_refused(cut in 0..400_usize, at in 0..400_usize, byte in any::<u8>(), packed in any::<bool>()) {
        let whole = json!({"src":"demo","seq":17,"ts":1,"body":[
            {"op":"market","market":"a","event":"e","price_exponent":3,"selections":[{"id":1,"back":[[2.5,1.25],[3,4]],"last":1.5}]},
            {"op":"change","market":"a","status":"suspended","selections":[{"id":1,"back":null,"lay":[["2.5","3"]]}]},
            {"op":"stop","event":"e","types":["x"]}]});
        let mut bytes = if packed { to_vec_named(&whole) .expect("msgpack")} else { serde_json::to_vec(&whole).expect("json") };
        let index = at % bytes.len();
        bytes[index] = byte;
        bytes.truncate(cut.max(1));
        read_with_any(&bytes);
    }
}

fn read_with_any(bytes: &[u8]) {
    let (mut updates, mut problems) = (Vec::new(), Vec::new());
    match Envelope::read(bytes, &mut problems) {
        Ok(Envelope { body: Body::Native(node), .. }) => {
            let mut reader = reader();
            reader.read(&node, &mut updates, &mut problems);
            // What was taken can be written and taken again.
            let mut writer = NativeWriter::default();
            for update in &updates {
                reread(&mut reader, &mut writer, update);
            }
        }
        Ok(_) => {}
        Err(problem) => assert!(!problem.why.is_empty()),
    }
}
