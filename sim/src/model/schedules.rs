//! What schedules come to: occurrences that are events, occurrences that wait for their statement, a history.

use super::{Applied, Model};
use chronos_engine::state::records::StoredEvent;
use chronos_engine::state::{Pending, RunOutcome, RunRecord, RunningRecord, ScheduleRecord};
use chronos_proto::command::{Event, OpOutcome};
use chronos_proto::id::RelationId;
use chronos_proto::limits::SCHEDULE_RUNNING_MAX;
use chronos_proto::schedule::{Occurrence, RunFailure, Schedule, ScheduleAction, Turn};
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;

/// The schedules of a group.
#[derive(Clone, Debug, Default)]
pub struct Schedules {
    /// What is pending of each, and its counters.
    pub records: BTreeMap<RelationId, ScheduleRecord>,
    /// Occurrences that wait for their statement.
    pub running: BTreeMap<(RelationId, Occurrence), RunningRecord>,
    /// When it was set, by the log's time.
    pub set_at: BTreeMap<RelationId, Timestamp>,
    /// All runs that are over.
    pub runs: BTreeMap<RelationId, Vec<RunRecord>>,
}

impl Model {
    pub(super) fn put_schedule(&mut self, id: RelationId, schedule: &Schedule) {
        let next = if schedule.paused { None } else { schedule.next };
        self.set_pending(id, schedule, next);
    }

    fn set_pending(&mut self, id: RelationId, schedule: &Schedule, next: Option<Timestamp>) {
        let pending = next.map(|nominal| Pending {
            nominal,
            due: schedule.due(id, nominal),
            sequence: self.next_sequence(),
        });
        self.schedules.set_at.insert(id, self.time);
        self.schedules.records.entry(id).or_default().pending = pending;
    }

    fn schedule(&self, id: RelationId) -> Option<(String, Schedule)> {
        let relation = self.relations.get(&id)?;
        Some((relation.name.clone(), relation.schedule()?.clone()))
    }

    pub(super) fn turn(&mut self, turn: &Turn, out: &mut Applied) {
        let id = turn.schedule;
        let Some((name, schedule)) = self.schedule(id) else { return };
        let record = self.schedules.records.entry(id).or_default();
        let Some(pending) = record.pending.clone().filter(|p| p.sequence == turn.sequence) else { return };
        out.turns.push((turn.clone(), pending, record.runs));
        record.runs += turn.fired.len() as u64;
        record.missed += turn.missed;
        record.last = turn.fired.last().copied().or(record.last);
        self.set_pending(id, &schedule, turn.next);
        for nominal in &turn.fired {
            let occurrence = Occurrence { nominal: *nominal, by_hand: 0 };
            self.occur(id, &name, &schedule, occurrence, schedule.due(id, *nominal));
        }
        if turn.missed > 0 {
            let (due, ended_at) = (self.time, self.time);
            let occurrence = Occurrence { nominal: due, by_hand: 0 };
            let outcome = RunOutcome::Missed(turn.missed);
            self.over(id, RunRecord { occurrence, due, fired_at: None, ended_at, outcome });
        }
    }

    pub(super) fn trigger(&mut self, id: RelationId) -> OpOutcome {
        let Some((name, schedule)) = self.schedule(id) else { return OpOutcome::TooLate };
        let record = self.schedules.records.entry(id).or_default();
        record.by_hand += 1;
        let occurrence = Occurrence { nominal: self.time, by_hand: record.by_hand };
        self.occur(id, &name, &schedule, occurrence, self.time);
        OpOutcome::Done
    }

    fn occur(
        &mut self,
        id: RelationId,
        name: &str,
        schedule: &Schedule,
        occurrence: Occurrence,
        due: Timestamp,
    ) {
        let fired_at = due.max(self.time);
        let outcome = match &schedule.action {
            ScheduleAction::Publish { topic, key, headers, payload } => {
                let message_id = occurrence.id(name, id);
                let (key, headers, payload) = (key.clone(), headers.clone(), payload.clone());
                let event = StoredEvent {
                    event: Event { message_id, key, headers, payload },
                    published_at: self.time,
                    deliver_at: Some(due),
                    fired_at: Some(fired_at),
                };
                if self.relations.contains_key(topic) {
                    self.append(*topic, 0, event);
                    RunOutcome::Published
                } else {
                    self.schedules.records.entry(id).or_default().failed += 1;
                    let message = format!("there is no topic {topic}");
                    RunOutcome::Failed(RunFailure { code: "42P01".into(), message })
                }
            }
            ScheduleAction::Statement(_) => {
                let most = if schedule.overlap { SCHEDULE_RUNNING_MAX } else { 1 };
                let record = self.schedules.records.entry(id).or_default();
                if record.running < most {
                    record.running += 1;
                    self.schedules.running.insert((id, occurrence), RunningRecord { due, fired_at });
                    return;
                }
                record.skipped += 1;
                RunOutcome::Skipped
            }
        };
        let fired_at = Some(fired_at);
        self.over(id, RunRecord { occurrence, due, fired_at, ended_at: due.max(self.time), outcome });
    }

    pub(super) fn ran(
        &mut self,
        id: RelationId,
        occurrence: Occurrence,
        failure: Option<&RunFailure>,
        out: &mut Applied,
    ) -> OpOutcome {
        out.ran.push((id, occurrence));
        let Some(running) = self.schedules.running.remove(&(id, occurrence)) else {
            return OpOutcome::TooLate;
        };
        let record = self.schedules.records.entry(id).or_default();
        record.running -= 1;
        record.failed += u64::from(failure.is_some());
        let outcome = failure.map_or(RunOutcome::Done, |failure| RunOutcome::Failed(failure.clone()));
        let ended_at = running.fired_at.max(self.time);
        let (due, fired_at) = (running.due, Some(running.fired_at));
        self.over(id, RunRecord { occurrence, due, fired_at, ended_at, outcome });
        OpOutcome::Done
    }

    fn over(&mut self, id: RelationId, run: RunRecord) {
        self.schedules.records.entry(id).or_default().history += 1;
        self.schedules.runs.entry(id).or_default().push(run);
    }

    pub(super) fn drop_schedule(&mut self, id: RelationId) {
        self.schedules.records.remove(&id);
        self.schedules.set_at.remove(&id);
        self.schedules.running.retain(|(schedule, _), _| *schedule != id);
        self.schedules.runs.remove(&id);
    }
}
