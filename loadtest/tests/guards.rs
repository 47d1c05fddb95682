//! ARCHITECTURE.md's table of guards and `guards.toml`, which says what of the code they are, belong together and to the code.
//! Whether a test fails without its guard is what `make guards` tries.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tictac_loadtest::guards::{Guard, Row, read, row_of, rows};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn table_and_list() -> (Vec<Row>, Vec<Guard>) {
    let rows = rows(&text(&root().join("ARCHITECTURE.md"))).unwrap();
    (rows, read(&text(&root().join("loadtest/guards.toml"))).unwrap())
}

/// The text of a file, or of all in a folder.
fn all(path: &Path) -> String {
    if path.is_file() {
        return text(path);
    }
    let folder = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    folder.map(|entry| all(&entry.unwrap().path())).collect()
}

#[test]
fn every_test_of_the_table_has_an_entry_and_no_entry_has_another_test() {
    let (rows, list) = table_and_list();
    let mut entries: BTreeMap<&str, Vec<&Guard>> = BTreeMap::new();
    for guard in &list {
        let row = row_of(guard, &rows).unwrap();
        assert!(row.tests.iter().any(|test| guard.tests(test)), "the table names no {}", guard.test);
        entries.entry(&row.guard).or_default().push(guard);
    }
    for row in &rows {
        for test in &row.tests {
            let tried = entries.get(&*row.guard).is_some_and(|e| e.iter().any(|guard| guard.tests(test)));
            assert!(tried, "guards.toml has nothing that {test} fails without ({})", row.guard);
        }
    }
    assert!(rows.len() > 30, "{} rows", rows.len());
}

#[test]
fn every_guard_is_found_once_in_its_file() {
    for guard in table_and_list().1.iter().filter(|guard| !guard.itself) {
        if let Err(why) = guard.taken_from(&text(&root().join(&guard.file))) {
            panic!("{}: {why:#}", guard.test);
        }
    }
}

#[test]
fn every_test_is_where_its_entry_says() {
    let (rows, list) = table_and_list();
    for guard in &list {
        let code = all(&guard.written_in(&root()).unwrap());
        for test in row_of(guard, &rows).unwrap().tests.iter().filter(|test| guard.tests(test)) {
            assert!(code.contains(&format!("fn {test}(")), "no {test} in {} {}", guard.package, guard.target);
        }
    }
}
