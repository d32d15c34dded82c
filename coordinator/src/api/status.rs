//! The one place where faults become gRPC statuses, with google.rpc details that tools can read.

use std::collections::HashMap;

use regent_core::application::Mistake;
use regent_core::state::Applied;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, StatusExt};

use crate::replica::ProposeError;

/// Domain of every `ErrorInfo`.
pub(crate) const DOMAIN: &str = "regent";
/// Reason in the `ErrorInfo` of an answer that needed a quorum.
pub(crate) const NO_QUORUM: &str = "no-quorum";

/// Rule of an entry that came late, twice or was overtaken, and did nothing.
pub(crate) const NO_EFFECT: &str = "no-effect";

/// Why a call was not answered as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The document has mistakes.
    #[error("the document has {}", count(.0.len()))]
    Document(Vec<Mistake>),
    /// A field of the request is not as it must be.
    #[error("{field}: {problem}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// What the call names is not there.
    #[error("{kind} {name} does not exist")]
    Unknown {
        /// What it would be.
        kind: &'static str,
        /// As it was named.
        name: String,
    },
    /// A rule forbids it.
    #[error("refused by the rule {rule}: {detail}")]
    Refused {
        /// Concerning what.
        subject: String,
        /// Stable code.
        rule: String,
        /// For humans.
        detail: String,
    },
    /// It cannot be agreed on now.
    #[error(
        "no quorum: coordinator {coordinator} reaches no leader with a majority, so nothing can be changed and nothing \
         current be read; see `regentctl status`, and repeat with the same request id"
    )]
    NoQuorum {
        /// Who says so.
        coordinator: u64,
        /// host:port of the leader it last knew.
        leader: Option<String>,
    },
    /// This node failed.
    #[error("coordinator {coordinator} failed")]
    Internal {
        /// Which.
        coordinator: u64,
        /// Why.
        source: ProposeError,
    },
}

fn count(mistakes: usize) -> String {
    match mistakes {
        0 => "mistakes that could not be told".to_owned(),
        1 => "1 mistake".to_owned(),
        more => format!("{more} mistakes"),
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let message = fault.to_string();
        let (code, details) = match &fault {
            Fault::Document(mistakes) => (Code::InvalidArgument, document(mistakes)),
            Fault::Field { field, problem } => {
                (Code::InvalidArgument, ErrorDetails::with_bad_request_violation(*field, problem))
            }
            Fault::Unknown { kind, name } => (Code::NotFound, ErrorDetails::with_resource_info(*kind, name, "", "")),
            Fault::Refused { subject, rule, detail } => (Code::FailedPrecondition, refused(subject, rule, detail)),
            Fault::NoQuorum { coordinator, leader } => (Code::Unavailable, no_quorum(*coordinator, leader.as_deref())),
            Fault::Internal { coordinator, source } => {
                tracing::error!(coordinator, error = source as &dyn std::error::Error, "a proposal failed");
                (Code::Internal, info("internal", &[("coordinator", &coordinator.to_string())]))
            }
        };
        Self::with_error_details(code, message, details)
    }
}

fn document(mistakes: &[Mistake]) -> ErrorDetails {
    let violations: Vec<FieldViolation> = mistakes
        .iter()
        .map(|mistake| {
            let place = format!("{} (line {}, column {})", mistake.message, mistake.line, mistake.column);
            FieldViolation::new(mistake.path.clone(), place)
        })
        .collect();
    ErrorDetails::with_bad_request(violations)
}

fn refused(subject: &str, rule: &str, detail: &str) -> ErrorDetails {
    let mut details = info(rule, &[("subject", subject)]);
    details.set_precondition_failure(vec![PreconditionViolation::new(rule, subject, detail)]);
    details
}

fn no_quorum(coordinator: u64, leader: Option<&str>) -> ErrorDetails {
    info(NO_QUORUM, &[("coordinator", &coordinator.to_string()), ("leader", leader.unwrap_or_default())])
}

fn info(reason: &str, metadata: &[(&str, &str)]) -> ErrorDetails {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

/// What became of a proposed mutation: its index, or the rule that refused it.
pub(crate) fn outcome(applied: Applied, subject: &str) -> Result<u64, Fault> {
    match applied {
        Applied::Done(index) | Applied::Repeated(index) => Ok(index.0),
        Applied::Ignored(detail) => {
            Err(Fault::Refused { subject: subject.to_owned(), rule: NO_EFFECT.to_owned(), detail })
        }
        Applied::Refused { rule, detail } => Err(Fault::Refused { subject: subject.to_owned(), rule, detail }),
    }
}

#[cfg(test)]
mod tests {
    use regent_core::id::LogIndex;

    use super::*;

    #[test]
    fn mistakes_name_path_and_line() {
        let mistake =
            Mistake { path: "spec.clusters[1]".into(), line: 7, column: 5, message: "there is no such cluster".into() };
        let status = Status::from(Fault::Document(vec![mistake]));
        assert_eq!(status.code(), Code::InvalidArgument);
        let request = status.get_details_bad_request().unwrap();
        assert_eq!(request.field_violations[0].field, "spec.clusters[1]");
        assert_eq!(request.field_violations[0].description, "there is no such cluster (line 7, column 5)");
    }

    #[test]
    fn a_refusal_names_its_rule_twice() {
        let applied = Applied::Refused { rule: "would-move-primary".into(), detail: "switch over first".into() };
        let status = Status::from(outcome(applied, "shop").unwrap_err());
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.get_details_error_info().unwrap().reason, "would-move-primary");
        let violation = &status.get_details_precondition_failure().unwrap().violations[0];
        assert_eq!((violation.r#type.as_str(), violation.subject.as_str()), ("would-move-primary", "shop"));
    }

    #[test]
    fn no_quorum_names_the_leader_that_was_known() {
        let status = Status::from(Fault::NoQuorum { coordinator: 3, leader: Some("10.0.0.1:7101".into()) });
        assert_eq!(status.code(), Code::Unavailable);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, NO_QUORUM);
        assert_eq!(info.metadata.get("leader").map(String::as_str), Some("10.0.0.1:7101"));
    }

    #[test]
    fn a_repeat_is_a_success() {
        assert_eq!(outcome(Applied::Repeated(LogIndex(4)), "shop").unwrap(), 4);
    }
}
