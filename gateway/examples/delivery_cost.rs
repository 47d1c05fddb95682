//! What one delivery costs a core, in instructions, by how many clients and markets there are: near flat, and within a bound.
//! Socket writes are not in it. It runs itself under callgrind, which counts the same whatever else the machine does.
//!
//! `cargo run --release -p tictac-gateway --example delivery_cost`

mod delivery;

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use delivery::World;

/// Clients, markets, markets of each client.
const CASES: [(usize, usize, usize); 8] = [
    (10, 1, 1),
    (100, 1, 1),
    (1_000, 1, 1),
    (10_000, 1, 1),
    (20, 20, 20),
    (100, 100, 20),
    (1_000, 1_000, 20),
    (5_000, 5_000, 20),
];
/// Instructions that a delivery may take: what the dearest case took and some more, so that a change that costs a tenth more is seen.
const BOUND: f64 = 1_500.0;
/// How many times the cheapest the dearest case may cost, of those where a change has twenty followers or more.
const FLAT: f64 = 1.25;
/// Deliveries that are counted, about.
const DELIVERIES: usize = 200_000;
const BAR_PER: f64 = 30.0;

fn changes(clients: usize, markets: usize, each: usize) -> usize {
    (DELIVERIES * markets).div_ceil(clients * each).max(markets)
}

fn once(numbers: &[usize]) -> anyhow::Result<()> {
    let &[clients, markets, each] = numbers else { bail!("--once takes clients, markets, markets of each") };
    let mut world = World::new(clients, markets, each);
    println!("{}", world.steady(changes(clients, markets, each)).deliveries);
    Ok(())
}

fn instructions(case: [usize; 3]) -> anyhow::Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*World*steady*"])
        .arg(std::env::current_exe()?)
        .arg("--once")
        .args(case.map(|number| number.to_string()))
        .output()
        .context("valgrind can't be started: install it (apt install valgrind)")?;
    let (said, counted) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let deliveries: f64 = said.trim().parse().with_context(|| format!("{case:?}: {counted}"))?;
    let collected = counted.lines().find_map(|l| l.split("Collected :").nth(1)?.trim().parse::<f64>().ok());
    let collected = collected.filter(|n| *n > 0.0);
    Ok(collected.with_context(|| format!("{case:?}: callgrind counted nothing: {counted}"))? / deliveries)
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--once") {
        let numbers: Result<Vec<usize>, _> = arguments[1..].iter().map(|n| n.parse()).collect();
        once(&numbers?)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:>8} {:>8} {:>6}  instructions a delivery, at most {BOUND}", "clients", "markets", "each");
    let mut all = Vec::new();
    for (clients, markets, each) in CASES {
        let cost = instructions([clients, markets, each])?;
        let bar = "█".repeat((cost / BAR_PER).round() as usize);
        println!("{clients:>8} {markets:>8} {each:>6}  {cost:>6.0} {bar}");
        all.push((clients * each / markets, cost));
    }
    // Of few followers each change has a cost of its own.
    let many = all.iter().filter(|(followers, _)| *followers >= 20).map(|(_, cost)| *cost);
    let (least, most) = many.fold((f64::INFINITY, 0.0f64), |(least, most), n| (least.min(n), most.max(n)));
    let dearest = all.iter().map(|(_, cost)| *cost).fold(0.0, f64::max);
    if dearest > BOUND || most > least * FLAT {
        eprintln!(
            "✗ {dearest:.0} is more than {BOUND}, or {least:.0} and {most:.0} are more than {FLAT} times apart"
        );
        return Ok(ExitCode::FAILURE);
    }
    println!("✓ from {least:.0} to {most:.0} where a change has twenty followers or more");
    Ok(ExitCode::SUCCESS)
}
