//! What must come before a step: what is waited for, and what refuses it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use regent_core::id::{ApplicationId, Epoch, ResourceId};
use regent_core::planted::{self, Mistake};
use regent_core::time::Span;
use tokio_util::sync::CancellationToken;

use super::carry_out::{Bench, full, refused};
use super::order::{Order, Refused};
use crate::driver::{Driver, Marker};
use crate::journal::Record;
use crate::lease::Reading;

/// Between two words to a quiesce that it is to break off.
const TOLD_AGAIN: Duration = Duration::from_millis(10);

impl Bench {
    /// What opens and meets a promise begins when it has run out, by the slower clock.
    pub(super) async fn wait_for_promise(
        &self,
        order: &Order,
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), Refused> {
        if order.old_side_fenced || planted::makes(Mistake::PromiseForgotten) {
            return Ok(());
        }
        let mut said = false;
        while let Some(left) = self.promised(order, self.clock.reading()) {
            if !std::mem::replace(&mut said, true) {
                waits(format!("not before {} ms: the primary's agent was promised that", left.millis()));
            }
            tokio::time::sleep(Duration::from_millis(left.millis().clamp(1, 100))).await;
        }
        Ok(())
    }

    fn promised(&self, order: &Order, now: Reading) -> Option<Span> {
        let promises = self.promises.lock().unwrap_or_else(PoisonError::into_inner);
        promises.held(&order.application, order.epoch, now).map(|until| until.left_for_waiter(now))
    }

    pub(super) async fn wait_for_lease(
        &self,
        order: &Order,
        waits: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), Refused> {
        let mut word = self.word.clone();
        let mut said = false;
        while !planted::makes(Mistake::OpenWithoutLease) {
            let lease = word.borrow_and_update().lease(order, self.clock.reading());
            let Err(why) = lease else { return Ok(()) };
            if word.borrow().seen(&order.application) > order.epoch {
                return Err(Refused::new("stale-epoch", "a higher epoch has been seen"));
            }
            if !std::mem::replace(&mut said, true) {
                waits(format!("waits for the lease: {why}"));
            }
            word.changed().await.map_err(|_| Refused::for_now("agent-ends", "the agent is ending"))?;
        }
        Ok(())
    }

    pub(super) fn closing_again(&self, application: &ApplicationId, resource: &ResourceId, ended: CancellationToken) {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        closing.insert((application.clone(), resource.clone()), ended);
    }

    pub(super) fn is_closing_again(&self, application: &ApplicationId, resource: &ResourceId) -> bool {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        closing.get(&(application.clone(), resource.clone())).is_some_and(|ended| !ended.is_cancelled())
    }

    /// A fence of a lower token that is carried out again would close what this step opens. It is not dropped: what it has
    /// begun in files could still come after. A quiesce gives way to what opens.
    pub(super) async fn wait_for_closing(
        &self,
        order: &Order,
        (resource, driver): (&ResourceId, &Arc<dyn Driver>),
        waits: &(dyn Fn(String) + Send + Sync),
    ) {
        let name = (order.application.clone(), resource.clone());
        let ended = self.closing.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(ended) = ended.filter(|ended| !ended.is_cancelled()) {
            waits("waits for an older fence that is being repeated".to_owned());
            if order.action.opens() {
                break_off(driver, ended.cancelled()).await;
            } else {
                ended.cancelled().await;
            }
        }
    }

    /// The first act of what opens, under its lease: every older fence of either kind has ended.
    pub(super) async fn end_older_fence(&self, order: &Order, resource: &ResourceId) -> Result<(), Refused> {
        let stands = {
            let view = self.journal.view();
            let resources = view.applications.get(&order.application).map(|view| &view.resources);
            resources.and_then(|resources| resources.get(resource)).is_some_and(|resource| resource.hold.is_some())
        };
        if !stands {
            return Ok(());
        }
        let lifted = Record::Lifted { application: order.application.clone(), resource: resource.clone() };
        self.journal.append(vec![lifted]).await.map_err(full)
    }

    /// Rejoin destroys: refused where the cluster is primary of the highest known epoch or the database is writable.
    pub(super) async fn refuse_rejoin_of_a_primary(
        &self,
        order: &Order,
        driver: &Arc<dyn Driver>,
    ) -> Result<(), Refused> {
        if self.word.borrow().is_primary(&order.application) {
            return Err(Refused::new("rejoin-primary", "this cluster is the primary of the highest known epoch"));
        }
        if driver.probe().await.writable {
            return Err(Refused::for_now("rejoin-writable", "the database here accepts writes; fence it first"));
        }
        Ok(())
    }

    /// Restore destroys, too. In a failover the cluster is already the primary of the highest epoch, and its database has
    /// not been opened in it: what serves, or served in this epoch, is what may not be replaced.
    pub(super) async fn refuse_restore_of_what_serves(
        &self,
        order: &Order,
        resource: &ResourceId,
        driver: &Arc<dyn Driver>,
    ) -> Result<(), Refused> {
        let opened = {
            let view = self.journal.view();
            let resources = view.applications.get(&order.application).map(|view| &view.resources);
            resources.and_then(|resources| resources.get(resource)).map_or(Epoch(0), |resource| resource.opened)
        };
        // A primary that was adopted, or found open, is noted as opened, too.
        let seen = self.word.borrow().seen(&order.application).max(order.epoch);
        if opened >= seen && opened > Epoch(0) {
            let message = format!(
                "the database here was opened in epoch {opened}, the highest known: it has what nobody else has"
            );
            return Err(Refused::new("restore-primary", message));
        }
        if driver.probe().await.writable {
            return Err(Refused::for_now("restore-writable", "the database here accepts writes; fence it first"));
        }
        Ok(())
    }
    /// What was restored into an emptied place has lost the marker that stood beside the data: without it nothing that
    /// starts there is opened again. Where nothing is guarded yet, that comes with the first terms that are named.
    pub(super) async fn mark_restored(&self, order: &Order, driver: &Arc<dyn Driver>) -> Result<(), Refused> {
        let marker = {
            let view = self.journal.view();
            let led = view.applications.get(&order.application).is_some_and(|known| known.led > Epoch(0));
            led.then(|| Marker {
                group: view.group.as_ref().map(ToString::to_string).unwrap_or_default(),
                application: order.application.to_string(),
                cluster: self.cluster.to_string(),
                installation: view.installation.to_string(),
            })
        };
        if let Some(marker) = marker {
            driver.guard(&marker).await.map_err(refused)?;
        }
        Ok(())
    }
}

/// Waits for the end of a quiesce, which waits for no transactions from here on. It is told again and again: it may only be
/// about to begin.
pub(super) async fn break_off<T>(driver: &Arc<dyn Driver>, ended: impl Future<Output = T>) {
    let mut ended = std::pin::pin!(ended);
    loop {
        driver.break_off();
        if tokio::time::timeout(TOLD_AGAIN, &mut ended).await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use regent_core::id::ClusterId;
    use regent_proto::agent::v1 as wire;

    use super::*;
    use crate::agent::Word;
    use crate::guard::{Drivers, clock};
    use crate::journal::Journal;
    use crate::steps::drill;
    use crate::witness::Promises;

    #[tokio::test]
    async fn whatever_opens_waits_for_a_promise() {
        let place = tempfile::tempdir().unwrap();
        let shop = ApplicationId::new("shop").unwrap();
        let clock = clock::of_this_machine();
        let mut promises = Promises::load(place.path(), "boot", Span::ZERO, clock.reading());
        assert!(promises.give(&shop, Epoch(1), clock.reading(), Span::from_secs(60)));
        let bench = Bench {
            cluster: ClusterId::new("a").unwrap(),
            drivers: Drivers::new(),
            journal: Journal::open(place.path()).unwrap(),
            word: regent_proto::watch::Sender::new(Arc::new(Word::default())).subscribe(),
            clock,
            promises: Arc::new(Mutex::new(promises)),
            locks: Mutex::default(),
            drills: drill::Ledger::open(place.path()),
            closing: Mutex::default(),
            onlooker: None,
        };
        for kind in [wire::StepKind::Promote, wire::StepKind::Unfence, wire::StepKind::Activate] {
            let command = wire::StepCommand {
                token: Some(wire::Token { restoration: 0, index: 7 }),
                application: "shop".to_owned(),
                resource: "db".to_owned(),
                epoch: 2,
                kind: kind.into(),
                ..wire::StepCommand::default()
            };
            let order = Order::parse(&command).unwrap();
            assert!(order.action.opens());
            assert!(bench.wait_for_promise(&order, &|_| {}).now_or_never().is_none(), "{kind:?} waits");
            let fenced = Order::parse(&wire::StepCommand { old_side_fenced: true, ..command.clone() }).unwrap();
            assert!(
                bench.wait_for_promise(&fenced, &|_| {}).now_or_never().is_some(),
                "{kind:?}: the fence is on record"
            );
            let same = Order::parse(&wire::StepCommand { epoch: 1, ..command }).unwrap();
            assert!(
                bench.wait_for_promise(&same, &|_| {}).now_or_never().is_some(),
                "{kind:?}: only above the promise"
            );
        }
    }
}
