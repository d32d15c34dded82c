//! What was promised and whether it held.

use anyhow::{Result, ensure};

use super::Terminal;
use crate::world::World;

/// Limits of memory, in KiB.
const AGENT: u64 = 40 * 1024;
const COORDINATOR: u64 = 80 * 1024;

#[derive(Default)]
pub(super) struct Verdicts {
    all: Vec<(bool, String)>,
    agent: u64,
    coordinator: u64,
}

impl Verdicts {
    pub(super) fn add(&mut self, held: bool, what: &str) {
        self.all.push((held, what.to_owned()));
    }

    /// Looks at the memory of every coordinator and agent that runs just now; the most is what counts.
    pub(super) fn memory(&mut self, world: &World) -> Result<()> {
        let most = |all: Vec<(nix::unistd::Pid, u64)>| all.into_iter().map(|(_, memory)| memory).max().unwrap_or(0);
        for region in world.regions() {
            self.coordinator = self.coordinator.max(most(region.coordinator().memory()));
            if let Ok(cluster) = region.cluster() {
                self.agent = self.agent.max(most(cluster.agent.memory()));
            }
        }
        ensure!(self.coordinator > 0 && self.agent > 0, "the memory of no process could be read");
        Ok(())
    }

    /// Tells all; true if all held.
    pub(super) fn tell(mut self, terminal: &Terminal) -> bool {
        for (what, used, limit) in
            [("agent or guard", self.agent, AGENT), ("coordinator", self.coordinator, COORDINATOR)]
        {
            let text = format!("No {what} used more than {} MiB of memory (limit: {})", used / 1024 + 1, limit / 1024);
            self.add(used < limit, &text);
        }
        for (held, what) in &self.all {
            terminal.line(&format!("  {}  {what}", if *held { "held  " } else { "BROKEN" }));
        }
        self.all.iter().all(|(held, _)| *held)
    }
}

/// Numbers for humans: the first and the last of many.
pub(super) fn numbers(all: &[i64]) -> String {
    match all {
        [first, .., last] if all.len() > 6 => format!("{first} … {last}"),
        few => few.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn many_numbers_are_shortened() {
        assert_eq!(numbers(&[3]), "3");
        assert_eq!(numbers(&[3, 4]), "3, 4");
        assert_eq!(numbers(&[1, 2, 3, 4, 5, 6, 7]), "1 … 7");
    }
}
