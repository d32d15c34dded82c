//! What an agent that is killed leaves running.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use regent_agent::driver::process::Program;
use regent_agent::driver::process::children::Children;
use regent_agent::driver::process::table::Process;

use crate::support::until;

const PLACE: &str = "REGENT_TEST_PLACE";
const LIMIT: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Program {
    Program::listed(&["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])
}

fn process(file: &Path) -> Option<Process> {
    let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Process::read(pid).filter(Process::lives)
}

#[tokio::test]
#[ignore = "is the agent that another test kills"]
async fn helper_agent() {
    let place = PathBuf::from(std::env::var(PLACE).expect("is started by another test"));
    let children = Children::default();
    children.take_up(&place);
    let script = format!(
        "cd {}; sleep 600 & echo $! > child; env -i sleep 600 & echo $! > nameless; setsid sleep 600 & echo $! > \
         daemon; echo $$ > leader; wait",
        place.display()
    );
    let _ = shell(&script).run(&children, LIMIT).await;
}

#[tokio::test]
async fn what_a_killed_agent_left_running_is_gone_before_the_next_one_runs_anything() {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str| place.path().join(name);
    let mut agent = Command::new(std::env::current_exe().unwrap());
    agent.args(["--exact", "children::helper_agent", "--ignored", "--nocapture"]).env(PLACE, place.path());
    let mut agent = agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let left = ["child", "nameless", "leader"];
    let all = left.iter().chain(&["daemon"]);
    until("the program has begun", async || all.clone().all(|name| process(&file(name)).is_some())).await;
    until("the daemon has a session of its own", async || {
        process(&file("daemon")).is_some_and(|daemon| daemon.session == daemon.pid)
    })
    .await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    let records = || std::fs::read_dir(file("children")).unwrap().count();
    assert!(left.iter().all(|name| process(&file(name)).is_some()) && records() == 1, "nobody ended them");

    let children = Children::default();
    children.take_up(place.path());
    shell("true").run(&children, LIMIT).await.unwrap();
    let gone = left.iter().all(|name| process(&file(name)).is_none());
    let daemon = process(&file("daemon"));
    // Whatever else is wrong, nothing stays.
    for process in left.iter().filter_map(|name| process(&file(name))).chain(daemon.clone()) {
        let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
    assert!(gone, "something was run beside what a dead agent left");
    assert!(daemon.is_some(), "what was meant to go on was ended");
    assert_eq!(records(), 0);
}

#[tokio::test]
async fn a_program_that_was_given_up_is_off_the_record_once_it_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let children = Children::default();
    children.take_up(place.path());
    let records = || std::fs::read_dir(place.path().join("children")).unwrap().count();
    let ended = shell("sleep 600 & wait").run(&children, Duration::from_millis(100)).await;
    assert!(ended.is_err());
    until("its record is gone", async || records() == 0).await;
}

#[tokio::test]
async fn nothing_runs_that_cannot_be_recorded() {
    let place = tempfile::tempdir().unwrap();
    let children = Children::default();
    children.take_up(place.path());
    std::fs::remove_dir(place.path().join("children")).unwrap();
    let file = place.path().join("ran");
    let refused = shell(&format!("touch {}", file.display())).run(&children, LIMIT).await;
    assert!(refused.unwrap_err().to_string().contains("cannot be recorded"));
    assert!(!file.exists());
}
