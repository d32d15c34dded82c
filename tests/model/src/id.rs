//! Names and numbers of the model, each as small as it can be: a state is hashed millions of times.

use std::fmt;

/// Discrete time. One tick is D/4 of the smallest D; both the fence budget F and the clock margin M are one tick.
pub type Ticks = u8;

/// F: within it a fence is done.
pub const FENCE: Ticks = 1;
/// M: so far clocks may drift apart in the time of one D.
pub const MARGIN: Ticks = 1;
/// D/4: a coordinator votes, and an agent asks for promises, after so much silence.
pub const SUSPICION: Ticks = 1;
/// Coordinators, and at most as many clusters.
pub const MANY: usize = 3;
/// Databases of the application.
pub const RESOURCES: usize = 2;

/// A cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cluster(pub u8);

/// The first primary.
pub const WEST: Cluster = Cluster(0);
/// The standby.
pub const EAST: Cluster = Cluster(1);
/// A second standby, in worlds of three clusters.
pub const NORTH: Cluster = Cluster(2);

impl Cluster {
    /// Its place in arrays.
    #[must_use]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(["west", "east", "north"].get(self.at()).unwrap_or(&"nowhere"))
    }
}

/// A coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Observer(pub u8);

impl Observer {
    /// All of them.
    pub const ALL: [Self; MANY] = [Self(0), Self(1), Self(2)];

    /// Its place in arrays.
    #[must_use]
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "c{}", self.0 + 1)
    }
}

/// Every number that leaves the group, of terms or of steps: in the protocol the log index, here a count of each, under
/// the count of restorations (safety.md, "Identity and numbers").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// How often the group was restored from a backup.
    pub restoration: u8,
    /// Place among the others of its kind.
    pub index: u8,
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.restoration, self.index)
    }
}

/// A set of small numbers: clusters, coordinators or databases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Few(pub u8);

impl Few {
    /// The first so many.
    #[must_use]
    pub const fn first(many: u8) -> Self {
        Self((1 << many) - 1)
    }

    /// True if it is in the set.
    #[must_use]
    pub const fn has(self, one: u8) -> bool {
        self.0 & (1 << one) != 0
    }

    /// With one more.
    #[must_use]
    pub const fn with(self, one: u8) -> Self {
        Self(self.0 | (1 << one))
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, one: u8) -> Self {
        Self(self.0 & !(1 << one))
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// True if `self` holds more than half of `voters`.
    #[must_use]
    pub const fn is_majority_of(self, voters: Self) -> bool {
        self.and(voters).count() * 2 > voters.count()
    }

    /// One after another.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..8).filter(move |one| self.has(*one))
    }
}
