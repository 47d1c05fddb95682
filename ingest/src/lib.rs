//! tictac-ingest: sources (Redis, a recording, the simulator) → sequencer → log (Redis or in this process).

pub mod log;
pub mod mcm;
pub mod problem;
pub mod recording;
pub mod update;
