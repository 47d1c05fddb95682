//! A real Redis with a replica, watched by Sentinels.

use super::server::{RedisServer, until};

/// What the Sentinels call the master.
const NAME: &str = "odds";
const SENTINELS: usize = 3;

/// Two servers, one the other's replica, and three Sentinels, on loopback ports. A master that is gone is replaced after
/// one to two seconds.
#[derive(Debug)]
pub struct SentinelRedis {
    /// The servers; at the beginning the first is the master.
    pub servers: [RedisServer; 2],
    /// The Sentinels.
    pub sentinels: Vec<RedisServer>,
}

impl SentinelRedis {
    /// Starts all and waits until the Sentinels know each other and both servers.
    ///
    /// # Errors
    /// As [`RedisServer::start`], and where they don't find together.
    pub fn start() -> Result<Self, String> {
        let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"])?;
        let port = master.port().to_string();
        let replica =
            RedisServer::start_with(&["--repl-diskless-sync-delay", "0", "--replicaof", "127.0.0.1", &port])?;
        let sentinel = |_| {
            RedisServer::start_as(true, |_| {
                Ok(vec![
                    format!("sentinel monitor {NAME} 127.0.0.1 {port} 2"),
                    format!("sentinel down-after-milliseconds {NAME} 1000"),
                    format!("sentinel failover-timeout {NAME} 4000"),
                ])
            })
        };
        let sentinels = (0..SENTINELS).map(sentinel).collect::<Result<Vec<_>, _>>()?;
        let all = Self { servers: [master, replica], sentinels };
        all.until_whole()?;
        Ok(all)
    }

    /// Waits until every Sentinel knows the others, a master that is up, and a replica in step.
    ///
    /// # Errors
    /// Where that does not come.
    pub fn until_whole(&self) -> Result<(), String> {
        until("the Sentinels know all", || {
            let mut whole = true;
            for sentinel in &self.sentinels {
                let others = field(sentinel, "MASTER", "num-other-sentinels")?;
                let up = field(sentinel, "MASTER", "flags")? == "master";
                whole &= others == (SENTINELS - 1).to_string() && up;
            }
            let master = self.master()?;
            let replicas = self.servers[master].ask(&["INFO", "REPLICATION"])?;
            Ok(whole && replicas.contains("state=online"))
        })
    }

    /// Which server is the master now, as the Sentinels say.
    ///
    /// # Errors
    /// Where none says.
    pub fn master(&self) -> Result<usize, String> {
        let port = field(&self.sentinels[0], "MASTER", "port")?;
        let at = self.servers.iter().position(|server| server.port().to_string() == port);
        at.ok_or_else(|| format!("the master has port {port}, which is nobody's"))
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        let sentinels: Vec<String> =
            self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
        format!("redis+sentinel://{}/{NAME}", sentinels.join(","))
    }
}

fn field(sentinel: &RedisServer, what: &str, name: &str) -> Result<String, String> {
    let answer = sentinel.command(&[b"SENTINEL", what.as_bytes(), NAME.as_bytes()])?;
    let fields: std::collections::HashMap<String, String> =
        redis::from_redis_value(answer).map_err(|error| error.to_string())?;
    fields.get(name).cloned().ok_or_else(|| format!("no {name} of the master"))
}
