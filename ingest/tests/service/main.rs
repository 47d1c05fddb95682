//! The service over both logs: what sources say is what gateways have.

mod follow;
mod over_memory;
