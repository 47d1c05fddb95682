//! Sixty simulated seconds, to be looked at: `cargo run -p tictac-ingest --example simulate [seconds] [seed] [rate]`.

use std::collections::BTreeMap;

use tictac_ingest::simulator::{Config, Simulator};
use tictac_ingest::update::Update;
use tictac_proto::model::fields::Kind;
use tictac_proto::model::{MarketField, SelectionField, SelectionStatus, Side};

fn price(scaled: Option<(i64, i64)>) -> String {
    scaled.map_or_else(|| "–".to_owned(), |(p, s)| format!("{}.{:02} £{}", p / 100, p % 100, s / 100))
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().unwrap_or(60));
    let seconds = i64::try_from(arguments.next().unwrap_or(60)).unwrap_or(60);
    let seed = arguments.next().unwrap_or(1);
    #[allow(clippy::cast_precision_loss, reason = "a small factor")]
    let rate = arguments.next().unwrap_or(1) as f64;
    let start = 1_764_038_400_000;
    let mut simulator = Simulator::new(seed, Config { rate, ..Config::default() });
    let mut updates = Vec::new();
    let mut by_second = Vec::new();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    simulator.advance(start, &mut updates);
    println!("{} markets at the start", updates.len());
    for second in 1..=seconds {
        updates.clear();
        simulator.advance(start + second * 1_000, &mut updates);
        by_second.push(updates.len());
        for update in &updates {
            let kind = match update {
                Update::Image { .. } => "images",
                Update::Change { .. } => "changes",
                Update::Stop { event, reason, .. } => {
                    println!("{second:>4} s  stop {event}: {}", reason.as_deref().unwrap_or("?"));
                    "stops"
                }
                Update::Gone { market } => {
                    println!("{second:>4} s  gone {market}");
                    "gone"
                }
            };
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let total: usize = by_second.iter().sum();
    println!("{kinds:?}; updates by second {by_second:?}; mean {}", total as i64 / seconds.max(1));
    for (id, market) in simulator.truth() {
        let text = |field| market.text(field).unwrap_or_default();
        println!(
            "\n{id} [{}{}] {} · {} ({}) {} {} matched £{}",
            market.status().name(),
            if market.int(MarketField::InPlay) == Some(1) { ", in play" } else { "" },
            text(MarketField::EventName),
            text(MarketField::Name),
            text(MarketField::Sport),
            text(MarketField::Score),
            text(MarketField::Clock),
            market.int(MarketField::Matched).unwrap_or(0) / 100,
        );
        let fixed = market.int(MarketField::Kind) == Some(Kind::Fixed.code());
        let mut round = 0.0;
        for selection in market.selections.values() {
            let name = selection.text(SelectionField::Name).unwrap_or_default();
            let status = selection.int(SelectionField::Status).and_then(SelectionStatus::from_code);
            let status = status.map_or("", SelectionStatus::name);
            if fixed {
                let native = selection.text(SelectionField::Native).unwrap_or("–");
                println!("    {name:<24} {status:<8} {native:>8}");
                continue;
            }
            if let Some((back, _)) = selection.best_back() {
                round += 10_000.0 / back as f64;
            }
            println!(
                "    {name:<24} {status:<8} {:>16} | {:<16} levels {:>2}/{:<2} last {:<7} £{}",
                price(selection.best_back()),
                price(selection.best_lay()),
                selection.ladder(Side::Back).len(),
                selection.ladder(Side::Lay).len(),
                selection
                    .int(SelectionField::Last)
                    .map_or_else(|| "–".into(), |l| (l as f64 / 100.0).to_string()),
                selection.int(SelectionField::Volume).unwrap_or(0) / 100,
            );
        }
        if !fixed {
            println!("    book to back {round:.1} %");
        }
    }
}
