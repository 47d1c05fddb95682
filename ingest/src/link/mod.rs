//! The way to Redis, whatever it is: one server, a master that Sentinels name, or a Cluster.
//!
//! | file | what it holds |
//! |---|---|
//! | `address` | what an address says |
//! | `node` | connections to one server, or to whichever is the master |
//! | `sentinel` | which server is the master |
//! | `cluster` | which server has a key |
//! | `settings` | where, and the log's bounds |
//!
//! The client library's own managers are not used: they give up after a few tries, and wait without a bound inside.

mod address;
mod cluster;
mod node;
mod sentinel;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use redis::aio::PubSub;
use redis::{Cmd, FromRedisValue};
use tokio::time::{Instant, timeout_at};

use self::address::Address;
pub(crate) use self::address::Server;
pub use self::address::TlsFiles;
use self::cluster::Cluster;
#[cfg(feature = "testing")]
pub(crate) use self::cluster::slot;
pub(crate) use self::node::Node;
use self::node::{Failure, Request};
use self::sentinel::Sentinels;
pub use self::settings::RedisSettings;
use crate::log::LogError;

/// How much later than a server's own deadline a command is given up.
const SOON_AFTER: Duration = Duration::from_millis(20);
/// How often a command follows a key that moves.
const MOVES: usize = 4;

/// The way to a deployment of Redis. Connects only when the first command comes.
#[derive(Debug)]
pub(crate) struct Link {
    deployment: Deployment,
    deadline: Duration,
}

#[derive(Debug)]
enum Deployment {
    One(Arc<Node>),
    Cluster(Box<Cluster>),
}

impl Link {
    /// Reads the address.
    pub(crate) fn new(settings: &RedisSettings, deadline: Duration) -> Result<Self, LogError> {
        let address = Address::read(&settings.url, &settings.tls)
            .map_err(|why| LogError::Unexpected(format!("the Redis address is wrong: {why}")))?;
        let deployment = match address {
            Address::One(template) => Deployment::One(Node::fixed(template, None, deadline)),
            Address::Sentinels { name, sentinels, master } => {
                Deployment::One(Node::master(master, Sentinels::new(name, sentinels, deadline / 2), deadline))
            }
            Address::Cluster { seeds, template } => {
                Deployment::Cluster(Box::new(Cluster::new(seeds, template, deadline)))
            }
        };
        Ok(Self { deployment, deadline })
    }

    /// The deadline of each command.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs a command on the server that has a key.
    pub(crate) async fn query<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, LogError> {
        self.send(Some(key), command, false).await
    }

    /// Calls one of our functions on the server that has a key, loading the library before where the server lacks it.
    pub(crate) async fn call<T: FromRedisValue>(&self, key: &str, command: &Cmd) -> Result<T, LogError> {
        self.send(Some(key), command, true).await
    }

    /// Publishes on a plain channel.
    pub(crate) async fn publish(&self, channel: &str, message: &[u8]) -> Result<i64, LogError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(message);
        self.send(None, &command, false).await
    }

    /// A connection of its own for subscriptions to plain channels, which every server of a Cluster brings.
    /// And to which master, where Sentinels name it.
    pub(crate) async fn subscriber(&self) -> Result<(PubSub, Option<Server>), String> {
        match &self.deployment {
            Deployment::One(node) => node.subscriber().await,
            Deployment::Cluster(cluster) => {
                let server = cluster.any().await.map_err(|error| error.to_string())?;
                let subscriber = cluster.node(&server).subscriber().await;
                if subscriber.is_err() {
                    cluster.suspect();
                }
                subscriber
            }
        }
    }

    /// The master that Sentinels named last, where they are asked.
    pub(crate) fn known_master(&self) -> Option<Server> {
        match &self.deployment {
            Deployment::One(node) => node.known_master(),
            Deployment::Cluster(_) => None,
        }
    }

    /// The server that has a key, with a name to tell it from others; none where a Cluster has lost the key's slot.
    pub(crate) async fn node_of(&self, key: &str) -> Result<Option<(String, Arc<Node>)>, LogError> {
        match &self.deployment {
            Deployment::One(node) => Ok(Some((String::new(), node.clone()))),
            Deployment::Cluster(cluster) => {
                let master = cluster.master(key).await?;
                Ok(master.map(|(server, _)| (server.to_string(), cluster.node(&server))))
            }
        }
    }

    /// Looks whether keys live elsewhere by now.
    pub(crate) async fn check(&self) {
        match &self.deployment {
            Deployment::One(node) => node.check().await,
            // Where that fails, whoever needs it tries again.
            Deployment::Cluster(cluster) => drop(cluster.refresh(cluster.version()).await),
        }
    }

    async fn send<T: FromRedisValue>(
        &self,
        key: Option<&str>,
        command: &Cmd,
        is_call: bool,
    ) -> Result<T, LogError> {
        let request = Request { command, is_call };
        let until = Instant::now() + self.deadline;
        let cluster = match &self.deployment {
            Deployment::One(node) => {
                return match node.send(request, until).await {
                    Ok(value) => read(value),
                    Err(Failure::Other(error) | Failure::Away(error)) => Err(error),
                    Err(Failure::Moved) => Err(LogError::Unexpected(
                        "a key that is on another server: this is a Cluster, write redis+cluster://…".into(),
                    )),
                };
            }
            Deployment::Cluster(cluster) => cluster,
        };
        let work = async {
            for _ in 0..MOVES {
                let (server, version) = match key {
                    Some(key) => match cluster.master(key).await? {
                        Some(master) => master,
                        None => {
                            return Err(LogError::Unavailable(format!(
                                "no server of the Cluster has the slot of {key}"
                            )));
                        }
                    },
                    None => (cluster.any().await?, cluster.version()),
                };
                match cluster.node(&server).send(request, until).await {
                    Ok(value) => return read(value),
                    Err(Failure::Moved) => cluster.refresh(version).await?,
                    Err(Failure::Other(error)) => return Err(error),
                    Err(Failure::Away(error)) => {
                        cluster.suspect();
                        return Err(error);
                    }
                }
            }
            Err(LogError::Unavailable(format!("a key that moved {MOVES} times while it was asked for")))
        };
        // A server's own deadline comes first, so that its connection is thrown away.
        match timeout_at(until + SOON_AFTER, work).await {
            Ok(done) => done,
            Err(_) => {
                cluster.suspect();
                Err(LogError::Unavailable(format!("no answer within {:?}", self.deadline)))
            }
        }
    }
}

fn read<T: FromRedisValue>(value: redis::Value) -> Result<T, LogError> {
    T::from_redis_value(value).map_err(|error| LogError::Unexpected(error.to_string()))
}
