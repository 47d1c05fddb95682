//! The names of settings, and what was given for each of them and where, so that an error can say it.

use toml::{Table, Value};

/// What a group may say.
pub const GROUP: [&str; 14] = [
    "name",
    "count",
    "transport",
    "codec",
    "ramp",
    "view",
    "conflate",
    "markets",
    "pick",
    "skew",
    "ids",
    "read",
    "churn",
    "storm_at",
];
/// What the top of a file may say: of the run, and of every group.
pub const TOP: [&str; 19] = [
    "name",
    "url",
    "seconds",
    "clients",
    "json",
    "report",
    "msgpack",
    "transport",
    "codec",
    "ramp",
    "view",
    "conflate",
    "markets",
    "pick",
    "skew",
    "ids",
    "read",
    "churn",
    "storm_at",
];

/// A table whose keys are all known, with `_` for `-`.
///
/// # Errors
/// The first that is not, with the one that was probably meant.
pub fn checked(table: Table, known: &[&str], prefix: &str) -> Result<Table, String> {
    let mut all = Table::new();
    for (key, value) in table {
        let name = key.replace('-', "_");
        if !known.contains(&name.as_str()) {
            let remedy = match nearest(&name, known) {
                Some(meant) => format!("do you mean `{meant}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            return Err(format!("{prefix}{key}: there is no such setting; {remedy}"));
        }
        all.insert(name, value);
    }
    Ok(all)
}

/// The name that something misspelt is likely to mean.
#[must_use]
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let far = |known: &&str| distance(name, known);
    known.iter().copied().min_by_key(far).filter(|known| distance(name, known) <= (known.len() / 3).max(1))
}

/// Letters to put in, take out or change (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

/// A value as it was written.
#[must_use]
pub fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(String::new, ToString::to_string);
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// What was given, layer over layer.
#[derive(Debug)]
pub struct Given<'a> {
    origin: &'a str,
    shared: Option<&'a Table>,
    own: Option<(&'a Table, &'a str)>,
    flags: Option<&'a Table>,
}

impl<'a> Given<'a> {
    /// Nothing; `origin` comes before what a file says, in errors.
    #[must_use]
    pub fn new(origin: &'a str) -> Self {
        Self { origin, shared: None, own: None, flags: None }
    }

    /// With what holds for every group.
    #[must_use]
    pub fn over(mut self, shared: &'a Table) -> Self {
        self.shared = Some(shared);
        self
    }

    /// With what one group says; `prefix` comes before its keys, in errors.
    #[must_use]
    pub fn own(mut self, own: &'a Table, prefix: &'a str) -> Self {
        self.own = Some((own, prefix));
        self
    }

    /// With what flags and the environment say, as text.
    #[must_use]
    pub fn flags(mut self, flags: &'a Table) -> Self {
        self.flags = Some(flags);
        self
    }

    /// Whether a flag says it.
    #[must_use]
    pub fn is_flag(&self, key: &str) -> bool {
        self.flags.is_some_and(|flags| flags.contains_key(key))
    }

    /// Whether the group itself or a flag says it.
    #[must_use]
    pub fn is_own(&self, key: &str) -> bool {
        self.is_flag(key) || self.own.is_some_and(|(own, _)| own.contains_key(key))
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        let flag = self.flags.and_then(|flags| flags.get(key));
        let own = || self.own.and_then(|(own, _)| own.get(key));
        flag.or_else(own).or_else(|| self.shared.and_then(|shared| shared.get(key)))
    }

    /// An error about a setting: where it stands, its value, and what is wrong with it.
    #[must_use]
    pub fn wrong(&self, key: &str, why: &str) -> String {
        let value = self.value(key);
        if self.is_flag(key) {
            let text = value.and_then(Value::as_str).map_or_else(|| shown(value), str::to_owned);
            return format!("--{} {text}: {why}", key.replace('_', "-"));
        }
        let own = self.own.filter(|(own, _)| own.contains_key(key));
        let prefix = own.map_or(self.origin, |(_, prefix)| prefix);
        format!("{prefix}{key} = {}: {why}", shown(value))
    }

    /// A text. Numbers do where they are what a name looks like, as in `view = 3`.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "not a text; put it in \"quotes\"")),
        }
    }

    /// A text that the group says itself.
    ///
    /// # Errors
    /// If it is something else.
    pub fn own_text(&self, key: &str) -> Result<Option<&'a str>, String> {
        if self.own.is_some_and(|(own, _)| own.contains_key(key)) { self.text(key) } else { Ok(None) }
    }

    /// Whether a switch is on.
    ///
    /// # Errors
    /// If it is neither.
    pub fn switch(&self, key: &str) -> Result<bool, String> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Boolean(on)) => Ok(*on),
            Some(_) => Err(self.wrong(key, "neither true nor false")),
        }
    }

    /// Texts: a list in a file, separated by commas as a flag.
    ///
    /// # Errors
    /// If it is something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, String> {
        let wrong = || self.wrong(key, "not a list of texts, such as [\"a\", \"b\"]");
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) if self.is_flag(key) => {
                Ok(Some(text.split(',').map(|part| part.trim().to_owned()).collect()))
            }
            Some(Value::Array(list)) => list
                .iter()
                .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(_) => Err(wrong()),
        }
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number(&self, key: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        let number = match self.value(key) {
            None => return Ok(None),
            Some(Value::Integer(number)) => u64::try_from(*number).ok(),
            Some(Value::String(text)) if self.is_flag(key) => text.parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &format!("give a whole number from {least} to {most}"))),
        }
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// If it is something else.
    pub fn real(&self, key: &str, least: f64, most: f64) -> Result<Option<f64>, String> {
        let number = match self.value(key) {
            None => return Ok(None),
            Some(Value::Integer(number)) => Some(*number as f64),
            Some(Value::Float(number)) => Some(*number),
            Some(Value::String(text)) if self.is_flag(key) => text.parse().ok(),
            Some(_) => None,
        };
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &format!("give a number from {least} to {most}"))),
        }
    }

    /// One of some names, which may look like numbers.
    ///
    /// # Errors
    /// If it is none of them; `names` says which there are.
    pub fn one_of<T>(
        &self,
        key: &str,
        names: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let text = match self.value(key) {
            None => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        read(&text).map(Some).ok_or_else(|| self.wrong(key, &format!("there is {names}")))
    }
}
