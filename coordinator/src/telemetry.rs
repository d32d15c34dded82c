//! Logs and metrics.
//!
//! Logs are JSON lines on stderr, filtered as the configuration says. Metrics are computed from the applied state and
//! the evidence when they are asked for; their names stand in [`names`] and nowhere else.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

mod metrics;
pub mod names;

pub use metrics::Metrics;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "{given:?} in `log` is not a filter: write a level such as info, or pairs such as info,regent_coordinator=debug"
    )]
    Filter {
        /// The text as it was given.
        given: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else in the process logs already.
    #[error("logging was set up twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Libraries that log each request at `info`, or each failed try to reach a dead peer at `warn`, unless the filter
/// itself names them. What matters of it is logged once by our own code.
const TALKATIVE: [(&str, &str); 3] = [("hickory_server", "warn"), ("hickory_net", "warn"), ("openraft", "error")];

/// Starts to log. Call it once, before anything else logs.
///
/// # Errors
/// If the filter cannot be read, or logs were set up before.
pub fn init(filter: &str) -> Result<(), TelemetryError> {
    let filter = parse(filter)?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .finish()
        .try_init()
        .map_err(TelemetryError::Twice)
}

/// Checks a filter without using it, for `--check-config`.
///
/// # Errors
/// If it cannot be read.
pub fn check_filter(filter: &str) -> Result<(), TelemetryError> {
    parse(filter).map(drop)
}

fn parse(given: &str) -> Result<EnvFilter, TelemetryError> {
    let mut text = given.to_owned();
    for (library, level) in TALKATIVE.into_iter().filter(|(library, _)| !given.contains(*library)) {
        text.push_str(&format!(",{library}={level}"));
    }
    EnvFilter::builder().parse(&text).map_err(|source| TelemetryError::Filter { given: given.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["info", "warn,regent_coordinator=debug", "info,hickory_server=info"] {
            assert!(check_filter(good).is_ok(), "{good}");
        }
        let error = check_filter("regent=loudest").unwrap_err().to_string();
        assert!(error.contains("regent=loudest") && error.contains("write a level"), "{error}");
        assert_eq!(parse("info").unwrap().to_string().matches("hickory").count(), 2);
        assert_eq!(parse("info,hickory_server=info").unwrap().to_string().matches("hickory_server").count(), 1);
    }
}
