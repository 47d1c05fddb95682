//! What a client may send over a WebSocket that it should not.

use std::time::Duration;

use tictac_proto::wire::{Codec, Down};

use crate::healthy::{MARKET, MARKETS};
use crate::socket::{Got, Socket, frame};

const WITHIN: Duration = Duration::from_secs(20);

/// What ends a row.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// So many refusals; after them the connection must still answer a ping.
    Refused(usize),
    /// A close.
    Closed,
}

/// One client's bytes.
pub struct Client {
    pub input: &'static str,
    codec: Codec,
    bytes: Vec<u8>,
    end: End,
    pub wants: Vec<&'static str>,
}

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const JSON: Codec = Codec::Json;

fn refused(input: &'static str, message: &str, wants: &[&'static str]) -> Client {
    let bytes = frame(TEXT, message.as_bytes(), true);
    Client { input, codec: JSON, bytes, end: End::Refused(1), wants: wants.to_vec() }
}

fn packed(input: &'static str, message: &[u8], wants: &[&'static str]) -> Client {
    let bytes = frame(BINARY, message, true);
    Client { input, codec: Codec::Msgpack, bytes, end: End::Refused(1), wants: wants.to_vec() }
}

fn closed(input: &'static str, bytes: Vec<u8>, wants: &[&'static str]) -> Client {
    Client { input, codec: JSON, bytes, end: End::Closed, wants: wants.to_vec() }
}

fn times(n: usize, message: &str) -> Vec<u8> {
    frame(TEXT, message.as_bytes(), true).repeat(n)
}

pub fn rows() -> Vec<Client> {
    let bad = "`bad_message`";
    let long = "x".repeat(65);
    let all: Vec<String> = (1..=MARKETS).map(|i| format!("\"good.{i}\"")).collect();
    let subscribe = format!("{{\"t\":\"sub\",\"id\":1,\"markets\":[\"{MARKET}\"],\"w\":3}}");
    let snapshot = format!("{{\"t\":\"snapshot\",\"m\":\"{MARKET}\",\"w\":3}}");
    let mut snapshots = frame(TEXT, subscribe.as_bytes(), true);
    // The burst is twice the rate; what comes after it is refused.
    snapshots.extend(times(25, &snapshot));
    let scopes: Vec<u8> = (0..65)
        .flat_map(|i| {
            frame(TEXT, format!("{{\"t\":\"sub\",\"id\":{i},\"event\":\"e{i}\"}}").as_bytes(), true)
        })
        .collect();
    let mut fragmented = frame(0x01, &[b' '; 10_000], true);
    fragmented.extend(frame(0x80, &[b' '; 10_000], true));
    let sub = |more: &str| format!("{{\"t\":\"sub\",\"id\":1,\"markets\":[\"{MARKET}\"],{more}}}");
    vec![
        refused("text that is no JSON: `hello`", "hello", &[bad, "hello"]),
        refused("JSON cut short: `{\"t\":`", "{\"t\":", &[bad, "EOF"]),
        refused("an empty text", "", &[bad, "EOF"]),
        refused("an array: `[1]`", "[1]", &[bad, "`t`"]),
        refused("no `t`", "{\"id\":1}", &[bad, "`t`", "missing"]),
        refused("an unknown type, `\"bet\"`", "{\"t\":\"bet\"}", &[bad, "`t`", "bet"]),
        refused("a type that goes down, `\"snap\"`", "{\"t\":\"snap\"}", &[bad, "`t`", "snap"]),
        refused("a fraction: `\"time\":1.5`", "{\"t\":\"ping\",\"time\":1.5}", &[bad, "1.5"]),
        refused(
            "a number beyond 2^53",
            "{\"t\":\"ping\",\"time\":9007199254740992}",
            &[bad, "9007199254740992"],
        ),
        refused("a ping without `time`", "{\"t\":\"ping\"}", &[bad, "`time`", "missing"]),
        refused(
            "20 arrays in each other",
            &format!("{}{}", "[".repeat(20), "]".repeat(20)),
            &[bad, "deeper", "8"],
        ),
        refused("`sub` without `id`", "{\"t\":\"sub\",\"markets\":[\"good.1\"]}", &[bad, "`id`", "missing"]),
        refused(
            "`sub` of no market: `\"markets\":[]`",
            "{\"t\":\"sub\",\"id\":1,\"markets\":[]}",
            &[bad, "`markets`"],
        ),
        refused("`sub` of markets and an event at once", &sub("\"event\":\"e\""), &[bad, "exactly one of"]),
        refused(
            "`sub` of a market whose id has 65 bytes",
            &format!("{{\"t\":\"sub\",\"id\":1,\"markets\":[\"{long}\"]}}"),
            &[bad, "`markets`", "64", "65"],
        ),
        refused("`sub` with view 2", &sub("\"w\":2"), &[bad, "`w`", "2", "1, 3, 10"]),
        refused(
            "`snapshot` with view 2",
            "{\"t\":\"snapshot\",\"m\":\"good.1\",\"w\":2}",
            &[bad, "`w`", "2"],
        ),
        refused("`sub` with view `\"most\"`", &sub("\"w\":\"most\""), &[bad, "`w`", "most"]),
        refused("`sub` with `\"conflate\":50`", &sub("\"conflate\":50"), &[bad, "`conflate`", "50", "100"]),
        refused(
            "`sub` from a position below zero",
            &sub("\"from\":{\"good.1\":[1,-5]}"),
            &[bad, "`from`", "-5"],
        ),
        refused("`sub` from shard 70000", &sub("\"shards\":[[70000,1,1]]"), &[bad, "`shards`", "70000"]),
        refused(
            "`sub` of an unknown market",
            "{\"t\":\"sub\",\"id\":8,\"markets\":[\"no-such\"]}",
            &["`unknown_market`", "no-such", "id 8", "GET /v1/markets"],
        ),
        refused(
            "`sub` of one market more than is allowed (4 here)",
            &format!("{{\"t\":\"sub\",\"id\":9,\"markets\":[{}]}}", all.join(",")),
            &["`too_many_subscriptions`", "good.5", "id 9", "4", "unsubscribe"],
        ),
        Client {
            input: "`sub` of 65 events",
            codec: JSON,
            bytes: scopes,
            end: End::Refused(1),
            wants: vec!["`too_many_subscriptions`", "64", "id 64"],
        },
        refused(
            "`snapshot` of a market that is not subscribed",
            "{\"t\":\"snapshot\",\"m\":\"good.2\",\"w\":0}",
            &["`bad_request`", "good.2", "view 0", "`sub` first"],
        ),
        Client {
            input: "binary in a JSON session: byte 0xc1",
            codec: JSON,
            bytes: frame(BINARY, b"\xc1", true),
            end: End::Refused(1),
            wants: vec![bad, "line 1"],
        },
        packed("MessagePack session: byte 0xc1", b"\xc1", &[bad, "0xc1"]),
        packed("MessagePack session: a map cut short", b"\x82\x00", &[bad, "2 items"]),
        packed("MessagePack session: a double", b"\x82\x00\x04\x18\xcb\x3f\xf8\0\0\0\0\0\0", &[bad, "0xcb"]),
        packed(
            "MessagePack session: an array of 2^32 - 1 items",
            b"\xdd\xff\xff\xff\xff",
            &[bad, "4294967295"],
        ),
        packed("MessagePack session: an unknown type, 99", b"\x81\x00\x63", &[bad, "`t`", "99"]),
        packed("MessagePack session: JSON", b"{\"t\":\"ping\",\"time\":1}", &[bad]),
        packed(
            "MessagePack session: a text that is no UTF-8",
            b"\x82\x00\x03\x01\xa2\xff\xfe",
            &[bad, "UTF-8"],
        ),
        Client {
            input: "25 `snapshot` at once (20 are a burst)",
            codec: JSON,
            bytes: snapshots,
            end: End::Refused(5),
            wants: vec!["`rate_limited`", "10 snapshots a second", "retry 1000"],
        },
        closed("21 unreadable messages in a row", times(21, "hello"), &["4400", "hello"]),
        closed(
            "200 messages at once, then more",
            times(200, "{\"t\":\"ping\",\"time\":1}"),
            &["4429", "50 messages a second"],
        ),
        closed(
            "a text of 20 KB (16 KB are allowed)",
            frame(TEXT, &[b' '; 20_000], true),
            &["4413", "20000", "16384"],
        ),
        closed("a text of 20 KB in two fragments", fragmented, &["4413", "20000"]),
        closed(
            "a frame that says it has 2^62 bytes",
            b"\x81\xff\x40\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            &["4413"],
        ),
        closed("an unmasked frame", frame(TEXT, b"{\"t\":\"ping\",\"time\":1}", false), &["1002", "mask"]),
        closed("a reserved opcode", frame(0x83, b"x", true), &["1002", "3"]),
        closed("a reserved bit", frame(0xF1, b"x", true), &["1002", "eserved"]),
        closed("a ping frame of 126 bytes", frame(0x89, &[b'x'; 126], true), &["1002", "ontrol"]),
        closed("a continuation of nothing", frame(0x80, b"x", true), &["1002"]),
        closed("a text that is no UTF-8", frame(TEXT, b"\xff\xfe", true), &["1007", "UTF-8"]),
    ]
}

impl Client {
    /// What the client gets, as the document says it.
    pub async fn get(&self, address: &str) -> String {
        let mut socket = Socket::open(address, self.codec).await;
        socket.send(&self.bytes).await;
        let (mut refusals, mut farewell, mut first) = (0, None, String::new());
        loop {
            let Some(got) = socket.next(WITHIN).await else { return format!("nothing more after: {first}") };
            match got {
                Got::Message(Down::Err(problem)) => {
                    refusals += 1;
                    let of = problem.id.map_or(String::new(), |id| format!(", id {id}"));
                    let market = problem.market.map_or(String::new(), |m| format!(", market {m}"));
                    let retry = problem.retry.map_or(String::new(), |ms| format!(", retry {ms}"));
                    first = format!("`err` `{}`: {}{of}{market}{retry}", problem.code.name(), problem.why);
                    if self.end == End::Refused(refusals) {
                        return if self.answers(&mut socket).await {
                            first
                        } else {
                            format!("{first}; then closed")
                        };
                    }
                }
                Got::Message(Down::Bye { code, why, .. }) => farewell = Some((code, why)),
                Got::Message(_) => {}
                Got::Close(code, why) => {
                    let bye = farewell.is_some_and(|bye| bye.0 == code && bye.1.starts_with(&why));
                    let bye = if bye { "`bye` and " } else { "" };
                    return format!("{bye}close {code}: {why}");
                }
                Got::End => return format!("cut without a close frame; {first}"),
            }
        }
    }

    /// Whether the connection goes on.
    async fn answers(&self, socket: &mut Socket) -> bool {
        let ping = self.codec.encode(&tictac_proto::wire::Up::Ping { time: 77, read: None });
        let first = if self.codec == JSON { TEXT } else { BINARY };
        socket.send(&frame(first, &ping, true)).await;
        loop {
            match socket.next(WITHIN).await {
                Some(Got::Message(Down::Hb(beat))) if beat.echo == Some(77) => return true,
                Some(Got::Message(_)) => {}
                _ => return false,
            }
        }
    }
}
