//! One group on this node: its Raft, its state, and the leader's memory beside them.

use super::timers::Timers;
use super::{Config, Node};
use crate::bugs::{self, Bug};
use crate::catalog::Catalog;
use crate::clock::ClusterClock;
use crate::delivery::{Limit, PartitionProgress};
use crate::keys;
use crate::raft::{self, ProposeError, Raft, Role};
use crate::schedule::take_turn;
use crate::state::apply::Change;
use crate::state::records::Attempts;
use crate::state::{ReadError, State};
use crate::step::{
    Action, Fatal, Fresh, Outputs, Published, Reason, Reply, SubscriberId, SubscriberInput, Token, Trace,
};
use crate::store::SharedStore;
use crate::txn::resolver::{self, Resolver};
use crate::txn::{Committed, Refused, Transaction};
use crate::wal::{Record, WriteId};
use bytes::Bytes;
use chronos_proto::command::{Command, Op, TimerRef};
use chronos_proto::id::{GroupId, Index, NodeId, RelationId, SessionId, Term};
use chronos_proto::limits::{OUTBOX_MAX_BYTES, REPLICATED_TRANSACTION_MAX_BYTES, TRANSACTION_MAX_BYTES};
use chronos_proto::peer::{ForwardOutcome, PeerMessage};
use chronos_proto::schedule::Turn;
use chronos_proto::schema::Relation;
use chronos_proto::stamp::Hlc;
use chronos_proto::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often a quiet leader looks for claims and sessions past their window.
const EXPIRY_CHECK: Duration = Duration::from_secs(10);
/// The same for rows, where a table has a time to live.
const TTL_CHECK: Duration = Duration::from_secs(1);
/// One step applies about so much of a group, in bytes of entries.
const APPLY_SLICE_BYTES: usize = 4 << 20;
/// Least time between two bare time entries.
const ADVANCE_EVERY: Duration = Duration::from_millis(100);

/// Whom to tell what became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Waiter {
    /// A client of this node.
    Client(Token),
    /// A node that took the write, by its own number.
    Peer(NodeId, u64),
}

/// One group.
#[derive(Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) raft: Raft,
    pub(super) state: State,
    pub(super) timers: Timers,
    resolver: Resolver,
    /// Who waits for the entry at an index, of this term.
    waiting: BTreeMap<Index, (Term, Vec<Waiter>)>,
    /// Requests proposed and not applied.
    in_flight: BTreeMap<(SessionId, u64), Index>,
    /// Claims proposed and not applied, by topic.
    claims_in_flight: BTreeMap<RelationId, u64>,
    /// An entry whose way from proposal to apply is timed.
    timed: Option<(Index, Instant)>,
    work: WorkState,
    advance_at: Option<Instant>,
    /// Writes of other groups' outboxes proposed and not applied: the last number, and who sent them.
    pub(super) delivering: BTreeMap<GroupId, (u64, NodeId)>,
    /// Readers have been given a state of this run.
    pub(super) published: bool,
    /// What is published may be read by a lease.
    pub(super) leased: bool,
    /// The role and leader that were acted upon last.
    known: (Role, Option<NodeId>),
    /// For `/metrics`.
    pub(super) leader_changes: u64,
    pub(super) elections_won: u64,
}

/// Background work is proposed one slice at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WorkState {
    /// Look at this time.
    LookAt(Instant),
    /// A slice is on its way.
    Proposed(Index),
}

impl Group {
    pub(super) fn new(raft: Raft, state: State, now: Timestamp, config: &Config) -> Group {
        Group {
            timers: Timers::new(now, config.wheel_window_us, config.wheel_max),
            resolver: Resolver::new(config.resolver_keys),
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            claims_in_flight: BTreeMap::new(),
            timed: None,
            work: WorkState::LookAt(Instant(0)),
            advance_at: None,
            delivering: BTreeMap::new(),
            published: false,
            leased: false,
            known: (Role::Follower, None),
            leader_changes: 0,
            elections_won: 0,
            raft,
            state,
        }
    }

    /// Whether this node leads the group, its state holds all that was ever promised, and it knows the time.
    pub(super) fn serves(&self, clock: &ClusterClock) -> bool {
        clock.is_set() && self.raft.ready() && self.state.applied >= self.raft.own_term_from()
    }

    /// What others and earlier runs armed, which the clock here is to release: as if it were appended now.
    fn armed(&self) -> Vec<Change> {
        let partitions = self.state.partitions();
        partitions.map(|(topic, partition, _)| Change::Appended { topic, partition }).collect()
    }

    /// Whether its state has all that this node knows to be committed.
    pub(super) fn shows_all(&self) -> bool {
        self.state.applied >= self.raft.committed()
    }

    /// Who waits for an entry of a term before this one, of which an entry is committed: logs never go back a term, so
    /// none that holds what is committed can hold theirs.
    fn take_overtaken(&mut self, term: Term) -> Vec<Waiter> {
        let mut overtaken = Vec::new();
        self.waiting.retain(|_, (proposed, waiters)| {
            let stays = *proposed >= term;
            if !stays {
                overtaken.append(waiters);
            }
            stays
        });
        overtaken
    }

    /// Requests that wait for their entry.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Times at which something is to be done here.
    pub(super) fn deadlines(
        &self,
        clock: &ClusterClock,
        fire_ahead_us: i64,
    ) -> impl Iterator<Item = (Timestamp, Reason)> {
        let ready = self.serves(clock);
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
    pub(super) fn work_at(&self, clock: &ClusterClock) -> Option<Instant> {
        let look = match self.work {
            WorkState::LookAt(at) => Some(at),
            WorkState::Proposed(_) => None,
        };
        look.into_iter().chain(self.advance_at).min().filter(|_| self.serves(clock))
    }

    /// What is to be done about schedules that came out of the wheel: of those that are still pending, one turn each.
    fn turns(&self, due: &[TimerRef], now: Timestamp, store: &SharedStore) -> Result<Vec<Turn>, ReadError> {
        let ids: BTreeSet<RelationId> = due.iter().map(|timer| timer.topic).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let snapshot = self.state.snapshot(store);
        let mut turns = Vec::new();
        for id in ids {
            let relation = self.state.catalog.get(id);
            let Some(schedule) = relation.and_then(|relation| relation.schedule()) else { continue };
            let Some(record) = snapshot.schedule(id)? else { continue };
            turns.extend(take_turn(id, schedule, &record, now));
        }
        Ok(turns)
    }

    /// Where events of a partition end for readers at `now`: at the first that is not released.
    fn released_end(&self, topic: RelationId, partition: u32, now: Timestamp) -> u64 {
        self.state.released_end(topic, partition, now)
    }
}

impl Node {
    /// A group of one needs nobody's consent.
    pub(super) fn campaign_alone(&mut self) {
        let mono = self.now.mono;
        for (id, group) in &mut self.groups {
            if group.raft.configuration().is_alone(self.config.node) {
                group.raft.campaign(mono);
                self.dirty.insert(*id);
            }
        }
    }

    /// Appends a record to the WAL; the write it is part of comes back.
    pub(super) fn append(&mut self, id: GroupId, record: &Record) -> WriteId {
        self.wal.append(id, record).1
    }

    /// Does what the groups want that something happened in: writes, messages, answers; and applies what is committed.
    pub(super) fn settle(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        for command in self.delivery.take_commands() {
            self.propose_progress(command);
        }
        while let Some(id) = self.dirty.pop_first() {
            self.apply(id, store, out)?;
            self.end_leased_reads(id, store, out);
            let mut outputs = std::mem::take(&mut self.raft_outputs);
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.outputs(&mut outputs);
            }
            for output in outputs.drain(..) {
                self.perform(id, output, store, out);
            }
            self.raft_outputs = outputs;
            self.role_changed(id, out);
            if self.dirty.is_empty() {
                self.send_outboxes(store, out)?;
            }
        }
        self.send_beats(out);
        Ok(())
    }

    /// What a quorum has may be committed before this leader's own disk has it, and others show it as soon as they hear
    /// of that; and a leader that hands over has no lease any more. From before others hear of either, readers here must
    /// ask.
    fn end_leased_reads(&mut self, id: GroupId, store: &SharedStore, out: &mut Outputs) {
        let clock = self.clock.reading(self.now.mono);
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.leased && (group.raft.lease_until().is_none() || !group.shows_all()) {
            group.leased = false;
            let snapshot = group.state.snapshot(store);
            out.now(Action::Publish(Published { snapshot, clock, fresh: Fresh::Ask }));
        }
    }

    fn perform(&mut self, id: GroupId, output: raft::Output, store: &SharedStore, out: &mut Outputs) {
        match output {
            raft::Output::Persist { write, record } => {
                // Raft keeps entries in memory longer than the WAL does: what is to go may have gone from there.
                let record = match record {
                    Record::Truncate { from } => {
                        Record::Truncate { from: from.max(self.wal.compacted(id).index.next()) }
                    }
                    record => record,
                };
                let after = self.append(id, &record);
                self.awaited.push_back((after, id, write));
            }
            raft::Output::Send { to, message } => self.send_raft(id, to, message, out),
            raft::Output::Read { number, index } => {
                let at = index.map(|index| (index, self.clock.time(self.now.mono)));
                self.read_at(number, at, out);
            }
            raft::Output::SendSnapshot { to } => {
                self.send_snapshot(id, to, store, out);
                self.dirty.insert(id);
            }
            raft::Output::Install { last, configuration } => {
                self.install(id, last, configuration);
                self.dirty.insert(id);
            }
            raft::Output::Trusted => out.now(Action::Trace(Trace::Trusted { group: id })),
            raft::Output::Role { role, term, leader } => {
                out.now(Action::Trace(Trace::Role { group: id, role, term: term.0, leader }));
            }
        }
    }

    /// Acts upon another role or leader, once for however many changes there were.
    fn role_changed(&mut self, id: GroupId, out: &mut Outputs) {
        let mono = self.now.mono;
        let now = self.clock.time(mono);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let known = (group.raft.role(), group.raft.leader());
        let before = std::mem::replace(&mut group.known, known);
        if before == known {
            return;
        }
        let term = group.raft.term();
        group.leader_changes += u64::from(known.1.is_some() && known.1 != before.1);
        group.elections_won += u64::from(known.0 == Role::Leader);
        if known.0 == Role::Leader {
            out.now(Action::Trace(Trace::Elected { group: id, term: term.0 }));
            let floor = group.raft.own_term_from();
            group.resolver.reset(if bugs::active(Bug::ForgetfulResolver) { Index(0) } else { floor });
            group.timers = Timers::new(now, self.config.wheel_window_us, self.config.wheel_max);
            group.work = WorkState::LookAt(mono);
        } else if before.0 == Role::Leader {
            group.in_flight.clear();
            group.claims_in_flight.clear();
            group.advance_at = None;
            group.delivering.clear();
            // Another leader hands it out again, and says itself what becomes of it.
            self.unlogged.retain(|(home, _)| *home != id);
            let here = group.state.catalog.iter().filter(|relation| relation.homes().contains(&id));
            let topics: Vec<RelationId> = here.map(|relation| relation.id).collect();
            for (_, waiters) in group.waiting.values_mut() {
                // Who forwarded it asks the next leader; clients here learn of it when the index is settled.
                waiters.retain(|waiter| match waiter {
                    Waiter::Client(_) => true,
                    Waiter::Peer(to, number) => {
                        let outcome = ForwardOutcome::Unknown;
                        let message = PeerMessage::ForwardReply { number: *number, outcome };
                        out.now(Action::Send { to: *to, message });
                        false
                    }
                });
            }
            self.stop_sending(id);
            self.close_subscribers(
                topics,
                "this node does not lead the topic any more: subscribe again",
                out,
            );
            if id == GroupId(0) {
                self.noting.clear();
            }
        }
        self.publish.insert(id);
        if known.0 != Role::Leader {
            self.outboxes_of(id);
        }
        if known.1.is_some() {
            self.outboxes_for(id);
            self.leader_changed_for_forwards(id, out);
            self.leader_changed_for_reads(id, out);
        }
    }

    fn close_subscribers(&mut self, topics: Vec<RelationId>, why: &str, out: &mut Outputs) {
        for topic in topics {
            for subscriber in self.delivery.drop_topic(topic) {
                out.now(Action::CloseSubscriber(subscriber, why.into()));
            }
        }
    }

    /// The state was replaced by a snapshot's: who waited for an entry that is in it cannot be told what became of it.
    pub(super) fn state_replaced(&mut self, id: GroupId, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let applied = group.state.applied;
        let later = group.waiting.split_off(&applied.next());
        let settled = std::mem::replace(&mut group.waiting, later);
        let overtaken = group.take_overtaken(group.state.applied_term);
        for waiter in overtaken {
            self.answer(id, waiter, Err(Refused::NotLeader));
        }
        for (_, waiters) in settled.into_values() {
            for waiter in waiters {
                if let Waiter::Client(token) = waiter {
                    let why = "this node was brought up to date by a snapshot meanwhile".to_owned();
                    self.replies.push((token, Reply::Unknown(why)));
                }
            }
        }
        self.reads_applied(id);
        self.forwards_applied(id);
        if id == GroupId(0) {
            self.relink(out);
        }
    }

    /// Tells whoever waits what became of a write.
    pub(super) fn answer(&mut self, id: GroupId, waiter: Waiter, result: Result<Committed, Refused>) {
        match waiter {
            Waiter::Client(token) => self.replies.push((token, Reply::Commit(result))),
            Waiter::Peer(to, number) => {
                let term = self.groups.get(&id).map(|group| group.raft.term()).unwrap_or_default();
                let outcome = super::forward::outcome(term, result);
                self.peer_replies.push((to, PeerMessage::ForwardReply { number, outcome }));
            }
        }
    }

    /// Appends a command to a group's log.
    pub(super) fn propose(&mut self, id: GroupId, command: Command) -> Result<Index, Refused> {
        let now = self.clock.time(self.now.mono);
        let group = self.groups.get_mut(&id).ok_or(Refused::NotLeader)?;
        let overloaded = Refused::Overloaded(group.waiting.len());
        self.wal.backlog().map_err(|_| overloaded.clone())?;
        let time = now.max(group.raft.last_time());
        let stamp = Hlc::above(group.raft.last_stamp()).issue(time);
        let mut written: Vec<Bytes> = Vec::new();
        resolver::command_keys(&command, &mut written);
        if group.raft.role() == Role::Leader {
            group.raft.wake(self.now.mono);
        }
        let index = group.raft.propose(time, stamp, Arc::new(command)).map_err(|error| match error {
            ProposeError::NotLeader | ProposeError::Transferring => Refused::NotLeader,
            ProposeError::Backlog(_) => overloaded,
        })?;
        group.resolver.record(index, written);
        group.timed.get_or_insert((index, self.now.mono));
        self.dirty.insert(id);
        Ok(index)
    }

    /// Checks a transaction and proposes it. An answer means that it is settled already.
    pub(super) fn commit(
        &mut self,
        id: GroupId,
        waiter: Waiter,
        transaction: Transaction,
    ) -> Option<Result<Committed, Refused>> {
        match self.admit(id, &transaction) {
            Err(refused) => return Some(Err(refused)),
            Ok(Admitted::Answered(committed)) => return Some(Ok(committed)),
            Ok(Admitted::InFlight(index)) => {
                let group = self.groups.get_mut(&id)?;
                let term = group.raft.term();
                group.waiting.entry(index).or_insert((term, Vec::new())).1.push(waiter);
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
        group.waiting.insert(index, (group.raft.term(), vec![waiter]));
        if request.session != SessionId(0) {
            group.in_flight.insert((request.session, request.sequence), index);
        }
        for (topic, count) in claims {
            *group.claims_in_flight.entry(topic).or_default() += count;
        }
        None
    }

    fn admit(&self, id: GroupId, transaction: &Transaction) -> Result<Admitted, Refused> {
        let group = self.groups.get(&id).filter(|g| g.serves(&self.clock)).ok_or(Refused::NotLeader)?;
        let request = transaction.request;
        // Known requests are answered before anything may refuse them: they have happened.
        if let Some(first) = group.state.sessions.outcome(request) {
            let (index, time, outcomes) = (first.index, first.time, first.outcomes.clone());
            return Ok(Admitted::Answered(Committed { index, time, outcomes }));
        }
        if let Some(index) = group.in_flight.get(&(request.session, request.sequence)) {
            return Ok(Admitted::InFlight(*index));
        }
        let now = self.clock.time(self.now.mono).max(group.raft.last_time());
        group.state.sessions.admit(request, now)?;
        if let Some(refused) = self.refusal() {
            return Err(refused);
        }
        if group.waiting.len() >= self.config.inflight_max {
            return Err(Refused::Overloaded(group.waiting.len()));
        }
        let bytes: usize = transaction.ops.iter().map(Op::bytes).sum();
        let limit = match group.raft.reads_alone() {
            true => TRANSACTION_MAX_BYTES,
            false => REPLICATED_TRANSACTION_MAX_BYTES,
        };
        let elsewhere = |op: &Op| match op {
            Op::Publish { topic, partition, .. } | Op::Schedule { topic, partition, .. } => {
                group.state.catalog.get(*topic).is_some_and(|relation| relation.home(*partition) != id)
            }
            _ => false,
        };
        if group.state.outbox_bytes().saturating_add(bytes) > OUTBOX_MAX_BYTES
            && transaction.ops.iter().any(elsewhere)
        {
            return Err(Refused::Full(format!(
                "the outbox of group {id} holds {} bytes of events that the groups of their partitions have not \
                 taken yet; see that these groups have leaders, and retry",
                group.state.outbox_bytes()
            )));
        }
        if bytes > limit {
            return Err(Refused::TooLarge { bytes, limit });
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
        let time = self.clock.time(self.now.mono).max(group.raft.last_time());
        if transaction.valid_until.is_some_and(|until| time >= until) || read_ahead(group, transaction, time)
        {
            return Err(Refused::Conflict);
        }
        if transaction.ops.is_empty() {
            let (index, time) = (group.state.applied, group.state.applied_time);
            return Ok(Admitted::Answered(Committed { index, time, outcomes: Vec::new() }));
        }
        Ok(Admitted::New)
    }

    /// Applies what is committed and durable here.
    fn apply(&mut self, id: GroupId, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        let now = self.clock.time(self.now.mono);
        let mut changes = Vec::new();
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let served = group.serves(&self.clock);
        let before = group.state.applied;
        let mut bytes = 0;
        let mut settled = Vec::new();
        while let Some(entry) = group.raft.next_committed(group.state.applied) {
            if bytes > APPLY_SLICE_BYTES {
                // Heartbeats and votes come in between.
                self.behind.insert(id);
                break;
            }
            bytes += entry.command.bytes();
            let (index, term) = (entry.index, entry.term);
            let later = term > group.state.applied_term;
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
            if let Some((proposed, waiters)) = group.waiting.remove(&index) {
                let result = match proposed == term {
                    true => Ok(Committed { index, time: entry.time, outcomes }),
                    // Another leader's entry took its place.
                    false => Err(Refused::NotLeader),
                };
                settled.extend(waiters.into_iter().map(|waiter| (waiter, result.clone())));
            }
            if later {
                let overtaken = group.take_overtaken(term).into_iter();
                settled.extend(overtaken.map(|waiter| (waiter, Err(Refused::NotLeader))));
            }
            if group.work == WorkState::Proposed(index) {
                group.work = WorkState::LookAt(self.now.mono);
            }
            if let Some((_, at)) = group.timed.take_if(|(timed, _)| *timed <= index) {
                self.latencies.push_back(self.now.mono.micros_since(at));
            }
        }
        if group.state.applied == before {
            return Ok(());
        }
        while self.latencies.len() > super::LATENCIES {
            self.latencies.pop_front();
        }
        group.raft.applied(group.state.applied);
        if group.state.work_appeared() && matches!(group.work, WorkState::LookAt(_)) {
            group.work = WorkState::LookAt(self.now.mono);
        }
        let serves = group.serves(&self.clock);
        self.publish.insert(id);
        if serves && !served {
            changes.retain(|change| matches!(change, Change::Members));
            changes.extend(group.armed());
        }
        for (waiter, result) in settled {
            self.answer(id, waiter, result);
        }
        for change in changes {
            self.changed(id, change, serves, now, out);
        }
        self.reads_applied(id);
        self.forwards_applied(id);
        if serves && !served {
            self.began_to_serve(id, out);
        }
        Ok(())
    }

    /// The first time that this node hears of; groups that it leads may have waited for it.
    pub(super) fn time_is_set(&mut self, out: &mut Outputs) {
        let now = self.clock.time(self.now.mono);
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            let Some(group) = self.groups.get(&id).filter(|group| group.serves(&self.clock)) else {
                continue;
            };
            for change in group.armed() {
                self.changed(id, change, true, now, out);
            }
            self.began_to_serve(id, out);
        }
    }

    /// The state of a group that this node leads holds all that was ever promised.
    fn began_to_serve(&mut self, id: GroupId, out: &mut Outputs) {
        self.leader_changed_for_forwards(id, out);
        self.outboxes_of(id);
        self.outboxes_for(id);
        let Some(group) = self.groups.get(&id) else { return };
        if !self.config.members.is_empty() && group.state.membership().is_none() {
            // From here on snapshots can tell who is in the group.
            let configuration = group.raft.configuration().clone();
            let _later_leaders_try_again = self.propose(id, Command::Membership(configuration));
        }
        self.note_incarnations();
    }

    fn changed(&mut self, id: GroupId, change: Change, serves: bool, now: Timestamp, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        match change {
            Change::Members => {
                let applied = group.state.applied;
                self.noting.retain(|_, index| *index > applied);
                self.relink(out);
            }
            Change::Sent(target) if serves => self.outbox_filled(id, target),
            Change::Received { origin, upto } if serves => self.outbox_applied(id, origin, upto, out),
            Change::Sent(_) | Change::Received { .. } => {}
            // Only a leader fires and delivers; another begins from its state when it is elected.
            Change::TimerSet(_)
            | Change::Appended { .. }
            | Change::Acked { .. }
            | Change::Kept { .. }
            | Change::Defined(_)
                if !serves => {}
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
            Change::Kept { topic, consumer_group, offsets } => {
                self.delivery.kept(topic, &consumer_group, &offsets);
            }
            Change::Defined(relation) => {
                let limit = limit_of(&group.state.catalog, relation);
                self.delivery.limit(relation, limit);
            }
            Change::Dropped(topic) => {
                for subscriber in self.delivery.drop_topic(topic) {
                    out.now(Action::CloseSubscriber(subscriber, "the topic was dropped".into()));
                }
            }
            Change::TimeSet(_) => {}
        }
    }

    /// Fires, releases and refills timers, and proposes background work.
    pub(super) fn tick_groups(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        let now = self.clock.time(self.now.mono);
        let horizon = Timestamp(now.0.saturating_add(self.fire_ahead_us()));
        for id in groups {
            let Some(group) = self.groups.get_mut(&id).filter(|group| group.serves(&self.clock)) else {
                continue;
            };
            if group.timers.wants_refill(now) {
                let snapshot = group.state.snapshot(store);
                group.timers.refill(now, &snapshot).map_err(damaged)?;
            }
            let due = group.timers.take_due(horizon);
            let schedules = |timer: &TimerRef| {
                group.state.catalog.get(timer.topic).is_some_and(|relation| relation.schedule().is_some())
            };
            let (schedules, timers): (Vec<_>, Vec<_>) = due.into_iter().partition(schedules);
            let turns = group.turns(&schedules, horizon, store).map_err(damaged)?;
            for (command, timers) in
                [(Command::Fire { timers: timers.clone() }, timers), (Command::Occur(turns), schedules)]
            {
                if !timers.is_empty()
                    && self.propose(id, command).is_err()
                    && let Some(group) = self.groups.get_mut(&id)
                {
                    group.timers.put_back(timers);
                }
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
            && group.raft.last_time() < *last
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
        let now = self.clock.time(mono);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if let WorkState::LookAt(at) = group.work
            && mono >= at
        {
            group.work =
                WorkState::LookAt(mono + if group.state.has_ttl() { TTL_CHECK } else { EXPIRY_CHECK });
            if let Some(work) = group.state.pending_work(now, store).map_err(damaged)?
                && let Ok(index) = self.propose(id, Command::Work(work))
                && let Some(group) = self.groups.get_mut(&id)
            {
                group.work = WorkState::Proposed(index);
            }
        }
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        if group.serves(&self.clock)
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
                let relation = self.groups.values().find_map(|group| group.state.catalog.get(topic).cloned());
                let partitions =
                    relation.as_ref().and_then(|relation| relation.topic()).map(|t| t.partitions);
                let (Some(relation), Some(partitions)) = (relation, partitions) else {
                    let why = format!("there is no topic {topic}");
                    out.now(Action::CloseSubscriber(id, why));
                    return Ok(());
                };
                let asked = match subscription.partitions.is_empty() {
                    true => (0..partitions).collect(),
                    false => subscription.partitions.clone(),
                };
                let mut positions = Vec::new();
                for partition in asked {
                    let home = relation.home(partition);
                    let Some(group) = self.groups.get(&home).filter(|group| group.serves(&self.clock)) else {
                        let why = format!(
                            "this node does not lead the group of topic {topic}: {}",
                            self.leader_in_words(home)
                        );
                        out.now(Action::CloseSubscriber(id, why));
                        return Ok(());
                    };
                    let snapshot = group.state.snapshot(store);
                    let stored = match &subscription.consumer_group {
                        Some(name) => snapshot.consumer_if_any(topic, name, partition).map_err(damaged)?,
                        None => None,
                    };
                    let attempts = match &subscription.consumer_group {
                        Some(name) => snapshot.attempts(topic, name, partition).map_err(damaged)?,
                        None => Attempts::new(),
                    };
                    let released = group.released_end(topic, partition, now);
                    positions.push(PartitionProgress { partition, stored, attempts, released });
                }
                let catalog = self.groups.get(&relation.home(0)).map(|group| &group.state.catalog);
                self.delivery.limit(topic, catalog.and_then(|catalog| limit_of(catalog, topic)));
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
            SubscriberInput::Nack { offsets, delay_ms, reason } => {
                self.delivery.nack(self.now.mono, id, &offsets, delay_ms, &reason);
            }
            SubscriberInput::Close => self.delivery.close(self.now.mono, id),
        }
        Ok(())
    }

    fn leader_in_words(&self, group: GroupId) -> String {
        let leader = self.groups.get(&group).and_then(|group| group.raft.leader());
        let leader =
            leader.and_then(|leader| self.members().into_iter().find(|member| member.node == leader));
        leader.map_or("no leader is known yet: try again".to_owned(), |leader| {
            format!("subscribe at its leader, node {} at {}", leader.name, leader.address)
        })
    }

    /// Proposes a consumer group's progress in the groups that hold the partitions. What the WAL has no room for now
    /// waits, and what comes behind it waits too: a group's start is logged before its acknowledgements.
    pub(super) fn propose_progress(&mut self, command: Command) {
        let (Command::Ack { topic, .. }
        | Command::StartGroup { topic, .. }
        | Command::Failed { topic, .. }
        | Command::DeadLetter { topic, .. }) = &command
        else {
            return;
        };
        let holder = self.groups.values().find_map(|group| group.state.catalog.get(*topic).cloned());
        let Some(relation) = holder else { return };
        for (home, command) in by_home(&relation, command) {
            self.log_progress(home, command);
        }
    }

    pub(super) fn log_progress(&mut self, home: GroupId, command: Command) {
        if !self.unlogged.is_empty() || self.propose(home, command.clone()).is_err() {
            self.unlogged.push_back((home, command));
        }
    }
}

/// When events of a topic become dead letters, if they ever do.
fn limit_of(catalog: &Catalog, topic: RelationId) -> Option<Limit> {
    let settings = catalog.get(topic)?.topic()?;
    let dead = settings.dead_letter().filter(|dead| catalog.get(*dead).is_some())?;
    Some(Limit { deliveries: settings.max_deliveries()?, dead })
}

/// A consumer group's progress, for each group that holds partitions of it.
fn by_home(relation: &Relation, command: Command) -> BTreeMap<GroupId, Command> {
    fn split<T>(relation: &Relation, all: Vec<T>, of: impl Fn(&T) -> u32) -> BTreeMap<GroupId, Vec<T>> {
        let mut homes: BTreeMap<GroupId, Vec<T>> = BTreeMap::new();
        for one in all {
            homes.entry(relation.home(of(&one))).or_default().push(one);
        }
        homes
    }
    fn each<T>(
        parts: BTreeMap<GroupId, Vec<T>>,
        make: impl Fn(Vec<T>) -> Command,
    ) -> BTreeMap<GroupId, Command> {
        parts.into_iter().map(|(home, part)| (home, make(part))).collect()
    }
    match command {
        Command::Ack { topic, consumer_group, offsets } => {
            each(split(relation, offsets, |(partition, _)| *partition), |offsets| {
                let consumer_group = consumer_group.clone();
                Command::Ack { topic, consumer_group, offsets }
            })
        }
        Command::StartGroup { topic, consumer_group, floors } => {
            each(split(relation, floors, |(partition, _)| *partition), |floors| {
                let consumer_group = consumer_group.clone();
                Command::StartGroup { topic, consumer_group, floors }
            })
        }
        Command::Failed { topic, consumer_group, offsets } => {
            each(split(relation, offsets, |(partition, ..)| *partition), |offsets| {
                let consumer_group = consumer_group.clone();
                Command::Failed { topic, consumer_group, offsets }
            })
        }
        Command::DeadLetter { topic, consumer_group, dead, letters } => {
            each(split(relation, letters, |letter| letter.partition), |letters| {
                let consumer_group = consumer_group.clone();
                Command::DeadLetter { topic, consumer_group, dead, letters }
            })
        }
        _ => BTreeMap::new(),
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
        Command::Membership(_) => "membership",
        Command::PutMember(_) => "member",
        Command::DropMember(_) => "member gone",
        Command::Deliver { .. } => "deliver",
        Command::Delivered { .. } => "delivered",
        Command::Occur(_) => "occur",
        Command::Failed { .. } => "failed",
        Command::DeadLetter { .. } => "dead letter",
    }
}

/// Whether a transaction saw an event as released that is not at `time`: the node it read on has a clock that is ahead of
/// this one. One that saw it as unreleased says that it is valid until then at the most.
fn read_ahead(group: &Group, transaction: &Transaction, time: Timestamp) -> bool {
    let Transaction { read_index, reads, valid_until, .. } = transaction;
    let reads_partition = |topic, partition| {
        let key = keys::partition(topic, partition);
        reads.iter().any(|range| range.contains(&key))
    };
    // What it read and this node has not applied yet may be armed.
    let unknown = || reads.iter().any(|range| range.start.first() == Some(&keys::tag::PARTITION));
    *read_index > group.state.applied && unknown()
        || group
            .timers
            .releases_after(time)
            .filter(|(release, _)| valid_until.is_none_or(|until| until > *release))
            .any(|(_, (topic, partition))| reads_partition(topic, partition))
}
