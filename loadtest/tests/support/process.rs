//! The real programs, as processes that end with what holds them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use tempfile::NamedTempFile;
use tictac_ingest::testing::RedisServer;

use super::SHARDS;

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    log: NamedTempFile,
}

/// A binary of the workspace, built from what is there now: beside this test may lie an old one.
fn binary(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    let folder = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    BUILT.call_once(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "tictac-gateway", "-p", "tictac-ingest"]);
        build.arg("--target-dir").arg(folder.parent().unwrap());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // What cargo tells this test would make some build scripts run again.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_") && text != "CARGO_HOME" && !text.starts_with("CARGO_BUILD") {
                build.env_remove(&name);
            }
        }
        assert!(build.status().unwrap().success(), "the binaries don't build");
    });
    folder.join(name)
}

impl Process {
    fn start(name: &str, server: &RedisServer, arguments: &[&str]) -> Self {
        Self::start_at(name, &server.url(), arguments)
    }

    /// A program that finds Redis at an address.
    pub fn start_at(name: &str, redis: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary(name));
        command.args(arguments);
        command.args(["--redis", redis, "--shards", &SHARDS.to_string()]);
        if !arguments.contains(&"--admin") {
            command.args(["--admin", "127.0.0.1:0"]);
        }
        let log = NamedTempFile::new().unwrap();
        command.env("TICTAC_LOG_FILTER", "info").stderr(log.reopen().unwrap());
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self { child: spawned.unwrap_or_else(|error| panic!("{name}: {error}")), log }
    }

    /// `tictac-ingest run`.
    pub fn ingest(server: &RedisServer) -> Self {
        Self::start("tictac-ingest", server, &["run"])
    }

    /// `tictac-gateway` on a port of this machine, with a checksum after every delta.
    pub fn gateway(server: &RedisServer, port: u16) -> Self {
        let listen = format!("127.0.0.1:{port}");
        let arguments = ["--listen", &listen, "--checksum-ms", "0", "--connects-per-ip", "10000"];
        Self::start("tictac-gateway", server, &arguments)
    }

    /// Whether it has logged this.
    pub fn said(&self, what: &str) -> bool {
        std::fs::read_to_string(self.log.path()).unwrap().contains(what)
    }

    /// Sends it a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success(), "kill -{name}");
    }

    /// The same, with its admin port, and long not ready before it sends its clients away, unless it is told again.
    pub fn gateway_with_admin(server: &RedisServer, port: u16, admin: u16) -> Self {
        let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
        let ports = ["--listen", &listen, "--admin", &admin];
        let more = ["--checksum-ms", "0", "--drain-delay-ms", "60000"];
        Self::start("tictac-gateway", server, &[ports, more].concat())
    }

    /// Waits for its end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
