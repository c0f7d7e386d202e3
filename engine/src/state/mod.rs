//! The replicated state of one group: everything that applied entries made, in one ordered byte-key space.
//!
//! [`State`] is the overlay over the last checkpoint plus what is too hot to be decoded anew for each entry: the
//! catalogue, the partitions' next offsets, the sessions, the counters. All of it can be rebuilt from the keys
//! (`State::open`), and the counters are written into the group record whenever the overlay is frozen.
//!
//! Every put carries the digest of what it replaces, so a sum of digests per (tag, relation, bucket) is kept without
//! reading anything: two replicas at one index have equal sums, and so have the state and its store.
//!
//! Not implemented: retention of topics, chunks of cold rows.

pub mod apply;
mod claims;
mod digest;
mod founding;
pub mod index;
pub mod keys;
mod outbox;
pub mod overlay;
pub mod records;
mod schedules;
pub mod sealed;
mod sessions;
pub mod snapshot;
mod ttl;

use crate::bugs::{self, Bug};
use crate::catalog::Catalog;
use crate::step::GroupCheckpoint;
use crate::store::SharedStore;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::id::{GroupId, Index, IndexId, NodeId, RelationId, Term};
use chronos_proto::membership::{Configuration, Member};
use chronos_proto::raft::LogId;
use chronos_proto::schema::Relation;
use chronos_proto::time::Timestamp;
pub use claims::CLAIMS_MAX;
pub use digest::Digests;
pub use founding::Founding;
use keys::tag;
use overlay::Overlay;
use records::PartitionRecord;
pub use records::ReadError;
pub use schedules::{Pending, RunOutcome, RunRecord, RunningRecord, ScheduleRecord};
use serde::{Deserialize, Serialize};
pub use sessions::{Outcome, SESSION_IDLE_US, SESSION_OUTCOMES_MAX, Sessions};
use snapshot::Snapshot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A group's root record, under generation 0: what the store holds of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Version of the state's layout.
    pub version: u32,
    /// The generation that is live.
    pub generation: u32,
    /// The store holds the state at this index.
    pub applied: Index,
    /// That entry's term.
    pub term: Term,
    /// That entry's time.
    pub time: Timestamp,
}

/// The layout that this build writes and reads.
pub const STATE_VERSION: u32 = 1;

/// Counters and sums, written when the overlay is frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    stamp: u64,
    timer_sequence: u64,
    timers_pending: u64,
    next_relation: u32,
    claims: Vec<(RelationId, u32, u64)>,
    digests: Vec<(u8, u32, u8, u64)>,
}

impl GroupRecord {
    /// The sums over all of the state.
    pub fn digests(&self) -> Digests {
        Digests::from_stored(&self.digests)
    }
}

/// A topic's partition in memory, with the digest of its stored record.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Partition {
    pub(crate) record: PartitionRecord,
    stored_digest: u64,
}

/// The state of one group.
#[derive(Serialize, Deserialize)]
pub struct State {
    group: GroupId,
    generation: u32,
    hash_seed: u64,
    overlay: Overlay,
    digests: Digests,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) applied: Index,
    pub(crate) applied_term: Term,
    pub(crate) applied_time: Timestamp,
    pub(crate) stamp: u64,
    pub(crate) sessions: Sessions,
    /// The group's members, once they were logged.
    pub(crate) membership: Option<Configuration>,
    /// The cluster's nodes; group 0's state has them.
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) timers_pending: u64,
    timer_sequence: u64,
    /// Background work was asked for since [`State::work_appeared`] was last called.
    work: bool,
    partitions: BTreeMap<(RelationId, u32), Partition>,
    rowids: BTreeMap<RelationId, i64>,
    claims: BTreeMap<(RelationId, u32), u64>,
    outboxes: outbox::Outboxes,
    /// Occurrences of schedules whose statement runs or waits to run.
    running: u64,
}

impl State {
    /// The state that the store holds; empty if it holds none. `hash_seed` keys the dedup hash, the same at every
    /// replica; a state that came from another cluster brings its own.
    pub fn open(group: GroupId, hash_seed: u64, store: &SharedStore) -> Result<State, ReadError> {
        let mut state = State {
            group,
            generation: 1,
            hash_seed,
            overlay: Overlay::default(),
            digests: Digests::default(),
            catalog: Arc::default(),
            applied: Index(0),
            applied_term: Term(0),
            applied_time: Timestamp::EPOCH,
            stamp: 0,
            sessions: Sessions::default(),
            membership: None,
            members: BTreeMap::new(),
            timers_pending: 0,
            timer_sequence: 0,
            work: true,
            partitions: BTreeMap::new(),
            rowids: BTreeMap::new(),
            claims: BTreeMap::new(),
            outboxes: outbox::Outboxes::default(),
            running: 0,
        };
        let key = keys::root(group);
        if let Some(sealed) = store.get(&key)? {
            let root: Root = codec::decode("root record", &sealed::open(&key, &sealed)?)?;
            state.load(&root, store)?;
        }
        Ok(state)
    }

    fn load(&mut self, root: &Root, store: &SharedStore) -> Result<(), ReadError> {
        if root.version != STATE_VERSION {
            let why =
                format!("layout version {} is not {STATE_VERSION}, which this build reads", root.version);
            return Err(codec::DecodeError { what: "root record", why }.into());
        }
        self.generation = root.generation;
        if let Some(seed) = self.record("hash seed", &keys::hash_seed(), store)? {
            self.hash_seed = seed;
        }
        let again = u64::from(bugs::active(Bug::ApplyTwice));
        self.applied = Index(root.applied.0.saturating_sub(again));
        self.applied_term = root.term;
        self.applied_time = root.time;
        let record: GroupRecord =
            self.record("group record", &keys::group_record(), store)?.unwrap_or_default();
        self.stamp = record.stamp;
        self.timer_sequence = record.timer_sequence;
        self.timers_pending = record.timers_pending;
        self.claims =
            record.claims.iter().map(|(topic, bucket, count)| ((*topic, *bucket), *count)).collect();
        self.digests = Digests::from_stored(&record.digests);
        let snapshot = self.snapshot(store);
        let catalog = Arc::make_mut(&mut self.catalog);
        for entry in snapshot.scan(&keys::catalog_all(), false) {
            let relation: Relation = codec::decode("relation", &entry?.1)?;
            catalog.put(relation);
        }
        catalog.reserve(record.next_relation);
        for entry in snapshot.scan(&keys::all(tag::PARTITION, None), false) {
            let (key, value) = entry?;
            let record = codec::decode("partition", &value)?;
            if let Some(parts) = keys::partition_parts(&key) {
                self.partitions
                    .insert(parts, Partition { record, stored_digest: codec::digest(&key, &value) });
            }
        }
        self.sessions = Sessions::load(&snapshot)?;
        self.outboxes = outbox::Outboxes::load(&snapshot)?;
        self.running = State::count_running(&snapshot)?;
        self.membership = snapshot.record("membership", &keys::membership())?;
        for entry in snapshot.scan(&keys::all(tag::MEMBER, None), false) {
            let member: Member = codec::decode("member", &entry?.1)?;
            self.members.insert(member.node, member);
        }
        Ok(())
    }

    /// Where the snapshot ends that this state began as; none if it began empty.
    pub fn installed(&self, store: &SharedStore) -> Result<Option<LogId>, ReadError> {
        self.record("installed", &keys::installed(), store)
    }

    /// Every entry up to here is in it.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// What the ids that clients chose are hashed with.
    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// The generation that the state's keys are under in the store.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Says how many groups beside group 0 there are; see [`Catalog::partition_groups`].
    pub(crate) fn set_partition_groups(&mut self, groups: u32) {
        Arc::make_mut(&mut self.catalog).set_partition_groups(groups);
    }

    /// The group's members, once they were logged.
    pub fn membership(&self) -> Option<&Configuration> {
        self.membership.as_ref()
    }

    /// The cluster's nodes, as far as this group's state knows them.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.address.is_empty())
    }

    /// Whether a node was one of the cluster's and is not any more.
    pub fn has_left(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.address.is_empty())
    }

    /// All of the state as others may have it: a snapshot whose group record is that of this very index.
    pub fn portable(&self, store: &SharedStore) -> Snapshot {
        let mut snapshot = self.snapshot(store);
        snapshot.write(keys::group_record(), Some(Bytes::from(codec::encode(&self.group_record()))));
        snapshot.write(keys::installed(), None);
        snapshot
    }

    /// The root record that makes `generation`, which holds the state at `last`, the live one.
    pub fn root_of(group: GroupId, generation: u32, last: LogId, time: Timestamp) -> Bytes {
        let root = Root { version: STATE_VERSION, generation, applied: last.index, term: last.term, time };
        sealed::seal(&keys::root(group), &codec::encode(&root))
    }

    /// What readers get. Cheap.
    pub fn snapshot(&self, store: &SharedStore) -> Snapshot {
        Snapshot {
            group: self.group,
            applied: self.applied,
            applied_time: self.applied_time,
            catalog: self.catalog.clone(),
            generation: self.generation,
            active: self.overlay.active.clone(),
            frozen: self.overlay.frozen.clone(),
            store: store.clone(),
            others: None,
            statements_due: self.running,
        }
    }

    /// The value under a state key.
    pub fn get(&self, key: &[u8], store: &SharedStore) -> Result<Option<Bytes>, ReadError> {
        match self.overlay.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(snapshot::get_stored(store, self.group, self.generation, key)?),
        }
    }

    fn record<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        key: &[u8],
        store: &SharedStore,
    ) -> Result<Option<T>, ReadError> {
        Ok(match self.get(key, store)? {
            Some(value) => Some(codec::decode(what, &value)?),
            None => None,
        })
    }

    /// Writes a value whose predecessor's digest is known (0: none).
    fn put_known(&mut self, key: Bytes, value: Option<Bytes>, replaces: u64) {
        let digest = value.as_ref().map_or(0, |value| codec::digest(&key, value));
        self.digests.replace(&key, replaces, digest);
        self.overlay.put(key, value);
    }

    /// Writes a value, reading its predecessor.
    fn put(&mut self, key: Bytes, value: Option<Bytes>, store: &SharedStore) -> Result<(), ReadError> {
        let replaces = self.digest_of(&key, store)?;
        self.put_known(key, value, replaces);
        Ok(())
    }

    /// The digest of what is under a key; 0 if nothing is.
    fn digest_of(&self, key: &[u8], store: &SharedStore) -> Result<u64, ReadError> {
        Ok(self.get(key, store)?.map_or(0, |value| codec::digest(key, &value)))
    }

    /// Bytes held in memory over the store.
    pub fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// Freezes the overlay, counters included. None while one is frozen already.
    pub fn freeze(&mut self) -> Option<GroupCheckpoint> {
        if self.overlay.frozen.is_some() {
            return None;
        }
        let record = self.group_record();
        // The group record holds the sums, so it is not part of them.
        self.overlay.put(keys::group_record(), Some(Bytes::from(codec::encode(&record))));
        let last = LogId { term: self.applied_term, index: self.applied };
        Some(GroupCheckpoint {
            group: self.group,
            generation: self.generation,
            applied: self.applied,
            term: self.applied_term,
            layer: self.overlay.freeze()?,
            root: Some(Self::root_of(self.group, self.generation, last, self.applied_time)),
        })
    }

    fn group_record(&self) -> GroupRecord {
        GroupRecord {
            stamp: self.stamp,
            timer_sequence: self.timer_sequence,
            timers_pending: self.timers_pending,
            next_relation: self.catalog.next_id().0,
            claims: self.claims.iter().map(|((topic, bucket), count)| (*topic, *bucket, *count)).collect(),
            digests: self.digests.to_stored(),
        }
    }

    /// The store has what was frozen.
    pub fn thaw(&mut self) {
        self.overlay.thaw();
    }

    /// The sums over all of the state, for comparison with another replica or with the store.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The sums computed anew from every key: slow, for checkers.
    pub fn recompute_digests(&self, store: &SharedStore) -> Result<Digests, ReadError> {
        let mut digests = Digests::default();
        let everything =
            keys::KeyRange { start: Bytes::from_static(&[tag::CATALOG]), end: Bytes::from_static(&[0xFF]) };
        for entry in self.snapshot(store).scan(&everything, false) {
            let (key, value) = entry?;
            digests.replace(&key, 0, codec::digest(&key, &value));
        }
        Ok(digests)
    }

    /// Partitions with events, their next offset and their armed events.
    pub fn partitions(&self) -> impl Iterator<Item = (RelationId, u32, &PartitionRecord)> {
        self.partitions.iter().map(|((topic, number), p)| (*topic, *number, &p.record))
    }

    /// Where a partition ends for readers at `now`: at the first event that is not released.
    pub fn released_end(&self, topic: RelationId, partition: u32, now: Timestamp) -> u64 {
        let Some(Partition { record, .. }) = self.partitions.get(&(topic, partition)) else { return 0 };
        let armed = record.armed.iter().find(|(_, release, _)| *release > now);
        armed.map_or(record.next, |(offset, _, _)| *offset)
    }

    /// Release times after `now` of a partition's events.
    pub fn releases(&self, topic: RelationId, partition: u32, now: Timestamp) -> Vec<Timestamp> {
        let armed = self.partitions.get(&(topic, partition)).map(|p| &p.record.armed[..]).unwrap_or_default();
        armed.iter().map(|(_, release, _)| *release).filter(|release| *release > now).collect()
    }

    /// Whether background work was asked for since the last call.
    pub(crate) fn work_appeared(&mut self) -> bool {
        std::mem::take(&mut self.work)
    }

    pub(crate) fn partition_mut(&mut self, topic: RelationId, partition: u32) -> &mut Partition {
        self.partitions.entry((topic, partition)).or_default()
    }

    fn put_partition(&mut self, topic: RelationId, number: u32) {
        let key = keys::partition(topic, number);
        let Some(partition) = self.partitions.get_mut(&(topic, number)) else { return };
        let value = Bytes::from(codec::encode(&partition.record));
        let replaces = std::mem::replace(&mut partition.stored_digest, codec::digest(&key, &value));
        self.put_known(key, Some(value), replaces);
    }

    fn next_timer_sequence(&mut self) -> u64 {
        self.timer_sequence += 1;
        self.timer_sequence
    }

    fn next_rowid(&mut self, relation: RelationId, store: &SharedStore) -> Result<i64, ReadError> {
        let key = keys::rowid(relation);
        let last = match self.rowids.get(&relation) {
            Some(last) => *last,
            None => self.record("rowid", &key, store)?.unwrap_or(0),
        };
        let encoded = |rowid: i64| Bytes::from(codec::encode(&rowid));
        let replaces = if last == 0 { 0 } else { codec::digest(&key, &encoded(last)) };
        self.put_known(key, Some(encoded(last + 1)), replaces);
        self.rowids.insert(relation, last + 1);
        Ok(last + 1)
    }

    fn forget_relation(&mut self, relation: RelationId) {
        self.partitions.retain(|(topic, _), _| *topic != relation);
        self.claims.retain(|(topic, _), _| *topic != relation);
        self.rowids.remove(&relation);
    }

    /// The next slice of background work, if any is due at `now`. One is proposed at a time.
    pub fn pending_work(
        &self,
        now: Timestamp,
        store: &SharedStore,
    ) -> Result<Option<chronos_proto::command::Work>, ReadError> {
        use chronos_proto::command::Work;
        const LIMIT: u32 = 256;
        let snapshot = self.snapshot(store);
        for tag in [tag::PURGE, tag::PURGE_INDEX] {
            if let Some(entry) = snapshot.scan(&keys::all(tag, None), false).next()
                && let Some(relation) = keys::relation(&entry?.0)
            {
                return Ok(Some(Work::Purge { relation, limit: LIMIT }));
            }
        }
        if let Some(entry) = snapshot.scan(&keys::all(tag::BACKFILL, None), false).next()
            && let Some((relation, index)) = keys::backfill_parts(&entry?.0)
        {
            return Ok(Some(Work::Backfill { relation, index, limit: LIMIT }));
        }
        if let Some((relation, index)) = self.filled_index(&snapshot)? {
            return Ok(Some(Work::PublishIndex { relation, index }));
        }
        if self.expiry_due() {
            return Ok(Some(Work::Expire { limit: LIMIT }));
        }
        self.expired_rows(now, &snapshot, LIMIT as usize)
    }

    fn filled_index(&self, snapshot: &Snapshot) -> Result<Option<(RelationId, IndexId)>, ReadError> {
        use chronos_proto::schema::IndexState;
        for relation in self.catalog.iter() {
            let Some(table) = relation.table() else { continue };
            for index in table.indexes.iter().filter(|i| i.state == IndexState::WriteOnly) {
                if snapshot.get(&keys::backfill(relation.id, index.id))?.is_none() {
                    return Ok(Some((relation.id, index.id)));
                }
            }
        }
        Ok(None)
    }
}
