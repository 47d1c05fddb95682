//! The operator's switch over a real Redis: by the admin port and by command, known to every ingest, and not forgotten by any
//! death.

use tictac_ingest::log::{LogReader, LogWriter, RedisLog};
use tictac_ingest::operator::{Act, Action};
use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::testing::RedisServer;
use tictac_proto::model::{MarketId, MarketStatus};
use tictac_proto::wire::FeedState;

use crate::follow::Gateway;
use crate::over_memory::{ask, get};
use crate::over_redis::{Process, SHARDS, Source, redis};

fn post(body: &str, headers: &str) -> String {
    let length = body.len();
    format!(
        "POST /operator HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

const JSON: &str = "content-type: application/json\r\n";

fn count(server: &RedisServer, command: &[u8], key: &[u8]) -> i64 {
    redis::from_redis_value(server.command(&[command, key]).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_suspends_stays_so_through_takeovers_and_a_redis_that_forgets() {
    let mut server = RedisServer::start().unwrap();
    let owner = Process::start(&server);
    let mut source = Source::new(&server, "demo").await;
    source.heard().await;
    let mut gateway = Gateway::new(&LogReader::from(RedisLog::new(redis(&server)).unwrap()), SHARDS);
    let mut simulator = Simulator::new(3, Config::default());
    let mut updates = Vec::new();
    simulator.advance(1_764_000_000_000, &mut updates);
    source.say(&updates).await;
    gateway.until("all is there", |g| g.books().len() == simulator.truth().count()).await;
    let standby = Process::start(&server);
    let open: Vec<MarketId> = simulator
        .truth()
        .filter(|(_, market)| market.status() == MarketStatus::Open)
        .map(|(id, _)| id.clone())
        .collect();
    let held = open[0].clone();
    let only_held = |g: &Gateway| {
        let books = g.books();
        let is = |id: &MarketId, status| books.get(id).is_some_and(|book| book.status() == status);
        is(&held, MarketStatus::Suspended) && open[1..].iter().all(|id| is(id, MarketStatus::Open))
    };
    gateway.until("they are open", |g| g.books()[&held].status() == MarketStatus::Open).await;

    // Not by a page, and not by nobody.
    let admin = owner.admin(&server).await;
    let act =
        format!("{{\"action\":\"suspend\",\"scope\":\"market:{held}\",\"by\":\"ann\",\"why\":\"test\"}}");
    for (request, status) in [
        (post(&act, ""), "415"),
        (post(&act, &format!("{JSON}origin: http://evil.example\r\n")), "415"),
        (post("{}", JSON), "400"),
        (post(&act.replace("market:", "markt:"), JSON), "400"),
        (post(&act.replace("ann", ""), JSON), "400"),
        (post(&" ".repeat(10_000), JSON), "400"),
    ] {
        let answer = ask(admin, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    assert!(get(admin, "/operator").await.ends_with("[]"));
    assert_eq!(count(&server, b"XLEN", b"odds:{cat}:audit"), 0);

    let answer = ask(admin, &post(&act, JSON)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    gateway.until("it is suspended", only_held).await;
    assert!(get(admin, "/operator").await.contains("\"by\":\"ann\""));
    assert_eq!(count(&server, b"XLEN", b"odds:{cat}:audit"), 1);
    let mut images = Vec::new();
    simulator.images(&mut images);
    source.say(&images).await;

    standby.is_warm().await;
    let before = gateway.followers[&0].at().epoch;
    owner.kill();
    gateway.until("taken over", |g| g.followers.values().all(|f| f.at().epoch > before)).await;
    source.say(&images).await;
    gateway.until("live", |g| g.feed("demo") == FeedState::Live).await;
    assert!(only_held(&gateway));

    server.restart().unwrap();
    source = Source::after(&server, source).await;
    source.heard().await;
    source.say(&images).await;
    gateway.until("live again", |g| g.feed("demo") == FeedState::Live && only_held(g)).await;
    let stored = async {
        while count(&server, b"HLEN", b"odds:{cat}:ledger") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), stored).await.expect("it is stored again");

    let log = LogWriter::from(RedisLog::new(redis(&server)).unwrap());
    let at = tictac_ingest::clock::now_ms();
    let resume = |at| Act {
        action: Action::Resume,
        scope: format!("market:{held}"),
        by: "bob".into(),
        why: String::new(),
        at,
    };
    assert_eq!(log.act(&resume(1), true).await, Ok(false), "a later act counts");
    assert_eq!(log.act(&resume(at), true).await, Ok(true));
    gateway.until("open", |g| g.books()[&held].status() == MarketStatus::Open).await;
    assert!(log.ledger().await.unwrap().is_empty());

    // A wish for an image: only that market waits.
    let image = Act { action: Action::Image, at: at + 1, ..resume(at) };
    assert_eq!(log.act(&image, true).await, Ok(true));
    gateway.until("only it waits for its image", |g| only_held(g) && g.feed("demo") == FeedState::Live).await;
    source.say(&images).await;
    gateway.until("imaged", |g| g.books()[&held].status() == MarketStatus::Open).await;
    standby.stop().await;
}
