//! The JSON schema of the document. Editors complete, explain and check by it, so each description stands on its own;
//! what a schema cannot say (names that must exist, cycles, promotions left out) the parser says.

use serde_json::{Map, Value, json};

use super::draft::{API_VERSION, KIND, MOST_PROBE_FAILURES, MOST_RETRIES};
use super::runbook::{QUESTION_LIMIT, suited};
use super::words::Word;
use super::{
    Action, DnsProvider, Manner, Mode, OnCoordinatorLoss, OnFailure, OnSilence, ResourceKind, default, drill, resource,
};
use crate::id::NAME_LIMIT;
use crate::lease::{DEFAULT_FAIL_OVER_AFTER, SMALLEST_FAIL_OVER_AFTER};
use crate::switchover::WRITE_OUTAGES;

/// The JSON schema of the document.
#[must_use]
pub fn json_schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": KIND,
        "description": "What is protected, in which order, and how careful. Where each resource lives and with which credential is said by the agents' files, never here.",
        "type": "object",
        "additionalProperties": false,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": { "const": API_VERSION, "description": "Version of this format." },
            "kind": { "const": KIND, "description": "What the document is." },
            "metadata": {
                "type": "object",
                "description": "What identifies the application.",
                "additionalProperties": false,
                "required": ["name"],
                "properties": { "name": described(name(), "Name of the application, unique in the group.") },
            },
            "spec": spec(),
        },
        "$defs": { "name": name_rule(), "span": span_rule(), "names": names_rule() },
    })
}

fn spec() -> Value {
    json!({
        "type": "object",
        "description": "What the application is.",
        "additionalProperties": false,
        "required": ["objectives", "clusters", "resources", "runbooks"],
        "properties": {
            "objectives": {
                "type": "object",
                "description": "What the application promises its users; reports compare each run with it.",
                "additionalProperties": false,
                "required": ["rto", "rpo"],
                "properties": {
                    "rto": described(span(), "Recovery time objective: acceptable time without service."),
                    "rpo": described(span(), "Recovery point objective: acceptable time of lost writes."),
                },
            },
            "clusters": {
                "type": "array",
                "description": "The clusters that can serve, in order of preference. Each has an agent of this name.",
                "items": name(),
                "minItems": 2,
                "uniqueItems": true,
            },
            "resources": {
                "type": "object",
                "description": "What there is, by name. Runbooks refer to these names, and each cluster's agent says where its own is.",
                "propertyNames": name(),
                "minProperties": 1,
                "additionalProperties": resource(),
            },
            "automation": automation(),
            "drills": {
                "type": "object",
                "description": "Drills that begin by themselves, while nothing else is under way. Default: only by hand.",
                "additionalProperties": false,
                "required": ["every"],
                "properties": {
                    "every": described(span(), &format!("From the beginning of one to that of the next, at least {}. One that could not begin when it was due begins later, once.", drill::SHORTEST)),
                    "in": described(name(), "In which cluster. Default: the first fit standby in order of preference."),
                },
            },
            "runbooks": {
                "type": "object",
                "description": "The documented orders.",
                "additionalProperties": false,
                "required": ["failover"],
                "properties": {
                    "failover": runbook("When the primary is lost. Every database must be promoted by exactly one line; the old side is fenced before."),
                    "switchover": runbook("When both sides answer: quiesce, catchUp, then promote. Every database must catch up and be promoted by exactly one line."),
                    "drill": runbook("A rehearsal in isolation, in a standby's cluster: promote works with a copy of the standby, restore with the newest backup in a place of its own, verify looks at these; run, wait and approve as always. What was copied is taken away at the end, whatever came before; run lines with always are done there, too."),
                },
            },
        },
    })
}

fn resource() -> Value {
    let (least, most) = resource::TTL_BOUNDS;
    let of_dns = json!({ "properties": { "kind": { "const": ResourceKind::Dns } } });
    json!({
        "type": "object",
        "description": "Something that an agent's driver can act on.",
        "additionalProperties": false,
        "required": ["kind"],
        "properties": {
            "kind": explained(ResourceKind::WORDS, "Which driver acts on it.", |kind| match kind {
                ResourceKind::Postgres => "PostgreSQL with streaming replication; fenced and promoted.",
                ResourceKind::Redis => "Redis with replication; fenced and promoted.",
                ResourceKind::Command => "Commands that the agent's file lists.",
                ResourceKind::Kubernetes => "Workloads of a Kubernetes cluster; started and stopped.",
                ResourceKind::Dns => "A DNS name that follows the primary.",
                ResourceKind::Http => "An HTTP check.",
            }),
            "after": described(names(), "Resources that are done first when both stand in one step; what is stopped goes the other way. Default: none."),
            "name": {
                "type": "string",
                "description": "dns only, and required there: the absolute name of the host, in lower case. The final dot is added if it is left out.",
                "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.?$",
                "maxLength": 254,
            },
            "ttl": described(span(), &format!("dns only: time to live of the answer, in whole seconds from {least} to {most}. A switchover that redirects the name waits for so long before it keeps writes out; with the provider rfc2136 the primary's agent shortens it at the server first. Default: {}.", default::TTL))
                .with("default", json!(default::TTL)),
            "provider": explained(DnsProvider::WORDS, "dns only: who answers for the name.", |provider| match provider {
                DnsProvider::Embedded => "The coordinators' own servers: the answer changes with the decision.",
                DnsProvider::Rfc2136 => "A server that the agent updates by RFC 2136 with TSIG.",
            })
            .with("default", json!(default::PROVIDER)),
        },
        "if": of_dns,
        "then": { "required": ["name"] },
        "else": { "properties": { "name": false, "ttl": false, "provider": false } },
    })
}

fn automation() -> Value {
    json!({
        "type": "object",
        "description": "How careful Regent is with this application. Default: every setting's default.",
        "additionalProperties": false,
        "properties": {
            "mode": explained(Mode::WORDS, "Who starts a failover.", |mode| match mode {
                Mode::Automatic => "Regent, when a majority of coordinators agrees.",
                Mode::Approve => "Regent proposes, a human approves.",
                Mode::Manual => "Humans only.",
            })
            .with("default", json!(default::MODE)),
            "failoverAfter": described(span(), &format!("The one knob: from the last contact with the primary's agent to the earliest promotion. Leases, the time for fencing and the margin for clocks follow from it. At least {SMALLEST_FAIL_OVER_AFTER}. Default: {DEFAULT_FAIL_OVER_AFTER}."))
                .with("default", json!(DEFAULT_FAIL_OVER_AFTER)),
            "cooldown": described(span(), &format!("After an automatic failover the next one waits so long, or for an acknowledgement. Default: {}.", default::COOLDOWN))
                .with("default", json!(default::COOLDOWN)),
            "maxDataLoss": described(span(), "A candidate further behind than this is not promoted without more ado. Default: objectives.rpo."),
            "beyondMaxDataLoss": {
                "type": "string",
                "description": format!("What happens when every candidate is further behind than maxDataLoss. refuse: no failover. wait 2m: wait so long for a candidate within it, then as ask. ask: hold until a human has decided. accept: go on and report the loss. Default: {}.", default::BEYOND),
                "pattern": "^(refuse|ask|accept|wait +([0-9]+(ms|s|m|h|d))+)$",
                "examples": super::words::BEYOND,
                "default": default::BEYOND.to_string(),
            },
            "maxWriteOutage": described(span(), &format!("A switchover that is not decided so long after writes were first kept out is undone, and the old primary serves again. From {} to {}. Default: {}.", WRITE_OUTAGES.start(), WRITE_OUTAGES.end(), default::MAX_WRITE_OUTAGE))
                .with("default", json!(default::MAX_WRITE_OUTAGE)),
            "commitWithin": described(span(), "So long after a switchover it can be rolled back (regentctl rollback), until it is committed: by regentctl commit, by the next move, or when the time has passed. Default: there is no such window."),
            "twoPerson": {
                "type": "boolean",
                "description": "What an operator allows or attests beyond the rules (regentctl failover --allow-data-loss, --attest-primary-off) counts only when another operator has confirmed it. Whoever takes this out of the document still needs that, until somebody else has applied it without, too. Default: false.",
                "default": false,
            },
            "approveWithin": described(span(), &format!("mode: approve: so long a failover that is due waits for an answer. Default: {}.", default::APPROVE_WITHIN))
                .with("default", json!(default::APPROVE_WITHIN)),
            "onSilence": explained(OnSilence::WORDS, "mode: approve: what happens if nobody answers in that time.", |silence| match silence {
                OnSilence::Refuse => "The failover does not start; a late yes still counts.",
                OnSilence::Proceed => "It starts.",
            })
            .with("default", json!(default::ON_SILENCE)),
            "onCoordinatorLoss": explained(OnCoordinatorLoss::WORDS, "What a primary does that no majority of coordinators reaches.", |loss| match loss {
                OnCoordinatorLoss::Failsafe => "Go on while the agents of all other clusters promise not to promote.",
                OnCoordinatorLoss::Fence => "Refuse writes when the lease lapses.",
            })
            .with("default", json!(default::ON_COORDINATOR_LOSS)),
            "probeFailures": {
                "type": "integer",
                "description": format!("Failed probes in a row that make a resource suspect. Default: {}.", default::PROBE_FAILURES),
                "minimum": 1,
                "maximum": MOST_PROBE_FAILURES,
                "default": default::PROBE_FAILURES,
            },
        },
    })
}

fn runbook(description: &str) -> Value {
    json!({
        "type": "array",
        "description": format!("{description} Lines go one after the other; what stands in one line goes side by side."),
        "minItems": 1,
        "items": line(),
    })
}

fn line() -> Value {
    let mut properties = Map::new();
    for action in Action::ALL {
        properties.insert(action.to_string(), step(*action));
    }
    let timeouts = Action::ALL.iter().filter(|action| **action != Action::Wait);
    let timeouts: Vec<String> =
        timeouts.map(|action| format!("{action} {}", default::timeout(*action, None))).collect();
    let wait = default::timeout(Action::Wait, None);
    let about = format!("For one attempt. Default: {}, wait {wait} more than it waits.", timeouts.join(", "));
    properties.insert("timeout".to_owned(), described(span(), &about));
    let defaults: Vec<String> =
        Action::ALL.iter().map(|action| format!("{action} {}", default::retries(*action))).collect();
    let about = format!("Attempts after the first. Default: {}.", defaults.join(", "));
    let retries = json!({ "type": "integer", "description": about, "minimum": 0, "maximum": MOST_RETRIES });
    properties.insert("retries".to_owned(), retries);
    let on_failure = explained(OnFailure::WORDS, "When the attempts are used up.", |on_failure| match on_failure {
        OnFailure::Stuck => "The run stands still and says what a human must do.",
        OnFailure::Continue => "The run goes on, and its report says so.",
        OnFailure::Undo => "Before the point of no return everything is undone; after it like stuck.",
    });
    properties.insert("onFailure".to_owned(), on_failure.with("default", json!(default::ON_FAILURE)));
    let about = "Only in runs of this manner. Default: in all.";
    let when = explained(Manner::WORDS, about, |manner| match manner {
        Manner::Graceful => "A switchover: both sides answer.",
        Manner::Ungraceful => "A failover.",
    });
    properties.insert("when".to_owned(), when);
    let about = "run lines of a drill only: done at its end, whatever came before. Default: false.";
    properties.insert("always".to_owned(), json!({ "type": "boolean", "description": about, "default": false }));
    let one_of: Vec<Value> = Action::ALL.iter().map(|action| json!({ "required": [action] })).collect();
    json!({
        "type": "object",
        "description": "One step: exactly one thing that is done, and its options.",
        "additionalProperties": false,
        "properties": properties,
        "oneOf": one_of,
    })
}

fn step(action: Action) -> Value {
    let about = match action {
        Action::Fence => "Refuse writes on the old side. Implied before any promotion.",
        Action::Quiesce => {
            "Drain and refuse new work on the old side; undone if the run fails before the point of no return."
        }
        Action::CatchUp => "Wait until the new side has everything that the old one acknowledged.",
        Action::Promote => "Make the databases of the new side writable.",
        Action::Activate => "Start or scale up services of the new side.",
        Action::Deactivate => "Stop or scale down services.",
        Action::Redirect => "Point DNS names to the new side, and wait until every server says so.",
        Action::Verify => "Check; the step fails if it is not so.",
        Action::Rejoin => "Make the old side a standby of the new one.",
        Action::Restore => {
            "Bring data back from a backup: a database from the newest whole one, a command resource by the command that the agent's file lists, while it does not run."
        }
        Action::Run => "Run a command that the agent's file lists under the resource.",
        Action::Approve => {
            "Wait for a human (regentctl approve); the text is what they are asked. Silence until the timeout is no yes: then onFailure counts."
        }
        Action::Wait => "Wait for a time.",
    };
    let schema = match action {
        Action::Wait => span(),
        Action::Approve => json!({ "type": "string", "minLength": 1, "maxLength": QUESTION_LIMIT }),
        Action::Run => json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["resource", "command"],
            "properties": {
                "resource": described(name(), "A command resource."),
                "command": described(name(), "Name of a command in the agent's file."),
            },
        }),
        _ => names().with("minItems", json!(1)),
    };
    match action {
        Action::Wait | Action::Approve | Action::Run => described(schema, about),
        _ => described(schema, &format!("{about} For {}.", suited(action))),
    }
}

fn name_rule() -> Value {
    json!({
        "type": "string",
        "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        "maxLength": NAME_LIMIT,
    })
}

fn span_rule() -> Value {
    json!({
        "type": "string",
        "pattern": "^([0-9]+(ms|s|m|h|d))+$",
        "examples": ["500ms", "30s", "5m", "1h", "1m30s"],
    })
}

fn names_rule() -> Value {
    json!({ "type": "array", "items": name(), "uniqueItems": true })
}

fn name() -> Value {
    json!({ "$ref": "#/$defs/name" })
}

fn span() -> Value {
    json!({ "$ref": "#/$defs/span" })
}

fn names() -> Value {
    json!({ "$ref": "#/$defs/names" })
}

fn described(schema: Value, description: &str) -> Value {
    schema.with("description", json!(description))
}

/// A closed set of words, each explained in the one description that editors show for the key.
fn explained<W: Word>(words: &[W], about: &str, explain: impl Fn(W) -> &'static str) -> Value {
    let mut description = about.to_owned();
    for word in words {
        description.push_str(&format!(" {}: {}", word.word(), explain(*word)));
    }
    let words: Vec<&str> = words.iter().map(|word| word.word()).collect();
    json!({ "type": "string", "enum": words, "description": description })
}

/// A schema with one more keyword.
trait With {
    fn with(self, key: &str, value: Value) -> Self;
}

impl With for Value {
    fn with(mut self, key: &str, value: Value) -> Self {
        if let Some(object) = self.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
        self
    }
}
