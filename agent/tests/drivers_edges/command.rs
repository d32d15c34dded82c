//! Real programs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regent_agent::driver::{Driver, Health, Rehearsal};

use crate::support::{driver, until};

/// A service that is a file: it runs while the file is there.
fn service(folder: &Path, more: &str) -> Arc<dyn Driver> {
    let file = folder.join("running");
    let file = file.display();
    driver(&format!(
        "kind: command\nactivate: [/usr/bin/touch, {file}]\ndeactivate: [/bin/rm, {file}]\nstatus: [/usr/bin/test, \
         -e, {file}]\n{more}"
    ))
}

fn script(command: &str, more: &str) -> Arc<dyn Driver> {
    let command = command.replace('\'', "''");
    driver(&format!("kind: command\ncommands:\n  it: [/bin/sh, -c, '{command}']\n{more}"))
}

/// Whether a process is there; a zombie is not.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_service_is_started_and_stopped_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), "");
    assert_eq!(service.probe().await.health, Health::Failed);
    assert_eq!(service.verify().await.unwrap_err().code, "command-not-running");
    assert!(service.deactivate().await.unwrap().already);
    assert!(!service.activate().await.unwrap().already);
    assert!(folder.path().join("running").exists());
    assert!(service.activate().await.unwrap().already);
    assert_eq!(service.probe().await.health, Health::Healthy);
    service.verify().await.unwrap();
    assert!(!service.quiesce().await.unwrap().already);
    assert!(!folder.path().join("running").exists());
}

#[tokio::test]
async fn only_what_certainly_rests_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let lines = || std::fs::read_to_string(&data).unwrap_or_default().lines().count();
    let service = service(
        folder.path(),
        &format!(
            "restore: [/bin/sh, -c, 'echo brought back >> {0}; echo from Sunday']\nverifyRestored: [/bin/grep, -q, back, \
             {0}]",
            data.display()
        ),
    );
    service.activate().await.unwrap();
    let error = service.restore(1).await.unwrap_err();
    assert_eq!((error.code, error.retryable, lines()), ("restore-running", true, 0));
    service.deactivate().await.unwrap();
    let done = service.restore(1).await.unwrap();
    assert!(!done.already && done.message.contains("from Sunday"), "{}", done.message);
    assert!(!service.restores_again(), "only where it is listed so");
    service.verify_restored().await.unwrap();
    assert_eq!(lines(), 1);
    assert!(!folder.path().join("running").exists(), "it is not started by that");
    let error = service.rehearse(Rehearsal::Restore, 1).await.unwrap_err();
    assert_eq!((error.code, lines()), ("unsupported", 1), "a drill leaves it alone");

    let of = |more: &str| driver(&format!("kind: command\n{more}"));
    // Killed: it said neither yes nor no.
    let unknown = of("restore: [/bin/true]\nstatus: [/bin/sh, -c, 'kill -9 $$']");
    let error = unknown.restore(1).await.unwrap_err();
    assert!(error.code == "restore-running" && error.message.contains("not known"), "{error}");
    let error = of("restore: [/bin/true]").restore(1).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-not-listed", false));
    assert!(error.message.contains("list `status`"), "{error}");
    let error = of("status: [/bin/false]").restore(1).await.unwrap_err();
    assert!(error.code == "command-not-listed" && error.message.contains("restore"), "{error}");
}

#[tokio::test]
async fn a_restore_that_does_not_pass_is_not_repeated_and_one_may_take_its_time() {
    let of = |more: &str| driver(&format!("kind: command\nstatus: [/bin/false]\n{more}"));
    let service = of("restore: [/bin/true]\nrestoreRepeatable: true\nverifyRestored: [/bin/false]");
    service.restore(1).await.unwrap();
    let error = service.verify_restored().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("restore-unverified", false));
    assert!(service.restores_again());
    assert!(of("restore: [/bin/true]").verify_restored().await.unwrap().already, "nothing is listed for it");
    let error = of("restore: [/bin/false]").restore(1).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-failed", true));
    of("restore: [/bin/sleep, '0.5']\ntimeout: 200ms").restore(1).await.unwrap();
}

#[tokio::test]
async fn a_restore_that_was_ended_in_the_middle_is_told_from_one_that_failed_or_never_began() {
    let of = |more: &str| driver(&format!("kind: command\nstatus: [/bin/false]\n{more}"));
    let killed = "restore: [/bin/sh, -c, 'echo half of it; kill -9 $$']";
    let error = of(killed).restore(1).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("restore-interrupted", false), "{error}");
    assert!(error.message.contains("half of it") && error.message.contains("signal: 9"), "{error}");
    let error = of(&format!("{killed}\nrestoreRepeatable: true")).restore(1).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("restore-interrupted", true), "{error}");
    let error = of("restore: [/bin/sh, -c, 'exit 137']").restore(1).await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-failed", true), "it said so itself: {error}");
    let error = of("restore: [/nowhere/restore]").restore(1).await.unwrap_err();
    assert_eq!(error.code, "command-not-started", "{error}");
}

#[tokio::test]
async fn only_listed_commands_run() {
    let folder = tempfile::tempdir().unwrap();
    let service = service(folder.path(), "commands: { warm-up: [/bin/echo, warm] }");
    assert!(service.run("warm-up").await.unwrap().message.contains("warm"));
    let error = service.run("/bin/echo").await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-not-listed", false));
    assert!(error.message.contains("warm-up"), "{error}");
}

#[tokio::test]
async fn what_is_not_listed_is_not_pretended() {
    let bare = driver("kind: command");
    assert_eq!(bare.activate().await.unwrap_err().code, "command-not-listed");
    assert_eq!(bare.verify().await.unwrap_err().code, "command-not-listed");
    assert_eq!(bare.probe().await.health, Health::Unknown);
    assert_eq!(bare.fence().await.unwrap_err().code, "unsupported");
}

#[tokio::test]
async fn arguments_are_not_read_by_a_shell() {
    let driver = driver("kind: command\ncommands: { it: [/bin/echo, '$(id) ; false'] }");
    assert!(driver.run("it").await.unwrap().message.contains("$(id) ; false"));
}

#[tokio::test]
async fn the_environment_is_clean_and_secrets_are_hidden() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    let driver = driver(&format!(
        "kind: command\ncommands: {{ it: [/usr/bin/env] }}\nenvironment: {{ TOKEN: \"${{file:{}}}\" }}",
        file.display()
    ));
    let message = driver.run("it").await.unwrap().message;
    assert!(message.contains("PATH=/usr/local/sbin") && message.contains("TOKEN=***"), "{message}");
    assert!(!message.contains("HOME=") && !message.contains("CARGO"), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn a_secret_that_the_limit_cut_is_not_shown_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2hunter2\n").unwrap();
    let environment = format!("environment: {{ TOKEN: \"${{file:{}}}\" }}", file.display());
    // The end of it is the beginning of what is kept.
    let driver = script("printf %s \"$TOKEN\"; head -c 2043 /dev/zero | tr '\\0' x", &environment);
    let message = driver.run("it").await.unwrap().message;
    assert!(message.ends_with("xxxx") && !message.contains("ter2"), "{message}");
}

#[tokio::test]
async fn a_failure_shows_the_end_of_the_output() {
    let driver = script("yes noise | head -c 100000; echo the reason >&2; exit 7", "");
    let error = driver.run("it").await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-failed", true));
    assert!(error.message.contains("exit status: 7"), "{error}");
    assert!(error.message.contains("the reason") && error.message.len() < 2500, "{}", error.message.len());
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let driver = driver("kind: command\ncommands: { it: [/nowhere/program] }");
    let error = driver.run("it").await.unwrap_err();
    assert_eq!(error.code, "command-not-started");
    assert!(error.message.contains("/nowhere/program"), "{error}");
}

#[tokio::test]
async fn a_time_out_ends_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let command = format!("sleep 600 & echo $! > {0}; echo $$ >> {0}; echo begun; wait", pids.display());
    let error = script(&command, "timeout: 500ms").run("it").await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-timed-out", true));
    assert!(error.message.contains("begun"), "{error}");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    until("both processes are gone", async || pids.lines().all(|pid| !lives(pid))).await;
}

#[tokio::test]
async fn a_caller_that_gives_up_ends_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let command = format!("sleep 600 & echo $! > {0}; echo $$ >> {0}; wait", pids.display());
    let driver = script(&command, "");
    let task = tokio::spawn(async move { driver.run("it").await });
    let read = || std::fs::read_to_string(&pids).unwrap_or_default();
    until("it has begun", async || read().lines().count() == 2).await;
    task.abort();
    until("both processes are gone", async || read().lines().all(|pid| !lives(pid))).await;
}

/// The daemon keeps the pipes of its starter open, and must neither hang the wait nor die of its next line.
#[tokio::test]
async fn a_daemon_that_was_started_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (pid, beat) = (folder.path().join("pid"), folder.path().join("beat"));
    let command =
        format!("(while echo alive; do echo x >> {}; sleep 0.02; done) & echo $! > {}", beat.display(), pid.display());
    let started = Instant::now();
    script(&command, "").run("it").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    let beats = || std::fs::read(&beat).map_or(0, |bytes| bytes.len());
    let before = beats();
    until("the daemon writes on", async || beats() > before + 20).await;
    let pid = std::fs::read_to_string(pid).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.trim().parse().unwrap()), nix::sys::signal::SIGKILL).unwrap();
    until("the daemon is gone", async || !lives(&pid)).await;
}

/// A start command may return before the service runs; the driver waits for the status.
#[tokio::test]
async fn a_slow_start_is_awaited() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("running");
    let file = file.display();
    let driver = driver(&format!(
        "kind: command\nactivate: [/bin/sh, -c, '(sleep 0.3; touch {file}) > /dev/null 2>&1 &']\nstatus: \
         [/usr/bin/test, -e, {file}]"
    ));
    driver.activate().await.unwrap();
    assert!(folder.path().join("running").exists());
}

#[tokio::test]
async fn a_service_that_does_not_come_up_is_a_failure() {
    let driver = driver("kind: command\nactivate: [/bin/true]\nstatus: [/bin/false]\ntimeout: 300ms");
    let error = driver.activate().await.unwrap_err();
    assert_eq!((error.code, error.retryable), ("command-not-running", true));
}

#[tokio::test]
async fn programs_that_cannot_be_started_are_known_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data");
    std::fs::write(&file, "no program").unwrap();
    let good = service(folder.path(), "commands: { it: [/bin/true] }");
    assert_eq!(good.facts().await.unwrap().findings.lacks, Vec::<String>::new());
    assert!(!folder.path().join("running").exists(), "something was run");
    let text = format!("kind: command\nactivate: [/nowhere/program]\ncommands: {{ it: [{}] }}", file.display());
    let told = driver(&text).facts().await.unwrap().findings.lacks;
    let [missing, unfit] = told.as_slice() else { panic!("{told:?}") };
    assert!(missing.starts_with("activate: there is no program /nowhere/program"), "{missing}");
    assert!(unfit.starts_with("it: ") && unfit.contains("is not executable"), "{unfit}");
}

#[tokio::test]
async fn what_steps_may_ask_for_is_told_by_name_and_nothing_else() {
    let listed = async |text: &str| driver(text).facts().await.unwrap().findings.listed.unwrap();
    let all = listed(
        "kind: command\nactivate: [/bin/true]\ndeactivate: [/bin/true]\nstatus: [/bin/true]\nrestore: [/bin/true]\n\
         capacity: [/bin/true]\ncommands: { tell-bank: [/bin/true], warm-up: [/bin/true] }",
    )
    .await;
    assert_eq!(Vec::from_iter(all.actions), ["activate", "deactivate", "restore", "status"]);
    assert_eq!(Vec::from_iter(all.commands), ["tell-bank", "warm-up"]);
    let few = listed("kind: command\nactivate: [/bin/true]").await;
    assert_eq!((Vec::from_iter(few.actions), few.commands.len()), (vec!["activate".to_owned()], 0));
}

#[tokio::test]
async fn what_a_capacity_command_says_last_is_what_there_is_too_little_of() {
    let short = async |script: &str, more: &str| {
        let text = format!("kind: command\ncapacity: [/bin/sh, -c, '{script}']\n{more}");
        driver(&text).facts().await.unwrap().findings.short
    };
    assert_eq!(short("echo plenty", "").await, Vec::<String>::new());
    assert_eq!(short("echo looking; echo 2 of 4 GiB are free; exit 1", "").await, ["2 of 4 GiB are free"]);
    let mute = short("exit 3", "").await;
    assert!(mute.len() == 1 && mute[0].contains("/bin/sh") && mute[0].contains("3"), "{mute:?}");
    let slow = short("sleep 600", "timeout: 300ms").await;
    assert!(slow.len() == 1 && slow[0].starts_with("it is not known whether there is room"), "{slow:?}");
    let secret = short("echo $TOKEN; exit 1", "environment: { TOKEN: hunter2hunter2 }").await;
    assert_eq!(secret, ["***"]);
    let missing = driver("kind: command\ncapacity: [/nowhere/program]").facts().await.unwrap().findings;
    assert!(missing.short.is_empty() && missing.lacks[0].starts_with("capacity: there is no program"), "{missing:?}");
    assert_eq!(missing.capacity_unknown, "");
    let unlisted = driver("kind: command\nactivate: [/bin/true]").facts().await.unwrap().findings;
    let why = unlisted.capacity_unknown;
    assert!(unlisted.short.is_empty() && why.starts_with("no capacity command is listed"), "{why}");
}
