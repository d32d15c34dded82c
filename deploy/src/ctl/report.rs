//! What the report of a run says: when the primary changed, on what ground, and what may be lost.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::Run;
use crate::writer::Acknowledged;

/// What a report says of losses.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// Of which run.
    pub run: Option<Run>,
    /// Of each database.
    #[serde(default)]
    pub losses: Vec<Loss>,
}

/// A change of the primary.
#[derive(Debug, Clone, Deserialize)]
pub struct Decision {
    /// By the wall clock of who led.
    pub at: jiff::Timestamp,
    /// The new one.
    pub epoch: u64,
    /// `lost`, `fenced`, `switched`, `forced` or `recovered`.
    #[serde(default)]
    pub ground: String,
}

/// What was known at a decision.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Finding {
    /// Of each database with a position.
    #[serde(default)]
    pub gaps: Vec<Gap>,
}

/// How far the new primary was behind the old one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// Of which database.
    pub resource: String,
    /// How old the old primary's last position was at the decision; absent: none is known.
    #[serde(default, deserialize_with = "duration")]
    pub primary_age: Option<Duration>,
}

/// The loss in one database.
#[derive(Debug, Clone, Deserialize)]
pub struct Loss {
    /// Which.
    pub resource: String,
    /// By the last positions that were known; absent: unknown.
    pub bytes: Option<u64>,
    /// For humans, with its uncertainty.
    #[serde(default)]
    pub sentence: String,
    /// What was acknowledged until then is there; absent: nothing is said of that.
    #[serde(default, rename = "completeUntil")]
    pub complete_until: Option<jiff::Timestamp>,
}

impl Report {
    /// True if the report says that this row may be missing in that database.
    ///
    /// It is a look at one row: where some bytes or an unknown number of them may be lost, that can be any row. The oracle
    /// of the tests looks at all rows together.
    #[must_use]
    pub fn admits(&self, resource: &str, row: &Acknowledged) -> bool {
        let mut of_resource = self.losses.iter().filter(|loss| loss.resource == resource);
        of_resource.any(|loss| match (loss.bytes, loss.complete_until) {
            (Some(0), Some(until)) => row.wall() > until,
            (Some(0), None) => false,
            (Some(_) | None, _) => true,
        })
    }
}

/// In the protocol's own writing: seconds, with a fraction, and an `s`.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.map(Some).ok_or_else(|| de::Error::custom(format!("{text} is not a time in seconds")))
}
