//! The words of the document: closed sets of names, each the same here, in the log and in the schema.

use std::fmt;

use super::{Action, Beyond, DnsProvider, Manner, Mode, OnCoordinatorLoss, OnFailure, OnSilence, ResourceKind};
use crate::time::Span;

/// A closed set of words that a document can use.
pub(super) trait Word: Copy + 'static {
    /// All of them.
    const WORDS: &'static [Self];
    /// The word.
    fn word(self) -> &'static str;
}

macro_rules! words {
    ($($type:ident { $($variant:ident => $word:literal,)+ })+) => {$(
        impl $type {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that documents use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl Word for $type {
            const WORDS: &'static [Self] = Self::ALL;
            fn word(self) -> &'static str {
                self.as_str()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

words! {
    ResourceKind {
        Postgres => "postgres",
        Redis => "redis",
        Command => "command",
        Kubernetes => "kubernetes",
        Dns => "dns",
        Http => "http",
    }
    DnsProvider {
        Embedded => "embedded",
        Rfc2136 => "rfc2136",
    }
    Mode {
        Automatic => "automatic",
        Approve => "approve",
        Manual => "manual",
    }
    OnCoordinatorLoss {
        Failsafe => "failsafe",
        Fence => "fence",
    }
    Action {
        Fence => "fence",
        Quiesce => "quiesce",
        CatchUp => "catchUp",
        Promote => "promote",
        Activate => "activate",
        Deactivate => "deactivate",
        Redirect => "redirect",
        Verify => "verify",
        Rejoin => "rejoin",
        Restore => "restore",
        Run => "run",
        Approve => "approve",
        Wait => "wait",
    }
    OnFailure {
        Stuck => "stuck",
        Continue => "continue",
        Undo => "undo",
    }
    OnSilence {
        Refuse => "refuse",
        Proceed => "proceed",
    }
    Manner {
        Graceful => "graceful",
        Ungraceful => "ungraceful",
    }
}

/// What `beyondMaxDataLoss` can say, as messages name it.
pub(super) const BEYOND: &[&str] = &["refuse", "wait 2m", "ask", "accept"];

impl Beyond {
    /// Reads `refuse`, `wait 2m`, `ask` or `accept`.
    pub(super) fn read(text: &str) -> Option<Self> {
        match text {
            "refuse" => Some(Self::Refuse),
            "ask" => Some(Self::Ask),
            "accept" => Some(Self::Accept),
            _ => text.strip_prefix("wait ").and_then(|span| Span::parse(span.trim()).ok()).map(Self::Wait),
        }
    }
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse => f.write_str("refuse"),
            Self::Wait(span) => write!(f, "wait {span}"),
            Self::Ask => f.write_str("ask"),
            Self::Accept => f.write_str("accept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same_in_the_log<W: Word + serde::Serialize>() {
        for word in W::WORDS {
            assert_eq!(serde_json::to_value(word).ok(), Some(serde_json::json!(word.word())));
        }
    }

    #[test]
    fn documents_and_the_log_use_the_same_words() {
        same_in_the_log::<ResourceKind>();
        same_in_the_log::<DnsProvider>();
        same_in_the_log::<Mode>();
        same_in_the_log::<OnCoordinatorLoss>();
        same_in_the_log::<Action>();
        same_in_the_log::<OnFailure>();
        same_in_the_log::<OnSilence>();
        same_in_the_log::<Manner>();
    }

    #[test]
    fn beyond_reads_back_what_it_prints() {
        for text in ["refuse", "wait 2m", "wait 1m30s", "ask", "accept"] {
            assert_eq!(Beyond::read(text).map(|beyond| beyond.to_string()), Some(text.to_owned()));
        }
        for text in ["", "wait", "wait ", "wait 2", "waits 2m", "Refuse"] {
            assert_eq!(Beyond::read(text), None, "{text:?}");
        }
    }
}
