//! A side in quarantine says what it has that the primary lacks, before anybody decides what becomes of it.
//!
//! It is measured once for each change of the terms, beside everything else, and stands in what is told of the database:
//! in `status`, `describe` and the dashboard. Nothing rests on it, and nothing is changed by it.

use std::collections::BTreeMap;
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId, Token};
use regent_core::time::Span;

use crate::agent::{Agent, Event};
use crate::lease::{Deadline, Reading};
use crate::probe::Sight;

/// For one measurement; the primary may be out of reach.
const LIMIT: Duration = Duration::from_secs(120);
/// After one that failed.
const AGAIN: Span = Span::from_secs(10);

/// What is known of one database.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// The terms by which it was measured.
    terms: Token,
    /// What was found; none: nothing, or it is still being looked at.
    text: Option<String>,
    /// It failed: when it is tried again.
    again: Option<Deadline>,
}

/// By database.
pub(super) type All = BTreeMap<(ApplicationId, ResourceId), Measured>;

impl Agent {
    /// Adds to a sight what was measured, and measures what was not.
    pub(super) fn look_at_divergence(&mut self, sight: &mut Sight) {
        let name = (sight.application.clone(), sight.resource.clone());
        let Some((number, primary)) = self.in_quarantine(&name) else {
            self.diverged.remove(&name);
            return;
        };
        let now = self.clock.reading();
        match self.diverged.get(&name).filter(|known| known.terms == number) {
            Some(Measured { text: Some(text), .. }) => {
                sight.probe.detail = format!("{}; {text}", sight.probe.detail);
                return;
            }
            Some(Measured { again: None, .. }) => return,
            Some(Measured { again: Some(again), .. }) if !again.passed(now) => return,
            Some(_) | None => {}
        }
        if self.steps.is_busy(&name.0, &name.1) {
            return;
        }
        let Some(driver) = self.drivers.get(&name.0).and_then(|all| all.get(&name.1)).cloned() else { return };
        self.diverged.insert(name.clone(), Measured { terms: number, text: None, again: None });
        let events = self.events.clone();
        tokio::spawn(async move {
            let measured = match tokio::time::timeout(LIMIT, driver.divergence(primary.as_str())).await {
                Ok(Ok(text)) => Ok(text),
                Ok(Err(error)) => {
                    tracing::info!(application = %name.0, resource = %name.1, code = error.code, %error, "what diverged is not known yet");
                    Err(())
                }
                Err(_) => Err(()),
            };
            let _ = events.send(Event::Diverged(name.0, name.1, number, measured));
        });
    }

    /// Terms and primary, while this cluster is listed and excluded.
    fn in_quarantine(&self, name: &(ApplicationId, ResourceId)) -> Option<(Token, regent_core::id::ClusterId)> {
        let terms = self.leases.get(&name.0)?.terms()?;
        let listed = terms.clusters.get(&self.settings.cluster)?;
        let out = listed.excluded && terms.primary != self.settings.cluster && terms.guarded.contains(&name.1);
        out.then(|| (terms.number, terms.primary.clone()))
    }

    pub(super) fn measured(
        &mut self,
        name: (ApplicationId, ResourceId),
        terms: Token,
        found: Result<Option<String>, ()>,
        now: Reading,
    ) {
        let Some(known) = self.diverged.get_mut(&name).filter(|known| known.terms == terms) else { return };
        match found {
            Ok(text) => known.text = text,
            Err(()) => known.again = Some(now.after(AGAIN)),
        }
        let told = known.text.is_some();
        if let Some(probe) = self.probe_now.get(&name).filter(|_| told) {
            probe.notify_one();
        }
    }
}
