//! Checkpoints: when the overlay is frozen, what waits for it, and what may go once it is durable.
//!
//! At most one overlay is frozen. The WAL is kept back to the checkpoint before the last, so that the newest one can
//! be found damaged and there is still a way to rebuild. Four times what lies between two checkpoints is room for that;
//! where it is not, since a checkpoint took long, writes are refused until it is done, the log is given up to the newest
//! one, and what a group cannot commit is appended again.

use super::snapshots::StoreWork;
use super::{Config, Fsync, Node};
use crate::bugs::{self, Bug};
use crate::step::{Action, Checkpoint, CheckpointId, Fatal, GroupCheckpoint, Outputs, Trace};
use crate::store::SharedStore;
use crate::wal::{Compacted, Record};
use chronos_proto::id::{GroupId, Index};
use chronos_proto::raft::LogId;
use chronos_proto::time::Instant;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The WAL is kept back to the checkpoint before the last, goes on while one is under way, and goes by whole segments.
const CHECKPOINTS_IN_WAL: u64 = 4;

/// The state of checkpointing.
#[derive(Serialize, Deserialize)]
pub(super) struct Checkpoints {
    pub(super) wanted: bool,
    next: u64,
    last_at: Instant,
    #[serde(skip)]
    running: Option<Checkpoint>,
    /// What the running one is for, if it is not a checkpoint of the state.
    #[serde(skip)]
    work: Option<StoreWork>,
    retry_at: Option<Instant>,
    /// What the WAL had written when the last checkpoint began.
    written_before: u64,
    /// How often the WAL was given up to the newest checkpoint.
    pub(super) shortened: u64,
    /// What the last durable checkpoint holds.
    durable: Vec<(GroupId, Compacted)>,
}

impl Checkpoints {
    /// `durable` is what the store holds already.
    pub(super) fn new(now: Instant, durable: Vec<(GroupId, Compacted)>) -> Checkpoints {
        Checkpoints {
            wanted: false,
            next: 1,
            last_at: now,
            running: None,
            work: None,
            retry_at: None,
            written_before: 0,
            shortened: 0,
            durable,
        }
    }

    /// There was no space for it.
    pub(super) fn full(&mut self, id: CheckpointId, retry_at: Instant) {
        if self.running.as_ref().is_some_and(|running| running.id == id) {
            self.retry_at = Some(retry_at);
        }
    }

    /// The store has a group's state at a later index, by a snapshot.
    pub(super) fn installed(&mut self, group: GroupId, last: LogId) {
        self.durable.retain(|(id, _)| *id != group);
        self.durable.push((group, Compacted { index: last.index, term: last.term }));
    }

    /// Whether the store is asked for nothing now.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none()
    }

    pub(super) fn is_full(&self) -> bool {
        self.retry_at.is_some()
    }

    /// Whether a checkpoint of the state is under way, which lets parts of the WAL go once it is done.
    fn makes_room(&self) -> bool {
        self.running.is_some() && self.work.is_none()
    }

    /// The checkpoint to try again, if it is time.
    pub(super) fn retry(&mut self, now: Instant) -> Option<Checkpoint> {
        self.retry_at.take_if(|at| now >= *at)?;
        self.running.clone()
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        match self.running {
            Some(_) => self.retry_at,
            None => Some(self.last_at + Duration::from_micros(config.checkpoint_interval_us)),
        }
    }
}

impl Node {
    /// WAL bytes since the last checkpoint began.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.wal.written() - self.checkpoints.written_before
    }

    /// The WAL has all the bytes it may, and will have fewer once the running checkpoint is done.
    pub(super) fn log_is_full(&self) -> bool {
        self.checkpoints.makes_room() && self.wal.kept() > self.config.wal_max_bytes
    }

    pub(super) fn checkpoint_due(&self) -> bool {
        let checkpoints = &self.checkpoints;
        let config = &self.config;
        let age = self.now.mono.micros_since(checkpoints.last_at);
        let overlay: usize = self.groups.values().map(|g| g.state.overlay_bytes()).sum();
        checkpoints.running.is_none()
            && (checkpoints.wanted
                || self.wal_bytes()
                    >= config.checkpoint_wal_bytes.min(config.wal_max_bytes / CHECKPOINTS_IN_WAL)
                || overlay >= config.overlay_max_bytes / 2
                || age >= config.checkpoint_interval_us)
    }

    pub(super) fn begin_checkpoint(&mut self, out: &mut Outputs) {
        self.checkpoints.wanted = false;
        self.checkpoints.last_at = self.now.mono;
        let moved = |group: &super::Group| {
            let last = self.checkpoints.durable.iter().find(|(id, _)| *id == group.raft.group());
            last.is_none_or(|(_, held)| held.index < group.state.applied)
        };
        if !self.groups.values().any(moved) {
            return;
        }
        // The store is never ahead of the WAL: in the weak modes what is applied may not be synced yet.
        let mut synced = None;
        if self.config.fsync != Fsync::Always && self.wal.is_unsynced() {
            let anchor = self.clock.anchor(self.now.mono);
            synced = self.wal_ops(out, |wal, ops| wal.sync_now(anchor, ops));
            if synced.is_none() {
                // A write is under way: again when it is done.
                self.checkpoints.wanted = true;
                return;
            }
        }
        let groups: Vec<GroupCheckpoint> =
            self.groups.values_mut().filter_map(|group| group.state.freeze()).collect();
        if bugs::active(Bug::CompactTooEarly) {
            for part in &groups {
                self.append(
                    part.group,
                    &Record::Compacted(Compacted { index: part.applied, term: part.term }),
                );
            }
        }
        self.checkpoints.written_before = self.wal.written();
        self.publish_all();
        self.write_store(groups, None, synced, out);
    }

    fn write_store(
        &mut self,
        groups: Vec<GroupCheckpoint>,
        work: Option<StoreWork>,
        after: Option<crate::wal::WriteId>,
        out: &mut Outputs,
    ) {
        let id = CheckpointId(self.checkpoints.next);
        self.checkpoints.next += 1;
        let checkpoint = Checkpoint { id, groups };
        self.checkpoints.running = Some(checkpoint.clone());
        self.checkpoints.work = work;
        out.now(Action::Trace(Trace::Checkpoint { id, done: false }));
        out.after(after, Action::Checkpoint(checkpoint));
    }

    /// Parts of snapshots and what is to be swept, between checkpoints.
    pub(super) fn begin_store_work(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        if self.checkpoints.is_idle()
            && let Some((work, part)) = self.next_store_work(store)?
        {
            self.write_store(vec![part], Some(work), None, out);
        }
        Ok(())
    }

    pub(super) fn checkpoint_durable(
        &mut self,
        id: CheckpointId,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        let Some(done) = self.checkpoints.running.take_if(|running| running.id == id) else { return Ok(()) };
        self.checkpoints.retry_at = None;
        out.now(Action::Trace(Trace::Checkpoint { id, done: true }));
        if let Some(work) = self.checkpoints.work.take() {
            return match done.groups.first() {
                Some(part) => self.store_work_done(work, part, store, out),
                None => Ok(()),
            };
        }
        for group in self.groups.values_mut() {
            group.state.thaw();
        }
        let held: Vec<(GroupId, Compacted)> =
            done.groups.iter().map(|g| (g.group, Compacted { index: g.applied, term: g.term })).collect();
        let before = std::mem::replace(&mut self.checkpoints.durable, held.clone());
        let is_over = self.wal.kept() > self.config.wal_max_bytes;
        for (group, mark) in if is_over { held } else { before } {
            if mark.index > self.wal.compacted(group).index {
                self.append(group, &Record::Compacted(mark));
            }
        }
        if is_over {
            self.checkpoints.shortened += 1;
            self.append_stuck_again();
        }
        self.publish_all();
        Ok(())
    }

    /// Entries that a group had before a checkpoint and has not committed after it keep segments that nothing else needs:
    /// they move to the end of the log.
    fn append_stuck_again(&mut self) {
        for (id, group) in &self.groups {
            let Some(from) = self.wal.pinned_from(*id).filter(|from| *from == group.state.applied.next())
            else {
                continue;
            };
            let log = group.raft.log();
            let last = self.wal.last(*id);
            let tail: Vec<_> = (from.0..=last.0).map_while(|index| log.get(Index(index))).collect();
            let bytes: usize = tail.iter().map(|entry| entry.command.bytes()).sum();
            let fits = bytes as u64 <= self.config.wal_max_bytes / CHECKPOINTS_IN_WAL;
            // What Raft has truncated and not yet said may be missing; then the next checkpoint looks again.
            if fits && tail.len() as u64 == last.0 + 1 - from.0 {
                self.wal.append_again(*id, tail);
            }
        }
    }
}
