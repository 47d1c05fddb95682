//! Writing JSON. `<`, U+2028 and U+2029 are escaped, so that one encoding serves scripts too.

use super::writer::Writer;

/// Writes JSON into a buffer.
#[derive(Debug, Default)]
pub struct JsonWriter {
    out: Vec<u8>,
    comma: bool,
}

impl JsonWriter {
    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Starts over with a buffer, keeping its capacity.
    #[must_use]
    pub fn with_buffer(mut out: Vec<u8>) -> Self {
        out.clear();
        Self { out, comma: false }
    }

    /// Appends to a buffer that already holds something, such as a frame's header.
    #[must_use]
    pub fn appending(out: Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        let bytes = text.as_bytes();
        let mut plain = 0;
        for (i, b) in bytes.iter().enumerate() {
            let escape: Option<&[u8]> = match b {
                b'"' => Some(b"\\\""),
                b'\\' => Some(b"\\\\"),
                b'<' => Some(b"\\u003c"),
                b'\n' => Some(b"\\n"),
                b'\r' => Some(b"\\r"),
                b'\t' => Some(b"\\t"),
                0x00..=0x1F => None,
                // U+2028 and U+2029 are E2 80 A8 and E2 80 A9.
                0xE2 if bytes[i..].starts_with(&[0xE2, 0x80, 0xA8]) => Some(b"\\u2028"),
                0xE2 if bytes[i..].starts_with(&[0xE2, 0x80, 0xA9]) => Some(b"\\u2029"),
                _ => continue,
            };
            if i < plain {
                continue;
            }
            self.out.extend_from_slice(&bytes[plain..i]);
            match escape {
                Some(escape) => self.out.extend_from_slice(escape),
                None => self.out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
            }
            plain = if *b == 0xE2 { i + 3 } else { i + 1 };
        }
        self.out.extend_from_slice(&bytes[plain..]);
        self.out.push(b'"');
    }
}

impl Writer for JsonWriter {
    fn map(&mut self, _len: usize) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
    }

    fn end_map(&mut self) {
        self.out.push(b'}');
        self.comma = true;
    }

    fn field(&mut self, _code: u8, name: &'static str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.comma = false;
    }

    fn text_key(&mut self, key: &str) {
        self.separate();
        self.quoted(key);
        self.out.push(b':');
        self.comma = false;
    }

    fn array(&mut self, _len: usize) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
    }

    fn end_array(&mut self) {
        self.out.push(b']');
        self.comma = true;
    }

    fn int(&mut self, value: i64) {
        self.separate();
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn text(&mut self, value: &str) {
        self.separate();
        self.quoted(value);
    }

    fn flag(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn code(&mut self, code: i64, names: &'static [&'static str]) {
        match usize::try_from(code).ok().and_then(|c| names.get(c)) {
            Some(name) => self.text(name),
            None => self.int(code),
        }
    }

    fn null(&mut self) {
        self.separate();
        self.out.extend_from_slice(b"null");
    }
}
