//! What the state of a group becomes when a new cluster of one node begins with it.
//!
//! All of it stays but who is in the cluster: that is the one node from now on. The new history begins behind an entry
//! of term 0, at the index that the state has; no leader has that term, so the new log agrees with no old one.

use super::{GroupRecord, State, keys};
use bytes::Bytes;
use chronos_proto::codec::{self, DecodeError};
use chronos_proto::id::{GroupId, Index, Term};
use chronos_proto::membership::{Configuration, Member};
use chronos_proto::raft::LogId;
use chronos_proto::time::Timestamp;
use keys::tag;

/// The generation that a new state is written under.
const GENERATION: u32 = 1;

/// A group's state on its way into a new cluster, entry by entry.
pub struct Founding {
    group: GroupId,
    last: LogId,
    time: Timestamp,
    hash_seed: u64,
    /// The node; none for one that is and stays alone.
    member: Option<Member>,
    record: Option<GroupRecord>,
}

impl Founding {
    /// Over a state at `index`, whose ids were hashed with `hash_seed`.
    pub fn new(
        group: GroupId,
        index: Index,
        time: Timestamp,
        hash_seed: u64,
        member: Option<Member>,
    ) -> Founding {
        let last = LogId { term: Term(0), index };
        Founding { group, last, time, hash_seed, member, record: None }
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The entry that the new history begins behind.
    pub fn last(&self) -> LogId {
        self.last
    }

    /// The generation that its keys are stored under.
    pub fn generation(&self) -> u32 {
        GENERATION
    }

    /// Whether an entry of the old state stays as it is. The group record comes first, as keys are ordered.
    pub fn keeps(&mut self, key: &[u8], value: &[u8]) -> Result<bool, DecodeError> {
        match key.first() {
            Some(&tag::GROUP) => {
                self.record = Some(codec::decode("group record", value)?);
                Ok(false)
            }
            Some(&(tag::MEMBERSHIP | tag::MEMBER)) => {
                if let Some(record) = &mut self.record {
                    let mut digests = record.digests();
                    digests.replace(key, codec::digest(key, value), 0);
                    record.digests = digests.to_stored();
                }
                Ok(false)
            }
            Some(&(tag::ROOT | tag::INSTALLED | tag::HASH_SEED | tag::INCOMING)) => Ok(false),
            _ => Ok(true),
        }
    }

    /// What comes to it, and the sealed root record that makes all of it the state.
    pub fn finish(self) -> Result<(Vec<(Bytes, Bytes)>, Bytes), DecodeError> {
        let missing = || DecodeError { what: "group record", why: "it is not there".to_owned() };
        let mut record = self.record.ok_or_else(missing)?;
        let mut added = vec![
            (keys::installed(), Bytes::from(codec::encode(&self.last))),
            (keys::hash_seed(), Bytes::from(codec::encode(&self.hash_seed))),
        ];
        let mut digests = record.digests();
        if let Some(member) = self.member {
            let members = Bytes::from(codec::encode(&Configuration::of([member.node])));
            let mut of_cluster = vec![(keys::membership(), members)];
            if self.group == GroupId(0) {
                of_cluster.push((keys::member(member.node), Bytes::from(codec::encode(&member))));
            }
            for (key, value) in &of_cluster {
                digests.replace(key, 0, codec::digest(key, value));
            }
            added.extend(of_cluster);
        }
        record.digests = digests.to_stored();
        added.push((keys::group_record(), Bytes::from(codec::encode(&record))));
        Ok((added, State::root_of(self.group, GENERATION, self.last, self.time)))
    }
}
