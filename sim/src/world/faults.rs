//! What goes wrong, and how it is put right again.

use super::{Event, World};
use crate::disk::{SECTOR, Survival};
use crate::marks::Mark;
use crate::plan::{Act, End, Fault, Moment};
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

/// Everything that is wrong at the moment.
#[derive(Debug, Default)]
pub(super) struct Ills {
    pub(super) crash: Option<ArmedCrash>,
    /// The operation that it waited for is under way.
    pub(super) crash_operation: bool,
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
    rotten_wal: Option<(SegmentId, usize, u8)>,
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
                self.give(Input::Checkpoint);
                Ok(())
            }
            Act::Fault(fault) => {
                self.say("world", format_args!("#{} {}", planned.number, planned.act));
                self.fault(fault, planned.salt)
            }
        }
    }

    fn fault(&mut self, fault: Fault, salt: u64) -> Held {
        match fault {
            Fault::Crash { end, moment, operations, down } => {
                let armed = ArmedCrash { end, moment, operations, down };
                if self.up.is_none() || self.ills.crash.is_some() {
                    return Ok(());
                }
                self.ills.crash = Some(armed);
                if moment == Moment::Now {
                    return self.crash_armed();
                }
                // A node that does nothing with its disk crashes all the same.
                let run = self.run;
                self.after(3_000_000, Event::CrashNow(run));
            }
            Fault::Stop { down } => {
                if self.up.is_some() {
                    self.give(Input::Stop);
                    self.drive()?;
                    self.end(End::Kill);
                    self.marks.hit(Mark::CleanRestart);
                    self.after(down, Event::Start);
                }
            }
            Fault::FailWrite => self.ills.fail_write = true,
            Fault::FailCheckpoint => self.ills.fail_checkpoint = true,
            Fault::Full { lasts } => {
                self.ills.full = true;
                self.after(lasts, Event::SpaceReturns);
            }
            Fault::Slow { extra, lasts } => {
                self.ills.slow_extra = extra;
                self.after(lasts, Event::DiskRecovers);
            }
            Fault::RotWal => self.rot_wal(salt),
            Fault::RotStore => self.rot_store(salt),
            Fault::Jump { micros } => {
                self.clock.jump(micros);
                self.wall_moved();
            }
            Fault::Freeze { lasts } => {
                if !std::mem::replace(&mut self.ills.frozen, true) {
                    self.clock.freeze(self.now);
                    self.marks.hit(Mark::ClockFroze);
                    self.after(lasts, Event::Thaw);
                }
                self.wall_moved();
            }
            Fault::Drift { ppm } => self.clock.set_drift(self.now, ppm),
            Fault::Synchronised(synchronised) => {
                if synchronised && salt.is_multiple_of(2) {
                    self.clock.correct(self.now);
                    self.ills.frozen = false;
                    self.wall_moved();
                }
                self.clock.synchronised = synchronised;
                self.give(Input::ClockSynchronised(synchronised));
            }
        }
        Ok(())
    }

    fn wall_moved(&mut self) {
        self.ills.wall_steady_since = self.now;
        self.ills.well_since = self.now;
    }

    pub(super) fn thaw(&mut self) {
        if std::mem::take(&mut self.ills.frozen) {
            self.say("world", format_args!("the wall clock goes on"));
            self.clock.thaw();
            self.wall_moved();
        }
    }

    pub(super) fn space_returns(&mut self) {
        if std::mem::take(&mut self.ills.full) {
            self.say("world", format_args!("there is space again"));
            self.ills.well_since = self.now;
        }
    }

    pub(super) fn disk_recovers(&mut self) {
        if std::mem::take(&mut self.ills.slow_extra) > 0 {
            self.say("world", format_args!("the disk is fast again"));
            self.ills.well_since = self.now;
        }
    }

    /// Counts disk operations down to the armed crash. True if it comes with this one.
    pub(super) fn comes_to_crash(&mut self) -> bool {
        if self.ills.crash_operation {
            return false;
        }
        match &mut self.ills.crash {
            Some(crash) if crash.operations == 0 => true,
            Some(crash) => {
                crash.operations -= 1;
                false
            }
            None => false,
        }
    }

    /// The armed crash happens.
    pub(super) fn crash_armed(&mut self) -> Held {
        let Some(crash) = self.ills.crash.take() else { return Ok(()) };
        self.end(crash.end);
        self.after(crash.down, Event::Start);
        Ok(())
    }

    /// The process is gone.
    pub(super) fn end(&mut self, end: End) {
        let Some(up) = self.up.take() else { return };
        self.say("world", format_args!("the process ends: {end:?}"));
        if !up.proven {
            self.marks.hit(Mark::CrashInRecovery);
        }
        self.ills.crash = None;
        self.ills.crash_operation = false;
        self.ills.crashes += 1;
        self.ills.well_since = self.now;
        if end == End::Power {
            let survival = Survival::draw(&mut self.disk_rng);
            let lost = self.disk.power_cut(survival, &mut self.disk_rng);
            self.say("disk", format_args!("power cut, unsynced sectors: {survival:?}, lost={lost}"));
            self.clock.reboot(self.now);
            self.ills.power_was_cut = true;
        }
        // A run ends with its process: what it had under way is nobody's.
        self.run += 1;
        self.readers_lost();
    }

    // Rot

    fn rot_wal(&mut self, salt: u64) {
        // The weak modes do not say what is durable, so damage of their tail cannot be told from a torn one.
        let weak = self.knobs.fsync != chronos_engine::node::Fsync::Always;
        if self.up.is_none() || self.ills.rotten_wal.is_some() || weak {
            return;
        }
        self.end(End::Kill);
        self.after(100_000, Event::Start);
        let rng = &mut Rng::new(salt, "rot");
        let synced: Vec<Written> = self.ills.writes.iter().filter(|w| w.synced).copied().collect();
        // What the newest write says of itself is proven by the ones behind it alone: docs/FORMAT.md states the gap.
        let proven = &synced[..synced.len().saturating_sub(3)];
        // A segment's header stands for what the segment holds.
        let holds = |segment| proven.iter().any(|w| w.segment == segment && w.offset > 0);
        let targets: Vec<&Written> = proven.iter().filter(|w| w.offset > 0 || holds(w.segment)).collect();
        if targets.is_empty() {
            return;
        }
        let target = **rng.pick(&targets);
        let at = target.offset as usize + rng.below(target.length as u64) as usize;
        let bit = rng.below(8) as u8;
        self.disk.flip(target.segment, at, bit);
        self.ills.rotten_wal = Some((target.segment, at, bit));
        let (run, write) = (target.run, target.write.0);
        self.say(
            "disk",
            format_args!(
                "bit {bit} of byte {at} (sector {}) of {} rots: run {run} write {write}",
                at / SECTOR,
                target.segment
            ),
        );
    }

    fn rot_store(&mut self, salt: u64) {
        if self.up.is_none() || self.ills.rotten_store.is_some() {
            return;
        }
        self.end(End::Kill);
        self.after(100_000, Event::Start);
        let Some((rotten, key)) = self.store.rotten(&mut Rng::new(salt, "rot")) else { return };
        self.say("disk", format_args!("a bit of the value under {key:02x?} rots"));
        self.store = rotten;
        self.shared = Arc::new(self.store.clone());
        self.ills.rotten_store = Some(key);
    }

    /// An operator puts a good copy back.
    fn repair(&mut self) {
        if let Some((segment, at, bit)) = self.ills.rotten_wal.take() {
            self.disk.flip(segment, at, bit);
        }
        if self.ills.rotten_store.take().is_some() {
            self.store.repair();
            self.shared = Arc::new(self.store.clone());
        }
    }

    /// The node refuses what it finds. That is right if something did rot, and only then.
    pub(super) fn damaged(&mut self, wal: bool, what: &str) -> Held {
        self.say("n1", format_args!("refuses: {what}"));
        let rotten = if wal { self.ills.rotten_wal.is_some() } else { self.ills.rotten_store.is_some() };
        // Damage of the log may show only when the state is put together.
        if !rotten && (wal || self.ills.rotten_wal.is_none()) {
            return Err(Violation::safety("no-false-alarm", format!("nothing was damaged: {what}")));
        }
        self.marks.hit(if wal { Mark::DamagedLogRefused } else { Mark::DamagedValueRefused });
        self.repair();
        self.after(50_000, Event::Start);
        Ok(())
    }

    /// A reader met damage: the operator stops the node, puts a good copy back and starts it again.
    pub(super) fn damage_read(&mut self, what: &str) -> Held {
        self.end(End::Kill);
        self.damaged(false, what)
    }

    /// Faults stop, and what is broken is mended.
    pub(super) fn heal(&mut self) {
        if !self.ills.crash_operation {
            self.ills.crash = None;
        }
        self.ills.fail_write = false;
        self.ills.fail_checkpoint = false;
        self.space_returns();
        self.disk_recovers();
        self.thaw();
        if self.ills.rotten_store.is_some() {
            // The node would go on reading its old view: it is restarted on the good copy.
            self.end(End::Kill);
        }
        self.repair();
        if self.up.is_none() {
            self.after(0, Event::Start);
        }
    }
}
