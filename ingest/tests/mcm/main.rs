//! The reader of the Betfair stream on inline lines: what it can say, what it must not say, and garbage.
#![allow(clippy::unwrap_used)]

mod faults;
mod features;
mod feed;
mod hostile;
