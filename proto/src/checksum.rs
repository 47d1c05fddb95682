//! The canonical form of a view and its CRC-32C, and the digest of a session's positions.
//!
//! Canonical form, ASCII: `<market>|<view>|`, then each field of the market that is set, by number, then each
//! selection by (id, handicap) as `[<id>/<handicap>|` fields, then each side that the view shows as `b:`, `l:`, `v:`
//! with its levels best first (`traded` by ascending price) as `<price>@<size>,`, then `]`. A field is
//! `<number>=<integer>;`, a text field `<number>~<CRC-32C of its UTF-8>;`. Integers are in base 10.

use crate::model::{Book, Cells, Field, MarketId, Side, Value, View};

/// Appends an integer in base 10.
fn int(out: &mut Vec<u8>, v: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes());
}

fn fields<F: Field, const N: usize>(out: &mut Vec<u8>, cells: &Cells<F, N>) {
    for (field, value) in cells.iter() {
        int(out, field.index() as i64);
        match value {
            Value::Int(v) => {
                out.push(b'=');
                int(out, *v);
            }
            Value::Text(v) => {
                out.push(b'~');
                int(out, i64::from(crc32c::crc32c(v.as_bytes())));
            }
        }
        out.push(b';');
    }
}

/// Writes the canonical form of a view of a book. A view that was already projected gives the same bytes.
pub fn canonical(out: &mut Vec<u8>, id: &MarketId, book: &Book, view: View) {
    out.extend_from_slice(id.as_bytes());
    out.push(b'|');
    int(out, view.code());
    out.push(b'|');
    fields(out, &book.fields);
    for (key, selection) in &book.selections {
        out.push(b'[');
        int(out, key.id);
        out.push(b'/');
        int(out, key.handicap);
        out.push(b'|');
        fields(out, &selection.fields);
        for (side, tag) in Side::ALL.into_iter().zip(*b"blv") {
            if !view.shows(side) {
                continue;
            }
            out.extend_from_slice(&[tag, b':']);
            for (price, size) in view.levels(selection.ladder(side), book.best_is_high(side)) {
                int(out, price);
                out.push(b'@');
                int(out, size);
                out.push(b',');
            }
        }
        out.push(b']');
    }
}

/// CRC-32C of the canonical form.
#[must_use]
pub fn checksum(id: &MarketId, book: &Book, view: View) -> u32 {
    let mut out = Vec::with_capacity(4096);
    canonical(&mut out, id, book, view);
    crc32c::crc32c(&out)
}

/// The part of the digest's mix that stands for the market and the view: CRC-32C of `<market>|<view>`.
#[must_use]
pub fn digest_key(id: &str, view: View) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(id.as_bytes()), format!("|{}", view.code()).as_bytes())
}

/// One cursor's share of a session's digest, which is the sum of all shares modulo 2^32: MurmurHash3's 32-bit
/// finalizer over the key and both halves of `seq`.
#[must_use]
pub fn mix(key: u32, seq: u64) -> u32 {
    let (low, high) = (seq as u32, (seq >> 32) as u32);
    let mut h = key ^ low.wrapping_mul(0x9E37_79B1) ^ high.wrapping_mul(0x85EB_CA77);
    h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
    h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}
