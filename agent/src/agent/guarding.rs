//! Taking resources into guard: the marker beside the data, closed at rest, and both on record.
//!
//! The record comes last: what a crash leaves half done is done again, since the journal says that it is not.

use std::sync::Arc;

use regent_core::id::{ApplicationId, Epoch, ResourceId};

use crate::driver::{Driver, Marker, Role};
use crate::fence::Guarded;
use crate::journal::{Journal, Record};

/// What is to be marked, and for which epoch.
pub(super) struct Guarding {
    pub(super) application: ApplicationId,
    pub(super) epoch: Epoch,
    pub(super) guarded: Guarded,
    pub(super) marker: Marker,
    pub(super) found: Found,
}

/// In which state the epoch finds the resources, before they are closed at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// With the first lease: open, as they were adopted.
    Adopted,
    /// At a later epoch: closed. Their promotion opens them, and nothing else.
    ToBePromoted,
    /// Added to the application of a primary that leads already: open, unless it follows another.
    BesideWhatRuns,
}

impl Guarding {
    /// True once all of it is marked, closed at rest and on record.
    pub(super) async fn write(&self, journal: &Journal) -> bool {
        // Before it is closed at rest: from then on a restart would make it look like a standby.
        let opened = self.opened(journal).await;
        if !opened.is_empty() && journal.append(opened).await.is_err() {
            return false;
        }
        let marks = self.guarded.iter().map(|(resource, driver)| self.mark(resource, driver));
        if !futures::future::join_all(marks).await.into_iter().all(|marked| marked) {
            return false;
        }
        let marked = self
            .guarded
            .keys()
            .map(|resource| Record::Marked { application: self.application.clone(), resource: resource.clone() });
        // Leading is last: where that is on record, so is all the rest.
        let led = Record::Led { application: self.application.clone(), epoch: self.epoch };
        journal.append(marked.chain([led]).collect()).await.is_ok()
    }

    async fn opened(&self, journal: &Journal) -> Vec<Record> {
        let mut records = Vec::new();
        for (resource, driver) in &self.guarded {
            let known = {
                let view = journal.view();
                let view = view.applications.get(&self.application).and_then(|view| view.resources.get(resource));
                view.is_some_and(|view| view.opened == self.epoch)
            };
            let open = match self.found {
                Found::Adopted => true,
                Found::ToBePromoted => false,
                Found::BesideWhatRuns => driver.probe().await.role != Role::Standby,
            };
            if open && !known {
                let (application, resource) = (self.application.clone(), resource.clone());
                records.push(Record::Opened { application, resource, epoch: self.epoch });
            }
        }
        records
    }

    async fn mark(&self, resource: &ResourceId, driver: &Arc<dyn Driver>) -> bool {
        // What could not be ended must not be led.
        let marked = match driver.can_end().await {
            Ok(()) => driver.guard(&self.marker).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &marked {
            let application = &self.application;
            tracing::error!(%application, %resource, code = error.code, %error, "cannot be guarded");
        }
        marked.is_ok()
    }
}
