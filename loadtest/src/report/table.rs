//! The table at the end of a run: a column for each group, and one for all.

use super::units::{bytes, count, grouped, ms, percent};
use crate::load::BUSY;
use crate::load::figures::{Figures, GroupFigures, quantile_ms};

/// A row: what it is called, and its value for each column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What is told.
    pub name: &'static str,
    /// Column by column.
    pub values: Vec<String>,
    /// Which of them are bad news.
    pub bad: Vec<bool>,
}

/// The columns: each group, and all where there is more than one.
#[must_use]
pub fn columns(figures: &Figures) -> Vec<&GroupFigures> {
    let all = (figures.groups.len() > 1).then_some(&figures.all);
    figures.groups.iter().chain(all).collect()
}

/// The rows.
#[must_use]
pub fn rows(figures: &Figures) -> Vec<Row> {
    let columns = columns(figures);
    let row = |name, value: &dyn Fn(&GroupFigures) -> String, bad: &dyn Fn(&GroupFigures) -> bool| Row {
        name,
        values: columns.iter().map(|group| value(group)).collect(),
        bad: columns.iter().map(|group| bad(group)).collect(),
    };
    let fine = |_: &GroupFigures| false;
    let latency = |g: &GroupFigures, share: f64| quantile_ms(&g.sum.latency, share).map_or("–".into(), ms);
    let mut rows = vec![
        row("clients", &|g| grouped(g.clients as u64), &|g| g.ready < g.clients),
        row("connects/s", &|g| count(g.connects().round()), &fine),
        row("first books, p99", &|g| quantile_ms(&g.sum.ready, 0.99).map_or("–".into(), ms), &fine),
        row("deliveries", &|g| grouped(g.sum.deliveries), &|g| g.sum.deliveries == 0),
        row("deliveries/s", &|g| count(g.per_second(g.sum.deliveries).round()), &fine),
        row("bytes", &|g| bytes(g.sum.bytes as f64), &fine),
        row("bytes/s", &|g| bytes(g.per_second(g.sum.bytes).round()), &fine),
        row("frames per read", &|g| format!("{:.2}", g.frames_per_read()), &fine),
        row("latency p50", &|g| latency(g, 0.5), &fine),
        row("latency p99", &|g| latency(g, 0.99), &fine),
        row("latency p99.9", &|g| latency(g, 0.999), &fine),
        row("latency max", &|g| latency(g, 1.0), &fine),
        row("snapshots", &|g| grouped(g.sum.snapshots), &fine),
        row("gaps, declared", &|g| grouped(g.sum.declared), &fine),
        row("gaps, undeclared", &|g| grouped(g.sum.undeclared), &|g| g.sum.undeclared > 0),
        row("digests agreed", &|g| grouped(g.sum.digests), &fine),
        row("digests wrong", &|g| grouped(g.sum.wrong_digests), &|g| g.sum.wrong_digests > 0),
        row("checksums agreed", &|g| grouped(g.checksums), &fine),
        row("books compared", &|g| grouped(g.compared), &fine),
        row("mistakes", &|g| grouped(g.wrong), &|g| g.wrong > 0),
        row("connections lost", &|g| grouped(g.sum.closed), &|g| g.sum.closed > 0),
    ];
    // Where nobody is cut, there is nothing to tell of it.
    if figures.all.cut > 0 {
        rows.push(row("cut", &|g| grouped(g.cut), &fine));
        rows.push(row("markets resumed", &|g| grouped(g.sum.resumed), &fine));
    }
    if figures.all.storm_answered_s.is_some() || figures.all.storm_back_s.is_some() {
        let took = |seconds: Option<f64>| seconds.map_or("–".into(), |seconds| ms(1e3 * seconds));
        rows.push(row("storm, all answered", &|g| took(g.storm_answered_s), &fine));
        rows.push(row("storm, all back", &|g| took(g.storm_back_s), &fine));
    }
    rows.push(row("own CPU", &|g| percent(g.cpu()), &|g| g.busiest > BUSY));
    rows
}

/// What was checked beside the clients, in a sentence.
#[must_use]
pub fn checked(figures: &Figures) -> String {
    let (reference, compared) = (&figures.reference, &figures.compared);
    format!(
        "{} books compared with GET /v1/markets/{{id}}, {} differ; clients that decode everything, one of each group, followed {} markets: {} deltas, {} stops, {} checksums and digests agreed, {} wrong, {} stale opens",
        compared.equal + compared.wrong.len() as u64,
        compared.wrong.len(),
        reference.markets,
        grouped(reference.deltas),
        grouped(reference.stops),
        grouped(reference.agreed),
        reference.wrong,
        reference.stale_opens,
    )
}

/// Longest problem that is a verdict, letters.
const SENTENCE: usize = 180;

/// The verdict, in a sentence.
#[must_use]
pub fn verdict(figures: &Figures) -> String {
    let Some(first) = figures.problems.first() else { return "every book is right".into() };
    let first = match first.char_indices().nth(SENTENCE) {
        Some((at, _)) => format!("{}…", &first[..at]),
        None => first.clone(),
    };
    match figures.problems.len() {
        1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }
}

/// The whole, for a terminal; in colours where it is one.
#[must_use]
pub fn table(figures: &Figures, colours: bool) -> String {
    let paint =
        |code: &str, text: &str| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let (columns, rows) = (columns(figures), rows(figures));
    let names: Vec<String> = columns.iter().map(|group| group.name.clone()).collect();
    let width = |column: usize| {
        let values = rows.iter().map(|row| row.values[column].chars().count());
        values.chain([names[column].chars().count()]).max().unwrap_or(0) + 3
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let first = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut line = |name: String, values: &mut dyn Iterator<Item = String>| {
        text.push_str("  ");
        text.push_str(&name);
        values.for_each(|value| text.push_str(&value));
        text.push('\n');
    };
    // Escapes have no width, so that padding goes before the paint.
    let padded = |value: &str, width: usize| format!("{value:>width$}");
    line(
        " ".repeat(first),
        &mut names.iter().zip(&widths).map(|(name, width)| paint("1", &padded(name, *width))),
    );
    for row in &rows {
        let values = row.values.iter().zip(&row.bad).zip(&widths);
        let mut values = values.map(|((value, bad), width)| {
            let value = padded(value, *width);
            if *bad { paint("31", &value) } else { value }
        });
        line(paint("2", &format!("{:<first$}", row.name)), &mut values);
    }
    text.push_str(&format!("\n  latency: {}\n", figures.latency_from.described()));
    text.push_str(&format!("  {}\n", checked(figures)));
    for warning in &figures.warnings {
        text.push_str(&format!("  {} {warning}\n", paint("33", "warning")));
    }
    for problem in figures.problems.iter().take(12) {
        text.push_str(&format!("  {} {problem}\n", paint("31", "wrong")));
    }
    let last = if figures.good() { paint("1;32", "PASSED") } else { paint("1;31", "FAILED") };
    text.push_str(&format!("\n  {last}  {}\n", verdict(figures)));
    text
}
