//! What the leader does about a failover that a human has a word in: it asks, carries out, waits, or lets go.
//!
//! ```text
//!  an operator's order stands:
//!    the primary's agent answers ─────────────► RunStarted → fence → Decide{Fenced}
//!    it does not, votes stand and D passed ───► Decide{Lost}
//!    neither is to be had, and it is attested ► Decide{Forced}
//! ```

use super::gates::remote_fence;
use super::{Assessment, Trigger, Viewpoint, is_due};
use crate::breaker::is_frozen;
use crate::entry::{Cause, Entry, Ground};
use crate::id::{ApplicationId, ClusterId};
use crate::run::Run;
use crate::state::{ORDER_STANDS, Order, OrderState, Origin, Wish};
use crate::target::{self, Candidate, Unfit};
use crate::terms::Window;
use crate::time::Span;
use crate::verdict::{Loss, Scene, rule};
use crate::why::Rule;

/// The way that an operator's failover would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The agent of the primary answers: it is told to fence, and the decision rests on that.
    Fence,
    /// It does not: by votes and the time bound.
    Lost,
    /// Neither is to be had, why: by the attestation that the primary is off.
    Forced(String),
}

impl Way {
    /// For humans.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Fence => "the primary's agent answers: it is told to fence first".to_owned(),
            Self::Lost => "the primary's agent does not answer: by votes, when failoverAfter has passed".to_owned(),
            Self::Forced(why) => format!("by the attestation that the primary is off: {why}"),
        }
    }
}

/// Whether an operator's failover could be carried out, and how; or every rule that refuses it, most important first.
#[must_use]
pub fn look(scene: &Scene<'_>, wish: &Wish) -> (Option<Candidate>, Way, Vec<Rule>) {
    let known = scene.known;
    let mut refusals = Vec::new();
    if let Some(pause) = known.paused.as_ref().or(scene.state.paused.as_ref()) {
        refusals.push(rule("paused", format!("by {}: {}", pause.by, pause.reason)));
    }
    if let Some(order) = known.order.as_ref().filter(|order| order.wish().is_some()) {
        refusals.push(rule("order-stands", format!("order {} stands", order.id)));
    }
    let way = way(scene, scene.loss().as_ref());
    match &way {
        Way::Fence | Way::Lost => {
            if !known.confirmed {
                refusals.push(rule("nothing-confirmed", "the primary's agent has confirmed no terms yet"));
            }
            if is_frozen(scene.state) {
                let detail = "several clusters look lost at once; look at them, then `regentctl ack --all`";
                refusals.push(rule("frozen", detail));
            }
        }
        Way::Forced(why) if wish.attestation.is_none() => {
            let detail = format!("{why}; if the primary is off for certain, say so: --attest-primary-off REASON");
            refusals.push(rule("attestation-missing", detail));
        }
        Way::Forced(_) => {}
    }
    let run = known.run.and_then(|run| scene.state.runs.get(&run)).filter(|run| !run.gives_way());
    if let Some(run) = run.filter(|_| way == Way::Fence) {
        refusals.push(rule("run-under-way", format!("run {} is under way", run.id)));
    }
    let candidate = match target::judge_for(scene, &wish.to, wish.allow_data_loss.is_some()) {
        Ok(candidate) => Some(candidate),
        Err(unfit) => {
            refusals.push(rule(unfit.code, format!("{}: {}{}", wish.to, unfit.detail, advice(scene, wish, &unfit))));
            None
        }
    };
    (candidate, way, refusals)
}

/// What the operator could allow, as the end of a sentence; empty if nothing of that kind helps.
fn advice(scene: &Scene<'_>, wish: &Wish, unfit: &Unfit) -> &'static str {
    if wish.allow_data_loss.is_some() {
        return "";
    }
    if unfit.code == "beyond-max-data-loss" {
        return "; to allow it for this once: --allow-data-loss REASON";
    }
    // Whether that is so is for the judge to say: nothing else about the cluster may be amiss.
    match target::judge_for(scene, &wish.to, true) {
        Ok(_) => "; the runbook restores it from a backup if any loss is allowed: --allow-data-loss REASON",
        Err(_) => "",
    }
}

fn way(scene: &Scene<'_>, loss: Option<&Loss>) -> Way {
    if scene.agent_reachable() {
        return Way::Fence;
    }
    out_of_reach(scene, loss).map_or(Way::Lost, Way::Forced)
}

/// Why no decision on ground `Lost` will come; none if it may.
fn out_of_reach(scene: &Scene<'_>, loss: Option<&Loss>) -> Option<String> {
    let known = scene.known;
    let window = Window::new(&known.terms);
    if let Some(resource) = remote_fence(scene) {
        let primary = scene.primary;
        return Some(format!("the fence of {resource} in {primary} acts on another machine: silence proves nothing"));
    }
    if !known.confirmed {
        return Some(format!("the agent of {} has confirmed no terms", scene.primary));
    }
    if window.any_paused() {
        return Some(format!("the agent of {} has not confirmed the end of a pause", scene.primary));
    }
    let agreed = window.guarded_in_each();
    if let Some(resource) = known.document.guarded().into_iter().find(|resource| !agreed.contains(resource)) {
        return Some(format!("the agent of {} has not confirmed that it guards {resource}", scene.primary));
    }
    let silent = silence(scene);
    let patience = scene.fail_over_after().times(2);
    (loss.is_none() && silent >= patience).then(|| format!("no majority has voted in {silent}"))
}

/// For how long nothing was heard of the primary's agent, as far as this leader can tell.
fn silence(scene: &Scene<'_>) -> Span {
    let heard = scene.evidence.last_two_way(scene.primary).max(scene.evidence.last_beat(scene.primary));
    let since = heard.max(scene.evidence.leading_since);
    since.map_or(Span::ZERO, |since| scene.now.since(since))
}

/// What to propose about the order that stands, or about one that is missing.
pub(super) fn of_order(
    scene: &Scene<'_>,
    assessment: &Assessment,
    run: Option<&Run>,
    view: Viewpoint,
) -> Option<Entry> {
    let application = scene.application.clone();
    let Some(order) = &scene.known.order else { return ask(scene, assessment) };
    if order.is_over(view.wall) {
        return Some(Entry::OrderTimedOut { application, order: order.id });
    }
    match &order.origin {
        Origin::Due { .. } => {
            // Only who has looked may say that it is over.
            let over = assessment.trigger == Trigger::None && scene.not_looked_for().is_none() && order.run.is_none();
            let reason = format!("{} is not known to be lost any more", scene.primary);
            let by = "leader".to_owned();
            over.then_some(Entry::OrderClosed { application, order: order.id, by, reason, by_human: false })
        }
        Origin::Operator(wish) if order.is_given() => carry_out(scene, order, wish, run, view),
        Origin::Operator(_) => None,
    }
}

/// A failover that only a human's yes is missing for.
fn ask(scene: &Scene<'_>, assessment: &Assessment) -> Option<Entry> {
    let only = |rules: &[Rule]| rules.len() == 1 && rules.iter().all(|rule| rule.code == "mode-approve");
    let asks = is_due(assessment) && only(&assessment.held_by) && assessment.target.is_some();
    let to = assessment.target.as_ref().map(|candidate| candidate.cluster.to_string()).unwrap_or_default();
    asks.then(|| Entry::FailoverDue {
        application: scene.application.clone(),
        epoch: scene.known.epoch,
        detail: format!("{}; it would go to {to}", assessment.trigger.sentence(scene)),
    })
}

/// Why a failover starts by itself, and who said yes where the document asks.
pub(super) fn with_answer(scene: &Scene<'_>, reason: String) -> Vec<String> {
    let order = scene.known.order.as_ref().filter(|order| order.wish().is_none());
    let answer = order.and_then(|order| match &order.state {
        OrderState::Given { by: Some(by), reason } => Some(format!("{by} approved it: {reason}")),
        OrderState::Given { by: None, reason } => Some(reason.clone()),
        OrderState::Asked | OrderState::Silent => None,
    });
    std::iter::once(reason).chain(answer).collect()
}

fn carry_out(scene: &Scene<'_>, order: &Order, wish: &Wish, run: Option<&Run>, view: Viewpoint) -> Option<Entry> {
    if scene.known.paused.is_some() || scene.state.paused.is_some() || scene.not_looked_for().is_some() {
        return None;
    }
    let candidate = target::judge_for(scene, &wish.to, wish.allow_data_loss.is_some()).ok()?;
    let reasons = reasons(wish, order);
    let finding = target::finding(scene, &candidate, reasons, view.wall);
    let terms = scene.known.terms.last()?.number;
    let (application, epoch, to) = (scene.application.clone(), scene.known.epoch, wish.to.clone());
    let loss = scene.loss();
    match way(scene, loss.as_ref()) {
        Way::Fence => (order.run.is_none() && run.is_none_or(Run::gives_way)).then(|| Entry::RunStarted {
            application,
            epoch,
            cause: Cause::Forced { by: wish.by.clone(), reason: wish.why().to_owned() },
            to,
            finding,
            plan: None,
        }),
        Way::Lost => {
            let loss = loss?;
            let alive = !scene.signs_of_life().is_empty() && scene.life_counts(&loss);
            let ripe = loss.ripe <= scene.now && !alive && !is_frozen(scene.state);
            let ground = Ground::Lost { votes: loss.votes };
            ripe.then_some(Entry::Decide { application, from: epoch, to, terms, ground, finding })
        }
        Way::Forced(_) => {
            // What still lives contradicts the attestation; and a lease that may run is waited out in any case.
            let alive = scene.signs_of_life();
            let attestation = wish.attestation.clone()?;
            let ground = Ground::Forced {
                operator: wish.by.clone(),
                second: order.second().map(str::to_owned),
                attestation,
                reason: wish.why().to_owned(),
            };
            (alive.is_empty() && silence(scene) >= scene.fail_over_after()).then_some(Entry::Decide {
                application,
                from: epoch,
                to,
                terms,
                ground,
                finding,
            })
        }
    }
}

fn reasons(wish: &Wish, order: &Order) -> Vec<String> {
    let mut reasons = vec![format!("{} ordered it: {}", wish.by, wish.why())];
    if let Some(allowed) = &wish.allow_data_loss {
        reasons.push(format!("data loss beyond maxDataLoss is allowed for this run: {allowed}"));
    }
    if let Some(attested) = &wish.attestation {
        reasons.push(format!("{} attests that the primary is off: {attested}", wish.by));
    }
    if let Some(second) = order.second() {
        reasons.push(format!("{second} confirmed it"));
    }
    reasons
}

/// What an order is waiting for, for humans.
#[must_use]
pub fn awaits(order: &Order, application: &ApplicationId, primary: &ClusterId) -> String {
    let id = order.id;
    let yes = || format!("`regentctl approve {application} --reason WHY`");
    if let (Some(declined), Origin::Due { detail }) = (&order.declined, &order.origin) {
        return format!(
            "a failover is due and {} declined it: {}. It is not asked again while it is due ({detail}). To have it after all: \
             {}, or `regentctl failover {application} --to CLUSTER`",
            declined.by,
            declined.reason,
            yes()
        );
    }
    match (&order.state, &order.origin) {
        (OrderState::Asked, Origin::Due { detail }) => {
            format!("a failover is due: {detail}. Yes: {}; no: `regentctl abort {id} --reason WHY`", yes())
        }
        (OrderState::Silent, Origin::Due { detail }) => format!(
            "a failover is due and nobody has answered in time: {detail}. A late yes still counts: {}; no: `regentctl abort \
             {id} --reason WHY`",
            yes()
        ),
        (OrderState::Asked | OrderState::Silent, Origin::Operator(wish)) => format!(
            "{} wants a failover to {}: {}. Another operator has to confirm it: `regentctl approve {id} --reason WHY`; or \
             take it back: `regentctl abort {id} --reason WHY`",
            wish.by,
            wish.to,
            wish.why()
        ),
        (OrderState::Given { .. }, Origin::Operator(wish)) => format!(
            "the failover to {} that {} ordered starts when {primary} is fenced or known lost, within {ORDER_STANDS}; to \
             take it back: `regentctl abort {id} --reason WHY`",
            wish.to, wish.by
        ),
        (OrderState::Given { .. }, Origin::Due { .. }) => format!(
            "the failover is approved and starts when no other rule holds it: `regentctl why {application}`; to decline it \
             after all: `regentctl abort {id} --reason WHY`"
        ),
    }
}
