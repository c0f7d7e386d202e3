//! What goes wrong, and how it is put right again.

use super::machine::{DISKS, NAMES};
use super::{Event, World};
use crate::chronicle::What;
use crate::disk::{SECTOR, Survival};
use crate::knobs::Job;
use crate::marks::Mark;
use crate::plan::{Act, End, Fault, Moment, Rot, Split, Trouble};
use crate::rng::Rng;
use crate::violation::{Held, Violation};
use bytes::Bytes;
use chronos_engine::step::Input;
use chronos_engine::wal::{SegmentId, WriteId};
use std::sync::Arc;

/// A crash that waits for its disk operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct ArmedCrash {
    pub(super) end: End,
    pub(super) moment: Moment,
    operations: u64,
    down: u64,
}

/// A WAL write as it lies on the disk.
#[derive(Clone, Copy, Debug)]
struct Written {
    run: u64,
    write: WriteId,
    segment: SegmentId,
    offset: u64,
    length: usize,
    synced: bool,
}

/// Paths that nothing gets through for a while.
#[derive(Debug)]
pub(super) struct Partition {
    paths: Vec<(usize, usize)>,
    holds: bool,
}

fn shown(paths: &[(usize, usize)]) -> String {
    paths.iter().map(|(from, to)| format!("{}>{}", from + 1, to + 1)).collect::<Vec<_>>().join(" ")
}

/// Everything that is wrong at the moment.
#[derive(Debug, Default)]
pub(super) struct Ills {
    pub(super) crash: Option<ArmedCrash>,
    /// The operation that it waited for is under way.
    pub(super) crash_operation: bool,
    /// It ends with a chunk of a snapshot: how, after how many, and for how long.
    pub(super) crash_amid_snapshot: Option<(End, u64, u64)>,
    pub(super) fail_write: bool,
    pub(super) fail_checkpoint: bool,
    /// Marks to hit when the node is back.
    pub(super) failed: Vec<Mark>,
    pub(super) full: bool,
    pub(super) was_full: bool,
    pub(super) slow_extra: u64,
    /// When the last operation ends that was begun on the slow disk.
    pub(super) slow_until: u64,
    /// Since the last start.
    pub(super) power_was_cut: bool,
    /// Nothing has been wrong since.
    pub(super) well_since: u64,
    /// The wall clock has not been touched since.
    pub(super) wall_steady_since: u64,
    frozen: bool,
    /// What should be where.
    rotten_wal: Option<(SegmentId, usize, Vec<u8>)>,
    pub(super) rotten_store: Option<Bytes>,
    writes: Vec<Written>,
    pub(super) crashes: u64,
}

impl Ills {
    pub(super) fn written(
        &mut self,
        run: u64,
        write: WriteId,
        segment: SegmentId,
        offset: u64,
        length: usize,
    ) {
        self.writes.push(Written { run, write, segment, offset, length, synced: false });
    }

    pub(super) fn synced(&mut self, segment: SegmentId) {
        self.writes.iter_mut().filter(|w| w.segment == segment).for_each(|w| w.synced = true);
    }

    pub(super) fn removed(&mut self, segment: SegmentId) {
        self.writes.retain(|w| w.segment != segment);
        self.rotten_wal.take_if(|(rotten, ..)| *rotten == segment);
    }

    /// Whether a bit of the WAL is flipped.
    pub(super) fn is_rotten(&self) -> bool {
        self.rotten_wal.is_some()
    }

    /// Nothing that could make the node late is wrong now.
    pub(super) fn is_well(&self, now: u64) -> bool {
        !self.full && self.slow_extra == 0 && now > self.slow_until && !self.crash_operation
    }
}

impl World {
    /// An act of the plan.
    pub(super) fn perform(&mut self, place: usize) -> Held {
        let planned = self.plan[place];
        if self.settling.is_some() {
            return Ok(());
        }
        self.performed += 1;
        match planned.act {
            Act::Client { client, job } => self.act(client, job, planned.salt),
            Act::Subscriber(reader) => {
                self.toggle_reader(reader, planned.salt);
                Ok(())
            }
            Act::Checkpoint => {
                self.say("world", format_args!("#{} {}", planned.number, planned.act));
                let m = self.some_machine(planned.salt);
                self.give(m, Input::Checkpoint);
                Ok(())
            }
            Act::Fault(fault) => {
                let m = self.some_machine(planned.salt);
                self.say(NAMES[m], format_args!("#{} {}", planned.number, planned.act));
                self.note(|| What::Planned { node: Some(m), number: planned.number, act: planned.act });
                self.fault(m, fault, planned.salt)
            }
            Act::Trouble(trouble) => {
                self.say("world", format_args!("#{} {}", planned.number, planned.act));
                self.note(|| What::Planned { node: None, number: planned.number, act: planned.act });
                self.trouble(trouble, planned.salt)
            }
        }
    }

    /// The leader, half of the time; else any.
    fn some_machine(&self, salt: u64) -> usize {
        let rng = &mut Rng::new(salt, "machine");
        let any = rng.below(self.machines.len() as u64) as usize;
        if rng.chance(400) { self.leader().unwrap_or(any) } else { any }
    }

    fn trouble(&mut self, trouble: Trouble, salt: u64) -> Held {
        match trouble {
            Trouble::Blackout { down } => {
                self.marks.hit(Mark::Blackout);
                let rng = &mut Rng::new(salt, "blackout");
                for m in 0..self.machines.len() {
                    if self.machines[m].up.is_some() {
                        self.end(m, End::Power);
                        self.after(rng.below(down + 1), Event::Start(m));
                    }
                }
            }
            Trouble::Partition { split, lasts, flaps } => {
                if let (Split::IsolateLeader, Some(leader)) = (split, self.leader()) {
                    let after = self.knobs.raft.election_timeout_us / 2;
                    self.plan_probes(leader, after, lasts, salt);
                }
                let each = lasts / flaps.max(1);
                let paths = self.split(split, &mut Rng::new(salt, "split"));
                for flap in 0..flaps {
                    let from = self.now + flap * each;
                    self.cut_from(from, each.div_ceil(if flaps > 1 { 2 } else { 1 }), paths.clone());
                }
            }
            Trouble::Clog { lasts } => {
                let rng = &mut Rng::new(salt, "clog");
                let until = self.now + lasts;
                for from in 0..self.machines.len() {
                    for to in 0..self.machines.len() {
                        if from != to && rng.chance(300) {
                            self.network.clog(from, to, until);
                        }
                    }
                }
            }
            Trouble::Churn => self.churn(salt),
            Trouble::Transfer => self.transfer(salt),
        }
        Ok(())
    }

    /// A leader is cut off in the moment in which it hands over.
    pub(super) fn isolate_soon(&mut self, leader: usize, rng: &mut Rng) {
        let paths = (0..self.machines.len()).filter(|m| *m != leader);
        let paths: Vec<_> = paths.flat_map(|m| [(leader, m), (m, leader)]).collect();
        let lasts = 2 * self.knobs.raft.election_timeout_us;
        let from = self.now + rng.below(self.knobs.gather + 2 * self.knobs.network.delay + 100);
        self.plan_probes(leader, 0, lasts, rng.bits());
        self.cut_from(from, lasts, paths);
    }

    fn cut_from(&mut self, from: u64, lasts: u64, paths: Vec<(usize, usize)>) {
        self.watch.partitions.push(Partition { paths, holds: false });
        let number = self.watch.partitions.len() as u64 - 1;
        self.at(from, Event::Cut(number));
        self.at(from + lasts, Event::Heal(number));
    }

    /// A leader that is cut off is asked all the time, while the others may have another: it must not answer.
    fn plan_probes(&mut self, leader: usize, after: u64, lasts: u64, salt: u64) {
        let timeout = self.knobs.raft.election_timeout_us;
        let rng = &mut Rng::new(salt, "probes");
        // Leases matter around one election timeout; a leader without one for longer.
        let each = if self.knobs.raft.leases { timeout / 60 } else { timeout / 20 };
        for part in 0..60 {
            let at = after + part * each;
            if at < lasts {
                self.after(at, Event::Probe(leader, rng.bits()));
            }
        }
    }

    pub(super) fn probe(&mut self, m: usize, salt: u64) -> Held {
        if self.settling.is_some() {
            return Ok(());
        }
        let rng = &mut Rng::new(salt, "probe");
        let (job, lists) =
            if rng.chance(300) { (Job::List, self.draw_readings(rng)) } else { (Job::Put, vec![]) };
        if lists.is_empty() {
            self.look(m, salt, None)?;
        } else {
            self.read_lists(m, lists, salt)?;
        }
        let client = rng.below(self.knobs.clients);
        let other = (m + 1 + rng.below(self.machines.len().max(2) as u64 - 1) as usize) % self.machines.len();
        if rng.chance(500) {
            return self.look(other, rng.bits(), None);
        }
        self.clients[client as usize].turn_to(other);
        self.act(client, job, rng.bits())
    }

    /// The paths that a partition cuts.
    fn split(&self, split: Split, rng: &mut Rng) -> Vec<(usize, usize)> {
        let count = self.machines.len();
        let any = rng.below(count as u64) as usize;
        let other = (any + 1 + rng.below(count.max(2) as u64 - 1) as usize) % count;
        let one = if split == Split::IsolateLeader { self.leader().unwrap_or(any) } else { any };
        let half: Vec<bool> = (0..count).map(|_| rng.chance(500)).collect();
        let random = rng.range(100, 700) as u32;
        let mut paths = Vec::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let cut = match split {
                    Split::Isolate | Split::IsolateLeader => from == one || to == one,
                    Split::Halves => half[from] != half[to],
                    Split::Mute => from == one,
                    Split::Deaf => to == one,
                    Split::Pair => (from, to) == (any, other) || (to, from) == (any, other),
                    Split::Bridge => from != one && to != one && half[from] != half[to],
                    Split::Random => rng.chance(random),
                };
                if cut {
                    paths.push((from, to));
                }
            }
        }
        paths
    }

    /// A partition begins.
    pub(super) fn cut_network(&mut self, number: u64) {
        if self.settling.is_some() {
            return;
        }
        let Some(partition) = self.watch.partitions.get_mut(number as usize) else { return };
        partition.holds = true;
        let paths = partition.paths.clone();
        self.say("net", format_args!("cut: {}", shown(&paths)));
        self.note(|| What::Cut { paths: paths.clone() });
        paths.into_iter().for_each(|(from, to)| self.network.cut(from, to, self.now));
    }

    /// A partition ends.
    pub(super) fn heal_network(&mut self, number: u64) {
        let Some(partition) = self.watch.partitions.get_mut(number as usize) else { return };
        if !std::mem::take(&mut partition.holds) {
            return;
        }
        let paths = std::mem::take(&mut partition.paths);
        self.say("net", format_args!("mended: {}", shown(&paths)));
        self.note(|| What::Mended { paths: paths.clone() });
        paths.into_iter().for_each(|(from, to)| self.network.mend(from, to));
    }

    pub(super) fn network_is_cut(&self) -> bool {
        self.watch.partitions.iter().any(|partition| partition.holds)
    }

    fn fault(&mut self, m: usize, fault: Fault, salt: u64) -> Held {
        match fault {
            Fault::Pause { lasts } => {
                if self.machines[m].up.is_some() && !self.solo() {
                    let machine = &mut self.machines[m];
                    machine.paused_until = machine.paused_until.max(self.now + lasts);
                    self.marks.hit(Mark::Paused);
                }
            }
            Fault::Wipe => self.wipe(m)?,
            Fault::Copy => self.copy(m),
            Fault::PutBack => self.put_back(m)?,
            Fault::Crash { end, moment, operations, down } => {
                let armed = ArmedCrash { end, moment, operations, down };
                if self.machines[m].up.is_none() || self.machines[m].ills.crash.is_some() {
                    return Ok(());
                }
                self.machines[m].ills.crash = Some(armed);
                if moment == Moment::Now {
                    return self.crash_armed(m);
                }
                // A node that does nothing with its disk crashes all the same.
                let run = self.machines[m].run;
                self.after(3_000_000, Event::CrashNow(m, run));
            }
            Fault::CrashAmidSnapshot { end, chunks, down } => {
                self.machines[m].ills.crash_amid_snapshot = Some((end, chunks, down));
            }
            Fault::Stop { down } => {
                if self.machines[m].up.is_some() {
                    self.give(m, Input::Stop);
                    self.drive(m)?;
                    self.end(m, End::Kill);
                    self.marks.hit(Mark::CleanRestart);
                    self.after(down, Event::Start(m));
                }
            }
            Fault::FailWrite => self.machines[m].ills.fail_write = true,
            Fault::FailCheckpoint => self.machines[m].ills.fail_checkpoint = true,
            Fault::Full { lasts } => {
                self.machines[m].ills.full = true;
                self.after(lasts, Event::SpaceReturns(m));
            }
            Fault::Slow { extra, lasts } => {
                self.machines[m].ills.slow_extra = extra;
                self.after(lasts, Event::DiskRecovers(m));
            }
            Fault::RotWal(rot) => self.rot_wal(m, rot, salt),
            Fault::RotStore => self.rot_store(m, salt),
            Fault::Jump { micros } => {
                self.machines[m].clock.jump(micros);
                self.wall_moved(m);
            }
            Fault::Freeze { lasts } => {
                if !std::mem::replace(&mut self.machines[m].ills.frozen, true) {
                    self.machines[m].clock.freeze(self.now);
                    self.marks.hit(Mark::ClockFroze);
                    self.after(lasts, Event::Thaw(m));
                }
                self.wall_moved(m);
            }
            Fault::Drift { ppm } => {
                self.truth.runs(self.now, ppm);
                self.machines[m].clock.set_drift(self.now, ppm);
            }
            Fault::Synchronised(synchronised) => {
                if synchronised && salt.is_multiple_of(2) {
                    self.machines[m].clock.correct(self.now);
                    self.machines[m].ills.frozen = false;
                    self.wall_moved(m);
                }
                self.machines[m].clock.synchronised = synchronised;
                self.give(m, Input::ClockSynchronised(synchronised));
            }
        }
        Ok(())
    }

    fn wall_moved(&mut self, m: usize) {
        self.machines[m].ills.wall_steady_since = self.now;
        self.machines[m].ills.well_since = self.now;
    }

    pub(super) fn thaw(&mut self, m: usize) {
        if std::mem::take(&mut self.machines[m].ills.frozen) {
            self.say(NAMES[m], format_args!("the wall clock goes on"));
            self.note(|| What::Recovered { node: m, what: "the wall clock" });
            self.machines[m].clock.thaw();
            self.wall_moved(m);
        }
    }

    pub(super) fn space_returns(&mut self, m: usize) {
        if std::mem::take(&mut self.machines[m].ills.full) {
            self.say(DISKS[m], format_args!("there is space again"));
            self.note(|| What::Recovered { node: m, what: "space on the disk" });
            self.machines[m].ills.well_since = self.now;
        }
    }

    pub(super) fn disk_recovers(&mut self, m: usize) {
        if std::mem::take(&mut self.machines[m].ills.slow_extra) > 0 {
            self.say(DISKS[m], format_args!("the disk is fast again"));
            self.note(|| What::Recovered { node: m, what: "the disk's speed" });
            self.machines[m].ills.well_since = self.now;
        }
    }

    /// Counts disk operations down to the armed crash. True if it comes with this one.
    pub(super) fn comes_to_crash(&mut self, m: usize) -> bool {
        if self.machines[m].ills.crash_operation {
            return false;
        }
        match &mut self.machines[m].ills.crash {
            Some(crash) if crash.operations == 0 => true,
            Some(crash) => {
                crash.operations -= 1;
                false
            }
            None => false,
        }
    }

    /// A chunk of a snapshot is being stored: the crash that waits for it may be armed.
    pub(super) fn arm_crash_amid_snapshot(&mut self, m: usize) {
        let ills = &mut self.machines[m].ills;
        match &mut ills.crash_amid_snapshot {
            Some((end, 0, down)) if ills.crash.is_none() => {
                let (end, down) = (*end, *down);
                let moment = Moment::During;
                ills.crash = Some(ArmedCrash { end, moment, operations: 0, down });
                ills.crash_amid_snapshot = None;
            }
            Some((_, chunks, _)) => *chunks = chunks.saturating_sub(1),
            None => {}
        }
    }

    /// The armed crash happens.
    pub(super) fn crash_armed(&mut self, m: usize) -> Held {
        let Some(crash) = self.machines[m].ills.crash.take() else { return Ok(()) };
        self.end(m, crash.end);
        self.after(crash.down, Event::Start(m));
        Ok(())
    }

    /// The process is gone.
    pub(super) fn end(&mut self, m: usize, end: End) {
        self.replay(m);
        let Some(up) = self.machines[m].up.take() else { return };
        self.say(NAMES[m], format_args!("the process ends: {end:?}"));
        self.note(|| What::Ended { node: m, end });
        if !up.proven {
            self.marks.hit(Mark::CrashInRecovery);
        }
        self.machines[m].ills.crash = None;
        self.machines[m].ills.crash_operation = false;
        self.machines[m].ills.crashes += 1;
        self.machines[m].ills.well_since = self.now;
        if end == End::Power {
            let survival = Survival::draw(&mut self.disk_rng);
            let lost = self.machines[m].disk.power_cut(survival, &mut self.disk_rng);
            self.say(DISKS[m], format_args!("power cut, unsynced sectors: {survival:?}, lost={lost}"));
            self.machines[m].clock.reboot(self.now);
            self.machines[m].ills.power_was_cut = true;
        }
        // A run ends with its process: what it had under way is nobody's.
        self.machines[m].run += 1;
        self.machines[m].paused_until = 0;
        if std::mem::take(&mut self.machines[m].receiving) {
            self.marks.hit(Mark::CrashWhileInstalling);
        }
        self.group.ended(m);
        self.links_lost(m);
        self.readers_lost(m);
    }

    // Rot

    fn rot_wal(&mut self, m: usize, rot: Rot, salt: u64) {
        // The weak modes do not say what is durable, so damage of their tail cannot be told from a torn one.
        let weak = self.knobs.fsync != chronos_engine::node::Fsync::Always;
        if self.machines[m].up.is_none() || self.machines[m].ills.rotten_wal.is_some() || weak {
            return;
        }
        self.end(m, End::Kill);
        self.after(100_000, Event::Start(m));
        let rng = &mut Rng::new(salt, "rot");
        let synced: Vec<Written> =
            self.machines[m].ills.writes.iter().filter(|w| w.synced).copied().collect();
        // What the newest write says of itself is proven by the ones behind it alone: docs/FORMAT.md states the gap.
        let proven = &synced[..synced.len().saturating_sub(3)];
        // A segment's header stands for what the segment holds.
        let holds = |segment| proven.iter().any(|w| w.segment == segment && w.offset > 0);
        let targets: Vec<&Written> = proven.iter().filter(|w| w.offset > 0 || holds(w.segment)).collect();
        if targets.is_empty() {
            return;
        }
        let target = **rng.pick(&targets);
        let start = target.offset as usize;
        let disk = &mut self.machines[m].disk;
        let Some(good) = disk.on_medium(target.segment, start, target.length).map(<[u8]>::to_vec) else {
            return;
        };
        let mut found = good.clone();
        match rot {
            Rot::Bit => found[rng.below(target.length as u64) as usize] ^= 1 << rng.below(8),
            Rot::Lost => found.fill(0),
            Rot::Misdirected => {
                let other = **rng.pick(&targets);
                let length = other.length.min(target.length);
                if let Some(bytes) = disk.on_medium(other.segment, other.offset as usize, length) {
                    found[..length].copy_from_slice(bytes);
                }
            }
        }
        if found == good {
            return;
        }
        disk.overwrite(target.segment, start, &found);
        self.machines[m].ills.rotten_wal = Some((target.segment, start, good));
        self.marks.hit(match rot {
            Rot::Bit => Mark::WalBitFlipped,
            Rot::Lost => Mark::WriteLost,
            Rot::Misdirected => Mark::WriteMisdirected,
        });
        let (run, write, length) = (target.run, target.write.0, target.length);
        self.say(
            DISKS[m],
            format_args!(
                "run {run} write {write} rots ({rot:?}): {length} bytes at {start} (sector {}) of {}",
                start / SECTOR,
                target.segment
            ),
        );
    }

    fn rot_store(&mut self, m: usize, salt: u64) {
        if self.machines[m].up.is_none() || self.machines[m].ills.rotten_store.is_some() {
            return;
        }
        self.end(m, End::Kill);
        self.after(100_000, Event::Start(m));
        let Some((rotten, key)) = self.machines[m].store.rotten(&mut Rng::new(salt, "rot")) else { return };
        self.say(DISKS[m], format_args!("a bit of the value under {key:02x?} rots"));
        self.machines[m].store = rotten;
        self.machines[m].shared = Arc::new(self.machines[m].store.clone());
        self.machines[m].ills.rotten_store = Some(key);
    }

    /// An operator puts a good copy back.
    fn repair(&mut self, m: usize) {
        if let Some((segment, at, good)) = self.machines[m].ills.rotten_wal.take() {
            self.machines[m].disk.overwrite(segment, at, &good);
        }
        if self.machines[m].ills.rotten_store.take().is_some() {
            self.machines[m].store.repair();
            self.machines[m].shared = Arc::new(self.machines[m].store.clone());
        }
    }

    /// The node refuses what it finds. That is right if something did rot, and only then.
    pub(super) fn damaged(&mut self, m: usize, wal: bool, what: &str) -> Held {
        self.say(NAMES[m], format_args!("refuses: {what}"));
        let rotten = if wal {
            self.machines[m].ills.rotten_wal.is_some()
        } else {
            self.machines[m].ills.rotten_store.is_some()
        };
        // Damage of the log may show only when the state is put together.
        if !rotten && (wal || self.machines[m].ills.rotten_wal.is_none()) {
            return Err(Violation::safety("no-false-alarm", format!("nothing was damaged: {what}")));
        }
        self.marks.hit(if wal { Mark::DamagedLogRefused } else { Mark::DamagedValueRefused });
        self.repair(m);
        self.after(50_000, Event::Start(m));
        Ok(())
    }

    /// A reader met damage: the operator stops the node, puts a good copy back and starts it again.
    pub(super) fn damage_read(&mut self, m: usize, what: &str) -> Held {
        self.end(m, End::Kill);
        self.damaged(m, false, what)
    }

    /// Faults stop on one machine, and what is broken is mended.
    pub(super) fn heal(&mut self, m: usize) {
        if !self.machines[m].ills.crash_operation {
            self.machines[m].ills.crash = None;
        }
        self.machines[m].ills.crash_amid_snapshot = None;
        self.machines[m].ills.fail_write = false;
        self.machines[m].ills.fail_checkpoint = false;
        self.machines[m].paused_until = 0;
        self.space_returns(m);
        self.disk_recovers(m);
        self.thaw(m);
        if self.machines[m].ills.rotten_store.is_some() {
            // The node would go on reading its old view: it is restarted on the good copy.
            self.end(m, End::Kill);
        }
        self.repair(m);
        if self.machines[m].up.is_none() {
            self.after(0, Event::Start(m));
        }
    }
}
