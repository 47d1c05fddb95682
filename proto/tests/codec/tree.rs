//! An independent reader: both encodings through their serde crates into one strict tree. It takes every announced
//! length at its word, so a map that announces more or fewer entries than are written does not come out right.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(Tree, Tree)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without floats and binaries")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
        Ok(Tree::Int(v))
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Tree, E> {
        i64::try_from(v).map(Tree::Int).map_err(E::custom)
    }

    fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
        Ok(Tree::Text(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

/// Reads MessagePack; every byte must be used up.
pub(crate) fn of_msgpack(bytes: &[u8]) -> Tree {
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    let tree = Tree::deserialize(&mut reader).expect("MessagePack that another reader takes");
    drop(reader);
    assert_eq!(rest.len(), 0, "bytes are left over");
    tree
}

/// Reads JSON.
pub(crate) fn of_json(bytes: &[u8]) -> Tree {
    serde_json::from_slice(bytes).expect("JSON that another reader takes")
}

/// Asserts that both trees have the same shape and the same data: the same entries in the same order, with names in
/// JSON where MessagePack has numbers, and booleans where it has 0 and 1.
pub(crate) fn assert_twins(json: &Tree, msgpack: &Tree) {
    match (json, msgpack) {
        (Tree::List(a), Tree::List(b)) => {
            assert_eq!(a.len(), b.len(), "{a:?} {b:?}");
            a.iter().zip(b).for_each(|(a, b)| assert_twins(a, b));
        }
        (Tree::Map(a), Tree::Map(b)) => {
            assert_eq!(a.len(), b.len(), "{a:?} {b:?}");
            for (i, ((ka, va), (kb, vb))) in a.iter().zip(b).enumerate() {
                assert!(!a[..i].iter().any(|e| e.0 == *ka), "{ka:?} is there twice");
                assert!(!b[..i].iter().any(|e| e.0 == *kb), "{kb:?} is there twice");
                let named = matches!((ka, kb), (Tree::Text(_), Tree::Int(0..=40)));
                assert!(named || ka == kb, "{ka:?} against {kb:?}");
                assert_twins(va, vb);
            }
        }
        (Tree::Bool(a), Tree::Int(b)) => assert_eq!(i64::from(*a), *b),
        (Tree::Text(name), Tree::Int(code)) => {
            assert!((0..64).contains(code) && !name.is_empty(), "{name:?} against {code}");
        }
        (a, b) => assert_eq!(a, b),
    }
}
