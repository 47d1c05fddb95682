//! A TOML file with a program's settings: its keys are the names of the flags, with `-` or `_`. It comes before the
//! environment and the flags, which override it.

use std::ffi::OsString;
use std::path::Path;

/// The arguments with the settings of a file put before them, but for those that the environment sets.
///
/// # Errors
/// If the file can't be read or is no TOML, naming it.
pub fn with_file(path: &Path, arguments: Vec<OsString>) -> Result<Vec<OsString>, String> {
    let wrong = |e: &dyn std::fmt::Display| format!("--config {}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e))?;
    let table: toml::Table = text.parse().map_err(|e| wrong(&e))?;
    let mut arguments = arguments.into_iter();
    let mut all = vec![arguments.next().unwrap_or_default()];
    for (key, value) in table {
        let variable = format!("TICTAC_{}", key.to_uppercase().replace('-', "_"));
        if std::env::var_os(&variable).is_some() {
            continue;
        }
        let flag = key.replace('_', "-");
        match value {
            // A flag that takes no value is given or it is not.
            toml::Value::Boolean(true) => all.push(format!("--{flag}").into()),
            toml::Value::Boolean(false) => {}
            toml::Value::String(text) => all.push(format!("--{flag}={text}").into()),
            other => all.push(format!("--{flag}={other}").into()),
        }
    }
    all.extend(arguments);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_file_come_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "clients = 7\nview = \"3\"\nmsgpack = true\nquiet = false\n").unwrap();
        let arguments = vec!["program".into(), "--clients=9".into()];
        let all = with_file(file.path(), arguments).unwrap();
        assert_eq!(all, ["program", "--clients=7", "--msgpack", "--view=3", "--clients=9"]);
        let missing = with_file(Path::new("nowhere.toml"), Vec::new()).unwrap_err();
        assert!(missing.contains("--config nowhere.toml"), "{missing}");
    }
}
