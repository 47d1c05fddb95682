//! tictac-gateway: follows the log, fans views out to clients over every transport.
//!

pub mod assets;
pub mod core;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod rights;
pub mod settings;
pub mod time;
pub mod transports;
pub mod wires;
