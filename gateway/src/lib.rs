//! tictac-gateway: follows the log, fans views out to clients over every transport.

pub mod core;
pub mod hub;
pub mod rights;
pub mod wires;
