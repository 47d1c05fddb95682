//! Server-sent events: the query that opens a stream, its first bytes, and the id that brings a client back to where it was.

use tictac_proto::limits::MAX_ID;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::{Conflate, Resume, Scope, Subscribe};

/// Largest id of an event, bytes. Shards beyond it come back with snapshots.
const MAX_TOKEN: usize = 2048;
/// Largest cursor that a client may bring, bytes: it may name markets.
const MAX_CURSOR: usize = 8192;
/// Most `market=` of one request.
const MAX_MARKETS: usize = 200;

/// What a request for a stream asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseRequest {
    /// Subscriptions to make, in order.
    pub subscriptions: Vec<Subscribe>,
    /// Whether the catalogue is wanted.
    pub catalogue: bool,
}

/// Reads the query of `/v1/sse`; `last_event_id` is the header of a client that comes back.
///
/// # Errors
/// If a value is none, naming it.
pub fn request(query: &str, last_event_id: Option<&str>) -> Result<SseRequest, String> {
    let mut markets = Vec::new();
    let mut scopes = Vec::new();
    let mut view = View::All;
    let mut conflate = Conflate::Auto;
    let mut cursor = None;
    let mut request = SseRequest::default();
    for (name, value) in form_pairs(query) {
        match name.as_str() {
            "market" => markets.extend(value.split(',').map(str::to_owned)),
            "event" => scopes.push(Scope::Event(value.as_str().into())),
            "sport" => scopes.push(Scope::Sport(value.as_str().into())),
            "view" => {
                view = View::from_name(&value)
                    .ok_or_else(|| format!("view={value}: a view is 1, 3, 10 or all"))?;
            }
            "conflate" => {
                conflate = Conflate::from_name(&value)
                    .ok_or_else(|| format!("conflate={value}: raw, auto, 100, 250, 500 or 1000"))?;
            }
            "cursor" => cursor = Some(value),
            "catalogue" => request.catalogue = value != "0",
            _ => {}
        }
    }
    if let Some(id) = markets.iter().find(|m| m.is_empty() || m.len() > MAX_ID) {
        return Err(format!("market={id}: an id has 1 to {MAX_ID} bytes"));
    }
    if markets.len() > MAX_MARKETS {
        return Err(format!("{} markets are asked for, {MAX_MARKETS} fit one stream", markets.len()));
    }
    let resume = resume_from(last_event_id.or(cursor.as_deref()));
    if !markets.is_empty() {
        scopes.push(Scope::Markets(markets.iter().map(|m| m.as_str().into()).collect()));
    }
    if scopes.is_empty() && !request.catalogue {
        return Err("nothing is asked for: give market=, event=, sport= or catalogue=1".into());
    }
    for (id, scope) in scopes.into_iter().enumerate() {
        request.subscriptions.push(Subscribe {
            id: id as i64 + 1,
            scope,
            view,
            conflate,
            resume: resume.clone(),
        });
    }
    Ok(request)
}

/// The pairs of a query, decoded; what is not decodable stays as it is.
pub fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    query.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), decoded(value, true))
    })
}

/// Undoes percent-encoding, and in a form also `+` for a space.
#[must_use]
pub fn decoded(text: &str, form: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(if form && bytes[i] == b'+' { b' ' } else { bytes[i] });
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The id that marks where a session stands: `1:` and for each shard `shard.epoch.n`, numbers in base 36.
#[must_use]
pub fn token(positions: &[(u16, Position)]) -> String {
    let mut token = String::from("1:");
    for (shard, at) in positions {
        let part = format!("{}.{}.{}", base36(u64::from(*shard)), base36(at.epoch), base36(at.seq));
        if token.len() + part.len() + 1 > MAX_TOKEN {
            break;
        }
        if token.len() > 2 {
            token.push(',');
        }
        token.push_str(&part);
    }
    token
}

/// A cursor of a client that comes from another transport and knows where each market stands: `1:` and for each market
/// `market!epoch!n`, numbers in base 36; what the id has of `%`, `,` and `!` is percent-encoded.
#[must_use]
pub fn market_cursor(positions: &[(MarketId, Position)]) -> String {
    let part = |(market, at): &(MarketId, Position)| {
        let market = market.replace('%', "%25").replace(',', "%2C").replace('!', "%21");
        format!("{market}!{}!{}", base36(at.epoch), base36(at.seq))
    };
    format!("1:{}", positions.iter().map(part).collect::<Vec<_>>().join(","))
}

/// Reads an id leniently: whatever does not parse is as if it were not there, and its markets start with snapshots.
#[must_use]
pub fn resume_from(token: Option<&str>) -> Resume {
    let mut resume = Resume::default();
    let Some(parts) = token.filter(|t| t.len() <= MAX_CURSOR).and_then(|t| t.trim().strip_prefix("1:"))
    else {
        return resume;
    };
    let number = |digits: &str| u64::from_str_radix(digits, 36).ok();
    for part in parts.split(',') {
        if let Some((market, at)) = part.split_once('!') {
            let at =
                at.split_once('!').and_then(|(epoch, n)| Some(Position::new(number(epoch)?, number(n)?)));
            let market = decoded(market, false);
            if let Some(at) = at.filter(|_| (1..=MAX_ID).contains(&market.len())) {
                resume.markets.push((market.as_str().into(), at));
            }
            continue;
        }
        let mut numbers = part.split('.').map(number);
        if let (Some(Some(shard)), Some(Some(epoch)), Some(Some(n)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
            && let Ok(shard) = u16::try_from(shard)
        {
            resume.shards.push((shard, Position::new(epoch, n)));
        }
    }
    resume
}

fn base36(mut v: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(v % 36) as usize]);
        v /= 36;
        if v == 0 {
            break;
        }
    }
    digits.iter().rev().map(|d| char::from(*d)).collect()
}

/// The first bytes of a stream: when to come back (spread by `spread`, 0–4000 ms), and enough for proxies that buffer.
#[must_use]
pub fn preamble(spread: u64) -> String {
    format!("retry: {}\n\n:{:2048}\n\n", 1000 + spread.min(4000), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_went() {
        let positions = vec![(0, Position::new(1 << 52, 7)), (63, Position::new(5, 1 << 50))];
        let resume = resume_from(Some(&token(&positions)));
        assert_eq!(resume.shards.to_vec(), positions);
        assert!(resume_from(Some("1:x.y")).is_empty());
        assert!(resume_from(Some("rubbish")).is_empty());
        assert!(resume_from(None).is_empty());
        let many: Vec<_> = (0..2000).map(|s| (s, Position::new(1 << 52, 1 << 52))).collect();
        let token = token(&many);
        assert!(token.len() <= MAX_TOKEN);
        assert!(resume_from(Some(&token)).shards.len() > 50);
    }

    #[test]
    fn a_cursor_may_name_markets() {
        let positions: Vec<(MarketId, Position)> =
            vec![("1.234".into(), Position::new(1 << 52, 7)), ("a,b!50%".into(), Position::new(3, 1 << 40))];
        let resume = resume_from(Some(&market_cursor(&positions)));
        assert_eq!((resume.markets.to_vec(), resume.shards.len()), (positions, 0));
        // As the browser's module writes it.
        let resume = resume_from(Some("1:1.234!18ce53un18g!7,a%2cb%2150%25!3!z"));
        let positions: Vec<(MarketId, Position)> =
            vec![("1.234".into(), Position::new(1 << 52, 7)), ("a,b!50%".into(), Position::new(3, 35))];
        assert_eq!(resume.markets.to_vec(), positions);
        let lenient = resume_from(Some("1:0.1.2,m!x!-,!1!1,m!1!z"));
        assert_eq!(lenient.markets.to_vec(), [("m".into(), Position::new(1, 35))]);
        assert_eq!(lenient.shards.to_vec(), [(0, Position::new(1, 2))]);
        assert!(resume_from(Some(&format!("1:{}", "m!1!1,".repeat(2000)))).is_empty(), "too long");
    }

    #[test]
    fn a_query_names_what_is_wrong() {
        let asked = request("market=1.2,1.3&view=3&conflate=250&market=a%2Eb", None).unwrap();
        let [subscribe] = &asked.subscriptions[..] else { panic!("one subscription") };
        assert_eq!(subscribe.scope, Scope::Markets(vec!["1.2".into(), "1.3".into(), "a.b".into()]));
        assert_eq!((subscribe.view, subscribe.conflate), (View::Three, Conflate::Every(250)));
        assert!(request("", None).unwrap_err().contains("nothing is asked for"));
        assert!(request("market=1&view=7", None).unwrap_err().contains("view=7"));
        assert!(request("market=", None).is_err());
        assert!(request("catalogue=1", None).unwrap().catalogue);
    }
}
