//! A Redis of any kind, with its servers as processes.

use tictac_ingest::testing::{RedisCluster, RedisServer, SentinelRedis};

pub enum Store {
    One(RedisServer),
    /// Two servers, one the other's replica, and three Sentinels.
    Sentinel(SentinelRedis),
    /// Three masters, each with a replica.
    Cluster(RedisCluster),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    One,
    Sentinel,
    Cluster,
}

impl Store {
    pub fn start(kind: StoreKind) -> Self {
        match kind {
            StoreKind::One => Self::One(RedisServer::start().unwrap()),
            StoreKind::Sentinel => Self::Sentinel(SentinelRedis::start().unwrap()),
            StoreKind::Cluster => Self::Cluster(RedisCluster::start(1).unwrap()),
        }
    }

    /// The address of all of it.
    pub fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::Sentinel(sentinel) => sentinel.url(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    /// Its servers.
    pub fn servers(&self) -> &[RedisServer] {
        match self {
            Self::One(server) => std::slice::from_ref(server),
            Self::Sentinel(sentinel) => &sentinel.servers,
            Self::Cluster(cluster) => &cluster.servers,
        }
    }

    /// The only server.
    pub fn one(&mut self) -> &mut RedisServer {
        let Self::One(server) = self else { panic!("not one server") };
        server
    }

    /// The master of a shard.
    pub fn master_of(&mut self, shard: u16) -> &mut RedisServer {
        match self {
            Self::One(server) => server,
            Self::Sentinel(sentinel) => {
                let at = sentinel.master().unwrap();
                &mut sentinel.servers[at]
            }
            Self::Cluster(cluster) => {
                let at = cluster.master_of(&format!("odds:{{{shard}}}:n")).unwrap();
                &mut cluster.servers[at]
            }
        }
    }

    /// Whoever was killed or stopped goes on, and all is whole again.
    pub fn revive(&mut self) {
        let servers = match self {
            Self::One(server) => std::slice::from_mut(server),
            Self::Sentinel(sentinel) => &mut sentinel.servers[..],
            Self::Cluster(cluster) => &mut cluster.servers[..],
        };
        for server in servers {
            if server.is_running() {
                server.hang(false);
            } else {
                server.restart().unwrap();
            }
        }
        self.until_whole();
    }

    /// Waits until all is as it was at the beginning, but for who is whose replica.
    pub fn until_whole(&self) {
        match self {
            Self::One(_) => {}
            Self::Sentinel(sentinel) => sentinel.until_whole().unwrap(),
            Self::Cluster(cluster) => cluster.until_whole(1).unwrap(),
        }
    }

    /// Where a source publishes: whichever of these it can.
    pub fn doors(&self) -> Doors {
        match self {
            Self::One(server) => Doors::Servers(vec![client(server)]),
            Self::Sentinel(sentinel) => Doors::Sentinels(sentinel.sentinels.iter().map(client).collect()),
            Self::Cluster(cluster) => Doors::Servers(cluster.servers.iter().map(client).collect()),
        }
    }
}

fn client(server: &RedisServer) -> redis::Client {
    redis::Client::open(server.url()).unwrap()
}

/// How a source that is not ours finds the server to publish to: in the plainest way.
#[derive(Clone)]
pub enum Doors {
    /// Any of these.
    Servers(Vec<redis::Client>),
    /// The master that the first of these to answer names.
    Sentinels(Vec<redis::Client>),
}

impl Doors {
    /// Those that may be knocked at now, the one at `turn` first.
    pub async fn now(&self, turn: usize) -> redis::RedisResult<redis::Client> {
        match self {
            Self::Servers(all) => Ok(all[turn % all.len()].clone()),
            Self::Sentinels(all) => {
                let mut connection = all[turn % all.len()].get_multiplexed_async_connection().await?;
                let mut command = redis::cmd("SENTINEL");
                command.arg("GET-MASTER-ADDR-BY-NAME").arg("odds");
                let (host, port): (String, u16) = command.query_async(&mut connection).await?;
                redis::Client::open(format!("redis://{host}:{port}"))
            }
        }
    }
}
