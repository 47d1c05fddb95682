//! A real Redis Cluster.

use super::server::{RedisServer, free_port, until};
use crate::link::slot;

const MASTERS: usize = 3;
const SLOTS: usize = 16_384;

/// Three masters, and as many replicas as are wanted of each, on loopback ports. A master that is gone is replaced after
/// one to two seconds.
#[derive(Debug)]
pub struct RedisCluster {
    /// The servers: masters, then replicas, as they were at the beginning.
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the servers and waits until all of them find the Cluster whole.
    ///
    /// # Errors
    /// As [`RedisServer::start`], and where they don't find together.
    pub fn start(replicas_of_each: usize) -> Result<Self, String> {
        let count = MASTERS * (1 + replicas_of_each);
        let servers = (0..count).map(|_| start()).collect::<Result<Vec<_>, _>>()?;
        for (at, master) in servers[..MASTERS].iter().enumerate() {
            let (first, last) = (at * SLOTS / MASTERS, (at + 1) * SLOTS / MASTERS - 1);
            master.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
        }
        for (at, server) in servers.iter().enumerate() {
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()])?;
            let bus = info(server, "CONFIG", "cluster-port")?;
            if at > 0 {
                servers[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &server.port().to_string(), &bus])?;
            }
        }
        until("all servers know each other", || {
            let mut all = true;
            for server in &servers {
                let nodes = server.ask(&["CLUSTER", "NODES"])?;
                all &= nodes.lines().count() == count && !nodes.contains("handshake");
            }
            Ok(all)
        })?;
        for (at, replica) in servers[MASTERS..].iter().enumerate() {
            let id = servers[at % MASTERS].ask(&["CLUSTER", "MYID"])?;
            replica.ask(&["CLUSTER", "REPLICATE", &id])?;
        }
        let cluster = Self { servers };
        cluster.until_whole(replicas_of_each)?;
        Ok(cluster)
    }

    /// Waits until every running server finds the Cluster whole, every master with so many replicas in step.
    ///
    /// # Errors
    /// Where that does not come.
    pub fn until_whole(&self, replicas_of_each: usize) -> Result<(), String> {
        until("the Cluster is whole", || {
            for server in self.servers.iter().filter(|server| server.is_running()) {
                if info(server, "CLUSTER", "cluster_state")? != "ok"
                    || info(server, "CLUSTER", "cluster_slots_ok")? != SLOTS.to_string()
                {
                    return Ok(false);
                }
                let in_step = if info(server, "REPLICATION", "role")? == "master" {
                    let replicas = server.ask(&["INFO", "REPLICATION"])?;
                    replicas.matches("state=online").count() >= replicas_of_each
                } else {
                    info(server, "REPLICATION", "master_link_status")? == "up"
                };
                if !in_step {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
        format!("redis+cluster://{}", servers.join(","))
    }

    /// Which of the servers is the master of a key now, as the others see it.
    ///
    /// # Errors
    /// Where none says.
    pub fn master_of(&self, key: &str) -> Result<usize, String> {
        let slot = i64::from(slot(key));
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let Ok(redis::Value::Array(ranges)) = server.command(&[b"CLUSTER", b"SLOTS"]) else { continue };
            let port = ranges.iter().find_map(|range| {
                let redis::Value::Array(parts) = range else { return None };
                let [redis::Value::Int(first), redis::Value::Int(last), redis::Value::Array(master), ..] =
                    &parts[..]
                else {
                    return None;
                };
                let redis::Value::Int(port) = master.get(1)? else { return None };
                (*first <= slot && slot <= *last).then_some(*port)
            });
            if let Some(at) =
                port.and_then(|port| self.servers.iter().position(|s| i64::from(s.port()) == port))
            {
                return Ok(at);
            }
        }
        Err(format!("no server says who has {key}"))
    }

    /// Moves a key's slot from its master to another one, with all keys in it, as resharding does.
    ///
    /// # Errors
    /// What a server says.
    pub fn move_slot(&self, key: &str, to: usize) -> Result<(), String> {
        let from = self.master_of(key)?;
        let slot = slot(key).to_string();
        let (old, new) = (&self.servers[from], &self.servers[to]);
        let (old_id, new_id) = (old.ask(&["CLUSTER", "MYID"])?, new.ask(&["CLUSTER", "MYID"])?);
        new.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &old_id])?;
        old.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &new_id])?;
        loop {
            let keys = old.command(&[b"CLUSTER", b"GETKEYSINSLOT", slot.as_bytes(), b"100"])?;
            let keys: Vec<Vec<u8>> = redis::from_redis_value(keys).map_err(|error| error.to_string())?;
            if keys.is_empty() {
                break;
            }
            let port = new.port().to_string();
            let mut migrate: Vec<&[u8]> =
                vec![b"MIGRATE", b"127.0.0.1", port.as_bytes(), b"", b"0", b"5000", b"KEYS"];
            migrate.extend(keys.iter().map(Vec::as_slice));
            old.command(&migrate)?;
        }
        // The new master first, so that nobody is sent to and fro; the rest hear of it.
        new.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &new_id])?;
        old.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &new_id]).map(drop)
    }
}

fn start() -> Result<RedisServer, String> {
    RedisServer::start_as(false, |_| {
        let bus = free_port()?.to_string();
        let settings = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-port",
            &bus,
        ];
        Ok(settings.iter().map(|s| (*s).to_owned()).collect())
    })
}

/// One line of what a server says of itself.
fn info(server: &RedisServer, section: &str, name: &str) -> Result<String, String> {
    let text = match section {
        "CLUSTER" => server.ask(&["CLUSTER", "INFO"])?,
        "CONFIG" => {
            let pair = server.command(&[b"CONFIG", b"GET", name.as_bytes()])?;
            let pair: Vec<String> = redis::from_redis_value(pair).map_err(|error| error.to_string())?;
            return pair.into_iter().nth(1).ok_or_else(|| format!("no setting {name}"));
        }
        section => server.ask(&["INFO", section])?,
    };
    let line = text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
    line.map(str::to_owned).ok_or_else(|| format!("no {name} in {section}"))
}
