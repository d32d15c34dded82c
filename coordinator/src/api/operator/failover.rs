//! A failover on an operator's word, and a human's yes to one. The leader says whether and how it could be carried out; then
//! the order is committed, and whoever leads carries it out.

use regent_core::advice;
use regent_core::decide::awaits;
use regent_core::entry::Entry;
use regent_core::id::{ApplicationId, ClusterId, LogIndex, RunId, StepId};
use regent_core::state::{ApplicationState, Order, OrderState, Origin, State, Wish};
use regent_core::time::Timestamp;
use regent_proto::operator::v1 as wire;
use tonic::Status;

use super::{Operators, reason, request_id, unknown_application};
use crate::api::convert::{self, span, time};
use crate::api::status::Fault;

impl Operators {
    /// Refused at once if it cannot be carried out; else it stands until it has been, or has expired.
    pub(super) async fn order_failover(
        &self,
        asked: wire::FailoverRequest,
        by: String,
    ) -> Result<wire::FailoverResponse, Status> {
        let request = request_id(&asked.request_id)?;
        let to = ClusterId::new(&asked.to).map_err(|error| Fault::Field { field: "to", problem: error.to_string() })?;
        let said = |text: &str| if text.is_empty() { Ok(None) } else { reason(text).map(Some) };
        let wish = Wish {
            by,
            to,
            reason: said(&asked.reason)?.unwrap_or_default(),
            allow_data_loss: said(&asked.allow_data_loss)?,
            attestation: said(&asked.attest_primary_off)?,
        };
        self.fresh(false).await?;
        let application = self.known(&asked.application)?;
        let way = if self.is_repeat(&request) { String::new() } else { self.way_of(&application, &wish).await? };
        let epoch = self.node().replica.read(|state| state.applications.get(&application).map(|known| known.epoch));
        let epoch = epoch.ok_or_else(|| unknown_application(&asked.application))?;
        let entry = Entry::FailoverOrdered { application: application.clone(), epoch, wish };
        let index = self.propose(request, application.as_str(), entry).await?;
        let asks = self.node().replica.read(|state| {
            let order = state.applications.get(&application).and_then(|known| known.order.as_ref());
            order.is_some_and(|order| order.id.0 == index && order.state == OrderState::Asked)
        });
        Ok(wire::FailoverResponse { index, order: index, asks_second_person: asks, way })
    }

    /// By the leader's evidence.
    async fn way_of(&self, application: &ApplicationId, wish: &Wish) -> Result<String, Status> {
        let question = wire::PlanRequest {
            application: application.to_string(),
            to: wish.to.to_string(),
            kind: wire::PlanKind::OrderedFailover.into(),
            allow_data_loss: wish.allow_data_loss.is_some(),
            attest_primary_off: wish.attestation.is_some(),
            max_write_outage: None,
        };
        let plan = self.look_at_plan(question, true).await?.plan.unwrap_or_default();
        if let Some(refusal) = plan.notes.iter().find(|note| note.severity() == wire::Severity::Blocker) {
            let (rule, detail) = (refusal.code.clone(), refusal.detail.clone());
            return Err(Fault::Refused { subject: application.to_string(), rule, detail }.into());
        }
        let way = plan.notes.into_iter().find(|note| note.code == "way");
        Ok(way.map(|note| note.detail).unwrap_or_default())
    }

    /// A human's yes: to a step, to an order, or to what an application asks.
    pub(super) async fn say_yes(
        &self,
        asked: wire::ApproveRequest,
        by: String,
    ) -> Result<wire::ApproveResponse, Status> {
        let id = request_id(&asked.request_id)?;
        let reason = reason(&asked.reason)?;
        self.fresh(false).await?;
        if asked.order == 0 && asked.application.is_empty() {
            self.run(asked.run, |_, _| ())?;
            let entry = Entry::Approved { run: RunId(asked.run), step: StepId(asked.step), by, reason };
            let index = self.propose(id, &format!("run {}", asked.run), entry).await?;
            return Ok(wire::ApproveResponse { index });
        }
        let (application, order) = self.order(&asked)?;
        let subject = application.to_string();
        let index = self.propose(id, &subject, Entry::OrderApproved { application, order, by, reason }).await?;
        Ok(wire::ApproveResponse { index })
    }

    fn order(&self, asked: &wire::ApproveRequest) -> Result<(ApplicationId, LogIndex), Fault> {
        let none = |subject: &str, detail: String| Fault::Refused {
            subject: subject.to_owned(),
            rule: "no-order".to_owned(),
            detail,
        };
        if asked.application.is_empty() {
            let found = self.node().replica.read(|state| order_of(state, asked.order));
            return found
                .map(|application| (application, LogIndex(asked.order)))
                .ok_or_else(|| none("order", format!("order {} does not stand", asked.order)));
        }
        let application = self.known(&asked.application)?;
        let stands = |state: &State| state.applications.get(&application)?.order.as_ref().map(|order| order.id);
        let found = self.node().replica.read(stands).filter(|id| asked.order == 0 || asked.order == id.0);
        let nothing = || none(application.as_str(), format!("no failover of {application} is ordered or asks"));
        found.map(|id| (application.clone(), id)).ok_or_else(nothing)
    }

    /// Takes an order back; none if there is no such order.
    pub(super) async fn take_back(
        &self,
        asked: &wire::AbortRequest,
        by: &str,
    ) -> Option<Result<wire::AbortResponse, Status>> {
        let application = self.node().replica.read(|state| order_of(state, asked.run))?;
        Some(self.close(asked, by, application).await)
    }

    async fn close(
        &self,
        asked: &wire::AbortRequest,
        by: &str,
        application: ApplicationId,
    ) -> Result<wire::AbortResponse, Status> {
        let (id, reason) = (request_id(&asked.request_id)?, reason(&asked.reason)?);
        let order = LogIndex(asked.run);
        let by = by.to_owned();
        let entry = Entry::OrderClosed { application: application.clone(), order, by, reason, by_human: true };
        let index = self.propose(id, application.as_str(), entry).await?;
        let wall = self.node().wall();
        let advice = self.node().replica.read(|state| {
            let known = state.applications.get(&application)?;
            Some(convert::advice(advice::of_application(state, &application, known, wall)))
        });
        Ok(wire::AbortResponse { index, advice })
    }
}

/// The application whose order has this number.
fn order_of(state: &State, id: u64) -> Option<ApplicationId> {
    let stands = |known: &&ApplicationState| known.order.as_ref().is_some_and(|order| order.id.0 == id);
    state.applications.values().find(stands).map(|known| known.document.name.clone())
}

/// As operators see it.
pub(in crate::api) fn order(
    order: &Order,
    application: &ApplicationId,
    from: &ClusterId,
    wall: Timestamp,
) -> wire::Order {
    let (approved_by, approval, state) = match &order.state {
        OrderState::Asked => (String::new(), String::new(), wire::OrderState::Asked),
        OrderState::Silent if order.declined.is_some() => (String::new(), String::new(), wire::OrderState::Declined),
        OrderState::Silent => (String::new(), String::new(), wire::OrderState::Silent),
        OrderState::Given { by, reason } => (by.clone().unwrap_or_default(), reason.clone(), wire::OrderState::Given),
    };
    let mut shown = wire::Order {
        id: order.id.0,
        state: state.into(),
        approved_by,
        approval,
        since: Some(time(order.since)),
        // Nothing runs out for what was declined, or not answered in time.
        left: (order.state != OrderState::Silent).then(|| span(order.left(wall))),
        run: order.run.map_or(0, |run| run.0),
        next: awaits(order, application, from),
        declined_by: order.declined.as_ref().map(|declined| declined.by.clone()).unwrap_or_default(),
        decline_reason: order.declined.as_ref().map(|declined| declined.reason.clone()).unwrap_or_default(),
        ..wire::Order::default()
    };
    match &order.origin {
        Origin::Due { detail } => shown.reason.clone_from(detail),
        Origin::Operator(wish) => {
            shown.by.clone_from(&wish.by);
            shown.to = wish.to.to_string();
            wish.why().clone_into(&mut shown.reason);
            shown.allow_data_loss = wish.allow_data_loss.clone().unwrap_or_default();
            shown.attest_primary_off = wish.attestation.clone().unwrap_or_default();
        }
    }
    shown
}
