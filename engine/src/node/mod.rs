//! One process's whole protocol state, and the step that moves it.
//!
//! A write's way through here: [`Input::Request`] → `commit` (sessions, resolver) → `propose` (Raft's log) →
//! [`Input::QueueDrained`]: `settle` takes from every group what it wants, its entries go to the WAL's pending write and
//! in one append to each follower, and one WAL write is cut of all that has gathered → [`Input::WriteDurable`] here,
//! `Appended` from the followers → Raft commits → `apply` (state, timers, delivery) → the new snapshot is published,
//! then the reply goes out. A node that does not lead the group forwards the write (`forward`), and asks the leader
//! from where on a read may be answered (`reads`).
//!
//! Not implemented: reads that are asked for ahead (timers and dedup claims are read from the store inside the step).

mod checkpoint;
mod config;
mod export;
mod forward;
mod founding;
mod group;
mod image;
mod outbox;
mod peers;
mod placement;
mod reads;
mod rest;
mod snapshots;
mod start;
mod status;
mod timers;

pub use config::{Config, Fsync, REST_AFTER_US};
pub use export::Export;
pub use placement::{MOVES_MAX, REPLICAS, VOTERS_MAX, wanted};
pub use start::Start;
pub use status::{GroupStatus, Status};

use crate::bugs::{self, Bug};
use crate::clock::{ClockStepped, ClusterClock};
use crate::delivery::Tracker;
use crate::raft::{self, ChangeError, Log, Raft, Role};
use crate::rng::Rng;
use crate::state::State;
use crate::step::{
    Action, Fatal, Fresh, Input, OperatorError, Outputs, Published, Reason, Reply, Request, SubscriberId,
    SubscriberInput, Token, Trace,
};
use crate::store::SharedStore;
use crate::txn::Refused;
use crate::wal::{Compacted, GroupLog, Record, Recovered, WriteId, Writer};
use checkpoint::Checkpoints;
use chronos_proto::command::Command;
use chronos_proto::id::{GroupId, Index, NodeId};
use chronos_proto::membership::Member;
use chronos_proto::peer::{PeerHello, PeerMessage};
use chronos_proto::raft::LogId;
use chronos_proto::time::{Instant, Now, Timestamp};
use group::{Group, Waiter};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long to wait before a write or checkpoint that found no space is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// How long the WAL is idle before its last write gets its mark.
const MARK_AFTER: Duration = Duration::from_millis(200);
/// How long a node that stops waits for others' answers.
const STOP_AFTER: Duration = Duration::from_millis(1_000);
/// The log is at its bound.
const LOG_FULL: &str = "the log is at its bound until the running checkpoint is done; retry later";
/// Recent commit latencies that the firing lead is taken from.
const LATENCIES: usize = 64;

/// One process's protocol state.
#[derive(Serialize, Deserialize)]
pub struct Node {
    config: Config,
    now: Now,
    clock: ClusterClock,
    synchronised: Option<bool>,
    wal: Writer,
    groups: BTreeMap<GroupId, Group>,
    delivery: Tracker,
    /// Progress of consumer groups that the WAL had no room for, in order, and the groups that keep it.
    unlogged: VecDeque<(GroupId, Command)>,
    /// What subscribers said before the state was the newest.
    held: Vec<(SubscriberId, SubscriberInput)>,
    /// What becomes durable with which write, ascending.
    /// (WAL write, group, the number that the group's Raft gave to its own).
    awaited: VecDeque<(WriteId, GroupId, u64)>,
    latencies: VecDeque<u64>,
    checkpoints: Checkpoints,
    /// The disk is full: new writes are refused until a retry succeeds.
    full_retry_at: Option<Instant>,
    mark_at: Option<Instant>,
    sync_at: Option<Instant>,
    stopping: bool,
    failed: bool,
    /// Replies of this step, which go out behind the snapshot that shows their effects.
    #[serde(skip)]
    replies: Vec<(Token, Reply)>,
    #[serde(skip)]
    peer_replies: Vec<(NodeId, PeerMessage)>,
    /// Groups whose newest state is to be published.
    publish: BTreeSet<GroupId>,
    /// Groups that something happened in.
    dirty: BTreeSet<GroupId>,
    /// Groups with committed entries that wait for the next step.
    behind: BTreeSet<GroupId>,
    #[serde(skip)]
    raft_outputs: Vec<raft::Output>,
    rng: Rng,

    /// Nodes to link with, as was said last.
    linked: Vec<Member>,
    /// Nodes that are linked with, and admitted.
    links: BTreeMap<NodeId, PeerHello>,
    beats: peers::Beats,
    alive: rest::Alive,
    forwards: forward::Forwards,
    reads: reads::Reads,
    outboxes: outbox::Outboxes,
    snapshots: snapshots::Snapshots,
    /// The group whose state is being replaced at the store.
    flipping: Option<GroupId>,
    /// Notes about nodes that are logged and not applied.
    noting: BTreeMap<NodeId, Index>,
    /// With an empty store: who the cluster begins with and has not said what it knows.
    awaited_founders: BTreeSet<NodeId>,
    /// When members are looked at next.
    place_at: Instant,
}

impl Node {
    /// A node over what recovery found in its WAL and its store. Its first effects go to `out`: the recovered log is
    /// made safe, and an election is begun in every group.
    pub fn new(
        config: Config,
        now: Now,
        recovered: Recovered,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<Node, Fatal> {
        let damaged = |error: &dyn std::fmt::Display| Fatal::StateDamaged(error.to_string());
        let mut groups = BTreeMap::new();
        let mut persisted: Option<Timestamp> = None;
        let mut discarded = Vec::new();
        let rng = Rng::new(config.seed);
        let others = config.members.iter().map(|member| member.node).filter(|node| *node != config.node);
        let empty = |group: &GroupLog| group.hard_state.vote.is_none() && group.last() == Index(0);
        let unfounded = !config.joins && recovered.groups.values().all(empty);
        let awaited_founders: BTreeSet<NodeId> = if unfounded { others.collect() } else { BTreeSet::new() };
        for id in &config.groups {
            let mut state = State::open(*id, hash_seed(&config), store).map_err(|e| damaged(&e))?;
            state.set_partition_groups(config.partition_groups());
            let (log, whole) = Self::recover_log(*id, &recovered, &state, store)?;
            if !whole {
                discarded.push((*id, LogId { term: state.applied_term, index: state.applied }));
            }
            let last_time = log.last_entry().map_or(state.applied_time, |entry| entry.time);
            let last_stamp = log.last_entry().map_or(state.stamp, |entry| entry.stamp).max(state.stamp);
            // A log that has nothing yet tells no time.
            persisted = persisted.max((last_time > Timestamp::EPOCH).then_some(last_time));
            let recovered = raft::Recovered {
                hard: recovered.groups.get(id).map(|g| g.hard_state).unwrap_or_default(),
                applied: state.applied,
                persisted: state.applied,
                configuration: state.membership().cloned().unwrap_or_else(|| config.first_configuration()),
                log,
                last_time: last_time.max(state.applied_time),
                last_stamp,
                unfounded: !awaited_founders.is_empty() && state.applied == Index(0),
                doubtful: config.doubtful,
            };
            let rng = rng.split(&format!("raft {id}"));
            let raft = Raft::new(config.raft, *id, config.node, rng, now.mono, recovered);
            groups.insert(*id, (raft, state));
        }
        let peers = config.joins || config.members.len() > 1;
        let clock = ClusterClock::start(config.boot, now, recovered.anchor, persisted, peers);
        let time = clock.time(now.mono);
        let mut ops = Vec::new();
        let (wal, opening) = Writer::open(config.wal(), &recovered, clock.anchor(now.mono), &mut ops);
        for op in ops {
            out.now(Action::Wal(op));
        }
        // The next checkpoint is the one after these: the WAL is then kept back to them.
        let durable = groups.iter().filter(|(_, (_, state))| state.applied > Index(0));
        let durable = durable
            .map(|(id, (_, state))| (*id, Compacted { index: state.applied, term: state.applied_term }))
            .collect();
        let groups: BTreeMap<GroupId, Group> = groups
            .into_iter()
            .map(|(id, (raft, state))| (id, Group::new(raft, state, time, &config)))
            .collect();
        let ids: Vec<GroupId> = groups.keys().copied().collect();
        let mut node = Node {
            checkpoints: Checkpoints::new(now.mono, durable),
            config,
            now,
            clock,
            synchronised: None,
            wal,
            groups,
            delivery: Tracker::new(),
            unlogged: VecDeque::new(),
            held: Vec::new(),
            // What was read back is durable once its copy is.
            awaited: ids.iter().map(|id| (opening, *id, 0)).collect(),
            latencies: VecDeque::new(),
            full_retry_at: None,
            mark_at: None,
            sync_at: None,
            stopping: false,
            failed: false,
            replies: Vec::new(),
            peer_replies: Vec::new(),
            publish: ids.iter().copied().collect(),
            dirty: BTreeSet::new(),
            behind: BTreeSet::new(),
            raft_outputs: Vec::new(),
            rng: rng.split("node"),
            linked: Vec::new(),
            links: BTreeMap::new(),
            beats: peers::Beats::default(),
            alive: rest::Alive::default(),
            forwards: forward::Forwards::new(&mut rng.split("forwards")),
            reads: reads::Reads::new(&mut rng.split("reads")),
            outboxes: outbox::Outboxes::default(),
            snapshots: snapshots::Snapshots::default(),
            flipping: None,
            noting: BTreeMap::new(),
            awaited_founders,
            place_at: now.mono + placement::PLACE_EVERY,
        };
        for (id, last) in discarded {
            // The snapshot was put in place, and the process ended before its log was told.
            let from = node.wal.compacted(id).index.next();
            if node.wal.last(id) >= from {
                node.append(id, &Record::Truncate { from });
            }
            node.append(id, &Record::Compacted(Compacted { index: last.index, term: last.term }));
        }
        node.find_incoming(store)?;
        node.relink(out);
        if !node.awaits().is_empty() {
            out.now(Action::Trace(Trace::Awaits(node.awaits())));
        }
        node.campaign_alone();
        node.settle(store, out)?;
        node.cut(out);
        node.finish(store, out);
        Ok(node)
    }

    /// The log, from the WAL's base on. One that does not reach the store's state means that one of the two is not ours,
    /// unless that state was installed as a snapshot: then what is in the log is void, and `false` comes with it.
    fn recover_log(
        id: GroupId,
        recovered: &Recovered,
        state: &State,
        store: &SharedStore,
    ) -> Result<(Log, bool), Fatal> {
        let applied = LogId { term: state.applied_term, index: state.applied };
        let installed = state.installed(store).map_err(|error| Fatal::StateDamaged(error.to_string()))?;
        let installed = installed == Some(applied);
        let Some(group) = recovered.groups.get(&id) else {
            return match applied.index == Index(0) || installed {
                true => Ok((Log::new(applied), !installed)),
                false => Err(missing_log(id, applied.index)),
            };
        };
        let first = group.entries.first().map_or(group.compacted.index.next(), |entry| entry.index);
        if first > applied.index.next() {
            return Err(Fatal::StateDamaged(format!(
                "group {id}: the store is at index {}, but the WAL begins at {first}: the store is older than it was; restore it or rejoin the cluster",
                state.applied
            )));
        }
        let mut log = Log::new(LogId { term: group.compacted.term, index: group.compacted.index });
        for entry in &group.entries {
            log.push(entry.clone());
        }
        match log.term(applied.index) {
            Some(term) if term == applied.term || applied.index == Index(0) => Ok((log, true)),
            // Compacted at the very entry by a version that did not keep its term there cannot be: terms are kept.
            _ if installed => Ok((Log::new(applied), false)),
            _ => Err(missing_log(id, applied.index)),
        }
    }

    /// Takes one input. `store` is the newest durable checkpoint.
    pub fn step(&mut self, now: Now, input: Input, store: &SharedStore, out: &mut Outputs) {
        assert!(
            now.mono >= self.now.mono,
            "the monotonic clock went back: {:?} after {:?}",
            now.mono,
            self.now.mono
        );
        self.now = now;
        if self.failed {
            return;
        }
        self.dirty.append(&mut self.behind);
        if let Err(fatal) = self.take(input, store, out) {
            self.failed = true;
            out.now(Action::Fatal(fatal));
            return;
        }
        self.finish(store, out);
    }

    fn take(&mut self, input: Input, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        if !self.held.is_empty() && !self.is_starting() {
            for (id, event) in std::mem::take(&mut self.held) {
                self.subscriber(id, event, store, out)?;
            }
        }
        match input {
            Input::Tick => self.tick(store, out)?,
            Input::QueueDrained => {
                self.settle(store, out)?;
                self.cut(out);
            }
            Input::WriteDurable(write) => self.write_durable(write, store, out)?,
            Input::WriteFailed { write, .. } if bugs::active(Bug::IgnoreFailedWrite) => {
                self.write_durable(write, store, out)?;
            }
            Input::WriteFailed { error, .. } => return Err(Fatal::WalFailed(error)),
            Input::WriteFull(write) => {
                self.wal.on_full(write);
                self.full_retry_at = self.wal.is_full().then_some(self.now.mono + FULL_RETRY);
                self.hand_over();
            }
            Input::CheckpointDurable(id) => self.checkpoint_durable(id, store, out)?,
            Input::CheckpointFull(id) => self.checkpoints.full(id, self.now.mono + FULL_RETRY),
            Input::CheckpointFailed { error, .. } => return Err(Fatal::CheckpointFailed(error)),
            Input::Request { token, request } => self.request(token, request, out),
            Input::Peer { from, message } => self.hear(from, message, store, out)?,
            Input::PeerUp(hello) => self.peer_up(hello, out),
            Input::PeerDown(peer) => self.peer_down(peer, out),
            Input::Subscriber { id, event } if self.is_starting() => self.held.push((id, event)),
            Input::Subscriber { id, event } => self.subscriber(id, event, store, out)?,
            Input::ClockSynchronised(synchronised) => {
                self.synchronised = Some(synchronised);
                self.observe_clock(out);
            }
            Input::Checkpoint => self.checkpoints.wanted = true,
            Input::Stop => {
                self.stopping = true;
                self.hand_over();
                let until = self.now.mono + STOP_AFTER;
                self.forwards.hurry(until);
                self.reads.hurry(until);
            }
        }
        if self.checkpoint_due() {
            self.begin_checkpoint(out);
        }
        self.begin_store_work(store, out)
    }

    fn request(&mut self, token: Token, request: Request, out: &mut Outputs) {
        let result = match request {
            Request::Commit(id, transaction) => return self.take_transaction(token, id, transaction, out),
            Request::Read(group) => return self.read(token, group, out),
            Request::Change { group: id, changes } => self.leading(id).and_then(|group| {
                group.raft.change_membership(&changes)?;
                Ok(())
            }),
            Request::Transfer { group: id, to } => self.leading(id).and_then(|group| {
                group.raft.transfer(to)?;
                Ok(())
            }),
            Request::PutMember(member) => self.note(Command::PutMember(member)),
            Request::DropMember(node) => self.note(Command::DropMember(node)),
        };
        self.dirty.extend(self.groups.keys().copied());
        self.replies.push((token, Reply::Operator(result)));
    }

    /// Lets others lead where they can: this node is stopping, or its disk takes nothing.
    fn hand_over(&mut self) {
        for (id, group) in &mut self.groups {
            if group.raft.role() == Role::Leader {
                group.raft.wake(self.now.mono);
            }
            let status = group.raft.status();
            let linked =
                |node: &NodeId| self.links.contains_key(node) && status.configuration.voters.contains(node);
            let others = status.followers.iter().filter(|(node, _)| linked(node));
            let best = others.max_by_key(|(_, (matched, _))| *matched).map(|(node, _)| *node);
            // Refused where it does not lead, or hands over already.
            if best.is_some_and(|best| group.raft.transfer(best).is_ok()) {
                self.dirty.insert(*id);
            }
        }
    }

    fn leading(&mut self, id: GroupId) -> Result<&mut Group, OperatorError> {
        let group = self.groups.get_mut(&id).ok_or(OperatorError::NoGroup(id))?;
        if group.raft.role() != Role::Leader {
            return Err(OperatorError::NotLeader(id));
        }
        group.raft.wake(self.now.mono);
        Ok(group)
    }

    fn note(&mut self, command: Command) -> Result<(), OperatorError> {
        let state = &self.leading(GroupId(0))?.state;
        if let Command::DropMember(node) = &command {
            if !state.members().any(|member| member.node == *node) {
                return Err(ChangeError::Unknown(*node).into());
            }
            if state.members().count() == 1 {
                return Err(ChangeError::LastVoter(*node).into());
            }
        }
        self.propose(GroupId(0), command).map_err(OperatorError::Refused)?;
        Ok(())
    }

    fn take_transaction(
        &mut self,
        token: Token,
        id: GroupId,
        transaction: crate::txn::Transaction,
        out: &mut Outputs,
    ) {
        let Some(group) = self.groups.get(&id) else {
            return self.replies.push((token, Reply::Commit(Err(Refused::NotLeader))));
        };
        // One that decides alone will serve in a moment or not at all; its clients are told at once.
        let elsewhere = !group.serves(&self.clock) && !group.raft.reads_alone() && !self.stopping;
        if elsewhere {
            return self.forward(id, token, transaction, out);
        }
        let waiter = Waiter::Client(token);
        if let Some(result) = self.commit(id, waiter, transaction) {
            self.answer(id, waiter, result);
        }
    }

    fn tick(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        self.observe_clock(out);
        let mono = self.now.mono;
        if self.full_retry_at.is_some_and(|at| mono >= at) {
            self.full_retry_at = Some(mono + FULL_RETRY);
            self.hand_over();
            self.wal_ops(out, |wal, ops| wal.retry(ops));
        }
        if let Some(checkpoint) = self.checkpoints.retry(mono) {
            out.now(Action::Checkpoint(checkpoint));
        }
        for (id, group) in &mut self.groups {
            if group.raft.next_deadline().is_some_and(|at| mono >= at) {
                group.raft.tick(mono);
                self.dirty.insert(*id);
            }
        }
        self.tick_rest();
        self.tick_forwards(out);
        self.tick_reads(out);
        self.tick_snapshots(out);
        self.tick_outboxes();
        if self.placement_deadline().is_some_and(|at| mono >= at) {
            self.place();
            self.relink(out);
            self.ask_members(out);
        }
        self.tick_groups(store, out)?;
        self.delivery.tick(mono);
        if self.sync_at.is_some_and(|at| mono >= at) {
            self.sync_at = None;
            let anchor = self.clock.anchor(mono);
            self.wal_ops(out, |wal, ops| wal.sync_now(anchor, ops));
        }
        if self.mark_at.is_some_and(|at| mono >= at) {
            self.mark_at = None;
            let anchor = self.clock.anchor(mono);
            self.wal_ops(out, |wal, ops| wal.mark(anchor, ops));
        }
        self.settle(store, out)?;
        self.cut(out);
        Ok(())
    }

    fn observe_clock(&mut self, out: &mut Outputs) {
        let voters = self.groups.values().next().map_or(1, |group| group.raft.configuration().voters.len());
        self.clock.set_quorum(voters / 2 + 1);
        self.clock_may_step(|clock, now, synchronised| clock.observe(now, synchronised), out);
    }

    /// A leader told cluster time.
    fn hear_time(&mut self, time: Timestamp, out: &mut Outputs) {
        self.clock_may_step(|clock, now, _| clock.hear(now.mono, time), out);
    }

    fn clock_may_step(
        &mut self,
        step: impl FnOnce(&mut ClusterClock, Now, Option<bool>) -> Option<ClockStepped>,
        out: &mut Outputs,
    ) {
        let (before, was_set) = (self.clock.time(self.now.mono), self.clock.is_set());
        // Small steps are adopted in silence, and readers must follow them too.
        let stepped = step(&mut self.clock, self.now, self.synchronised);
        if self.clock.time(self.now.mono) != before {
            self.publish_all();
        }
        if self.clock.is_set() && !was_set {
            self.time_is_set(out);
        }
        if let Some(step) = stepped {
            out.now(Action::Trace(Trace::ClockStep { micros: step.micros, adopted: step.adopted }));
            if step.adopted {
                self.groups.values_mut().for_each(|group| group.time_moved(self.now.mono));
            }
        }
    }

    /// Everything that a step owes at its end: the newest snapshot before the replies that rely on it, deliveries last.
    fn finish(&mut self, store: &SharedStore, out: &mut Outputs) {
        let clock = self.clock.reading(self.now.mono);
        for id in std::mem::take(&mut self.publish) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let alone = group.raft.reads_alone();
            // What a restart found in its log is not in the state before its own first entry is: older than promised.
            if alone && !group.serves(&self.clock) && !group.published {
                continue;
            }
            group.published = true;
            let fresh = match group.raft.lease_until() {
                _ if alone && group.serves(&self.clock) => Fresh::Alone,
                Some(until) if group.serves(&self.clock) && group.shows_all() => Fresh::Until(until),
                _ => Fresh::Ask,
            };
            group.leased = matches!(fresh, Fresh::Until(_));
            let snapshot = group.state.snapshot(store);
            out.now(Action::Publish(Published { snapshot, clock, fresh }));
        }
        for (to, message) in self.peer_replies.drain(..) {
            out.now(Action::Send { to, message });
        }
        for (token, reply) in self.replies.drain(..) {
            out.now(Action::Reply(token, reply));
        }
        let mut deliveries = Vec::new();
        self.delivery.poll(self.now.mono, &mut deliveries);
        for delivery in deliveries {
            out.now(Action::Deliver(delivery));
        }
    }

    fn publish_all(&mut self) {
        self.publish.extend(self.groups.keys().copied());
    }

    // The WAL

    fn wal_ops<R>(
        &mut self,
        out: &mut Outputs,
        act: impl FnOnce(&mut Writer, &mut Vec<crate::wal::WalOp>) -> R,
    ) -> R {
        let mut ops = Vec::new();
        let result = act(&mut self.wal, &mut ops);
        for op in ops {
            out.now(Action::Wal(op));
        }
        result
    }

    /// Makes one WAL write of all that has gathered, unless one is in flight.
    fn cut(&mut self, out: &mut Outputs) {
        let anchor = self.clock.anchor(self.now.mono);
        if self.wal_ops(out, |wal, ops| wal.cut(anchor, ops)).is_some() {
            self.mark_at = None;
        }
    }

    fn write_durable(&mut self, write: WriteId, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        self.wal.on_durable(write);
        self.groups.values_mut().for_each(|group| group.timers.unstick());
        self.wal_ops(out, |wal, ops| wal.release(ops));
        if !self.wal.is_full() {
            self.full_retry_at = None;
        }
        while let Some((_, id, number)) = self.awaited.pop_front_if(|(awaited, ..)| *awaited <= write) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.durable(number);
                self.dirty.insert(id);
            }
        }
        self.settle(store, out)?;
        if let Fsync::Interval(every) = self.config.fsync
            && self.sync_at.is_none()
            && self.wal.is_unsynced()
        {
            self.sync_at = Some(self.now.mono + Duration::from_micros(every));
        }
        self.cut(out);
        if !self.unlogged.is_empty() {
            for (home, command) in std::mem::take(&mut self.unlogged) {
                self.log_progress(home, command);
            }
            self.settle(store, out)?;
            self.cut(out);
        }
        if self.wal.wants_mark() {
            self.mark_at = Some(self.now.mono + MARK_AFTER);
        }
        Ok(())
    }

    /// Whether a group has no leader yet, be it here or elsewhere: nobody can be told whom to turn to.
    fn is_starting(&self) -> bool {
        self.groups.values().any(|group| match group.raft.leader() {
            None => group.raft.configuration().contains(self.config.node),
            Some(leader) => leader == self.config.node && !group.serves(&self.clock),
        })
    }

    /// How far ahead of its due time a firing is written: the slowest of the recent commits, within bounds.
    fn fire_ahead_us(&self) -> i64 {
        let slowest = self.latencies.iter().copied().max().unwrap_or(0);
        i64::try_from(slowest).unwrap_or(i64::MAX).saturating_add(1_000).min(self.config.fire_ahead_max_us)
    }

    /// Why no write is taken now, if none is.
    fn refusal(&self) -> Option<Refused> {
        if self.stopping {
            return Some(Refused::Stopping);
        }
        if self.full_retry_at.is_some() {
            return Some(Refused::Full("the disk that holds the WAL is full; free some space".into()));
        }
        if self.log_is_full() {
            return Some(Refused::Full(LOG_FULL.into()));
        }
        let overlay: usize = self.groups.values().map(|g| g.state.overlay_bytes()).sum();
        if overlay > self.config.overlay_max_bytes {
            let why = if self.checkpoints.is_full() {
                "the disk that holds the checkpoint is full; free some space"
            } else {
                "changes wait in memory for the running checkpoint; retry later"
            };
            return Some(Refused::Full(why.into()));
        }
        None
    }

    // Deadlines

    /// When the node next wants a tick, and why.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        if self.failed {
            return None;
        }
        let mut first: Option<(Instant, Reason)> = None;
        let mut consider = |at: Option<Instant>, reason| {
            if let Some(at) = at
                && first.is_none_or(|(best, _)| at < best)
            {
                first = Some((at, reason));
            }
        };
        for group in self.groups.values() {
            for (time, reason) in group.deadlines(&self.clock, self.fire_ahead_us()) {
                consider(Some(self.clock.when(time, self.now.mono)), reason);
            }
            consider(group.work_at(&self.clock), Reason::Work);
            consider(group.raft.next_deadline(), Reason::Raft);
        }
        consider(self.rest_deadline(), Reason::Peers);
        consider((!self.behind.is_empty()).then_some(self.now.mono), Reason::Work);
        consider(self.forwards.next_deadline(), Reason::Peers);
        consider(self.reads.next_deadline(), Reason::Peers);
        consider(self.snapshots.next_deadline(), Reason::Peers);
        consider(self.outboxes.next_deadline(), Reason::Peers);
        consider(self.placement_deadline(), Reason::Work);
        consider(self.checkpoints.deadline(&self.config), Reason::Checkpoint);
        consider(self.full_retry_at, Reason::Wal);
        consider(self.sync_at, Reason::Wal);
        consider(self.mark_at, Reason::Wal);
        consider(self.delivery.next_deadline(), Reason::Delivery);
        consider(Some(self.clock.next_check()), Reason::Clock);
        first
    }
}

fn hash_seed(config: &Config) -> u64 {
    (config.cluster.0 ^ (config.cluster.0 >> 64)) as u64
}

fn missing_log(group: GroupId, applied: Index) -> Fatal {
    Fatal::StateDamaged(format!(
        "group {group}: the store is at index {applied}, but the WAL ends before it: WAL files are missing or of another store"
    ))
}
