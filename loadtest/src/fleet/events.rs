//! Server-sent events: the request for a stream, and events as they lie in a buffer, where nothing is copied.

use tictac_gateway::transports::sse::market_cursor;
use tictac_proto::model::{MarketId, View};
use tictac_proto::position::Position;
use tictac_proto::wire::Conflate;

use super::frames::Cut;
use crate::request::encoded;

/// Most markets of one stream.
pub const MOST_MARKETS: usize = 200;
/// What the names of a stream's markets may take, bytes: a request has room for them twice, with positions.
pub const MOST_NAMES: usize = 4 * 1024;

/// What a stream's request asks for: these markets, from where the client stands with those that it has.
pub fn query<'a>(
    markets: impl Iterator<Item = &'a MarketId>,
    view: View,
    conflate: Conflate,
    known: &[(MarketId, Position)],
) -> String {
    let markets: Vec<String> = markets.map(|market| encoded(market)).collect();
    let mut query = format!(
        "market={}&view={}&conflate={}",
        markets.join(","),
        view.depth().map_or("all".to_owned(), |depth| depth.to_string()),
        match conflate {
            Conflate::Raw => "raw".to_owned(),
            Conflate::Auto => "auto".to_owned(),
            Conflate::Every(ms) => ms.to_string(),
        }
    );
    if !known.is_empty() {
        query.push_str("&cursor=");
        query.push_str(&encoded(&market_cursor(known)));
    }
    query
}

/// The event at the beginning of a buffer. One without data, and a comment, says nothing and is told as a control of 0.
#[must_use]
pub fn cut(buffer: &[u8]) -> Cut<'_> {
    let (mut at, mut data) = (0, None);
    loop {
        let rest = &buffer[at..];
        let Some(length) = memchr::memchr(b'\n', rest) else { return Cut::More };
        let line = &rest[..length];
        at += length + 1;
        if line.is_empty() {
            return match data {
                Some(data) => Cut::Data(data, at),
                None => Cut::Control(0, &[], at),
            };
        }
        if let Some(value) = line.strip_prefix(b"data: ")
            && data.replace(value).is_some()
        {
            return Cut::Bad("an event with two lines of data, which no gateway sends");
        }
    }
}

#[cfg(test)]
mod tests {
    use tictac_gateway::transports::sse::{form_pairs, resume_from};

    use super::*;

    #[test]
    fn every_prefix_of_an_event_is_more_and_the_whole_is_its_data() {
        let event = b"event: delta\nid: 1:0.5.a\ndata: {\"t\":\"delta\"}\n\n";
        for end in 0..event.len() {
            assert_eq!(cut(&event[..end]), Cut::More, "{end}");
        }
        let mut two = event.to_vec();
        two.extend_from_slice(b": a comment\n\nretry: 500\n\n");
        assert_eq!(cut(&two), Cut::Data(b"{\"t\":\"delta\"}", event.len()));
        assert_eq!(cut(&two[event.len()..]), Cut::Control(0, &[], 13));
        assert_eq!(cut(&two[event.len() + 13..]), Cut::Control(0, &[], 12));
    }

    #[test]
    fn a_request_says_what_it_wants_whatever_the_markets_are_called() {
        let odd: MarketId = "a&b c!d+e%f".into();
        let known = [(odd.clone(), Position::new(5, 77))];
        let query = query([&odd].into_iter(), View::Three, Conflate::Every(250), &known);
        let pairs: Vec<_> = form_pairs(&query).collect();
        assert_eq!(pairs[0], ("market".to_owned(), odd.to_string()));
        assert_eq!(resume_from(Some(&pairs[3].1)).markets.to_vec(), known);
        assert!(query.contains("&view=3&conflate=250&"), "{query}");
    }

    #[test]
    fn two_lines_of_data_are_bad() {
        assert!(matches!(cut(b"data: 1\ndata: 2\n\n"), Cut::Bad(_)));
    }
}
