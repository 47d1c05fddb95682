//! tictac-ingest: sources (Redis, a recording, the simulator) → sequencer → log (Redis or in this process).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod mcm;
pub mod problem;
pub mod recording;
pub mod update;
