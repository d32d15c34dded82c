//! The types that openraft is instantiated with.

use std::fmt;

use regent_core::entry::{Entry as CoreEntry, FORMAT, OLDEST_ENTRY, Record};
use regent_core::id::RequestId;
use regent_core::state::Applied;
use regent_core::time::Timestamp;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use super::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// Raft over [`Record`]s between coordinators.
    pub Types:
        D = Proposal,
        R = Answer,
        NodeId = u64,
        Node = openraft::BasicNode,
        AsyncRuntime = super::runtime::Runtime,
);

/// What the log carries: a record, or word of one that this release cannot know.
///
/// What a newer release wrote, or a build before [`OLDEST_ENTRY`], is not guessed at, and not passed over either: coordinators
/// that applied some entries and skipped others would no longer agree. So it is neither stored nor applied, and the node stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal(pub Result<Record, OtherFormat>);

/// An entry was written by a release whose entries are not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log has an entry of format {found}, this release knows formats {OLDEST_ENTRY} to {FORMAT}: {}",
    advice(*found)
)]
pub struct OtherFormat {
    /// Its format number.
    pub found: u16,
}

const fn advice(found: u16) -> &'static str {
    if found > FORMAT {
        "upgrade this coordinator to the release of the others"
    } else {
        "the others run an earlier build, and the group cannot go on from its log; see deploy/GROUP.md, Upgrade"
    }
}

/// The fields of a [`Record`] behind its format number.
#[derive(Deserialize)]
struct Rest {
    at: Timestamp,
    request: Option<RequestId>,
    entry: CoreEntry,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match &self.0 {
            Ok(record) => record.format,
            Err(other) => other.found,
        };
        write!(f, "entry of format {format}")
    }
}

impl Serialize for Proposal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Ok(record) => record.serialize(serializer),
            Err(other) => Err(ser::Error::custom(other)),
        }
    }
}

impl<'de> Deserialize<'de> for Proposal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder)
    }
}

/// The format number comes first, and what follows an unknown one is not looked at.
struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Proposal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record that begins with its format number")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Proposal, A::Error> {
        if map.next_key::<String>()?.as_deref() != Some("format") {
            return Err(de::Error::custom("it does not begin with its format number"));
        }
        let format: u16 = map.next_value()?;
        if !(OLDEST_ENTRY..=FORMAT).contains(&format) {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Proposal(Err(OtherFormat { found: format })));
        }
        let Rest { at, request, entry } = Rest::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Proposal(Ok(Record { format, at, request, entry })))
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Answer(pub Applied);

pub(crate) type Raft = openraft::Raft<Types, StateMachine>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, bytes::Bytes>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::codec;

    #[derive(Serialize)]
    struct Written {
        format: u16,
        at: Timestamp,
        request: Option<RequestId>,
        entry: Unheard,
    }

    #[derive(Serialize)]
    enum Unheard {
        OfByThisRelease { depth: u64, names: Vec<String> },
    }

    fn written(format: u16) -> Vec<u8> {
        let entry = Unheard::OfByThisRelease { depth: 7, names: vec!["a".to_owned()] };
        codec::encode(&(Written { format, at: Timestamp(1), request: None, entry }, 9_u8)).unwrap()
    }

    #[test]
    fn what_another_release_wrote_is_told_by_its_format() {
        for found in [OLDEST_ENTRY - 1, FORMAT + 1] {
            let (proposal, behind) = codec::decode::<(Proposal, u8)>(&written(found)).unwrap();
            assert_eq!(proposal, Proposal(Err(OtherFormat { found })));
            assert_eq!(behind, 9, "what stands behind it is read");
            assert!(codec::encode(&proposal).is_err(), "it is never written");
        }
        assert!(codec::decode::<(Proposal, u8)>(&written(FORMAT)).is_err(), "of a format that is known");
    }

    #[test]
    fn a_proposal_reads_as_the_record_that_was_written() {
        let record = Record { format: FORMAT, at: Timestamp(5), request: None, entry: CoreEntry::Thawed };
        let bytes = codec::encode(&record).unwrap();
        assert_eq!(codec::decode::<Proposal>(&bytes).unwrap(), Proposal(Ok(record.clone())));
        assert_eq!(codec::encode(&Proposal(Ok(record))).unwrap(), bytes);
    }
}
