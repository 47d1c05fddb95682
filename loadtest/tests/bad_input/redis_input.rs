//! What a source may publish that it should not.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tictac_ingest::service::Window;
use tictac_ingest::testing::RedisServer;
use tictac_loadtest::request::get;

const WITHIN: Duration = Duration::from_secs(10);

/// One message of the source `bad`.
pub struct Message {
    pub input: &'static str,
    payload: Vec<u8>,
    pub wants: Vec<&'static str>,
}

fn row(input: &'static str, payload: impl Into<Vec<u8>>, wants: &[&'static str]) -> Message {
    Message { input, payload: payload.into(), wants: wants.to_vec() }
}

fn change(input: &'static str, selection: &str, wants: &[&'static str]) -> Message {
    let body =
        format!("{{\"op\":\"change\",\"market\":\"bad.1\",\"selections\":[{{\"id\":1,{selection}}}]}}");
    row(input, body, wants)
}

fn packed(value: &[u8]) -> Vec<u8> {
    let mut out = b"\x83\xa2op\xa6change\xa6market\xa5bad.1\xaaselections\x91\x82\xa2id\x01".to_vec();
    out.extend_from_slice(value);
    out
}

pub fn rows() -> Vec<Message> {
    let mut nan = packed(b"\xa4last\xcb");
    nan.extend_from_slice(&f64::NAN.to_be_bytes());
    let mut infinite = packed(b"\xa4last\xcb");
    infinite.extend_from_slice(&f64::INFINITY.to_be_bytes());
    let ten_megabytes = format!("{{\"op\":\"alive\",\"pad\":\"{}\"}}", "x".repeat(10 * 1024 * 1024));
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let levels: Vec<String> = (0..3000).map(|i| format!("[{}.01,1]", i + 1)).collect();
    let levels = format!("\"back\":[{}]", levels.join(","));
    let selections: Vec<String> = (0..1100).map(|i| format!("{{\"id\":{i}}}")).collect();
    let selections =
        format!("{{\"op\":\"change\",\"market\":\"bad.1\",\"selections\":[{}]}}", selections.join(","));
    let long = "x".repeat(65);
    let runner = |runner: &str| {
        format!("{{\"op\":\"mcm\",\"clk\":\"a\",\"pt\":1,\"mc\":[{{\"id\":\"1.9\",\"rc\":[{runner}]}}]}}")
    };
    let definition = "{\"op\":\"mcm\",\"clk\":\"a\",\"pt\":1,\"mc\":[{\"id\":\"1.9\",\"img\":true,\"marketDefinition\":\
        {\"status\":\"OPEN\",\"eventId\":\"bad-event\",\"eventTypeId\":\"1\",\"inPlay\":7,\"runners\":[{\"id\":1,\"status\":\"ACTIVE\"}]}}]}";
    vec![
        row("an empty message", "", &["syntax", "empty"]),
        row("text that is no JSON: `hello`", "hello", &["syntax", "MessagePack"]),
        row(
            "JSON cut short: `{\"op\":\"change\",\"market\":`",
            "{\"op\":\"change\",\"market\":",
            &["syntax", "EOF", "whole"],
        ),
        row(
            "two JSON documents in one message",
            "{\"op\":\"alive\"}{\"op\":\"alive\"}",
            &["syntax", "trailing"],
        ),
        row("bytes that are no UTF-8 in a JSON text", b"{\"op\":\"\xff\xfe\"}", &["syntax"]),
        row("MessagePack cut short", b"\x82\xa2op\xa5al", &["syntax", "MessagePack"]),
        row("a bare number in MessagePack", b"\x07", &["syntax", "an integer"]),
        row("10 MB in one message", ten_megabytes, &["too_large", "10485783", "8388608"]),
        row("300 arrays in each other", deep, &["value", "body[0]", "an array"]),
        row("an object with neither `body` nor `op`", "{\"price\":2.5}", &["value", "\"body\"", "\"op\""]),
        row(
            "an envelope whose `seq` is a text",
            "{\"src\":\"bad\",\"seq\":\"seven\",\"body\":{\"op\":\"alive\"}}",
            &["value", "seq", "seven"],
        ),
        row(
            "an envelope that says it is another source's",
            "{\"src\":\"good\",\"body\":{\"op\":\"alive\"}}",
            &["value", "src", "good", "bad"],
        ),
        row(
            "an unknown operation: `\"op\":\"bet\"`",
            "{\"op\":\"bet\",\"market\":\"bad.1\"}",
            &["operation", "bet"],
        ),
        row("an operation that is a number: `\"op\":5`", "{\"op\":5}", &["operation", "5"]),
        row("a list with a number in it: `[5]`", "[5]", &["value", "body[0]", "an integer"]),
        row(
            "a change of a market that was never defined",
            "{\"op\":\"change\",\"market\":\"nobody\",\"status\":\"open\"}",
            &["unknown_market", "nobody", "send op market"],
        ),
        row(
            "`gone` of an unknown market",
            "{\"op\":\"gone\",\"market\":\"nobody\"}",
            &["unknown_market", "nobody"],
        ),
        row(
            "another source's market, imaged",
            "{\"op\":\"market\",\"market\":\"good.1\",\"event\":\"good-event\",\"status\":\"suspended\"}",
            &["foreign_market", "good.1", "good", "bad"],
        ),
        row(
            "another source's market, imaged with an event of its own",
            "{\"op\":\"market\",\"market\":\"good.1\",\"event\":\"mine\",\"status\":\"suspended\"}",
            &["foreign_market", "good.1"],
        ),
        row(
            "another source's market, changed after that",
            "{\"op\":\"change\",\"market\":\"good.1\",\"status\":\"closed\"}",
            &["foreign_market", "good.1"],
        ),
        row(
            "another source's market, `gone`",
            "{\"op\":\"gone\",\"market\":\"good.1\"}",
            &["foreign_market", "good.1"],
        ),
        row("a market without an id", "{\"op\":\"market\"}", &["value", "no market"]),
        row(
            "a market whose id has 65 bytes",
            format!("{{\"op\":\"market\",\"market\":\"{long}\"}}"),
            &["too_large", "65 bytes", "64"],
        ),
        row(
            "a market with a price exponent of 40",
            "{\"op\":\"market\",\"market\":\"bad.2\",\"price_exponent\":40}",
            &["value", "price_exponent", "40"],
        ),
        row(
            "a market with an unknown status, `\"ajar\"`",
            "{\"op\":\"market\",\"market\":\"bad.1\",\"event\":\"bad-event\",\"status\":\"ajar\",\"selections\":[{\"id\":1}]}",
            &["value", "ajar", "suspended"],
        ),
        change(
            "a size below zero: `[2.5,-1]`",
            "\"back\":[[2.5,-1]]",
            &["value", "selections[0].back[0]", "-1", "negative"],
        ),
        change("a price below zero: `[-2.5,1]`", "\"back\":[[-2.5,1]]", &["value", "-2.5", "negative"]),
        change(
            "a price off the scale: `[2.505,1]`",
            "\"back\":[[2.505,1]]",
            &["value", "2.505", "scale", "exponent 2"],
        ),
        change("a price beyond 2^53: `[1e300,1]`", "\"back\":[[1e300,1]]", &["value", "1e300", "2^53"]),
        change("a price that is a word: `[\"evens\",1]`", "\"back\":[[\"evens\",1]]", &["value", "evens"]),
        change("a level of three values: `[2.5,1,1]`", "\"back\":[[2.5,1,1]]", &["value", "3 values"]),
        change("a ladder that is a text", "\"back\":\"2.5\"", &["value", "back", "a text"]),
        change("`NaN` in JSON", "\"last\":NaN", &["syntax"]),
        row("`NaN` in MessagePack", nan, &["value", "last", "NaN"]),
        row("infinity in MessagePack", infinite, &["value", "last", "inf"]),
        change("3000 levels on one side", &levels, &["too_large", "3000", "2048"]),
        row("1100 selections", selections, &["too_large", "1100", "1024"]),
        change(
            "a selection's unknown status, `\"lame\"`",
            "\"status\":\"lame\"",
            &["value", "lame", "hidden"],
        ),
        row(
            "a selection without an id",
            "{\"op\":\"change\",\"market\":\"bad.1\",\"selections\":[{\"name\":\"Reds\"}]}",
            &["value", "selections[0].id"],
        ),
        row(
            "a change of scale by a change",
            "{\"op\":\"change\",\"market\":\"bad.1\",\"size_exponent\":4}",
            &["value", "size_exponent", "4"],
        ),
        row(
            "a stop whose list is a text",
            "{\"op\":\"stop\",\"event\":\"bad-event\",\"markets\":\"bad.1\"}",
            &["value", "markets", "the whole event is stopped"],
        ),
        row("a stop without an event", "{\"op\":\"stop\"}", &["value", "no event"]),
        row(
            "`mcm` cut short",
            "{\"op\":\"mcm\",\"pt\":1,\"mc\":[{\"id\":\"1.9\",\"rc\":[{\"id",
            &["syntax", "JSON", "whole"],
        ),
        row("`mcm`: markets that are a text", "{\"op\":\"mcm\",\"mc\":\"x\"}", &["mc"]),
        row("`mcm`: a definition whose `inPlay` is a number", definition, &["inPlay", "7"]),
        row("`mcm`: a last price that is a text", runner("{\"id\":1,\"ltp\":\"evens\"}"), &["ltp", "evens"]),
        row("`mcm`: a size below zero", runner("{\"id\":1,\"atb\":[[2.5,-3]]}"), &["-3"]),
        row("`mcm`: a runner without an id", runner("{\"ltp\":2.5}"), &["id"]),
    ]
}

/// Publishes as the source `bad` and looks at what ingest makes of it.
pub struct Sender {
    redis: MultiplexedConnection,
    window: Window,
}

impl Sender {
    pub async fn new(server: &RedisServer, window: Window) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        Self { redis: client.get_multiplexed_async_connection().await.unwrap(), window }
    }

    async fn problems(&self) -> (u64, Option<String>) {
        let look = self.window.look(|engine| {
            let count = engine.problems().counts().map(|c| c.2).sum();
            let of = |s: &&tictac_ingest::engine::Seen| &*s.source == "bad";
            let last = engine.problems().last().filter(of).last();
            (
                count,
                last.map(|s| {
                    let (kind, at) = (s.problem.kind.label(), &s.problem.at);
                    let begin: String = s.problem.excerpt.chars().take(40).collect();
                    let input = if begin.is_empty() { String::new() } else { format!("; input `{begin}`") };
                    format!("`{kind}` at `{at}`: {}{input}", s.problem.why)
                }),
            )
        });
        look.await.expect("ingest runs")
    }

    /// What could not be read at all may have been anything: the source's market is stale until it is imaged.
    pub async fn is_stale_until_imaged(&mut self, address: &str) {
        self.until_feed(address, "stale").await;
        let image =
            "{\"op\":\"market\",\"market\":\"bad.1\",\"event\":\"bad-event\",\"selections\":[{\"id\":1}]}";
        self.publish(image.as_bytes()).await;
        let image = "{\"op\":\"mcm\",\"mc\":[{\"id\":\"1.9\",\"img\":true,\"marketDefinition\":{\"eventId\":\"bad-event\"}}]}";
        self.publish(image.as_bytes()).await;
        self.until_feed(address, "live").await;
    }

    async fn until_feed(&self, address: &str, state: &str) {
        let deadline = tokio::time::Instant::now() + WITHIN;
        loop {
            let document = get(address, "/v1/markets/bad.1", &[]).await.unwrap().json().unwrap();
            if document["feed"] == state {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "bad.1 is not {state}: {document}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn publish(&mut self, payload: &[u8]) {
        let publish = redis::cmd("PUBLISH").arg("odds:in:bad").arg(payload).to_owned();
        let heard: i64 = publish.query_async(&mut self.redis).await.unwrap();
        assert!(heard > 0, "ingest listens");
    }

    /// The problem that a message makes.
    pub async fn get(&mut self, message: &Message) -> String {
        let (before, _) = self.problems().await;
        self.publish(&message.payload).await;
        let deadline = tokio::time::Instant::now() + WITHIN;
        loop {
            match self.problems().await {
                (count, Some(last)) if count > before => return last,
                _ if tokio::time::Instant::now() > deadline => return "nothing".into(),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}
