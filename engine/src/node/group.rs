//! One group on this node: its Raft, its state, and the leader's memory beside them.

use super::timers::Timers;
use super::{Awaited, Config, Node};
use crate::delivery::PartitionProgress;
use crate::raft::{Raft, Role};
use crate::state::apply::Change;
use crate::state::{ReadError, State};
use crate::step::{Action, Fatal, Outputs, Reason, Reply, SubscriberId, SubscriberInput, Token, Trace};
use crate::store::SharedStore;
use crate::txn::resolver::{self, Resolver};
use crate::txn::{Committed, Refused, Transaction};
use crate::wal::{Record, WriteId};
use bytes::Bytes;
use chronos_proto::command::{Command, Op};
use chronos_proto::id::{GroupId, Index, RelationId, SessionId, Term};
use chronos_proto::limits::TRANSACTION_MAX_BYTES;
use chronos_proto::stamp::Hlc;
use chronos_proto::time::{Instant, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a quiet leader looks for claims and sessions past their window.
const EXPIRY_CHECK: Duration = Duration::from_secs(10);
/// Least time between two bare time entries.
const ADVANCE_EVERY: Duration = Duration::from_millis(100);

/// One group.
pub(super) struct Group {
    pub(super) raft: Raft,
    pub(super) state: State,
    pub(super) timers: Timers,
    resolver: Resolver,
    hlc: Hlc,
    /// The time of the last entry proposed.
    last_time: Timestamp,
    /// Who waits for the entry at an index.
    waiting: BTreeMap<Index, Vec<Token>>,
    /// Requests proposed and not applied.
    in_flight: BTreeMap<(SessionId, u64), Index>,
    /// Claims proposed and not applied, by topic.
    claims_in_flight: BTreeMap<RelationId, u64>,
    work: WorkState,
    advance_at: Option<Instant>,
}

/// Background work is proposed one slice at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkState {
    /// Look at this time.
    LookAt(Instant),
    /// A slice is on its way.
    Proposed(Index),
}

impl Group {
    pub(super) fn new(raft: Raft, state: State, now: Timestamp, config: &Config) -> Group {
        let last = raft.last_entry();
        let stamp = last.map_or(0, |entry| entry.stamp).max(state.stamp);
        let last_time = last.map_or(state.applied_time, |entry| entry.time);
        Group {
            timers: Timers::new(now, config.wheel_window_us, config.wheel_max),
            resolver: Resolver::new(config.resolver_keys),
            hlc: Hlc::above(stamp),
            last_time,
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            claims_in_flight: BTreeMap::new(),
            work: WorkState::LookAt(Instant(0)),
            advance_at: None,
            raft,
            state,
        }
    }

    /// Requests that wait for their entry.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Times at which something is to be done here.
    pub(super) fn deadlines(&self, fire_ahead_us: i64) -> impl Iterator<Item = (Timestamp, Reason)> {
        let ready = self.raft.ready();
        let ahead = |due: Timestamp| Timestamp(due.0.saturating_sub(fire_ahead_us));
        let due = self.timers.next_due().map(ahead);
        let due = if self.timers.has_due() { Some(Timestamp(i64::MIN)) } else { due };
        [
            (due, Reason::Timer),
            (self.timers.next_release(), Reason::Timer),
            (self.timers.refill_at(), Reason::Refill),
        ]
        .into_iter()
        .filter_map(move |(time, reason)| time.filter(|_| ready).map(|time| (time, reason)))
    }

    /// Cluster time moved by itself: the group's time follows by an entry, so that no restart takes it back.
    pub(super) fn time_moved(&mut self, now: Instant) {
        self.advance_at = Some(now);
    }

    /// When background work or a bare time entry is due.
    pub(super) fn work_at(&self) -> Option<Instant> {
        let look = match self.work {
            WorkState::LookAt(at) => Some(at),
            WorkState::Proposed(_) => None,
        };
        look.into_iter().chain(self.advance_at).min().filter(|_| self.raft.ready())
    }

    /// Where events of a partition end for readers at `now`: at the first that is not released.
    fn released_end(&self, topic: RelationId, partition: u32, now: Timestamp) -> u64 {
        self.state.released_end(topic, partition, now)
    }
}

impl Node {
    pub(super) fn campaign_all(&mut self) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in groups {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let hard = group.raft.campaign();
            if let Some(write) = self.append(id, &Record::HardState(hard)) {
                self.awaited.push_back((write, id, Awaited::HardState(hard.term)));
            }
        }
    }

    pub(super) fn hard_state_durable(&mut self, id: GroupId, term: Term, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.raft.hard_state_durable(term) {
            out.now(Action::Trace(Trace::Elected { group: id, term: term.0 }));
            if let Ok(noop) = self.propose(id, Command::Noop)
                && let Some(group) = self.groups.get_mut(&id)
            {
                group.resolver.reset(noop);
            }
        }
    }

    /// Appends a record that the WAL never refuses; the write it is part of comes back.
    pub(super) fn append(&mut self, id: GroupId, record: &Record) -> Option<WriteId> {
        self.wal.append(id, record).ok().map(|(_, write)| write)
    }

    /// Appends a command to a group's log and the WAL's pending write.
    fn propose(&mut self, id: GroupId, command: Command) -> Result<Index, Refused> {
        let now = self.clock.time(self.now.mono);
        let group = self.groups.get_mut(&id).ok_or(Refused::NotLeader)?;
        if group.raft.role() != Role::Leader {
            return Err(Refused::NotLeader);
        }
        let time = now.max(group.last_time);
        let record = Record::Entry(group.raft.entry(time, group.hlc.issue(time), Arc::new(command)));
        let overloaded = |_| Refused::Overloaded(group.waiting.len());
        let (_, write) = self.wal.append(id, &record).map_err(overloaded)?;
        let Record::Entry(entry) = record else { unreachable!("it was made an entry above") };
        let index = entry.index;
        let mut written: Vec<Bytes> = Vec::new();
        resolver::command_keys(&entry.command, &mut written);
        group.resolver.record(index, written);
        group.last_time = time;
        group.raft.append(entry);
        self.awaited.push_back((write, id, Awaited::Entry(index)));
        Ok(index)
    }

    /// Checks a transaction and proposes it. An answer means that it is settled already.
    pub(super) fn commit(
        &mut self,
        id: GroupId,
        token: Token,
        transaction: Transaction,
    ) -> Option<Result<Committed, Refused>> {
        match self.admit(id, &transaction) {
            Err(refused) => return Some(Err(refused)),
            Ok(Admitted::Answered(committed)) => return Some(Ok(committed)),
            Ok(Admitted::InFlight(index)) => {
                self.groups.get_mut(&id)?.waiting.entry(index).or_default().push(token);
                return None;
            }
            Ok(Admitted::New) => {}
        }
        let request = transaction.request;
        let claims = claims(&transaction.ops);
        let index = match self.propose(id, Command::Batch { request, ops: transaction.ops }) {
            Ok(index) => index,
            Err(refused) => return Some(Err(refused)),
        };
        let group = self.groups.get_mut(&id)?;
        group.waiting.insert(index, vec![token]);
        if request.session != SessionId(0) {
            group.in_flight.insert((request.session, request.sequence), index);
        }
        for (topic, count) in claims {
            *group.claims_in_flight.entry(topic).or_default() += count;
        }
        None
    }

    fn admit(&self, id: GroupId, transaction: &Transaction) -> Result<Admitted, Refused> {
        let group = self.groups.get(&id).filter(|g| g.raft.ready()).ok_or(Refused::NotLeader)?;
        let request = transaction.request;
        // Known requests are answered before anything may refuse them: they have happened.
        if let Some(first) = group.state.sessions.outcome(request) {
            let (index, time, outcomes) = (first.index, first.time, first.outcomes.clone());
            return Ok(Admitted::Answered(Committed { index, time, outcomes }));
        }
        if let Some(index) = group.in_flight.get(&(request.session, request.sequence)) {
            return Ok(Admitted::InFlight(*index));
        }
        let now = self.clock.time(self.now.mono).max(group.last_time);
        group.state.sessions.admit(request, now)?;
        if let Some(refused) = self.refusal() {
            return Err(refused);
        }
        if group.waiting.len() >= self.config.inflight_max {
            return Err(Refused::Overloaded(group.waiting.len()));
        }
        let bytes: usize = transaction.ops.iter().map(op_bytes).sum();
        if bytes > TRANSACTION_MAX_BYTES {
            return Err(Refused::TooLarge { bytes, limit: TRANSACTION_MAX_BYTES });
        }
        for (topic, count) in claims(&transaction.ops) {
            let in_flight = group.claims_in_flight.get(&topic).copied().unwrap_or(0);
            if group.state.claims_held(topic) + in_flight + count > crate::state::CLAIMS_MAX {
                return Err(Refused::Full(format!(
                    "the dedup window of topic {topic} holds all the ids it may"
                )));
            }
        }
        group.resolver.check(transaction)?;
        let time = self.clock.time(self.now.mono).max(group.last_time);
        if transaction.valid_until.is_some_and(|until| time >= until) {
            return Err(Refused::Conflict);
        }
        if transaction.ops.is_empty() {
            let (index, time) = (group.state.applied, group.state.applied_time);
            return Ok(Admitted::Answered(Committed { index, time, outcomes: Vec::new() }));
        }
        Ok(Admitted::New)
    }

    /// Applies what is committed.
    pub(super) fn apply(&mut self, id: GroupId, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        let now = self.clock.time(self.now.mono);
        let mut changes = Vec::new();
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let was_ready = group.state.applied >= group.raft.own_term_from();
        while let Some(entry) = group.raft.next_committed(group.state.applied) {
            let index = entry.index;
            let outcomes = group.state.apply(entry, store, &mut changes).map_err(damaged)?;
            out.now(Action::Trace(Trace::Applied { group: id, index, what: name(&entry.command) }));
            if let Command::Batch { request, ops } = &*entry.command {
                group.in_flight.remove(&(request.session, request.sequence));
                for (topic, count) in claims(ops) {
                    if let Some(held) = group.claims_in_flight.get_mut(&topic) {
                        *held = held.saturating_sub(count);
                    }
                }
            }
            if let Some(tokens) = group.waiting.remove(&index) {
                let committed = Committed { index, time: entry.time, outcomes };
                for token in tokens {
                    self.replies.push((token, Reply::Commit(Ok(committed.clone()))));
                }
            }
            if group.work == WorkState::Proposed(index) {
                group.work = WorkState::LookAt(self.now.mono);
            }
        }
        group.raft.applied(group.state.applied);
        if group.state.work_appeared() && matches!(group.work, WorkState::LookAt(_)) {
            group.work = WorkState::LookAt(self.now.mono);
        }
        self.publish = true;
        if !was_ready {
            // Recovery's entries are applied: what they armed is released by the clock again.
            changes.retain(|change| matches!(change, Change::TimeSet(_)));
            let partitions: Vec<_> = group.state.partitions().map(|(topic, p, _)| (topic, p)).collect();
            changes.extend(
                partitions.into_iter().map(|(topic, partition)| Change::Appended { topic, partition }),
            );
        }
        for change in changes {
            self.changed(id, change, now, out);
        }
        Ok(())
    }

    fn changed(&mut self, id: GroupId, change: Change, now: Timestamp, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        match change {
            Change::TimerSet(timer) => group.timers.set(timer),
            Change::Appended { topic, partition } => {
                for release in group.state.releases(topic, partition, now) {
                    group.timers.arm(release, topic, partition);
                }
                let end = group.released_end(topic, partition, now);
                self.delivery.released(topic, partition, end);
            }
            Change::Acked { topic, consumer_group, offsets } => {
                self.delivery.acked(topic, &consumer_group, &offsets);
            }
            Change::Dropped(topic) => {
                for subscriber in self.delivery.drop_topic(topic) {
                    out.now(Action::CloseSubscriber(subscriber, "the topic was dropped".into()));
                }
            }
            Change::TimeSet(time) => group.last_time = time,
        }
    }

    /// Fires, releases and refills timers, and proposes background work.
    pub(super) fn tick_groups(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        let now = self.clock.time(self.now.mono);
        let horizon = Timestamp(now.0.saturating_add(self.fire_ahead_us()));
        for id in groups {
            let Some(group) = self.groups.get_mut(&id).filter(|group| group.raft.ready()) else { continue };
            if group.timers.wants_refill(now) {
                let snapshot = group.state.snapshot(store);
                group.timers.refill(now, &snapshot).map_err(damaged)?;
            }
            let timers = group.timers.take_due(horizon);
            if !timers.is_empty()
                && self.propose(id, Command::Fire { timers: timers.clone() }).is_err()
                && let Some(group) = self.groups.get_mut(&id)
            {
                group.timers.put_back(timers);
            }
            self.release(id, now, out);
            self.propose_work(id, store)?;
        }
        Ok(())
    }

    fn release(&mut self, id: GroupId, now: Timestamp, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let released = group.timers.take_released(now);
        if let Some((last, _, _)) = released.last()
            && group.last_time < *last
            && group.advance_at.is_none()
        {
            // Followers and the next leader release by applied time.
            group.advance_at = Some(self.now.mono + ADVANCE_EVERY);
        }
        for (due, topic, partition) in released {
            let end = group.released_end(topic, partition, now);
            self.delivery.released(topic, partition, end);
            out.now(Action::Trace(Trace::Released { topic, due, at: now }));
        }
    }

    fn propose_work(&mut self, id: GroupId, store: &SharedStore) -> Result<(), Fatal> {
        let mono = self.now.mono;
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if let WorkState::LookAt(at) = group.work
            && mono >= at
        {
            group.work = WorkState::LookAt(mono + EXPIRY_CHECK);
            if let Some(work) = group.state.pending_work(store).map_err(damaged)?
                && let Ok(index) = self.propose(id, Command::Work(work))
                && let Some(group) = self.groups.get_mut(&id)
            {
                group.work = WorkState::Proposed(index);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if group.raft.ready()
            && group.advance_at.take_if(|at| mono >= *at).is_some()
            && self.propose(id, Command::AdvanceTime).is_err()
            && let Some(group) = self.groups.get_mut(&id)
        {
            group.advance_at = Some(mono + ADVANCE_EVERY);
        }
        Ok(())
    }

    // Subscribers

    pub(super) fn subscriber(
        &mut self,
        id: SubscriberId,
        event: SubscriberInput,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        match event {
            SubscriberInput::Open(subscription) => {
                let now = self.clock.time(self.now.mono);
                let topic = subscription.topic;
                let found = self.groups.values().find_map(|group| {
                    let relation = group.state.catalog.get(topic)?;
                    Some((group, relation.topic()?.partitions))
                });
                let Some((group, partitions)) = found else {
                    let why = format!("there is no topic {topic}");
                    out.now(Action::CloseSubscriber(id, why));
                    return Ok(());
                };
                let snapshot = group.state.snapshot(store);
                let mut positions = Vec::new();
                for partition in 0..partitions {
                    let stored = match &subscription.consumer_group {
                        Some(name) => snapshot.consumer_if_any(topic, name, partition).map_err(damaged)?,
                        None => None,
                    };
                    let released = group.released_end(topic, partition, now);
                    positions.push(PartitionProgress { partition, stored, released });
                }
                if let Some(command) = self.delivery.open(self.now.mono, id, subscription, &positions) {
                    self.propose_progress(command);
                }
            }
            SubscriberInput::Credit(more) => self.delivery.credit(id, more),
            SubscriberInput::Ack(offsets) => {
                if let Some(command) = self.delivery.ack(id, &offsets) {
                    self.propose_progress(command);
                }
            }
            SubscriberInput::Nack { offsets, delay_ms } => {
                self.delivery.nack(self.now.mono, id, &offsets, delay_ms);
            }
            SubscriberInput::Close => self.delivery.close(self.now.mono, id),
        }
        Ok(())
    }

    /// Proposes a consumer group's progress in the group that holds the topic. What the WAL has no room for now waits,
    /// and what comes behind it waits too: a group's start is logged before its acknowledgements.
    pub(super) fn propose_progress(&mut self, command: Command) {
        let (Command::Ack { topic, .. } | Command::StartGroup { topic, .. }) = &command else { return };
        let topic = *topic;
        let holder = self.groups.iter().find(|(_, group)| group.state.catalog.get(topic).is_some());
        let Some(id) = holder.map(|(id, _)| *id) else { return };
        if !self.unlogged.is_empty() || self.propose(id, command.clone()).is_err() {
            self.unlogged.push_back(command);
        }
    }
}

enum Admitted {
    /// It happened before: the first outcome.
    Answered(Committed),
    /// It was proposed at this index.
    InFlight(Index),
    New,
}

fn damaged(error: ReadError) -> Fatal {
    Fatal::StateDamaged(error.to_string())
}

/// Message ids that operations claim, by topic.
fn claims(ops: &[Op]) -> BTreeMap<RelationId, u64> {
    let mut out = BTreeMap::new();
    for op in ops {
        if let Op::Publish { topic, claim: true, .. } | Op::Schedule { topic, claim: true, .. } = op {
            *out.entry(*topic).or_default() += 1;
        }
    }
    out
}

fn op_bytes(op: &Op) -> usize {
    64 + match op {
        Op::PutRow { key, row, indexes, .. } => {
            key.len() + row.len() + indexes.iter().map(|i| i.key.len() + 16).sum::<usize>()
        }
        Op::DeleteRow { key, indexes, .. } => {
            key.len() + indexes.iter().map(|i| i.key.len() + 16).sum::<usize>()
        }
        Op::AppendRow { row, indexes, .. } => {
            row.len() + indexes.iter().map(|(_, columns)| columns.len() + 16).sum::<usize>()
        }
        Op::Publish { event, .. } | Op::Schedule { event, .. } => {
            event.payload.len() + event.message_id.len()
        }
        Op::Reschedule { payload, .. } => payload.as_ref().map_or(0, Bytes::len),
        Op::Cancel { timer_id, .. } => timer_id.len(),
        Op::PutRelation(_) | Op::DropRelation(_) => 1_024,
    }
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Noop => "noop",
        Command::Batch { .. } => "batch",
        Command::AdvanceTime => "advance",
        Command::Fire { .. } => "fire",
        Command::Work(_) => "work",
        Command::Ack { .. } => "ack",
        Command::TimeEpoch(_) => "epoch",
        Command::StartGroup { .. } => "start group",
    }
}
