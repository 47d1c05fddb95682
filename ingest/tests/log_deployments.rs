//! The log in each kind of Redis deployment, while its servers come and go: Sentinel's masters, a Cluster's, and slots that
//! move. All real.
#![allow(clippy::unwrap_used)]

mod log_bench;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use log_bench::*;
use tictac_ingest::log::{LiveEvent, LogError, LogReader, LogWriter, RedisLog, RedisSettings, TlsFiles};
use tictac_ingest::testing::{RedisCluster, RedisServer, SentinelRedis};
use tictac_proto::log::Live;
use tictac_proto::position::Position;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

fn log(url: String) -> RedisLog {
    let lease = Duration::from_secs(20);
    RedisLog::new(RedisSettings { lease, deadline: Duration::from_millis(500), ..RedisSettings::new(url) })
        .unwrap()
}

/// Writes until the log takes it: while servers change places it can't be reached, or has lost what came last, the
/// epoch too: as the engine does, it says which one it has seen.
async fn write(scribe: &mut Scribe, price: i64) {
    let begun = Instant::now();
    let seen = scribe.at.epoch;
    loop {
        let mut again =
            Scribe::acquire_after(scribe.log.clone(), scribe.owner.clone(), scribe.shard, seen).await;
        if let Ok((next, _)) = &mut again {
            next.image("m").change("m", price, 1);
            if next.write().await.is_ok() {
                *scribe = again.unwrap().0;
                return;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "shard {}: {:?}", scribe.shard, again.err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits for an entry at a position; what comes before it may be lost.
async fn heard(events: &mut mpsc::Receiver<LiveEvent>, shard: u16, at: Position) {
    let hear = async {
        loop {
            if let LiveEvent::Message { shard: of, bytes } = next(events).await
                && let Live::Entry(entry) = Live::decode(&bytes).unwrap()
                && (of, entry.at) == (shard, at)
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, hear).await.unwrap();
}

/// Waits until shards are followed (again).
async fn followed(events: &mut mpsc::Receiver<LiveEvent>, mut shards: Vec<u16>) {
    let all = async {
        while !shards.is_empty() {
            match next(events).await {
                LiveEvent::Subscribed { shard } => shards.retain(|s| *s != shard),
                LiveEvent::Lost { reason, .. } => println!("not yet: {reason}"),
                LiveEvent::Message { .. } => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
}

fn live_key(shard: u16) -> String {
    format!("odds:{{{shard}}}:live")
}

/// Two shards of different masters: the first's, and the second's.
fn shards_of_two_masters(cluster: &RedisCluster) -> [(u16, usize); 2] {
    let of = |shard: u16| (shard, cluster.master_of(&live_key(shard)).unwrap());
    let first = of(0);
    [first, (1..64).map(of).find(|other| other.1 != first.1).unwrap()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_s_master_dies_and_its_shards_go_on_at_its_replica() {
    let mut cluster = RedisCluster::start(1).unwrap();
    let [(hit, master), (spared, _)] = shards_of_two_masters(&cluster);
    let (handle, mut events) = LogReader::from(log(cluster.url())).live(10_000);
    handle.follow(hit);
    handle.follow(spared);
    followed(&mut events, vec![hit, spared]).await;
    let writer = LogWriter::from(log(cluster.url()));
    let (mut one, _) = Scribe::acquire(writer.clone(), owner("a", 1), hit).await.unwrap();
    let (mut two, _) = Scribe::acquire(writer.clone(), owner("a", 1), spared).await.unwrap();
    one.image("m").write().await.unwrap();
    two.image("m").write().await.unwrap();
    heard(&mut events, hit, one.at).await;
    two.change("m", 99, 1).write().await.unwrap();
    heard(&mut events, spared, two.at).await;
    let epoch = one.at.epoch;

    cluster.servers[master].kill();
    let LiveEvent::Lost { shards, .. } = next(&mut events).await else { panic!("its shards are lost first") };
    assert_eq!(shards, [hit], "and no others");
    // Nobody else's shard notices.
    two.change("m", 100, 1).write().await.unwrap();
    heard(&mut events, spared, two.at).await;

    followed(&mut events, vec![hit]).await;
    write(&mut one, 200).await;
    assert!(one.at.epoch > epoch);
    assert_ne!(cluster.master_of(&live_key(hit)).unwrap(), master);
    one.change("m", 201, 1).write().await.unwrap();
    heard(&mut events, hit, one.at).await;

    // The old master is back as a replica, and everything goes on where it is.
    cluster.servers[master].restart().unwrap();
    cluster.until_whole(0).unwrap();
    one.change("m", 202, 1).write().await.unwrap();
    heard(&mut events, hit, one.at).await;
    let read = LogReader::from(log(cluster.url())).tail(hit, Position::new(one.at.epoch, 0)).await.unwrap();
    assert_eq!(read.head, one.at);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed_and_nothing_is_refused() {
    let cluster = RedisCluster::start(0).unwrap();
    let [(moving, from), (other, to)] = shards_of_two_masters(&cluster);
    assert_ne!(from, to);
    let (handle, mut events) = LogReader::from(log(cluster.url())).live(10_000);
    handle.follow(moving);
    handle.follow(other);
    followed(&mut events, vec![moving, other]).await;
    let writer = LogWriter::from(log(cluster.url()));
    let (mut scribe, _) = Scribe::acquire(writer, owner("a", 1), moving).await.unwrap();
    scribe.image("m").store("m").write().await.unwrap();
    let epoch = scribe.at.epoch;

    cluster.move_slot(&live_key(moving), to).unwrap();
    // The writer is sent on, the same epoch goes on, and whoever follows is at the new place.
    scribe.change("m", 300, 1).write().await.unwrap();
    followed(&mut events, vec![moving]).await;
    scribe.change("m", 301, 1).write().await.unwrap();
    heard(&mut events, moving, scribe.at).await;
    assert_eq!(scribe.at.epoch, epoch);
    let tail = LogReader::from(log(cluster.url())).tail(moving, Position::new(epoch, 0)).await.unwrap();
    assert!(tail.complete && tail.entries.len() == 3, "{tail:?}");
}

/// Commands on many keys are refused by both servers meanwhile, as Redis does it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_on_its_way_is_away_until_it_is_there() {
    let cluster = RedisCluster::start(0).unwrap();
    let [(moving, from), (_, to)] = shards_of_two_masters(&cluster);
    let key = live_key(moving);
    let slot = cluster.servers[from].command(&[b"CLUSTER", b"KEYSLOT", key.as_bytes()]).unwrap();
    let slot: String = redis::from_redis_value::<i64>(slot).unwrap().to_string();
    let id = |at: usize| {
        let id = cluster.servers[at].command(&[b"CLUSTER", b"MYID"]).unwrap();
        redis::from_redis_value::<String>(id).unwrap()
    };
    let set = |at: usize, how: &str, id: &str| {
        let words = ["CLUSTER", "SETSLOT", &slot, how, id];
        cluster.servers[at].command(&words.map(str::as_bytes)).unwrap();
    };
    set(to, "IMPORTING", &id(from));
    set(from, "MIGRATING", &id(to));
    let writer = LogWriter::from(log(cluster.url()));
    let refused = writer.acquire(moving, &owner("a", 1), 0, NOW).await;
    assert!(matches!(refused, Err(LogError::Unavailable(_))), "{refused:?}");
    set(to, "NODE", &id(to));
    set(from, "NODE", &id(to));
    let (mut scribe, _) = Scribe::acquire(writer, owner("a", 1), moving).await.unwrap();
    scribe.image("m").store("m").write().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_s_master_dies_and_the_log_goes_on_at_the_next() {
    let mut redis = SentinelRedis::start().unwrap();
    let (handle, mut events) = LogReader::from(log(redis.url())).live(10_000);
    handle.follow(0);
    followed(&mut events, vec![0]).await;
    let writer = LogWriter::from(log(redis.url()));
    let (mut scribe, _) = Scribe::acquire(writer, owner("a", 1), 0).await.unwrap();
    scribe.image("m").write().await.unwrap();
    heard(&mut events, 0, scribe.at).await;
    let epoch = scribe.at.epoch;

    let old = redis.master().unwrap();
    redis.servers[old].kill();
    lost(&mut events).await;
    followed(&mut events, vec![0]).await;
    write(&mut scribe, 200).await;
    assert!(scribe.at.epoch > epoch);
    assert_ne!(redis.master().unwrap(), old);
    scribe.change("m", 201, 1).write().await.unwrap();
    heard(&mut events, 0, scribe.at).await;
    // The old one is back, empty: nobody takes it for the master, though the Sentinels have not told it yet.
    redis.servers[old].restart().unwrap();
    for price in 202..212 {
        scribe.change("m", price, 1).write().await.unwrap();
        heard(&mut events, 0, scribe.at).await;
    }
    redis.until_whole().unwrap();
}

/// The worst: a master that is cut off from everybody but us, and answers. Here it is the Sentinels that are told of
/// another one, by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_still_answers_is_left_when_sentinels_name_another() {
    let redis = SentinelRedis::start().unwrap();
    let old = redis.master().unwrap();
    let (handle, mut events) = LogReader::from(log(redis.url())).live(10_000);
    handle.follow(0);
    followed(&mut events, vec![0]).await;
    let reader = LogReader::from(log(redis.url()));
    reader.tail(0, Position::ZERO).await.unwrap();
    // They forget it and watch the other server, which is made a master; the old one hears nothing of it.
    let next = 1 - old;
    redis.servers[next].command(&[b"REPLICAOF", b"NO", b"ONE"]).unwrap();
    let port = redis.servers[next].port().to_string();
    for sentinel in &redis.sentinels {
        sentinel.command(&[b"SENTINEL", b"REMOVE", b"odds"]).unwrap();
        sentinel.command(&[b"SENTINEL", b"MONITOR", b"odds", b"127.0.0.1", port.as_bytes(), b"2"]).unwrap();
    }
    lost(&mut events).await;
    followed(&mut events, vec![0]).await;
    let writer = LogWriter::from(log(redis.url()));
    let (mut scribe, _) = Scribe::acquire(writer, owner("a", 1), 0).await.unwrap();
    scribe.image("m").write().await.unwrap();
    heard(&mut events, 0, scribe.at).await;
    // What only reads leaves, too, even in the middle of a call.
    let begun = Instant::now();
    while reader.tail(0, Position::ZERO).await.ok().map(|tail| tail.head) != Some(scribe.at) {
        assert!(begun.elapsed() < PATIENCE, "still at the old master");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server that answers pings and brings nothing, though somebody owns the shard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_deaf_is_made_anew() {
    let server = RedisServer::start().unwrap();
    let (handle, mut events) = LogReader::from(log(server.url())).live(100);
    handle.follow(0);
    followed(&mut events, vec![0]).await;
    // Nobody owns it: silence is as it should be. An owner that says nothing stands for one that is not heard.
    server.command(&[b"SET", b"odds:{0}:own", b"somebody"]).unwrap();
    let begun = Instant::now();
    let LiveEvent::Lost { reason, .. } = next(&mut events).await else { panic!("a loss was expected") };
    assert!(reason.contains("brings nothing"), "{reason}");
    assert!(begun.elapsed() > Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(10));
    followed(&mut events, vec![0]).await;
}

#[tokio::test]
async fn an_address_of_one_server_of_a_cluster_says_what_to_write() {
    let cluster = RedisCluster::start(0).unwrap();
    for server in &cluster.servers {
        let reader = LogReader::from(log(server.url()));
        match reader.tail(0, Position::ZERO).await {
            Ok(tail) => assert!(tail.head.is_zero(), "it has the shard itself"),
            Err(LogError::Unexpected(why)) => assert!(why.contains("redis+cluster://"), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(RedisLog::new(RedisSettings::new("redis+sentinel://127.0.0.1:1/")).is_err());
}

/// A certificate of a new authority, and one of each side that it signed, written to files.
struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write("ca.pem", authority.self_signed(&key).unwrap().pem());
        let authority = Issuer::new(authority, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            // One that is called as its authority would look like one that vouches for itself.
            params.distinguished_name.push(DnType::CommonName, name);
            write(&format!("{name}.pem"), params.signed_by(&key, &authority).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_show_certificates_and_who_has_none_is_refused() {
    let (trusted, other) = (Certificates::new(), Certificates::new());
    let port = tictac_ingest::testing::free_port().unwrap().to_string();
    let (cert, key, ca) = (trusted.text("server.pem"), trusted.text("server.key"), trusted.text("ca.pem"));
    let settings = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key];
    let server = RedisServer::start_with(&[&settings[..], &["--tls-ca-cert-file", &ca]].concat()).unwrap();
    let log = |tls: TlsFiles| {
        let url = format!("rediss://localhost:{port}");
        let deadline = Duration::from_secs(1);
        RedisLog::new(RedisSettings { tls, deadline, lease: PATIENCE, ..RedisSettings::new(url) })
    };
    let identity = |of: &Certificates| Some((of.path("client.pem"), of.path("client.key")));
    let good = TlsFiles { ca: Some(trusted.path("ca.pem")), identity: identity(&trusted) };
    let writer = LogWriter::from(log(good.clone()).unwrap());
    let (handle, mut events) = LogReader::from(log(good.clone()).unwrap()).live(100);
    handle.follow(0);
    followed(&mut events, vec![0]).await;
    let (mut scribe, _) = Scribe::acquire(writer, owner("a", 1), 0).await.unwrap();
    scribe.image("m").write().await.unwrap();
    heard(&mut events, 0, scribe.at).await;

    // A server that somebody else vouches for; a client that shows nothing, or what somebody else signed.
    for (wrong, what) in [
        (TlsFiles { ca: Some(other.path("ca.pem")), ..good.clone() }, "another authority"),
        (TlsFiles { ca: None, ..good.clone() }, "the system's authorities"),
        (TlsFiles { identity: None, ..good.clone() }, "no certificate"),
        (TlsFiles { identity: identity(&other), ..good.clone() }, "a certificate of another authority"),
    ] {
        let refused = LogReader::from(log(wrong).unwrap()).tail(0, Position::ZERO).await;
        assert!(matches!(refused, Err(LogError::Unavailable(_))), "{what}: {refused:?}");
    }
    // What is no certificate is said before anything is connected to.
    let wrong = log(TlsFiles { ca: Some(trusted.path("server.key")), identity: None }).map(drop);
    assert!(matches!(wrong, Err(LogError::Unexpected(_))), "{wrong:?}");
    drop(server);
}

/// What is shipped is what these servers take.
#[test]
fn the_shipped_settings_start() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for name in ["redis.conf", "redis-cluster.conf", "sentinel.conf"] {
        let directory = tempfile::tempdir().unwrap();
        for file in ["redis.conf", name] {
            std::fs::copy(shipped.join(file), directory.path().join(file)).unwrap();
        }
        // Port 0 listens nowhere: a server's socket says that it is up, a Sentinel ends with what it dislikes.
        let socket = directory.path().join("socket");
        let mut command = std::process::Command::new("redis-server");
        command.arg(name).current_dir(&directory).args(["--port", "0", "--unixsocket"]).arg(&socket);
        if name == "sentinel.conf" {
            command.arg("--sentinel");
        }
        let mut server = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while !socket.exists() {
            assert_eq!(server.try_wait().unwrap(), None, "{name} is refused");
            assert!(begun.elapsed() < PATIENCE, "{name}: no socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
