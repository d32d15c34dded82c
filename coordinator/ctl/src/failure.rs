//! How a command ends that is not done: a message, and the documented exit code.

use std::error::Error;
use std::fmt::Write;

use regent_proto::tls::TlsError;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Nothing answered, or it is not so.
pub(crate) const FAILED: u8 = 1;
/// The arguments make no sense.
pub(crate) const USAGE: u8 = 2;
/// A rule forbids it.
const REFUSED: u8 = 3;
/// It cannot be agreed on now.
const NO_QUORUM: u8 = 4;
/// A human is needed.
const STUCK: u8 = 5;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Failed(String),
    #[error("{0}\nTry `regentctl --help`.")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    NoQuorum(String),
    #[error("{0}")]
    Stuck(String),
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }

    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => FAILED,
            Self::Usage(_) => USAGE,
            Self::Refused(_) => REFUSED,
            Self::NoQuorum(_) => NO_QUORUM,
            Self::Stuck(_) => STUCK,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::FailedPrecondition => Self::Refused(match status.get_details_error_info() {
                Some(rule) => format!("{message}\nSee deploy/runbooks/{}.md.", rule.reason),
                None => message,
            }),
            Code::InvalidArgument => match status.get_details_bad_request() {
                Some(request) if status.message().starts_with("the document has") => {
                    let mut text = message;
                    for violation in request.field_violations {
                        let _ = write!(text, "\n  {}: {}", violation.field, violation.description);
                    }
                    Self::Failed(text)
                }
                Some(_) => Self::Usage(message),
                None => Self::Failed(message),
            },
            Code::Unavailable if is_no_quorum(&status) => Self::NoQuorum(message),
            _ => Self::Failed(describe(&status)),
        }
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Failed(chain(&error))
    }
}

/// The coordinator answers, but it has no majority.
pub(crate) fn is_no_quorum(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.get_details_error_info().is_some_and(|info| info.reason == "no-quorum")
}

/// True if the coordinator itself has answered, whatever it said; false if the connection failed.
pub(crate) fn is_answer(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => false,
        // A broken connection shows as an unknown error with a source.
        Code::Unknown => status.source().is_none(),
        _ => true,
    }
}

/// A status in one line, with what lies under it.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    append_sources(&mut text, status.source());
    text
}

/// An error in one line, with what lies under it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    append_sources(&mut text, error.source());
    text
}

fn append_sources(text: &mut String, mut source: Option<&dyn Error>) {
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            let _ = write!(text, ": {next}");
        }
        source = error.source();
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn statuses_have_the_documented_exit_codes() {
        let info = |reason: &str| {
            ErrorDetails::with_error_info(reason, "regent", std::collections::HashMap::<String, String>::new())
        };
        let cases = [
            (Status::failed_precondition("refused"), REFUSED),
            (Status::with_error_details(Code::Unavailable, "no quorum", info("no-quorum")), NO_QUORUM),
            (Status::unavailable("connection refused"), FAILED),
            (Status::not_found("application nil does not exist"), FAILED),
            (Status::permission_denied("agent/a may not do this"), FAILED),
            (
                Status::with_error_details(
                    Code::InvalidArgument,
                    "application: bad",
                    ErrorDetails::with_bad_request_violation("application", "bad"),
                ),
                USAGE,
            ),
        ];
        for (status, code) in cases {
            assert_eq!(Failure::from(status.clone()).code(), code, "{status}");
        }
        assert_eq!(Failure::Stuck(String::new()).code(), STUCK);
    }

    #[test]
    fn a_refusal_names_its_page() {
        let info =
            ErrorDetails::with_error_info("not-stuck", "regent", std::collections::HashMap::<String, String>::new());
        let status =
            Status::with_error_details(Code::FailedPrecondition, "refused by the rule not-stuck: it runs", info);
        let text = Failure::from(status).to_string();
        assert_eq!(text, "refused by the rule not-stuck: it runs\nSee deploy/runbooks/not-stuck.md.");
        assert_eq!(Failure::from(Status::failed_precondition("refused")).to_string(), "refused");
    }
}
