//! What a client says first: the request for its connection, and where it stands.

use tictac_proto::model::MarketId;
use tictac_proto::position::Position;
use tictac_proto::wire::Codec;

use super::client::Held;
use super::judge::Judge;
use super::{Plan, Transport, events};

/// The first that a client says.
pub(super) fn asked(plan: &Plan, held: &[Held], judge: &Judge) -> Vec<u8> {
    let address = plan.address;
    if plan.transport == Transport::Sse && !plan.floor {
        let markets = held.iter().map(|held| judge.market(held.place));
        let query = events::query(markets, plan.view, plan.conflate, &known(held, judge));
        return format!("GET /v1/sse?{query} HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes();
    }
    let protocol = match plan.codec {
        Codec::Json => "odds.v1.json",
        Codec::Msgpack => "odds.v1.msgpack",
    };
    // The key is not random: nobody caches here, and a server may not care.
    format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGljdGFjdGljdGFjdGljdA==\r\nsec-websocket-protocol: {protocol}\r\n\r\n"
    )
    .into_bytes()
}

/// Where it stands, of the markets that it has.
pub(super) fn known(held: &[Held], judge: &Judge) -> Vec<(MarketId, Position)> {
    let known = held.iter().filter(|held| !held.at.is_zero());
    known.map(|held| (judge.market(held.place).clone(), held.at)).collect()
}
