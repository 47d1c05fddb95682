//! A cursor over one line of JSON. The reader needs what a general deserializer does not give: one wrong value must
//! not cost the rest of the message, numbers become scaled integers without passing through a float, and nothing is
//! allocated. What is not JSON stops the cursor ([`Broken`]); what is JSON of the wrong type is only skipped.

use std::ops::Range;

use super::decimal::{Number, parse};

/// Deepest nesting that is followed; a `mcm` message needs 8.
const MAX_NESTING: usize = 32;

/// Bytes that end a text's plain run: the quote, the backslash and what may not stand in it.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 32 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

/// The bytes are not JSON from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken {
    /// Offset in the line.
    pub(super) at: usize,
    /// What was missing.
    pub(super) why: &'static str,
}

/// A scalar as it stands in the line, or what stands there instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, scaled.
    Number(Number),
    /// A text: where its content lies, and whether it has escapes.
    Text(Range<usize>, bool),
    /// An array or an object, skipped.
    Nested,
}

/// A place in a line.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    /// Up to the end of the part that is read.
    line: &'a [u8],
    at: usize,
    nesting: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor over a part of a line; offsets stay those of the line.
    pub(super) fn new(line: &'a [u8], part: Range<usize>) -> Self {
        Self { line: &line[..part.end.min(line.len())], at: part.start, nesting: 0 }
    }

    /// The offset.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Part of the line.
    pub(super) fn of(&self, part: Range<usize>) -> &'a [u8] {
        &self.line[part]
    }

    /// What the cursor has moved past since an offset, without the white space around it.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.line[start..self.at].trim_ascii()
    }

    /// The next byte that is not white space.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.line.get(self.at) {
            if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn broken(&self, why: &'static str) -> Broken {
        Broken { at: self.at, why }
    }

    #[inline]
    fn take(&mut self, byte: u8, why: &'static str) -> Result<(), Broken> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.broken(why))
    }

    fn enter(&mut self) -> Result<(), Broken> {
        self.at += 1;
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(self.broken("nested too deeply"));
        }
        Ok(())
    }

    /// Walks an object: `member` is called at each value, with its key, and must move past it. `false` where
    /// something else stands here; that is skipped.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &'a [u8]) -> Result<(), Broken>,
    ) -> Result<bool, Broken> {
        if self.peek() != Some(b'{') {
            self.skip()?;
            return Ok(false);
        }
        self.enter()?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.nesting -= 1;
            return Ok(true);
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.broken("a key was expected"));
            }
            let (key, _) = self.text()?;
            self.take(b':', "a colon was expected")?;
            member(self, &self.line[key])?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.broken("a comma or the end of the object was expected")),
            }
        }
        self.at += 1;
        self.nesting -= 1;
        Ok(true)
    }

    /// Walks an array: `element` is called at each, with its index, and must move past it. `false` where something
    /// else stands here; that is skipped.
    #[inline]
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), Broken>,
    ) -> Result<bool, Broken> {
        if self.peek() != Some(b'[') {
            self.skip()?;
            return Ok(false);
        }
        self.enter()?;
        if self.peek() == Some(b']') {
            self.at += 1;
            self.nesting -= 1;
            return Ok(true);
        }
        let mut index = 0;
        loop {
            element(self, index)?;
            index += 1;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.broken("a comma or the end of the array was expected")),
            }
        }
        self.at += 1;
        self.nesting -= 1;
        Ok(true)
    }

    /// A text's content and whether it has escapes. The cursor stands at its quote.
    #[inline]
    fn text(&mut self) -> Result<(Range<usize>, bool), Broken> {
        self.at += 1;
        let start = self.at;
        let mut escapes = false;
        loop {
            let rest = self.line.get(self.at..).unwrap_or_default();
            let Some(plain) = rest.iter().position(|byte| SPECIAL[usize::from(*byte)]) else {
                return Err(self.broken("the text does not end"));
            };
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok((start..self.at - 1, escapes));
                }
                b'\\' => {
                    escapes = true;
                    self.at += 1;
                    self.escape()?;
                }
                _ => return Err(self.broken("a control character stands in a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Broken> {
        match self.line.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') if self.line[self.at + 1..].iter().take(4).all(u8::is_ascii_hexdigit) => {
                self.at = (self.at + 5).min(self.line.len());
            }
            _ => return Err(self.broken("an unknown escape stands in a text")),
        }
        Ok(())
    }

    /// A scalar, its number scaled by 10^`places`; anything nested is skipped.
    pub(super) fn scalar(&mut self, places: u32) -> Result<Scalar, Broken> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => match self.number(places) {
                Some(number) => Ok(Scalar::Number(number)),
                None => Err(self.broken("the number is not one")),
            },
            Some(b'"') => self.text().map(|(range, escapes)| Scalar::Text(range, escapes)),
            Some(b'{') => self.object(|cursor, _| cursor.skip()).map(|_| Scalar::Nested),
            Some(b'[') => self.array(|cursor, _| cursor.skip()).map(|_| Scalar::Nested),
            Some(b'n') => self.word(b"null", Scalar::Null),
            Some(b't') => self.word(b"true", Scalar::Bool(true)),
            Some(b'f') => self.word(b"false", Scalar::Bool(false)),
            Some(_) => Err(self.broken("a value was expected")),
            None => Err(self.broken("the message ends too early")),
        }
    }

    /// A number, scaled by 10^`places`. `None` where none stands here; the cursor has not moved then.
    #[inline]
    pub(super) fn number(&mut self, places: u32) -> Option<Number> {
        self.peek();
        let (number, length) = parse(self.line.get(self.at..)?, places)?;
        self.at += length;
        Some(number)
    }

    fn word(&mut self, word: &'static [u8], scalar: Scalar) -> Result<Scalar, Broken> {
        if self.line[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(scalar);
        }
        Err(self.broken("a value was expected"))
    }

    /// Moves past a value of any type.
    pub(super) fn skip(&mut self) -> Result<(), Broken> {
        self.scalar(0).map(drop)
    }

    /// Moves past a value and says where it lies.
    pub(super) fn range(&mut self) -> Result<Range<usize>, Broken> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(start..self.at)
    }
}

/// The content of a text, its escapes resolved; `None` where it is not Unicode.
pub(super) fn unescape(content: &[u8], escapes: bool) -> Option<std::borrow::Cow<'_, str>> {
    let text = std::str::from_utf8(content).ok()?;
    if !escapes {
        return Some(text.into());
    }
    serde_json::from_str::<String>(&format!("\"{text}\"")).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(line: &[u8]) -> bool {
        let mut cursor = Cursor::new(line, 0..line.len());
        cursor.skip().is_ok() && cursor.peek().is_none()
    }

    #[test]
    fn takes_json_and_only_json() {
        let good = [
            "{}",
            "[]",
            "[1,2]",
            r#"{"a":[{"b":null}],"c":-1.5e3}"#,
            r#""x\u00e9\n""#,
            "true",
            " [ 1 , 0.5 ] ",
        ];
        for text in good {
            assert!(whole(text.as_bytes()), "{text}");
        }
        let bad = [
            "",
            "{",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "+1",
            "1e",
            "nul",
            "\"x",
            "\"\\q\"",
            "\"\\u12\"",
            "{}}",
            "\"a\u{1}\"",
        ];
        for text in bad {
            assert!(!whole(text.as_bytes()), "{text}");
        }
        assert!(!whole("[".repeat(10_000).as_bytes()), "deep nesting is refused, not followed");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_serde_json(text in r#"([\[\]{},:" ]|-?[0-9]{1,2}|\.5|e1|null|true|"a"|\\n|"a":){0,14}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // A number that overflows a float is an error there and a value here.
            if !theirs.as_ref().is_err_and(|e| e.to_string().starts_with("number out of range")) {
                prop_assert_eq!(whole(text.as_bytes()), theirs.is_ok(), "{}", text);
            }
        }
    }
}
