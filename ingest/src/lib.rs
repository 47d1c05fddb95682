//! tictac-ingest: sources (Redis, a recording, the simulator) → sequencer → log (Redis or in this process).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod log;
pub mod problem;
#[cfg(feature = "testing")]
pub mod testing;
pub mod update;
