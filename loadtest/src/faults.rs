//! The table of faults: lines that tests wrote → markdown, put between two marks of a document.
//!
//! A line is one JSON object: `kind` (`real` or `simulated`), `fault`, `wrong`, `stale_open`, `undeclared`; of a real fault
//! `detect_ms` and `converge_ms` (a number, or null where there is nothing to be seen); of simulated ones `seeds` and how
//! often everything agreed after so many virtual ms (`converge_ms`, an object).

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;

/// Where the table begins in a document.
pub const BEGIN: &str = "<!-- faults: begin -->";
/// Where it ends.
pub const END: &str = "<!-- faults: end -->";

const SIMULATED: &str = "simulated: ";
const HEAD: &str = "| fault | times | detected, ms (half / all within) | converged, ms (half / all within) | wrong books | \
                    stale opens | undeclared losses |\n|---|---|---|---|---|---|---|\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Real,
    Simulated,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Times {
    One(u64),
    /// Names of an object are texts.
    Many(BTreeMap<String, u64>),
}

#[derive(Debug, Deserialize)]
struct Line {
    kind: Kind,
    fault: String,
    #[serde(default)]
    seeds: u64,
    detect_ms: Option<Times>,
    converge_ms: Option<Times>,
    wrong: u64,
    stale_open: u64,
    undeclared: u64,
}

/// How often something took so many ms.
#[derive(Debug, Default)]
struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    fn add(&mut self, times: Option<Times>) -> anyhow::Result<()> {
        match times {
            None => {}
            Some(Times::One(ms)) => *self.0.entry(ms).or_default() += 1,
            Some(Times::Many(many)) => {
                for (ms, count) in many {
                    let ms = ms.parse().with_context(|| format!("{ms:?} is no time in ms"))?;
                    *self.0.entry(ms).or_default() += count;
                }
            }
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Half took at most this; and the longest.
    fn shown(&self) -> String {
        let Some((longest, _)) = self.0.last_key_value() else { return "–".into() };
        let mut left = self.count().div_ceil(2);
        let middle = self.0.iter().find(|(_, count)| {
            left = left.saturating_sub(**count);
            left == 0
        });
        format!("{} / {longest}", middle.map_or(longest, |m| m.0))
    }
}

#[derive(Debug, Default)]
struct Row {
    times: u64,
    detect: Histogram,
    converge: Histogram,
    wrong: u64,
    stale_open: u64,
    undeclared: u64,
}

/// All lines, put together by fault.
#[derive(Debug, Default)]
pub struct Faults {
    rows: BTreeMap<(Kind, String), Row>,
    /// By fault, so that a campaign that tells of many counts once.
    seeds: BTreeMap<String, u64>,
}

impl Faults {
    /// Takes lines in.
    ///
    /// # Errors
    /// The first line that is none, by its number.
    pub fn read(&mut self, text: &str) -> anyhow::Result<()> {
        for (number, line) in text.lines().enumerate().filter(|l| !l.1.trim().is_empty()) {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("line {} is no report of a fault: {line:?}", number + 1))?;
            *self.seeds.entry(line.fault.clone()).or_default() += line.seeds;
            let row = self.rows.entry((line.kind, line.fault)).or_default();
            row.times += match &line.converge_ms {
                Some(Times::Many(many)) => many.values().sum(),
                _ => 1,
            };
            row.detect.add(line.detect_ms)?;
            row.converge.add(line.converge_ms)?;
            row.wrong += line.wrong;
            row.stale_open += line.stale_open;
            row.undeclared += line.undeclared;
        }
        Ok(())
    }

    /// How many simulated runs are behind it.
    #[must_use]
    pub fn seeds(&self) -> u64 {
        self.seeds.values().copied().max().unwrap_or(0)
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let rows: String = self.rows().into_iter().map(|row| row.1).collect();
        format!("{HEAD}{rows}")
    }

    /// What a row is called, and the row.
    fn rows(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for kind in [Kind::Real, Kind::Simulated] {
            let rows = self.rows.iter().filter(|r| r.0.0 == kind);
            for ((_, fault), row) in rows {
                let kind = if kind == Kind::Real { "" } else { SIMULATED };
                let name = format!("{kind}{fault}");
                let line = format!(
                    "| {name} | {} | {} | {} | {} | {} | {} |\n",
                    row.times,
                    row.detect.shown(),
                    row.converge.shown(),
                    row.wrong,
                    row.stale_open,
                    row.undeclared
                );
                out.push((name, line));
            }
        }
        out
    }

    /// The document with the table between its marks. `keep` leaves rows of faults that no line speaks of.
    ///
    /// # Errors
    /// Where the marks are not there.
    pub fn put(&self, document: &str, keep: bool) -> anyhow::Result<String> {
        let (Some(begin), Some(end)) = (document.find(BEGIN), document.find(END)) else {
            bail!("the document has no {BEGIN} and {END}: put them where the table is to be");
        };
        if end < begin {
            bail!("{END} comes before {BEGIN}: swap them");
        }
        let (before, after) = (&document[..begin + BEGIN.len()], &document[end..]);
        let mut rows = self.rows();
        if keep {
            let names: Vec<String> = rows.iter().map(|row| row.0.clone()).collect();
            let lines = document[begin + BEGIN.len()..end].lines();
            let kept = lines.filter_map(|line| Some((line.strip_prefix("| ")?.split_once(" | ")?.0, line)));
            let kept = kept.filter(|(name, _)| *name != "fault" && names.iter().all(|new| new != name));
            rows.extend(kept.map(|(name, line)| (name.to_owned(), format!("{line}\n"))).collect::<Vec<_>>());
            // As they come otherwise: real ones first, each kind by name.
            rows.sort_by_key(|(name, _)| (name.starts_with(SIMULATED), name.clone()));
        }
        let rows: String = rows.into_iter().map(|row| row.1).collect();
        Ok(format!("{before}\n{HEAD}{rows}{after}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LINES: &str = r#"
{"kind":"real","fault":"killed","detect_ms":1500,"converge_ms":2000,"wrong":0,"stale_open":0,"undeclared":0}
{"kind":"real","fault":"killed","detect_ms":1600,"converge_ms":2100,"wrong":0,"stale_open":1,"undeclared":0}
{"kind":"real","fault":"slow","detect_ms":null,"converge_ms":null,"wrong":0,"stale_open":0,"undeclared":0}
{"kind":"simulated","fault":"loss","seeds":100,"converge_ms":{"160":30,"320":9,"3200":1},"wrong":0,"stale_open":0,"undeclared":2}
{"kind":"simulated","fault":"pause","seeds":100,"converge_ms":{"160":5},"wrong":0,"stale_open":0,"undeclared":0}
"#;

    #[test]
    fn lines_become_a_table() {
        let mut faults = Faults::default();
        faults.read(LINES).unwrap();
        assert_eq!(faults.seeds(), 100);
        let expected = "\
| killed | 2 | 1500 / 1600 | 2000 / 2100 | 0 | 1 | 0 |
| slow | 1 | – | – | 0 | 0 | 0 |
| simulated: loss | 40 | – | 160 / 3200 | 0 | 0 | 2 |
| simulated: pause | 5 | – | 160 / 160 | 0 | 0 | 0 |
";
        let table = faults.table();
        assert_eq!(table.split_once("|---|---|---|---|---|---|---|\n").unwrap().1, expected);

        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let put = faults.put(&document, false).unwrap();
        assert_eq!(put, format!("before\n{BEGIN}\n{table}{END}\nafter\n"));
        assert_eq!(faults.put(&put, false).unwrap(), put, "again is the same");

        let mut later = Faults::default();
        let line = r#"{"kind":"real","fault":"slow","detect_ms":1,"converge_ms":2,"wrong":0,"stale_open":0,"undeclared":0}"#;
        later.read(line).unwrap();
        let kept = later.put(&put, true).unwrap();
        assert_eq!(
            kept,
            put.replace("| slow | 1 | – | – |", "| slow | 1 | 1 / 1 | 2 / 2 |"),
            "the others stay"
        );
    }

    #[test]
    fn what_is_no_report_is_named() {
        let error = Faults::default().read("{}\n").unwrap_err();
        assert!(error.to_string().starts_with("line 1 is no report"), "{error}");
        assert!(Faults::default().put("no marks", false).unwrap_err().to_string().contains(BEGIN));
    }
}
