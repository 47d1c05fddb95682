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
mod tests;
