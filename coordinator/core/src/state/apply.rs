//! From the log to the state: one arm for each entry, each in the file of its area.

use std::collections::BTreeSet;

use super::{
    Applied, AuditRecord, REQUEST_LIMIT, State, change, drill, hold, members, order, recovery, register, rejoin, rogue,
    votes, window,
};
use crate::effect::Effect;
use crate::entry::{Entry, FORMAT, OLDEST_ENTRY, Record};
use crate::id::{ApplicationId, CoordinatorId, LogIndex, RunId, Token};
use crate::run;
use crate::time::Timestamp;

/// One entry being applied.
pub(crate) struct Applying<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) index: LogIndex,
    pub(crate) at: Timestamp,
    pub(crate) effects: Vec<Effect>,
}

impl Applying<'_> {
    /// The token that this entry gives out.
    pub(crate) fn token(&self) -> Token {
        self.state.token(self.index)
    }

    /// Writes a line of the audit.
    pub(crate) fn audit(
        &mut self,
        event: &str,
        application: Option<&ApplicationId>,
        run: Option<RunId>,
        actor: &str,
        detail: impl Into<String>,
    ) {
        self.state.audit.push_back(AuditRecord {
            index: self.index,
            at: self.at,
            event: event.to_owned(),
            application: application.cloned(),
            run,
            actor: actor.to_owned(),
            detail: detail.into(),
        });
        while self.state.audit.len() > super::AUDIT_LIMIT {
            self.state.audit.pop_front();
        }
        self.effects.push(Effect::Audited);
    }

    /// The entry took effect.
    pub(crate) const fn done(&self) -> Applied {
        Applied::Done(self.index)
    }
}

/// The entry came late, twice or was overtaken.
pub(crate) fn ignored(why: &str) -> Applied {
    Applied::Ignored(why.to_owned())
}

/// A rule forbids the entry.
pub(crate) fn refused(rule: &str, detail: impl Into<String>) -> Applied {
    Applied::Refused { rule: rule.to_owned(), detail: detail.into() }
}

pub(super) fn apply(state: &mut State, index: LogIndex, record: &Record) -> (Applied, Vec<Effect>) {
    state.applied = index;
    // A coordinator stops before it comes to this: those that know the format would apply the entry.
    if !(OLDEST_ENTRY..=FORMAT).contains(&record.format) {
        let found = record.format;
        let detail = format!("entry {index} has format {found}, this release knows {OLDEST_ENTRY} to {FORMAT}");
        return (refused("format", detail), vec![]);
    }
    if let Some(earlier) = record.request.as_ref().and_then(|id| state.requests.iter().find(|(known, _)| known == id)) {
        let repeated = match &earlier.1 {
            Applied::Done(index) | Applied::Repeated(index) => Applied::Repeated(*index),
            Applied::Ignored(why) => Applied::Ignored(why.clone()),
            Applied::Refused { rule, detail } => refused(rule, detail.clone()),
        };
        return (repeated, vec![]);
    }
    let mut applying = Applying { state, index, at: record.at, effects: Vec::new() };
    let applied = dispatch(&mut applying, &record.entry);
    let effects = applying.effects;
    if let Some(request) = &record.request {
        state.requests.push_back((request.clone(), applied.clone()));
        while state.requests.len() > REQUEST_LIMIT {
            state.requests.pop_front();
        }
    }
    (applied, effects)
}

fn dispatch(applying: &mut Applying<'_>, entry: &Entry) -> Applied {
    match entry {
        Entry::GroupCreated { group } => register::group_created(applying, group),
        Entry::CoordinatorJoined(coordinator) => register::coordinator_joined(applying, coordinator),
        Entry::ObserverStarted { observer, incarnation } => votes::observer_started(applying, *observer, *incarnation),
        Entry::AgentRegistered(agent) => register::agent_registered(applying, agent),
        Entry::InstallationReplaced { cluster, installation, by } => {
            register::installation_replaced(applying, cluster, installation, by)
        }
        Entry::Applied { application, by } => register::document(applying, application, by),
        Entry::Adopt { application, primary, databases } => register::adopt(applying, application, primary, databases),
        Entry::TermsConfirmed { application, terms, cluster, installation, databases } => {
            register::terms_confirmed(applying, application, *terms, cluster, installation, databases)
        }
        Entry::Vote { observer, incarnation, cluster, number, silence } => {
            let word = votes::Word { observer: *observer, incarnation: *incarnation, cluster, number: *number };
            votes::vote(applying, &word, *silence)
        }
        Entry::Withdraw { observer, incarnation, cluster, number } => {
            let word = votes::Word { observer: *observer, incarnation: *incarnation, cluster, number: *number };
            votes::withdraw(applying, &word)
        }
        Entry::RunStarted { application, epoch, cause, to, finding, plan } => {
            let start = change::Start { application, epoch: *epoch, cause, to, finding, seen: plan.as_ref() };
            change::run_started(applying, &start)
        }
        Entry::RejoinStarted { application, cluster, reclone, by } => {
            rejoin::started(applying, application, cluster, *reclone, by)
        }
        Entry::DrillStarted { application, cluster, by, finding } => {
            drill::started(applying, application, cluster, by, finding)
        }
        Entry::Decide { application, from, to, terms, ground, finding } => {
            let decide = change::Decide { application, from: *from, to, terms: *terms, ground, finding };
            change::decide(applying, &decide)
        }
        Entry::StepIntent { run, step, attempt } => run::apply::intent(applying, *run, *step, *attempt),
        Entry::StepOutcome { run, step, attempt, outcome } => {
            run::apply::outcome(applying, *run, *step, *attempt, outcome)
        }
        Entry::UndoBegun { run, reason } => run::undo::undo_begun(applying, *run, reason),
        Entry::FailoverOrdered { application, epoch, wish } => order::ordered(applying, application, *epoch, wish),
        Entry::FailoverDue { application, epoch, detail } => order::due(applying, application, *epoch, detail),
        Entry::OrderApproved { application, order, by, reason } => {
            order::approved(applying, application, *order, by, reason)
        }
        Entry::OrderTimedOut { application, order } => order::timed_out(applying, application, *order),
        Entry::OrderClosed { application, order, by, reason, by_human } => {
            order::closed(applying, application, *order, by, reason, *by_human)
        }
        Entry::Held { application, by, reason } => hold::held(applying, application, by, reason),
        Entry::Unheld { application, by } => hold::unheld(applying, application, by),
        Entry::Committed { application, run, by } => window::committed(applying, application, *run, by.as_deref()),
        Entry::Aborted { run, by, reason } => run::abort::aborted(applying, *run, by, reason),
        Entry::CauseGone { run, reason } => run::undo::cause_gone(applying, *run, reason),
        Entry::Approved { run, step, by, reason } => run::approve::approved(applying, *run, *step, by, reason),
        Entry::Cleared { run, step, how, by, reason } => run::apply::cleared(applying, *run, *step, *how, by, reason),
        Entry::Paused { application, by, reason } => register::paused(applying, application.as_ref(), by, reason),
        Entry::Resumed { application, by } => register::resumed(applying, application.as_ref(), by),
        Entry::Acknowledged { application, by } => register::acknowledged(applying, application.as_ref(), by),
        Entry::Refused { application, rule, detail } => register::refusal(applying, application, rule, detail),
        Entry::Frozen { clusters } => register::frozen(applying, clusters),
        Entry::Thawed => register::thawed(applying),
        Entry::RogueWriters { application, cluster, resources } => {
            rogue::rogue_writers(applying, application, cluster, resources)
        }
        Entry::LimitSet { limit, by } => register::limit_set(applying, *limit, by),
        Entry::Recovered { application, reports } => recovery::recovered(applying, application, reports),
        Entry::AttestedOff { application, cluster, by, reason } => {
            recovery::attested(applying, application, cluster, by, reason)
        }
        Entry::PrimaryChosen { application, cluster, by, reason } => {
            recovery::chosen(applying, application, cluster, by, reason)
        }
        Entry::MemberChange { change, by, overridden } => members::change(applying, change, by, overridden.as_deref()),
        Entry::MemberChangeEnded { id } => members::ended(applying, *id),
    }
}

pub(super) fn membership(state: &mut State, index: LogIndex, voters: Vec<BTreeSet<CoordinatorId>>) -> Vec<Effect> {
    state.applied = index;
    if state.voters == voters {
        return vec![];
    }
    state.voters = voters;
    let mut applying = Applying { state, index, at: Timestamp::default(), effects: Vec::new() };
    register::renew_all_terms(&mut applying);
    applying.effects
}
