//! What the agent publishes after every turn: to its leaf tasks, to new streams, and for humans.

use std::collections::BTreeMap;
use std::sync::Arc;

use regent_core::id::ApplicationId;
use regent_core::time::Span;
use regent_proto::agent::v1 as wire;

use crate::agent::{Agent, Standing, Word};
use crate::uplink::Pace;
use crate::uplink::convert::{self, wire_token};

/// For humans and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Of this process.
    pub incarnation: u64,
    /// Streams that are up.
    pub links: usize,
    /// Coordinators that are dialled.
    pub coordinators: usize,
    /// The guard answers.
    pub guard_alive: bool,
    /// The journal can be written.
    pub journal_has_room: bool,
    /// Steps that run.
    pub steps: usize,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// By application.
    pub applications: BTreeMap<ApplicationId, ApplicationStatus>,
}

/// For one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApplicationStatus {
    /// Epoch of the stored terms.
    pub epoch: u64,
    /// This cluster is primary.
    pub primary: bool,
    /// What is left of the lease; none without one.
    pub lease_left: Option<Span>,
    /// By failsafe promises alone.
    pub failsafe: bool,
    /// Fenced in any way.
    pub fenced: bool,
}

impl Agent {
    /// Publishes what has changed.
    pub(super) fn refresh(&mut self) {
        let now = self.clock.reading();
        let word = Arc::new(self.word_now());
        let changed = **self.word.borrow() != *word;
        if changed {
            self.word.send_replace(word);
        }
        let smallest = self.leases.values().filter_map(|lease| lease.terms()).map(|terms| terms.bound.fail_over_after);
        let fail_over_after = smallest.min().unwrap_or(Pace::default().fail_over_after);
        let pace = Pace { fail_over_after, round_trip: self.largest_round_trip() };
        if *self.pace.borrow() != pace {
            self.pace.send_replace(pace);
        }
        if self.seen_revision.replace(self.journal.revision()) != Some(self.journal.revision()) {
            self.refresh_hello();
            // A commanded fence whose step was ended may have reached the disk since.
            let applications: Vec<_> = self.leases.keys().cloned().collect();
            applications.iter().for_each(|application| self.retell_holds(application, now));
            self.look_after_peers();
        }
        let applications = self.leases.iter().map(|(application, lease)| {
            let status = ApplicationStatus {
                epoch: lease.epoch().0,
                primary: lease.is_primary(),
                lease_left: lease.end(now).map(|end| end.left_for_holder(now)),
                failsafe: lease.by_promises(now),
                fenced: self.fence_state(application, lease, now) != wire::FenceState::Open,
            };
            (application.clone(), status)
        });
        let status = Status {
            incarnation: self.incarnation.0,
            links: self.links.len(),
            coordinators: self.dialling.count(),
            guard_alive: self.guard_alive,
            journal_has_room: self.journal.has_room(),
            steps: self.steps.running(),
            heartbeats: self.beat,
            applications: applications.collect(),
        };
        self.status.send_replace(Arc::new(status));
    }

    fn word_now(&self) -> Word {
        let now = self.clock.reading();
        let applications = self.leases.iter().map(|(application, lease)| {
            let standing = Standing {
                lease: lease.running(now),
                open: self.fence_state(application, lease, now) == wire::FenceState::Open,
                seen: lease.seen(),
                primary: lease.is_primary(),
                fence_budget: lease.terms().map_or(Span::ZERO, |terms| terms.bound.fence_budget),
            };
            (application.clone(), standing)
        });
        Word { applications: applications.collect() }
    }

    fn refresh_hello(&self) {
        let (group, stored): (String, Vec<wire::StoredTerms>) = {
            let view = self.journal.view();
            let stored = view.applications.iter().map(|(application, view)| {
                let terms = view.terms.as_ref();
                let tokens = view.resources.values().map(|resource| resource.token);
                wire::StoredTerms {
                    application: application.to_string(),
                    epoch: terms.map_or(0, |terms| terms.epoch.0),
                    terms: terms.map(|terms| wire_token(terms.number)),
                    primary: terms.is_some_and(|terms| terms.primary == self.settings.cluster),
                    seen: view.seen.0,
                    token: tokens.chain(terms.map(|terms| terms.number)).max().map(wire_token),
                    full: terms.map(|terms| convert::wire_terms(application, terms)),
                }
            });
            (view.group.clone().map(|group| group.0).unwrap_or_default(), stored.collect())
        };
        let known = self.hello.borrow().clone();
        if known.group != group || known.stored != stored {
            self.hello.send_replace(Arc::new(wire::Hello { group, stored, ..(*known).clone() }));
        }
    }
}
