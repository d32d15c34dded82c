//! How far behind a database was of late, in slots of time: a single probe neither makes a trend nor ends one.
//!
//! ```text
//!   slot   n-29 …  n-5   n-4 │ n-3 │ n-2   n-1 │ n
//!   lag    0.2 s  0.3 s  0.5 s  0.9 s  1.4 s  1.6 s  still open
//!          └ the lowest: from       └ the lower of both: to
//! ```
//!
//! Of a standby that knows no lag in time it is told by positions: what the primary had in a slot, less what the standby had in
//! the same one. Both are dated by one clock.

use std::collections::{BTreeMap, VecDeque};

use super::{Role, Sighting};
use crate::id::SystemId;
use crate::time::{Moment, Span};

/// Long enough for many probes.
const SLOT: Span = Span::from_secs(20);
/// How many are kept behind the open one: ten minutes.
const KEPT: u64 = 30;
/// How many slots must lie between what is compared, at least: a minute.
const APART: u64 = 3;

/// The lags and positions of one database in one history, the oldest slot first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Track {
    /// Role, identity and timeline; none as long as nothing was reported.
    of: Option<(Role, SystemId, u64)>,
    slots: VecDeque<Slot>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Slot {
    /// Counted from the start of the clock.
    number: u64,
    /// In milliseconds.
    lag: Mean,
    /// In bytes.
    position: Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mean {
    sum: u128,
    count: u64,
}

/// A number by slots. The open one is not among them, nor the first, which may have begun late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    values: BTreeMap<u64, u64>,
    open: u64,
}

/// What has grown, over a minute or longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The lowest, in the unit of the course.
    pub from: u64,
    /// What it is now, in the same unit; more than `from`.
    pub to: u64,
    /// Between both.
    pub within: Span,
}

/// How fast a primary writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Never 0.
    bytes: u64,
    within: Span,
}

impl Sighting {
    /// What is known of the last ten minutes with this sighting, given the one before. A probe that tells nothing leaves a gap;
    /// another role or history begins anew.
    #[must_use]
    pub fn track_after(&self, before: Option<&Self>) -> Track {
        let before = self.without_break(before);
        let track = before.map(|before| before.track.clone()).unwrap_or_default();
        let lag = self.upstream.as_ref().and_then(|upstream| upstream.lag);
        if before.is_some_and(|before| before.at == self.at) {
            return track;
        }
        let tells = lag.is_some() || self.position.is_some();
        let of = Some((self.role, self.system_id.clone(), self.timeline));
        let track = if !tells || track.of == of { track } else { Track { of, slots: VecDeque::new() } };
        track.with(self.at, lag, self.position)
    }
}

impl Track {
    fn with(mut self, at: Moment, lag: Option<Span>, position: Option<u64>) -> Self {
        let newest = self.slots.back().map(|slot| slot.number);
        // What was relayed may be dated a little earlier than what came before it.
        let number = (at.0 / SLOT.millis()).max(newest.unwrap_or_default());
        if newest != Some(number) {
            self.slots.push_back(Slot { number, ..Slot::default() });
        }
        while self.slots.front().is_some_and(|slot| slot.number + KEPT < number) {
            self.slots.pop_front();
        }
        if let Some(slot) = self.slots.back_mut() {
            slot.lag.take(lag.map(Span::millis));
            slot.position.take(position);
        }
        self
    }

    /// The lag in time, in milliseconds.
    #[must_use]
    pub fn lag(&self) -> Course {
        Course { values: self.values(|slot| slot.lag), open: self.open() }
    }

    /// How many bytes this one, a standby's, was behind the primary's. Empty where nothing is known of both.
    #[must_use]
    pub fn behind(&self, primary: &Self) -> Course {
        let (led, own) = (primary.values(|slot| slot.position), self.values(|slot| slot.position));
        let behind = |(number, had): (u64, u64)| Some((number, led.get(&number)?.saturating_sub(had)));
        Course { values: own.into_iter().filter_map(behind).collect(), open: self.open().min(primary.open()) }
    }

    /// How fast it advances, over all that is kept; none if it does not.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let positions = self.values(|slot| slot.position);
        let ((first, from), (last, to)) = positions.first_key_value().zip(positions.last_key_value())?;
        let bytes = to.checked_sub(*from).filter(|bytes| *bytes > 0)?;
        Some(Pace { bytes, within: SLOT.times(last - first) })
    }

    fn open(&self) -> u64 {
        self.slots.back().map_or(0, |slot| slot.number)
    }

    fn values(&self, of: impl Fn(&Slot) -> Mean) -> BTreeMap<u64, u64> {
        let closed = self.slots.iter().skip(1).filter(|slot| slot.number < self.open());
        closed.filter_map(|slot| Some((slot.number, of(slot).value()?))).collect()
    }
}

impl Mean {
    fn take(&mut self, value: Option<u64>) {
        if let Some(value) = value {
            self.sum = self.sum.saturating_add(value.into());
            self.count += 1;
        }
    }

    /// None without any.
    fn value(self) -> Option<u64> {
        u64::try_from(self.sum.checked_div(self.count.into())?).ok()
    }
}

impl Course {
    /// What it is now: the lower of the last two slots. None if one of them says nothing.
    #[must_use]
    pub fn now(&self) -> Option<u64> {
        let last = |back: u64| self.values.get(&self.open.checked_sub(back)?).copied();
        Some(last(1)?.min(last(2)?))
    }

    /// By how much it has grown since it was last at its lowest, a minute ago or longer; none if it has not, or has come back
    /// by half of that.
    #[must_use]
    pub fn growth(&self) -> Option<Growth> {
        let to = self.now()?;
        let last = self.open.checked_sub(1)?;
        let earlier = self.values.range(..=last.checked_sub(APART)?);
        // Of several the latest.
        let (since, from) = earlier.rev().min_by_key(|(_, value)| **value).map(|(since, from)| (*since, *from))?;
        let by = to.checked_sub(from).filter(|by| *by > 0)?;
        let highest = self.values.range(since..last.saturating_sub(1)).map(|(_, value)| *value).max()?;
        let comes_back = highest.saturating_sub(to) > by / 2;
        (!comes_back).then(|| Growth { from, to, within: SLOT.times(last - since) })
    }
}

impl Pace {
    /// For how long it writes so much.
    #[must_use]
    pub fn time_of(self, bytes: u64) -> Span {
        let millis = u128::from(bytes) * u128::from(self.within.millis()) / u128::from(self.bytes);
        Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}
