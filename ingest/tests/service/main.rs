//! The service over both logs: what sources say is what gateways have.

mod checkpoint;
mod follow;
mod over_memory;
mod over_redis;
