//! Promises given: not to promote above an epoch for a while. In memory within a boot; after it, the largest D stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regent_core::id::{ApplicationId, Epoch};
use regent_core::time::Span;
use serde::{Deserialize, Serialize};

use crate::lease::{Deadline, Reading};

/// The promises of one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Stored {
    format: u32,
    boot: String,
    given: BTreeMap<ApplicationId, Given>,
    /// What may have been promised before is waited out until here.
    unknown_until: Deadline,
}

/// One promise: no promotion above this epoch until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Given {
    epoch: Epoch,
    until: Deadline,
}

/// The promises of this agent.
#[derive(Debug)]
pub struct Promises {
    path: PathBuf,
    stored: Stored,
}

impl Promises {
    /// Reads them back. If those of this boot are not there, any may have been given: promotions are refused for the
    /// largest D stored, by the slower clock.
    #[must_use]
    pub fn load(runtime: &Path, boot: &str, largest_bound: Span, now: Reading) -> Self {
        let path = runtime.join("promises.json");
        let read = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Stored>(&text).ok());
        let stored = read.filter(|stored| stored.boot == boot && stored.format == 1).unwrap_or_else(|| Stored {
            format: 1,
            boot: boot.to_owned(),
            given: BTreeMap::new(),
            unknown_until: now.after(largest_bound),
        });
        let promises = Self { path, stored };
        if let Err(error) = promises.store() {
            tracing::error!(error = crate::journal::chain(&error), "promises cannot be kept: none will be given");
        }
        promises
    }

    /// Gives one; true only if it is kept. It never shortens an earlier one.
    pub fn give(&mut self, application: &ApplicationId, epoch: Epoch, now: Reading, span: Span) -> bool {
        let before = self.stored.clone();
        let mut given = Given { epoch, until: now.after(span) };
        if let Some(earlier) = self.stored.given.get(application) {
            given.until = given.until.max(earlier.until);
        }
        self.stored.given.insert(application.clone(), given);
        let kept = self.store();
        if kept.is_err() {
            self.stored = before;
        }
        kept.is_ok()
    }

    /// Until when no promotion of the application to this epoch may begin; none if it may.
    #[must_use]
    pub fn held(&self, application: &ApplicationId, epoch: Epoch, now: Reading) -> Option<Deadline> {
        let given = self.stored.given.get(application).filter(|given| epoch > given.epoch).map(|given| given.until);
        given
            .into_iter()
            .chain([self.stored.unknown_until])
            .filter(|until| until.left_for_waiter(now) > Span::ZERO)
            .max()
    }

    fn store(&self) -> std::io::Result<()> {
        let new = self.path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self.stored).map_err(std::io::Error::other)?)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use regent_core::time::Moment;

    use super::*;

    fn at(millis: u64) -> Reading {
        Reading { boottime: Moment(millis), raw: Moment(millis) }
    }

    #[test]
    fn a_promise_is_kept_over_a_restart_and_waited_out_after_a_reboot() {
        let directory = tempfile::tempdir().unwrap();
        let shop = ApplicationId::new("shop").unwrap();
        let mut first = Promises::load(directory.path(), "boot", Span::ZERO, at(0));
        assert!(first.give(&shop, Epoch(3), at(0), Span::from_secs(10)));
        assert!(first.give(&shop, Epoch(3), at(1), Span::from_secs(2)), "a shorter one shortens nothing");
        let again = Promises::load(directory.path(), "boot", Span::from_secs(60), at(100));
        assert_eq!(again.held(&shop, Epoch(4), at(100)), Some(at(0).after(Span::from_secs(10))));
        assert_eq!(again.held(&shop, Epoch(3), at(100)), None, "only promotions above it");
        assert_eq!(again.held(&shop, Epoch(4), at(10_000)), None);
        let rebooted = Promises::load(directory.path(), "next", Span::from_secs(60), at(5));
        assert_eq!(rebooted.held(&shop, Epoch(4), at(5)), Some(at(5).after(Span::from_secs(60))));
        let restarted = Promises::load(directory.path(), "next", Span::from_secs(60), at(30_000));
        assert!(restarted.held(&shop, Epoch(4), at(60_006)).is_none(), "not waited out twice");
    }

    #[test]
    fn what_cannot_be_kept_is_not_promised() {
        let shop = ApplicationId::new("shop").unwrap();
        let mut nowhere = Promises::load(Path::new("/nonexistent"), "boot", Span::ZERO, at(0));
        assert!(!nowhere.give(&shop, Epoch(1), at(0), Span::from_secs(1)));
        assert_eq!(nowhere.held(&shop, Epoch(2), at(0)), None);
    }
}
