//! For tests, here and in crates that build on this one: a real Redis server of their own, and a live channel that
//! loses, repeats and swaps messages.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::log::{LiveEvent, LiveHandle, LogReader};

/// A reader whose live channel is worse than Redis's: of a hundred messages so many are lost, repeated, and swapped with
/// the next, each by itself. Subscriptions and breaks are told as they are.
#[derive(Debug, Clone)]
pub struct Lossy {
    /// What reads.
    pub reader: LogReader,
    /// Per cent of each fault.
    pub percent: f64,
    /// For the same faults again.
    pub seed: u64,
}

impl Lossy {
    pub(crate) fn live(&self, capacity: usize) -> (LiveHandle, mpsc::Receiver<LiveEvent>) {
        let (handle, mut events) = self.reader.live(capacity);
        let (sender, receiver) = mpsc::channel(capacity);
        let (mut dice, share) = (SmallRng::seed_from_u64(self.seed), self.percent / 100.0);
        tokio::spawn(async move {
            let mut held: Option<LiveEvent> = None;
            while let Some(event) = events.recv().await {
                let mut out = Vec::with_capacity(3);
                if matches!(event, LiveEvent::Message { .. }) {
                    if dice.random_bool(share) {
                        continue;
                    }
                    if held.is_none() && dice.random_bool(share) {
                        held = Some(event);
                        continue;
                    }
                    if dice.random_bool(share) {
                        out.push(event.clone());
                    }
                }
                out.push(event);
                out.extend(held.take());
                for event in out {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
        (handle, receiver)
    }
}

const START_WITHIN: Duration = Duration::from_secs(10);

/// A Redis server on a free loopback port and a Unix socket, without persistence, in a directory of its own. Ends when
/// dropped.
#[derive(Debug)]
pub struct RedisServer {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
    /// More of the server's settings.
    more: Vec<String>,
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
        // Between finding a port free and the server's taking it, somebody else may: then the server ends at once.
        let mut why = String::new();
        for _ in 0..5 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .and_then(|listener| listener.local_addr())
                .map_err(|error| format!("no free loopback port: {error}"))?
                .port();
            let directory =
                tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
            let more = more.iter().map(|m| (*m).to_owned()).collect();
            let mut server = Self { directory, port, process: None, more };
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
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(self.port.to_string())
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!(
                    "redis-server can't be started ({error}): install it with `apt-get install redis-server`"
                )
            })?;
        let process = self.process.insert(process);
        let begun = Instant::now();
        loop {
            if answers(self.port) {
                return Ok(());
            }
            if let Ok(Some(status)) = process.try_wait() {
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
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn answers(port: u16) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        // One that wants to know who asks is there, too.
        Ok(answer == *b"+PONG" || answer == *b"-NOAU")
    };
    ping().unwrap_or(false)
}
