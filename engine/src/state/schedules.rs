//! Schedules in the state: what is pending of each, what runs, and what became of the last runs.
//!
//! The pending occurrence has an entry in the due order, under the next sequence like a timer that is set, so a decision
//! about an occurrence that is not pending any more finds another sequence and has no effect. The runs that are over are a
//! ring: the number of the newest says which one goes.

use super::apply::{Apply, Change};
use super::keys::{self, KeyRange, tag};
use super::records::StoredEvent;
use super::snapshot::Snapshot;
use super::{ReadError, State};
use crate::bugs::{self, Bug};
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::command::{Event, Op, OpOutcome, TimerRef};
use chronos_proto::id::RelationId;
use chronos_proto::limits::{SCHEDULE_HISTORY_MAX, SCHEDULE_RUNNING_MAX};
use chronos_proto::schedule::{Occurrence, RunFailure, Schedule, ScheduleAction, Turn};
use chronos_proto::schema::Relation;
use chronos_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is pending of a schedule, and its counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleRecord {
    /// The occurrence that comes next; none if the schedule is paused or has ended.
    pub pending: Option<Pending>,
    /// The nominal time of the last one that fired.
    pub last: Option<Timestamp>,
    /// Occurrences that fired.
    pub runs: u64,
    /// Occurrences that were passed over because nobody fired them in time.
    pub missed: u64,
    /// Of those that fired, the ones that did not run because an earlier one still did.
    pub skipped: u64,
    /// Of those that fired, the ones that came to nothing.
    pub failed: u64,
    /// Occurrences that were asked for by hand.
    pub by_hand: u64,
    /// Occurrences whose statement runs or waits to run.
    pub running: u64,
    /// Runs in the history so far: the number that the next one gets.
    pub history: u64,
}

/// An occurrence to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its nominal time.
    pub nominal: Timestamp,
    /// When it is due.
    pub due: Timestamp,
    /// Its place in the due order among those due at one instant.
    pub sequence: u64,
}

/// An occurrence whose statement is to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningRecord {
    /// When it is due: its statement does not run before.
    pub due: Timestamp,
    /// The group's time when it fired.
    pub fired_at: Timestamp,
}

/// A run that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The occurrence; of several that were missed, the last.
    pub occurrence: Occurrence,
    /// When it was due.
    pub due: Timestamp,
    /// The time at which it fired, if it did: not before it was due.
    pub fired_at: Option<Timestamp>,
    /// When it was over: the group's time then, and not before it fired.
    pub ended_at: Timestamp,
    /// What it came to.
    pub outcome: RunOutcome,
}

/// What a run came to. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunOutcome {
    /// Its event is published.
    Published,
    /// Its statement has run.
    Done,
    /// It came to nothing.
    Failed(RunFailure),
    /// It did not run because an earlier one still did.
    Skipped,
    /// So many were passed over.
    Missed(u64),
}

impl Apply<'_> {
    /// A definition, new or changed: what it says is pending from now on.
    pub(super) fn put_schedule(&mut self, id: RelationId, schedule: &Schedule) -> Result<(), ReadError> {
        let mut record = self.schedule_record(id)?.unwrap_or_default();
        self.set_pending(id, schedule, &mut record, schedule.next.filter(|_| !schedule.paused));
        self.put_schedule_record(id, &record)
    }

    /// Nothing of a schedule is pending any more.
    pub(super) fn end_schedule(&mut self, id: RelationId) -> Result<(), ReadError> {
        if let Some(mut record) = self.schedule_record(id)? {
            self.unset_pending(id, &mut record);
            self.put_schedule_record(id, &record)?;
        }
        Ok(())
    }

    /// What the leader decided about a schedule that was due.
    pub(super) fn turn(&mut self, turn: &Turn) -> Result<(), ReadError> {
        let id = turn.schedule;
        let Some(mut record) = self.schedule_record(id)? else { return Ok(()) };
        let Some(relation) = self.state.catalog.get(id).cloned() else { return Ok(()) };
        let Some(schedule) = relation.schedule() else { return Ok(()) };
        let is_pending = record.pending.as_ref().is_some_and(|pending| pending.sequence == turn.sequence);
        if !is_pending && !bugs::active(Bug::OccurAgain) {
            return Ok(());
        }
        self.set_pending(id, schedule, &mut record, turn.next);
        for nominal in &turn.fired {
            let occurrence = Occurrence { nominal: *nominal, by_hand: 0 };
            record.runs += 1;
            record.last = Some(*nominal);
            self.occur(&relation, schedule, &mut record, occurrence, schedule.due(id, *nominal))?;
        }
        if turn.missed > 0 {
            record.missed += turn.missed;
            let due = self.time;
            let occurrence = Occurrence { nominal: due, by_hand: 0 };
            self.over(id, &mut record, occurrence, (due, None), RunOutcome::Missed(turn.missed))?;
        }
        self.put_schedule_record(id, &record)
    }

    /// An occurrence that was asked for by hand.
    pub(super) fn trigger(&mut self, id: RelationId) -> Result<OpOutcome, ReadError> {
        let Some(mut record) = self.schedule_record(id)? else { return Ok(OpOutcome::TooLate) };
        let Some(relation) = self.state.catalog.get(id).cloned() else { return Ok(OpOutcome::TooLate) };
        let Some(schedule) = relation.schedule() else { return Ok(OpOutcome::TooLate) };
        record.by_hand += 1;
        let occurrence = Occurrence { nominal: self.time, by_hand: record.by_hand };
        self.occur(&relation, schedule, &mut record, occurrence, self.time)?;
        self.put_schedule_record(id, &record)?;
        Ok(OpOutcome::Done)
    }

    fn occur(
        &mut self,
        relation: &Arc<Relation>,
        schedule: &Schedule,
        record: &mut ScheduleRecord,
        occurrence: Occurrence,
        due: Timestamp,
    ) -> Result<(), ReadError> {
        let id = relation.id;
        let fired_at = due.max(self.time);
        match &schedule.action {
            ScheduleAction::Publish { topic, key, headers, payload } => {
                let event = Event {
                    message_id: occurrence.id(&relation.name, id),
                    key: key.clone(),
                    headers: headers.clone(),
                    payload: payload.clone(),
                };
                let outcome = self.publish_occurrence(*topic, event, due);
                record.failed += u64::from(outcome != RunOutcome::Published);
                self.over(id, record, occurrence, (due, Some(fired_at)), outcome)
            }
            ScheduleAction::Statement(_) => {
                let most = if schedule.overlap { SCHEDULE_RUNNING_MAX } else { 1 };
                if record.running >= most {
                    record.skipped += 1;
                    return self.over(id, record, occurrence, (due, Some(fired_at)), RunOutcome::Skipped);
                }
                let value = codec::encode(&RunningRecord { due, fired_at });
                let key = keys::running(id, occurrence);
                self.state.put(key, Some(Bytes::from(value)), self.store)?;
                record.running += 1;
                self.state.running += 1;
                Ok(())
            }
        }
    }

    /// The event of an occurrence, which nobody sees before it is due.
    fn publish_occurrence(&mut self, topic: RelationId, event: Event, due: Timestamp) -> RunOutcome {
        let relation = self.state.catalog.get(topic).cloned();
        let Some(settings) = relation.as_ref().and_then(|relation| relation.topic()) else {
            let message = format!("there is no topic {topic}");
            return RunOutcome::Failed(RunFailure { code: "42P01".to_owned(), message });
        };
        let partition = settings.partition_of(&event);
        let timer_id = event.message_id.clone();
        match self.elsewhere(topic, partition) {
            Some(home) => {
                let op = Op::Schedule { topic, partition, timer_id, event, deliver_at: due, claim: false };
                self.send(home, &op);
            }
            None => {
                let stored = StoredEvent {
                    event,
                    published_at: self.time,
                    deliver_at: Some(due),
                    fired_at: Some(due.max(self.time)),
                };
                self.append_armed(topic, partition, stored, &timer_id);
            }
        }
        RunOutcome::Published
    }

    /// An occurrence's statement has run, or has failed.
    pub(super) fn ran(
        &mut self,
        id: RelationId,
        occurrence: Occurrence,
        failure: Option<&RunFailure>,
    ) -> Result<OpOutcome, ReadError> {
        let key = keys::running(id, occurrence);
        let Some(running) = self.state.record::<RunningRecord>("run", &key, self.store)? else {
            return Ok(OpOutcome::TooLate);
        };
        let Some(mut record) = self.schedule_record(id)? else { return Ok(OpOutcome::TooLate) };
        self.state.put(key, None, self.store)?;
        record.running = record.running.saturating_sub(1);
        self.state.running = self.state.running.saturating_sub(1);
        record.failed += u64::from(failure.is_some());
        let outcome = failure.cloned().map_or(RunOutcome::Done, RunOutcome::Failed);
        self.over(id, &mut record, occurrence, (running.due, Some(running.fired_at)), outcome)?;
        self.put_schedule_record(id, &record)?;
        Ok(OpOutcome::Done)
    }

    /// Puts a run into the history, in the place of the oldest there.
    fn over(
        &mut self,
        id: RelationId,
        record: &mut ScheduleRecord,
        occurrence: Occurrence,
        (due, fired_at): (Timestamp, Option<Timestamp>),
        outcome: RunOutcome,
    ) -> Result<(), ReadError> {
        // What fires ahead of its time is over at it.
        let ended_at = fired_at.map_or(self.time, |fired| fired.max(self.time));
        let run = RunRecord { occurrence, due, fired_at, ended_at, outcome };
        let number = record.history;
        record.history += 1;
        self.state.put_known(keys::run(id, number), Some(Bytes::from(codec::encode(&run))), 0);
        match number.checked_sub(SCHEDULE_HISTORY_MAX) {
            Some(oldest) => self.state.put(keys::run(id, oldest), None, self.store),
            None => Ok(()),
        }
    }

    fn schedule_record(&self, id: RelationId) -> Result<Option<ScheduleRecord>, ReadError> {
        self.state.record("schedule", &keys::schedule(id), self.store)
    }

    fn put_schedule_record(&mut self, id: RelationId, record: &ScheduleRecord) -> Result<(), ReadError> {
        self.state.put(keys::schedule(id), Some(Bytes::from(codec::encode(record))), self.store)
    }

    fn set_pending(
        &mut self,
        id: RelationId,
        schedule: &Schedule,
        record: &mut ScheduleRecord,
        next: Option<Timestamp>,
    ) {
        self.unset_pending(id, record);
        let Some(nominal) = next else { return };
        let (due, sequence) = (schedule.due(id, nominal), self.state.next_timer_sequence());
        self.state.put_known(keys::due(due, sequence), Some(due_value(id)), 0);
        record.pending = Some(Pending { nominal, due, sequence });
        let timer = TimerRef { due, sequence, topic: id, partition: 0, timer_id: String::new() };
        self.changes.push(Change::TimerSet(timer));
    }

    fn unset_pending(&mut self, id: RelationId, record: &mut ScheduleRecord) {
        let Some(Pending { due, sequence, .. }) = record.pending.take() else { return };
        let key = keys::due(due, sequence);
        let digest = codec::digest(&key, &due_value(id));
        self.state.put_known(key, None, digest);
    }
}

/// What the due order holds of a schedule: the shape is a timer's.
fn due_value(id: RelationId) -> Bytes {
    Bytes::from(codec::encode(&(id, 0_u32, "")))
}

impl State {
    /// Counts them anew.
    pub(super) fn count_running(snapshot: &Snapshot) -> Result<u64, ReadError> {
        let mut running = 0;
        for entry in snapshot.scan(&keys::all(tag::RUNNING, None), false) {
            entry?;
            running += 1;
        }
        Ok(running)
    }

    /// A dropped schedule's runs do not run any more.
    pub(super) fn forget_running(&mut self, key: &[u8]) {
        if key.first() == Some(&tag::RUNNING) {
            self.running = self.running.saturating_sub(1);
        }
    }
}

impl Snapshot {
    /// What is pending of a schedule.
    pub fn schedule(&self, schedule: RelationId) -> Result<Option<ScheduleRecord>, ReadError> {
        self.record("schedule", &keys::schedule(schedule))
    }

    /// Occurrences whose statement runs or waits to run, of one schedule or of all, in their order.
    pub fn running(
        &self,
        schedule: Option<RelationId>,
    ) -> impl Iterator<Item = Result<(RelationId, Occurrence, RunningRecord), ReadError>> + '_ {
        self.scan(&keys::all(tag::RUNNING, schedule), false).filter_map(|entry| {
            let decode = |(key, value): (Bytes, Bytes)| {
                let Some((schedule, occurrence)) = keys::running_parts(&key) else { return Ok(None) };
                Ok(Some((schedule, occurrence, codec::decode("run", &value)?)))
            };
            entry.map_err(ReadError::from).and_then(decode).transpose()
        })
    }

    /// The last runs of a schedule, the oldest first.
    pub fn runs(&self, schedule: RelationId) -> impl Iterator<Item = Result<RunRecord, ReadError>> + '_ {
        let range = KeyRange::prefix(&keys::run(schedule, 0)[..5]);
        self.scan(&range, false).map(|entry| Ok(codec::decode("run", &entry?.1)?))
    }
}
