//! The guards that ARCHITECTURE.md lists, each taken out of the code to see that its test fails without it.
//!
//! `loadtest/guards.toml` says of each what of the code it is; [`scratch`] is a copy of the code where one is taken away at a
//! time; [`tried`] is what came of it.

pub mod scratch;
pub mod tried;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// Where the table stands in ARCHITECTURE.md.
const HEADING: &str = "## Guards";

/// A guard, or a part of one, and a test that fails without it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// The guard as the table calls it, or the beginning of that.
    pub guard: String,
    /// Whether the test takes the guard away itself, so that it passes where the guard is of use.
    #[serde(default)]
    pub itself: bool,
    /// The file with the guard, from the repository's root.
    #[serde(default)]
    pub file: String,
    /// Its text, which is found there exactly once.
    #[serde(default)]
    pub take: String,
    /// What stands there instead.
    #[serde(default)]
    pub put: String,
    /// The package with the test.
    pub package: String,
    /// Which of its targets, as cargo is told: `--lib` or `--test NAME`.
    pub target: String,
    /// The test's whole name, with its modules.
    pub test: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    guard: Vec<Guard>,
}

/// Reads the list.
///
/// # Errors
/// What can't be used, and why.
pub fn read(text: &str) -> anyhow::Result<Vec<Guard>> {
    let list: List = toml::from_str(text)?;
    for guard in &list.guard {
        let named = [&guard.guard, &guard.package, &guard.target, &guard.test].iter().all(|t| !t.is_empty());
        ensure!(named, "{:?}: guard, package, target and test must be said", guard.test);
        let takes = !guard.file.is_empty() && !guard.take.is_empty();
        ensure!(takes != guard.itself, "{}: say file and take, or itself = true", guard.test);
        ensure!(guard.itself || guard.take != guard.put, "{}: nothing is taken away", guard.test);
    }
    Ok(list.guard)
}

impl Guard {
    /// A file's text without the guard.
    ///
    /// # Errors
    /// Where it is not found exactly once.
    pub fn taken_from(&self, text: &str) -> anyhow::Result<String> {
        let found = text.matches(&self.take).count();
        ensure!(found == 1, "{}: found {found} times, not once:\n{}", self.file, self.take);
        Ok(text.replacen(&self.take, &self.put, 1))
    }

    /// Whether the test, or a module that it is in, is called so: one that is held to several logs is a module.
    #[must_use]
    pub fn tests(&self, name: &str) -> bool {
        self.test.split("::").any(|part| part == name)
    }

    /// The file or folder where the test is written.
    ///
    /// # Errors
    /// Where it is a target that nobody knows here.
    pub fn written_in(&self, root: &Path) -> anyhow::Result<PathBuf> {
        let package = root.join(self.package.trim_start_matches("tictac-"));
        if self.target == "--lib" {
            return Ok(package.join("src"));
        }
        let Some(name) = self.target.strip_prefix("--test ") else {
            bail!("{:?} is neither --lib nor --test NAME", self.target)
        };
        let file = package.join("tests").join(format!("{name}.rs"));
        Ok(if file.is_file() { file } else { package.join("tests").join(name) })
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What the guard is called.
    pub guard: String,
    /// The tests that are named beside it.
    pub tests: Vec<String>,
}

/// The rows of the table in ARCHITECTURE.md.
///
/// # Errors
/// Where there is none, or a row names no test.
pub fn rows(document: &str) -> anyhow::Result<Vec<Row>> {
    let (_, section) = document.split_once(HEADING).with_context(|| format!("there is no {HEADING:?}"))?;
    let table = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rows = Vec::new();
    for line in table.take_while(|line| line.starts_with('|')) {
        let Some((guard, tests)) = line.trim_matches('|').split_once(" | ") else {
            bail!("a row with one cell: {line}")
        };
        // What stands between backticks and is no path.
        let words = tests.split('`').skip(1).step_by(2);
        let tests: Vec<String> = words.filter(|word| !word.contains(['/', '.'])).map(str::to_owned).collect();
        ensure!(!tests.is_empty(), "{guard}: no test is named");
        rows.push(Row { guard: guard.trim().to_owned(), tests });
    }
    ensure!(!rows.is_empty(), "there is no table under {HEADING:?}");
    Ok(rows)
}

/// The row that a guard belongs to.
///
/// # Errors
/// Where it is none, or may be several.
pub fn row_of<'a>(guard: &Guard, rows: &'a [Row]) -> anyhow::Result<&'a Row> {
    if let Some(row) = rows.iter().find(|row| row.guard == guard.guard) {
        return Ok(row);
    }
    let mut begin = rows.iter().filter(|row| row.guard.starts_with(&guard.guard));
    match (begin.next(), begin.next()) {
        (Some(row), None) => Ok(row),
        (None, _) => bail!("no guard of the table is called {:?}", guard.guard),
        (Some(_), Some(_)) => bail!("several guards of the table begin with {:?}", guard.guard),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "## Guards\n\nText.\n\n| guard | test |\n|---|---|\n| a door | `it_is_shut`; over `Redis` \
                            `so_is_that` (`tests/door.rs`) |\n| a door behind | `that_too` |\n\n## More\n| no | `row` |\n";

    fn guard(more: &str) -> anyhow::Result<Guard> {
        let text = format!("[[guard]]\nguard = \"a door b\"\npackage = \"p\"\ntarget = \"--lib\"\n{more}");
        Ok(read(&text)?.remove(0))
    }

    #[test]
    fn rows_name_their_tests() {
        let rows = rows(DOCUMENT).unwrap();
        let tests: Vec<_> = rows.iter().map(|row| (&*row.guard, row.tests.join(" "))).collect();
        assert_eq!(
            tests,
            [("a door", "it_is_shut Redis so_is_that".into()), ("a door behind", "that_too".into())]
        );
        assert!(super::rows("## Guards\n\nNone.\n").is_err());
    }

    #[test]
    fn a_guard_is_known_by_its_name_or_a_beginning_that_only_it_has() {
        let rows = rows(DOCUMENT).unwrap();
        let mut guard = guard("test = \"t\"\nitself = true").unwrap();
        for (name, row) in [("a door b", Some(1)), ("a door", Some(0)), ("a d", None), ("a window", None)] {
            guard.guard = name.into();
            assert_eq!(row_of(&guard, &rows).ok(), row.map(|i| &rows[i]), "{name}");
        }
    }

    #[test]
    fn what_is_taken_is_there_once() {
        let guard = guard("test = \"m::t\"\nfile = \"f\"\ntake = \"shut\"\nput = \"open\"").unwrap();
        assert_eq!(guard.taken_from("is shut.").unwrap(), "is open.");
        assert!(guard.taken_from("is open.").is_err() && guard.taken_from("shut, shut").is_err());
        assert!(guard.tests("t") && guard.tests("m") && !guard.tests("m::t"));
    }

    #[test]
    fn an_entry_says_what_it_takes_or_that_its_test_does() {
        for wrong in
            ["", "itself = true\nfile = \"f\"\ntake = \"a\"", "file = \"f\"", "file = \"f\"\ntook = \"a\""]
        {
            assert!(guard(&format!("test = \"t\"\n{wrong}")).is_err(), "{wrong}");
        }
    }
}
