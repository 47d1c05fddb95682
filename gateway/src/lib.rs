//! tictac-gateway: follows the log, fans views out to clients over every transport.
//!
//! | module | what it is |
//! |---|---|
//! | [`hub`] | pure: applies the log, encodes frames, answers questions |
//! | [`core`] | pure: the sessions and runs of one socket thread |
//! | [`feed`] | the hub's thread |
//! | [`worker`] | a core's thread: sockets, accepting, connections |
//! | [`transports`] | WebSocket and SSE framing and parsing |
//! | [`http`] | routes |
//! | [`gateway`] | puts all of it together |
//! | [`canary`] | a subscriber inside, whose books are compared with the source's |
//! | [`source`] | the log in Redis, or an ingest in this process |
//! | [`wires`] | messages to bytes that all clients of a kind share |

pub mod admin;
pub mod assets;
pub mod canary;
pub mod core;
pub mod feed;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod limits;
pub mod metrics;
pub mod rights;
pub mod settings;
pub mod source;
pub mod time;
pub mod transports;
pub mod wires;
pub mod worker;
