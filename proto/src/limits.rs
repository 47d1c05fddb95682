//! Every bound that the protocol sets. What exceeds one is refused with an error that names it.

/// Integers on the wire stay below 2^53, so that a JavaScript number holds them exactly.
pub const MAX_INT: i64 = (1 << 53) - 1;
/// Longest text of a field, in bytes.
pub const MAX_TEXT: usize = 256;
/// Longest id of a market, an event, a sport or a source, in bytes.
pub const MAX_ID: usize = 64;
/// Most selections of one market.
pub const MAX_SELECTIONS: usize = 1024;
/// Most levels of one side of a ladder, deleted ones that are still remembered included.
pub const MAX_LEVELS: usize = 2048;
/// Deleted levels that one side of a ladder remembers, for catch-up deltas.
pub const MAX_TOMBSTONES: usize = 512;
/// Removed selections that a market remembers, for catch-up deltas.
pub const MAX_REMOVED: usize = 64;
/// Most markets of one shard.
pub const MAX_MARKETS_PER_SHARD: usize = 20_000;
/// Largest message from a client, in bytes.
pub const MAX_CLIENT_MESSAGE: usize = 16 * 1024;
/// Deepest nesting of a message.
pub const MAX_DEPTH: usize = 8;
/// Most decimals that a price or a size exponent may have.
pub const MAX_EXPONENT: i64 = 8;
