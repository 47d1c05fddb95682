//! The service over both logs: what sources say is what gateways have.
#![allow(clippy::unwrap_used, reason = "a test")]

mod acl;
mod blind;
mod checkpoint;
mod follow;
mod operator;
mod over_memory;
mod over_redis;
mod streams;
