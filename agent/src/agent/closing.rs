//! Keeps guarded databases closed at rest: looks at each probe whether the next start would still come up refusing
//! writes, and puts back what does that (safety.md, "Closed at rest").
//!
//! A server may take it out itself, as Redis does when a client has it rewrite its configuration file, or an operator may.
//! Nobody would notice: the database is open, as it should be, until it starts without its agent. In a pause files are
//! left as they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use regent_core::id::{ApplicationId, ResourceId};

use crate::agent::{Agent, Event};
use crate::driver::DriverError;
use crate::driver::process::disk;
use crate::probe::Sight;

/// One database.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// Somebody looks.
    running: bool,
    /// Held by whoever looks, and by what the disk has not answered since.
    at_work: Weak<()>,
    /// How often something had to be put back since this agent started.
    put_back: u32,
    /// The code of the failure that was said last.
    failed: Option<&'static str>,
}

impl Looking {
    /// Somebody looks, or has given up and left a thread to a disk that hangs: another one would hang beside it.
    fn is_under_way(&self) -> bool {
        self.running || self.at_work.strong_count() > 0
    }

    fn begin(&mut self) -> Arc<()> {
        let at_work = Arc::new(());
        self.running = true;
        self.at_work = Arc::downgrade(&at_work);
        at_work
    }
}

/// By application and resource.
pub(super) type Closing = BTreeMap<(ApplicationId, ResourceId), Looking>;

impl Agent {
    /// At every probe. What was found by then is told with it.
    pub(super) fn keep_closed(&mut self, sight: &mut Sight) {
        let (application, resource) = (&sight.application, &sight.resource);
        let driver = self.drivers.get(application).and_then(|resources| resources.get(resource));
        let Some(driver) = driver.filter(|driver| driver.closes_at_rest()).cloned() else { return };
        if !self.stays_closed_at_rest(application, resource) {
            return;
        }
        let busy = self.steps.is_busy(application, resource) || self.steps.is_closing_again(application, resource);
        let name = (application.clone(), resource.clone());
        let looking = self.closing.entry(name.clone()).or_default();
        if let Some(code) = looking.failed {
            sight.probe.detail = format!("{}; may come up open at its next start ({code})", sight.probe.detail);
        } else if looking.put_back > 0 {
            let times = looking.put_back;
            sight.probe.detail =
                format!("{}; what closes it at rest was taken out and put back, {times} times", sight.probe.detail);
        }
        if busy || looking.is_under_way() {
            return;
        }
        let at_work = looking.begin();
        let events = self.events.clone();
        tokio::spawn(async move {
            let outcome = disk::holding(at_work, driver.keep_closed()).await;
            let _ = events.send(Event::KeptClosed(name.0, name.1, outcome));
        });
    }

    /// Said whenever something was put back, and once for each kind of failure.
    pub(super) fn kept_closed(
        &mut self,
        application: ApplicationId,
        resource: ResourceId,
        outcome: Result<bool, DriverError>,
    ) {
        let Some(looking) = self.closing.get_mut(&(application.clone(), resource.clone())) else { return };
        looking.running = false;
        match outcome {
            Ok(put_back) => {
                looking.failed = None;
                if put_back {
                    looking.put_back = looking.put_back.saturating_add(1);
                    tracing::error!(
                        %application, %resource,
                        "somebody took out what closes it at rest: its next start would have accepted writes; put back"
                    );
                }
            }
            Err(error) => {
                if looking.failed.replace(error.code) != Some(error.code) {
                    tracing::error!(
                        %application, %resource, code = error.code, %error,
                        "cannot see to it that its next start refuses writes; it is tried again"
                    );
                }
            }
        }
    }

    /// Marked by this agent, and guarded by the newest stored terms; not in a pause.
    fn stays_closed_at_rest(&self, application: &ApplicationId, resource: &ResourceId) -> bool {
        let terms = self.leases.get(application).and_then(|lease| lease.terms());
        let guarded = terms.is_some_and(|terms| !terms.paused && terms.guarded.contains(resource));
        let marked = || {
            let view = self.journal.view();
            let view = view.applications.get(application).and_then(|view| view.resources.get(resource));
            view.is_some_and(|view| view.marked)
        };
        guarded && marked()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;

    #[tokio::test]
    async fn nobody_looks_again_while_the_disk_has_not_answered_who_gave_up() {
        let mut looking = Looking::default();
        assert!(!looking.is_under_way());
        let at_work = looking.begin();
        assert!(looking.is_under_way());
        let (answer, answered) = mpsc::channel::<()>();
        let hangs = move || {
            let _ = answered.recv();
            Ok(())
        };
        let look = disk::bounded("postgres-files", Duration::from_millis(20), "looking at a disk that hangs", hangs);
        let error = disk::holding(at_work, look).await.unwrap_err();
        assert!(error.message.contains("did not answer"), "{error}");
        looking.running = false;
        assert!(looking.is_under_way(), "its thread is still there");
        answer.send(()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while looking.is_under_way() {
            assert!(Instant::now() < deadline, "the disk has answered");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let at_work = looking.begin();
        let look = disk::bounded("postgres-files", Duration::from_secs(10), "looking at a disk", || Ok(()));
        disk::holding(at_work, look).await.unwrap();
        looking.running = false;
        assert!(!looking.is_under_way(), "what has ended holds up nobody");
    }
}
