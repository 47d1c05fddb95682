//! The reader tells what the library tells, of any stream.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{self, Message};

use super::*;

const MAX: u32 = 1024;

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[1, 2, 3, 4]);
    out.extend(payload.iter().enumerate().map(|(i, b)| b ^ [1, 2, 3, 4][i % 4]));
    out
}

/// What came of some bytes: messages, a close, or the code of what is wrong; and the replies.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    messages: Vec<(bool, Vec<u8>)>,
    closed: bool,
    broken: Option<CloseCode>,
    replies: Vec<u8>,
}

fn ours(parts: &[&[u8]]) -> Told {
    let (mut reader, mut told) = (Reader::new(MAX), Told::default());
    for part in parts {
        reader.feed(part);
        loop {
            match reader.next() {
                Ok(Some(Incoming::Text(text))) => told.messages.push((true, text.to_vec())),
                Ok(Some(Incoming::Binary(bytes))) => told.messages.push((false, bytes.to_vec())),
                Ok(Some(Incoming::Close)) => told.closed = true,
                Ok(None) => break,
                Err(broken) => told.broken = Some(broken.code),
            }
        }
        told.replies.extend(reader.take_output().unwrap_or_default());
    }
    told
}

/// The library's reader, which others use.
fn theirs(bytes: &[u8]) -> Told {
    struct Pipe<'a>(Cursor<&'a [u8]>, Vec<u8>);
    impl Read for Pipe<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                n => Ok(n),
            }
        }
    }
    impl Write for Pipe<'_> {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.1.write(buf)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let max = Some(MAX as usize);
    let config = WebSocketConfig::default().max_message_size(max).max_frame_size(max).write_buffer_size(0);
    let mut context = WebSocketContext::new(Role::Server, Some(config));
    let (mut pipe, mut told) = (Pipe(Cursor::new(bytes), Vec::new()), Told::default());
    loop {
        match context.read(&mut pipe) {
            Ok(Message::Text(text)) => told.messages.push((true, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => told.messages.push((false, bytes.to_vec())),
            Ok(Message::Close(_)) => told.closed = true,
            Ok(_) => {}
            Err(tungstenite::Error::Io(_) | tungstenite::Error::ConnectionClosed) => break,
            Err(error) => {
                told.broken = Some(match error {
                    tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::TooBig,
                    tungstenite::Error::Utf8(_) => CloseCode::InvalidText,
                    _ => CloseCode::Protocol,
                });
                break;
            }
        }
        let before = pipe.1.len();
        let _ = context.flush(&mut pipe);
        if told.closed {
            // It answers a code that nobody may send with one of its own, and repeats the reason of others.
            let answer = pipe.1.split_off(before);
            if answer.ends_with(b"Protocol violation") {
                (told.closed, told.broken) = (false, Some(CloseCode::Protocol));
            } else {
                let code = &answer[2..answer.len().min(4)];
                pipe.1.extend([&[0x88, code.len() as u8], code].concat());
            }
            break;
        }
    }
    told.replies = pipe.1;
    told
}

#[test]
fn messages_come_whole_from_any_cut() {
    let mut bytes = masked(0x81, b"{\"t\":\"ping\"}");
    bytes.extend(masked(0x89, b"hi"));
    bytes.extend(masked(0x82, b"\x80"));
    bytes.extend(masked(0x01, "gr\u{fc}".as_bytes().split_at(3).0));
    bytes.extend(masked(0x89, b""));
    bytes.extend(masked(0x80, "gr\u{fc}\u{df}e".as_bytes().split_at(3).1));
    for cut in 0..bytes.len() {
        let told = ours(&[&bytes[..cut], &bytes[cut..]]);
        let wanted: [(bool, &[u8]); 3] =
            [(true, b"{\"t\":\"ping\"}"), (false, b"\x80"), (true, "gr\u{fc}\u{df}e".as_bytes())];
        assert_eq!(told.messages, wanted.map(|(is_text, bytes)| (is_text, bytes.to_vec())), "cut at {cut}");
        assert_eq!(told.replies, b"\x8a\x02hi\x8a\x00", "pings are answered");
    }
}

#[test]
fn what_breaks_the_protocol_or_a_limit_is_named() {
    for (bytes, code) in [
        (vec![0x81, 0x02, b'h', b'i'], CloseCode::Protocol),
        (masked(0x81, &[0xFF, 0xFE]), CloseCode::InvalidText),
        (masked(0x81, &[b'x'; 2000]), CloseCode::TooBig),
        (masked(0xF1, b"x"), CloseCode::Protocol),
        (masked(0x83, b"x"), CloseCode::Protocol),
        (masked(0x80, b"x"), CloseCode::Protocol),
        ([masked(0x01, b"x"), masked(0x81, b"x")].concat(), CloseCode::Protocol),
        (masked(0x09, b"x"), CloseCode::Protocol),
        (masked(0x89, &[b'x'; 126]), CloseCode::Protocol),
        (masked(0x88, &[3]), CloseCode::Protocol),
        (masked(0x88, &1005u16.to_be_bytes()), CloseCode::Protocol),
        (masked(0x88, &[0x03, 0xE8, 0xFF]), CloseCode::InvalidText),
        ([masked(0x01, &[0xC3]), masked(0x00, b"x")].concat(), CloseCode::InvalidText),
        ([masked(0x02, &[0; 1000]), masked(0x00, &[0; 25])].concat(), CloseCode::TooBig),
        (vec![0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], CloseCode::TooBig),
    ] {
        let told = ours(&[&bytes, &masked(0x81, b"not read any more")]);
        assert_eq!((told.broken, told.messages.len()), (Some(code), 0), "{bytes:?}");
    }
}

#[test]
fn a_close_is_answered() {
    let mut reader = Reader::new(MAX);
    reader.feed(&masked(0x88, &1000u16.to_be_bytes()));
    reader.feed(&masked(0x81, b"after the close"));
    assert_eq!(reader.next(), Ok(Some(Incoming::Close)));
    assert_eq!(reader.next(), Ok(None));
    assert_eq!(&reader.take_output().unwrap()[..], [0x88, 2, 0x03, 0xE8]);
}

#[test]
fn who_pings_without_end_makes_no_more_answers_than_fit() {
    let mut reader = Reader::new(MAX);
    for n in 0..10_000u32 {
        reader.feed(&masked(0x89, &n.to_be_bytes()));
        assert_eq!(reader.next(), Ok(None));
    }
    let answers = reader.take_output().unwrap();
    assert!(answers.len() <= MAX_OUTPUT + 2 + MAX_CONTROL, "{} bytes", answers.len());
    assert!(answers.ends_with(&9_999u32.to_be_bytes()), "the newest is answered");
}

#[test]
fn a_silent_client_costs_no_buffer() {
    let mut reader = Reader::new(MAX);
    for frames in [masked(0x81, &[b'x'; 900]), [masked(0x01, b"ab"), masked(0x80, b"c")].concat()] {
        reader.feed(&frames);
        while reader.next().unwrap().is_some() {}
        assert_eq!((reader.input.capacity(), reader.output.capacity()), (0, 0));
        assert!(reader.message.is_none());
    }
    assert!(size_of::<Reader>() <= 80);
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let usual = prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88]);
    let first = prop_oneof![12 => usual, 1 => any::<u8>()];
    let text = prop_oneof![
        "[a-z\u{e4}\u{20ac}]{0,12}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..8),
        (0usize..1200).prop_map(|n| vec![b'x'; n]),
        (900u16..5100, "[a-z]{0,4}").prop_map(|(code, why)| [&code.to_be_bytes(), why.as_bytes()].concat()),
    ];
    (first, text, prop::bool::weighted(0.02)).prop_map(|(first, mut payload, bare)| {
        // Where two things are wrong, one of them its size, the library names that one.
        payload.truncate(if first & 0x7F < 3 { 1_200 } else { 200 });
        let mut frame = masked(first, &payload);
        if bare && payload.len() < 126 {
            frame[1] &= 0x7F;
        }
        frame
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// It tells what the library tells, however the bytes are cut; the first thing that is wrong ends both.
    #[test]
    fn it_reads_what_the_library_reads(
        frames in prop::collection::vec(frame(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = frames.concat();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        let (ours, theirs) = (ours(&parts), theirs(&bytes));
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn nothing_that_comes_makes_it_panic_or_keep_more_than_a_message(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20)
    ) {
        let mut reader = Reader::new(MAX);
        for part in parts {
            reader.feed(&part);
            while let Ok(Some(_)) = reader.next() {}
            let kept = reader.input.len() + reader.message.as_ref().map_or(0, |m| m.bytes.len());
            prop_assert!(kept <= 2 * (MAX as usize + 14), "{} bytes are kept", kept);
        }
    }
}
