//! For tests, here and in crates that build on this one: real Redis servers of their own, alone, with Sentinels or as a
//! Cluster, and a live channel that loses, repeats and swaps messages.

mod cluster;
mod lossy;
mod sentinel;
mod server;

pub use cluster::RedisCluster;
pub use lossy::Lossy;
pub use sentinel::SentinelRedis;
pub use server::RedisServer;
