//! Typed identifiers and counters. A bare string or integer never names a thing of the domain.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest accepted name: one DNS label.
pub const NAME_LIMIT: usize = 63;

/// A name that breaks the rules for names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a name: use 1 to {NAME_LIMIT} of a-z, 0-9 and '-', with a letter or digit at both ends")]
pub struct NameError {
    /// The text as it was given.
    pub given: String,
}

fn check_name(text: &str) -> Result<(), NameError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let good = !bytes.is_empty()
        && bytes.len() <= NAME_LIMIT
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte));
    if good { Ok(()) } else { Err(NameError { given: text.to_owned() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks and wraps a name: lower-case letters, digits and dashes, one DNS label.
            ///
            /// # Errors
            /// If the text is not a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name(text)?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check_name(&text)?;
                Ok(Self(text))
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A cluster: the place of one agent, e.g. `eu-west-1`.
    ClusterId
);
name!(
    /// A region: the place of one coordinator and any number of clusters.
    RegionId
);
name!(
    /// An application: what fails over as a whole.
    ApplicationId
);
name!(
    /// A resource of an application, e.g. `orders-db`.
    ResourceId
);

macro_rules! counter {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
        )]
        pub struct $type(pub u64);

        impl $type {
            /// The next higher one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Raft id of a coordinator; as an observer it votes under the same number.
    CoordinatorId
);
counter!(
    /// Counts the changes of primary of one application. 0: not adopted yet.
    Epoch
);
counter!(
    /// Counts the process starts of one agent or coordinator, stored before it is used.
    Incarnation
);
counter!(
    /// Counts the votes and withdrawals of one observer on one cluster in one incarnation.
    VoteNumber
);
counter!(
    /// Index of an entry in the raft log.
    LogIndex
);
counter!(
    /// Counts the accepted documents of one application.
    Revision
);
counter!(
    /// A run: the log index of the entry that began it.
    RunId
);
counter!(
    /// Position of a step in its run's plan, from 0.
    StepId
);
counter!(
    /// Counts the intents of one step, from 1.
    Attempt
);

/// A number that leaves the group: fencing tokens and numbers of terms.
///
/// Compared by restoration first: after a restored backup the log starts lower, and must not issue again
/// what agents have already seen (safety.md, "Identity and numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Token {
    /// Raised by each restoration of the group from a backup.
    pub restoration: u64,
    /// Log index of the entry.
    pub index: LogIndex,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.restoration == 0 { self.index.fmt(f) } else { write!(f, "{}.{}", self.restoration, self.index) }
    }
}

macro_rules! opaque {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub String);

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

opaque!(
    /// UUID of the group of coordinators; agents store it.
    GroupId
);
opaque!(
    /// Random identity of one agent's data directory.
    InstallationId
);
opaque!(
    /// Random identity of one coordinator's data directory.
    IdentityId
);
opaque!(
    /// Chosen by the client; a mutation is idempotent by it.
    RequestId
);
opaque!(
    /// Identity of a database, e.g. PostgreSQL's system identifier.
    SystemId
);
