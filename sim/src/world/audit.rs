//! The watch: it applies the log to the model as the node publishes it, compares the two, and at the end demands
//! that everything pending has come to something.

use super::faults::Partition;
use super::machine::NAMES;
use super::shell::GROUP;
use super::{Event, World};
use crate::checker::memory::Amount;
use crate::checker::state::Difference;
use crate::checker::{digest, memory, serial, sql, state, timers};
use crate::marks::Mark;
use crate::model::{Applied, Model};
use crate::violation::{Held, Violation};
use chronos_engine::node::Fsync;
use chronos_engine::state::records::StoredEvent;
use chronos_engine::step::Published;
use chronos_proto::codec::keyed_hash;
use chronos_proto::command::{Command, Entry, Op, OpOutcome};
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// How often the watch looks around.
const EVERY: u64 = 1_000_000;

/// What the watch remembers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    compared_at: u64,
    /// Crashes there had been when a log position was applied, to tell what a restart lay between.
    crashes_at: BTreeMap<u64, u64>,
    /// Crashes there had been when an index was asked for.
    index_asked: BTreeMap<RelationId, u64>,
    pub(super) restarted_at_end: bool,
    fired_recently: BTreeMap<u64, u64>,
    /// Terms that had been led when a log position was applied.
    terms_at: BTreeMap<u64, usize>,
    /// The term in which a joint configuration was begun.
    joint_begun: Option<u64>,
    pub(super) partitions: Vec<Partition>,
}

impl World {
    /// Applies what the log has up to `index`, in order.
    pub(super) fn catch_up(&mut self, index: u64) -> Held {
        while self.model.applied < index {
            let next = self.model.applied + 1;
            let entry = if self.solo() { self.log.get(next) } else { self.group.get(next) };
            let Some(entry) = entry.cloned() else {
                let what = format!("entry {next} was published and never written to the log");
                return Err(Violation::safety("log", what));
            };
            self.apply(&entry)?;
        }
        Ok(())
    }

    fn apply(&mut self, entry: &Entry) -> Held {
        let index = entry.index.0;
        let mut after = None;
        if let Command::Batch { request, ops } = &*entry.command {
            let name = self.requests.name_of(*request, ops);
            if let Some(saw) = self.saw.get(&name) {
                self.witnessed(serial::check(&self.model, entry, saw))?;
            }
            after = self.sql_applies(name, entry)?;
        }
        let pending: Vec<(String, Timestamp)> = match &*entry.command {
            Command::Fire { timers } => timers.iter().map(|t| (t.timer_id.clone(), t.due)).collect(),
            _ => Vec::new(),
        };
        for (_, due) in pending {
            timers::fired_ahead(due, entry.time, self.knobs.fire_ahead_max)?;
        }
        let applied = self.model.apply(entry);
        self.watch.crashes_at.insert(index, self.crashes());
        self.watch.terms_at.insert(index, entry.term.0 as usize);
        if let Command::Batch { request, ops } = &*entry.command {
            self.requests.applied(*request, ops, entry, &applied.outcomes)?;
            self.witnessed(self.requests.in_real_time(*request, ops))?;
            if applied.repeated {
                let what = format!("entry {index} repeats {request:?}");
                return Err(Violation::safety("one-effect", what));
            }
            if let Some(after) = &after {
                sql::effects(&self.model, after, ops)?;
            }
            self.batch_marks(ops, &applied)?;
        }
        self.applied_marks(entry, &applied);
        self.schedules_applied(entry, &applied)
    }

    fn schedules_applied(&mut self, entry: &Entry, applied: &Applied) -> Held {
        let at = (entry.time, self.knobs.fire_ahead_max);
        for (turn, pending, runs) in &applied.turns {
            let relation = self.model.relations.get(&turn.schedule);
            if let Some(schedule) = relation.and_then(|relation| relation.schedule()) {
                self.schedules.turn(schedule, *runs, pending, turn, at)?;
            }
            self.marks.hit(if turn.missed > 0 { Mark::OccurrencesMissed } else { Mark::ScheduleOccurred });
        }
        for (schedule, occurrence) in &applied.ran {
            self.schedules.ran(*schedule, *occurrence)?;
            self.marks.hit(Mark::StatementRan);
        }
        Ok(())
    }

    fn batch_marks(&mut self, ops: &[Op], applied: &Applied) -> Held {
        for (op, outcome) in ops.iter().zip(&applied.outcomes) {
            match (op, outcome) {
                (Op::Cancel { .. }, OpOutcome::Changed) => self.marks.hit(Mark::TimerCancelled),
                (Op::Reschedule { .. }, OpOutcome::Changed) => self.marks.hit(Mark::TimerRescheduled),
                (Op::Schedule { .. }, OpOutcome::Published { .. }) => self.marks.hit(Mark::ScheduledInPast),
                (Op::PutRelation(relation), _) => {
                    if self.model.dropped.contains(&relation.id) {
                        let what = format!("relation number {} is given again", relation.id);
                        return Err(Violation::safety("state", what));
                    }
                    let crashes = self.crashes();
                    self.watch.index_asked.entry(relation.id).or_insert(crashes);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn applied_marks(&mut self, entry: &Entry, applied: &Applied) {
        let term = entry.term.0 as usize;
        if let Command::Membership(next) = &*entry.command {
            let begun = self.watch.joint_begun.take();
            if next.is_joint() {
                self.watch.joint_begun = Some(entry.term.0);
            } else if let Some(begun) = begun {
                self.marks.hit(Mark::MembersChanged);
                if begun != entry.term.0 {
                    self.marks.hit(Mark::JointFinishedByAnother);
                }
            }
            if !next.learners.is_empty() {
                self.marks.hit(Mark::LearnerAdded);
            }
        }
        if !self.solo() {
            let other = |at: &u64| self.watch.terms_at.get(at).is_some_and(|then| *then != term);
            let dedup = applied.duplicates_of.iter().any(other);
            let fired = applied.fired.iter().any(|(_, timer)| other(&timer.born));
            for (hit, mark) in [(dedup, Mark::DedupHitAfterFailover), (fired, Mark::TimerFiredAfterFailover)]
            {
                if hit {
                    self.marks.hit(mark);
                }
            }
        }
        for born in &applied.duplicates_of {
            let then = self.watch.crashes_at.get(born).copied().unwrap_or(self.crashes());
            if then < self.crashes() {
                self.marks.hit(Mark::DedupHitAfterRestart);
            }
        }
        if applied.window_passed {
            self.marks.hit(Mark::DedupWindowPassed);
        }
        if applied.gap {
            self.marks.hit(Mark::AckGap);
        }
        if applied.dead_lettered {
            self.marks.hit(Mark::DeadLettered);
        }
        if applied.redriven {
            self.marks.hit(Mark::Redriven);
        }
        if applied.expired {
            self.marks.hit(Mark::RowsExpired);
        }
        if applied.outlived {
            self.marks.hit(Mark::RowOutlivedItsExpiry);
        }
        if applied.published_index {
            self.marks.hit(Mark::BackfillFinished);
            if let Command::Work(chronos_proto::command::Work::PublishIndex { relation, .. }) =
                &*entry.command
                && self.watch.index_asked.remove(relation).is_some_and(|then| then < self.crashes())
            {
                self.marks.hit(Mark::BackfillFinishedAfterCrash);
            }
        }
        let mut dues = BTreeSet::new();
        for (reference, timer) in &applied.fired {
            self.marks.hit(Mark::TimerFired);
            let distance = timer.due.micros_since(timer.scheduled_at);
            let then = self.watch.crashes_at.get(&timer.born).copied().unwrap_or(self.crashes());
            if then < self.crashes() {
                self.marks.hit(Mark::TimerFiredAfterRestart);
                if entry.time.micros_since(timer.due) > 50_000 {
                    self.marks.hit(Mark::TimerDueWhileDown);
                }
            }
            if distance > self.knobs.wheel_window {
                self.marks.hit(Mark::WheelRefilled);
            }
            if distance > 64_000 {
                self.marks.hit(Mark::WheelCascade);
            }
            if !dues.insert(reference.due) {
                self.marks.hit(Mark::TimersTied);
            }
        }
        if !applied.fired.is_empty() {
            *self.watch.fired_recently.entry(self.now / EVERY).or_default() += applied.fired.len() as u64;
        }
    }

    /// A restart found that the log ends at `last`: what came after it never was.
    pub(super) fn forget_above(&mut self, last: u64) -> Held {
        self.say("check", format_args!("entries above {last} never were"));
        self.requests.cut(last);
        if self.model.applied > last {
            // A weak fsync mode lost what was published: who read it holds a state that never was, and gives up.
            self.forget_readers_above(last);
            self.model = Model::default();
            for index in 1..=last {
                if let Some(entry) = self.log.get(index) {
                    self.model.apply(entry);
                }
            }
            self.timers.clear();
            self.schedules.clear();
            self.dedup.clear();
            self.delivery.forget();
        }
        Ok(())
    }

    /// A reader sees an event.
    pub(super) fn event_seen(
        &mut self,
        topic: RelationId,
        offset: u64,
        event: &StoredEvent,
        read: Timestamp,
    ) -> Held {
        // What was published before, as a dead letter or out of one, is the same event again.
        if self.model.copies.contains(&(topic, 0, offset)) {
            return Ok(());
        }
        let id = || keyed_hash(0, event.event.message_id.as_bytes()) as u64;
        let number =
            event.event.payload.first_chunk::<8>().map_or_else(id, |bytes| u64::from_be_bytes(*bytes));
        self.timers.seen(topic, offset, number, event, read)
    }

    /// Ends of processes so far.
    fn crashes(&self) -> u64 {
        self.machines.iter().map(|machine| machine.ills.crashes).sum()
    }

    /// The watch's round. True if the run is over.
    pub(super) fn look_around(&mut self) -> Result<bool, Violation> {
        let settling = self.settling;
        let count = self.machines.len();
        let last = if self.solo() { self.log.last() } else { self.group.committed() };
        let wait = if last > 2_000 { 10 } else { 3 };
        let due = self.now >= self.watch.compared_at + wait * EVERY || settling.is_some();
        let compares = due && self.witness;
        if compares {
            self.watch.compared_at = self.now;
        }
        // The first whose state is at the model's place is looked at in full; all others have the same digest.
        let mut compared = false;
        for m in 0..count {
            let Some(published) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
                continue;
            };
            self.bounded(m)?;
            if self.solo() {
                self.never_late(m, &published)?;
            }
            if compares && !compared && published.snapshot.applied.0 == self.model.applied {
                compared = true;
                if self.solo() {
                    self.replay_durable(m)?;
                }
                self.compare(m, &published)?;
            }
        }
        if let Some(since) = settling
            && self.round_of_settling(since)?
        {
            return Ok(true);
        }
        self.after(EVERY, Event::Watch);
        Ok(false)
    }

    /// The model against everything that a snapshot holds.
    pub(super) fn compare(&mut self, m: usize, published: &Published) -> Held {
        let snapshot = &published.snapshot;
        match state::compare(snapshot, &self.model) {
            Ok(()) => {}
            Err(Difference::Wrong(violation)) => return Err(violation),
            Err(Difference::Damaged(what)) => return self.damage_read(m, &what),
        }
        let claimed = self.machines[m].up.as_ref().and_then(|up| {
            let state = up.node.state(GROUP)?;
            (state.applied() == snapshot.applied).then(|| state.digests().total())
        });
        match digest::of(snapshot) {
            Ok(found) => {
                if let Some(claimed) = claimed {
                    digest::check(snapshot.applied.0, claimed, found)?;
                }
                self.trace.bytes(&found.to_le_bytes());
            }
            Err(damage) => return self.damage_read(m, &damage.to_string()),
        }
        let read = published.read_time(self.machines[m].clock.now(self.now).mono);
        self.dedup.clear();
        let topics: Vec<(RelationId, i64)> = snapshot
            .catalog
            .iter()
            .filter_map(|r| r.topic().map(|t| (r.id, t.dedup_micros as i64)))
            .collect();
        for (topic, window) in topics {
            let events = match snapshot.events(topic, 0, 0, usize::MAX, read) {
                Ok(events) => events,
                Err(damage) => return self.damage_read(m, &damage.to_string()),
            };
            for event in events {
                self.event_seen(topic, event.offset, &event.stored, read)?;
                let copy = self.model.copies.contains(&(topic, 0, event.offset));
                if event.stored.event.message_id.starts_with("shared") && !copy {
                    let window = window - self.knobs.fire_ahead_max;
                    self.dedup.stored(topic, window, event.offset, &event.stored)?;
                }
            }
        }
        let last = if self.solo() { self.log.last() } else { self.group.committed() };
        self.say(
            "check",
            format_args!("{}: state at {} of {last} is the model's", NAMES[m], snapshot.applied),
        );
        Ok(())
    }

    /// A power cut now that leaves nothing unsynced: what it leaves must hold all that was promised.
    fn replay_durable(&mut self, m: usize) -> Held {
        if self.knobs.fsync != Fsync::Always || self.machines[m].ills.is_rotten() {
            return Ok(());
        }
        let last = self.durable_last(m)?;
        if last < self.log.promised() {
            let what =
                format!("the synced bytes hold entries to {last}, but {} was promised", self.log.promised());
            return Err(Violation::safety("no-acked-write-lost", what));
        }
        Ok(())
    }

    fn bounded(&mut self, m: usize) -> Held {
        let Some(up) = &self.machines[m].up else { return Ok(()) };
        let status = up.node.status();
        let k = &self.knobs;
        // One transaction may pass the budget's end before the next is refused; it is frozen and active at once.
        let transaction = 1 << 20;
        memory::check(&[
            Amount { what: "requests in flight", now: status.inflight, max: k.inflight_max as u64 },
            Amount {
                what: "timers in the wheel",
                now: status.timers_near,
                max: 2 * k.wheel_max as u64 + 4_096,
            },
            Amount {
                what: "overlay bytes",
                now: status.overlay_bytes,
                max: (k.overlay_max_bytes + transaction * (2 + k.inflight_max.min(32))) as u64,
            },
        ])
    }

    fn never_late(&mut self, m: usize, published: &Published) -> Held {
        if !self.machines[m].ills.is_well(self.now) {
            return Ok(());
        }
        let now = published.clock.at(self.machines[m].clock.now(self.now).mono);
        let well = Timestamp(now.0 - (self.now - self.machines[m].ills.well_since) as i64);
        let k = &self.knobs;
        let recently: u64 = self
            .watch
            .fired_recently
            .range(self.now.saturating_sub(30 * EVERY) / EVERY..)
            .map(|(_, n)| n)
            .sum();
        let due = self.model.timers.values().filter(|t| t.due <= now).count() as u64 + recently;
        let a_commit = 8 * (k.write_latency + k.sync_latency) + k.gather + k.tick_late + 1_000;
        let batches = due / (k.wheel_max as u64 / 2).max(1) + 10;
        let late_max = (2_000_000 + batches * 4 * a_commit) as i64;
        for ((_, id), timer) in &self.model.timers {
            timers::pending(id, timer.due, timer.set_at, well, now, late_max)?;
        }
        for (id, due) in self.pending_schedules() {
            let set = self.model.schedules.set_at.get(&id).copied().unwrap_or(due);
            timers::pending(&format!("of schedule {id}"), due, set, well, now, late_max)?;
        }
        Ok(())
    }

    fn pending_schedules(&self) -> impl Iterator<Item = (RelationId, Timestamp)> {
        let records = self.model.schedules.records.iter();
        records.filter_map(|(id, record)| Some((*id, record.pending.as_ref()?.due)))
    }

    /// What is still to come, if anything.
    pub(super) fn unsettled(&mut self, m: usize) -> Result<Option<String>, Difference> {
        let Some(published) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
            return Ok(Some("nothing is published".into()));
        };
        let open = self.open_requests();
        if open > 0 {
            return Ok(Some(format!("{open} requests are not answered")));
        }
        let now = published.clock.at(self.machines[m].clock.now(self.now).mono);
        if let Some(((_, id), timer)) = self.model.timers.iter().find(|(_, t)| t.due.0 + 1_000_000 < now.0) {
            return Ok(Some(format!("timer {id:?} was due at {} and is pending at {now}", timer.due)));
        }
        if let Some((id, due)) = self.pending_schedules().find(|(_, due)| due.0 + 1_000_000 < now.0) {
            return Ok(Some(format!("schedule {id} was due at {due} and is pending at {now}")));
        }
        let left = state::leftovers(&published.snapshot, &self.model)?;
        if left > 0 {
            return Ok(Some(format!(
                "{left} keys of dropped relations, indexes or unfinished work are left"
            )));
        }
        if !self.model.dropped.is_empty() {
            self.marks.hit(Mark::PurgeFinished);
        }
        let member: Vec<_> =
            self.delivery.members().map(|(id, topic, group)| (id, topic, group.map(str::to_owned))).collect();
        for (id, topic, group) in member {
            let released =
                published.snapshot.events(topic, 0, 0, usize::MAX, now).map_err(Difference::from)?;
            let end = released.len() as u64;
            match group {
                Some(group) => {
                    let done = self
                        .model
                        .done
                        .get(&(topic, group.clone(), 0))
                        .map_or(0, |d| d.range(..end).count() as u64);
                    if done < end {
                        return Ok(Some(format!(
                            "group {group:?} is done with {done} of {end} events of topic {topic}"
                        )));
                    }
                }
                None => {
                    if let Some(next) = self.delivery.next(id, 0).filter(|next| *next < end) {
                        return Ok(Some(format!("{id:?} has got {next} of {end} events of topic {topic}")));
                    }
                }
            }
        }
        let timers = self.machines[m].up.as_ref().map_or(0, |up| up.node.status().timers_pending);
        if timers != self.model.timers.len() as u64 {
            let what =
                format!("the node counts {timers} pending timers, there are {}", self.model.timers.len());
            return Err(Difference::Wrong(Violation::safety("state", what)));
        }
        Ok(None)
    }
}
