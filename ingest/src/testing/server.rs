//! A real Redis server.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const START_WITHIN: Duration = Duration::from_secs(10);
/// What several servers may take to agree.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// A Redis server on a free loopback port and a Unix socket, without persistence, in a directory of its own. Ends when
/// dropped.
#[derive(Debug)]
pub struct RedisServer {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
    /// More of the server's settings; for a Sentinel all of them.
    more: Vec<String>,
    is_sentinel: bool,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// Where there is no `redis-server`, with how to get it, or where it does not answer.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// The same with more settings, as the command line takes them.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(more: &[&str]) -> Result<Self, String> {
        Self::start_as(false, |_| Ok(more.iter().map(|m| (*m).to_owned()).collect()))
    }

    /// Starts a Sentinel with these settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_sentinel(settings: &[&str]) -> Result<Self, String> {
        Self::start_as(true, |_| Ok(settings.iter().map(|s| (*s).to_owned()).collect()))
    }

    /// Starts a server, or a Sentinel, with settings made for each attempt.
    pub(super) fn start_as(
        is_sentinel: bool,
        mut more: impl FnMut(u16) -> Result<Vec<String>, String>,
    ) -> Result<Self, String> {
        // Between finding a port free and the server's taking it, somebody else may: then the server ends at once.
        let mut why = String::new();
        for _ in 0..5 {
            let port = free_port()?;
            let directory =
                tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
            let mut server = Self { directory, port, process: None, more: more(port)?, is_sentinel };
            match server.restart() {
                Ok(()) => return Ok(server),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Starts the server again on the same port, with nothing in its memory.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let mut command = Command::new("redis-server");
        if self.is_sentinel {
            // A Sentinel keeps what it finds out in its file: it begins with what it was given.
            let file = self.directory.path().join("sentinel.conf");
            let text = format!("bind 127.0.0.1\nport {}\n{}\n", self.port, self.more.join("\n"));
            std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            command.arg(file).arg("--sentinel");
        } else {
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
            command.arg(self.port.to_string()).arg("--unixsocket").arg(self.socket());
            command.arg("--dir").arg(self.directory.path()).args(&self.more);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!(
                    "redis-server can't be started ({error}): install it with `apt-get install redis-server`"
                )
            })?;
        self.process = Some(process);
        let begun = Instant::now();
        loop {
            if self.answers() {
                return Ok(());
            }
            if let Some(Ok(Some(status))) = self.process.as_mut().map(Child::try_wait) {
                return Err(format!("redis-server on port {} ended with {status}", self.port));
            }
            if begun.elapsed() > START_WITHIN {
                return Err(format!(
                    "redis-server on port {} gave no answer within {START_WITHIN:?}",
                    self.port
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it is this one that answers: on its port may be another one, where this one could not have it.
    fn answers(&self) -> bool {
        let Some(process) = &self.process else { return false };
        if self.is_sentinel {
            return self
                .ask(&["INFO", "server"])
                .is_ok_and(|info| info.contains(&format!("process_id:{}\r\n", process.id())));
        }
        // The port is taken before the socket is made.
        let ping = || -> std::io::Result<bool> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            // One that wants to know who asks is there, too.
            Ok(answer == *b"+PONG" || answer == *b"-NOAU")
        };
        ping().unwrap_or(false)
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only for a process that has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Makes the server hang, its sockets open, or go on.
    ///
    /// # Panics
    /// Where the server does not run, or `kill` can't be run.
    pub fn hang(&self, hang: bool) {
        let process = self.process.as_ref().expect("only a running server can hang");
        let signal = if hang { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(done.is_ok_and(|status| status.success()), "kill {signal} {} failed", process.id());
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of its process, where it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<i32> {
        self.process.as_ref().and_then(|process| i32::try_from(process.id()).ok())
    }

    /// Whether it was started and not killed.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its address for a user.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// Its address by Unix socket.
    #[must_use]
    pub fn socket_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Runs a command over a connection of its own.
    ///
    /// # Errors
    /// What the server or the connection says.
    pub fn command(&self, parts: &[&[u8]]) -> Result<redis::Value, String> {
        let run = || {
            let mut connection = redis::Client::open(self.url())?.get_connection()?;
            let mut command = redis::Cmd::new();
            for part in parts {
                command.arg(*part);
            }
            command.query(&mut connection)
        };
        run().map_err(|error: redis::RedisError| error.to_string())
    }

    /// What a command answers with a text.
    ///
    /// # Errors
    /// Where it answers none.
    pub fn ask(&self, words: &[&str]) -> Result<String, String> {
        let parts: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let answer =
            self.command(&parts).map_err(|error| format!("{words:?} on port {}: {error}", self.port))?;
        redis::from_redis_value(answer).map_err(|error| error.to_string())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that the kernel gives to nobody by itself: below those of connections that go out.
const PORTS: std::ops::Range<u16> = 11_000..32_000;
/// Tries to find one that is free.
const TRIES: u16 = 1_000;

/// A loopback port that is free now, and stays so while what listens there is down for a while: the kernel does not give
/// it to a connection that goes out, and this process does not take it again soon.
///
/// # Errors
/// Where none is found.
pub fn free_port() -> Result<u16, String> {
    // Processes that run at once begin far from each other.
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let room = u32::from(PORTS.end - PORTS.start);
    for _ in 0..TRIES {
        let next = std::process::id().wrapping_mul(7_919) % room + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + u16::try_from(next % room).unwrap_or(0);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no free loopback port: {TRIES} between {} and {} are taken", PORTS.start, PORTS.end))
}

/// Asks again and again until it is so.
pub(super) fn until(what: &str, mut is_so: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let so = is_so();
        if so == Ok(true) {
            return Ok(());
        }
        if begun.elapsed() > SETTLED_WITHIN {
            return Err(format!("{what}: not within {SETTLED_WITHIN:?} ({so:?})"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_else_on_its_port_is_not_taken_for_it() {
        let mut server = RedisServer::start().unwrap();
        server.kill();
        let other = RedisServer::start_as(false, |_| Ok(vec!["--port".into(), server.port.to_string()]));
        // The later of two ports counts: it is a server that has the port of the first.
        assert!(other.is_ok(), "{other:?}");
        let error = server.restart().unwrap_err();
        assert!(error.contains(&server.port.to_string()) && error.contains("ended with"), "{error}");
        drop(other);
        server.restart().unwrap();
    }

    #[test]
    fn a_port_is_not_given_twice_soon() {
        let ports: std::collections::BTreeSet<u16> = (0..500).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 500);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
