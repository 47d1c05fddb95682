//! The native input format: what a source publishes that has no format of its own.
//!
//! A body is an object with `op`, or an array of such:
//!
//! | op | what it says | becomes |
//! |---|---|---|
//! | `market` | a market's whole truth; what it does not name has its default or is not set | [`Update::Image`] |
//! | `change` | what changed: absent = unchanged, null = cleared, size 0 = level deleted | [`Update::Change`] |
//! | `stop` | markets of an event are suspended at once | [`Update::Stop`] |
//! | `gone` | nothing more will be said of the market | [`Update::Gone`] |
//! | `alive` | a sign of life | nothing |
//!
//! Fields have the names of the tables in [`tictac_proto::model::fields`]; prices and sizes are decimal numbers (or
//! texts that hold one) and become integers on the market's scale, exactly or not at all.
//!
//! | file | what it holds |
//! |---|---|
//! | [`reader`] | operations, and the reader's memory of scales |
//! | [`fields`] | fields and ladders of a market and its selections |
//! | [`number`] | decimals ↔ scaled integers |
//! | [`path`] | where in the input something is |
//! | [`writer`] | updates → the native format |
//!
//! [`Update::Image`]: crate::update::Update::Image
//! [`Update::Change`]: crate::update::Update::Change
//! [`Update::Stop`]: crate::update::Update::Stop
//! [`Update::Gone`]: crate::update::Update::Gone

pub mod fields;
pub mod number;
pub mod path;
pub mod reader;
pub mod writer;

pub use number::Scale;
pub use reader::{MAX_MARKETS, NativeReader};
pub use writer::NativeWriter;
