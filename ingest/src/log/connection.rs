//! Connecting to Redis: with deadlines, without delay, and anew after every break.
//!
//! One multiplexed connection carries every command; whoever calls while it is being made waits for it, at most until
//! the deadline. It is thrown away on the first error that says it is of no more use, a deadline included: a
//! half-open connection would otherwise swallow every command. Nothing is sent twice, except a function call that the
//! server refused for not knowing the function.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError, Value};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::LogError;

/// The functions' library. Its name carries the version.
const LIBRARY: &str = include_str!("function.lua");

/// Where Redis is, and the log's bounds in it.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://`, `rediss://` (TLS) or `redis+unix://`, with credentials and database where needed.
    pub url: String,
    /// Before every key and channel.
    pub prefix: String,
    /// How long a lease lives without a sign of life.
    pub lease: Duration,
    /// For connecting, and for each command.
    pub deadline: Duration,
    /// Most entries of a shard's log (Redis may keep about a hundred more).
    pub entries: u64,
}

impl RedisSettings {
    /// The defaults: prefix `odds`, lease 1.5 s, deadline 2 s, 65,536 entries.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "odds".into(),
            lease: Duration::from_millis(1_500),
            deadline: Duration::from_secs(2),
            entries: 65_536,
        }
    }
}

/// The way to one Redis server.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    deadline: Duration,
    current: Mutex<Option<Connection>>,
    made: AtomicU64,
}

#[derive(Clone)]
struct Connection {
    /// Tells it from its successors.
    number: u64,
    /// Whether the functions were loaded over it.
    loaded: bool,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("number", &self.number).field("loaded", &self.loaded).finish()
    }
}

impl Link {
    /// Reads the URL; connects only when the first command comes.
    pub(crate) fn new(url: &str, deadline: Duration) -> Result<Self, LogError> {
        // The address may hold a password: the error does not repeat it.
        let wrong = |error: RedisError| {
            LogError::Unexpected(format!(
                "the Redis address is wrong ({error}): write redis://host:port, rediss://host:port or redis+unix:///path"
            ))
        };
        let keepalive =
            TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(Duration::from_secs(10));
        let info = url.into_connection_info().map_err(wrong)?.set_tcp_settings(tcp);
        // Without a provider of cryptography the first TLS connection would panic. One that the program has chosen
        // already stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::open(info).map_err(wrong)?;
        Ok(Self { client, deadline, current: Mutex::new(None), made: AtomicU64::new(0) })
    }

    /// The deadline of each command.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A connection of its own for subscriptions.
    pub(crate) async fn subscriber(&self) -> Result<PubSub, String> {
        match timeout(self.deadline, self.client.get_async_pubsub()).await {
            Ok(Ok(subscriber)) => Ok(subscriber),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {:?}", self.deadline)),
        }
    }

    /// Runs a command.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LogError> {
        self.in_time(async {
            let mut connection = self.connection(false).await?;
            let answer = send(&mut connection.connection, command).await;
            self.read(connection.number, answer).await
        })
        .await
    }

    /// Calls a function, loading the library before where this connection did not yet, or the server forgot it.
    pub(crate) async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, LogError> {
        self.in_time(async {
            let mut connection = self.connection(true).await?;
            let mut answer = send(&mut connection.connection, command).await;
            if answer.as_ref().is_err_and(|error| error.to_string().contains("Function not found")) {
                let loaded = load(&mut connection.connection).await;
                self.read::<Value>(connection.number, loaded).await?;
                answer = send(&mut connection.connection, command).await;
            }
            self.read(connection.number, answer).await
        })
        .await
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
        match timeout(self.deadline, work).await {
            Ok(done) => done,
            Err(_) => {
                // Perhaps half open: the next command takes a new one. Where the lock is taken, one is being made.
                if let Ok(mut current) = self.current.try_lock() {
                    *current = None;
                }
                Err(LogError::Unavailable(format!("no answer within {:?}", self.deadline)))
            }
        }
    }

    async fn connection(&self, functions: bool) -> Result<Connection, LogError> {
        let mut current = self.current.lock().await;
        let mut connection = match current.take() {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.deadline))
                    .set_response_timeout(Some(self.deadline));
                let connection = self
                    .client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await
                    .map_err(|error| LogError::Unavailable(error.to_string()))?;
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                Connection { number, loaded: false, connection }
            }
        };
        if functions && !connection.loaded {
            load(&mut connection.connection).await.map_err(|error| log_error(&error))?;
            connection.loaded = true;
        }
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Reads an answer; throws the connection away where the error says that it is of no more use.
    async fn read<T: FromRedisValue>(
        &self,
        number: u64,
        answer: Result<Value, RedisError>,
    ) -> Result<T, LogError> {
        match answer {
            Ok(value) => T::from_redis_value(value).map_err(|error| LogError::Unexpected(error.to_string())),
            Err(error) => {
                if is_away(&error) {
                    let mut current = self.current.lock().await;
                    if current.as_ref().is_some_and(|connection| connection.number == number) {
                        *current = None;
                    }
                }
                Err(log_error(&error))
            }
        }
    }
}

async fn load(connection: &mut MultiplexedConnection) -> Result<Value, RedisError> {
    let mut command = redis::cmd("FUNCTION");
    command.arg("LOAD").arg("REPLACE").arg(LIBRARY);
    send(connection, &command).await
}

/// Sends a command; what the server refuses is an error too.
async fn send(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    connection.req_packed_command(command).await.and_then(Value::extract_error)
}

/// Whether the connection is broken, or leads to a server that is not (or no longer) the one to talk to.
fn is_away(error: &RedisError) -> bool {
    let refused =
        matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"));
    refused
        || error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
}

fn log_error(error: &RedisError) -> LogError {
    // Out of memory, too few replicas or busy with a script: for now nothing can be written, later perhaps.
    let later = matches!(error.code(), Some("OOM" | "NOREPLICAS" | "BUSY" | "MISCONF"));
    if later || is_away(error) {
        LogError::Unavailable(error.to_string())
    } else {
        LogError::Unexpected(error.to_string())
    }
}
