//! The process table as `/proc` has it: needs no disk, so a hard fence can rest on it when storage hangs.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// When it began, in ticks since boot: together with the id it names a process for good.
    pub began: u64,
    /// The kernel's letter for its state.
    pub state: char,
    /// Name of its program, at most 15 bytes.
    pub name: String,
}

/// Where a process works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkingDirectory {
    /// Here.
    At(PathBuf),
    /// Nowhere: it is gone or a zombie.
    Gone,
    /// This agent may not see it.
    Hidden,
}

impl Process {
    /// Reads one process; none if it is gone.
    #[must_use]
    pub fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `PID (NAME) STATE PPID …`; the name may hold spaces and brackets, so fields count from the last bracket.
    fn parse(pid: i32, line: &str) -> Option<Self> {
        let (head, tail) = line.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            began: fields.get(19)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            name,
        })
    }

    /// It can still do something; a zombie cannot: its files and sockets are closed.
    #[must_use]
    pub fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// This very process, not a later one with the same id, still lives.
    #[must_use]
    pub fn still_lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.began == self.began && now.lives())
    }

    /// Where it works.
    #[must_use]
    pub fn working_directory(&self) -> WorkingDirectory {
        match std::fs::read_link(format!("/proc/{}/cwd", self.pid)) {
            Ok(path) => {
                let text = path.to_string_lossy();
                WorkingDirectory::At(text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or(path.clone()))
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => WorkingDirectory::Hidden,
            Err(_) => WorkingDirectory::Gone,
        }
    }

    /// Its title: the command line, which servers rewrite to say what they do.
    #[must_use]
    pub fn title(&self) -> String {
        let raw = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&raw).replace('\0', " ").trim().to_owned()
    }

    /// The user it runs as.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(format!("/proc/{}", self.pid)).ok().map(|metadata| metadata.uid())
    }

    /// A variable of the environment that it was started with; none if it has none, or hides it.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<String> {
        let raw = std::fs::read(format!("/proc/{}/environ", self.pid)).ok()?;
        raw.split(|byte| *byte == 0).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }

    /// Whether this agent may signal it; one that is gone already counts as success.
    ///
    /// # Errors
    /// If it may not.
    pub fn may_be_signalled(&self) -> Result<(), Errno> {
        match kill(Pid::from_raw(self.pid), None) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal; one that is gone already counts as success.
    ///
    /// # Errors
    /// If this agent may not signal it.
    pub fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// All processes that can still do something.
#[must_use]
pub fn living() -> Vec<Process> {
    let Ok(folder) = std::fs::read_dir("/proc") else { return Vec::new() };
    folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .filter(Process::lives)
        .collect()
}

/// What belongs to one server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Family {
    /// Its processes, those first whose parent is none of them.
    pub members: Vec<Process>,
    /// There are processes of such a name that this agent may not look at: absence is not certain.
    pub hidden: bool,
}

impl Family {
    /// Certainly nothing is left.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.members.is_empty() && !self.hidden
    }

    /// The first process: whose parent is none of the others.
    #[must_use]
    pub fn head(&self) -> Option<&Process> {
        self.members.first().filter(|first| !self.members.iter().any(|other| other.pid == first.parent))
    }
}

/// The processes with one of `names` that work in one of `directories`, and all their descendants.
///
/// The working directory also finds orphans: the backends of a postmaster that was killed have another parent.
#[must_use]
pub fn family(names: &[&str], directories: &[&Path]) -> Family {
    let all = living();
    let mut hidden = false;
    let mut pids: BTreeSet<i32> = BTreeSet::new();
    for process in all.iter().filter(|process| names.contains(&process.name.as_str())) {
        match process.working_directory() {
            WorkingDirectory::At(path) if directories.contains(&path.as_path()) => {
                pids.insert(process.pid);
            }
            WorkingDirectory::Hidden => hidden = true,
            WorkingDirectory::At(_) | WorkingDirectory::Gone => {}
        }
    }
    Family { members: with_descendants(&all, pids), hidden }
}

/// These processes and all their descendants among `all`, heads first.
#[must_use]
pub fn with_descendants(all: &[Process], mut pids: BTreeSet<i32>) -> Vec<Process> {
    loop {
        let before = pids.len();
        pids.extend(all.iter().filter(|process| pids.contains(&process.parent)).map(|p| p.pid).collect::<Vec<_>>());
        if pids.len() == before {
            break;
        }
    }
    let mut members: Vec<Process> = all.iter().filter(|process| pids.contains(&process.pid)).cloned().collect();
    members.sort_by_key(|process| (pids.contains(&process.parent), process.began, process.pid));
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_name_with_brackets() {
        let line = "7 (a) b) S 1 6 5 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
        let process = Process::parse(7, line).unwrap();
        assert_eq!((process.parent, process.began, process.state), (1, 4711, 'S'));
        assert_eq!((process.group, process.session), (6, 5));
        assert_eq!(process.name, "a) b");
    }

    #[test]
    fn finds_descendants_heads_first() {
        let process =
            |pid, parent| Process { pid, parent, group: 1, session: 1, began: 1, state: 'S', name: "x".into() };
        let all = [process(3, 2), process(2, 1), process(9, 1), process(1, 0)];
        let found: Vec<i32> = with_descendants(&all, [2].into()).iter().map(|p| p.pid).collect();
        assert_eq!(found, [2, 3]);
    }
}
