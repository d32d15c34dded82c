//! Rogue writers: a database that accepts writes where the stored terms say standby. Somebody promoted it by hand, or it
//! was started from something else than what this agent left.
//!
//! ```text
//!  seen writable ─► looked at once more ─► fenced, gently and then hard ─► told, until it follows again
//!                                          (paused: only told)
//! ```
//!
//! It is the agent's own fence and no commanded one: no decision rests on it. A promotion by the coordinators, or a
//! rejoin, ends it like any older fence (safety.md, "Fences that last").

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regent_core::id::{ApplicationId, ResourceId};
use regent_core::planted::{self, Mistake};

use crate::agent::{Agent, Event};
use crate::driver::Role;
use crate::lease::{Fence, Reading};
use crate::probe::Sight;

/// What is known of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rogue {
    /// Seen once, by a probe that began then: it may have been closed since.
    Suspected(Reading),
    /// Being fenced.
    Closing,
    /// Fenced, or in a pause only told.
    Told,
}

/// All that are known.
pub(super) type Rogues = BTreeMap<(ApplicationId, ResourceId), Rogue>;

impl Agent {
    /// The names of those that are told of an application.
    pub(super) fn rogues_of(&self, application: &ApplicationId) -> BTreeSet<ResourceId> {
        let told = |rogue: &Rogue| !matches!(rogue, Rogue::Suspected(_));
        let all = self.rogues.iter().filter(|((of, _), rogue)| of == application && told(rogue));
        all.map(|((_, resource), _)| resource.clone()).collect()
    }

    pub(super) fn look_for_rogue(&mut self, sight: &Sight) {
        let name = (sight.application.clone(), sight.resource.clone());
        let Some(paused) = self.is_standby_of_another(&sight.application, &sight.resource) else {
            self.rogues.remove(&name);
            return;
        };
        let writable = sight.probe.writable && sight.probe.role == Role::Primary;
        match self.rogues.get(&name).copied() {
            None if writable => {
                self.rogues.insert(name.clone(), Rogue::Suspected(sight.at));
                if let Some(probe) = self.probe_now.get(&name) {
                    probe.notify_one();
                }
            }
            None => {}
            Some(Rogue::Suspected(since))
                if writable && sight.at.held_since(since) == regent_core::time::Span::ZERO => {}
            Some(Rogue::Suspected(_) | Rogue::Told) if writable => self.close_rogue(&name, paused),
            Some(Rogue::Suspected(_)) => {
                self.rogues.remove(&name);
            }
            // Closed at rest it says that it is a standby, too, and follows nobody: its link tells.
            Some(Rogue::Told)
                if sight.probe.role == Role::Standby
                    && sight.probe.upstream.as_ref().is_some_and(|upstream| upstream.connected) =>
            {
                tracing::info!(application = %name.0, resource = %name.1, "a rogue writer follows again");
                self.rogues.remove(&name);
            }
            Some(Rogue::Told | Rogue::Closing) => {}
        }
    }

    /// None if the resource may be open here; else whether the terms are paused.
    fn is_standby_of_another(&self, application: &ApplicationId, resource: &ResourceId) -> Option<bool> {
        let lease = self.leases.get(application)?;
        let terms = lease.terms()?;
        let elsewhere = terms.primary != self.settings.cluster && terms.guarded.contains(resource);
        // What the lease closes is closed already, and what a step opens has a lease by then.
        let under_way = matches!(lease.fence(), Fence::Closing { .. } | Fence::Unconfirmed { .. });
        let busy = self.steps.any_opening(application) || self.steps.is_being_closed(application, resource);
        (elsewhere && !under_way && !busy).then_some(terms.paused)
    }

    fn close_rogue(&mut self, name: &(ApplicationId, ResourceId), paused: bool) {
        let (application, resource) = name;
        let Some(driver) = self.drivers.get(application).and_then(|all| all.get(resource)).cloned() else { return };
        if paused || planted::makes(Mistake::RogueLeft) {
            if self.rogues.insert(name.clone(), Rogue::Told) != Some(Rogue::Told) {
                tracing::error!(%application, %resource, "rogue writer: it accepts writes where the terms say standby; paused, so it is left");
            }
            return;
        }
        tracing::error!(%application, %resource, "rogue writer: it accepts writes where the terms say standby; fencing it");
        self.rogues.insert(name.clone(), Rogue::Closing);
        let half = self.word.borrow().fence_budget(application).divided(2);
        // What opens the resource waits for the end of this.
        let ended = self.steps.closing_again(application, resource);
        let (events, (application, resource)) = (self.events.clone(), name.clone());
        tokio::spawn(async move {
            let _ended = ended;
            let budget = Duration::from_millis(half.millis());
            let fenced = crate::fence::one(&application, &resource, &driver, budget).await;
            let _ = events.send(Event::RogueFenced(application, resource, fenced.is_ok()));
        });
    }

    pub(super) fn rogue_fenced(&mut self, application: ApplicationId, resource: ResourceId, fenced: bool) {
        if fenced {
            tracing::warn!(%application, %resource, "the rogue writer is fenced");
        } else {
            tracing::error!(%application, %resource, "the rogue writer cannot be fenced; again at the next probe");
        }
        let name = (application, resource);
        if let Some(probe) = self.probe_now.get(&name) {
            probe.notify_one();
        }
        if self.rogues.get(&name) == Some(&Rogue::Closing) {
            self.rogues.insert(name, Rogue::Told);
        }
    }
}
