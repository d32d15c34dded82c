//! The quickstart as its user starts it: it keeps its word, and leaves nothing behind when it is interrupted.

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
    fn start(folder: &Path) -> Result<Self> {
        let mut child = Command::new(place::binary("quickstart")?)
            .args(["--fail-over-after", "2s", "--dir"])
            .arg(folder)
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
    let mut quickstart = Quickstart::start(&folder)?;
    let (status, complaints) = tokio::time::timeout(PATIENCE, quickstart.ends()).await??;
    ensure!(status.code() == Some(0), "{status}\n{}\n{complaints}", quickstart.told);
    ensure!(complaints.is_empty(), "it complained: {complaints}");
    ensure!(!quickstart.told.contains("BROKEN"), "{}", quickstart.told);
    // The region that was lost took its DNS server with it, which is something else than an old answer.
    ensure!(quickstart.told.contains("could not be reached"), "{}", quickstart.told);
    ensure!(!folder.exists(), "its folder is still there");
    Ok(())
}

#[tokio::test]
async fn an_interrupted_quickstart_leaves_nothing_behind() -> Result<()> {
    let parent = parent()?;
    let folder = parent.path().join("world");
    let mut quickstart = Quickstart::start(&folder)?;
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
