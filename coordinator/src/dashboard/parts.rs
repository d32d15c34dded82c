//! Small pieces that every page uses. A state is always an icon and a word; its colour only repeats them.

use maud::{Markup, html};

use super::format;
use crate::view::{Contacted, Fence, Health, Lease, ObjectiveState, Role, RunState, StepPhase};

/// What a state means for who looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Look at it.
    Warn,
    /// Act.
    Bad,
    /// Under way.
    Live,
    /// Nothing to see.
    Idle,
    /// Not known.
    Unknown,
}

impl Tone {
    /// Class of the colours and id of the icon.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Live => "live",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

/// Something that has a word and a tone.
pub(super) trait State: Copy {
    fn word(self) -> &'static str;
    fn tone(self) -> Tone;
}

/// An icon and a word.
pub(super) fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.as_str()) } { (icon(tone)) span { (word) } } }
}

/// The badge of a state.
pub(super) fn state(state: impl State) -> Markup {
    badge(state.tone(), state.word())
}

pub(super) fn icon(tone: Tone) -> Markup {
    html! { svg.icon aria-hidden="true" { use href={ "#" (tone.as_str()) } {} } }
}

/// A duration, or a dash that says that it is not known.
pub(super) fn known(value: Option<String>) -> Markup {
    match value {
        Some(text) => html! { (text) },
        None => html! { span.none { "unknown" } },
    }
}

/// A wall clock: the time of day, the whole of it on hovering.
pub(super) fn time(stamp: &str) -> Markup {
    html! { time datetime=(stamp) title=(stamp) { (format::clock(stamp)) } }
}

/// A term and what belongs to it, in a list of facts.
pub(super) fn fact(term: &str, value: impl maud::Render) -> Markup {
    html! { div { dt { (term) } dd { (value) } } }
}

pub(super) fn application_link(name: &str) -> Markup {
    html! { a href={ "/applications/" (name) } { (name) } }
}

pub(super) fn run_link(id: u64) -> Markup {
    html! { a.number href={ "/runs/" (id) } { (id) } }
}

/// The icons, once in each page.
pub(super) fn sprite() -> Markup {
    let shape = |id: &str, path: &str| html! { symbol id=(id) viewBox="0 0 16 16" { path d=(path) {} } };
    html! {
        svg.sprite aria-hidden="true" {
            (shape("good", "M3 8.5 6.5 12 13 4.5"))
            (shape("warn", "M8 2 15 14H1ZM8 6.5v3.5M8 12v.3"))
            (shape("bad", "M4 4l8 8M12 4l-8 8"))
            (shape("live", "M13.5 8A5.5 5.5 0 1 1 8 2.5M13.5 2.5v3h-3"))
            (shape("idle", "M4 8h8"))
            (shape("unknown", "M5.5 6a2.5 2.5 0 1 1 3.6 2.2C8.3 8.6 8 9 8 10M8 12.6v.3"))
        }
    }
}

macro_rules! tones {
    ($type:ident { $($($variant:ident)|+ => $tone:ident,)+ }) => {
        impl State for $type {
            fn word(self) -> &'static str {
                self.as_str()
            }

            fn tone(self) -> Tone {
                match self {
                    $($(Self::$variant)|+ => Tone::$tone,)+
                }
            }
        }
    };
}

tones!(Health { Healthy => Good, Failed => Bad, Unknown => Unknown, });
tones!(Role { Primary => Good, Standby | None => Idle, Unknown => Unknown, });
tones!(Lease { Held => Good, None => Idle, Lacked => Bad, Unknown => Unknown, });
tones!(Fence { Open => Idle, SelfFenced | Commanded => Warn, Unconfirmed => Bad, Unknown => Unknown, });
tones!(Contacted { Heard => Good, Silent => Warn, Lost => Bad, Unknown => Unknown, });
tones!(RunState {
    Succeeded => Good,
    Running | Undoing => Live,
    Undone | Superseded | Aborted => Warn,
    Stuck | Failed => Bad,
});
tones!(StepPhase {
    Succeeded => Good,
    Running => Live,
    Retrying | FailedContinued => Warn,
    Stuck => Bad,
    Pending | Skipped => Idle,
});

impl State for ObjectiveState {
    fn word(self) -> &'static str {
        match self {
            Self::Met => "within",
            Self::WithinSoFar => "within so far",
            Self::Missed => "missed",
            Self::Unknown => "unknown",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Self::Met => Tone::Good,
            Self::WithinSoFar => Tone::Live,
            Self::Missed => Tone::Bad,
            Self::Unknown => Tone::Unknown,
        }
    }
}
