//! What a codec must be able to write.

use super::keys::Key;

/// Writes one value after the other; a codec decides how they look. Lengths are given up front because MessagePack
/// needs them.
pub trait Writer {
    /// Starts a map of `len` entries.
    fn map(&mut self, len: usize);
    /// Ends it.
    fn end_map(&mut self);
    /// Writes a key of a message.
    fn key(&mut self, key: Key) {
        self.field(key.code(), key.name());
    }
    /// Writes a key by its number and name.
    fn field(&mut self, code: u8, name: &'static str);
    /// Writes a key that is data, such as a market id.
    fn text_key(&mut self, key: &str);
    /// Starts an array of `len` items.
    fn array(&mut self, len: usize);
    /// Ends it.
    fn end_array(&mut self);
    /// Writes an integer.
    fn int(&mut self, value: i64);
    /// Writes a text.
    fn text(&mut self, value: &str);
    /// Writes a boolean field, or 0 and 1.
    fn flag(&mut self, value: bool);
    /// Writes an enumeration by its code, or its name.
    fn code(&mut self, code: i64, names: &'static [&'static str]);
    /// Writes null.
    fn null(&mut self);

    /// Writes an unsigned integer that is below 2^53.
    fn uint(&mut self, value: u64) {
        self.int(value as i64);
    }
}
