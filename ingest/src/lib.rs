//! tictac-ingest: sources (Redis, a recording, the simulator) → sequencer → log (Redis or in this process).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod engine;
pub mod envelope;
pub mod log;
pub mod mcm;
pub mod native;
pub mod node;
pub mod problem;
pub mod recording;
pub mod simulator;
#[cfg(feature = "testing")]
pub mod testing;
pub mod update;
