//! The tree of processes, read from `/proc`.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Every process below `root`, without `root` itself.
#[must_use]
pub fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, parent) in parents() {
        children.entry(parent).or_default().push(pid);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root.as_raw()];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// Kills `root` and everything below it with SIGKILL; gives the number of processes.
pub fn kill_tree(root: Pid) -> usize {
    signal_tree(root, Signal::SIGKILL)
}

/// Signals `root` and everything below it; gives the number of processes.
///
/// The whole tree is read first: a dead parent's children would no longer be found below it.
pub fn signal_tree(root: Pid, signal: Signal) -> usize {
    let mut all = vec![root];
    all.extend(descendants(root));
    all.iter().filter(|pid| kill(**pid, signal).is_ok()).count()
}

/// True if there is such a process, a zombie not counted.
#[must_use]
pub fn is_running(pid: Pid) -> bool {
    stat(pid.as_raw()).is_some_and(|fields| fields.state != 'Z')
}

/// When the process started, in ticks since boot: tells it from another that got the same number later.
#[must_use]
pub fn started(pid: Pid) -> Option<u64> {
    stat(pid.as_raw()).map(|fields| fields.started)
}

/// The largest resident memory that the process ever had, in KiB.
#[must_use]
pub fn peak_memory(pid: Pid) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The words that a process was started with; empty if it is gone.
#[must_use]
pub fn words(pid: Pid) -> Vec<String> {
    let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// True if both run the same program.
#[must_use]
pub fn same_program(one: Pid, other: Pid) -> bool {
    let program = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    program(one).is_some() && program(one) == program(other)
}

struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may itself hold any of them, or spaces.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, started })
}

fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.parent)))
        .collect()
}
