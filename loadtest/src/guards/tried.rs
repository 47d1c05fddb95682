//! What came of taking a guard away, and how it is shown.

use std::time::Duration;

use super::Guard;

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Went {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It did not end in its time.
    Hung,
    /// Nothing was run that is called so: what cargo said last.
    NotRun(String),
}

impl Went {
    /// Reads what the test's program wrote.
    #[must_use]
    pub fn read(output: &str, test: &str) -> Self {
        let line = format!("test {test} ... ");
        let should_panic = format!("test {test} - should panic ... ");
        let found =
            output.lines().find_map(|l| l.strip_prefix(&line).or_else(|| l.strip_prefix(&should_panic)));
        match found {
            Some("ok") => Self::Passed,
            Some(result) if result.starts_with("FAILED") => Self::Failed,
            _ => Self::NotRun(last_words(output)),
        }
    }
}

/// The first error, or the last line, for people.
#[must_use]
pub fn last_words(output: &str) -> String {
    let error = output.lines().find(|line| line.starts_with("error"));
    let last = output.lines().rfind(|line| !line.trim().is_empty());
    error.or(last).unwrap_or("nothing was said").trim().to_owned()
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The test fails without the guard, and passes with it.
    Seen,
    /// The test passes, which takes the guard away itself.
    Itself,
    /// The test passes without the guard.
    NotSeen,
    /// The test does not end without the guard: nobody is told of anything.
    Hangs(Duration),
    /// The test does not pass with the guard.
    FailsAnyway(String),
    /// Nothing is known of the guard.
    Unknown(String),
}

impl Found {
    /// Of a test with the guard in its place.
    #[must_use]
    pub fn with(went: &Went, itself: bool) -> Option<Self> {
        match went {
            Went::Passed if itself => Some(Self::Itself),
            Went::Passed => None,
            Went::Failed => Some(Self::FailsAnyway("it fails with the guard in place".into())),
            Went::Hung => Some(Self::FailsAnyway("it hangs with the guard in place".into())),
            Went::NotRun(why) => Some(Self::Unknown(format!("not run: {why}"))),
        }
    }

    /// Of a test without the guard, which was given so much time.
    #[must_use]
    pub fn without(went: Went, within: Duration) -> Self {
        match went {
            Went::Passed => Self::NotSeen,
            Went::Failed => Self::Seen,
            Went::Hung => Self::Hangs(within),
            Went::NotRun(why) => Self::Unknown(format!("not run: {why}")),
        }
    }

    /// Whether the guard is shown to be of use.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Seen | Self::Itself)
    }

    /// For people.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::Seen => "seen".into(),
            Self::Itself => "seen by itself".into(),
            Self::NotSeen => "NOT SEEN: the test passes without it".into(),
            Self::Hangs(within) => format!("NOT SEEN: no end within {} s", within.as_secs()),
            Self::FailsAnyway(why) | Self::Unknown(why) => format!("ERROR: {why}"),
        }
    }
}

/// A guard that was tried.
#[derive(Debug)]
pub struct Tried {
    /// Which.
    pub guard: Guard,
    /// What came of it.
    pub found: Found,
    /// How long that took.
    pub took: Duration,
}

/// All that was tried, for a terminal; in colours where it is one.
#[must_use]
pub fn table(tried: &[Tried], colours: bool) -> String {
    let paint = |code: &str, text: &str| {
        if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let widest = |text: fn(&Tried) -> &str| tried.iter().map(|t| text(t).chars().count()).max().unwrap_or(0);
    let (guards, tests) = (widest(|t| &t.guard.guard).max(5), widest(|t| &t.guard.test).max(4));
    let head = format!("{:guards$}  {:tests$}  {:>6}  without it", "guard", "test", "took");
    let mut out = format!("{}\n", paint("1", &head));
    for one in tried {
        let found = paint(if one.found.is_good() { "32" } else { "31" }, &one.found.described());
        let took = format!("{:.0} s", one.took.as_secs_f64());
        out += &format!("{:guards$}  {:tests$}  {took:>6}  {found}\n", one.guard.guard, one.guard.test);
    }
    let bad = tried.iter().filter(|t| !t.found.is_good()).count();
    let sum = match bad {
        0 => paint("32", &format!("all {} are seen", tried.len())),
        bad => paint("31", &format!("{bad} of {} are not seen", tried.len())),
    };
    out + &sum + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_test_itself_counts() {
        let ran = "running 2 tests\ntest a::b ... ok\ntest b ... FAILED\n\nfailures:\n";
        assert_eq!((Went::read(ran, "a::b"), Went::read(ran, "b")), (Went::Passed, Went::Failed));
        for none in [
            "running 0 tests\n\ntest result: ok. 0 passed",
            "error[E0425]: cannot find value\n --> src/lib.rs",
            "error: could not compile\ntest result: FAILED",
            "running 1 test\ntest b ... ignored\n",
            "",
        ] {
            let Went::NotRun(why) = Went::read(none, "b") else { panic!("{none}") };
            assert!(!why.is_empty());
            assert!(!Found::without(Went::read(none, "b"), Duration::ZERO).is_good());
            assert!(Found::with(&Went::read(none, "b"), true).is_some_and(|found| !found.is_good()));
        }
        assert!(last_words("warning: x\nerror: y\nend").contains('y'));
    }

    #[test]
    fn a_guard_is_good_where_its_test_fails_without_it_and_only_there() {
        let within = Duration::from_secs(120);
        assert!(Found::without(Went::Failed, within).is_good());
        assert!(!Found::without(Went::Passed, within).is_good());
        assert!(Found::without(Went::Hung, within).described().contains("120 s"));
        assert_eq!(Found::with(&Went::Passed, false), None);
        assert!(Found::with(&Went::Passed, true).is_some_and(|found| found.is_good()));
        assert!(Found::with(&Went::Failed, true).is_some_and(|found| !found.is_good()));
    }
}
