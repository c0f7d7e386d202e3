//! The one place that knows the key layout.
//!
//! A *state key* (this file's functions) is relative to its group; the store's key has eight bytes before it, group
//! and generation, big-endian. Generation 0 holds a group's root record alone, which names the live generation, so
//! that a snapshot is installed under a new generation and one small write flips it.
//!
//! ```text
//! 00                                    root: generation, applied index and time (generation 0 only)
//! 01                                    group record: stamp high-water mark, counters, digests
//! 02                                    the snapshot that the generation was installed from, if it was
//! 03                                    what chosen ids are hashed with, if the state is from another cluster
//! 04                                    how far a snapshot has come that the generation will be (never in a live one)
//! 10 relation                           catalogue entry
//! 11 relation                           mark of a dropped relation whose data still goes
//! 12 relation index                     cursor of an index being filled
//! 13 relation index                     mark of a dropped index whose entries still go
//! 14                                    the group's members
//! 15 node                               a node of the cluster (group 0); without an address, one that has left
//! 20 relation key                       row
//! 21 relation                           next hidden rowid
//! 30 relation index columns… key        secondary index entry
//! 40 topic partition offset             block of events, by its first offset
//! 41 topic partition                    next offset, armed events
//! 50 topic timer_id                     timer
//! 51 due sequence                       timer by due time: topic, partition, timer_id; of a schedule: it, 0 and ""
//! 60 topic bucket hash                  dedup claim
//! 70 session sequence                   outcome of a request
//! 71 session                            session: floor, time of last use
//! 80 topic consumer_group partition     consumer group: ack floor and gaps
//! 81 topic consumer_group partition     how often events that are not done were handed out in vain
//! 90 target number                      outbox: a write for another group
//! 91 target                             the number of the last write that was put there
//! 92 origin                             the last number of another group's outbox that was applied here
//! A0 schedule                           what is pending of a schedule, and its counters
//! A1 schedule nominal by_hand           an occurrence whose statement is to be run
//! A2 schedule number                    a run that is over, by its number in the schedule's history
//! ```
//!
//! Numbers are big-endian, so keys order as their values do.

use bytes::Bytes;
use chronos_proto::id::{GroupId, IndexId, NodeId, RelationId, SessionId};
use chronos_proto::schedule::Occurrence;
use chronos_proto::{Timestamp, key};
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// The tags of the layout above.
pub mod tag {
    #![allow(missing_docs)]
    pub const ROOT: u8 = 0x00;
    pub const GROUP: u8 = 0x01;
    pub const INSTALLED: u8 = 0x02;
    pub const HASH_SEED: u8 = 0x03;
    pub const INCOMING: u8 = 0x04;
    pub const CATALOG: u8 = 0x10;
    pub const PURGE: u8 = 0x11;
    pub const BACKFILL: u8 = 0x12;
    pub const PURGE_INDEX: u8 = 0x13;
    pub const MEMBERSHIP: u8 = 0x14;
    pub const MEMBER: u8 = 0x15;
    pub const ROW: u8 = 0x20;
    pub const ROWID: u8 = 0x21;
    pub const INDEX: u8 = 0x30;
    pub const EVENT: u8 = 0x40;
    pub const PARTITION: u8 = 0x41;
    pub const TIMER: u8 = 0x50;
    pub const DUE: u8 = 0x51;
    pub const CLAIM: u8 = 0x60;
    pub const REQUEST: u8 = 0x70;
    pub const SESSION: u8 = 0x71;
    pub const CONSUMER: u8 = 0x80;
    pub const ATTEMPTS: u8 = 0x81;
    pub const OUTBOX: u8 = 0x90;
    pub const OUTBOX_LAST: u8 = 0x91;
    pub const INBOX: u8 = 0x92;
    pub const SCHEDULE: u8 = 0xA0;
    pub const RUNNING: u8 = 0xA1;
    pub const RUN: u8 = 0xA2;
    /// What a dropped relation leaves behind.
    pub const OF_RELATION: [u8; 13] = [
        ROW, ROWID, INDEX, EVENT, PARTITION, TIMER, CLAIM, CONSUMER, ATTEMPTS, BACKFILL, SCHEDULE, RUNNING,
        RUN,
    ];
}

/// Bytes of (group, generation) before a state key in the store.
pub const PREFIX_BYTES: usize = 8;

/// A half-open range of state keys: what a transaction read, or what a scan covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// First key inside.
    pub start: Bytes,
    /// First key past the end.
    pub end: Bytes,
}

impl KeyRange {
    /// Exactly one key.
    pub fn point(key: Bytes) -> KeyRange {
        let mut end = Vec::with_capacity(key.len() + 1);
        end.extend_from_slice(&key);
        end.push(0);
        KeyRange { start: key, end: Bytes::from(end) }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        KeyRange { start: Bytes::copy_from_slice(prefix), end: successor(prefix) }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start <= key && key < self.end
    }

    /// Whether it is exactly one key.
    pub fn is_point(&self) -> bool {
        self.end.len() == self.start.len() + 1
            && self.end.starts_with(&self.start)
            && self.end.ends_with(&[0])
    }

    /// As bounds.
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.start[..]), Bound::Excluded(&self.end[..]))
    }
}

/// The least key above every key that begins with `prefix`. Tags are below 0xFF, so there is one.
pub fn successor(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|&b| b != 0xFF).map_or(0, |i| i + 1);
    let mut out = prefix[..kept].to_vec();
    match out.last_mut() {
        Some(last) => *last += 1,
        None => out.push(0xFF),
    }
    Bytes::from(out)
}

/// The store's prefix for a group and generation.
pub fn store_prefix(group: GroupId, generation: u32) -> [u8; PREFIX_BYTES] {
    let mut out = [0; PREFIX_BYTES];
    out[..4].copy_from_slice(&group.0.to_be_bytes());
    out[4..].copy_from_slice(&generation.to_be_bytes());
    out
}

/// The store's key of a group's root record.
pub fn root(group: GroupId) -> Bytes {
    Bytes::from([&store_prefix(group, 0)[..], &[tag::ROOT]].concat())
}

/// The store's key of a state key.
pub fn store_key(group: GroupId, generation: u32, key: &[u8]) -> Bytes {
    Bytes::from([&store_prefix(group, generation)[..], key].concat())
}

/// The generation of a store's key.
pub fn store_generation(full: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(full.get(4..PREFIX_BYTES)?.try_into().ok()?))
}

fn tagged(tag: u8, relation: RelationId, rest: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(5 + rest.len());
    out.push(tag);
    out.extend_from_slice(&relation.0.to_be_bytes());
    out.extend_from_slice(rest);
    Bytes::from(out)
}

/// The group record.
pub fn group_record() -> Bytes {
    Bytes::from_static(&[tag::GROUP])
}

/// A catalogue entry.
pub fn catalog(relation: RelationId) -> Bytes {
    tagged(tag::CATALOG, relation, &[])
}

/// The whole catalogue: what a statement that makes a relation reads.
pub fn catalog_all() -> KeyRange {
    KeyRange::prefix(&[tag::CATALOG])
}

/// The mark of a dropped relation whose data still goes.
pub fn purge(relation: RelationId) -> Bytes {
    tagged(tag::PURGE, relation, &[])
}

/// The cursor of an index being filled: the last row's key done, or empty.
pub fn backfill(relation: RelationId, index: IndexId) -> Bytes {
    tagged(tag::BACKFILL, relation, &index.0.to_be_bytes())
}

/// A row, by its encoded primary key.
pub fn row(relation: RelationId, primary_key: &[u8]) -> Bytes {
    tagged(tag::ROW, relation, primary_key)
}

/// The encoded primary key inside a row's state key.
pub fn row_primary_key(key: &[u8]) -> &[u8] {
    key.get(5..).unwrap_or_default()
}

/// Every row of a table.
pub fn rows(relation: RelationId) -> KeyRange {
    KeyRange::prefix(&tagged(tag::ROW, relation, &[]))
}

/// The next hidden rowid of a table.
pub fn rowid(relation: RelationId) -> Bytes {
    tagged(tag::ROWID, relation, &[])
}

/// The encoded primary key of a hidden rowid.
pub fn rowid_primary_key(rowid: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    key::encode(&mut out, &chronos_proto::Value::Int(rowid));
    out
}

/// A secondary index entry: encoded columns and primary key.
pub fn index_entry(relation: RelationId, index: IndexId, entry: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(9 + entry.len());
    out.push(tag::INDEX);
    out.extend_from_slice(&relation.0.to_be_bytes());
    out.extend_from_slice(&index.0.to_be_bytes());
    out.extend_from_slice(entry);
    Bytes::from(out)
}

/// The encoded columns and primary key inside an index entry's state key.
pub fn index_entry_suffix(key: &[u8]) -> &[u8] {
    key.get(9..).unwrap_or_default()
}

/// The index columns of an entry: as they are, or shortened to an ordered prefix and a 128-bit hash when they are
/// long. Readers of an index fetch the row and recheck, so a shortened entry is never trusted for its value.
pub fn index_columns(encoded: &[u8]) -> Vec<u8> {
    use chronos_proto::limits::INDEX_PREFIX_MAX_BYTES as MAX;
    if encoded.len() <= MAX {
        return encoded.to_vec();
    }
    let mut out = Vec::with_capacity(MAX + 16);
    out.extend_from_slice(&encoded[..MAX]);
    out.extend_from_slice(&chronos_proto::codec::keyed_hash(0, encoded).to_be_bytes());
    out
}

/// A block of events, by its first offset.
pub fn events(topic: RelationId, partition: u32, offset: u64) -> Bytes {
    let mut rest = [0; 12];
    rest[..4].copy_from_slice(&partition.to_be_bytes());
    rest[4..].copy_from_slice(&offset.to_be_bytes());
    tagged(tag::EVENT, topic, &rest)
}

/// The first offset inside a block's state key.
pub fn events_first_offset(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// The record of a topic's partition.
pub fn partition(topic: RelationId, partition: u32) -> Bytes {
    tagged(tag::PARTITION, topic, &partition.to_be_bytes())
}

/// A timer, by topic and id.
pub fn timer(topic: RelationId, timer_id: &str) -> Bytes {
    tagged(tag::TIMER, topic, timer_id.as_bytes())
}

/// The timer id inside a timer's state key.
pub fn timer_id(key: &[u8]) -> &[u8] {
    key.get(5..).unwrap_or_default()
}

/// Every timer of a topic.
pub fn timers(topic: RelationId) -> KeyRange {
    KeyRange::prefix(&tagged(tag::TIMER, topic, &[]))
}

/// A timer's place in the due order.
pub fn due(due: Timestamp, sequence: u64) -> Bytes {
    let mut out = Vec::with_capacity(17);
    out.push(tag::DUE);
    key::encode_i64(&mut out, due.0);
    out.extend_from_slice(&sequence.to_be_bytes());
    Bytes::from(out)
}

/// Due time and sequence inside a due entry's state key.
pub fn due_parts(key: &[u8]) -> Option<(Timestamp, u64)> {
    let mut rest = key.get(1..)?;
    let due = key::decode_i64(&mut rest)?;
    Some((Timestamp(due), u64::from_be_bytes(rest.try_into().ok()?)))
}

/// Every timer in due order.
pub fn due_all() -> KeyRange {
    KeyRange::prefix(&[tag::DUE])
}

/// A dedup claim.
pub fn claim(topic: RelationId, bucket: u32, hash: u128) -> Bytes {
    let mut rest = [0; 20];
    rest[..4].copy_from_slice(&bucket.to_be_bytes());
    rest[4..].copy_from_slice(&hash.to_be_bytes());
    tagged(tag::CLAIM, topic, &rest)
}

/// The outcome of one request.
pub fn request(session: SessionId, sequence: u64) -> Bytes {
    let mut out = Vec::with_capacity(25);
    out.push(tag::REQUEST);
    out.extend_from_slice(&session.0.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
    Bytes::from(out)
}

/// Session and sequence inside a request's state key.
pub fn request_parts(key: &[u8]) -> Option<(SessionId, u64)> {
    let session = u128::from_be_bytes(key.get(1..17)?.try_into().ok()?);
    Some((SessionId(session), u64::from_be_bytes(key.get(17..25)?.try_into().ok()?)))
}

/// A session's record.
pub fn session(session: SessionId) -> Bytes {
    let mut out = Vec::with_capacity(17);
    out.push(tag::SESSION);
    out.extend_from_slice(&session.0.to_be_bytes());
    Bytes::from(out)
}

/// The mark of a dropped index whose entries still go.
pub fn purge_index(relation: RelationId, index: IndexId) -> Bytes {
    tagged(tag::PURGE_INDEX, relation, &index.0.to_be_bytes())
}

/// Every entry of a secondary index.
pub fn index_entries(relation: RelationId, index: IndexId) -> KeyRange {
    KeyRange::prefix(&index_entry(relation, index, &[]))
}

/// Relation and index inside a backfill cursor's or a dropped index's state key.
pub fn backfill_parts(key: &[u8]) -> Option<(RelationId, IndexId)> {
    let relation = u32::from_be_bytes(key.get(1..5)?.try_into().ok()?);
    Some((RelationId(relation), IndexId(u32::from_be_bytes(key.get(5..9)?.try_into().ok()?))))
}

/// The relation inside the state key of anything that belongs to one.
pub fn relation(key: &[u8]) -> Option<RelationId> {
    Some(RelationId(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?)))
}

/// Topic and partition inside a partition record's state key.
pub fn partition_parts(key: &[u8]) -> Option<(RelationId, u32)> {
    Some((relation(key)?, u32::from_be_bytes(key.get(5..9)?.try_into().ok()?)))
}

/// Topic and bucket inside a claim's state key.
pub fn claim_parts(key: &[u8]) -> Option<(RelationId, u32)> {
    partition_parts(key)
}

/// Every claim of a topic's bucket.
pub fn claims(topic: RelationId, bucket: u32) -> KeyRange {
    KeyRange::prefix(&tagged(tag::CLAIM, topic, &bucket.to_be_bytes()))
}

/// Where a snapshot that was installed ends.
pub fn installed() -> Bytes {
    Bytes::from_static(&[tag::INSTALLED])
}

/// How far a snapshot has come that is not live yet.
pub fn incoming() -> Bytes {
    Bytes::from_static(&[tag::INCOMING])
}

/// What the ids that clients chose are hashed with.
pub fn hash_seed() -> Bytes {
    Bytes::from_static(&[tag::HASH_SEED])
}

/// Everything that a copy of a state has: all but the root record.
pub fn portable() -> KeyRange {
    KeyRange { start: Bytes::from_static(&[tag::GROUP]), end: Bytes::from_static(&[0xFF]) }
}

/// Whether the sums over the state cover an entry.
pub fn is_summed(key: &[u8]) -> bool {
    key.first().is_some_and(|first| *first >= tag::CATALOG)
}

/// The group's members.
pub fn membership() -> Bytes {
    Bytes::from_static(&[tag::MEMBERSHIP])
}

/// A node of the cluster.
pub fn member(node: NodeId) -> Bytes {
    let mut out = vec![tag::MEMBER];
    out.extend_from_slice(&node.0.to_be_bytes());
    Bytes::from(out)
}

/// Every key of one tag, or of one tag and relation.
pub fn all(tag: u8, relation: Option<RelationId>) -> KeyRange {
    match relation {
        Some(relation) => KeyRange::prefix(&tagged(tag, relation, &[])),
        None => KeyRange::prefix(&[tag]),
    }
}

/// The id inside a session's state key.
pub fn session_id(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(u128::from_be_bytes(key.get(1..17)?.try_into().ok()?)))
}

/// A consumer group's progress in one partition.
pub fn consumer(topic: RelationId, consumer_group: &str, partition: u32) -> Bytes {
    of_consumer(tag::CONSUMER, topic, consumer_group, partition)
}

/// How often a consumer group was handed events of a partition in vain.
pub fn attempts(topic: RelationId, consumer_group: &str, partition: u32) -> Bytes {
    of_consumer(tag::ATTEMPTS, topic, consumer_group, partition)
}

fn of_consumer(tag: u8, topic: RelationId, consumer_group: &str, partition: u32) -> Bytes {
    let mut rest = Vec::with_capacity(consumer_group.len() + 6);
    key::encode_bytes(&mut rest, consumer_group.as_bytes());
    rest.extend_from_slice(&partition.to_be_bytes());
    tagged(tag, topic, &rest)
}

fn of_group(tag: u8, group: GroupId, rest: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(5 + rest.len());
    out.push(tag);
    out.extend_from_slice(&group.0.to_be_bytes());
    out.extend_from_slice(rest);
    Bytes::from(out)
}

/// A write for another group.
pub fn outbox(target: GroupId, number: u64) -> Bytes {
    of_group(tag::OUTBOX, target, &number.to_be_bytes())
}

/// Target and number inside an outbox entry's state key.
pub fn outbox_parts(key: &[u8]) -> Option<(GroupId, u64)> {
    let group = relation(key)?.0;
    Some((GroupId(group), u64::from_be_bytes(key.get(5..13)?.try_into().ok()?)))
}

/// The number of the last write that was put into the outbox for a group.
pub fn outbox_last(target: GroupId) -> Bytes {
    of_group(tag::OUTBOX_LAST, target, &[])
}

/// The last number of another group's outbox that was applied here.
pub fn inbox(origin: GroupId) -> Bytes {
    of_group(tag::INBOX, origin, &[])
}

/// The group inside the state key of an outbox's last number or of an inbox.
pub fn group_of(key: &[u8]) -> Option<GroupId> {
    relation(key).map(|number| GroupId(number.0))
}

/// What is pending of a schedule. It stands, in what a transaction reads, for all of a schedule's runs.
pub fn schedule(schedule: RelationId) -> Bytes {
    tagged(tag::SCHEDULE, schedule, &[])
}

/// An occurrence whose statement is to be run.
pub fn running(schedule: RelationId, occurrence: Occurrence) -> Bytes {
    let mut rest = Vec::with_capacity(16);
    key::encode_i64(&mut rest, occurrence.nominal.0);
    rest.extend_from_slice(&occurrence.by_hand.to_be_bytes());
    tagged(tag::RUNNING, schedule, &rest)
}

/// Schedule and occurrence inside the state key of one whose statement is to be run.
pub fn running_parts(key: &[u8]) -> Option<(RelationId, Occurrence)> {
    let mut rest = key.get(5..)?;
    let nominal = Timestamp(key::decode_i64(&mut rest)?);
    let by_hand = u64::from_be_bytes(rest.try_into().ok()?);
    Some((relation(key)?, Occurrence { nominal, by_hand }))
}

/// A run that is over.
pub fn run(schedule: RelationId, number: u64) -> Bytes {
    tagged(tag::RUN, schedule, &number.to_be_bytes())
}
