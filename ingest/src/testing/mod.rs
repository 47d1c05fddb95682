//! For tests, here and in crates that build on this one: real Redis servers of their own, alone, with Sentinels or as a
//! Cluster; a live channel that loses, repeats and swaps messages; a log that fails, and virtual time.

mod cluster;
mod faulty;
mod lossy;
mod sentinel;
mod server;
pub mod virtual_time;

pub use cluster::RedisCluster;
pub use faulty::{Faults, FaultyLog};
pub use lossy::Lossy;
pub use sentinel::SentinelRedis;
pub use server::{RedisServer, free_port};
