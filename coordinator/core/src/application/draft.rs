//! The received form of a document: what could be read of it, each value with its place. Nothing here is checked
//! against anything else; a part that could not be read is absent and its mistake is reported.

use super::decode::{self, Field, Fields, NAME, Value};
use super::mistake::{Mistakes, Place, Placed, list, quote};
use super::words::{BEYOND, Word};
use super::{Action, Beyond, DnsProvider, Manner, Mode, OnCoordinatorLoss, OnFailure, OnSilence, ResourceKind};
use crate::time::Span;

/// The only `apiVersion`.
pub(super) const API_VERSION: &str = "regent/v1";
/// The only `kind`.
pub(super) const KIND: &str = "Application";

/// Known keys, by mapping. The schema is tested against these.
pub(super) const DOCUMENT_KEYS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
pub(super) const METADATA_KEYS: &[&str] = &["name"];
pub(super) const SPEC_KEYS: &[&str] = &["objectives", "clusters", "resources", "automation", "runbooks", "drills"];
pub(super) const OBJECTIVES_KEYS: &[&str] = &["rto", "rpo"];
pub(super) const RESOURCE_KEYS: &[&str] = &["kind", "after", "name", "ttl", "provider"];
pub(super) const AUTOMATION_KEYS: &[&str] = &[
    "mode",
    "failoverAfter",
    "cooldown",
    "maxDataLoss",
    "beyondMaxDataLoss",
    "maxWriteOutage",
    "commitWithin",
    "twoPerson",
    "approveWithin",
    "onSilence",
    "onCoordinatorLoss",
    "probeFailures",
];
pub(super) const DRILLS_KEYS: &[&str] = &["every", "in"];
pub(super) const RUNBOOK_KEYS: &[&str] = &["failover", "switchover", "drill"];
pub(super) const OPTION_KEYS: &[&str] = &["timeout", "retries", "onFailure", "when", "always"];
pub(super) const RUN_KEYS: &[&str] = &["resource", "command"];

/// Most failed probes that can be asked for.
pub(super) const MOST_PROBE_FAILURES: u32 = 100;
/// Most retries that can be asked for.
pub(super) const MOST_RETRIES: u32 = 1000;

/// A document as it was received.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: Option<Placed<String>>,
    pub(super) objectives: Option<ObjectivesDraft>,
    pub(super) clusters: Option<Placed<Vec<Placed<String>>>>,
    pub(super) resources: Option<Placed<Vec<ResourceDraft>>>,
    pub(super) automation: Option<AutomationDraft>,
    pub(super) runbooks: Option<Vec<RunbookDraft>>,
    pub(super) drills: Field<DrillsDraft>,
}

#[derive(Debug)]
pub(super) struct ObjectivesDraft {
    pub(super) rto: Option<Placed<Span>>,
    pub(super) rpo: Option<Placed<Span>>,
}

#[derive(Debug)]
pub(super) struct ResourceDraft {
    pub(super) name: Placed<String>,
    pub(super) kind: Option<ResourceKind>,
    pub(super) after: Vec<Placed<String>>,
    pub(super) dns: DnsDraft,
}

#[derive(Debug)]
pub(super) struct DnsDraft {
    pub(super) name: Field<String>,
    pub(super) ttl: Field<Span>,
    pub(super) provider: Field<DnsProvider>,
    /// Places of those of these keys that are there.
    pub(super) present: Vec<(&'static str, Place)>,
}

#[derive(Debug)]
pub(super) struct AutomationDraft {
    pub(super) mode: Field<Mode>,
    pub(super) failover_after: Field<Span>,
    pub(super) cooldown: Field<Span>,
    pub(super) max_data_loss: Field<Span>,
    pub(super) beyond_max_data_loss: Field<Beyond>,
    pub(super) max_write_outage: Field<Span>,
    pub(super) commit_within: Field<Span>,
    pub(super) two_person: Field<bool>,
    pub(super) approve_within: Field<Span>,
    pub(super) on_silence: Field<OnSilence>,
    pub(super) on_coordinator_loss: Field<OnCoordinatorLoss>,
    pub(super) probe_failures: Field<u32>,
}

#[derive(Debug)]
pub(super) struct DrillsDraft {
    pub(super) every: Field<Span>,
    pub(super) cluster: Field<String>,
}

#[derive(Debug)]
pub(super) struct RunbookDraft {
    pub(super) name: &'static str,
    pub(super) at: Place,
    pub(super) lines: Option<Vec<LineDraft>>,
}

#[derive(Debug)]
pub(super) struct LineDraft {
    pub(super) step: Option<StepDraft>,
    pub(super) timeout: Field<Span>,
    pub(super) retries: Field<u32>,
    pub(super) on_failure: Field<OnFailure>,
    pub(super) when: Field<Manner>,
    pub(super) always: Field<bool>,
}

#[derive(Debug)]
pub(super) struct StepDraft {
    pub(super) action: Action,
    /// Of the value of the step's key.
    pub(super) at: Place,
    pub(super) operand: Operand,
}

#[derive(Debug)]
pub(super) enum Operand {
    /// Names of resources, and whether all of them could be read.
    Resources(Vec<Placed<String>>, bool),
    /// `run`.
    Command { resource: Option<Placed<String>>, command: Option<Placed<String>> },
    /// `wait`.
    Duration(Span),
    /// `approve`.
    Question(Placed<String>),
}

impl Draft {
    /// Reads what can be read.
    pub(super) fn read(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<Self> {
        let document = Fields::open(value, DOCUMENT_KEYS, mistakes)?;
        fixed(&document, "apiVersion", API_VERSION, mistakes);
        fixed(&document, "kind", KIND, mistakes);
        let metadata = document.required("metadata", mistakes);
        let metadata = metadata.and_then(|value| Fields::open(&value, METADATA_KEYS, mistakes));
        let name = metadata.and_then(|fields| named(&fields, "name", mistakes).required("name", &fields.at, mistakes));
        let spec = document.required("spec", mistakes);
        let Some(spec) = spec.and_then(|value| Fields::open(&value, SPEC_KEYS, mistakes)) else {
            return Some(Self {
                name,
                objectives: None,
                clusters: None,
                resources: None,
                automation: None,
                runbooks: None,
                drills: Field::Bad,
            });
        };
        Some(Self {
            name,
            objectives: spec.required("objectives", mistakes).and_then(|value| objectives(&value, mistakes)),
            clusters: spec.required("clusters", mistakes).and_then(|value| {
                let names = decode::names(&value, mistakes)?;
                Some(Placed { value: names, at: value.at })
            }),
            resources: spec.required("resources", mistakes).and_then(|value| resources(&value, mistakes)),
            automation: automation(spec.value("automation").as_ref(), mistakes),
            runbooks: spec.required("runbooks", mistakes).and_then(|value| runbooks(&value, mistakes)),
            drills: spec.value("drills").map_or(Field::Absent, |value| drills(&value, mistakes)),
        })
    }
}

/// A key with only one right value.
fn fixed(fields: &Fields<'_>, key: &str, right: &str, mistakes: &mut Mistakes) {
    let Some(given) = fields.text(key, mistakes).required(key, &fields.at, mistakes) else { return };
    if given.value != right {
        mistakes.add(&given.at, format_args!("expected {right}, found the text {}", quote(&given.value)));
    }
}

fn named(fields: &Fields<'_>, key: &str, mistakes: &mut Mistakes) -> Field<String> {
    fields.value(key).map_or(Field::Absent, |value| decode::text(&value, NAME, mistakes))
}

fn objectives(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<ObjectivesDraft> {
    let fields = Fields::open(value, OBJECTIVES_KEYS, mistakes)?;
    let mut read = |key| fields.span(key, mistakes).required(key, &fields.at, mistakes);
    Some(ObjectivesDraft { rto: read("rto"), rpo: read("rpo") })
}

fn resources(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<Placed<Vec<ResourceDraft>>> {
    let at = value.at.clone();
    let entries = decode::entries(value, mistakes)?;
    let value = entries.into_iter().map(|(name, at, value)| resource(name, at, &value, mistakes)).collect();
    Some(Placed { value, at })
}

fn resource(name: &str, at: Place, value: &Value<'_>, mistakes: &mut Mistakes) -> ResourceDraft {
    let name = Placed { value: name.to_owned(), at };
    let Some(fields) = Fields::open(value, RESOURCE_KEYS, mistakes) else {
        // Its name is known nevertheless: what refers to it is no mistake.
        let dns = DnsDraft { name: Field::Bad, ttl: Field::Bad, provider: Field::Bad, present: Vec::new() };
        return ResourceDraft { name, kind: None, after: Vec::new(), dns };
    };
    let kind = fields.word("kind", mistakes).required("kind", &fields.at, mistakes);
    let after = fields.value("after").and_then(|value| decode::names(&value, mistakes)).unwrap_or_default();
    let place = |key| fields.value(key).map(|value| (key, value.at));
    let dns = DnsDraft {
        name: fields.text("name", mistakes),
        ttl: fields.span("ttl", mistakes),
        provider: fields.word("provider", mistakes),
        present: ["name", "ttl", "provider"].into_iter().filter_map(place).collect(),
    };
    ResourceDraft { name, kind: kind.map(|kind| kind.value), after, dns }
}

/// A document without the section takes all its defaults.
fn automation(value: Option<&Value<'_>>, mistakes: &mut Mistakes) -> Option<AutomationDraft> {
    let Some(value) = value else {
        return Some(AutomationDraft {
            mode: Field::Absent,
            failover_after: Field::Absent,
            cooldown: Field::Absent,
            max_data_loss: Field::Absent,
            beyond_max_data_loss: Field::Absent,
            max_write_outage: Field::Absent,
            commit_within: Field::Absent,
            two_person: Field::Absent,
            approve_within: Field::Absent,
            on_silence: Field::Absent,
            on_coordinator_loss: Field::Absent,
            probe_failures: Field::Absent,
        });
    };
    let fields = Fields::open(value, AUTOMATION_KEYS, mistakes)?;
    let beyond = fields.text("beyondMaxDataLoss", mistakes);
    Some(AutomationDraft {
        mode: fields.word("mode", mistakes),
        failover_after: fields.span("failoverAfter", mistakes),
        cooldown: fields.span("cooldown", mistakes),
        max_data_loss: fields.span("maxDataLoss", mistakes),
        beyond_max_data_loss: beyond.then(mistakes, |text| {
            let words = list(BEYOND.iter().copied());
            Beyond::read(&text).ok_or_else(|| format!("{} is not one of {words}", quote(&text)))
        }),
        max_write_outage: fields.span("maxWriteOutage", mistakes),
        commit_within: fields.span("commitWithin", mistakes),
        two_person: fields.truth("twoPerson", mistakes),
        approve_within: fields.span("approveWithin", mistakes),
        on_silence: fields.word("onSilence", mistakes),
        on_coordinator_loss: fields.word("onCoordinatorLoss", mistakes),
        probe_failures: fields.number("probeFailures", 1, MOST_PROBE_FAILURES, mistakes),
    })
}

fn drills(value: &Value<'_>, mistakes: &mut Mistakes) -> Field<DrillsDraft> {
    let at = value.at.clone();
    let Some(fields) = Fields::open(value, DRILLS_KEYS, mistakes) else { return Field::Bad };
    if fields.required("every", mistakes).is_none() {
        return Field::Bad;
    }
    let draft = DrillsDraft { every: fields.span("every", mistakes), cluster: named(&fields, "in", mistakes) };
    Field::Given(Placed { value: draft, at })
}

fn runbooks(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<Vec<RunbookDraft>> {
    let fields = Fields::open(value, RUNBOOK_KEYS, mistakes)?;
    // Every application can lose its primary.
    let _ = fields.required("failover", mistakes);
    let mut runbooks = Vec::new();
    for name in RUNBOOK_KEYS {
        let Some(value) = fields.value(name) else { continue };
        let at = value.at.clone();
        let lines = decode::items(&value, "a list of steps, e.g. - promote: [orders-db]", mistakes);
        let lines = lines.map(|lines| lines.into_iter().filter_map(|value| line(&value, mistakes)).collect());
        runbooks.push(RunbookDraft { name, at, lines });
    }
    Some(runbooks)
}

fn line(value: &Value<'_>, mistakes: &mut Mistakes) -> Option<LineDraft> {
    let actions = || Action::ALL.iter().map(|action| action.word());
    let known: Vec<&str> = actions().chain(OPTION_KEYS.iter().copied()).collect();
    let Some(fields) = Fields::open(value, &known, mistakes) else {
        let (timeout, retries, on_failure, when) = (Field::Bad, Field::Bad, Field::Bad, Field::Bad);
        return Some(LineDraft { step: None, timeout, retries, on_failure, when, always: Field::Bad });
    };
    let steps: Vec<(Action, Value<'_>)> =
        Action::ALL.iter().filter_map(|action| Some((*action, fields.value(action.as_str())?))).collect();
    let step = match steps.as_slice() {
        [(action, value)] => step(*action, value, mistakes),
        // A key that is not known was most likely meant as the step, and is reported already.
        [] if fields.strange => None,
        [] => {
            mistakes.add(&fields.at, format_args!("this line does nothing; give it one of {}", list(actions())));
            None
        }
        several => {
            let found = list(several.iter().map(|(action, _)| action.as_str()));
            mistakes.add(&fields.at, format_args!("a line does one thing; give each of {found} a line of its own"));
            None
        }
    };
    Some(LineDraft {
        step,
        timeout: fields.span("timeout", mistakes),
        retries: fields.number("retries", 0, MOST_RETRIES, mistakes),
        on_failure: fields.word("onFailure", mistakes),
        when: fields.word("when", mistakes),
        always: fields.truth("always", mistakes),
    })
}

fn step(action: Action, value: &Value<'_>, mistakes: &mut Mistakes) -> Option<StepDraft> {
    let operand = match action {
        Action::Wait => Operand::Duration(decode::span(value, mistakes).or(Span::ZERO)?),
        Action::Approve => {
            let question = decode::text(value, "the question to the human as text", mistakes);
            Operand::Question(question.given().cloned()?)
        }
        Action::Run => {
            let fields = Fields::open(value, RUN_KEYS, mistakes)?;
            let mut read = |key| named(&fields, key, mistakes).required(key, &fields.at, mistakes);
            Operand::Command { resource: read("resource"), command: read("command") }
        }
        Action::Fence
        | Action::Quiesce
        | Action::CatchUp
        | Action::Promote
        | Action::Activate
        | Action::Deactivate
        | Action::Redirect
        | Action::Verify
        | Action::Rejoin
        | Action::Restore => {
            let names = decode::names(value, mistakes)?;
            let whole = matches!(&value.node.kind, super::node::Kind::Sequence(all) if all.len() == names.len());
            Operand::Resources(names, whole)
        }
    };
    Some(StepDraft { action, at: value.at.clone(), operand })
}
