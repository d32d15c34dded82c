//! A failover that a human has a word in. It stands in the state until it is carried out, so whoever leads next goes on
//! with it, and everybody can see who asked, who approved, and why.
//!
//! ```text
//!  FailoverOrdered (an operator's) ─┬─ given ───────────────────────────┬─► a run takes it along: done
//!                                   └─ asked: a second person ─ yes ────┤
//!  FailoverDue (`mode: approve`) ──── asked ── yes, or silence proceeds ┘
//!                                       ├─ silence ─► silent: a late yes still counts ─► closed when it is not due any more
//!                                       └─ no ──────► declined: silent, and nothing asks again; the same ways on
//! ```
//!
//! An order is for one epoch: the next change of primary ends it, whatever made that. It opens no rule of safety: with it
//! the leader proposes what it could not propose by itself, and the ground of that is checked as ever.

use serde::{Deserialize, Serialize};

use super::apply::{Applying, ignored, refused};
use super::change::Broken;
use super::{ApplicationState, Applied};
use crate::application::{Mode, OnSilence};
use crate::entry::{Cause, Ground};
use crate::id::{ApplicationId, ClusterId, Epoch, LogIndex, RunId};
use crate::time::{Span, Timestamp};

/// So long an operator's order waits for a second person, and then for what lets it be carried out.
pub const ORDER_STANDS: Span = Span::from_secs(15 * 60);

/// A failover that was ordered, or that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The entry that made it: its number.
    pub id: LogIndex,
    /// The epoch that it would end.
    pub epoch: Epoch,
    /// Whose it is.
    pub origin: Origin,
    /// Where it stands.
    pub state: OrderState,
    /// Since when it stands there.
    pub since: Timestamp,
    /// How long it stands there.
    pub within: Span,
    /// The run that carries it out and is not decided yet.
    pub run: Option<RunId>,
    /// A human has said no to a question. It stands as [`OrderState::Silent`], so that it is not asked again, until what it
    /// asks about is over or a human wants the failover after all.
    #[serde(default)]
    pub declined: Option<Declined>,
}

/// A human's no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Whose an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A failover is due, and the document asks a human.
    Due {
        /// Why it is due.
        detail: String,
    },
    /// An operator's.
    Operator(Wish),
}

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Who.
    pub by: String,
    /// To where.
    pub to: ClusterId,
    /// Why; may be empty.
    pub reason: String,
    /// A loss beyond `maxDataLoss` is allowed, and why. For this one failover.
    pub allow_data_loss: Option<String>,
    /// The primary is off, says the operator: on what that rests.
    pub attestation: Option<String>,
}

/// Where an order stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderState {
    /// It waits for a human's yes.
    Asked,
    /// Nobody has answered in time. A late yes still counts.
    Silent,
    /// It may be carried out.
    Given {
        /// Who said yes; none if nobody had to, or silence was enough.
        by: Option<String>,
        /// Why.
        reason: String,
    },
}

impl Order {
    /// It may be carried out.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        matches!(self.state, OrderState::Given { .. })
    }

    /// The operator's wish, if it is one's.
    #[must_use]
    pub const fn wish(&self) -> Option<&Wish> {
        match &self.origin {
            Origin::Operator(wish) => Some(wish),
            Origin::Due { .. } => None,
        }
    }

    /// Who confirmed it.
    #[must_use]
    pub fn second(&self) -> Option<&str> {
        match &self.state {
            OrderState::Given { by, .. } => by.as_deref(),
            OrderState::Asked | OrderState::Silent => None,
        }
    }

    /// How long it still stands where it does.
    #[must_use]
    pub fn left(&self, wall: Timestamp) -> Span {
        self.within.minus(wall.since(self.since))
    }

    /// What it stood for has not come in time.
    #[must_use]
    pub fn is_over(&self, wall: Timestamp) -> bool {
        wall.since(self.since) >= self.within && self.state != OrderState::Silent && self.run.is_none()
    }

    /// True if a loss beyond the limit is allowed in this cluster.
    #[must_use]
    pub fn allows_loss_in(&self, cluster: &ClusterId) -> bool {
        let wish = self.wish().filter(|wish| self.is_given() && wish.to == *cluster);
        wish.is_some_and(|wish| wish.allow_data_loss.is_some())
    }
}

impl Wish {
    /// Why, from all that was said.
    #[must_use]
    pub fn why(&self) -> &str {
        let said = [Some(self.reason.as_str()), self.allow_data_loss.as_deref(), self.attestation.as_deref()];
        said.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or("ordered by an operator")
    }

    fn sentence(&self) -> String {
        let mut text = format!("to {}: {}", self.to, self.why());
        if let Some(allowed) = &self.allow_data_loss {
            text.push_str(&format!("; any data loss is allowed: {allowed}"));
        }
        if let Some(attested) = &self.attestation {
            text.push_str(&format!("; the primary is off, it is attested: {attested}"));
        }
        text
    }
}

/// An operator orders a failover.
pub(super) fn ordered(applying: &mut Applying<'_>, application: &ApplicationId, epoch: Epoch, wish: &Wish) -> Applied {
    let (id, at) = (applying.index, applying.at);
    let Some(known) = applying.state.applications.get_mut(application) else {
        return refused("unknown-application", format!("{application} does not exist"));
    };
    let Some(primary) = &known.primary else { return refused("not-adopted", "no primary is known yet") };
    if known.epoch != epoch {
        return ignored("the epoch has moved on");
    }
    if *primary == wish.to {
        return refused("same-cluster", format!("{primary} is the primary"));
    }
    if !known.document.clusters.contains(&wish.to) {
        return refused("unlisted-cluster", format!("{} is not listed", wish.to));
    }
    let unsaid = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    if wish.by.is_empty() || unsaid(&wish.allow_data_loss) || unsaid(&wish.attestation) {
        return refused("attestation-missing", "operator, and the reason of each permission, must be named");
    }
    if let Some(order) = &known.order
        && let Some(earlier) = order.wish()
    {
        let detail =
            format!("order {} by {} stands; approve it, or `regentctl abort {}`", order.id, earlier.by, order.id);
        return refused("order-stands", detail);
    }
    let permits = wish.allow_data_loss.is_some() || wish.attestation.is_some();
    let asks = permits && known.needs_second(&wish.by);
    let given = OrderState::Given { by: None, reason: String::new() };
    known.order = Some(Order {
        id,
        epoch,
        origin: Origin::Operator(wish.clone()),
        state: if asks { OrderState::Asked } else { given },
        since: at,
        within: ORDER_STANDS,
        run: None,
        declined: None,
    });
    let second = if asks { "; it waits for a second person" } else { "" };
    let detail = format!("order {id} {}{second}", wish.sentence());
    applying.audit("failover-ordered", Some(application), None, &wish.by, detail);
    applying.done()
}

/// A failover is due, and a human is asked.
pub(super) fn due(applying: &mut Applying<'_>, application: &ApplicationId, epoch: Epoch, detail: &str) -> Applied {
    let (id, at) = (applying.index, applying.at);
    let Some(known) = applying.state.applications.get_mut(application) else { return ignored("unknown application") };
    if known.epoch != epoch {
        return ignored("the epoch has moved on");
    }
    let automation = &known.document.automation;
    if automation.mode != Mode::Approve {
        return ignored("the document does not ask");
    }
    if known.order.is_some() {
        return ignored("asked before");
    }
    let within = automation.approve_within;
    let silence = match automation.on_silence {
        OnSilence::Refuse => "then it does not start",
        OnSilence::Proceed => "then it starts",
    };
    let origin = Origin::Due { detail: detail.to_owned() };
    let state = OrderState::Asked;
    known.order = Some(Order { id, epoch, origin, state, since: at, within, run: None, declined: None });
    let detail = format!("question {id}: {detail}; {within} for an answer, {silence}");
    applying.audit("failover-asked", Some(application), None, "leader", detail);
    applying.done()
}

/// A human says yes.
pub(super) fn approved(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    id: LogIndex,
    by: &str,
    reason: &str,
) -> Applied {
    let at = applying.at;
    let order = match stands(applying, application, id) {
        Ok(order) => order,
        Err(not) => return not,
    };
    match order.state {
        OrderState::Asked | OrderState::Silent => {}
        OrderState::Given { .. } => return ignored("it was approved before"),
    }
    if order.wish().is_some_and(|wish| wish.by == by) {
        return refused("same-person", format!("{by} gave the order: another operator has to confirm it"));
    }
    order.state = OrderState::Given { by: Some(by.to_owned()), reason: reason.to_owned() };
    order.declined = None;
    order.since = at;
    order.within = ORDER_STANDS;
    applying.audit("approved", Some(application), None, by, format!("order {id}: {reason}"));
    applying.done()
}

/// Its time is over. The document says what silence means; the leader only says that it has lasted.
pub(super) fn timed_out(applying: &mut Applying<'_>, application: &ApplicationId, id: LogIndex) -> Applied {
    let at = applying.at;
    let proceeds = applying.state.applications.get(application).map(|known| known.document.automation.on_silence);
    let order = match stands(applying, application, id) {
        Ok(order) => order,
        Err(_) => return ignored("it does not stand"),
    };
    if !order.is_over(at) {
        return ignored("its time has not passed");
    }
    let waited = order.within;
    match (&order.state, &order.origin, proceeds) {
        (OrderState::Asked, Origin::Due { .. }, Some(OnSilence::Proceed)) => {
            let reason = format!("nobody has answered within {waited}, and the document says to go on");
            order.state = OrderState::Given { by: None, reason: reason.clone() };
            order.since = at;
            order.within = ORDER_STANDS;
            applying.audit("silence-proceeds", Some(application), None, "leader", format!("question {id}: {reason}"));
        }
        (OrderState::Asked, Origin::Due { .. }, Some(OnSilence::Refuse) | None) => {
            order.state = OrderState::Silent;
            order.since = at;
            let detail = format!("question {id}: nobody has answered within {waited}");
            applying.audit("not-approved", Some(application), None, "leader", detail);
        }
        (OrderState::Asked, Origin::Operator(_), _) => {
            close(applying, application, "leader", &format!("no second person has confirmed it within {waited}"));
        }
        (OrderState::Given { .. }, _, _) => {
            close(applying, application, "leader", &format!("it could not be carried out within {waited}"));
        }
        (OrderState::Silent, _, _) => return ignored("it has timed out before"),
    }
    applying.done()
}

/// It is taken back or declined, or what it was for is over. A question that is declined stands: with it gone, the leader
/// would ask the same at once.
pub(super) fn closed(
    applying: &mut Applying<'_>,
    application: &ApplicationId,
    id: LogIndex,
    by: &str,
    reason: &str,
    by_human: bool,
) -> Applied {
    let at = applying.at;
    let order = match stands(applying, application, id) {
        Ok(order) => order,
        Err(not) => return not,
    };
    if let Some(run) = order.run {
        return refused("run-under-way", format!("run {run} carries it out; `regentctl abort {run}` ends that"));
    }
    match order.origin {
        Origin::Due { .. } if by_human => {
            if order.declined.is_some() {
                return ignored("it was declined before");
            }
            order.declined = Some(Declined { by: by.to_owned(), reason: reason.to_owned() });
            order.state = OrderState::Silent;
            order.since = at;
            applying.audit("failover-declined", Some(application), None, by, format!("question {id}: {reason}"));
        }
        Origin::Due { .. } | Origin::Operator(_) => close(applying, application, by, reason),
    }
    applying.done()
}

fn stands<'a>(
    applying: &'a mut Applying<'_>,
    application: &ApplicationId,
    id: LogIndex,
) -> Result<&'a mut Order, Applied> {
    let Some(known) = applying.state.applications.get_mut(application) else {
        return Err(refused("unknown-application", format!("{application} does not exist")));
    };
    let Some(order) = &mut known.order else {
        return Err(refused("no-order", format!("no failover of {application} is ordered or asks")));
    };
    if order.id == id {
        return Ok(order);
    }
    Err(refused("no-order", format!("order {id} does not stand; order {} does", order.id)))
}

/// Takes the order away and says why.
fn close(applying: &mut Applying<'_>, application: &ApplicationId, by: &str, why: &str) {
    let Some(known) = applying.state.applications.get_mut(application) else { return };
    let Some(order) = known.order.take() else { return };
    applying.audit("order-closed", Some(application), None, by, format!("order {}: {why}", order.id));
}

/// The order that a run of this cause begins by. None is fine for what needs none.
///
/// # Errors
/// An operator's failover without one, and why.
pub(super) fn for_start(known: &ApplicationState, cause: &Cause, to: &ClusterId) -> Result<Option<Order>, String> {
    let given = known.order.as_ref().filter(|order| order.is_given());
    match cause {
        Cause::Forced { .. } => {
            let order = given.filter(|order| order.wish().is_some_and(|wish| wish.to == *to) && order.run.is_none());
            order.cloned().map(Some).ok_or_else(|| "no operator's order for it stands".to_owned())
        }
        Cause::RegionLost | Cause::ResourceFailed { .. } | Cause::AgentUnreachable | Cause::SelfFenced => {
            Ok(given.filter(|order| order.wish().is_none()).cloned())
        }
        Cause::Switchover { .. } | Cause::Rejoin { .. } | Cause::Recovered | Cause::Drill { .. } => Ok(None),
    }
}

/// The order that a decision rests on beside its ground.
pub(super) fn for_decision(known: &ApplicationState, ground: &Ground, to: &ClusterId) -> Option<Order> {
    let order = known.order.as_ref().filter(|order| order.is_given())?;
    let fits = match (&order.origin, ground) {
        (_, Ground::Switched { .. } | Ground::Recovered) => false,
        (Origin::Due { .. }, Ground::Lost { .. } | Ground::Fenced { .. }) => true,
        (Origin::Due { .. }, Ground::Forced { .. }) => false,
        (Origin::Operator(wish), Ground::Fenced { run }) => wish.to == *to && order.run == Some(*run),
        (Origin::Operator(wish), Ground::Lost { .. } | Ground::Forced { .. }) => wish.to == *to,
    };
    fits.then(|| order.clone())
}

/// `Forced`: by the word of people alone, so the people are checked.
///
/// # Errors
/// What is missing: its rule, and a sentence.
pub(super) fn check_forced(known: &ApplicationState, ground: &Ground, to: &ClusterId) -> Result<(), Broken> {
    let Ground::Forced { operator, second, attestation, reason } = ground else { return Ok(()) };
    if [operator, attestation, reason].iter().any(|text| text.trim().is_empty()) {
        return Err(Broken("attestation-missing", "operator, attestation and reason must be named".to_owned()));
    }
    let Some(order) = for_decision(known, ground, to) else {
        return Err(Broken("no-order", "no operator's order for it stands".to_owned()));
    };
    let same = order.wish().is_some_and(|wish| wish.by == *operator && wish.attestation.as_ref() == Some(attestation));
    if !same || order.second() != second.as_deref() {
        return Err(Broken("no-order", "the order that stands is another one".to_owned()));
    }
    if known.needs_second(operator) && second.as_ref().is_none_or(|second| second == operator) {
        let why = "another operator has to confirm it: the document says so, or did until its author took that out";
        return Err(Broken("second-person-missing", why.to_owned()));
    }
    Ok(())
}

/// The primary changes: the order that it rests on is done, and any other has lost its sense.
pub(super) fn settle(applying: &mut Applying<'_>, application: &ApplicationId, used: Option<&Order>) {
    let stands = applying.state.applications.get(application).and_then(|known| known.order.as_ref());
    match (stands, used) {
        (Some(order), Some(used)) if order.id == used.id => {
            if let Some(known) = applying.state.applications.get_mut(application) {
                known.order = None;
            }
        }
        (Some(_), _) => close(applying, application, "leader", "the primary has changed"),
        (None, _) => {}
    }
}

/// Its run has ended without a decision. One that touched nothing leaves the order as it was.
pub(crate) fn run_ended(applying: &mut Applying<'_>, application: &ApplicationId, id: RunId) {
    let Some(run) = applying.state.runs.get(&id) else { return };
    let (untouched, status) = (!run.has_begun() && run.abort.is_none(), run.status);
    let Some(known) = applying.state.applications.get_mut(application) else { return };
    let Some(order) = known.order.as_mut().filter(|order| order.run == Some(id)) else { return };
    if untouched {
        order.run = None;
        return;
    }
    close(applying, application, "leader", &format!("its run {id} is {status}"));
}
