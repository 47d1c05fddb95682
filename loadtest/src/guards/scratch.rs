//! A copy of the code from which guards are taken: the files of the working tree that git does not ignore, below
//! `target/guards/src`, built into `target/guards/target`. Nothing is ever written to the working tree.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Guard;
use super::tried::{Found, Went, last_words};

/// How long building may take.
const BUILD_WITHIN: Duration = Duration::from_secs(30 * 60);

/// The copy.
#[derive(Debug)]
pub struct Scratch {
    source: PathBuf,
    target: PathBuf,
    output: PathBuf,
    within: Duration,
}

/// A file that is put back when this goes, however that happens.
struct Taken<'a> {
    path: &'a Path,
    whole: &'a str,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(self.path, self.whole) {
            eprintln!("{} can't be put back: {error}", self.path.display());
        }
    }
}

/// A child and all that it started; they end together.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn end(&self) {
        if let Some(id) = self.id {
            // Where nobody is left there is nobody to end.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

impl Scratch {
    /// Copies what changed since the last time. A test may take as long as `within`.
    ///
    /// # Errors
    /// Where git does not say what there is, or something can't be copied.
    pub fn new(root: &Path, within: Duration) -> anyhow::Result<Self> {
        let place = root.join("target").join("guards");
        let scratch = Self {
            source: place.join("src"),
            target: place.join("target"),
            output: place.join("output"),
            within,
        };
        std::fs::create_dir_all(&scratch.source)
            .with_context(|| format!("{} can't be made", scratch.source.display()))?;
        let mut list = std::process::Command::new("git");
        let files = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let list = list.args(files).current_dir(root).output().context("git does not run")?;
        ensure!(list.status.success(), "git ls-files: {}", String::from_utf8_lossy(&list.stderr).trim());
        let names = String::from_utf8(list.stdout).context("a file's name is no UTF-8")?;
        let files: BTreeSet<PathBuf> = names
            .split_terminator('\0')
            .map(PathBuf::from)
            .filter(|file| root.join(file).is_file())
            .collect();
        for file in &files {
            copy(&root.join(file), &scratch.source.join(file))
                .with_context(|| format!("{} can't be copied", file.display()))?;
        }
        scratch.forget(&scratch.source, &files)?;
        Ok(scratch)
    }

    /// Removes what is not among these any more.
    fn forget(&self, folder: &Path, files: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.forget(&path, files)?;
            } else if path.strip_prefix(&self.source).is_ok_and(|file| !files.contains(file)) {
                std::fs::remove_file(&path)
                    .with_context(|| format!("{} can't be removed", path.display()))?;
            }
        }
        Ok(())
    }

    /// Builds and runs tests of one target with every guard in its place: how each went.
    ///
    /// # Errors
    /// Where cargo can't be run.
    pub async fn with_all(&self, guards: &[&Guard]) -> anyhow::Result<Vec<Went>> {
        let Some(first) = guards.first() else { return Ok(Vec::new()) };
        let mut names: Vec<&str> = guards.iter().map(|guard| &*guard.test).collect();
        names.dedup();
        self.run(first, &names).await
    }

    /// Takes a guard away and runs its test.
    ///
    /// # Errors
    /// Where the guard is not found, or cargo can't be run.
    pub async fn without(&self, guard: &Guard) -> anyhow::Result<Found> {
        let path = self.source.join(&guard.file);
        let whole =
            std::fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))?;
        let without = guard.taken_from(&whole)?;
        let taken = Taken { path: &path, whole: &whole };
        std::fs::write(&path, without).with_context(|| format!("{} can't be written", path.display()))?;
        let went = self.run(guard, &[&guard.test]).await?.remove(0);
        drop(taken);
        Ok(Found::without(went, self.within))
    }

    /// Runs tests of a guard's target; how each went.
    async fn run(&self, of: &Guard, tests: &[&str]) -> anyhow::Result<Vec<Went>> {
        let not_built = |output: &str| {
            let why = format!("it does not build: {}", last_words(output));
            tests.iter().map(|_| Went::NotRun(why.clone())).collect()
        };
        if of.package == "tictac-loadtest" {
            // What tests start as processes. They build it too, but that is not to count for their time.
            let programs = ["build", "-p", "tictac-gateway", "-p", "tictac-ingest"];
            let (output, done) = self.cargo(&programs, BUILD_WITHIN).await?;
            if done != Some(true) {
                return Ok(not_built(&output));
            }
        }
        let target: Vec<&str> = ["test", "-p", &of.package].into_iter().chain(of.target.split(' ')).collect();
        let (output, done) = self.cargo(&[&target[..], &["--no-run"]].concat(), BUILD_WITHIN).await?;
        if done != Some(true) {
            return Ok(not_built(&output));
        }
        let within = self.within * u32::try_from(tests.len()).unwrap_or(1);
        let (output, done) = self.cargo(&[&target[..], &["--", "--exact"], tests].concat(), within).await?;
        let went = |test: &&str| match Went::read(&output, test) {
            Went::NotRun(_) if done.is_none() => Went::Hung,
            went => went,
        };
        Ok(tests.iter().map(went).collect())
    }

    /// Runs cargo; what it said, and whether all was well, or `None` where it was ended since it took too long.
    async fn cargo(&self, arguments: &[&str], within: Duration) -> anyhow::Result<(String, Option<bool>)> {
        let output = File::create(&self.output)
            .with_context(|| format!("{} can't be written", self.output.display()))?;
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(&self.source).process_group(0);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // What cargo tells this program would make some build scripts run again.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_") && text != "CARGO_HOME" && !text.starts_with("CARGO_BUILD") {
                command.env_remove(&name);
            }
        }
        command.env("CARGO_TARGET_DIR", &self.target).env("CARGO_TERM_COLOR", "never");
        // That it fails is all there is to know.
        command.env("PROPTEST_MAX_SHRINK_ITERS", "0");
        let child = command.spawn().context("cargo does not run")?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut group = Group { child, id };
        let done = match timeout(within, group.child.wait()).await {
            Ok(status) => Some(status?.success()),
            Err(_) => None,
        };
        group.end();
        // Only what is no part of the output may be lost.
        let said = std::fs::read(&self.output)?;
        Ok((String::from_utf8_lossy(&said).into_owned(), done))
    }
}

/// Copies a file, unless it is the same: what is older than what was built of it is not built again.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if std::fs::read(to).is_ok_and(|old| std::fs::read(from).is_ok_and(|new| new == old)) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(from, to).map(drop)
}
