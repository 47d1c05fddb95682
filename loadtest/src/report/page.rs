//! A page about a run: one file, which needs no other and no script.

use std::fmt::Write;

use super::plot::{self, Shows, escaped};
use super::table::{checked, columns, rows, verdict};
use super::units::{bytes, count, grouped, ms, percent, utc};
use crate::load::figures::{Figures, Point, quantile_ms};

const STYLE: &str = include_str!("page.css");
/// Problems that are told in full.
const TOLD: usize = 30;
/// Rows that begin another subject.
const APART: [&str; 5] = ["deliveries", "latency p50", "snapshots", "cut", "own CPU"];

/// The page.
#[must_use]
pub fn page(figures: &Figures) -> String {
    let (word, class) = if figures.good() { ("PASSED", "good") } else { ("FAILED", "bad") };
    let name = escaped(&figures.name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{name}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        word.to_lowercase()
    );
    // Writing to a text does not fail; so everywhere here.
    let _ = writeln!(
        page,
        "<header><h1>{name}</h1><span class=\"badge {class}\">{word}</span><p>{} markets at {}, {} s, {}</p></header>",
        grouped(figures.markets as u64),
        escaped(&figures.address),
        figures.seconds,
        utc(figures.begun_ms)
    );
    tiles(&mut page, figures);
    notes(&mut page, figures);
    plots(&mut page, figures);
    table(&mut page, figures);
    scenario(&mut page, figures);
    let _ = writeln!(
        page,
        "<footer>{}. tictac-loadtest {}</footer>\n</main>\n</body>\n</html>",
        escaped(&sentence(&checked(figures))),
        env!("CARGO_PKG_VERSION")
    );
    page
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn tiles(page: &mut String, figures: &Figures) {
    let all = &figures.all;
    let latency = |share| quantile_ms(&all.sum.latency, share).map_or_else(|| "–".into(), ms);
    page.push_str("<div class=\"tiles\">\n");
    for (value, name) in [
        (grouped(all.clients as u64), "clients"),
        (count(all.per_second(all.sum.deliveries).round()), "deliveries/s"),
        (bytes(all.per_second(all.sum.bytes).round()), "read a second"),
        (latency(0.5), "latency, p50"),
        (latency(0.99), "latency, p99"),
        (percent(figures.groups.iter().map(|group| group.cpu()).fold(0.0, f64::max)), "tester's CPU"),
    ] {
        let _ = writeln!(page, "<div class=\"tile\"><b>{}</b><span>{name}</span></div>", escaped(&value));
    }
    page.push_str("</div>\n");
}

fn notes(page: &mut String, figures: &Figures) {
    let mut note = |class: &str, title: &str, lines: &[String]| {
        if lines.is_empty() {
            return;
        }
        let _ = write!(page, "<div class=\"note {class}\"><b>{}</b>", escaped(title));
        page.push_str("<ul>");
        for line in lines.iter().take(TOLD) {
            let _ = write!(page, "<li>{}</li>", escaped(line));
        }
        page.push_str("</ul></div>\n");
    };
    note("bad", "What was wrong", &figures.problems);
    note("warn", "What makes the figures doubtful", &figures.warnings);
    if figures.good() {
        let _ = writeln!(
            page,
            "<div class=\"note good\"><b>{}</b></div>",
            escaped(&format!(
                "{}: {} deltas, {} digests, {} checksums, {} documents.",
                sentence(&verdict(figures)),
                grouped(figures.all.sum.deliveries),
                grouped(figures.all.sum.digests),
                grouped(figures.all.checksums),
                grouped(figures.compared.equal)
            ))
        );
    }
}

fn plots(page: &mut String, figures: &Figures) {
    let drawn = |title: &str, what: &str, svg: Option<String>| {
        let svg = svg.unwrap_or_else(|| "<p class=\"none\">Nothing was measured.</p>\n".into());
        format!(
            "<section><h2>{}</h2><p>{}</p>\n<div class=\"wide\">{svg}</div></section>\n",
            escaped(title),
            escaped(what)
        )
    };
    let values = |of: fn(&Point) -> Option<f64>| figures.points.iter().map(of).collect::<Vec<_>>();
    let from = sentence(figures.latency_from.described());
    page.push_str(&drawn("Latency", &from, plot::percentiles(&figures.all.sum.latency)));
    let rate = plot::over_time("Deliveries a second", Shows::Rate, &values(|p| Some(p.deliveries)));
    let late = plot::over_time("Latency of 99 of a hundred", Shows::Latency, &values(|p| p.p99_ms));
    page.push_str("<div class=\"pair\">\n");
    page.push_str(&drawn("Deliveries a second", "Of all clients, second by second", rate));
    page.push_str(&drawn("Latency, p99", "99 of a hundred within, second by second", late));
    page.push_str("</div>\n");
}

fn table(page: &mut String, figures: &Figures) {
    page.push_str("<section><h2>Figures</h2><p>Counted while it was measured; what can be wrong, from the first connect on</p>\n<div class=\"wide\"><table>\n<thead><tr><th></th>");
    for group in columns(figures) {
        let _ = write!(page, "<th>{}</th>", escaped(&group.name));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in rows(figures) {
        let class = if APART.contains(&row.name) { " class=\"apart\"" } else { "" };
        let _ = write!(page, "<tr{class}><th scope=\"row\">{}</th>", escaped(row.name));
        for (value, bad) in row.values.iter().zip(&row.bad) {
            let class = if *bad { " class=\"wrong\"" } else { "" };
            let _ = write!(page, "<td{class}>{}</td>", escaped(value));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div></section>\n");
}

fn scenario(page: &mut String, figures: &Figures) {
    page.push_str("<section><h2>Scenario</h2><p>Who was there, and what they followed</p>\n<div class=\"wide\"><table class=\"who\"><tbody>\n");
    for group in &figures.groups {
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{}</th><td class=\"count\">{}</td><td>{}</td></tr>",
            escaped(&group.name),
            grouped(group.clients as u64),
            escaped(&group.what)
        );
    }
    page.push_str("</tbody></table></div></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use toml::Table;

    #[test]
    fn a_page_needs_nothing_else_and_shows_names_as_text() {
        let text = "url = \"ws://h:1\"\n[[clients]]\nname = \"<script>alert(1)</script>\"";
        let scenario = Scenario::read(Some((std::path::Path::new("a&b.toml"), text)), &Table::new()).unwrap();
        let mut figures = Figures::new(&scenario, 3).unwrap();
        figures.problems.push("<b>".into());
        let page = page(&figures);
        assert!(page.contains("FAILED") && page.contains("a&amp;b") && page.contains("&lt;script&gt;"));
        for other in ["<script", "src=", "href=", "url(", "http:", "https:", "@import", "<li><b>"] {
            assert!(!page.contains(other), "{other}");
        }
        assert_eq!(page.matches("<section").count(), page.matches("</section>").count());
    }
}
