//! The users that `deploy/users.acl` makes, over a real Redis with only those: each does all of its work and nothing else.

use std::path::Path;
use std::time::Duration;

use tictac_ingest::log::{Batch, LogError, LogReader, LogWriter, Owner, RedisLog, RedisSettings};
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::testing::RedisServer;
use tictac_proto::wire::FeedState;

use crate::follow::Gateway;
use crate::over_redis::{Process, SHARDS, Source, same};

fn refused(url: &str, command: &[&str]) -> String {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut sent = redis::cmd(command[0]);
    for part in &command[1..] {
        sent.arg(*part);
    }
    sent.query::<redis::Value>(&mut connection).expect_err("it is refused").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_does_its_work_and_nothing_else() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let (users, conf) = (shipped.join("users.acl"), shipped.join("redis.conf"));
    let server = RedisServer::start_with(&["--aclfile", users.to_str().unwrap()]).unwrap();
    assert!(std::fs::read_to_string(conf).unwrap().contains("maxmemory-policy noeviction"));
    let ingest = server.url_of("tictac-ingest", "CHANGE-ME-INGEST");
    let gateway = server.url_of("tictac-gateway", "CHANGE-ME-GATEWAY");
    let source = server.url_of("tictac-source", "CHANGE-ME-SOURCE");
    let settings =
        |url: &str| RedisSettings { lease: Duration::from_millis(1_500), ..RedisSettings::new(url) };

    // All of it works: a channel and a stream, a market's whole life, an operator.
    let process = Process::with(&settings(&ingest), &["streamed"]);
    let mut said = Source::at(&source, "demo").await;
    said.heard().await;
    let mut added = Source::at(&source, "streamed").await;
    let reader = LogReader::from(RedisLog::new(settings(&gateway)).unwrap());
    let mut follower = Gateway::new(&reader, SHARDS);
    let mut simulator = Simulator::new(3, Config::default());
    let mut updates = Vec::new();
    simulator.advance(1_764_000_000_000, &mut updates);
    said.say(&updates).await;
    added.add(&[]).await;
    follower
        .until("books and feeds", |g| {
            same(&simulator, &g.books())
                && g.feed("demo") == FeedState::Live
                && g.feed("streamed") == FeedState::Live
        })
        .await;
    let log = LogWriter::from(RedisLog::new(settings(&ingest)).unwrap());
    assert!(log.ledger().await.unwrap().is_empty());

    // A gateway only reads.
    for command in [
        &["SET", "odds:{0}:own", "x"][..],
        &["XADD", "odds:{0}:log", "*", "e", "x"],
        &["PUBLISH", "odds:{0}:live", "x"],
        &["FCALL", "tictac_release_4", "0"],
        &["SUBSCRIBE", "odds:in:demo"],
        &["CONFIG", "GET", "*"],
        &["GET", "other"],
    ] {
        let why = refused(&gateway, command);
        assert!(why.contains("NOPERM") || why.to_lowercase().contains("permission"), "{command:?}: {why}");
    }
    let writer = LogWriter::from(RedisLog::new(settings(&gateway)).unwrap());
    let error = writer.append(0, &Owner { id: "x".into(), slot: 1 }, Batch::default()).await.unwrap_err();
    let LogError::Unexpected(why) = &error else { panic!("{error}") };
    assert!(why.contains("tictac-gateway") || why.to_lowercase().contains("permission"), "{why}");
    // A source says what it says, and hears what is said to it.
    for command in [
        &["PUBLISH", "odds:{0}:live", "x"][..],
        &["PUBLISH", "odds:operator", "{}"],
        &["XADD", "odds:{0}:log", "*", "e", "x"],
        &["XRANGE", "odds:in:demo", "-", "+"],
        &["MGET", "odds:{0}:ep"],
    ] {
        let why = refused(&source, command);
        assert!(why.contains("NOPERM") || why.to_lowercase().contains("permission"), "{command:?}: {why}");
    }
    for command in [&["FLUSHALL"][..], &["CONFIG", "SET", "maxmemory", "1"], &["SET", "other", "x"]] {
        let why = refused(&ingest, command);
        assert!(why.contains("NOPERM") || why.to_lowercase().contains("permission"), "{command:?}: {why}");
    }
    process.stop().await;
}

/// With the shipped users and settings a replica has its copy, and takes the place of a master that dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_users_and_settings_fail_over() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let line = |file: &str, begins: &str| -> Vec<String> {
        let text = std::fs::read_to_string(shipped.join(file)).unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(begins))
            .unwrap_or_else(|| panic!("{begins} in {file}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (user, auth) = (line("redis.conf", "masteruser"), line("redis.conf", "masterauth"));
    let users = shipped.join("users.acl");
    let as_replica =
        ["--aclfile", users.to_str().unwrap(), "--masteruser", &user[1], "--masterauth", &auth[1]];
    let quick = ["--repl-diskless-sync-delay", "0"];
    let mut master = RedisServer::start_with(&[&as_replica[..], &quick].concat()).unwrap();
    let port = master.port().to_string();
    let of_it = ["--replicaof", "127.0.0.1", &port];
    let replica = RedisServer::start_with(&[&as_replica[..], &quick, &of_it].concat()).unwrap();
    let sentinel = RedisServer::start_sentinel(&[
        &format!("sentinel monitor odds 127.0.0.1 {port} 1"),
        "sentinel down-after-milliseconds odds 1000",
        "sentinel failover-timeout odds 4000",
        &line("sentinel.conf", "sentinel auth-user").join(" "),
        &line("sentinel.conf", "sentinel auth-pass").join(" "),
    ])
    .unwrap();
    let says = |what: &[&[u8]]| format!("{:?}", sentinel.command(what).unwrap());
    let until = async |what: &str, so: &dyn Fn() -> bool| {
        let asked = async {
            while !so() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap_or_else(|_| panic!("{what}"));
    };
    let replicas = || says(&[b"SENTINEL", b"REPLICAS", b"odds"]);
    until("the replica is in step", &|| {
        replicas().contains("master-link-status'), bulk-string('\"ok") || replicas().contains("\"ok\"")
    })
    .await;
    let url = format!("redis+sentinel://tictac-ingest:CHANGE-ME-INGEST@127.0.0.1:{}/odds", sentinel.port());
    let log = LogWriter::from(RedisLog::new(RedisSettings::new(&url)).unwrap());
    let owner = Owner { id: "a".into(), slot: 1 };
    let before = log.acquire(0, &owner, 0, 1_764_000_000_000).await.unwrap().epoch;
    master.kill();
    let named = || says(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"odds"]);
    until("the replica is named", &|| named().contains(&replica.port().to_string())).await;
    let again = async {
        loop {
            match log.acquire(0, &owner, before, 1_764_000_000_000).await {
                Ok(acquired) => return acquired.epoch,
                Err(LogError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), again).await.expect("it goes on there") > before);
}
