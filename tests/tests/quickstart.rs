//! The quickstart as its user starts it: it keeps its word, logs nothing that would worry its user without a reason, and
//! leaves nothing behind when it is interrupted.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use regent_deploy::{place, tree, wait};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// The whole story with the shortest wait takes ten seconds on a machine at rest.
const PATIENCE: Duration = Duration::from_secs(55);

/// A quickstart in a process group of its own, as a shell starts it.
struct Quickstart {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    told: String,
}

impl Quickstart {
    fn start(folder: &Path, more: &[&str]) -> Result<Self> {
        let mut child = Command::new(place::binary("quickstart")?)
            .args(["--fail-over-after", "2s", "--dir"])
            .arg(folder)
            .args(more)
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        Ok(Self { child, lines, told: String::new() })
    }

    fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(self.child.id().context("it has ended")?.cast_signed()))
    }

    /// Reads on until a line holds `words`.
    async fn says(&mut self, words: &str) -> Result<()> {
        while let Some(line) = self.lines.next_line().await? {
            self.told.push_str(&line);
            self.told.push('\n');
            if line.contains(words) {
                return Ok(());
            }
        }
        bail!("it ended without a word of {words:?}:\n{}", self.told)
    }

    /// Reads on to the end; gives how it ended and what it complained of.
    async fn ends(&mut self) -> Result<(ExitStatus, String)> {
        while let Some(line) = self.lines.next_line().await? {
            self.told.push_str(&line);
            self.told.push('\n');
        }
        let mut complaints = String::new();
        self.child.stderr.take().context("no errors")?.read_to_string(&mut complaints).await?;
        Ok((self.child.wait().await?, complaints))
    }
}

/// A folder that PostgreSQL's user can get to.
fn parent() -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("regent-").tempdir_in("/var/tmp")?;
    place::passable(folder.path())?;
    Ok(folder)
}

/// The folder in memory that the world in `folder` has made.
fn runtime(folder: &Path) -> Result<String> {
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("world.json"))?)?;
    Ok(found["runtime"].as_str().context("no runtime folder")?.to_owned())
}

#[tokio::test]
async fn the_quickstart_keeps_its_word() -> Result<()> {
    let parent = parent()?;
    let folder = parent.path().join("world");
    let mut quickstart = Quickstart::start(&folder, &[])?;
    let (status, complaints) = tokio::time::timeout(PATIENCE, quickstart.ends()).await??;
    ensure!(status.code() == Some(0), "{status}\n{}\n{complaints}", quickstart.told);
    ensure!(complaints.is_empty(), "it complained: {complaints}");
    ensure!(!quickstart.told.contains("BROKEN"), "{}", quickstart.told);
    // The region that was lost took its DNS server with it, which is something else than an old answer.
    ensure!(quickstart.told.contains("could not be reached"), "{}", quickstart.told);
    ensure!(!folder.exists(), "its folder is still there");
    Ok(())
}

/// Warnings and errors that the story itself calls for, and why.
const EXPECTED: [(&str, &str); 10] = [
    ("A coordinator cannot be reached", "one dies with its region, and all start one after the other"),
    ("an agent's stream ended", "the agent of the region that dies, and at the other agents the coordinator there"),
    ("no stream to the coordinator", "the same, as the agents see it"),
    ("a vote stands", "the region that dies is voted lost"),
    ("a vote was withdrawn", "it comes back"),
    ("nobody else fences: fencing hard", "a guard whose lease ended while its region was off"),
    ("the guard has fenced hard", "the guard that comes back finds that the lease has ended while nobody was there"),
    ("fenced hard: every guarded database is gone", "the same, as the guard says it"),
    ("the lease does not hold: fencing", "the agent that comes back is no primary any more"),
    ("fenced by this agent itself, confirmed", "the same, done"),
];

#[tokio::test]
async fn the_quickstart_logs_nothing_unexpected() -> Result<()> {
    let parent = parent()?;
    let folder = parent.path().join("world");
    let mut quickstart = Quickstart::start(&folder, &["--keep"])?;
    let (status, complaints) = tokio::time::timeout(PATIENCE, quickstart.ends()).await??;
    ensure!(status.code() == Some(0), "{status}\n{}\n{complaints}", quickstart.told);
    let runtime = runtime(&folder)?;
    let (count, unexpected) = worries(&[folder.as_path(), Path::new(&runtime)])?;
    let down = Command::new(place::binary("quickstart")?).args(["--down", "--dir"]).arg(&folder).output().await?;
    ensure!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    ensure!(!folder.exists() && !Path::new(&runtime).exists(), "something is left");
    ensure!(count > 100, "only {count} lines were logged: are these the logs?");
    ensure!(unexpected.is_empty(), "{} of {count} lines:\n{}", unexpected.len(), unexpected.join("\n"));
    Ok(())
}

/// How many lines coordinators, agents and guards have logged, and those that worry and should not be there.
fn worries(folders: &[&Path]) -> Result<(usize, Vec<String>)> {
    let (mut count, mut unexpected) = (0, Vec::new());
    for place in folders.iter().flat_map(std::fs::read_dir).flatten().flatten() {
        for log in std::fs::read_dir(place.path()).into_iter().flatten().flatten() {
            let name = log.file_name().to_string_lossy().into_owned();
            if !["regent-coordinator.log", "regent-agent.log", "guard.log"].contains(&name.as_str()) {
                continue;
            }
            for line in std::fs::read_to_string(log.path())?.lines() {
                count += 1;
                if !is_expected(line) {
                    unexpected.push(format!("{name}: {line}"));
                }
            }
        }
    }
    Ok((count, unexpected))
}

/// A line that is no record of a log is a worry, too: whoever wrote it did not come to log it.
fn is_expected(line: &str) -> bool {
    let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { return false };
    let message = record["message"].as_str().or_else(|| record["fields"]["message"].as_str());
    match record["level"].as_str() {
        Some("WARN" | "ERROR") => EXPECTED.iter().any(|(expected, _)| message == Some(*expected)),
        Some(_) => true,
        None => false,
    }
}

#[test]
fn a_worry_is_seen() {
    let line = |level: &str, message: &str| format!(r#"{{"level":"{level}","fields":{{"message":"{message}"}}}}"#);
    assert!(is_expected(&line("INFO", "anything")));
    assert!(is_expected(&line("WARN", "a vote stands")));
    assert!(!is_expected(&line("ERROR", "the journal cannot be written")));
    assert!(!is_expected(r#"{"level":"WARN","message":"no reason for this"}"#));
    assert!(!is_expected("thread 'main' panicked"));
}

#[tokio::test]
async fn an_interrupted_quickstart_leaves_nothing_behind() -> Result<()> {
    let parent = parent()?;
    let folder = parent.path().join("world");
    let mut quickstart = Quickstart::start(&folder, &[])?;
    // The moment at which the most is under way: one region dead, the other taking over.
    tokio::time::timeout(PATIENCE, quickstart.says("promote")).await??;
    let pid = quickstart.pid()?;
    let all: Vec<(Pid, Option<u64>)> =
        tree::descendants(pid).into_iter().map(|pid| (pid, tree::started(pid))).collect();
    ensure!(all.len() > 10, "only {} processes run", all.len());
    let runtime = runtime(&folder)?;
    ensure!(Path::new(&runtime).exists(), "{runtime} is not there");

    killpg(pid, Signal::SIGINT)?;
    let (status, complaints) = tokio::time::timeout(PATIENCE, quickstart.ends()).await??;
    ensure!(status.code() == Some(130), "{status}\n{}\n{complaints}", quickstart.told);
    ensure!(complaints.contains("everything is removed"), "it said {complaints}");
    wait::until("the end of all processes", Duration::from_secs(5), || async {
        // A number that was given to another process since then does not count.
        let left: Vec<&Pid> = all
            .iter()
            .filter(|(pid, started)| tree::is_running(*pid) && tree::started(*pid) == *started)
            .map(|(pid, _)| pid)
            .collect();
        ensure!(left.is_empty(), "{left:?} still run");
        Ok(())
    })
    .await?;
    ensure!(!folder.exists(), "its folder is still there");
    ensure!(!Path::new(&runtime).exists(), "{runtime} is still there");
    Ok(())
}

#[tokio::test]
async fn a_wait_that_makes_no_sense_is_refused_before_anything_starts() -> Result<()> {
    for (wait, word) in [("1s", "below 2000 ms"), ("0s", "below 2000 ms"), ("abc", "write it like"), ("1h", "or less")]
    {
        let output = Command::new(place::binary("quickstart")?).args(["--failover-after", wait]).output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(2) && said.contains(word), "{wait}: {} {said}", output.status);
        ensure!(output.stdout.is_empty(), "{wait}: it began all the same");
    }
    Ok(())
}
