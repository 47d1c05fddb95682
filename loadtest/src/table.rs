//! `bench`: the cases, their turns, and the table.

use std::io::{IsTerminal, Write};

use tictac_proto::wire::{Codec, Conflate};

use crate::bench::{Case, Measured, Settings, Who, measure, pin};

/// A floor whose turns are further apart than this, as a share of their median, is not steady.
const STEADY: f64 = 0.2;
/// How often a case is measured anew because its floor was not steady.
const AGAIN: usize = 2;

fn hot(clients: usize, deliveries: f64) -> Case {
    Case {
        name: format!("hot {clients} × {}/s", short(deliveries)),
        clients,
        markets: 1,
        each: 1,
        skew: 0.0,
        rate: deliveries / clients as f64,
        seconds: 5.0,
        codec: Codec::Json,
        conflate: Conflate::Raw,
    }
}

fn short(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n if n >= 1e3 => format!("{:.0}k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// Everything that can be measured.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for clients in [1_000, 5_000] {
        for deliveries in [20_000.0, 100_000.0, 250_000.0, 1e6, 5e6] {
            cases.push(hot(clients, deliveries));
        }
    }
    for (name, codec) in [("json", Codec::Json), ("msgpack", Codec::Msgpack)] {
        cases.push(Case {
            name: format!("zipf 1000 × 20 of 2000, {name}"),
            clients: 1_000,
            markets: 2_000,
            each: 20,
            skew: 1.0,
            rate: 2_000.0,
            seconds: 5.0,
            codec,
            conflate: Conflate::Raw,
        });
    }
    cases
}

fn median(all: &[Measured], of: impl Fn(&Measured) -> f64) -> f64 {
    let mut values: Vec<f64> = all.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// How far the values are apart, as a share of their median.
fn spread(all: &[Measured], of: impl Fn(&Measured) -> f64 + Copy) -> f64 {
    let values = all.iter().map(of);
    let (least, most) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(v), most.max(v)));
    (most - least) / median(all, of).max(f64::MIN_POSITIVE)
}

/// Measures and prints.
///
/// # Errors
/// If a server or a connection fails, something that was sent is wrong, or a file can't be written.
pub fn bench(settings: &Settings) -> anyhow::Result<()> {
    pin(settings.client_cpu)?;
    let chosen: Vec<Case> = cases()
        .into_iter()
        .filter(|case| {
            settings.cases.is_empty() || settings.cases.iter().any(|part| case.name.contains(part.as_str()))
        })
        .map(|case| Case { seconds: settings.seconds, ..case })
        .collect();
    if chosen.is_empty() {
        let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
        anyhow::bail!("no case is named so; there are:\n  {}", names.join("\n  "));
    }
    let (program, cpu) = (std::env::current_exe()?, Some(settings.server_cpu));
    let mut lines = Vec::new();
    let bold = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!(
        "{}{:<30} {:>9} {:>7} {:>15} {:>15} {:>17} {:>7} {:>7} {:>8}{}",
        bold.0,
        "",
        "offered/s",
        "share",
        "p50 ms (floor)",
        "p99 ms (floor)",
        "CPU µs (floor)",
        "× CPU",
        "clients",
        "B/conn",
        bold.1
    );
    for case in chosen {
        let (mut gateway, mut floor) = (Vec::new(), Vec::new());
        for again in 0..=AGAIN {
            (gateway, floor) = (Vec::new(), Vec::new());
            for _ in 0..settings.runs {
                gateway.push(measure(&program, Who::Gateway, &case, cpu)?);
                let bytes = median(&gateway, |m| m.frame_bytes).round() as usize;
                floor.push(measure(&program, Who::Floor(bytes), &case, cpu)?);
            }
            if spread(&floor, |m| m.cpu_us) <= STEADY || again == AGAIN {
                break;
            }
        }
        println!("{}", row(&case, &gateway, &floor));
        std::io::stdout().flush()?;
        lines.push(line(&case, &gateway, &floor));
    }
    if let Some(path) = &settings.json {
        std::fs::write(path, serde_json::to_string_pretty(&lines)?)?;
    }
    Ok(())
}

fn row(case: &Case, gateway: &[Measured], floor: &[Measured]) -> String {
    let both = |of: fn(&Measured) -> f64| (median(gateway, of), median(floor, of));
    let ((p50, f50), (p99, f99), (cpu, fcpu)) = (both(|m| m.p50), both(|m| m.p99), both(|m| m.cpu_us));
    format!(
        "{:<30} {:>9} {:>6.1}% {:>7.1} ({:>5.1}) {:>7.1} ({:>5.1}) {:>8.2} ({:>5.2}) {:>7.2} {:>6.0}% {:>8.0}",
        case.name,
        short(median(gateway, |m| m.offered)),
        100.0 * median(gateway, |m| m.share),
        p50,
        f50,
        p99,
        f99,
        cpu,
        fcpu,
        cpu / fcpu,
        100.0 * median(gateway, |m| m.own_cpu),
        median(gateway, |m| m.memory),
    )
}

fn line(case: &Case, gateway: &[Measured], floor: &[Measured]) -> serde_json::Value {
    let all = |who: &[Measured]| {
        serde_json::json!({
            "share": median(who, |m| m.share),
            "p50_ms": median(who, |m| m.p50),
            "p99_ms": median(who, |m| m.p99),
            "max_ms": median(who, |m| m.max),
            "cpu_us": median(who, |m| m.cpu_us),
            "cpu_spread": spread(who, |m| m.cpu_us),
            "cpu": median(who, |m| m.cpu),
            "client_cpu": median(who, |m| m.own_cpu),
            "frames_per_read": median(who, |m| m.frames_per_read),
            "frame_bytes": median(who, |m| m.frame_bytes),
            "connects": median(who, |m| m.connects),
            "memory": median(who, |m| m.memory),
        })
    };
    serde_json::json!({
        "case": case.name,
        "clients": case.clients,
        "offered": median(gateway, |m| m.offered),
        "gateway": all(gateway),
        "floor": all(floor),
    })
}
