//! tictac-ingest: sources (Redis, a recording, the simulator) → sequencer → log (Redis or in this process).

pub mod problem;
pub mod update;
