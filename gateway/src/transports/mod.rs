//! Transports: each turns session output into bytes of its kind, and a client's bytes into session input.

pub mod sse;
pub mod ws;
