//! All figures for programs. What each key means stands in `loadtest/README.md`.

use serde_json::{Value as Json, json};

use super::plot::SHARES;
use crate::load::figures::{Figures, GroupFigures, Histogram, LatencyFrom, quantile_ms};

/// The version of the document: it grows when a key changes its meaning or goes.
pub const VERSION: u32 = 1;

fn latency(histogram: &Histogram) -> Json {
    let at = |share| quantile_ms(histogram, share);
    json!({
        "count": histogram.len(),
        "p50_ms": at(0.5),
        "p90_ms": at(0.9),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "max_ms": at(1.0),
    })
}

fn group(figures: &GroupFigures) -> Json {
    let sum = &figures.sum;
    json!({
        "name": figures.name,
        "what": figures.what,
        "clients": figures.clients,
        "ready": figures.ready,
        "connect_s": figures.connect_s,
        "connects_per_s": figures.connects(),
        "first_books": latency(&sum.ready),
        "measured_s": figures.measured_s,
        "deliveries": sum.deliveries,
        "deliveries_per_s": figures.per_second(sum.deliveries),
        "frames": sum.frames,
        "reads": sum.reads,
        "frames_per_read": figures.frames_per_read(),
        "bytes": sum.bytes,
        "bytes_per_s": figures.per_second(sum.bytes),
        "snapshots": sum.snapshots,
        "latency": latency(&sum.latency),
        "gaps_declared": sum.declared,
        "gaps_undeclared": sum.undeclared,
        "digests": sum.digests,
        "digests_wrong": sum.wrong_digests,
        "checksums": figures.checksums,
        "books_compared": figures.compared,
        "books_not_compared": figures.not_compared,
        "messages_decoded": figures.decoded,
        "mistakes": figures.wrong,
        "mistakes_told": figures.mistakes,
        "connections_lost": sum.closed,
        "cut": figures.cut,
        "resumed": sum.resumed,
        "storm_answered_s": figures.storm_answered_s,
        "storm_back_s": figures.storm_back_s,
        "cpu": figures.cpu(),
        "cpu_busiest_second": figures.busiest,
    })
}

/// The document.
#[must_use]
pub fn document(figures: &Figures) -> Json {
    let points = figures.points.iter().enumerate().map(|(at, point)| {
        json!({
            "second": at + 1,
            "deliveries_per_s": point.deliveries,
            "bytes_per_s": point.bytes,
            "p99_ms": point.p99_ms,
            "cpu": point.cpu,
            "mistakes": point.wrong,
        })
    });
    let all = &figures.all.sum.latency;
    let percentiles =
        SHARES.iter().filter_map(|share| Some(json!({"share": share, "ms": quantile_ms(all, *share)?})));
    json!({
        "version": VERSION,
        "name": figures.name,
        "address": figures.address,
        "begun_ms": figures.begun_ms,
        "seconds": figures.seconds,
        "markets": figures.markets,
        "passed": figures.good(),
        "problems": figures.problems,
        "warnings": figures.warnings,
        "latency_from": match figures.latency_from {
            LatencyFrom::Deliveries => "deliveries",
            LatencyFrom::Reference => "reference",
            LatencyFrom::Nothing => "nothing",
        },
        "percentiles": percentiles.collect::<Vec<_>>(),
        "all": group(&figures.all),
        "groups": figures.groups.iter().map(group).collect::<Vec<_>>(),
        "points": points.collect::<Vec<_>>(),
        "reference": {
            "markets": figures.reference.markets,
            "deltas": figures.reference.deltas,
            "stops": figures.reference.stops,
            "agreed": figures.reference.agreed,
            "wrong": figures.reference.wrong,
            "stale_opens": figures.reference.stale_opens,
            "latency": latency(&figures.reference.latency),
        },
        "documents": {
            "equal": figures.compared.equal,
            "gone": figures.compared.gone,
            "wrong": figures.compared.wrong,
        },
    })
}
