//! One process's whole protocol state, and the step that moves it.
//!
//! A write's way through here: [`Input::Request`] → `commit` (sessions, resolver) → `propose` (Raft's log, the WAL's
//! pending write) → [`Input::QueueDrained`] cuts one WAL write of all that has gathered → [`Input::WriteDurable`] →
//! Raft commits → `apply` (state, timers, delivery) → the new snapshot is published, then the reply goes out.
//!
//! Not implemented: peers; slices of apply (all that one WAL write committed is applied in one step); reads that are
//! asked for ahead (timers and dedup claims are read from the store inside the step).

mod checkpoint;
mod config;
mod group;
mod status;
mod timers;

pub use config::{Config, Fsync};
pub use status::{GroupStatus, Status};

use crate::clock::ClusterClock;
use crate::delivery::Tracker;
use crate::raft::Log;
use crate::state::State;
use crate::step::{
    Action, Fatal, Input, Outputs, Published, Reason, Reply, Request, SubscriberId, SubscriberInput, Token,
    Trace,
};
use crate::store::SharedStore;
use crate::txn::Refused;
use crate::wal::{Compacted, Recovered, WriteId, Writer};
use checkpoint::Checkpoints;
use chronos_proto::command::Command;
use chronos_proto::id::{GroupId, Index, Term};
use chronos_proto::time::{Instant, Now, Timestamp};
use group::Group;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long to wait before a write or checkpoint that found no space is tried again.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// How long the WAL is idle before its last write gets its mark.
const MARK_AFTER: Duration = Duration::from_millis(200);
/// Recent commit latencies that the firing lead is taken from.
const LATENCIES: usize = 64;

/// One process's protocol state.
pub struct Node {
    config: Config,
    now: Now,
    clock: ClusterClock,
    synchronised: Option<bool>,
    wal: Writer,
    groups: BTreeMap<GroupId, Group>,
    delivery: Tracker,
    /// Progress of consumer groups that the WAL had no room for, in order.
    unlogged: VecDeque<Command>,
    /// What subscribers said before the state was the newest.
    held: Vec<(SubscriberId, SubscriberInput)>,
    /// What becomes durable with which write, ascending.
    awaited: VecDeque<(WriteId, GroupId, Awaited)>,
    /// The write in flight and when it was cut.
    cut_at: Option<(WriteId, Instant)>,
    latencies: VecDeque<u64>,
    checkpoints: Checkpoints,
    /// The disk is full: new writes are refused until a retry succeeds.
    full_retry_at: Option<Instant>,
    mark_at: Option<Instant>,
    sync_at: Option<Instant>,
    stopping: bool,
    failed: bool,
    /// Replies of this step, which go out behind the snapshot that shows their effects.
    replies: Vec<(Token, Reply)>,
    publish: bool,
}

#[derive(Clone, Copy, Debug)]
enum Awaited {
    HardState(Term),
    Entry(Index),
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
        let mut persisted = Timestamp::EPOCH;
        for id in &config.groups {
            let state = State::open(*id, hash_seed(&config), store).map_err(|e| damaged(&e))?;
            let log = Self::recover_log(*id, &recovered, &state)?;
            persisted = persisted.max(log.last_entry().map_or(state.applied_time, |entry| entry.time));
            let hard = recovered.groups.get(id).map(|g| g.hard_state).unwrap_or_default();
            let raft = crate::raft::Raft::recover(*id, config.node, hard, log);
            groups.insert(*id, (raft, state));
        }
        let clock = ClusterClock::start(config.boot, now, recovered.anchor, persisted);
        let time = clock.time(now.mono);
        let mut ops = Vec::new();
        let (wal, _) = Writer::open(config.wal(), &recovered, clock.anchor(now.mono), &mut ops);
        for op in ops {
            out.now(Action::Wal(op));
        }
        // The next checkpoint is the one after these: the WAL is then kept back to them.
        let durable = groups.iter().filter(|(_, (_, state))| state.applied > Index(0));
        let durable = durable
            .map(|(id, (_, state))| (*id, Compacted { index: state.applied, term: state.applied_term }))
            .collect();
        let groups = groups
            .into_iter()
            .map(|(id, (raft, state))| (id, Group::new(raft, state, time, &config)))
            .collect();
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
            awaited: VecDeque::new(),
            cut_at: None,
            latencies: VecDeque::new(),
            full_retry_at: None,
            mark_at: None,
            sync_at: None,
            stopping: false,
            failed: false,
            replies: Vec::new(),
            publish: true,
        };
        node.campaign_all();
        node.cut(out);
        node.finish(store, out);
        Ok(node)
    }

    /// The entries behind the checkpoint. A log that does not reach it means that one of the two is not ours.
    fn recover_log(id: GroupId, recovered: &Recovered, state: &State) -> Result<Log, Fatal> {
        let mut log = Log::new(state.applied, state.applied_term);
        let Some(group) = recovered.groups.get(&id) else {
            return if state.applied == Index(0) { Ok(log) } else { Err(missing_log(id, state.applied)) };
        };
        let first = group.entries.first().map_or(group.compacted.index.next(), |entry| entry.index);
        if first > state.applied.next() {
            return Err(Fatal::StateDamaged(format!(
                "group {id}: the store is at index {}, but the WAL begins at {first}: the store is older than it was; restore it or rejoin the cluster",
                state.applied
            )));
        }
        if group.last() < state.applied {
            return Err(missing_log(id, state.applied));
        }
        let from = state.applied.next();
        for entry in group.entries.iter().filter(|entry| entry.index >= from) {
            log.push(entry.clone());
        }
        Ok(log)
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
        if let Err(fatal) = self.take(input, store, out) {
            self.failed = true;
            out.now(Action::Fatal(fatal));
            return;
        }
        self.finish(store, out);
    }

    fn take(&mut self, input: Input, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        match input {
            Input::Tick => self.tick(store, out)?,
            Input::QueueDrained => self.cut(out),
            Input::WriteDurable(write) => self.write_durable(write, store, out)?,
            Input::WriteFailed { error, .. } => return Err(Fatal::WalFailed(error)),
            Input::WriteFull(write) => {
                self.wal.on_full(write);
                self.full_retry_at = self.wal.is_full().then_some(self.now.mono + FULL_RETRY);
            }
            Input::CheckpointDurable(id) => self.checkpoint_durable(id, out),
            Input::CheckpointFull(id) => self.checkpoints.full(id, self.now.mono + FULL_RETRY),
            Input::CheckpointFailed { error, .. } => return Err(Fatal::CheckpointFailed(error)),
            Input::Request { token, request: Request::Commit(group, transaction) } => {
                if let Some(reply) = self.commit(group, token, transaction) {
                    self.replies.push((token, Reply::Commit(reply)));
                }
            }
            Input::Subscriber { id, event } if !self.is_ready() => self.held.push((id, event)),
            Input::Subscriber { id, event } => self.subscriber(id, event, store, out)?,
            Input::ClockSynchronised(synchronised) => {
                self.synchronised = Some(synchronised);
                self.observe_clock(out);
            }
            Input::Checkpoint => self.checkpoints.wanted = true,
            Input::Stop => self.stopping = true,
        }
        if self.checkpoint_due() {
            self.begin_checkpoint(out);
        }
        Ok(())
    }

    fn tick(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        self.observe_clock(out);
        let mono = self.now.mono;
        if self.full_retry_at.is_some_and(|at| mono >= at) {
            self.full_retry_at = Some(mono + FULL_RETRY);
            self.wal_ops(out, |wal, ops| wal.retry(ops));
        }
        if let Some(checkpoint) = self.checkpoints.retry(mono) {
            out.now(Action::Checkpoint(checkpoint));
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
        self.cut(out);
        Ok(())
    }

    fn observe_clock(&mut self, out: &mut Outputs) {
        let before = self.clock.time(self.now.mono);
        // Small steps are adopted in silence, and readers must follow them too.
        let observed = self.clock.observe(self.now, self.synchronised);
        self.publish |= self.clock.time(self.now.mono) != before;
        if let Some(step) = observed {
            out.now(Action::Trace(Trace::ClockStep { micros: step.micros, adopted: step.adopted }));
            if step.adopted {
                self.groups.values_mut().for_each(|group| group.time_moved(self.now.mono));
            }
        }
    }

    /// Everything that a step owes at its end: the newest snapshot before the replies that rely on it, deliveries last.
    fn finish(&mut self, store: &SharedStore, out: &mut Outputs) {
        if std::mem::take(&mut self.publish) {
            let clock = self.clock.reading(self.now.mono);
            // What a restart found in its log is not in the state before its own first entry is: older than promised.
            for group in self.groups.values().filter(|group| group.raft.ready()) {
                let snapshot = group.state.snapshot(store);
                out.now(Action::Publish(Published { snapshot, clock }));
            }
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
        if let Some(write) = self.wal_ops(out, |wal, ops| wal.cut(anchor, ops)) {
            self.cut_at = Some((write, self.now.mono));
            self.mark_at = None;
        }
    }

    fn write_durable(&mut self, write: WriteId, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        if let Some((_, at)) = self.cut_at.take_if(|(cut, _)| *cut == write) {
            self.latencies.push_back(self.now.mono.micros_since(at));
        }
        if self.latencies.len() > LATENCIES {
            self.latencies.pop_front();
        }
        self.wal.on_durable(write);
        self.groups.values_mut().for_each(|group| group.timers.unstick());
        self.wal_ops(out, |wal, ops| wal.release(ops));
        if !self.wal.is_full() {
            self.full_retry_at = None;
        }
        let mut touched = Vec::new();
        while let Some((_, group, awaited)) = self.awaited.front().copied().filter(|(w, _, _)| *w <= write) {
            self.awaited.pop_front();
            match awaited {
                Awaited::HardState(term) => self.hard_state_durable(group, term, out),
                Awaited::Entry(index) => {
                    let raft = self.groups.get_mut(&group).map(|g| &mut g.raft);
                    if raft.is_some_and(|raft| raft.entries_durable(index)) && touched.last() != Some(&group)
                    {
                        touched.push(group);
                    }
                }
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for group in touched {
            self.apply(group, store, out)?;
        }
        if !self.held.is_empty() && self.is_ready() {
            for (id, event) in std::mem::take(&mut self.held) {
                self.subscriber(id, event, store, out)?;
            }
        }
        if let Fsync::Interval(every) = self.config.fsync
            && self.sync_at.is_none()
            && self.wal.is_unsynced()
        {
            self.sync_at = Some(self.now.mono + Duration::from_micros(every));
        }
        self.cut(out);
        if !self.unlogged.is_empty() {
            for command in std::mem::take(&mut self.unlogged) {
                self.propose_progress(command);
            }
            self.cut(out);
        }
        if self.wal.wants_mark() {
            self.mark_at = Some(self.now.mono + MARK_AFTER);
        }
        Ok(())
    }

    /// Whether every group's state holds all that was ever promised.
    fn is_ready(&self) -> bool {
        self.groups.values().all(|group| group.raft.ready())
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
            for (time, reason) in group.deadlines(self.fire_ahead_us()) {
                consider(Some(self.clock.when(time, self.now.mono)), reason);
            }
            consider(group.work_at(), Reason::Work);
        }
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
