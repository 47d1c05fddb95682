//! A bounded reader of a client's frames (RFC 6455, without extensions). It keeps what is incomplete and nothing else: a
//! client that is silent costs no buffer.

use bytes::Bytes;
use tictac_proto::wire::CloseCode;

/// What a control frame may carry, bytes.
const MAX_CONTROL: usize = 125;

/// Answers that may wait to be taken, bytes.
const MAX_OUTPUT: usize = 1_024;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
    /// It closes; the reply is in [`Reader::take_output`].
    Close,
}

/// Why the connection can't go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// What to close with.
    pub code: CloseCode,
    /// Why.
    pub why: String,
}

fn protocol(why: impl Into<String>) -> Broken {
    Broken { code: CloseCode::Protocol, why: why.into() }
}

fn too_big(bytes: usize, max: usize) -> Broken {
    let why = format!("a message of {bytes} bytes or more: {max} are allowed, send less at once");
    Broken { code: CloseCode::TooBig, why }
}

/// A message that comes in several frames.
#[derive(Debug)]
struct Message {
    is_text: bool,
    bytes: Vec<u8>,
    /// How much of a text is known to be well-formed.
    checked: usize,
}

impl Message {
    /// A text is looked at as it comes, but for a character that is not whole yet.
    fn check(&mut self, is_last: bool) -> Result<(), Broken> {
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.checked..]) {
            Ok(rest) => self.checked += rest.len(),
            Err(error) if error.error_len().is_none() && !is_last => self.checked += error.valid_up_to(),
            Err(error) => return Err(not_text(self.checked + error.valid_up_to())),
        }
        Ok(())
    }
}

fn not_text(at: usize) -> Broken {
    let why = format!("byte {at} of a text message is not UTF-8: send text, or a binary message");
    Broken { code: CloseCode::InvalidText, why }
}

/// A frame's head.
#[derive(Debug)]
struct Head {
    is_last: bool,
    code: u8,
    mask: [u8; 4],
    /// The head's length.
    len: usize,
    /// The payload's.
    payload: usize,
}

impl Head {
    fn is_control(&self) -> bool {
        self.code >= 8
    }

    /// The head at the beginning of these bytes; `None` where it is not whole.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Broken> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (is_last, code) = (first & 0x80 != 0, first & 0x0F);
        if first & 0x70 != 0 {
            return Err(protocol("a frame has reserved bits set: no extension was agreed"));
        }
        if !matches!(code, 0..=2 | 8..=10) {
            return Err(protocol(format!("a frame has the unknown opcode {code}")));
        }
        if second & 0x80 == 0 {
            return Err(protocol("a frame is not masked: clients must mask theirs"));
        }
        let (payload, wide) = match second & 0x7F {
            126 => match rest {
                [a, b, ..] => (u64::from(u16::from_be_bytes([*a, *b])), 2),
                _ => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(long) => (u64::from_be_bytes(*long), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        if code >= 8 && (payload > MAX_CONTROL as u64 || !is_last) {
            let why = "a control frame is in parts, or longer than 125 bytes";
            return Err(protocol(why));
        }
        let Some(mask) = rest[wide..].first_chunk::<4>() else { return Ok(None) };
        let payload = usize::try_from(payload).unwrap_or(usize::MAX);
        Ok(Some(Self { is_last, code, mask: *mask, len: 6 + wide, payload }))
    }
}

/// Reads frames from bytes, without a socket.
#[derive(Debug)]
pub struct Reader {
    input: Vec<u8>,
    /// How much of it is read.
    read: u32,
    max_message: u32,
    message: Option<Box<Message>>,
    output: Vec<u8>,
    /// Nothing is read after a close, or after something that can't be read.
    is_over: bool,
}

impl Reader {
    /// A reader that refuses messages above `max_message` bytes.
    #[must_use]
    pub fn new(max_message: u32) -> Self {
        Self { input: Vec::new(), read: 0, max_message, message: None, output: Vec::new(), is_over: false }
    }

    /// Takes in what the socket gave.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.is_over {
            self.input.extend_from_slice(bytes);
        }
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// If the bytes break the protocol or a limit.
    #[allow(clippy::should_implement_trait, reason = "it may fail, goes on after None, and lends")]
    pub fn next(&mut self) -> Result<Option<Incoming<'_>>, Broken> {
        match self.step() {
            Ok(Step::Nothing) => Ok(None),
            Ok(Step::Close) => {
                self.end();
                Ok(Some(Incoming::Close))
            }
            Ok(Step::Message { is_text, from, to }) => {
                let bytes = &self.input[from..to];
                Ok(Some(if is_text { Incoming::Text(bytes) } else { Incoming::Binary(bytes) }))
            }
            Err(broken) => {
                self.end();
                Err(broken)
            }
        }
    }

    fn end(&mut self) {
        self.is_over = true;
        (self.input, self.read, self.message) = (Vec::new(), 0, None);
    }

    /// Reads frames until there is something to tell.
    fn step(&mut self) -> Result<Step, Broken> {
        loop {
            let read = self.read as usize;
            if read == self.input.len() {
                (self.input, self.read) = (Vec::new(), 0);
                return Ok(Step::Nothing);
            }
            let Some(head) = Head::read(&self.input[read..])? else { return Ok(self.waits()) };
            self.allow(&head)?;
            let from = read + head.len;
            let Some(payload) = self.input.get_mut(from..from + head.payload) else {
                return Ok(self.waits());
            };
            unmask(payload, head.mask);
            let to = from + head.payload;
            self.read = to as u32;
            match head.code {
                8 => {
                    self.close(from, to)?;
                    return Ok(Step::Close);
                }
                9 => {
                    // Who pings without end is answered its newest only.
                    if self.output.len() > MAX_OUTPUT {
                        self.output.clear();
                    }
                    let ping = self.input[from..to].iter();
                    self.output.extend([0x8A, head.payload as u8].iter().chain(ping));
                }
                10 => {}
                // The usual case: a message in one frame is not copied.
                code if head.is_last && code != 0 => {
                    let is_text = code == 1;
                    if is_text && let Err(error) = std::str::from_utf8(&self.input[from..to]) {
                        return Err(not_text(error.valid_up_to()));
                    }
                    return Ok(Step::Message { is_text, from, to });
                }
                code => {
                    if let Some(step) = self.join(code, head.is_last, from, to)? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    /// A frame that is not whole stays; what is before it does not.
    fn waits(&mut self) -> Step {
        if self.read > 0 {
            self.input = self.input[self.read as usize..].to_vec();
            self.read = 0;
        }
        Step::Nothing
    }

    /// Whether such a frame may come now.
    fn allow(&self, head: &Head) -> Result<(), Broken> {
        if head.is_control() {
            return Ok(());
        }
        let before = self.message.as_ref().map_or(0, |message| message.bytes.len());
        let max = self.max_message as usize;
        match (&self.message, head.code) {
            _ if head.payload > max => Err(too_big(head.payload, max)),
            (None, 0) => Err(protocol("a frame continues a message that was not begun")),
            (Some(_), 1 | 2) => Err(protocol("a message begins before the one before it has ended")),
            _ if before + head.payload > max => Err(too_big(before + head.payload, max)),
            _ => Ok(()),
        }
    }

    /// Adds a part to a message; the message once it is whole, which takes the input's place before what is unread.
    fn join(&mut self, code: u8, is_last: bool, from: usize, to: usize) -> Result<Option<Step>, Broken> {
        let new = || Box::new(Message { is_text: code == 1, bytes: Vec::new(), checked: 0 });
        let message = self.message.get_or_insert_with(new);
        message.bytes.extend_from_slice(&self.input[from..to]);
        message.check(is_last)?;
        if !is_last {
            return Ok(None);
        }
        let Some(message) = self.message.take() else { return Ok(None) };
        let Message { is_text, mut bytes, .. } = *message;
        let whole = bytes.len();
        bytes.extend_from_slice(&self.input[to..]);
        (self.input, self.read) = (bytes, whole as u32);
        Ok(Some(Step::Message { is_text, from: 0, to: whole }))
    }

    /// The answer to a close: the same code.
    fn close(&mut self, from: usize, to: usize) -> Result<(), Broken> {
        match &self.input[from..to] {
            [] => self.output.extend([0x88, 0]),
            [_] => return Err(protocol("a close frame has half a code")),
            [a, b, reason @ ..] => {
                let code = u16::from_be_bytes([*a, *b]);
                if std::str::from_utf8(reason).is_err() {
                    let why = "the reason of a close frame is not UTF-8".into();
                    return Err(Broken { code: CloseCode::InvalidText, why });
                }
                if !matches!(code, 1000..=1003 | 1007..=1013 | 3000..=4999) {
                    return Err(protocol(format!(
                        "a close frame has the code {code}, which nobody may send"
                    )));
                }
                self.output.extend([0x88, 2, *a, *b]);
            }
        }
        Ok(())
    }

    /// Control replies to send.
    pub fn take_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| std::mem::take(&mut self.output).into())
    }
}

enum Step {
    Nothing,
    Close,
    /// A message, where it is in the input.
    Message {
        is_text: bool,
        from: usize,
        to: usize,
    },
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
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
        let config =
            WebSocketConfig::default().max_message_size(max).max_frame_size(max).write_buffer_size(0);
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
                        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                            CloseCode::TooBig
                        }
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
            assert_eq!(
                told.messages,
                wanted.map(|(is_text, bytes)| (is_text, bytes.to_vec())),
                "cut at {cut}"
            );
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
            (900u16..5100, "[a-z]{0,4}")
                .prop_map(|(code, why)| [&code.to_be_bytes(), why.as_bytes()].concat()),
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
}
