//! Input that was damaged, cut or made to do harm: an error, never a panic, and one that says where.

use proptest::collection::vec;
use proptest::prelude::*;
use tictac_proto::limits::{MAX_DEPTH, MAX_INT};
use tictac_proto::log::{Live, Stored};
use tictac_proto::wire::{Codec, Down, Up};

use crate::arbitrary;

/// Reads bytes as everything they could be.
fn read_as_anything(bytes: &[u8]) {
    for codec in Codec::ALL {
        if let Ok(node) = codec.decode(bytes) {
            let _ = (Up::read(&node), Down::read(&node));
        }
    }
    let _ = (Live::decode(bytes), Stored::decode(bytes));
}

/// Whatever is read of damaged bytes is a message like any other: it can be written and read again.
fn read_again(codec: Codec, bytes: &[u8]) {
    let Ok(node) = codec.decode(bytes) else { return };
    if let Ok(message) = Down::read(&node) {
        let again = codec.encode(&message);
        assert_eq!(Down::read(&codec.decode(&again).expect("decodes")).as_ref(), Ok(&message));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200)) {
        read_as_anything(&bytes);
    }

    #[test]
    fn damaged_messages_do_no_harm(
        message in arbitrary::down(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for codec in Codec::ALL {
            let mut bytes = codec.encode(&message);
            for (at, byte) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            read_as_anything(&bytes);
            read_again(codec, &bytes);
        }
    }

    #[test]
    fn damaged_log_entries_do_no_harm(
        entry in arbitrary::entry(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = entry.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        read_as_anything(&bytes);
    }

    #[test]
    fn a_message_that_is_cut_short_is_refused(message in arbitrary::down(), cut in any::<prop::sample::Index>()) {
        for codec in Codec::ALL {
            let bytes = codec.encode(&message);
            prop_assert!(codec.decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused(message in arbitrary::up(), more in 0x21u8..) {
        for codec in Codec::ALL {
            let mut bytes = codec.encode(&message);
            bytes.push(more);
            prop_assert!(codec.decode(&bytes).is_err());
        }
    }
}

fn refusal(codec: Codec, bytes: &[u8]) -> String {
    codec.decode(bytes).expect_err("must be refused").to_string()
}

fn ping(tail: &[u8]) -> Vec<u8> {
    // {t: ping, time: …}: the value starts at byte 5.
    let mut bytes = vec![0x82, 0x00, 0x04, 0xCC, 39];
    bytes.extend_from_slice(tail);
    bytes
}

#[test]
fn floats_and_large_integers_are_refused_with_their_place() {
    for (number, says) in [
        ("1.5", "1.5"),
        ("1e3", "1000"),
        ("9007199254740992", "9007199254740992"),
        ("-9007199254740992", "-9007199254740992"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "floating point"),
    ] {
        let error = refusal(Codec::Json, format!("{{\"t\":\"ping\",\"time\":{number}}}").as_bytes());
        assert!(error.contains(says) && error.contains("line 1 column"), "{error}");
    }
    let beyond = MAX_INT + 1;
    for tail in [
        [&[0xCB][..], &1.5f64.to_be_bytes()].concat(),
        [&[0xCA][..], &1.5f32.to_be_bytes()].concat(),
        [&[0xCF][..], &(beyond as u64).to_be_bytes()].concat(),
        [&[0xCF][..], &u64::MAX.to_be_bytes()].concat(),
        [&[0xD3][..], &(-beyond).to_be_bytes()].concat(),
        [&[0xD3][..], &i64::MIN.to_be_bytes()].concat(),
        vec![0xC1],
        vec![0xC4, 1, 0],
        vec![0xD4, 0, 0],
        vec![0xA1, 0xFF],
        vec![0xA2, b'a'],
    ] {
        let error = refusal(Codec::Msgpack, &ping(&tail));
        assert!(error.contains("at byte 5"), "{error}");
    }
    assert!(
        refusal(Codec::Msgpack, &ping(&[0xCF, 255, 255, 255, 255, 255, 255, 255, 255]))
            .contains("18446744073709551615")
    );
    for codec in Codec::ALL {
        for time in [MAX_INT, -MAX_INT] {
            let bytes = codec.encode(&Up::Ping { time, read: Some(time) });
            assert_eq!(Up::read(&codec.decode(&bytes).unwrap()), Ok(Up::Ping { time, read: Some(time) }));
        }
    }
}

#[test]
fn wrong_values_are_refused_by_the_name_of_their_key() {
    for (text, at, says) in [
        (r#"{"t":"bye","code":70000,"why":"","retry":0}"#, "code", "70000"),
        (r#"{"t":"stop","m":"1","e":-1,"s":2}"#, "e", "-1"),
        (r#"{"t":"stop","m":"1","e":1}"#, "s", "missing"),
        (r#"{"t":"crc","m":"1","w":2,"e":1,"s":2,"c":3}"#, "w", "2"),
        (r#"{"t":"crc","m":"1","w":3,"e":1,"s":2,"c":4294967296}"#, "c", "4294967296"),
        (r#"{"t":"feed","src":"a","sh":65536,"f":"live","as":1}"#, "sh", "65536"),
        (r#"{"t":"feed","src":"a","sh":1,"f":"tired","as":1}"#, "f", "tired"),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"d":{"status":1.0}}"#, "", "1.0"),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"d":{"start":"x"}}"#, "start", "x"),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"d":{"name":"a","name":"b"}}"#, "fields", "name"),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"x":[[1,0],[1,0]]}"#, "x", "twice"),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"r":[[1,0,{}],[1,0,{}]]}"#, "r", "twice"),
        (
            r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"r":[[1,0,{"b":[[2,1],[2,3]]}]]}"#,
            "level",
            "twice",
        ),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"r":[[1,0,{"b":[[2,1]],"B":[]}]]}"#, "r", "twice"),
        (r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"r":[[1,0]]}"#, "r", "third"),
        (
            r#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"r":[[1,0,{"b":[[2]]}]]}"#,
            "level",
            "[price, size]",
        ),
        (r#"{"t":"ok","id":1,"m":"","w":0}"#, "m", "empty"),
        (r#"{"t":"ok","id":1,"m":"1","w":0,"e":1,"s":1,"sh":1,"src":"a","f":"live"}"#, "how", "missing"),
        (
            r#"{"t":"ok","id":1,"m":"1","w":0,"e":1,"s":1,"sh":1,"src":"a","f":"live","how":"often"}"#,
            "how",
            "often",
        ),
        (r#"{"t":"sub"}"#, "t", "goes up"),
        (r#"{"t":"shout"}"#, "t", "shout"),
        (r#"{}"#, "t", "missing"),
    ] {
        let error = match Codec::Json.decode(text.as_bytes()) {
            Ok(node) => Down::read(&node).expect_err(text),
            Err(error) => error,
        };
        assert!(error.at == at && error.to_string().contains(says), "{text}: {error:?}");
    }
}

#[test]
fn unknown_keys_are_passed_over() {
    let text = br#"{"new":[{"x":null}],"t":"stop","m":"1","e":1,"s":2,"later":true}"#;
    assert!(Down::read(&Codec::Json.decode(text).unwrap()).is_ok());
    // The same with number 99 for the unknown key.
    let bytes = [0x85, 99, 0x91, 0xC0, 0, 21, 1, 0xA1, b'1', 3, 1, 5, 2];
    assert!(Down::read(&Codec::Msgpack.decode(&bytes).unwrap()).is_ok());
    let delta = br#"{"t":"delta","m":"1","w":0,"e":1,"p":1,"s":2,"d":{"new":1},"r":[[1,0,{"new":1},7]]}"#;
    assert!(Down::read(&Codec::Json.decode(delta).unwrap()).is_ok());
}

#[test]
fn depth_is_bounded_the_same_in_both() {
    for (codec, open, close) in [(Codec::Json, b'[', Some(b']')), (Codec::Msgpack, 0x91, None)] {
        let nested = |depth: usize| {
            let mut bytes = vec![open; depth];
            match close {
                Some(close) => bytes.extend(vec![close; depth]),
                None => *bytes.last_mut().expect("deep") = 0x90,
            }
            bytes
        };
        assert!(codec.decode(&nested(MAX_DEPTH)).is_ok(), "{codec:?}");
        for depth in [MAX_DEPTH + 1, 1000, 1_000_000] {
            let error = refusal(codec, &nested(depth));
            assert!(error.contains("nested deeper"), "{error}");
        }
    }
    let maps = [&[0x81, 0x00].repeat(100_000)[..], &[0x00]].concat();
    assert!(refusal(Codec::Msgpack, &maps).contains("nested deeper"));
}

#[test]
fn a_huge_announced_length_is_refused_at_once() {
    for marker in [0xDB, 0xDD, 0xDF] {
        for announced in [u32::MAX, 1 << 31, 1000] {
            let bytes = [&[marker][..], &announced.to_be_bytes(), &[0; 16]].concat();
            let error = refusal(Codec::Msgpack, &bytes);
            assert!(error.contains("at byte 0"), "{error}");
        }
    }
}
