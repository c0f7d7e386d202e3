//! The oracle: what the state must be, in plain maps, by applying the log's entries one by one. It is written from
//! the description of the operations, and it is slow and simple on purpose.

mod schedules;

use bytes::Bytes;
use chronos_engine::state::Pending;
use chronos_engine::state::apply::REDRIVER;
use chronos_engine::state::records::StoredEvent;
use chronos_proto::Event;
use chronos_proto::command::{Command, Entry, Letter, Op, OpOutcome, TimerRef, Work};
use chronos_proto::id::{IndexId, RelationId, SessionId};
use chronos_proto::row;
use chronos_proto::schedule::{Occurrence, Turn};
use chronos_proto::schema::{IndexState, Relation, RelationKind, Table};
use chronos_proto::time::Timestamp;
use chronos_proto::value::ValueRef;
pub use schedules::Schedules;
use std::collections::{BTreeMap, BTreeSet};

/// A pending timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// When it is due.
    pub due: Timestamp,
    /// Its place among those due at one instant.
    pub sequence: u64,
    /// Counts its changes.
    pub version: u64,
    /// Where its event goes.
    pub partition: u32,
    /// The log's time when it was scheduled.
    pub scheduled_at: Timestamp,
    /// The log's time when it was scheduled or moved last.
    pub set_at: Timestamp,
    /// What it will publish.
    pub event: Event,
    /// Whether its message id was claimed.
    pub claimed: bool,
    /// The log position that scheduled it.
    pub born: u64,
}

/// A claimed message id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When it was claimed last.
    pub at: Timestamp,
    /// Where its event is.
    pub position: Option<(u32, u64)>,
    /// The log position of the claim.
    pub index: u64,
}

/// What one entry did, for those who check more than the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What a batch's operations came to.
    pub outcomes: Vec<OpOutcome>,
    /// Timers that fired, with what they were.
    pub fired: Vec<(TimerRef, Timer)>,
    /// The entry repeats a request that had its effect before.
    pub repeated: bool,
    /// A claim that was made again after its window.
    pub window_passed: bool,
    /// The log positions of claims that a duplicate ran into.
    pub duplicates_of: Vec<u64>,
    /// An index became public.
    pub published_index: bool,
    /// Offsets acknowledged above a gap.
    pub gap: bool,
    /// What leaders decided about schedules, where that was what was pending, with what it was and the runs before.
    pub turns: Vec<(Turn, Pending, u64)>,
    /// Occurrences whose statement is said to have run.
    pub ran: Vec<(RelationId, Occurrence)>,
    /// Rows were deleted because they had expired.
    pub expired: bool,
    /// A row that was named as expired is another by now, or gone.
    pub outlived: bool,
    /// Events became dead letters.
    pub dead_lettered: bool,
    /// A dead letter was published again.
    pub redriven: bool,
}

/// The whole state of one group.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Applied so far.
    pub applied: u64,
    /// The last entry's time.
    pub time: Timestamp,
    /// Relations.
    pub relations: BTreeMap<RelationId, Relation>,
    /// Rows by encoded key.
    pub rows: BTreeMap<RelationId, BTreeMap<Bytes, Bytes>>,
    rowids: BTreeMap<RelationId, i64>,
    /// Events by partition, from offset 0.
    pub events: BTreeMap<(RelationId, u32), Vec<StoredEvent>>,
    /// Pending timers.
    pub timers: BTreeMap<(RelationId, String), Timer>,
    sequence: u64,
    claims: BTreeMap<(RelationId, String), Claim>,
    /// What consumer groups are done with.
    pub done: BTreeMap<(RelationId, String, u32), BTreeSet<u64>>,
    /// How often consumer groups were handed in vain what they are not done with.
    pub attempts: BTreeMap<(RelationId, String, u32), BTreeMap<u64, u32>>,
    /// The headers that dead letters had before, by topic, partition and offset.
    origins: BTreeMap<(RelationId, u32, u64), Option<String>>,
    /// Events that were published before, as dead letters or out of them.
    pub copies: BTreeSet<(RelationId, u32, u64)>,
    outcomes: BTreeMap<(SessionId, u64), Vec<OpOutcome>>,
    /// Relations that were dropped.
    pub dropped: BTreeSet<RelationId>,
    /// Schedules.
    pub schedules: Schedules,
}

impl Model {
    /// Applies the next entry.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        self.applied = entry.index.0;
        self.time = entry.time;
        let mut out = Applied::default();
        match &*entry.command {
            Command::Noop
            | Command::AdvanceTime
            | Command::Membership(_)
            | Command::PutMember(_)
            | Command::DropMember(_)
            // This stage has one group: nothing is sent to others.
            | Command::Deliver { .. }
            | Command::Delivered { .. } => {}
            Command::Occur(turns) => turns.iter().for_each(|turn| self.turn(turn, &mut out)),
            Command::TimeEpoch(time) => self.time = *time,
            Command::Batch { request, ops } => {
                let name = (request.session, request.sequence);
                if let Some(first) = self.outcomes.get(&name) {
                    out.repeated = true;
                    out.outcomes = first.clone();
                    return out;
                }
                for op in ops {
                    let outcome = self.op(op, &mut out);
                    out.outcomes.push(outcome);
                }
                if request.session != SessionId(0) {
                    self.outcomes.insert(name, out.outcomes.clone());
                }
            }
            Command::Fire { timers } => timers.iter().for_each(|timer| self.fire(timer, &mut out)),
            Command::Work(Work::PublishIndex { relation, index }) => {
                out.published_index = self.publish_index(*relation, *index);
            }
            Command::Work(Work::ExpireRows { relation, keys }) => self.expire(*relation, keys, &mut out),
            Command::Work(_) => {}
            Command::StartGroup { topic, consumer_group, floors } => {
                for (partition, floor) in floors {
                    let done = self.done.entry((*topic, consumer_group.clone(), *partition)).or_default();
                    done.extend(0..*floor);
                }
            }
            Command::Ack { topic, consumer_group, offsets } => {
                for (partition, offset) in offsets {
                    out.gap |= self.finish(*topic, consumer_group, *partition, *offset);
                }
            }
            Command::Failed { topic, consumer_group, offsets } => {
                for (partition, offset, times) in offsets {
                    let name = (*topic, consumer_group.clone(), *partition);
                    let done = self.done.get(&name).is_some_and(|done| done.contains(offset));
                    if !done && self.relations.contains_key(topic) {
                        let known = self.attempts.entry(name).or_default().entry(*offset).or_default();
                        *known = (*known).max(*times);
                    }
                }
            }
            Command::DeadLetter { topic, consumer_group, dead, letters } => {
                for letter in letters {
                    out.dead_lettered |= self.dead_letter(*topic, consumer_group, *dead, letter);
                }
            }
        }
        out
    }

    fn op(&mut self, op: &Op, out: &mut Applied) -> OpOutcome {
        match op {
            Op::PutRow { relation, key, row, .. } => {
                self.rows.entry(*relation).or_default().insert(key.clone(), row.clone());
            }
            Op::DeleteRow { relation, key, .. } => {
                self.rows.entry(*relation).or_default().remove(key);
            }
            Op::AppendRow { relation, row, .. } => {
                let rowid = self.rowids.entry(*relation).or_default();
                *rowid += 1;
                let key = Bytes::from(chronos_engine::keys::rowid_primary_key(*rowid));
                let rowid = *rowid;
                self.rows.entry(*relation).or_default().insert(key, row.clone());
                return OpOutcome::Rowid(rowid);
            }
            Op::Publish { topic, partition, event, claim } => {
                return self.publish(*topic, *partition, event, None, *claim, out);
            }
            Op::Schedule { topic, partition, timer_id, event, deliver_at, claim } => {
                if self.timers.contains_key(&(*topic, timer_id.clone())) {
                    return OpOutcome::Duplicate { position: None };
                }
                if *deliver_at <= self.time {
                    return self.publish(*topic, *partition, event, Some(*deliver_at), *claim, out);
                }
                if *claim {
                    if let Some(first) = self.claimed(*topic, &event.message_id, out) {
                        return OpOutcome::Duplicate { position: first };
                    }
                    self.claim(*topic, &event.message_id, None);
                }
                let timer = Timer {
                    due: *deliver_at,
                    sequence: self.next_sequence(),
                    version: 1,
                    partition: *partition,
                    scheduled_at: self.time,
                    set_at: self.time,
                    event: event.clone(),
                    claimed: *claim,
                    born: self.applied,
                };
                self.timers.insert((*topic, timer_id.clone()), timer);
                return OpOutcome::Scheduled { version: 1 };
            }
            Op::Reschedule { topic, timer_id, if_version, deliver_at, payload, headers } => {
                let sequence = self.sequence + 1;
                let timer = self.timers.get_mut(&(*topic, timer_id.clone()));
                let Some(timer) = timer.filter(|t| if_version.is_none_or(|v| v == t.version)) else {
                    return OpOutcome::TooLate;
                };
                timer.version += 1;
                timer.sequence = sequence;
                timer.set_at = self.time;
                timer.due = deliver_at.unwrap_or(timer.due);
                if let Some(payload) = payload {
                    timer.event.payload = payload.clone();
                }
                if headers.is_some() {
                    timer.event.headers = headers.clone();
                }
                self.sequence = sequence;
                return OpOutcome::Changed;
            }
            Op::Cancel { topic, timer_id, if_version } => {
                let name = (*topic, timer_id.clone());
                let timer = self.timers.get(&name).filter(|t| if_version.is_none_or(|v| v == t.version));
                if timer.is_none() {
                    return OpOutcome::TooLate;
                }
                self.timers.remove(&name);
                return OpOutcome::Changed;
            }
            Op::PutRelation(relation) => {
                self.relations.insert(relation.id, relation.clone());
                if let Some(schedule) = relation.schedule() {
                    self.put_schedule(relation.id, schedule);
                }
            }
            Op::DropRelation(id) => self.drop_relation(*id),
            Op::Trigger { schedule, .. } => return self.trigger(*schedule),
            Op::Ran { schedule, occurrence, failure } => {
                return self.ran(*schedule, *occurrence, failure.as_ref(), out);
            }
            Op::Redrive { dead, partition, offset, source } => {
                let outcome = self.redrive(*dead, *partition, *offset, *source);
                out.redriven |= outcome != OpOutcome::TooLate;
                return outcome;
            }
        }
        OpOutcome::Done
    }

    /// A consumer group is done with an offset. Whether it is not with one below.
    fn finish(&mut self, topic: RelationId, group: &str, partition: u32, offset: u64) -> bool {
        let name = (topic, group.to_owned(), partition);
        if let Some(attempts) = self.attempts.get_mut(&name) {
            attempts.remove(&offset);
        }
        let done = self.done.entry(name).or_default();
        done.insert(offset);
        done.len() as u64 <= offset
    }

    /// A copy goes to the topic of dead letters, which says whose it is, and the group is done with it: once.
    fn dead_letter(&mut self, topic: RelationId, group: &str, dead: RelationId, letter: &Letter) -> bool {
        let Letter { partition, offset, deliveries, reason } = letter;
        let done = self.done.get(&(topic, group.to_owned(), *partition));
        let (Some(source), true) = (self.relations.get(&topic), self.relations.contains_key(&dead)) else {
            return false;
        };
        if done.is_some_and(|done| done.contains(offset)) {
            return false;
        }
        let Some(stored) = self.events.get(&(topic, *partition)).and_then(|all| all.get(*offset as usize))
        else {
            return false;
        };
        let mut event = stored.event.clone();
        let before = event.headers.clone();
        let own = before.as_deref().map_or("", |headers| headers.trim_matches(['{', '}']));
        let comma = if own.is_empty() { "" } else { ", " };
        let name = &source.name;
        event.headers = Some(format!(
            "{{{own}{comma}\"chronos-dead-topic\": \"{name}\", \"chronos-dead-partition\": \"{partition}\", \
             \"chronos-dead-offset\": \"{offset}\", \"chronos-dead-deliveries\": \"{deliveries}\", \
             \"chronos-dead-group\": \"{group}\", \"chronos-dead-reason\": \"{reason}\"}}"
        ));
        let copy = StoredEvent { event, published_at: self.time, deliver_at: None, fired_at: None };
        let at = self.append(dead, *partition, copy);
        self.origins.insert((dead, *partition, at), before);
        self.copies.insert((dead, *partition, at));
        self.finish(topic, group, *partition, *offset);
        true
    }

    fn redrive(&mut self, dead: RelationId, partition: u32, offset: u64, source: RelationId) -> OpOutcome {
        let done = self.done.get(&(dead, REDRIVER.to_owned(), partition));
        let known = self.relations.contains_key(&dead) && self.relations.contains_key(&source);
        let letter = self.events.get(&(dead, partition)).and_then(|all| all.get(offset as usize)).cloned();
        let (Some(letter), true) = (letter, known && !done.is_some_and(|done| done.contains(&offset))) else {
            return OpOutcome::TooLate;
        };
        let mut event = letter.event;
        // What was published there by others has none.
        if let Some(before) = self.origins.get(&(dead, partition, offset)) {
            event.headers.clone_from(before);
        }
        let copy = StoredEvent { event, published_at: self.time, deliver_at: None, fired_at: None };
        let to = self.append(source, partition, copy);
        self.copies.insert((source, partition, to));
        self.finish(dead, REDRIVER, partition, offset);
        OpOutcome::Published { partition, offset: to }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn publish(
        &mut self,
        topic: RelationId,
        partition: u32,
        event: &Event,
        deliver_at: Option<Timestamp>,
        claim: bool,
        out: &mut Applied,
    ) -> OpOutcome {
        if claim && let Some(first) = self.claimed(topic, &event.message_id, out) {
            return OpOutcome::Duplicate { position: first };
        }
        let fired_at = deliver_at.map(|due| due.max(self.time));
        let offset = self.append(
            topic,
            partition,
            StoredEvent { event: event.clone(), published_at: self.time, deliver_at, fired_at },
        );
        if claim {
            self.claim(topic, &event.message_id, Some((partition, offset)));
        }
        OpOutcome::Published { partition, offset }
    }

    fn append(&mut self, topic: RelationId, partition: u32, event: StoredEvent) -> u64 {
        let events = self.events.entry((topic, partition)).or_default();
        events.push(event);
        events.len() as u64 - 1
    }

    fn window(&self, topic: RelationId) -> i64 {
        self.relations.get(&topic).and_then(|r| r.topic()).map_or(0, |t| t.dedup_micros as i64)
    }

    fn claimed(&self, topic: RelationId, message_id: &str, out: &mut Applied) -> Option<Option<(u32, u64)>> {
        let claim = self.claims.get(&(topic, message_id.to_owned()))?;
        if claim.at.0 >= self.time.0.saturating_sub(self.window(topic)) {
            out.duplicates_of.push(claim.index);
            Some(claim.position)
        } else {
            out.window_passed = true;
            None
        }
    }

    fn claim(&mut self, topic: RelationId, message_id: &str, position: Option<(u32, u64)>) {
        if self.window(topic) > 0 {
            let claim = Claim { at: self.time, position, index: self.applied };
            self.claims.insert((topic, message_id.to_owned()), claim);
        }
    }

    fn fire(&mut self, reference: &TimerRef, out: &mut Applied) {
        let name = (reference.topic, reference.timer_id.clone());
        let current = |t: &&Timer| (t.due, t.sequence) == (reference.due, reference.sequence);
        // One that was cancelled or moved while its firing was on its way does not fire.
        let Some(timer) = self.timers.get(&name).filter(current).cloned() else { return };
        self.timers.remove(&name);
        let fired_at = timer.due.max(self.time);
        let event = StoredEvent {
            event: timer.event.clone(),
            published_at: timer.scheduled_at,
            deliver_at: Some(timer.due),
            fired_at: Some(fired_at),
        };
        let offset = self.append(reference.topic, timer.partition, event);
        if timer.claimed {
            self.claim(reference.topic, &timer.event.message_id, Some((timer.partition, offset)));
        }
        out.fired.push((reference.clone(), timer));
    }

    fn publish_index(&mut self, relation: RelationId, index: IndexId) -> bool {
        let Some(relation) = self.relations.get_mut(&relation) else { return false };
        let RelationKind::Table(table) = &mut relation.kind else { return false };
        let Some(found) = table.indexes.iter_mut().find(|i| i.id == index) else { return false };
        found.state = IndexState::Public;
        relation.version += 1;
        true
    }

    /// The last moment of a row's life has passed at `time`.
    pub fn has_expired(table: &Table, row: &[u8], time: Timestamp) -> bool {
        let Some((column, _, micros)) = table.ttl() else { return false };
        let mut expired = false;
        // What does not decode is of no table here.
        let _ = row::visit(row, |id, value| {
            if let (true, ValueRef::Timestamp(at)) = (id == column, value) {
                expired = at.saturating_add_unsigned(micros) <= time.0;
            }
        });
        expired
    }

    fn expire(&mut self, id: RelationId, keys: &[Bytes], out: &mut Applied) {
        let Some(table) = self.relations.get(&id).and_then(Relation::table) else { return };
        let Some(rows) = self.rows.get_mut(&id) else { return };
        for key in keys {
            match rows.get(key) {
                Some(row) if Model::has_expired(table, row, self.time) => {
                    rows.remove(key);
                    out.expired = true;
                }
                _ => out.outlived = true,
            }
        }
    }

    fn drop_relation(&mut self, id: RelationId) {
        if self.relations.remove(&id).is_some() {
            self.dropped.insert(id);
            self.drop_schedule(id);
            self.rows.remove(&id);
            self.rowids.remove(&id);
            self.events.retain(|(topic, _), _| *topic != id);
            self.timers.retain(|(topic, _), _| *topic != id);
            self.claims.retain(|(topic, _), _| *topic != id);
            self.done.retain(|(topic, _, _), _| *topic != id);
            self.attempts.retain(|(topic, _, _), _| *topic != id);
        }
    }
}
