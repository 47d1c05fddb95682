//! The real programs, as processes that end with what holds them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tictac_ingest::testing::RedisServer;

use super::SHARDS;

/// A running program; killed when dropped.
pub struct Process(Child);

/// A binary of the workspace that was built beside this test.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().unwrap().parent().unwrap().join(name);
    assert!(binary.exists(), "{} is missing: cargo build -p {name}", binary.display());
    binary
}

impl Process {
    fn start(name: &str, server: &RedisServer, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary(name));
        command.args(arguments);
        command.args(["--redis", &server.url(), "--admin", "127.0.0.1:0", "--shards", &SHARDS.to_string()]);
        let spawned = command.env("RUST_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self(spawned.unwrap_or_else(|error| panic!("{name}: {error}")))
    }

    /// `tictac-ingest run`.
    pub fn ingest(server: &RedisServer) -> Self {
        Self::start("tictac-ingest", server, &["run", "--lease-ms", "1500"])
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
