//! Terms: pushed when they change, offered again to an agent that has not stored them, confirmed when the primary's agent
//! names them.

use std::collections::BTreeMap;
use std::time::Duration;

use regent_core::entry::{Database, Entry};
use regent_core::id::{ApplicationId, ClusterId, InstallationId, ResourceId, Token};
use regent_proto::agent::v1 as wire;
use regent_proto::agent::v1::connect_response::Body;
use tokio::time::Instant;

use super::{Post, lock};
use crate::api::agent::convert;

/// Between two offers of terms that an agent has not stored.
const OFFER_AGAIN: Duration = Duration::from_secs(1);

impl Post {
    /// Every listed cluster hears of terms as soon as they are committed.
    pub(super) fn push_terms(&self, application: &ApplicationId) {
        let updates: Vec<(ClusterId, wire::TermsUpdate)> = self.inner.node.replica.read(|state| {
            let Some(known) = state.applications.get(application) else { return Vec::new() };
            let Some(newest) = known.terms.last() else { return Vec::new() };
            let update = convert::terms(state, application, newest);
            known.document.clusters.iter().map(|cluster| (cluster.clone(), update.clone())).collect()
        });
        for (cluster, update) in updates {
            self.send(&cluster, Body::Terms(update));
        }
    }

    /// Terms are sent when they change and at each start of a stream; an agent that could not store them then, or was
    /// sent none because this coordinator caught up by a snapshot, hears them again.
    pub(super) fn offer_terms_again(&self, cluster: &ClusterId) {
        let node = &self.inner.node;
        let mut offered = lock(&self.inner.offered);
        if offered.get(cluster).is_some_and(|at| at.elapsed() < OFFER_AGAIN) {
            return;
        }
        offered.insert(cluster.clone(), Instant::now());
        drop(offered);
        let stored: BTreeMap<ApplicationId, Option<Token>> = node.see(|evidence| {
            let contact = evidence.contacts.get(cluster);
            contact
                .into_iter()
                .flat_map(|contact| &contact.beats)
                .map(|(id, beat)| (id.clone(), beat.terms_stored))
                .collect()
        });
        let updates: Vec<wire::TermsUpdate> = node.replica.read(|state| {
            let listing = state.applications.iter().filter(|(_, known)| known.document.clusters.contains(cluster));
            let newest = listing.filter_map(|(id, known)| Some((id, known.terms.last()?)));
            newest
                .filter(|(id, terms)| stored.get(*id).copied().flatten() < Some(terms.number))
                .map(|(id, terms)| convert::terms(state, id, terms))
                .collect()
        });
        for update in updates {
            self.send(cluster, Body::Terms(update));
        }
    }

    /// The primary's agent named terms that are not confirmed yet: this coordinator commits that. Naming is by every
    /// stream, so the leader goes first and the others follow if it does not.
    pub(super) fn confirm_terms(&self, cluster: &ClusterId) {
        let node = &self.inner.node;
        let named: Vec<(ApplicationId, Token, InstallationId)> = node.see(|evidence| {
            let Some(contact) = evidence.contacts.get(cluster) else { return Vec::new() };
            let named = contact
                .beats
                .iter()
                .filter_map(|(id, beat)| Some((id.clone(), beat.terms_named?, contact.installation.clone())));
            named.collect()
        });
        for (application, terms, installation) in named {
            let open = node.replica.read(|state| {
                state.applications.get(&application).is_some_and(|known| {
                    let position = known.terms.iter().position(|one| one.number == terms);
                    let primary = known.primary.as_ref() == Some(cluster);
                    primary && position.is_some_and(|position| position > 0 || !known.confirmed)
                })
            });
            if open {
                let databases = self.databases(cluster, &application);
                let cluster = cluster.clone();
                self.inner.proposals.offer(Entry::TermsConfirmed {
                    application,
                    terms,
                    cluster,
                    installation,
                    databases,
                });
            }
        }
    }

    fn databases(&self, cluster: &ClusterId, application: &ApplicationId) -> BTreeMap<ResourceId, Database> {
        self.inner.node.see(|evidence| {
            let resources = evidence.contacts.get(cluster).and_then(|contact| contact.resources.get(application));
            let identified = resources.into_iter().flatten().filter(|(_, seen)| !seen.system_id.0.is_empty());
            identified
                .map(|(id, seen)| (id.clone(), Database { system_id: seen.system_id.clone(), timeline: seen.timeline }))
                .collect()
        })
    }
}
