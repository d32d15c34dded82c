//! The rules that hold a failover whatever the evidence says.

use super::{Trigger, Viewpoint};
use crate::application::Mode;
use crate::blast;
use crate::breaker::{is_frozen, lost_clusters};
use crate::id::{ClusterId, ResourceId};
use crate::planted::{self, Mistake};
use crate::run::Run;
use crate::state::{Order, OrderState};
use crate::terms::Window;
use crate::time::{Span, Timestamp};
use crate::verdict::{Scene, rule};
use crate::why::Rule;

/// All that hold it now, most important first.
pub(super) fn gates(scene: &Scene<'_>, view: Viewpoint, trigger: &Trigger) -> Vec<Rule> {
    let known = scene.known;
    let mut rules = Vec::new();
    if let Some(missing) = scene.not_looked_for() {
        rules.push(missing);
    }
    if let Some(run) = in_the_way(scene, trigger) {
        rules.push(rule("run-under-way", format!("run {} has not ended; see `regentctl runs {}`", run.id, run.id)));
    }
    if !known.confirmed {
        rules.push(rule("nothing-confirmed", "the primary's agent has confirmed no terms yet"));
    }
    let agreed = Window::new(&known.terms).guarded_in_each();
    if let Some(resource) = known.document.guarded().into_iter().find(|resource| !agreed.contains(resource)) {
        let detail = format!("{resource} was added and the primary's agent has not confirmed that it guards it");
        rules.push(rule("unconfirmed-database", detail));
    }
    rules.extend(in_a_pause(scene).filter(|_| !planted::makes(Mistake::PauseIgnored)));
    if is_frozen(scene.state) {
        let clusters = scene.state.frozen.clone().unwrap_or_else(|| lost_clusters(scene.state));
        let names: Vec<&str> = clusters.iter().map(ClusterId::as_str).collect();
        rules.push(rule("frozen", format!("lost at once: {}; it is probably us", names.join(", "))));
    }
    match known.document.automation.mode {
        Mode::Automatic => {}
        Mode::Approve => rules.extend(unanswered(scene, view)),
        Mode::Manual => rules.push(rule("mode-manual", "the document leaves failover to humans")),
    }
    let left = known.cooling_since.and_then(|since| cooling_left(view.wall, since, known.document.automation.cooldown));
    if let Some(left) = left {
        let passed = known.document.automation.cooldown.minus(left);
        rules.push(rule(
            "cool-down",
            format!("the last automatic failover was {passed} ago; {left} left, or `regentctl ack`"),
        ));
    }
    let lost = match trigger {
        Trigger::None | Trigger::Lost(_) => Some(scene.primary),
        Trigger::Failed(_) | Trigger::SelfFenced(_) | Trigger::Unreachable(_) => None,
    };
    rules.extend(blast::exceeded(scene.state, scene.application, lost, view.wall));
    // Said before it is needed, too: whoever looks at a healthy application learns what a lost region would need.
    if let (Trigger::Lost(_) | Trigger::None, Some(resource)) = (trigger, remote_fence(scene)) {
        rules.push(rule(
            "remote-fence",
            format!(
                "the fence of {resource} in {} acts on another machine: silence proves nothing, so only a confirmed fence, or \
                 a failover forced by an operator who attests that it is off, moves the application",
                scene.primary
            ),
        ));
    }
    rules
}

/// What is left of a cool-down that another coordinator's clock may have stamped. One that ran ahead stretches it to twice
/// its length at most: a stamp that lies further ahead than that was a wrong time, and holds nothing.
fn cooling_left(wall: Timestamp, since: Timestamp, cooldown: Span) -> Option<Span> {
    let ahead = since.since(wall);
    let left = cooldown.plus(ahead).minus(wall.since(since));
    (ahead <= cooldown && left > Span::ZERO).then_some(left)
}

/// With `mode: approve` a human's yes is missing, unless it has been said for this epoch.
fn unanswered(scene: &Scene<'_>, view: Viewpoint) -> Option<Rule> {
    let order = scene.known.order.as_ref().filter(|order| order.wish().is_none());
    let detail = match order {
        Some(order) if order.is_given() => return None,
        Some(order) if order.state == OrderState::Asked => {
            let left = order.left(view.wall);
            format!(
                "a human is asked; {left} left: `regentctl approve {} --reason WHY`; no: `regentctl abort {} --reason WHY`",
                scene.application, order.id
            )
        }
        Some(Order { declined: Some(declined), .. }) => format!(
            "{} declined it: {}; to have it after all: `regentctl approve {} --reason WHY`",
            declined.by, declined.reason, scene.application
        ),
        Some(_) => format!("nobody has answered; a late yes counts: `regentctl approve {}`", scene.application),
        None => "the document asks for a human's approval".to_owned(),
    };
    Some(rule("mode-approve", detail))
}

/// A run that holds up what would fence first: only a decision on ground `Lost` goes before it.
fn in_the_way<'a>(scene: &Scene<'a>, trigger: &Trigger) -> Option<&'a Run> {
    let run = scene.known.run.and_then(|id| scene.state.runs.get(&id))?;
    match trigger {
        Trigger::None | Trigger::Lost(_) => None,
        Trigger::Failed(_) | Trigger::SelfFenced(_) | Trigger::Unreachable(_) => {
            (!run.yields_to_failover()).then_some(run)
        }
    }
}

pub(super) fn remote_fence<'a>(scene: &Scene<'a>) -> Option<&'a ResourceId> {
    let endpoints = scene.state.agents.get(scene.primary)?.endpoints.get(scene.application)?;
    endpoints.iter().find(|(_, endpoint)| endpoint.remote_fence).map(|(resource, _)| resource)
}

/// A pause holds until its end is confirmed by the primary's agent, too.
fn in_a_pause(scene: &Scene<'_>) -> Option<Rule> {
    if let Some(pause) = scene.known.paused.as_ref().or(scene.state.paused.as_ref()) {
        return Some(rule("paused", format!("by {}: {}", pause.by, pause.reason)));
    }
    let paused = Window::new(&scene.known.terms).any_paused();
    paused.then(|| rule("paused", "the end of a pause is not confirmed by the primary's agent"))
}
