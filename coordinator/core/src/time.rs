//! Time as the core knows it: spans, local monotonic moments, and wall-clock stamps for humans.
//! The core never reads a clock; every function takes the time it needs as an argument.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A length of time in milliseconds. In documents it is written `1h`, `5m`, `30s`, `500ms`, `1m30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(u64);

/// Text that is not a span.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a length of time: write 500ms, 30s, 5m, 1h or 1m30s")]
pub struct SpanError {
    /// The text as it was given.
    pub given: String,
}

impl Span {
    /// No time.
    pub const ZERO: Self = Self(0);

    /// From milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs * 1000)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The part of it that `divisor` makes, rounded down. `divisor` is a constant of the protocol, never 0.
    #[must_use]
    pub const fn divided(self, divisor: u64) -> Self {
        Self(self.0 / divisor)
    }

    /// A multiple.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// The sum; the largest span if it does not fit.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Parses `1h`, `5m`, `30s`, `500ms` and sums like `1m30s`.
    ///
    /// # Errors
    /// If the text is anything else.
    pub fn parse(text: &str) -> Result<Self, SpanError> {
        let error = || SpanError { given: text.to_owned() };
        let mut rest = text;
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(error());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| error())?;
            let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(letters);
            let millis = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(error()),
            };
            total = number.checked_mul(millis).and_then(|part| total.checked_add(part)).ok_or_else(error)?;
            rest = tail;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if rest >= millis {
                write!(f, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;
    fn try_from(text: String) -> Result<Self, SpanError> {
        Self::parse(&text)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A length of time: 500ms, 30s, 5m, 1h, 1m30s",
            "pattern": "^([0-9]+(ms|s|m|h|d))+$",
        })
    }
}

/// A moment of this process' own monotonic clock, in milliseconds from an arbitrary start. Never leaves the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// How long before `self` the other moment was; zero if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// The moment a span later.
    #[must_use]
    pub const fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The moment a span earlier, or the start of the clock.
    #[must_use]
    pub const fn before(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// Wall-clock time, milliseconds since 1970 UTC. For humans and for cool-downs; no safety rule rests on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// How long before `self` the other was; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// By what a leader measures a wait that began with a stamp in the log, which another machine's clock may have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// Its wall clock.
    pub wall: Timestamp,
    /// For how long it has led, by its monotonic clock.
    pub led: Span,
}

impl Waits {
    /// How long a wait since `stamp` has lasted. A stamp that lies ahead by more than a second was written by a clock
    /// that ran ahead: nothing waits for another machine's wrong time, nor is anything cut short by it. Such a wait has
    /// lasted for as long as this coordinator has led, since a former leader began it.
    #[must_use]
    pub fn since(self, stamp: Timestamp) -> Span {
        if stamp.since(self.wall) > Span::from_secs(1) { self.led } else { self.wall.since(stamp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_what_they_print() {
        for text in ["500ms", "2s", "1m30s", "1h", "1d2h3m4s5ms", "0s"] {
            assert_eq!(Span::parse(text).map(|span| span.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Span::parse("90s").map(|span| span.to_string()), Ok("1m30s".to_owned()));
    }

    #[test]
    fn bad_spans_are_refused() {
        for text in ["", "5", "s", "5 s", "-1s", "5x", "99999999999999999999s", "18446744073709551615h"] {
            assert!(Span::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
