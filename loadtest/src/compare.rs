//! A client's book against what `GET /v1/markets/{id}` says at the same position.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value as Json;
use tictac_proto::model::{Book, MarketId, SelectionKey, Side, View};
use tictac_proto::position::Position;

use crate::request::get;
use crate::websocket::WsClient;

/// Compares a document with a book: status, in-play, and every level of what the view shows.
///
/// # Errors
/// If something differs, naming it.
pub fn compare(document: &Json, book: &Book, view: View) -> anyhow::Result<()> {
    let market = document["id"].as_str().unwrap_or("?");
    if document["status"] != book.status().name() || document["in_play"] != book.in_play() {
        bail!(
            "{market}: the document is {} in play {}, the book differs",
            document["status"],
            document["in_play"]
        );
    }
    let selections = document["selections"].as_array().context("no selections")?;
    if selections.len() != book.selections.len() {
        bail!("{market}: {} selections, the book has {}", selections.len(), book.selections.len());
    }
    for selection in selections {
        let id = selection["id"].as_i64().context("no id")?;
        let key = SelectionKey { id, handicap: selection["handicap"].as_i64().unwrap_or(0) };
        let held =
            book.selections.get(&key).with_context(|| format!("{market}: {key:?} is not in the book"))?;
        for (side, name) in Side::ALL.into_iter().zip(["back", "lay", "traded"]) {
            let Some(levels) = selection.get(name) else { continue };
            let mine: Vec<Json> = view
                .levels(held.ladder(side), book.best_is_high(side))
                .map(|(price, size)| serde_json::json!([price, size]))
                .collect();
            if *levels != Json::Array(mine.clone()) {
                bail!("{market} {key:?} {name}: the document has {levels}, the book {mine:?}");
            }
        }
    }
    Ok(())
}

/// Fetches a market's document until it stands where the client does, then compares.
///
/// # Errors
/// If they differ, or never stand at the same place.
pub async fn compare_with_document(
    client: &mut WsClient,
    address: &str,
    market: &MarketId,
    view: View,
) -> anyhow::Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let name = match view.depth() {
        None => "all".to_owned(),
        Some(depth) => depth.to_string(),
    };
    while tokio::time::Instant::now() < deadline {
        let response = get(address, &format!("/v1/markets/{market}?view={name}"), &[]).await?;
        if response.status == 404 && client.followed.market(market, view).is_none() {
            return Ok(());
        }
        let document = response.json()?;
        let at =
            Position::new(document["epoch"].as_u64().unwrap_or(0), document["seq"].as_u64().unwrap_or(0));
        // What the document shows is on its way to the client, if it is not there yet.
        let near = Duration::from_millis(300);
        let caught_up =
            client.until(near, "the document's position", |f| f.position(market, view) >= Some(at)).await;
        let Some(held) = client.followed.market(market, view) else { return Ok(()) };
        let (Ok(()), Some(book)) = (caught_up, held.book()) else { continue };
        if held.position() == Some(at) {
            return compare(&document, book, view);
        }
        // A view that a change does not touch stays where it was: its content decides then.
        if view != View::All && compare(&document, book, view).is_ok() {
            return Ok(());
        }
    }
    bail!("{market}: client and document never stood at the same position within 10 s")
}
