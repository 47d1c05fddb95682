//! The protocol core of tictac: pure, synchronous, without I/O and without a clock (the time is always an
//! argument), so that everything here can be simulated, and a client in another language can be held to it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`model`] | fields, ladders, books, deltas with their laws (`diff`, `apply`, `merge`), views |
//! | [`position`] | `(epoch, seq)`, the order of everything |
//! | [`checksum`] | the canonical form of a view and its CRC-32C; the digest of a session |
//! | [`log`] | entries of a shard's log and their encoding |
//! | [`sequencer`] | ingest: update → book → numbered entries |
//! | [`follower`] | gateway: a shard's entries → books, gaps, repair, staleness |
//! | [`client`] | client: a market's messages → book, gaps, stops, tradable |
//! | [`run`] | a bounded run of encoded frames, shared by all readers |
//! | [`session`] | gateway: cursors over runs → the next bytes of one connection |
//! | [`wire`] | messages between client and gateway, in JSON and MessagePack |
//! | [`guard`] | the guards by name, for the simulation to take away |
//! | [`limits`] | every bound that the protocol sets |
//!
//! `PROTOCOL.md` beside this crate describes the wire for whoever writes a client.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod checksum;
pub mod client;
pub mod follower;
pub mod guard;
pub mod limits;
pub mod log;
pub mod model;
pub mod position;
mod restore;
pub mod run;
pub mod sequencer;
pub mod session;
pub mod wire;
