//! A name for a plan: equal for equal plans, another one for any other. Whoever has seen a plan can have exactly that one
//! carried out, or nothing (`regentctl switchover --plan DIGEST`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ApplicationId, ClusterId, Epoch};
use crate::run::Step;
use crate::time::Span;

/// Sixteen hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no digest of a plan: `regentctl plan` prints it, 16 of 0-9 and a-f")]
pub struct DigestError {
    /// The text as it was given.
    pub given: String,
}

impl Digest {
    /// Of a plan with all that it depends on. It tells plans apart; it is no defence against someone who makes one up.
    #[must_use]
    pub fn of(application: &ApplicationId, epoch: Epoch, from: &ClusterId, to: &ClusterId, steps: &[Step]) -> Self {
        // Only ordered types: the same bytes wherever it is made. They cannot fail to be written.
        let bytes = serde_json::to_vec(&(application, epoch, from, to, steps)).unwrap_or_default();
        Self(format!("{:016x}", fnv1a(&bytes)))
    }

    /// The name of a planned move with this digest that may keep writes out for so long. People are shown this one, and what
    /// they name is compared with it before anything is proposed; the log has the digest of the steps alone, and the time
    /// beside it.
    #[must_use]
    pub fn within(&self, max_write_outage: Span) -> Self {
        Self(format!("{:016x}", fnv1a(format!("{self} {}", max_write_outage.millis()).as_bytes())))
    }

    /// As it is printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        let good = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text)) } else { Err(DigestError { given: text }) }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a with 64 bits: the same in every release, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn only_what_was_printed_is_read() {
        for bad in ["", "0123", "0123456789ABCDEF", "0123456789abcdeg"] {
            assert!(Digest::try_from(bad.to_owned()).is_err(), "{bad:?} was accepted");
        }
        assert!(Digest::try_from("0123456789abcdef".to_owned()).is_ok());
    }
}
