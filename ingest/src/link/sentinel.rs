//! Which server is the master, as Sentinels say it. All are asked at once: one that was cut off names the old master for
//! as long as it is cut off, so of what they say the latest configuration counts, as among themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisError};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::{Server, Template};

/// How long the others may still answer once one has.
const OTHERS: Duration = Duration::from_millis(250);

/// The Sentinels of one master.
#[derive(Debug)]
pub(crate) struct Sentinels {
    name: String,
    sentinels: Vec<Arc<Sentinel>>,
    deadline: Duration,
}

struct Sentinel {
    template: Template,
    server: Server,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Sentinel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sentinel").field(&self.server).finish()
    }
}

impl Sentinels {
    pub(crate) fn new(name: String, sentinels: Vec<(Template, Server)>, deadline: Duration) -> Self {
        let sentinel =
            |(template, server)| Arc::new(Sentinel { template, server, connection: Mutex::new(None) });
        Self { name, sentinels: sentinels.into_iter().map(sentinel).collect(), deadline }
    }

    /// The master.
    pub(crate) async fn master(&self) -> Result<Server, String> {
        // Aside: one that is too late this time has its connection made for the next time.
        let ask = |sentinel: &Arc<Sentinel>| {
            let (sentinel, name, deadline) = (sentinel.clone(), self.name.clone(), self.deadline);
            tokio::spawn(async move { sentinel.ask(&name, deadline).await })
        };
        let mut asked: FuturesUnordered<_> = self.sentinels.iter().map(ask).collect();
        let mut deadline = Instant::now() + self.deadline;
        let mut latest: Option<(u64, Server)> = None;
        let mut why = format!("no answer within {:?}", self.deadline);
        while let Ok(Some(answer)) = timeout_at(deadline, asked.next()).await {
            match answer.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(answer) => {
                    if latest.is_none() {
                        deadline = deadline.min(Instant::now() + OTHERS);
                    }
                    latest = latest.max(Some(answer));
                }
                Err(error) => why = error,
            }
        }
        match latest {
            Some((_, server)) => Ok(server),
            None => Err(format!("no Sentinel names the master {:?}: {why}", self.name)),
        }
    }
}

impl Sentinel {
    /// The epoch of its configuration, and the master in it.
    async fn ask(&self, name: &str, deadline: Duration) -> Result<(u64, Server), String> {
        let mut current = self.connection.lock().await;
        let asked = async {
            let mut connection = match current.take() {
                Some(connection) => connection,
                None => {
                    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(deadline));
                    let client = self.template.client(None, ProtocolVersion::RESP2)?;
                    client.get_multiplexed_async_connection_with_config(&config).await?
                }
            };
            let mut command = redis::cmd("SENTINEL");
            command.arg("MASTER").arg(name);
            let master: HashMap<String, String> = command.query_async(&mut connection).await?;
            *current = Some(connection);
            Ok::<_, RedisError>(master)
        };
        let master = match timeout(deadline, asked).await {
            Ok(Ok(master)) => master,
            Ok(Err(error)) => return Err(format!("{}: {error}", self.server)),
            Err(_) => return Err(format!("{}: no answer within {deadline:?}", self.server)),
        };
        let field = |field: &str| master.get(field).map(String::as_str).unwrap_or_default();
        match (field("config-epoch").parse(), field("port").parse()) {
            (Ok(epoch), Ok(port)) => Ok((epoch, Server::new(field("ip"), port))),
            _ => Err(format!("{}: {master:?} says no config-epoch and port", self.server)),
        }
    }
}
