//! The shell around the node: what `io/node`'s driver does, with a disk and clocks that misbehave.
//!
//! Effects without a barrier are performed before the disk has begun with what the same step asks of it: the worst
//! order that the contract allows. Replies travel apart from everything else, in any order among themselves.

use super::machine::{DISKS, NAMES, WALS, member, named};
use super::{Event, World};
use crate::chronicle::What;
use crate::marks::Mark;
use crate::plan::{End, Moment};
use crate::store::SimStore;
use crate::tap::{self, Logged};
use crate::violation::{Held, Violation};
use crate::words::{Brief, Handed, Tells, Told, brief};
use chronos_engine::node::{Config, Fsync, Start};
use chronos_engine::raft::Role;
use chronos_engine::record::{Label, Recorder};
use chronos_engine::state::keys;
use chronos_engine::step::{
    Action, Checkpoint, CheckpointId, Effect, Fatal, Input, Outputs, Published, Reply, Token, Trace,
};
use chronos_engine::txn::{Committed, Refused};
use chronos_engine::wal::{self, SegmentId, WalOp, WriteId};
use chronos_engine::{Node, proto};
use proto::id::GroupId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The only group of this stage.
pub const GROUP: GroupId = GroupId(0);
/// Steps at one moment that are taken for a node that spins.
const SPIN_MAX: u64 = 20_000;
/// Snapshots that clients may still read from.
const RING: usize = 12;

/// Every so many steps of the world, a recording begins anew.
const ANEW_EVERY: u64 = 97;

fn label(m: usize) -> Label {
    Label { build: "the simulator".to_owned(), name: NAMES[m].to_owned() }
}

/// A running process.
pub(super) struct Up {
    pub(super) node: Node,
    pub(super) recorder: Option<Recorder>,
    inbox: VecDeque<Input>,
    drive_scheduled: bool,
    waiting: Vec<Effect>,
    durable: Option<WriteId>,
    ops: VecDeque<WalOp>,
    disk_busy: bool,
    /// Under way: its name, the store once it is done, and the entry that its state is then at.
    checkpoint: Option<(CheckpointId, SimStore, Option<u64>)>,
    pub(super) published: Option<Published>,
    pub(super) ring: VecDeque<Published>,
    deadline: u64,
    /// Segments that each write is in, until it is synced.
    unsynced: BTreeMap<WriteId, BTreeSet<SegmentId>>,
    pub(super) proven: bool,
    /// What it was after the last step, and in which term.
    role: (Role, u64),
    pub(super) told_synchronised: bool,
    failing: bool,
    spins: (u64, u64),
}

impl World {
    fn config(&self, m: usize) -> Config {
        let (k, machine) = (&self.knobs, &self.machines[m]);
        let identity = machine.identity();
        Config {
            fsync: k.fsync,
            segment_bytes: k.segment_bytes,
            checkpoint_wal_bytes: k.checkpoint_wal_bytes,
            checkpoint_interval_us: k.checkpoint_interval,
            overlay_max_bytes: k.overlay_max_bytes,
            wal_max_bytes: k.checkpoint_wal_bytes.saturating_mul(4).max(8 * k.segment_bytes),
            snapshot_chunk_bytes: k.snapshot_chunk_bytes,
            inflight_max: k.inflight_max,
            fire_ahead_max_us: k.fire_ahead_max,
            wheel_window_us: k.wheel_window,
            wheel_max: k.wheel_max,
            members: match k.solo() {
                true => Vec::new(),
                false => (0..k.nodes).map(member).collect(),
            },
            joins: machine.joins,
            raft: k.raft,
            boots: machine.start_number(),
            ..Config::new(
                identity.cluster,
                identity.node,
                identity.incarnation,
                machine.clock.boot,
                k.seed ^ machine.run ^ identity.node.0 << 32,
            )
        }
    }

    /// The process starts and recovers from what the disk holds.
    pub(super) fn start(&mut self, m: usize) -> Held {
        if self.machines[m].up.is_some() {
            return Ok(());
        }
        self.machines[m].run += 1;
        if !self.solo() {
            let machine = &mut self.machines[m];
            machine.begun = Some(Start::next(machine.begun, machine.run));
        }
        let now = self.machines[m].clock.now(self.now);
        let run = self.machines[m].run;
        let boot = self.machines[m].clock.boot;
        self.say(NAMES[m], format_args!("start run={run} boot={boot} mono={}", now.mono.0));
        let images: BTreeMap<SegmentId, Vec<u8>> = self.machines[m].disk.images().collect();
        let recovered = match wal::recover(self.machines[m].identity(), &images) {
            Ok(recovered) => recovered,
            Err(damage) => return self.damaged(m, true, &damage.to_string()),
        };
        drop(images);
        let last = recovered.groups.get(&GROUP).map_or(0, |log| log.last().0);
        self.say(NAMES[m], format_args!("recovered last={last} cut={:?}", recovered.cut));
        self.note(|| What::Started { node: m, last });
        if recovered.cut.is_some() {
            self.marks.hit(Mark::TornTailCut);
        }
        let lossy =
            std::mem::take(&mut self.machines[m].ills.power_was_cut) && self.knobs.fsync != Fsync::Always;
        if self.solo() {
            self.log.restarted(lossy);
            self.delivery.restarted();
            let before = self.log.last();
            self.log.recovered(last)?;
            if last < before {
                self.marks.hit(Mark::UnsyncedWriteLost);
                self.forget_above(last)?;
            }
        } else {
            self.group.recovered(m, recovered.groups.get(&GROUP))?;
        }
        let (solo, machine) = (self.solo(), &mut self.machines[m]);
        machine.cluster_time.restarted(now, machine.clock.synchronised, solo);
        self.truth.runs(self.now, machine.clock.drift_ppm());
        self.truth.shown(self.now, machine.clock.wall_error(self.now));
        let mut out = Outputs::default();
        let (config, store) = (self.config(m), &self.machines[m].shared);
        let (opened, recorder) = if self.record {
            let (opened, recorder) = Recorder::open(label(m), config, now, recovered, store, &mut out);
            (opened, Some(recorder))
        } else {
            (Node::new(config, now, recovered, store, &mut out), None)
        };
        let node = match opened {
            Ok(node) => node,
            Err(fatal) => return self.damaged(m, false, &fatal.to_string()),
        };
        if let Some(status) = node.status().groups.first()
            && status.applied < last
            && !self.machines[m].store.is_empty()
        {
            self.marks.hit(Mark::ReplayedAboveCheckpoint);
        }
        self.machines[m].up = Some(Up {
            node,
            recorder,
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
            role: Default::default(),
            told_synchronised: self.machines[m].clock.synchronised,
            failing: false,
            spins: (0, 0),
        });
        if !self.solo() {
            self.stepped(m)?;
        }
        self.perform_all(m, out)?;
        self.give(m, Input::ClockSynchronised(self.machines[m].clock.synchronised));
        self.reschedule(m);
        self.machines[m].ills.well_since = self.now;
        self.reopen_readers();
        Ok(())
    }

    /// The last entry that recovery finds in what is synced.
    pub(super) fn durable_last(&self, m: usize) -> Result<u64, Violation> {
        let images: BTreeMap<SegmentId, Vec<u8>> = self.machines[m].disk.durable_images().collect();
        match wal::recover(self.machines[m].identity(), &images) {
            Ok(recovered) => Ok(recovered.groups.get(&GROUP).map_or(0, |log| log.last().0)),
            Err(damage) => {
                Err(Violation::safety("no-false-alarm", format!("what is synced is refused: {damage}")))
            }
        }
    }

    /// An input for the node; the driver takes it soon.
    pub(super) fn give(&mut self, m: usize, input: Input) {
        let delay = self.driver_rng.below(self.knobs.gather + 1);
        let Some(up) = &mut self.machines[m].up else { return };
        up.inbox.push_back(input);
        if !std::mem::replace(&mut up.drive_scheduled, true) {
            let run = self.machines[m].run;
            self.after(delay, Event::Drive(m, run));
        }
    }

    /// The driver's turn: a step an input, and now and then word that the queue is drained.
    pub(super) fn drive(&mut self, m: usize) -> Held {
        if let Some(up) = &mut self.machines[m].up {
            up.drive_scheduled = false;
        }
        let mut since_drained = 0;
        while let Some(input) = self.machines[m].up.as_mut().and_then(|up| up.inbox.pop_front()) {
            if self.driver_rng.chance(self.knobs.spurious_ticks) {
                self.step(m, Input::Tick)?;
            }
            self.step(m, input)?;
            since_drained += 1;
            if since_drained >= self.knobs.batch_max {
                since_drained = 0;
                self.step(m, Input::QueueDrained)?;
            }
        }
        self.step(m, Input::QueueDrained)?;
        self.reschedule(m);
        if self.record && self.trace.step.is_multiple_of(ANEW_EVERY) {
            self.record_anew(m);
        }
        Ok(())
    }

    /// The recording so far is replayed, and another begins with the node as it is, if there is an image of it now.
    fn record_anew(&mut self, m: usize) {
        let Some(up) = &self.machines[m].up else { return };
        let anew = Recorder::anew(label(m), &up.node, &self.machines[m].shared);
        if anew.is_some() {
            self.replay(m);
            if let Some(up) = &mut self.machines[m].up {
                up.recorder = anew;
            }
        }
    }

    /// One step of the node, and what comes of it.
    fn step(&mut self, m: usize, input: Input) -> Held {
        let now = self.machines[m].clock.now(self.now);
        let vouched = self.machines[m].up.as_ref().is_some_and(|up| up.told_synchronised);
        self.machines[m].cluster_time.stepped(now, vouched);
        self.truth.shown(self.now, self.machines[m].clock.wall_error(self.now));
        let machine = &mut self.machines[m];
        let Some(up) = &mut machine.up else { return Ok(()) };
        match &input {
            Input::Tick | Input::QueueDrained => {}
            Input::Peer { from, message } => {
                let (from, message) = (NAMES[super::machine::of(*from)], Brief(message));
                self.trace.line(self.now, NAMES[m], format_args!("<- {from} {message}"))
            }
            Input::Request { token, .. } => {
                self.trace.line(self.now, NAMES[m], format_args!("request {}", token.0))
            }
            other => self.trace.line(self.now, NAMES[m], format_args!("{}", Told(other, &named))),
        }
        if let Input::ClockSynchronised(synchronised) = &input {
            up.told_synchronised = *synchronised;
        }
        let must_fail = matches!(input, Input::WriteFailed { .. } | Input::CheckpointFailed { .. });
        up.failing |= must_fail;
        let mut out = Outputs::default();
        match &mut up.recorder {
            Some(recorder) => recorder.step(&mut up.node, now, input, &machine.shared, &mut out),
            None => up.node.step(now, input, &machine.shared, &mut out),
        }
        let fatal = out.effects.iter().any(|effect| matches!(effect.action, Action::Fatal(_)));
        if must_fail && !fatal {
            let what = "a failed write or checkpoint was reported and the node goes on";
            return Err(Violation::safety("failure-is-fatal", what));
        }
        if !self.solo() && !fatal {
            self.stepped(m)?;
        }
        self.perform_all(m, out)
    }

    fn perform_all(&mut self, m: usize, out: Outputs) -> Held {
        for effect in out.effects {
            let held_back = match (&self.machines[m].up, effect.after) {
                (Some(up), Some(write)) => up.durable.is_none_or(|durable| durable < write),
                _ => false,
            };
            match (&mut self.machines[m].up, held_back) {
                (Some(up), true) => up.waiting.push(effect),
                (Some(_), false) => self.perform_action(m, effect.action)?,
                (None, _) => return Ok(()),
            }
        }
        self.next_disk_operation(m)
    }

    fn perform_action(&mut self, m: usize, action: Action) -> Held {
        match action {
            Action::Wal(op) => {
                self.tap(m, &op)?;
                if let Some(up) = &mut self.machines[m].up {
                    up.ops.push_back(op);
                }
                Ok(())
            }
            Action::Reply(token, Reply::Commit(reply)) => self.reply(m, token, reply),
            Action::Reply(token, Reply::Unknown(why)) => self.reply_unknown(m, token, why),
            Action::Reply(token, Reply::Read(reply)) => self.read_reply(m, token, reply),
            Action::Reply(_, Reply::Operator(result)) => {
                self.operated(m, &result);
                Ok(())
            }
            Action::Send { .. } | Action::Members(_) if self.solo() => {
                Err(Violation::safety("requests", "a node that is alone speaks to others"))
            }
            Action::Refuse { peer, why } => {
                self.say(NAMES[m], format_args!("refuses {peer}: {why}"));
                self.refused_peer(m, super::machine::of(peer), &why)
            }
            Action::Send { to, message } => self.send_message(m, to, message),
            Action::Members(members) => {
                self.say(NAMES[m], format_args!("knows {} members", members.len()));
                if let Some(begun) = &mut self.machines[m].begun {
                    begun.noted |= begun.is_noted_in(super::machine::id(m), &members);
                }
                Ok(())
            }
            Action::Publish(published) => self.publish(m, published),
            Action::Checkpoint(checkpoint) => self.begin_checkpoint(m, checkpoint),
            Action::Deliver(delivery) => self.deliver(m, delivery),
            Action::CloseSubscriber(id, why) => {
                self.say(NAMES[m], format_args!("closes {id:?}: {why}"));
                self.delivery.closed(id);
                self.reader_closed(id);
                Ok(())
            }
            Action::Trace(trace) => self.traced(m, &trace),
            Action::Fatal(fatal) => self.fatal(m, &fatal),
        }
    }

    fn traced(&mut self, m: usize, trace: &Trace) -> Held {
        self.note(|| What::Engine { node: m, trace: trace.clone() });
        match trace {
            Trace::Applied { .. } if !self.solo() => return Ok(()),
            Trace::SnapshotInstalled { .. } => {
                self.machines[m].receiving = false;
                self.marks.hit(Mark::SnapshotInstalled);
            }
            Trace::SnapshotResumed { .. } => self.marks.hit(Mark::SnapshotResumed),
            Trace::SegmentRemoved(_) => self.marks.hit(Mark::SegmentRemoved),
            Trace::ClockStep { adopted, .. } => {
                self.marks.hit(if *adopted { Mark::ClockStepAdopted } else { Mark::ClockStepIgnored });
                self.machines[m].ills.well_since = self.now;
            }
            _ => {}
        }
        self.say(NAMES[m], format_args!("{}", Tells(trace, &named)));
        Ok(())
    }

    /// What the node says of its group after a step.
    fn stepped(&mut self, m: usize) -> Held {
        let Some(up) = &self.machines[m].up else { return Ok(()) };
        let (Some(raft), Some(state)) = (up.node.raft(GROUP), up.node.state(GROUP)) else { return Ok(()) };
        let (was, is, index) = (up.role, (raft.role(), raft.term().0), raft.committed().0);
        if was != is {
            self.trace.note(self.now, || What::Role { node: m, role: is.0, term: is.1 });
        }
        if index > self.group.commit_of(m) {
            self.trace.note(self.now, || What::Committed { node: m, index });
        }
        let before = self.group.applied_by(m);
        self.group.stepped(m, raft)?;
        if state.applied().0 != before {
            self.group.applied(m, state.applied().0, state.digests().total())?;
        }
        let role = (raft.role(), raft.term().0);
        let up = self.machines[m].up.as_mut();
        let was = up.map(|up| std::mem::replace(&mut up.role, role)).unwrap_or_default();
        self.role_marks(m, was, role);
        self.catch_up(self.group.committed())
    }

    fn role_marks(&mut self, m: usize, was: (Role, u64), is: (Role, u64)) {
        if was == is {
            return;
        }
        if is.0 == Role::Leader {
            self.marks.hit(Mark::LeaderElected);
        } else if was.0 == Role::Leader {
            self.marks.hit(if was.1 == is.1 { Mark::LeaderSteppedDown } else { Mark::LeaderDeposed });
            let removed =
                self.group.committed_configuration().is_some_and(|c| !c.is_voter(self.machines[m].id()));
            if was.1 == is.1 && removed {
                self.marks.hit(Mark::RemovedLeaderSteppedDown);
            }
        }
    }

    /// Looks at what is handed to the disk.
    fn tap(&mut self, m: usize, op: &WalOp) -> Held {
        match op {
            WalOp::Write { write, bytes, .. } => {
                self.trace.bytes(bytes);
                self.say(WALS[m], format_args!("{}", Handed(op)));
                let logged = tap::entries(bytes).map_err(|what| Violation::safety("log", what))?;
                if !self.solo() {
                    return self.told_group(m, *write, logged);
                }
                // A log that cannot be committed is written anew as it is, so that it does not keep old segments.
                let mut owed = None;
                for logged in logged {
                    match logged {
                        Logged::Truncated(GROUP, from) => {
                            owed = Some(from.0).filter(|from| *from <= self.log.last())
                        }
                        Logged::Entry(GROUP, entry) => {
                            let about = entry.index;
                            if owed == Some(about.0) {
                                owed = Some(about.0 + 1).filter(|next| *next <= self.log.last());
                            }
                            let cut = self.log.appended(*write, &entry)?;
                            self.say(WALS[m], format_args!("  entry {about} {}", brief(&entry)));
                            self.logged(m, *write, &entry);
                            if let Some(last) = cut {
                                self.forget_above(last)?;
                            }
                        }
                        Logged::Voted(..) | Logged::Compacted(..) => {}
                        Logged::Entry(..) | Logged::Truncated(..) => {
                            return Err(Violation::safety("log", "of a group that there is not"));
                        }
                    }
                }
                if let Some(from) = owed {
                    let what = format!("a single voter truncates its log from {from} on");
                    return Err(Violation::safety("log", what));
                }
            }
            other => self.say(WALS[m], format_args!("{}", Handed(other))),
        }
        Ok(())
    }

    fn told_group(&mut self, m: usize, write: WriteId, logged: Vec<Logged>) -> Held {
        if logged.is_empty() {
            return Ok(());
        }
        for logged in logged {
            match &logged {
                Logged::Entry(_, entry) => {
                    self.say(WALS[m], format_args!("  entry {} {}", entry.index, brief(entry)));
                    self.logged(m, write, entry);
                }
                Logged::Truncated(_, from) => {
                    self.marks.hit(Mark::ConflictTruncated);
                    self.say(WALS[m], format_args!("  truncated from {from}"));
                    let from = from.0;
                    self.note(|| What::Truncated { node: m, from });
                }
                other => self.say(WALS[m], format_args!("  {other:?}")),
            }
            self.group.told(m, write, logged)?;
        }
        self.group.told_all(m, write)
    }

    fn logged(&mut self, m: usize, write: WriteId, entry: &proto::command::Entry) {
        let (write, index, term) = (write.0, entry.index.0, entry.term.0);
        self.note(|| What::Logged { node: m, write, index, term, what: brief(entry) });
    }

    fn publish(&mut self, m: usize, published: Published) -> Held {
        let now = self.machines[m].clock.now(self.now);
        let index = published.snapshot.applied.0;
        self.say(NAMES[m], format_args!("publish {index} at {}", published.clock.time));
        self.promise("a published snapshot", index)?;
        let held = self.now.saturating_sub(self.machines[m].ills.wall_steady_since);
        let vouched = self.machines[m].up.as_ref().is_some_and(|up| up.told_synchronised);
        let applied = published.snapshot.applied_time;
        self.machines[m].cluster_time.read(published.clock, applied, now, vouched, held)?;
        let told = crate::clock::error(published.clock.at(now.mono), self.now);
        self.truth.told(self.now, told)?;
        let before = self.machines[m].up.as_ref().and_then(|up| up.published.as_ref());
        if before.is_some_and(|before| index < before.snapshot.applied.0) {
            let what = format!("{} publishes entry {index} again", NAMES[m]);
            return Err(Violation::safety("never-back", what));
        }
        if self.solo() && index < self.log.promised() {
            let what = format!("entry {index} is published, and {} was promised before", self.log.promised());
            return Err(Violation::safety("never-back", what));
        }
        if self.solo() {
            self.catch_up(index)?;
        }
        if let Some(up) = &mut self.machines[m].up {
            up.published = Some(published.clone());
            up.ring.push_back(published);
            if up.ring.len() > RING {
                up.ring.pop_front();
            }
        }
        Ok(())
    }

    fn reply(&mut self, m: usize, token: Token, reply: Result<Committed, Refused>) -> Held {
        let Some(attempt) = self.tokens.get(&token).cloned() else {
            return Err(Violation::safety(
                "one-effect",
                format!("an answer to {token:?}, which nobody sent"),
            ));
        };
        match &reply {
            Ok(committed) => {
                self.say(NAMES[m], format_args!("reply {} committed {}", token.0, committed.index));
                self.replied(m, token, Some(committed.index.0), &format!("committed at {}", committed.index));
                self.promise("a reply", committed.index.0)?;
                let published = self.machines[m].up.as_ref().and_then(|up| up.published.as_ref());
                if self.solo() && published.is_none_or(|p| p.snapshot.applied < committed.index) {
                    let what = format!("entry {} was answered before it was published", committed.index);
                    return Err(Violation::safety("reply-after-publish", what));
                }
                self.requests.committed(attempt.name, committed)?;
                self.lists.promised(token, committed.index.0);
                if !self.solo() {
                    self.group.known_to_client(committed.index.0);
                }
            }
            Err(refused) => {
                self.say(NAMES[m], format_args!("reply {} refused: {refused}", token.0));
                self.replied(m, token, None, &format!("refused: {refused}"));
            }
        }
        if self.net_rng.chance(self.knobs.reply_loss) && self.settling.is_none() {
            self.reply_lost(m, token);
            return Ok(());
        }
        let delay = self.net_rng.latency(self.knobs.client_delay);
        self.after(delay, Event::Answer(token, Box::new(Reply::Commit(reply))));
        Ok(())
    }

    fn reply_unknown(&mut self, m: usize, token: Token, why: String) -> Held {
        self.say(NAMES[m], format_args!("reply {} unknown: {why}", token.0));
        self.replied(m, token, None, &format!("unknown: {why}"));
        self.marks.hit(Mark::AnswerUnknown);
        let delay = self.net_rng.latency(self.knobs.client_delay);
        self.after(delay, Event::Answer(token, Box::new(Reply::Unknown(why))));
        Ok(())
    }

    fn fatal(&mut self, m: usize, fatal: &Fatal) -> Held {
        let expected = self.machines[m].up.as_ref().is_some_and(|up| up.failing);
        self.say(NAMES[m], format_args!("fatal: {fatal}"));
        match fatal {
            Fatal::WalFailed(_) | Fatal::CheckpointFailed(_) if expected => {
                self.end(m, End::Kill);
                self.machines[m].ills.failed.push(match fatal {
                    Fatal::WalFailed(_) => Mark::SyncFailedRecovered,
                    _ => Mark::CheckpointFailedRecovered,
                });
                self.after(200_000, Event::Start(m));
                Ok(())
            }
            Fatal::StateDamaged(_) => {
                self.end(m, End::Kill);
                self.damaged(m, false, &fatal.to_string())
            }
            _ => Err(Violation::safety("no-false-alarm", format!("nothing had failed: {fatal}"))),
        }
    }

    // Deadlines

    fn reschedule(&mut self, m: usize) {
        let late = self.driver_rng.below(self.knobs.tick_late + 1);
        let Some(up) = &mut self.machines[m].up else { return };
        up.deadline += 1;
        let Some((at, _)) = up.node.next_deadline() else { return };
        let (number, run) = (up.deadline, self.machines[m].run);
        let at = self.machines[m].clock.when(self.now, at);
        self.at(at.saturating_add(late), Event::Deadline(m, run, number));
    }

    pub(super) fn deadline(&mut self, m: usize, number: u64) -> Held {
        let Some(up) = &mut self.machines[m].up else { return Ok(()) };
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
        self.step(m, Input::Tick)?;
        self.reschedule(m);
        Ok(())
    }

    // The disk

    pub(super) fn next_disk_operation(&mut self, m: usize) -> Held {
        let Some(up) = &mut self.machines[m].up else { return Ok(()) };
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
        if mean > 0 && self.machines[m].ills.slow_extra > 0 {
            latency +=
                self.disk_rng.range(self.machines[m].ills.slow_extra / 2, self.machines[m].ills.slow_extra);
            self.machines[m].ills.slow_until = self.now + latency;
        }
        if mean > 0 && self.comes_to_crash(m) {
            return self.crash_in_operation(m, latency);
        }
        let run = self.machines[m].run;
        self.after(latency, Event::DiskDone(m, run));
        Ok(())
    }

    fn crash_in_operation(&mut self, m: usize, latency: u64) -> Held {
        let op = self.machines[m].up.as_mut().and_then(|up| up.ops.pop_front());
        let Some(op) = op else { return Ok(()) };
        let moment = self.machines[m].ills.crash.map_or(Moment::Now, |crash| crash.moment);
        self.marks.hit(match op {
            WalOp::Create { .. } => Mark::CrashInCreate,
            WalOp::Write { .. } => Mark::CrashInWrite,
            WalOp::Sync { .. } | WalOp::Done { .. } => Mark::CrashInSync,
            WalOp::Remove { .. } => Mark::CrashInRemove,
        });
        match moment {
            Moment::Before | Moment::Now => {}
            Moment::After => {
                self.apply_operation(m, &op);
            }
            Moment::During => match op {
                WalOp::Create { segment, bytes } => match self.disk_rng.below(3) {
                    0 => {}
                    1 => self.machines[m].disk.create(segment, self.disk_rng.clone().below(bytes) as usize),
                    _ => self.machines[m].disk.create(segment, bytes as usize),
                },
                WalOp::Write { segment, offset, bytes, .. } => {
                    let part = self.disk_rng.below(bytes.len() as u64 + 1) as usize;
                    self.machines[m].disk.write(segment, offset, bytes.slice(..part));
                }
                WalOp::Sync { .. } | WalOp::Remove { .. } if self.disk_rng.chance(500) => {
                    self.apply_operation(m, &op);
                }
                _ => {}
            },
        }
        // It happens at some time within the operation; nobody is told of anything until then.
        let run = self.machines[m].run;
        let within = self.disk_rng.below(latency + 1);
        self.machines[m].ills.crash_operation = true;
        self.after(within, Event::CrashNow(m, run));
        Ok(())
    }

    /// The effect of an operation on the files. False if it cannot be done.
    fn apply_operation(&mut self, m: usize, op: &WalOp) -> bool {
        match op {
            WalOp::Create { segment, bytes } => self.machines[m].disk.create(*segment, *bytes as usize),
            WalOp::Write { segment, offset, bytes, write } => {
                if let Some(up) = &mut self.machines[m].up {
                    up.unsynced.entry(*write).or_default().insert(*segment);
                }
                let run = self.machines[m].run;
                self.machines[m].ills.written(run, *write, *segment, *offset, bytes.len());
                return self.machines[m].disk.write(*segment, *offset, bytes.clone());
            }
            WalOp::Sync { segment, .. } => {
                self.machines[m].ills.synced(*segment);
                let synced = self.machines[m].disk.sync(*segment);
                if let Some(up) = &mut self.machines[m].up {
                    up.unsynced.values_mut().for_each(|segments| {
                        segments.remove(segment);
                    });
                }
                return synced;
            }
            WalOp::Done { .. } => {}
            WalOp::Remove { segment } => {
                self.machines[m].ills.removed(*segment);
                self.machines[m].disk.remove(*segment);
            }
        }
        true
    }

    pub(super) fn disk_done(&mut self, m: usize) -> Held {
        let machine = &mut self.machines[m];
        let Some(up) = &mut machine.up else { return Ok(()) };
        up.disk_busy = false;
        if self.now <= machine.ills.slow_until {
            machine.ills.well_since = self.now;
        }
        let Some(op) = up.ops.pop_front() else { return Ok(()) };
        let needs_medium = !matches!(op, WalOp::Done { .. } | WalOp::Remove { .. });
        if needs_medium && std::mem::take(&mut self.machines[m].ills.fail_write) {
            return self.operation_failed(m, &op);
        }
        if self.machines[m].ills.full && self.finds_no_space(&op) {
            return self.operation_full(m, op);
        }
        if !self.apply_operation(m, &op) {
            return Err(Violation::safety("log", format!("{op:?} is outside any file")));
        }
        match op {
            WalOp::Sync { write, .. } | WalOp::Done { write } => self.write_done(m, write, &op)?,
            WalOp::Create { .. } if self.machines[m].disk.len() > 1 => self.marks.hit(Mark::SegmentRolled),
            WalOp::Remove { .. } => self.marks.hit(Mark::SegmentRemoved),
            WalOp::Create { .. } | WalOp::Write { .. } => {}
        }
        self.next_disk_operation(m)
    }

    fn finds_no_space(&mut self, op: &WalOp) -> bool {
        match op {
            WalOp::Create { .. } => true,
            WalOp::Write { .. } => self.disk_rng.chance(500),
            _ => false,
        }
    }

    fn operation_failed(&mut self, m: usize, op: &WalOp) -> Held {
        let write = self.write_of(m, op);
        if let WalOp::Sync { segment, .. } = op {
            self.machines[m].disk.fail_sync(*segment, &mut self.disk_rng);
        }
        self.say(DISKS[m], format_args!("fails {}", kind(op)));
        if let Some(up) = &mut self.machines[m].up {
            up.ops.clear();
        }
        if let Some(write) = write {
            self.give(m, Input::WriteFailed { write, error: "input/output error".into() });
        }
        Ok(())
    }

    fn operation_full(&mut self, m: usize, op: WalOp) -> Held {
        let Some(write) = self.write_of(m, &op) else { return self.next_disk_operation(m) };
        self.say(DISKS[m], format_args!("full at {} of write {}", kind(&op), write.0));
        self.machines[m].ills.was_full = true;
        if let Some(up) = &mut self.machines[m].up {
            // The rest of this write is left undone.
            while let Some(next) = up.ops.pop_front() {
                let ends =
                    matches!(&next, WalOp::Sync { write: w, .. } | WalOp::Done { write: w } if *w == write);
                if ends {
                    break;
                }
            }
        }
        self.give(m, Input::WriteFull(write));
        self.next_disk_operation(m)
    }

    /// The write that an operation belongs to: a create belongs to the one behind it.
    fn write_of(&self, m: usize, op: &WalOp) -> Option<WriteId> {
        let of = |op: &WalOp| match op {
            WalOp::Write { write, .. } | WalOp::Sync { write, .. } | WalOp::Done { write } => Some(*write),
            WalOp::Create { .. } | WalOp::Remove { .. } => None,
        };
        of(op).or_else(|| self.machines[m].up.as_ref()?.ops.iter().find_map(of))
    }

    fn write_done(&mut self, m: usize, write: WriteId, op: &WalOp) -> Held {
        let weak = self.knobs.fsync != Fsync::Always;
        let Some(up) = &mut self.machines[m].up else { return Ok(()) };
        let on_medium = up.unsynced.range(..=write).all(|(_, segments)| segments.is_empty());
        if on_medium || weak {
            up.unsynced = up.unsynced.split_off(&WriteId(write.0 + 1));
            self.trace.note(self.now, || What::Durable { node: m, write: write.0 });
            match self.knobs.solo() {
                true => self.log.synced(write),
                false => self.group.synced(m, write),
            }
        }
        if !std::mem::replace(&mut up.proven, true) {
            let failed = std::mem::take(&mut self.machines[m].ills.failed);
            failed.into_iter().for_each(|mark| self.marks.hit(mark));
        }
        if self.machines[m].ills.was_full && !self.machines[m].ills.full {
            self.machines[m].ills.was_full = false;
            self.marks.hit(Mark::FullDiskRecovered);
        }
        self.say(DISKS[m], format_args!("{} {} done", kind(op), write.0));
        // What waited for it may go out before the node is told, or after.
        let before = self.disk_rng.chance(500);
        if before {
            self.release(m, write)?;
        }
        self.give(m, Input::WriteDurable(write));
        if !before { self.release(m, write) } else { Ok(()) }
    }

    fn release(&mut self, m: usize, write: WriteId) -> Held {
        let Some(up) = &mut self.machines[m].up else { return Ok(()) };
        up.durable = up.durable.max(Some(write));
        let (ready, waiting) =
            std::mem::take(&mut up.waiting).into_iter().partition(|effect| effect.after <= Some(write));
        up.waiting = waiting;
        for effect in ready as Vec<Effect> {
            self.perform_action(m, effect.action)?;
        }
        Ok(())
    }

    // Checkpoints

    fn begin_checkpoint(&mut self, m: usize, checkpoint: Checkpoint) -> Held {
        let Checkpoint { id, .. } = checkpoint;
        let applied = checkpoint.groups.iter().map(|group| group.applied.0).max().unwrap_or(0);
        self.say(NAMES[m], format_args!("checkpoint {} of {applied}", id.0));
        let live = checkpoint.groups.iter().any(|group| group.root.is_some());
        if self.solo() {
            self.log.promise("a checkpoint", applied)?;
        }
        let store = self.machines[m].store.with(&checkpoint);
        let latency = self.disk_rng.latency(self.knobs.checkpoint_latency);
        let run = self.machines[m].run;
        if let Some(up) = &mut self.machines[m].up {
            up.checkpoint = Some((id, store, live.then_some(applied)));
        }
        if checkpoint
            .groups
            .iter()
            .any(|group| group.layer.get(&keys::incoming()).is_some_and(Option::is_some))
        {
            self.arm_crash_amid_snapshot(m);
        }
        if self.comes_to_crash(m) {
            self.marks.hit(Mark::CrashInCheckpoint);
            if self.machines[m].ills.crash.is_some_and(|crash| crash.moment == Moment::After) {
                self.take_checkpoint(m);
            }
            self.machines[m].ills.crash_operation = true;
            let within = self.disk_rng.below(latency + 1);
            self.after(within, Event::CrashNow(m, run));
            return Ok(());
        }
        self.after(latency, Event::CheckpointDone(m, run, id));
        Ok(())
    }

    fn take_checkpoint(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if let Some((_, store, at)) = machine.up.as_mut().and_then(|up| up.checkpoint.take()) {
            machine.store = store;
            machine.shared = Arc::new(machine.store.clone());
            if let Some(at) = at.filter(|_| !self.knobs.solo()) {
                self.group.stored(m, at);
            }
        }
    }

    pub(super) fn checkpoint_done(&mut self, m: usize, id: CheckpointId) -> Held {
        if self.machines[m]
            .up
            .as_ref()
            .is_none_or(|up| up.checkpoint.as_ref().is_none_or(|(running, ..)| *running != id))
        {
            return Ok(());
        }
        if std::mem::take(&mut self.machines[m].ills.fail_checkpoint) {
            self.say(DISKS[m], format_args!("fails checkpoint {}", id.0));
            self.give(m, Input::CheckpointFailed { checkpoint: id, error: "input/output error".into() });
            return Ok(());
        }
        if self.machines[m].ills.full && self.disk_rng.chance(700) {
            self.say(DISKS[m], format_args!("full at checkpoint {}", id.0));
            self.marks.hit(Mark::CheckpointFull);
            if let Some(up) = &mut self.machines[m].up {
                up.checkpoint = None;
            }
            self.give(m, Input::CheckpointFull(id));
            return Ok(());
        }
        self.take_checkpoint(m);
        self.say(
            DISKS[m],
            format_args!("checkpoint {} done, {} entries", id.0, self.machines[m].store.len()),
        );
        self.marks.hit(Mark::CheckpointDone);
        self.give(m, Input::CheckpointDurable(id));
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
