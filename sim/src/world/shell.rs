//! The shell around the node: what `io/node`'s driver does, with a disk and clocks that misbehave.
//!
//! Effects without a barrier are performed before the disk has begun with what the same step asks of it: the worst
//! order that the contract allows. Replies travel apart from everything else, in any order among themselves.

use super::{Event, World};
use crate::marks::Mark;
use crate::plan::{End, Moment};
use crate::store::SimStore;
use crate::tap::{self, Logged};
use crate::violation::{Held, Violation};
use chronos_engine::node::Config;
use chronos_engine::node::Fsync;
use chronos_engine::step::{
    Action, Checkpoint, CheckpointId, Effect, Fatal, Input, Outputs, Published, Reply, Token, Trace,
};
use chronos_engine::txn::{Committed, Refused};
use chronos_engine::wal::{self, Identity, SegmentId, WalOp, WriteId};
use chronos_engine::{Node, proto};
use proto::id::{ClusterId, GroupId, Incarnation, NodeId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The only group of this stage.
pub const GROUP: GroupId = GroupId(0);
/// Steps at one moment that are taken for a node that spins.
const SPIN_MAX: u64 = 20_000;
/// Snapshots that clients may still read from.
const RING: usize = 12;

const IDENTITY: Identity = Identity { cluster: ClusterId(7), node: NodeId(1), incarnation: Incarnation(1) };

/// A running process.
pub(super) struct Up {
    pub(super) node: Node,
    inbox: VecDeque<Input>,
    drive_scheduled: bool,
    waiting: Vec<Effect>,
    durable: Option<WriteId>,
    ops: VecDeque<WalOp>,
    disk_busy: bool,
    checkpoint: Option<(CheckpointId, SimStore)>,
    pub(super) published: Option<Published>,
    pub(super) ring: VecDeque<Published>,
    deadline: u64,
    /// Segments that each write is in, until it is synced.
    unsynced: BTreeMap<WriteId, BTreeSet<SegmentId>>,
    pub(super) proven: bool,
    pub(super) told_synchronised: bool,
    failing: bool,
    spins: (u64, u64),
}

impl World {
    fn config(&self) -> Config {
        let k = &self.knobs;
        Config {
            fsync: k.fsync,
            segment_bytes: k.segment_bytes,
            checkpoint_wal_bytes: k.checkpoint_wal_bytes,
            checkpoint_interval_us: k.checkpoint_interval,
            overlay_max_bytes: k.overlay_max_bytes,
            inflight_max: k.inflight_max,
            fire_ahead_max_us: k.fire_ahead_max,
            wheel_window_us: k.wheel_window,
            wheel_max: k.wheel_max,
            ..Config::new(
                IDENTITY.cluster,
                IDENTITY.node,
                IDENTITY.incarnation,
                self.clock.boot,
                k.seed ^ self.run,
            )
        }
    }

    /// The process starts and recovers from what the disk holds.
    pub(super) fn start(&mut self) -> Held {
        if self.up.is_some() {
            return Ok(());
        }
        self.run += 1;
        let now = self.clock.now(self.now);
        let run = self.run;
        let boot = self.clock.boot;
        self.say("n1", format_args!("start run={run} boot={boot} mono={}", now.mono.0));
        let images: BTreeMap<SegmentId, Vec<u8>> = self.disk.images().collect();
        let recovered = match wal::recover(IDENTITY, &images) {
            Ok(recovered) => recovered,
            Err(damage) => return self.damaged(true, &damage.to_string()),
        };
        drop(images);
        let last = recovered.groups.get(&GROUP).map_or(0, |log| log.last().0);
        self.say("n1", format_args!("recovered last={last} cut={:?}", recovered.cut));
        if recovered.cut.is_some() {
            self.marks.hit(Mark::TornTailCut);
        }
        let lossy = std::mem::take(&mut self.ills.power_was_cut) && self.knobs.fsync != Fsync::Always;
        self.log.restarted(lossy);
        self.delivery.restarted();
        let before = self.log.last();
        self.log.recovered(last)?;
        if last < before {
            self.marks.hit(Mark::UnsyncedWriteLost);
            self.forget_above(last)?;
        }
        self.cluster_time.restarted(now, self.clock.synchronised);
        let mut out = Outputs::default();
        let node = match Node::new(self.config(), now, recovered, &self.shared, &mut out) {
            Ok(node) => node,
            Err(fatal) => return self.damaged(false, &fatal.to_string()),
        };
        if let Some(status) = node.status().groups.first()
            && status.applied < last
            && !self.store.is_empty()
        {
            self.marks.hit(Mark::ReplayedAboveCheckpoint);
        }
        self.up = Some(Up {
            node,
            inbox: VecDeque::new(),
            drive_scheduled: false,
            waiting: Vec::new(),
            durable: None,
            ops: VecDeque::new(),
            disk_busy: false,
            checkpoint: None,
            published: None,
            ring: VecDeque::new(),
            deadline: 0,
            unsynced: BTreeMap::new(),
            proven: false,
            told_synchronised: self.clock.synchronised,
            failing: false,
            spins: (0, 0),
        });
        self.perform_all(out)?;
        self.give(Input::ClockSynchronised(self.clock.synchronised));
        self.reschedule();
        self.ills.well_since = self.now;
        self.reopen_readers();
        Ok(())
    }

    /// The last entry that recovery finds in what is synced.
    pub(super) fn durable_last(&self) -> Result<u64, Violation> {
        let images: BTreeMap<SegmentId, Vec<u8>> = self.disk.durable_images().collect();
        match wal::recover(IDENTITY, &images) {
            Ok(recovered) => Ok(recovered.groups.get(&GROUP).map_or(0, |log| log.last().0)),
            Err(damage) => {
                Err(Violation::safety("no-false-alarm", format!("what is synced is refused: {damage}")))
            }
        }
    }

    /// An input for the node; the driver takes it soon.
    pub(super) fn give(&mut self, input: Input) {
        let delay = self.driver_rng.below(self.knobs.gather + 1);
        let Some(up) = &mut self.up else { return };
        up.inbox.push_back(input);
        if !std::mem::replace(&mut up.drive_scheduled, true) {
            let run = self.run;
            self.after(delay, Event::Drive(run));
        }
    }

    /// The driver's turn: a step an input, and now and then word that the queue is drained.
    pub(super) fn drive(&mut self) -> Held {
        if let Some(up) = &mut self.up {
            up.drive_scheduled = false;
        }
        let mut since_drained = 0;
        while let Some(input) = self.up.as_mut().and_then(|up| up.inbox.pop_front()) {
            if self.driver_rng.chance(self.knobs.spurious_ticks) {
                self.step(Input::Tick)?;
            }
            self.step(input)?;
            since_drained += 1;
            if since_drained >= self.knobs.batch_max {
                since_drained = 0;
                self.step(Input::QueueDrained)?;
            }
        }
        self.step(Input::QueueDrained)?;
        self.reschedule();
        Ok(())
    }

    /// One step of the node, and what comes of it.
    fn step(&mut self, input: Input) -> Held {
        let now = self.clock.now(self.now);
        let vouched = self.up.as_ref().is_some_and(|up| up.told_synchronised);
        self.cluster_time.stepped(now, vouched);
        let Some(up) = &mut self.up else { return Ok(()) };
        match &input {
            Input::Tick | Input::QueueDrained => {}
            Input::Request { token, .. } => {
                self.trace.line(self.now, "n1", format_args!("request {}", token.0))
            }
            other => self.trace.line(self.now, "n1", format_args!("input {other:?}")),
        }
        if let Input::ClockSynchronised(synchronised) = &input {
            up.told_synchronised = *synchronised;
        }
        let must_fail = matches!(input, Input::WriteFailed { .. } | Input::CheckpointFailed { .. });
        up.failing |= must_fail;
        let mut out = Outputs::default();
        up.node.step(now, input, &self.shared, &mut out);
        let fatal = out.effects.iter().any(|effect| matches!(effect.action, Action::Fatal(_)));
        if must_fail && !fatal {
            let what = "a failed write or checkpoint was reported and the node goes on";
            return Err(Violation::safety("failure-is-fatal", what));
        }
        self.perform_all(out)
    }

    fn perform_all(&mut self, out: Outputs) -> Held {
        for effect in out.effects {
            let held_back = match (&self.up, effect.after) {
                (Some(up), Some(write)) => up.durable.is_none_or(|durable| durable < write),
                _ => false,
            };
            match (&mut self.up, held_back) {
                (Some(up), true) => up.waiting.push(effect),
                (Some(_), false) => self.perform_action(effect.action)?,
                (None, _) => return Ok(()),
            }
        }
        self.next_disk_operation()
    }

    fn perform_action(&mut self, action: Action) -> Held {
        match action {
            Action::Wal(op) => {
                self.tap(&op)?;
                if let Some(up) = &mut self.up {
                    up.ops.push_back(op);
                }
                Ok(())
            }
            Action::Reply(token, Reply::Commit(reply)) => self.reply(token, reply),
            Action::Reply(_, reply) => {
                Err(Violation::safety("requests", format!("an answer that nobody asked for: {reply:?}")))
            }
            Action::Send { .. } | Action::Members(_) => {
                Err(Violation::safety("requests", "a node that is alone speaks to others"))
            }
            Action::Publish(published) => self.publish(published),
            Action::Checkpoint(checkpoint) => self.begin_checkpoint(checkpoint),
            Action::Deliver(delivery) => self.deliver(delivery),
            Action::CloseSubscriber(id, why) => {
                self.say("n1", format_args!("closes {id:?}: {why}"));
                self.delivery.closed(id);
                self.reader_closed(id);
                Ok(())
            }
            Action::Trace(trace) => {
                self.traced(&trace);
                Ok(())
            }
            Action::Fatal(fatal) => self.fatal(&fatal),
        }
    }

    fn traced(&mut self, trace: &Trace) {
        match trace {
            Trace::SegmentRemoved(_) => self.marks.hit(Mark::SegmentRemoved),
            Trace::ClockStep { adopted, .. } => {
                self.marks.hit(if *adopted { Mark::ClockStepAdopted } else { Mark::ClockStepIgnored });
                self.ills.well_since = self.now;
            }
            _ => {}
        }
        self.say("n1", format_args!("{trace:?}"));
    }

    /// Looks at what is handed to the disk.
    fn tap(&mut self, op: &WalOp) -> Held {
        match op {
            WalOp::Write { write, segment, offset, bytes } => {
                self.trace.bytes(bytes);
                self.say("wal", format_args!("write {} {segment} +{offset} {} bytes", write.0, bytes.len()));
                let logged = tap::entries(bytes).map_err(|what| Violation::safety("log", what))?;
                for logged in logged {
                    match logged {
                        Logged::Entry(GROUP, entry) => {
                            let about = entry.index;
                            let cut = self.log.appended(*write, &entry)?;
                            self.say("wal", format_args!("  entry {about} {}", brief(&entry)));
                            if let Some(last) = cut {
                                self.forget_above(last)?;
                            }
                        }
                        Logged::Entry(..) | Logged::Truncated(..) => {
                            return Err(Violation::safety("log", "a single voter never truncates its log"));
                        }
                    }
                }
            }
            other => self.say("wal", format_args!("{other:?}")),
        }
        Ok(())
    }

    fn publish(&mut self, published: Published) -> Held {
        let now = self.clock.now(self.now);
        let index = published.snapshot.applied.0;
        self.say("n1", format_args!("publish {index} at {}", published.clock.time));
        self.log.promise("a published snapshot", index)?;
        let held = self.now.saturating_sub(self.ills.wall_steady_since);
        let vouched = self.up.as_ref().is_some_and(|up| up.told_synchronised);
        let applied = published.snapshot.applied_time;
        self.cluster_time.read(published.clock, applied, now, vouched, held)?;
        if index < self.log.promised() {
            let what = format!("entry {index} is published, and {} was promised before", self.log.promised());
            return Err(Violation::safety("never-back", what));
        }
        self.catch_up(index)?;
        if let Some(up) = &mut self.up {
            up.published = Some(published.clone());
            up.ring.push_back(published);
            if up.ring.len() > RING {
                up.ring.pop_front();
            }
        }
        Ok(())
    }

    fn reply(&mut self, token: Token, reply: Result<Committed, Refused>) -> Held {
        let Some(attempt) = self.tokens.get(&token).cloned() else {
            return Err(Violation::safety(
                "one-effect",
                format!("an answer to {token:?}, which nobody sent"),
            ));
        };
        match &reply {
            Ok(committed) => {
                self.say("n1", format_args!("reply {} committed {}", token.0, committed.index));
                self.log.promise("a reply", committed.index.0)?;
                let published = self.up.as_ref().and_then(|up| up.published.as_ref());
                if published.is_none_or(|p| p.snapshot.applied < committed.index) {
                    let what = format!("entry {} was answered before it was published", committed.index);
                    return Err(Violation::safety("reply-after-publish", what));
                }
                self.requests.committed(attempt.name, committed)?;
            }
            Err(refused) => self.say("n1", format_args!("reply {} refused: {refused}", token.0)),
        }
        if self.net_rng.chance(self.knobs.reply_loss) && self.settling.is_none() {
            return Ok(());
        }
        let delay = self.net_rng.latency(self.knobs.network);
        self.after(delay, Event::Answer(token, Box::new(reply)));
        Ok(())
    }

    fn fatal(&mut self, fatal: &Fatal) -> Held {
        let expected = self.up.as_ref().is_some_and(|up| up.failing);
        self.say("n1", format_args!("fatal: {fatal}"));
        match fatal {
            Fatal::WalFailed(_) | Fatal::CheckpointFailed(_) if expected => {
                self.end(End::Kill);
                self.ills.failed.push(match fatal {
                    Fatal::WalFailed(_) => Mark::SyncFailedRecovered,
                    _ => Mark::CheckpointFailedRecovered,
                });
                self.after(200_000, Event::Start);
                Ok(())
            }
            Fatal::StateDamaged(_) => {
                self.end(End::Kill);
                self.damaged(false, &fatal.to_string())
            }
            _ => Err(Violation::safety("no-false-alarm", format!("nothing had failed: {fatal}"))),
        }
    }

    // Deadlines

    fn reschedule(&mut self) {
        let late = self.driver_rng.below(self.knobs.tick_late + 1);
        let Some(up) = &mut self.up else { return };
        up.deadline += 1;
        let Some((at, _)) = up.node.next_deadline() else { return };
        let (number, run) = (up.deadline, self.run);
        let at = self.clock.when(self.now, at);
        self.at(at.saturating_add(late), Event::Deadline(run, number));
    }

    pub(super) fn deadline(&mut self, number: u64) -> Held {
        let Some(up) = &mut self.up else { return Ok(()) };
        if up.deadline != number {
            return Ok(());
        }
        up.spins = if up.spins.0 == self.now { (self.now, up.spins.1 + 1) } else { (self.now, 0) };
        if up.spins.1 > SPIN_MAX {
            let what = format!(
                "{SPIN_MAX} ticks at one moment, and the node wants another: {:?}",
                up.node.next_deadline()
            );
            return Err(Violation::liveness("no-spinning", what));
        }
        self.step(Input::Tick)?;
        self.reschedule();
        Ok(())
    }

    // The disk

    pub(super) fn next_disk_operation(&mut self) -> Held {
        let Some(up) = &mut self.up else { return Ok(()) };
        if up.disk_busy {
            return Ok(());
        }
        let Some(op) = up.ops.front() else { return Ok(()) };
        let mean = match op {
            WalOp::Create { .. } => self.knobs.write_latency * 4 + self.knobs.sync_latency,
            WalOp::Write { .. } => self.knobs.write_latency,
            WalOp::Sync { .. } => self.knobs.sync_latency,
            WalOp::Done { .. } => 0,
            WalOp::Remove { .. } => self.knobs.write_latency,
        };
        up.disk_busy = true;
        let mut latency = self.disk_rng.latency(mean);
        if mean > 0 && self.ills.slow_extra > 0 {
            latency += self.disk_rng.range(self.ills.slow_extra / 2, self.ills.slow_extra);
            self.ills.slow_until = self.now + latency;
        }
        if mean > 0 && self.comes_to_crash() {
            return self.crash_in_operation(latency);
        }
        let run = self.run;
        self.after(latency, Event::DiskDone(run));
        Ok(())
    }

    fn crash_in_operation(&mut self, latency: u64) -> Held {
        let op = self.up.as_mut().and_then(|up| up.ops.pop_front());
        let Some(op) = op else { return Ok(()) };
        let moment = self.ills.crash.map_or(Moment::Now, |crash| crash.moment);
        self.marks.hit(match op {
            WalOp::Create { .. } => Mark::CrashInCreate,
            WalOp::Write { .. } => Mark::CrashInWrite,
            WalOp::Sync { .. } | WalOp::Done { .. } => Mark::CrashInSync,
            WalOp::Remove { .. } => Mark::CrashInRemove,
        });
        match moment {
            Moment::Before | Moment::Now => {}
            Moment::After => {
                self.apply_operation(&op);
            }
            Moment::During => match op {
                WalOp::Create { segment, bytes } => match self.disk_rng.below(3) {
                    0 => {}
                    1 => self.disk.create(segment, self.disk_rng.clone().below(bytes) as usize),
                    _ => self.disk.create(segment, bytes as usize),
                },
                WalOp::Write { segment, offset, bytes, .. } => {
                    let part = self.disk_rng.below(bytes.len() as u64 + 1) as usize;
                    self.disk.write(segment, offset, bytes.slice(..part));
                }
                WalOp::Sync { .. } | WalOp::Remove { .. } if self.disk_rng.chance(500) => {
                    self.apply_operation(&op);
                }
                _ => {}
            },
        }
        // It happens at some time within the operation; nobody is told of anything until then.
        let run = self.run;
        let within = self.disk_rng.below(latency + 1);
        self.ills.crash_operation = true;
        self.after(within, Event::CrashNow(run));
        Ok(())
    }

    /// The effect of an operation on the files. False if it cannot be done.
    fn apply_operation(&mut self, op: &WalOp) -> bool {
        match op {
            WalOp::Create { segment, bytes } => self.disk.create(*segment, *bytes as usize),
            WalOp::Write { segment, offset, bytes, write } => {
                if let Some(up) = &mut self.up {
                    up.unsynced.entry(*write).or_default().insert(*segment);
                }
                self.ills.written(self.run, *write, *segment, *offset, bytes.len());
                return self.disk.write(*segment, *offset, bytes.clone());
            }
            WalOp::Sync { segment, .. } => {
                self.ills.synced(*segment);
                let synced = self.disk.sync(*segment);
                if let Some(up) = &mut self.up {
                    up.unsynced.values_mut().for_each(|segments| {
                        segments.remove(segment);
                    });
                }
                return synced;
            }
            WalOp::Done { .. } => {}
            WalOp::Remove { segment } => {
                self.ills.removed(*segment);
                self.disk.remove(*segment);
            }
        }
        true
    }

    pub(super) fn disk_done(&mut self) -> Held {
        let Some(up) = &mut self.up else { return Ok(()) };
        up.disk_busy = false;
        if self.now <= self.ills.slow_until {
            self.ills.well_since = self.now;
        }
        let Some(op) = up.ops.pop_front() else { return Ok(()) };
        let needs_medium = !matches!(op, WalOp::Done { .. } | WalOp::Remove { .. });
        if needs_medium && std::mem::take(&mut self.ills.fail_write) {
            return self.operation_failed(&op);
        }
        if self.ills.full && self.finds_no_space(&op) {
            return self.operation_full(op);
        }
        if !self.apply_operation(&op) {
            return Err(Violation::safety("log", format!("{op:?} is outside any file")));
        }
        match op {
            WalOp::Sync { write, .. } | WalOp::Done { write } => self.write_done(write, &op)?,
            WalOp::Create { .. } if self.disk.len() > 1 => self.marks.hit(Mark::SegmentRolled),
            WalOp::Remove { .. } => self.marks.hit(Mark::SegmentRemoved),
            WalOp::Create { .. } | WalOp::Write { .. } => {}
        }
        self.next_disk_operation()
    }

    fn finds_no_space(&mut self, op: &WalOp) -> bool {
        match op {
            WalOp::Create { .. } => true,
            WalOp::Write { .. } => self.disk_rng.chance(500),
            _ => false,
        }
    }

    fn operation_failed(&mut self, op: &WalOp) -> Held {
        let write = self.write_of(op);
        if let WalOp::Sync { segment, .. } = op {
            self.disk.fail_sync(*segment, &mut self.disk_rng);
        }
        self.say("disk", format_args!("fails {}", kind(op)));
        if let Some(up) = &mut self.up {
            up.ops.clear();
        }
        if let Some(write) = write {
            self.give(Input::WriteFailed { write, error: "input/output error".into() });
        }
        Ok(())
    }

    fn operation_full(&mut self, op: WalOp) -> Held {
        let Some(write) = self.write_of(&op) else { return self.next_disk_operation() };
        self.say("disk", format_args!("full at {} of write {}", kind(&op), write.0));
        self.ills.was_full = true;
        if let Some(up) = &mut self.up {
            // The rest of this write is left undone.
            while let Some(next) = up.ops.pop_front() {
                let ends =
                    matches!(&next, WalOp::Sync { write: w, .. } | WalOp::Done { write: w } if *w == write);
                if ends {
                    break;
                }
            }
        }
        self.give(Input::WriteFull(write));
        self.next_disk_operation()
    }

    /// The write that an operation belongs to: a create belongs to the one behind it.
    fn write_of(&self, op: &WalOp) -> Option<WriteId> {
        let of = |op: &WalOp| match op {
            WalOp::Write { write, .. } | WalOp::Sync { write, .. } | WalOp::Done { write } => Some(*write),
            WalOp::Create { .. } | WalOp::Remove { .. } => None,
        };
        of(op).or_else(|| self.up.as_ref()?.ops.iter().find_map(of))
    }

    fn write_done(&mut self, write: WriteId, op: &WalOp) -> Held {
        let weak = self.knobs.fsync != Fsync::Always;
        let Some(up) = &mut self.up else { return Ok(()) };
        let on_medium = up.unsynced.range(..=write).all(|(_, segments)| segments.is_empty());
        if on_medium || weak {
            up.unsynced = up.unsynced.split_off(&WriteId(write.0 + 1));
            self.log.synced(write);
        }
        if !std::mem::replace(&mut up.proven, true) {
            let failed = std::mem::take(&mut self.ills.failed);
            failed.into_iter().for_each(|mark| self.marks.hit(mark));
        }
        if self.ills.was_full && !self.ills.full {
            self.ills.was_full = false;
            self.marks.hit(Mark::FullDiskRecovered);
        }
        self.say("disk", format_args!("{} {} done", kind(op), write.0));
        // What waited for it may go out before the node is told, or after.
        let before = self.disk_rng.chance(500);
        if before {
            self.release(write)?;
        }
        self.give(Input::WriteDurable(write));
        if !before { self.release(write) } else { Ok(()) }
    }

    fn release(&mut self, write: WriteId) -> Held {
        let Some(up) = &mut self.up else { return Ok(()) };
        up.durable = up.durable.max(Some(write));
        let (ready, waiting) =
            std::mem::take(&mut up.waiting).into_iter().partition(|effect| effect.after <= Some(write));
        up.waiting = waiting;
        for effect in ready as Vec<Effect> {
            self.perform_action(effect.action)?;
        }
        Ok(())
    }

    // Checkpoints

    fn begin_checkpoint(&mut self, checkpoint: Checkpoint) -> Held {
        let Checkpoint { id, .. } = checkpoint;
        let applied = checkpoint.groups.iter().map(|group| group.applied.0).max().unwrap_or(0);
        self.say("n1", format_args!("checkpoint {} of {applied}", id.0));
        self.log.promise("a checkpoint", applied)?;
        let store = self.store.with(&checkpoint);
        let latency = self.disk_rng.latency(self.knobs.checkpoint_latency);
        let run = self.run;
        if let Some(up) = &mut self.up {
            up.checkpoint = Some((id, store));
        }
        if self.comes_to_crash() {
            self.marks.hit(Mark::CrashInCheckpoint);
            if self.ills.crash.is_some_and(|crash| crash.moment == Moment::After) {
                self.take_checkpoint();
            }
            self.ills.crash_operation = true;
            let within = self.disk_rng.below(latency + 1);
            self.after(within, Event::CrashNow(run));
            return Ok(());
        }
        self.after(latency, Event::CheckpointDone(run, id));
        Ok(())
    }

    fn take_checkpoint(&mut self) {
        if let Some((_, store)) = self.up.as_mut().and_then(|up| up.checkpoint.take()) {
            self.store = store;
            self.shared = Arc::new(self.store.clone());
        }
    }

    pub(super) fn checkpoint_done(&mut self, id: CheckpointId) -> Held {
        if self.up.as_ref().is_none_or(|up| up.checkpoint.as_ref().is_none_or(|(running, _)| *running != id))
        {
            return Ok(());
        }
        if std::mem::take(&mut self.ills.fail_checkpoint) {
            self.say("disk", format_args!("fails checkpoint {}", id.0));
            self.give(Input::CheckpointFailed { checkpoint: id, error: "input/output error".into() });
            return Ok(());
        }
        if self.ills.full && self.disk_rng.chance(700) {
            self.say("disk", format_args!("full at checkpoint {}", id.0));
            self.marks.hit(Mark::CheckpointFull);
            if let Some(up) = &mut self.up {
                up.checkpoint = None;
            }
            self.give(Input::CheckpointFull(id));
            return Ok(());
        }
        self.take_checkpoint();
        self.say("disk", format_args!("checkpoint {} done, {} entries", id.0, self.store.len()));
        self.marks.hit(Mark::CheckpointDone);
        self.give(Input::CheckpointDurable(id));
        Ok(())
    }
}

fn kind(op: &WalOp) -> &'static str {
    match op {
        WalOp::Create { .. } => "create",
        WalOp::Write { .. } => "write",
        WalOp::Sync { .. } => "sync",
        WalOp::Done { .. } => "hand-over",
        WalOp::Remove { .. } => "remove",
    }
}

fn brief(entry: &proto::command::Entry) -> String {
    use proto::command::Command;
    let what = match &*entry.command {
        Command::Batch { request, ops } => {
            let mut shown: Vec<String> = ops.iter().take(4).map(brief_op).collect();
            if ops.len() > shown.len() {
                shown.push(format!("and {} more", ops.len() - shown.len()));
            }
            format!("batch {}.{}: {}", request.session.0 as u64, request.sequence, shown.join(", "))
        }
        Command::Fire { timers } => {
            let shown: Vec<String> =
                timers.iter().take(4).map(|t| format!("{:?} due {}", t.timer_id, t.due)).collect();
            format!("fire {} timers: {}", timers.len(), shown.join(", "))
        }
        Command::Ack { consumer_group, offsets, .. } => format!("ack {consumer_group} {offsets:?}"),
        other => format!("{other:?}"),
    };
    format!("t{} {} {what}", entry.term, entry.time)
}

fn brief_op(op: &proto::command::Op) -> String {
    use proto::command::Op;
    match op {
        Op::PutRow { relation, key, .. } => format!("put {relation} {}", hex(key)),
        Op::DeleteRow { relation, key, .. } => format!("delete {relation} {}", hex(key)),
        Op::AppendRow { relation, .. } => format!("append {relation}"),
        Op::Publish { topic, event, claim, .. } => {
            format!("publish {topic} {:?} claim={claim}", event.message_id)
        }
        Op::Schedule { topic, timer_id, deliver_at, claim, .. } => {
            format!("schedule {topic} {timer_id:?} at {deliver_at} claim={claim}")
        }
        Op::Reschedule { topic, timer_id, deliver_at, if_version, .. } => {
            format!("reschedule {topic} {timer_id:?} to {deliver_at:?} if {if_version:?}")
        }
        Op::Cancel { topic, timer_id, if_version } => {
            format!("cancel {topic} {timer_id:?} if {if_version:?}")
        }
        Op::PutRelation(relation) => format!("define {} {:?}", relation.id, relation.name),
        Op::DropRelation(relation) => format!("drop {relation}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
