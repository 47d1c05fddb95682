//! tictac-ingest: sources (Redis, a recording, the simulator) → sequencer → log (Redis or in this process).
//!
//! | module | what it holds |
//! |---|---|
//! | [`engine`] | all that decides, pure: routing, catalogue, snapshots, feed states |
//! | [`service`] | the engine's async shell: input in, batches out, shards taken over |
//! | [`log`] | where ingest writes and gateways follow, in Redis or in this process |
//! | [`envelope`], [`native`], [`mcm`] | what sources send → [`update`]s or [`problem`]s |
//! | [`operator`] | what is suspended by hand, and what is to be imaged |
//! | [`recording`], [`simulator`] | input without a source |
//! | [`redis_input`], [`stream_input`] | sources over Redis, lossy and lossless, and what is said to them |
//! | [`stream_id`] | positions in a Redis Stream |
//! | [`embedded`] | all of it in one process, for the gateway alone |
//! | [`replay`], [`simulate`], [`pacing`] | a recording, or the simulator, as a source over Redis |
//! | [`config`], [`admin`] | of the program: its settings, its port for operators |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
mod chance;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod engine;
pub mod envelope;
pub(crate) mod link;
pub mod log;
pub mod mcm;
pub mod metrics;
pub mod native;
pub mod node;
pub mod operator;
pub mod pacing;
pub mod problem;
pub mod recording;
pub mod redis_input;
pub mod replay;
pub mod service;
pub mod settings_file;
pub mod simulate;
pub mod simulator;
pub mod stream_id;
pub mod stream_input;
#[cfg(feature = "testing")]
pub mod testing;
pub mod update;
