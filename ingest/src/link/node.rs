//! Connections to one server, or to whichever is the master: with deadlines, without delay, and anew after every break.
//!
//! One multiplexed connection carries every command; whoever calls while it is being made waits for it, at most until
//! the deadline. It is thrown away on the first error that says it is of no more use, a deadline included: a
//! half-open connection would otherwise swallow every command. Nothing is sent twice, except a function call that the
//! server refused for not knowing the function.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use redis::aio::{AsyncPushSender, ConnectionLike, MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, ProtocolVersion, RedisError, ServerErrorKind, Value,
};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Server, Template};
use super::sentinel::Sentinels;
use crate::log::LogError;

/// The functions' library. Its name carries the version.
const LIBRARY: &str = include_str!("../log/function.lua");
/// How often it is asked whether the master is still the master.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Which server.
#[derive(Debug)]
enum Place {
    /// The one that the address names, or this one of its Cluster.
    Fixed(Template, Option<Server>),
    /// The master, whichever it is.
    Master(Template, Sentinels),
}

/// Connections to one server.
#[derive(Debug)]
pub(crate) struct Node {
    place: Place,
    deadline: Duration,
    current: Mutex<Option<Connection>>,
    made: AtomicU64,
    /// The master that is known, to find out when it changes.
    master: watch::Sender<Option<Server>>,
    checked: std::sync::Mutex<Instant>,
    checking: AtomicBool,
}

#[derive(Clone)]
struct Connection {
    /// Tells it from its successors.
    number: u64,
    /// To which master, where Sentinels name it.
    master: Option<Server>,
    /// Whether the functions were loaded over it.
    loaded: bool,
    connection: MultiplexedConnection,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("number", &self.number).field("loaded", &self.loaded).finish()
    }
}

/// A command, and how it is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) command: &'a Cmd,
    /// It calls one of our functions.
    pub(crate) is_call: bool,
}

/// Why a server did not do it.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What is asked for lives elsewhere now.
    Moved,
    /// The server can't be reached, or is not the one to talk to.
    Away(LogError),
    /// Anything else.
    Other(LogError),
}

impl Node {
    /// One server: the address's own, or one of its Cluster.
    pub(crate) fn fixed(template: Template, server: Option<Server>, deadline: Duration) -> Arc<Self> {
        Self::new(Place::Fixed(template, server), deadline)
    }

    /// The master that Sentinels name.
    pub(crate) fn master(template: Template, sentinels: Sentinels, deadline: Duration) -> Arc<Self> {
        Self::new(Place::Master(template, sentinels), deadline)
    }

    fn new(place: Place, deadline: Duration) -> Arc<Self> {
        Arc::new(Self {
            place,
            deadline,
            current: Mutex::new(None),
            made: AtomicU64::new(0),
            master: watch::Sender::new(None),
            checked: std::sync::Mutex::new(Instant::now()),
            checking: AtomicBool::new(false),
        })
    }

    /// The deadline of each command.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A client, and which master it is for.
    async fn client(&self, protocol: ProtocolVersion) -> Result<(Client, Option<Server>), String> {
        let (client, master) = match &self.place {
            Place::Fixed(template, server) => (template.client(server.as_ref(), protocol), None),
            Place::Master(template, sentinels) => {
                let master = sentinels.master().await?;
                let client = template.client(Some(&master), protocol);
                self.master.send_replace(Some(master.clone()));
                (client, Some(master))
            }
        };
        Ok((client.map_err(|error| error.to_string())?, master))
    }

    /// The master as Sentinels named it last; nothing where the address says which server it is.
    pub(crate) fn known_master(&self) -> Option<Server> {
        self.master.borrow().clone()
    }

    /// A connection of its own for subscriptions to plain channels, and to which master.
    pub(crate) async fn subscriber(&self) -> Result<(PubSub, Option<Server>), String> {
        self.connecting(async {
            let (client, master) = self.client(ProtocolVersion::RESP2).await?;
            Ok((client.get_async_pubsub().await.map_err(|error| error.to_string())?, master))
        })
        .await
    }

    /// A connection of its own that brings what it is subscribed to at once, and says when it ends; and to which master.
    pub(crate) async fn pusher(
        &self,
        to: impl AsyncPushSender,
    ) -> Result<(MultiplexedConnection, Option<Server>), String> {
        self.connecting(async {
            let (client, master) = self.client(ProtocolVersion::RESP3).await?;
            let config = self.config().set_push_sender(to);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await;
            Ok((connection.map_err(|error| error.to_string())?, master))
        })
        .await
    }

    async fn connecting<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        match timeout(self.deadline, work).await {
            Ok(done) => done,
            Err(_) => Err(format!("no connection within {:?}", self.deadline)),
        }
    }

    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.deadline))
            .set_response_timeout(Some(self.deadline))
    }

    /// Sends a command, within the deadline and until then.
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<'_>,
        until: Instant,
    ) -> Result<Value, Failure> {
        self.watch();
        let until = until.min(Instant::now() + self.deadline);
        match timeout_at(until, self.send_once(request)).await {
            Ok(done) => done,
            Err(_) => {
                self.suspect();
                let why = format!("no answer within {:?}", self.deadline);
                Err(Failure::Away(LogError::Unavailable(why)))
            }
        }
    }

    /// Until the master is another one than a connection leads to; for ever where none is named.
    async fn replaced(&self, master: &Option<Server>) {
        // The sender is here as long as we are.
        if master.is_none() || self.master.subscribe().wait_for(|now| now != master).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The connection is perhaps half open: the next command takes a new one. Where the lock is taken, one is being made.
    fn suspect(&self) {
        if let Ok(mut current) = self.current.try_lock() {
            *current = None;
        }
    }

    async fn send_once(&self, request: Request<'_>) -> Result<Value, Failure> {
        let connection = self.connection(request.is_call).await.map_err(Failure::Away)?;
        let master = connection.master.clone();
        tokio::select! {
            sent = self.send_over(connection, request) => sent,
            // Whoever is no master any more may never answer.
            () = self.replaced(&master) => {
                let why = "another server became the master meanwhile".into();
                Err(Failure::Away(LogError::Unavailable(why)))
            }
        }
    }

    async fn send_over(&self, mut connection: Connection, request: Request<'_>) -> Result<Value, Failure> {
        let mut answer = send(&mut connection.connection, request.command).await;
        // A connection to a Cluster's server loads nothing where that turned out to be a replica.
        if answer.as_ref().is_err_and(|error| error.to_string().contains("Function not found")) {
            let loaded = load(&mut connection.connection).await;
            self.read(connection.number, loaded).await?;
            answer = send(&mut connection.connection, request.command).await;
        }
        self.read(connection.number, answer).await
    }

    async fn connection(&self, functions: bool) -> Result<Connection, LogError> {
        let mut current = self.current.lock().await;
        // One to an old master is of no use, though it answers.
        let of_today = current.take().filter(|connection| connection.master == self.known_master());
        let mut connection = match of_today {
            Some(connection) => connection,
            None => {
                let (client, master) =
                    self.client(ProtocolVersion::RESP2).await.map_err(LogError::Unavailable)?;
                let connection = client
                    .get_multiplexed_async_connection_with_config(&self.config())
                    .await
                    .map_err(|error| LogError::Unavailable(error.to_string()))?;
                let number = self.made.fetch_add(1, Ordering::Relaxed);
                Connection { number, master, loaded: false, connection }
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
    async fn read(&self, number: u64, answer: Result<Value, RedisError>) -> Result<Value, Failure> {
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) {
            return Err(Failure::Moved);
        }
        if is_away(&error) {
            let mut current = self.current.lock().await;
            if current.as_ref().is_some_and(|connection| connection.number == number) {
                *current = None;
            }
            return Err(Failure::Away(log_error(&error)));
        }
        Err(Failure::Other(log_error(&error)))
    }

    /// Has it asked now and then, aside, whether the master is still the master.
    fn watch(self: &Arc<Self>) {
        if !matches!(self.place, Place::Master(..)) {
            return;
        }
        let due = {
            let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            let due = checked.elapsed() >= CHECK_EVERY;
            if due {
                *checked = Instant::now();
            }
            due
        };
        if due && !self.checking.swap(true, Ordering::Relaxed) {
            let node = self.clone();
            tokio::spawn(async move {
                node.check().await;
                node.checking.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Asks whether the master is still the master: where Sentinels name another one, connections to the old one are left,
    /// though it answers. That is what a master does which was cut off from the others.
    pub(crate) async fn check(&self) {
        let Place::Master(_, sentinels) = &self.place else { return };
        let Ok(master) = sentinels.master().await else { return };
        self.master.send_if_modified(|known| {
            let is_news = known.as_ref() != Some(&master);
            if is_news && known.is_some() {
                tracing::warn!(%master, "another master: leaving the old one");
            }
            *known = Some(master);
            is_news
        });
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
    let refused = matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN"));
    refused
        || error.is_io_error()
        || error.is_timeout()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
}

fn log_error(error: &RedisError) -> LogError {
    // Out of memory, too few replicas, busy with a script, or a slot on its way to another server, where a command on many
    // keys is refused by both: for now nothing can be written, later perhaps.
    let later = matches!(error.code(), Some("OOM" | "NOREPLICAS" | "BUSY" | "MISCONF" | "ASK" | "TRYAGAIN"));
    if later || is_away(error) {
        LogError::Unavailable(error.to_string())
    } else {
        LogError::Unexpected(error.to_string())
    }
}
