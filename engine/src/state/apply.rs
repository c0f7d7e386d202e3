//! Applying entries: the deterministic half of the state machine.
//!
//! An entry changes the state by its own content and its own time alone. What the rest of the node must know of it
//! (timers that came, events that were appended) is handed back as [`Change`]s, in order.

use super::keys::{self, tag};
use super::records::{ConsumerRecord, StoredEvent, TimerRecord};
use super::{Partition, ReadError, State};
use crate::bugs::{self, Bug};
use crate::store::SharedStore;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::command::{Command, Entry, Event, Op, OpOutcome, TimerRef, Work};
use chronos_proto::id::{GroupId, IndexId, RelationId};
use chronos_proto::schema::{IndexState, Relation, RelationKind};
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

mod dead;

pub use dead::REDRIVER;

/// Bytes of encoded events in one stored block, just under four LMDB pages so that freed runs are reused.
const EVENT_BLOCK_BYTES: usize = 16_000;

/// What an applied entry means to the rest of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A timer is pending, or pending at another time.
    TimerSet(TimerRef),
    /// A partition got events.
    Appended {
        /// The topic.
        topic: RelationId,
        /// The partition.
        partition: u32,
    },
    /// A consumer group's progress changed.
    Acked {
        /// The topic.
        topic: RelationId,
        /// The consumer group.
        consumer_group: String,
        /// What is done now.
        offsets: Vec<(u32, u64)>,
    },
    /// Events that were to become dead letters did not: the topic for them is not there.
    Kept {
        /// The topic.
        topic: RelationId,
        /// The consumer group.
        consumer_group: String,
        /// (partition, offset) pairs.
        offsets: Vec<(u32, u64)>,
    },
    /// A relation is new, or was changed.
    Defined(RelationId),
    /// Something was put into the outbox for a group.
    Sent(GroupId),
    /// Writes of another group's outbox are applied, all up to this number.
    Received {
        /// Whose outbox.
        origin: GroupId,
        /// The number.
        upto: u64,
    },
    /// A relation is gone.
    Dropped(RelationId),
    /// The group's time was set by an operator.
    TimeSet(Timestamp),
    /// A node of the cluster is new, changed or gone.
    Members,
}

/// Events on their way into partitions, gathered over one entry so that they share blocks.
type Appends = BTreeMap<(RelationId, u32), Vec<StoredEvent>>;

/// A pending timer, with the key and the bytes it was read from: its digest is theirs.
struct StoredTimer {
    key: Bytes,
    stored: Bytes,
    record: TimerRecord,
}

/// One entry being applied.
pub(super) struct Apply<'a> {
    pub(super) state: &'a mut State,
    pub(super) store: &'a SharedStore,
    pub(super) time: Timestamp,
    appends: Appends,
    pub(super) changes: &'a mut Vec<Change>,
}

impl State {
    /// Applies the next entry. On an error the state is damaged and the node must stop.
    pub fn apply(
        &mut self,
        entry: &Entry,
        store: &SharedStore,
        changes: &mut Vec<Change>,
    ) -> Result<Vec<OpOutcome>, ReadError> {
        assert_eq!(entry.index, self.applied.next(), "entries apply in order");
        assert!(
            entry.time >= self.applied_time || matches!(*entry.command, Command::TimeEpoch(_)),
            "time went back: {} after {}",
            entry.time,
            self.applied_time
        );
        let mut apply = Apply { state: self, store, time: entry.time, appends: Appends::new(), changes };
        let outcomes = apply.command(entry)?;
        apply.append_events()?;
        self.applied = entry.index;
        self.applied_term = entry.term;
        self.applied_time = entry.time;
        self.stamp = self.stamp.max(entry.stamp);
        Ok(outcomes)
    }
}

impl Apply<'_> {
    fn command(&mut self, entry: &Entry) -> Result<Vec<OpOutcome>, ReadError> {
        match &*entry.command {
            Command::Noop | Command::AdvanceTime => {}
            Command::Batch { request, ops } => {
                if let Some(first) = self.state.sessions.outcome(*request) {
                    return Ok(first.outcomes.clone());
                }
                let outcomes = ops.iter().map(|op| self.op(op)).collect::<Result<Vec<_>, _>>()?;
                if !bugs::active(Bug::ForgetRequest) {
                    self.state.remember(*request, entry, &outcomes, self.store)?;
                }
                return Ok(outcomes);
            }
            Command::Fire { timers } => {
                for timer in timers {
                    self.fire(timer)?;
                }
            }
            Command::Work(work) => self.work(work)?,
            Command::Ack { topic, consumer_group, offsets } => self.ack(*topic, consumer_group, offsets)?,
            Command::StartGroup { topic, consumer_group, floors } => {
                self.start_group(*topic, consumer_group, floors)?;
            }
            Command::TimeEpoch(time) => {
                self.time = *time;
                self.changes.push(Change::TimeSet(*time));
            }
            Command::Membership(configuration) => {
                let value = Bytes::from(codec::encode(configuration));
                self.state.put(keys::membership(), Some(value), self.store)?;
                self.state.membership = Some(configuration.clone());
            }
            Command::PutMember(member) => {
                let value = Bytes::from(codec::encode(member));
                self.state.put(keys::member(member.node), Some(value), self.store)?;
                self.state.members.insert(member.node, member.clone());
                self.changes.push(Change::Members);
            }
            Command::DropMember(node) => {
                // That it has left is kept: who gives it as a peer still does not bring it back.
                if let Some(member) = self.state.members.get_mut(node) {
                    member.address.clear();
                    let value = Bytes::from(codec::encode(member));
                    self.state.put(keys::member(*node), Some(value), self.store)?;
                }
                self.changes.push(Change::Members);
            }
            Command::Failed { topic, consumer_group, offsets } => {
                self.failed(*topic, consumer_group, offsets)?;
            }
            Command::DeadLetter { topic, consumer_group, dead, letters } => {
                self.dead_letter(*topic, consumer_group, *dead, letters)?;
            }
            Command::Deliver { origin, first, ops } => self.receive(*origin, *first, ops)?,
            Command::Delivered { target, upto } => self.state.delivered(*target, *upto, self.store)?,
            Command::Occur(turns) => {
                for turn in turns {
                    self.turn(turn)?;
                }
            }
        }
        Ok(Vec::new())
    }

    /// The group that a partition of a topic is kept by, if it is another than this one.
    pub(super) fn elsewhere(&self, topic: RelationId, partition: u32) -> Option<GroupId> {
        let relation = self.state.catalog.get(topic).filter(|relation| relation.is_partitioned())?;
        Some(relation.home(partition)).filter(|home| *home != self.state.group)
    }

    pub(super) fn send(&mut self, target: GroupId, op: &Op) {
        self.state.send(target, op);
        if self.changes.last() != Some(&Change::Sent(target)) {
            self.changes.push(Change::Sent(target));
        }
    }

    /// Applies what another group's outbox held, as far as it is new.
    fn receive(&mut self, origin: GroupId, first: u64, ops: &[Op]) -> Result<(), ReadError> {
        let mut upto = self.state.inbox(origin);
        let last = (first + ops.len() as u64).saturating_sub(1);
        let again = bugs::active(Bug::DeliverAgain);
        if first <= upto + 1 && (last > upto || again) {
            let known = if again { 0 } else { (upto + 1 - first) as usize };
            for op in &ops[known..] {
                self.op(op)?;
            }
            upto = last;
            self.state.received(origin, upto, self.store)?;
        }
        self.changes.push(Change::Received { origin, upto });
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<OpOutcome, ReadError> {
        if let Op::Publish { topic, partition, .. } | Op::Schedule { topic, partition, .. } = op
            && let Some(home) = self.elsewhere(*topic, *partition)
        {
            self.send(home, op);
            return Ok(OpOutcome::Sent { partition: *partition });
        }
        match op {
            Op::PutRow { relation, key, row, replaces, indexes } => {
                let key = keys::row(*relation, key);
                debug_assert_eq!(
                    self.state.digest_of(&key, self.store)?,
                    *replaces,
                    "it replaces another row"
                );
                self.state.put_known(key, Some(row.clone()), *replaces);
                self.index_changes(*relation, indexes)?;
            }
            Op::DeleteRow { relation, key, replaces, indexes } => {
                let key = keys::row(*relation, key);
                debug_assert_eq!(
                    self.state.digest_of(&key, self.store)?,
                    *replaces,
                    "it deletes another row"
                );
                self.state.put_known(key, None, *replaces);
                self.index_changes(*relation, indexes)?;
            }
            Op::AppendRow { relation, row, indexes } => {
                let rowid = self.state.next_rowid(*relation, self.store)?;
                let key = keys::rowid_primary_key(rowid);
                self.state.put_known(keys::row(*relation, &key), Some(row.clone()), 0);
                for (index, columns) in indexes {
                    let entry = [&columns[..], &key].concat();
                    self.state.put_known(keys::index_entry(*relation, *index, &entry), Some(Bytes::new()), 0);
                }
                return Ok(OpOutcome::Rowid(rowid));
            }
            Op::Publish { topic, partition, event, claim } => {
                return self.publish(*topic, *partition, event, None, *claim);
            }
            Op::Schedule { topic, partition, timer_id, event, deliver_at, claim } => {
                return self.schedule(*topic, *partition, timer_id, event, *deliver_at, *claim);
            }
            Op::Reschedule { topic, timer_id, if_version, deliver_at, payload, headers } => {
                let Some(old) = self.timer(*topic, timer_id, *if_version)? else {
                    return Ok(OpOutcome::TooLate);
                };
                let mut timer = old.record.clone();
                timer.version += 1;
                timer.deliver_at = deliver_at.unwrap_or(timer.deliver_at);
                if let Some(payload) = payload {
                    timer.event.payload = payload.clone();
                }
                if headers.is_some() {
                    timer.event.headers.clone_from(headers);
                }
                if bugs::active(Bug::MoveLeavesOldDue) {
                    self.state.put_known(old.key.clone(), None, codec::digest(&old.key, &old.stored));
                } else {
                    self.remove_timer(*topic, timer_id, old);
                }
                self.put_timer(*topic, timer_id, timer);
                return Ok(OpOutcome::Changed);
            }
            Op::Cancel { topic, timer_id, if_version } => {
                let Some(old) = self.timer(*topic, timer_id, *if_version)? else {
                    return Ok(OpOutcome::TooLate);
                };
                self.remove_timer(*topic, timer_id, old);
                self.state.timers_pending -= 1;
                return Ok(OpOutcome::Changed);
            }
            Op::PutRelation(relation) => self.put_relation(relation)?,
            Op::DropRelation(id) => self.drop_relation(*id)?,
            Op::Trigger { schedule, .. } => return self.trigger(*schedule),
            Op::Ran { schedule, occurrence, failure } => {
                return self.ran(*schedule, *occurrence, failure.as_ref());
            }
            Op::Redrive { dead, partition, offset, source } => {
                return self.redrive(*dead, *partition, *offset, *source);
            }
        }
        Ok(OpOutcome::Done)
    }

    fn index_changes(
        &mut self,
        relation: RelationId,
        changes: &[chronos_proto::command::IndexChange],
    ) -> Result<(), ReadError> {
        for change in changes {
            if bugs::active(Bug::LeaveIndexEntry) && !change.present {
                continue;
            }
            let key = keys::index_entry(relation, change.index, &change.key);
            let value = change.present.then(Bytes::new);
            if self.is_filling(relation, change.index) {
                // The backfill may not have come to this row yet, or may have been here already.
                self.state.put(key, value, self.store)?;
                continue;
            }
            let replaces = if change.present { 0 } else { codec::digest(&key, &[]) };
            self.state.put_known(key, value, replaces);
        }
        Ok(())
    }

    fn is_filling(&self, relation: RelationId, index: IndexId) -> bool {
        let table = self.state.catalog.get(relation).and_then(|relation| relation.table());
        let index = table.and_then(|table| table.indexes.iter().find(|i| i.id == index));
        index.is_some_and(|index| index.state == IndexState::WriteOnly)
    }

    // Topics and timers

    fn publish(
        &mut self,
        topic: RelationId,
        partition: u32,
        event: &Event,
        deliver_at: Option<Timestamp>,
        claim: bool,
    ) -> Result<OpOutcome, ReadError> {
        if claim && let Some(first) = self.claimed(topic, &event.message_id)? {
            return Ok(first);
        }
        let fired_at = deliver_at.map(|due| due.max(self.time));
        let stored = StoredEvent { event: event.clone(), published_at: self.time, deliver_at, fired_at };
        let offset = self.append(topic, partition, stored);
        if claim && !bugs::active(Bug::ForgetClaim) {
            self.state.claim(topic, &event.message_id, Some((partition, offset)), self.time, self.store)?;
        }
        Ok(OpOutcome::Published { partition, offset })
    }

    fn schedule(
        &mut self,
        topic: RelationId,
        partition: u32,
        timer_id: &str,
        event: &Event,
        deliver_at: Timestamp,
        claim: bool,
    ) -> Result<OpOutcome, ReadError> {
        if self.timer(topic, timer_id, None)?.is_some() {
            return Ok(OpOutcome::Duplicate { position: None });
        }
        if deliver_at <= self.time {
            return self.publish(topic, partition, event, Some(deliver_at), claim);
        }
        if claim {
            if let Some(first) = self.claimed(topic, &event.message_id)? {
                return Ok(first);
            }
            self.state.claim(topic, &event.message_id, None, self.time, self.store)?;
        }
        let timer = TimerRecord {
            deliver_at,
            sequence: 0,
            version: 1,
            partition,
            scheduled_at: self.time,
            event: event.clone(),
            claimed: claim,
        };
        self.put_timer(topic, timer_id, timer);
        self.state.timers_pending += 1;
        Ok(OpOutcome::Scheduled { version: 1 })
    }

    fn claimed(&self, topic: RelationId, message_id: &str) -> Result<Option<OpOutcome>, ReadError> {
        let claim = self.state.find_claim(topic, message_id, self.time, self.store)?;
        Ok(claim.map(|claim| OpOutcome::Duplicate { position: claim.position }))
    }

    fn timer(
        &self,
        topic: RelationId,
        timer_id: &str,
        if_version: Option<u64>,
    ) -> Result<Option<StoredTimer>, ReadError> {
        let key = keys::timer(topic, timer_id);
        let Some(stored) = self.state.get(&key, self.store)? else { return Ok(None) };
        let record: TimerRecord = codec::decode("timer", &stored)?;
        let wanted = if_version.is_none_or(|version| version == record.version);
        Ok(wanted.then_some(StoredTimer { key, stored, record }))
    }

    /// Stores a timer under the next sequence, so that an older reference to it no longer matches.
    fn put_timer(&mut self, topic: RelationId, timer_id: &str, mut timer: TimerRecord) {
        timer.sequence = self.state.next_timer_sequence();
        let reference = TimerRef {
            due: timer.deliver_at,
            sequence: timer.sequence,
            topic,
            partition: timer.partition,
            timer_id: timer_id.to_owned(),
        };
        let due_value = Bytes::from(codec::encode(&(topic, timer.partition, timer_id)));
        self.state.put_known(keys::due(timer.deliver_at, timer.sequence), Some(due_value), 0);
        self.state.put_known(keys::timer(topic, timer_id), Some(Bytes::from(codec::encode(&timer))), 0);
        self.changes.push(Change::TimerSet(reference));
    }

    /// Takes a timer out of the state; its record comes back.
    fn remove_timer(&mut self, topic: RelationId, timer_id: &str, timer: StoredTimer) -> TimerRecord {
        let StoredTimer { key, stored, record } = timer;
        let digest = codec::digest(&key, &stored);
        self.state.put_known(key, None, digest);
        let due = keys::due(record.deliver_at, record.sequence);
        let digest = codec::digest(&due, &codec::encode(&(topic, record.partition, timer_id)));
        self.state.put_known(due, None, digest);
        record
    }

    fn fire(&mut self, reference: &TimerRef) -> Result<(), ReadError> {
        let TimerRef { due, sequence, topic, timer_id, .. } = reference;
        let Some(timer) = self.timer(*topic, timer_id, None)? else { return Ok(()) };
        let reference = (timer.record.deliver_at, timer.record.sequence);
        if reference != (*due, *sequence) || self.state.catalog.get(*topic).is_none() {
            return Ok(());
        }
        let timer = match bugs::active(Bug::FireTwiceAfterRestart) {
            true => timer.record,
            false => self.remove_timer(*topic, timer_id, timer),
        };
        self.state.timers_pending -= 1;
        let fired_at = timer.deliver_at.max(self.time);
        let claimed = timer.claimed.then(|| timer.event.message_id.clone());
        let stored = StoredEvent {
            event: timer.event,
            published_at: timer.scheduled_at,
            deliver_at: Some(timer.deliver_at),
            fired_at: Some(fired_at),
        };
        let offset = self.append_armed(*topic, timer.partition, stored, timer_id);
        if let Some(id) = claimed {
            let position = Some((timer.partition, offset));
            self.state.renew_claim(*topic, &id, timer.scheduled_at, position, self.time, self.store)?;
        }
        Ok(())
    }

    /// The same of an event that has fired, maybe ahead of its release.
    pub(super) fn append_armed(
        &mut self,
        topic: RelationId,
        partition: u32,
        stored: StoredEvent,
        timer_id: &str,
    ) -> u64 {
        let release = stored.released_at();
        let offset = self.append(topic, partition, stored);
        if release > self.time {
            let record = &mut self.state.partition_mut(topic, partition).record;
            record.armed.push((offset, release, timer_id.to_owned()));
        }
        offset
    }

    /// Gives an event its offset; it is stored when the entry ends.
    fn append(&mut self, topic: RelationId, partition: u32, stored: StoredEvent) -> u64 {
        let record = &mut self.state.partition_mut(topic, partition).record;
        let offset = record.next;
        record.next += 1;
        self.appends.entry((topic, partition)).or_default().push(stored);
        offset
    }

    fn append_events(&mut self) -> Result<(), ReadError> {
        for ((topic, partition), events) in std::mem::take(&mut self.appends) {
            let time = self.time;
            let Partition { record, .. } = self.state.partition_mut(topic, partition);
            record.armed.retain(|(_, release, _)| *release > time);
            let mut offset = record.next - events.len() as u64;
            let mut block = Vec::new();
            let mut bytes = 0;
            for event in events {
                bytes += event.event.payload.len() + event.event.message_id.len() + 64;
                block.push(event);
                if bytes >= EVENT_BLOCK_BYTES {
                    offset = self.put_block(topic, partition, offset, &mut block);
                    bytes = 0;
                }
            }
            self.put_block(topic, partition, offset, &mut block);
            self.state.put_partition(topic, partition);
            self.changes.push(Change::Appended { topic, partition });
        }
        Ok(())
    }

    fn put_block(
        &mut self,
        topic: RelationId,
        partition: u32,
        first: u64,
        block: &mut Vec<StoredEvent>,
    ) -> u64 {
        if block.is_empty() {
            return first;
        }
        let key = keys::events(topic, partition, first);
        self.state.put_known(key, Some(Bytes::from(codec::encode(block))), 0);
        let next = first + block.len() as u64;
        block.clear();
        next
    }

    fn ack(&mut self, topic: RelationId, group: &str, offsets: &[(u32, u64)]) -> Result<(), ReadError> {
        let mut by_partition: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (partition, offset) in offsets {
            by_partition.entry(*partition).or_default().push(*offset);
        }
        for (partition, offsets) in by_partition {
            let key = keys::consumer(topic, group, partition);
            let mut record: ConsumerRecord =
                self.state.record("consumer group", &key, self.store)?.unwrap_or_default();
            match bugs::active(Bug::AckJumpsGap) {
                true => record.floor = offsets.iter().map(|offset| offset + 1).fold(record.floor, u64::max),
                false => record.ack(&offsets),
            }
            self.state.put(key, Some(Bytes::from(codec::encode(&record))), self.store)?;
            self.forget_attempts(topic, group, partition, &record)?;
        }
        self.changes.push(Change::Acked {
            topic,
            consumer_group: group.to_owned(),
            offsets: offsets.to_vec(),
        });
        Ok(())
    }

    fn start_group(
        &mut self,
        topic: RelationId,
        group: &str,
        floors: &[(u32, u64)],
    ) -> Result<(), ReadError> {
        for (partition, floor) in floors {
            let key = keys::consumer(topic, group, *partition);
            if self.state.get(&key, self.store)?.is_none() {
                let record = ConsumerRecord { floor: *floor, done: Vec::new() };
                self.state.put(key, Some(Bytes::from(codec::encode(&record))), self.store)?;
            }
        }
        Ok(())
    }

    // The catalogue and its background work

    fn put_relation(&mut self, relation: &Relation) -> Result<(), ReadError> {
        let old = self.state.catalog.get(relation.id).cloned();
        let indexes = |r: &Relation| -> Vec<(IndexId, IndexState)> {
            r.table().map(|t| t.indexes.iter().map(|i| (i.id, i.state)).collect()).unwrap_or_default()
        };
        let before = old.as_deref().map(indexes).unwrap_or_default();
        for (index, state) in indexes(relation) {
            let known = before.iter().any(|(id, _)| *id == index);
            if !known && state == IndexState::WriteOnly {
                self.state.put(keys::backfill(relation.id, index), Some(Bytes::new()), self.store)?;
            }
        }
        for (index, _) in before {
            if !indexes(relation).iter().any(|(id, _)| *id == index) {
                self.state.put(keys::backfill(relation.id, index), None, self.store)?;
                let mark = keys::purge_index(relation.id, index);
                self.state.put(mark, Some(Bytes::new()), self.store)?;
            }
        }
        if let Some(schedule) = relation.schedule() {
            self.put_schedule(relation.id, schedule)?;
        }
        self.tell_homes(relation, &Op::PutRelation(relation.clone()));
        self.changes.push(Change::Defined(relation.id));
        self.store_relation(relation.clone())
    }

    /// The groups that have a topic's partitions learn of a change of it.
    fn tell_homes(&mut self, relation: &Relation, op: &Op) {
        let here = self.state.group;
        if relation.is_partitioned() && relation.group == here {
            for home in relation.homes().into_iter().filter(|home| *home != here) {
                self.send(home, op);
            }
        }
    }

    fn store_relation(&mut self, relation: Relation) -> Result<(), ReadError> {
        self.state.work = true;
        let value = Bytes::from(codec::encode(&relation));
        self.state.put(keys::catalog(relation.id), Some(value), self.store)?;
        Arc::make_mut(&mut self.state.catalog).put(relation);
        Ok(())
    }

    fn drop_relation(&mut self, id: RelationId) -> Result<(), ReadError> {
        let Some(relation) = self.state.catalog.get(id).cloned() else { return Ok(()) };
        if relation.schedule().is_some() {
            self.end_schedule(id)?;
        }
        self.tell_homes(&relation, &Op::DropRelation(id));
        self.state.work = true;
        self.state.put(keys::catalog(id), None, self.store)?;
        self.state.put(keys::purge(id), Some(Bytes::new()), self.store)?;
        Arc::make_mut(&mut self.state.catalog).remove(id);
        self.changes.push(Change::Dropped(id));
        Ok(())
    }

    fn work(&mut self, work: &Work) -> Result<(), ReadError> {
        match work {
            Work::Backfill { relation, index, limit } => self.backfill(*relation, *index, *limit as usize),
            Work::PublishIndex { relation, index } => self.publish_index(*relation, *index),
            Work::Purge { relation, limit } => self.purge(*relation, *limit as usize),
            Work::Expire { limit } => self.state.expire(self.time, *limit as usize, self.store),
            Work::ExpireRows { relation, keys } => {
                self.state.expire_rows(*relation, keys, self.time, self.store)
            }
        }
    }

    fn backfill(&mut self, id: RelationId, index: IndexId, limit: usize) -> Result<(), ReadError> {
        let Some(relation) = self.state.catalog.get(id).cloned() else { return Ok(()) };
        let Some(table) = relation.table() else { return Ok(()) };
        let Some(definition) = table.indexes.iter().find(|i| i.id == index) else { return Ok(()) };
        let cursor_key = keys::backfill(id, index);
        let Some(cursor) = self.state.get(&cursor_key, self.store)? else { return Ok(()) };
        let mut range = keys::rows(id);
        if !cursor.is_empty() {
            range.start = keys::KeyRange::point(keys::row(id, &cursor)).end;
        }
        let snapshot = self.state.snapshot(self.store);
        let rows: Vec<_> = snapshot.scan(&range, false).take(limit).collect::<Result<_, _>>()?;
        for (key, row) in &rows {
            let primary_key = keys::row_primary_key(key);
            let columns = super::index::columns(table, definition, primary_key, row)?;
            let entry = [&columns[..], primary_key].concat();
            self.state.put(keys::index_entry(id, index, &entry), Some(Bytes::new()), self.store)?;
        }
        match rows.last() {
            Some((key, _)) if rows.len() == limit => {
                let cursor = Bytes::copy_from_slice(keys::row_primary_key(key));
                self.state.put(cursor_key, Some(cursor), self.store)
            }
            _ => self.state.put(cursor_key, None, self.store),
        }
    }

    fn publish_index(&mut self, id: RelationId, index: IndexId) -> Result<(), ReadError> {
        let filled = self.state.get(&keys::backfill(id, index), self.store)?.is_none();
        let Some(relation) = self.state.catalog.get(id).filter(|_| filled) else { return Ok(()) };
        let mut relation = Relation::clone(relation);
        let RelationKind::Table(table) = &mut relation.kind else { return Ok(()) };
        let Some(definition) = table.indexes.iter_mut().find(|i| i.id == index) else { return Ok(()) };
        definition.state = IndexState::Public;
        relation.version += 1;
        self.store_relation(relation)
    }

    /// Deletes up to `limit` keys of a dropped relation, or of dropped indexes of a living one.
    fn purge(&mut self, relation: RelationId, limit: usize) -> Result<(), ReadError> {
        let snapshot = self.state.snapshot(self.store);
        let mut doomed: Vec<(Bytes, Bytes)> = Vec::new();
        let mut gather = |range: &keys::KeyRange| -> Result<bool, ReadError> {
            let room = limit - doomed.len();
            for entry in snapshot.scan(range, false).take(room) {
                doomed.push(entry?);
            }
            Ok(doomed.len() < limit)
        };
        let mut marks = Vec::new();
        let dropped = snapshot.get(&keys::purge(relation))?.is_some();
        let mut complete = true;
        if dropped {
            for tag in tag::OF_RELATION {
                complete = complete && gather(&keys::all(tag, Some(relation)))?;
            }
            marks.push(keys::purge(relation));
        }
        for entry in snapshot.scan(&keys::all(tag::PURGE_INDEX, Some(relation)), false) {
            let (mark, _) = entry?;
            // A dropped relation's are among what was gathered above, and must not be counted twice.
            if let Some((_, index)) = keys::backfill_parts(&mark).filter(|_| !dropped) {
                complete = complete && gather(&keys::index_entries(relation, index))?;
            }
            marks.push(mark);
        }
        for (key, value) in doomed {
            if key.first() == Some(&tag::TIMER) {
                let timer: TimerRecord = codec::decode("timer", &value)?;
                self.state.put(keys::due(timer.deliver_at, timer.sequence), None, self.store)?;
                self.state.timers_pending -= 1;
            }
            self.state.forget_running(&key);
            let digest = codec::digest(&key, &value);
            self.state.put_known(key, None, digest);
        }
        if complete {
            if dropped {
                self.state.forget_relation(relation);
            }
            for mark in marks {
                self.state.put(mark, None, self.store)?;
            }
        }
        Ok(())
    }
}
