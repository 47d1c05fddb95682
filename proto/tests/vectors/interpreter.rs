//! PROTOCOL.md §3 to §5 once more, in the plainest way, over JSON values: what vectors expect comes from here and not
//! from the code that they test. The tables are written out for the same reason.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

pub(crate) const MARKET: &[(&str, &str)] = &[
    ("event", "text"),
    ("event_name", "text"),
    ("sport", "text"),
    ("competition", "text"),
    ("venue", "text"),
    ("start", "int"),
    ("score", "text"),
    ("clock", "text"),
    ("source", "text"),
    ("type", "text"),
    ("name", "text"),
    ("line", "text"),
    ("kind", "enum"),
    ("price_kind", "enum"),
    ("price_exponent", "int"),
    ("size_kind", "enum"),
    ("size_exponent", "int"),
    ("currency", "text"),
    ("ticks", "text"),
    ("winners", "int"),
    ("each_way", "int"),
    ("version", "int"),
    ("status", "enum"),
    ("reason", "text"),
    ("in_play", "bool"),
    ("bet_delay", "int"),
    ("matched", "int"),
    ("suspensions", "int"),
    ("crossed", "bool"),
];

pub(crate) const SELECTION: &[(&str, &str)] = &[
    ("name", "text"),
    ("sort", "int"),
    ("status", "enum"),
    ("adjustment", "int"),
    ("last", "int"),
    ("volume", "int"),
    ("sp_near", "int"),
    ("sp_far", "int"),
    ("sp", "int"),
    ("price", "int"),
    ("native", "text"),
    ("max_stake", "int"),
    ("probability", "int"),
    ("void_factor", "int"),
    ("dead_heat", "int"),
    ("certainty", "int"),
];

pub(crate) const ENUMS: &[(&str, &[&str])] = &[
    ("status", &["inactive", "open", "suspended", "closed", "settled", "void", "handed_over"]),
    ("selection_status", &["active", "removed", "winner", "loser", "placed", "void", "hidden"]),
    ("kind", &["ladder", "fixed"]),
    ("price_kind", &["odds", "probability", "line"]),
    ("size_kind", &["stake", "payout", "contracts"]),
    ("feed", &["live", "recovering", "stale", "down"]),
];

/// CRC-32C, a bit at a time.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The digest of a session's positions.
pub(crate) fn digest(positions: &[(String, u64, u64)]) -> u32 {
    const TWO_32: u64 = 1 << 32;
    let times = |a: u64, b: u64| (u128::from(a) * u128::from(b) % u128::from(TWO_32)) as u64;
    let mut sum = 0;
    for (market, view, seq) in positions {
        let k = u64::from(crc32c(format!("{market}|{view}").as_bytes()));
        let mut h = k ^ times(seq % TWO_32, 0x9E37_79B1) ^ times(seq / TWO_32, 0x85EB_CA77);
        h = times(h ^ h >> 16, 0x85EB_CA6B);
        h = times(h ^ h >> 13, 0xC2B2_AE35);
        h ^= h >> 16;
        sum = (sum + h) % TWO_32;
    }
    sum as u32
}

type Fields = BTreeMap<usize, Json>;

#[derive(Debug, Clone, Default)]
struct Seen {
    fields: Fields,
    sides: BTreeMap<&'static str, BTreeMap<i64, i64>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    fields: Fields,
    selections: BTreeMap<(i64, i64), Seen>,
}

fn number(v: &Json) -> i64 {
    v.as_i64().expect("an integer")
}

fn pair(v: &Json) -> (i64, i64) {
    (number(&v[0]), number(&v[1]))
}

fn list(v: &Json) -> &[Json] {
    v.as_array().map_or(&[], Vec::as_slice)
}

fn apply_field(fields: &mut Fields, table: &[(&str, &str)], name: &str, value: &Json) {
    // What is in no table is a key of a later version.
    let Some(place) = table.iter().position(|f| f.0 == name) else { return };
    if value.is_null() {
        fields.remove(&place);
    } else {
        fields.insert(place, value.clone());
    }
}

impl Held {
    pub(crate) fn apply(&mut self, message: &Json) {
        for key in list(&message["x"]) {
            self.selections.remove(&pair(key));
        }
        for (name, value) in message["d"].as_object().into_iter().flatten() {
            apply_field(&mut self.fields, MARKET, name, value);
        }
        for item in list(&message["r"]) {
            let seen = self.selections.entry(pair(item)).or_default();
            for (name, value) in item[2].as_object().expect("a selection's map") {
                let side = ["b", "l", "v"].into_iter().find(|s| name.to_lowercase() == *s);
                let Some(side) = side else {
                    apply_field(&mut seen.fields, SELECTION, name, value);
                    continue;
                };
                let levels = seen.sides.entry(side).or_default();
                if name != side {
                    levels.clear();
                }
                for level in list(value) {
                    match pair(level) {
                        (price, 0) => levels.remove(&price),
                        (price, size) => levels.insert(price, size),
                    };
                }
            }
        }
    }

    fn field(&self, name: &str) -> Option<&Json> {
        self.fields.get(&MARKET.iter().position(|f| f.0 == name).expect("a field"))
    }

    pub(crate) fn canonical(&self, market: &str, view: u64) -> String {
        let write = |fields: &Fields, table: &[(&str, &str)], status: &str| {
            let mut out = String::new();
            for (place, value) in fields {
                let (name, kind) = table[*place];
                let names = |of: &str| ENUMS.iter().find(|e| e.0 == of).expect("an enumeration").1;
                out += &match (kind, value) {
                    ("text", Json::String(text)) => format!("{place}~{};", crc32c(text.as_bytes())),
                    ("bool", Json::Bool(v)) => format!("{place}={};", i64::from(*v)),
                    ("enum", Json::String(text)) => {
                        let names = names(if name == "status" { status } else { name });
                        format!("{place}={};", names.iter().position(|n| n == text).expect("a name"))
                    }
                    (_, value) => format!("{place}={};", number(value)),
                };
            }
            out
        };
        let mut out = format!("{market}|{view}|{}", write(&self.fields, MARKET, "status"));
        let odds = self.field("price_kind") != Some(&json!("probability"));
        for ((id, handicap), seen) in &self.selections {
            out += &format!("[{id}/{handicap}|{}", write(&seen.fields, SELECTION, "selection_status"));
            for (side, falling) in [("b", odds), ("l", !odds), ("v", false)] {
                if side == "v" && view != 0 {
                    continue;
                }
                let mut levels: Vec<_> = seen.sides.get(side).into_iter().flatten().collect();
                if falling {
                    levels.reverse();
                }
                if view != 0 {
                    levels.truncate(view as usize);
                }
                out += &format!("{side}:");
                for (price, size) in levels {
                    out += &format!("{price}@{size},");
                }
            }
            out += "]";
        }
        out
    }
}

/// One market and view as a client that follows the document holds it.
pub(crate) struct Follower {
    market: String,
    view: u64,
    held: Option<(Held, (i64, i64))>,
    stop: Option<(i64, i64)>,
    gap: bool,
    feed: String,
    source: Option<String>,
    shard: Option<i64>,
    promised: Option<(i64, i64)>,
}

impl Follower {
    pub(crate) fn new(market: &str, view: u64) -> Self {
        let feed = "live".to_owned();
        Self {
            market: market.to_owned(),
            view,
            held: None,
            stop: None,
            gap: false,
            feed,
            source: None,
            shard: None,
            promised: None,
        }
    }

    pub(crate) fn crc(&self) -> Option<u32> {
        let (held, _) = self.held.as_ref()?;
        Some(crc32c(held.canonical(&self.market, self.view).as_bytes()))
    }

    fn raise(&mut self, stop: (i64, i64)) -> bool {
        let higher = self.stop.is_none_or(|s| s < stop);
        if higher {
            self.stop = Some(stop);
        }
        higher
    }

    fn told(&mut self, message: &Json) {
        self.feed = message["f"].as_str().expect("a feed state").to_owned();
        self.shard = message["sh"].as_i64();
    }

    fn delta(&mut self, message: &Json) -> &'static str {
        let (epoch, seq) = (number(&message["e"]), number(&message["s"]));
        let Some((held, position)) = &mut self.held else { return "gap" };
        if epoch < position.0 || epoch == position.0 && seq <= position.1 {
            return "dropped";
        }
        if self.gap || epoch > position.0 || number(&message["p"]) > position.1 {
            self.gap = true;
            return "gap";
        }
        held.apply(message);
        *position = (epoch, seq);
        "applied"
    }

    fn handle(&mut self, message: &Json) -> &'static str {
        let at = || (number(&message["e"]), number(&message["s"]));
        match message["t"].as_str().expect("a type") {
            "snap" => {
                if message.get("st").is_some() {
                    self.raise(pair(&message["st"]));
                }
                if self.held.as_ref().is_some_and(|h| h.1 > at()) {
                    return "dropped";
                }
                let mut held = Held::default();
                held.apply(message);
                self.held = Some((held, at()));
                self.gap = false;
                self.told(message);
                "replaced"
            }
            "delta" => self.delta(message),
            "stop" if self.raise(at()) => "stopped",
            "stop" => "dropped",
            "ok" => {
                if message.get("st").is_some() {
                    self.raise(pair(&message["st"]));
                }
                self.source = message["src"].as_str().map(str::to_owned);
                self.promised = (message["how"] != "exact").then(at);
                self.told(message);
                "noted"
            }
            "feed" => {
                let field = self.held.as_ref().and_then(|h| h.0.field("source")?.as_str());
                let source = field.or(self.source.as_deref());
                if source == message["src"].as_str() && self.shard == message["sh"].as_i64() {
                    self.feed = message["f"].as_str().expect("a feed state").to_owned();
                }
                "noted"
            }
            "gap" => {
                self.gap = true;
                "gap"
            }
            "gone" => {
                self.held = None;
                self.gap = false;
                "noted"
            }
            "crc" if self.gap || self.held.as_ref().is_none_or(|h| h.1 != at()) => "noted",
            "crc" if self.crc() == message["c"].as_u64().map(|c| c as u32) => "checked",
            "crc" => {
                self.gap = true;
                "mismatch"
            }
            other => panic!("{other} is not followed"),
        }
    }

    /// What the vector expects after this message.
    pub(crate) fn expect(&mut self, message: &Json) -> Json {
        let result = self.handle(message);
        let open = self.held.as_ref().is_some_and(|h| h.0.field("status") == Some(&json!("open")));
        let position = self.held.as_ref().map(|h| h.1);
        let tradable =
            open && self.feed == "live" && !self.gap && position >= self.stop && position >= self.promised;
        json!({
            "result": result,
            "position": position.map(|p| [p.0, p.1]),
            "stop": self.stop.map(|s| [s.0, s.1]),
            "crc": self.crc(),
            "tradable_market": tradable,
        })
    }
}
