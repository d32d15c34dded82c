//! Other clusters' agents: signs of life, promises asked of them, and promises given to them.

use std::collections::{BTreeMap, BTreeSet};

use regent_core::id::{ApplicationId, ClusterId, Epoch, ResourceId};
use regent_core::planted::{self, Mistake};
use regent_core::time::Span;
use regent_proto::agent::v1::{PromiseRequest, PromiseResponse};
use regent_proto::watch;
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::journal::{Peer, Record};
use crate::lease::{Question, Reading};
use crate::witness::Asked;
use crate::witness::peer::{self, Ask, PeerEvent};

/// Promised is only what was looked at: a database that nobody has seen may accept writes. `writable` is the fresh
/// sight of a resource.
fn seen_closed(
    guarded: &BTreeSet<ResourceId>,
    writable: impl Fn(&ResourceId) -> Option<bool>,
) -> Result<(), &'static str> {
    let sights: Vec<_> = guarded.iter().map(writable).collect();
    if sights.contains(&Some(true)) {
        return Err("a database here accepts writes");
    }
    if sights.contains(&None) {
        return Err("a database here is not probed yet");
    }
    Ok(())
}

/// A task that looks after one other cluster.
pub(super) struct PeerLink {
    address: watch::Sender<Peer>,
    asks: mpsc::Sender<Ask>,
}

impl Agent {
    /// One task for every other listed cluster, at its newest address.
    pub(super) fn look_after_peers(&mut self) {
        let mut listed: BTreeMap<ClusterId, Peer> = BTreeMap::new();
        for view in self.journal.view().applications.values().filter(|view| view.terms.is_some()) {
            listed.extend(view.peers.clone());
        }
        listed.remove(&self.settings.cluster);
        let gone: BTreeSet<_> = self.peers.keys().filter(|cluster| !listed.contains_key(cluster)).cloned().collect();
        self.peers.retain(|cluster, _| !gone.contains(cluster));
        for (cluster, at) in listed {
            if let Some(link) = self.peers.get(&cluster) {
                link.address.send_if_modified(|known| {
                    let moved = *known != at;
                    known.clone_from(&at);
                    moved
                });
                continue;
            }
            let address = watch::Sender::new(at);
            let (asks, asked) = mpsc::channel(64);
            let (dial, events) = (self.dial.clone(), self.peer_events.clone());
            let (here, interval) = (address.subscribe(), self.settings.probe_interval);
            let reach = peer::Reach { dial, interval, clock: self.clock.clone() };
            tokio::spawn(peer::keep(cluster.clone(), here, reach, asked, events));
            self.peers.insert(cluster, PeerLink { address, asks });
        }
    }

    pub(super) fn ask_promises(&self, application: &ApplicationId, question: &Question) {
        for cluster in &question.clusters {
            let ask = Ask {
                application: application.clone(),
                cluster: self.settings.cluster.clone(),
                installation: self.installation.clone(),
                question: question.clone(),
            };
            let asked = self.peers.get(cluster).is_some_and(|link| link.asks.try_send(ask).is_ok());
            if !asked {
                tracing::warn!(%application, peer = %cluster, "cannot ask for a promise: its address is not known");
            }
        }
    }

    pub(super) fn hear_peer(&mut self, event: PeerEvent) {
        let now = self.clock.reading();
        match event {
            PeerEvent::Sign(sign) => {
                self.sequence += 1;
                self.signs.insert(sign.cluster.clone(), (self.sequence, sign));
            }
            PeerEvent::Promise { application, number, cluster, promised, epoch, reason } => {
                if !promised {
                    tracing::warn!(%application, peer = %cluster, reason, "a promise was refused");
                }
                drop(self.see_epoch(&application, epoch));
                self.with(&application, |lease| lease.promise_answered(now, number, cluster, promised, epoch));
            }
        }
    }

    /// Another cluster's agent asks not to promote; the server has checked that it is that agent.
    pub(super) fn answer_question(&mut self, asked: Asked) {
        let now = self.clock.reading();
        let Asked { request, answer } = asked;
        let (epoch, promised) = match self.promise(&request, now) {
            Ok(epoch) => (epoch, Ok(())),
            Err((epoch, why)) => (epoch, Err(why)),
        };
        let reason = promised.err().unwrap_or_default().to_owned();
        let response = PromiseResponse { promised: promised.is_ok(), reason, epoch: epoch.0 };
        // The asker goes by the epoch that it is told: a restart must not make this agent promise below it.
        let application = ApplicationId::new(&request.application).ok();
        let being_stored = application.and_then(|application| self.see_epoch(&application, epoch));
        tokio::spawn(async move {
            if let Some(stored) = being_stored {
                stored.await;
            }
            let _ = answer.send(response);
        });
    }

    fn promise(&mut self, request: &PromiseRequest, now: Reading) -> Result<Epoch, (Epoch, &'static str)> {
        let unknown = (Epoch(0), "the application is not known here");
        let (Ok(application), Ok(cluster)) =
            (ApplicationId::new(&request.application), ClusterId::new(&request.cluster))
        else {
            return Err(unknown);
        };
        let lease = self.leases.get(&application).ok_or(unknown)?;
        let seen = lease.seen();
        let terms = lease.terms().ok_or((seen, "no terms of the application are stored here"))?;
        let asker = terms.clusters.get(&cluster).and_then(|listed| listed.installation.as_ref());
        if asker.is_none_or(|installation| installation.0 != request.installation) {
            return Err((seen, "the asker is not the installation that the terms list"));
        }
        let (own_epoch, own_bound, primary) = (terms.epoch, terms.bound.fail_over_after, terms.primary.clone());
        // Asking is a sign of life of that cluster at that epoch, whatever the answer.
        self.sequence += 1;
        let name = (application.clone(), cluster.clone());
        self.questions.insert(name, (self.sequence, now, Epoch(request.epoch)));
        if Epoch(request.epoch) > seen {
            drop(self.see_epoch(&application, Epoch(request.epoch)));
            return Err((seen, "the terms stored here are of an older epoch"));
        }
        if seen > Epoch(request.epoch) {
            return Err((seen, "a higher epoch is known here"));
        }
        if own_epoch != Epoch(request.epoch) || primary != cluster {
            return Err((seen, "the terms stored here are of another epoch"));
        }
        if self.steps.any_above(&application, own_epoch) {
            return Err((seen, "a step of a higher epoch runs here"));
        }
        let sight = |resource: &ResourceId| {
            let (_, sight) = self.sights.get(&(application.clone(), resource.clone()))?;
            sight.is_fresh(now).then_some(sight.probe.writable)
        };
        seen_closed(&terms.guarded, sight).map_err(|why| (seen, why))?;
        if !self.journal.has_room() {
            return Err((seen, "the journal here is full"));
        }
        let short = planted::makes(Mistake::PromiseTooShort);
        let span = if short { Span::ZERO } else { own_bound.max(Span::from_millis(request.fail_over_after_ms)) };
        if span > self.journal.view().largest_bound {
            // Stored first: after a reboot it is waited out. The asker comes again with the next heartbeat.
            tokio::spawn(self.journal.append(vec![Record::LargestBound { fail_over_after: span }]));
            return Err((seen, "the asker's failoverAfter is being stored; ask again"));
        }
        let mut promises = self.promises.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if promises.give(&application, own_epoch, now, span) {
            Ok(seen)
        } else {
            Err((seen, "the promise cannot be kept: the runtime directory is full"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_not_taken_for_closed() {
        let [db, cache] = ["db", "cache"].map(|name| ResourceId::new(name).unwrap());
        let guarded = BTreeSet::from([db.clone(), cache.clone()]);
        assert_eq!(seen_closed(&guarded, |_| Some(false)), Ok(()));
        assert_eq!(
            seen_closed(&guarded, |name| (*name == db).then_some(false)),
            Err("a database here is not probed yet")
        );
        assert_eq!(seen_closed(&guarded, |name| Some(*name == cache)), Err("a database here accepts writes"));
    }
}
