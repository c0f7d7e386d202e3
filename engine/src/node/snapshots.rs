//! Snapshots for followers that are behind the log.
//!
//! ```text
//! leader                                             follower
//!   the state at its applied index, key by key         generation live+1 in the store
//!     Chunk 0, 1, 2 … (a window of them)  ──────────>    each one store write, durable
//!     <──────────────  ChunkReply { next }               what it wants next: also after a link was lost
//!     Chunk n, ends   ──────────────────────────────>    all there, checksum right: Raft is told, and one small
//!                                                        write makes the generation live at its applied index
//!                                                        then the log begins anew behind it
//! ```
//!
//! A crash before the small write leaves the old state and keys that nobody reads; after it, the new one. The state
//! remembers that it began as a snapshot, so that a log that ends before it is known for what it is.
//!
//! Not implemented: spooling to a file (the leader pins a view of its store while it sends); going on after a restart
//! of the receiver (it begins again).

use super::Node;
use crate::bugs::{self, Bug};
use crate::keys;
use crate::state::overlay::Layer;
use crate::state::snapshot::Snapshot;
use crate::state::{ReadError, State};
use crate::step::{Action, Fatal, GroupCheckpoint, Outputs, Trace};
use crate::store::{Pin, SharedStore};
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Configuration;
use chronos_proto::peer::{Chunk, PeerMessage};
use chronos_proto::raft::{LogId, Message};
use chronos_proto::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

/// Bytes of keys and values in one chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks under way.
const WINDOW: u64 = 8;
/// Without an answer for so long, what is under way is sent again.
const CHUNK_RETRY: Duration = Duration::from_millis(500);
/// Without an answer for so long, the snapshot is given up.
const CHUNK_PATIENCE: Duration = Duration::from_secs(10);
/// Keys deleted by one store write.
const SWEEP_SLICE: usize = 4_096;

/// A snapshot on its way to a follower.
pub(super) struct Sending {
    snapshot: Snapshot,
    /// Sending may take longer than views are kept for other readers.
    _pin: Option<Pin>,
    last: LogId,
    configuration: Configuration,
    /// Where the next new chunk begins.
    from: Bytes,
    /// The checksum of all chunks made so far.
    checksum: u32,
    /// The number of the next new chunk, and the first that is not acknowledged.
    next: u64,
    acknowledged: u64,
    /// Chunks that are not acknowledged.
    window: VecDeque<Chunk>,
    ended: bool,
    sent_at: Instant,
    heard_at: Instant,
}

/// A snapshot that comes in.
#[derive(Serialize, Deserialize)]
pub(super) struct Receiving {
    from: NodeId,
    last: LogId,
    time: Timestamp,
    generation: u32,
    /// The next chunk wanted, and the checksum of those before it.
    next: u64,
    checksum: u32,
    /// Chunks whose store write is under way or waits.
    storing: u64,
    ended: bool,
}

/// What the store is asked for besides checkpoints, one at a time.
pub(super) enum StoreWork {
    /// A part of an incoming state.
    Chunk { from: NodeId, last: LogId },
    /// The incoming state becomes the live one.
    Flip { last: LogId, configuration: Configuration, time: Timestamp },
    /// Keys of generations that are not live go.
    Sweep,
}

/// Snapshots of one node, and the store writes that wait for their turn.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Snapshots {
    #[serde(skip)]
    pub(super) sending: BTreeMap<(GroupId, NodeId), Sending>,
    pub(super) receiving: BTreeMap<GroupId, Receiving>,
    #[serde(skip)]
    pub(super) queue: VecDeque<(StoreWork, GroupCheckpoint)>,
    /// Groups whose store may hold keys of generations that are not live.
    pub(super) sweep: VecDeque<GroupId>,
    /// The last generation that was given to an incoming state: its first part may still be on its way to the store.
    generations: BTreeMap<GroupId, u32>,
}

impl Snapshots {
    /// Nothing is on its way to or from the store.
    pub(super) fn is_idle(&self) -> bool {
        self.sending.is_empty() && self.queue.is_empty()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.sending.values().map(Sending::retry_at).min()
    }
}

impl Node {
    // The leader's half

    /// Raft wants a follower to get the state.
    pub(super) fn send_snapshot(&mut self, id: GroupId, to: NodeId, store: &SharedStore, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let configuration = group.state.membership().cloned();
        let (Some(configuration), true) = (configuration, self.links.contains_key(&to)) else {
            // It is logged as soon as this leader may.
            group.raft.snapshot_sent(to, None);
            return;
        };
        let last = LogId { term: group.state.applied_term, index: group.state.applied };
        let sending = Sending {
            snapshot: group.state.portable(store),
            _pin: store.clone().pin(),
            last,
            configuration,
            from: Bytes::from_static(&[keys::tag::GROUP]),
            checksum: 0,
            next: 0,
            acknowledged: 0,
            window: VecDeque::new(),
            ended: false,
            sent_at: self.now.mono,
            heard_at: self.now.mono,
        };
        self.snapshots.sending.insert((id, to), sending);
        out.now(Action::Trace(Trace::SnapshotSent { group: id, to, index: last.index, done: false }));
        if let Err(error) = self.send_chunks(id, to, out) {
            self.give_up_sending(id, to, out, &error.to_string());
        }
    }

    fn send_chunks(&mut self, id: GroupId, to: NodeId, out: &mut Outputs) -> Result<(), ReadError> {
        let term = self.groups.get(&id).map(|group| group.raft.term()).unwrap_or_default();
        let Some(sending) = self.snapshots.sending.get_mut(&(id, to)) else { return Ok(()) };
        while !sending.ended && sending.next < sending.acknowledged + WINDOW {
            let chunk = sending.make(id, term)?;
            sending.sent_at = self.now.mono;
            out.now(Action::Send { to, message: PeerMessage::Chunk(chunk.clone()) });
            sending.window.push_back(chunk);
        }
        Ok(())
    }

    /// The follower says what it wants next.
    pub(super) fn chunk_answered(
        &mut self,
        from: NodeId,
        id: GroupId,
        last: LogId,
        next: u64,
        done: bool,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        let Some(sending) = self.snapshots.sending.get_mut(&(id, from)).filter(|s| s.last == last) else {
            return Ok(());
        };
        sending.heard_at = self.now.mono;
        if done {
            self.end_sending(id, from, Some(last), out);
            return Ok(());
        }
        if next == 0 && sending.acknowledged > 0 || next > sending.next {
            // It lost what it had, with its process: from the beginning.
            self.end_sending(id, from, None, out);
            return Ok(());
        }
        // An answer to a chunk that was sent twice tells nothing new.
        sending.acknowledged = sending.acknowledged.max(next);
        let next = sending.acknowledged;
        while sending.window.front().is_some_and(|chunk| chunk.number < next) {
            sending.window.pop_front();
        }
        if let Err(error) = self.send_chunks(id, from, out) {
            self.give_up_sending(id, from, out, &error.to_string());
        }
        Ok(())
    }

    fn end_sending(&mut self, id: GroupId, to: NodeId, last: Option<LogId>, out: &mut Outputs) {
        let Some(sending) = self.snapshots.sending.remove(&(id, to)) else { return };
        let (index, done) = (sending.last.index, last.is_some());
        out.now(Action::Trace(Trace::SnapshotSent { group: id, to, index, done }));
        if done && let Some(group) = self.groups.get(&id) {
            // The state is there; Raft's own word follows it.
            let term = group.raft.term();
            let message =
                Message::Snapshot { term, last: sending.last, configuration: sending.configuration };
            self.send_raft(id, to, message, out);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.raft.snapshot_sent(to, last);
            self.dirty.insert(id);
        }
    }

    fn give_up_sending(&mut self, id: GroupId, to: NodeId, out: &mut Outputs, why: &str) {
        out.now(Action::Trace(Trace::PeerRefused {
            peer: to,
            why: format!("its snapshot was given up: {why}"),
        }));
        self.end_sending(id, to, None, out);
    }

    /// This node does not lead the group any more.
    pub(super) fn stop_sending(&mut self, id: GroupId) {
        self.snapshots.sending.retain(|(group, _), _| *group != id);
    }

    pub(super) fn tick_snapshots(&mut self, out: &mut Outputs) {
        let now = self.now.mono;
        let due: Vec<(GroupId, NodeId)> = self
            .snapshots
            .sending
            .iter()
            .filter(|(_, sending)| now >= sending.retry_at())
            .map(|(key, _)| *key)
            .collect();
        for (id, to) in due {
            let Some(sending) = self.snapshots.sending.get_mut(&(id, to)) else { continue };
            if now >= sending.heard_at + CHUNK_PATIENCE {
                self.give_up_sending(id, to, out, "no answer came");
                continue;
            }
            sending.sent_at = now;
            for chunk in &sending.window {
                out.now(Action::Send { to, message: PeerMessage::Chunk(chunk.clone()) });
            }
        }
    }

    // The follower's half

    /// A part of a state arrives.
    pub(super) fn chunk(
        &mut self,
        from: NodeId,
        chunk: Chunk,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        let id = chunk.group;
        let Some(group) = self.groups.get(&id) else { return Ok(()) };
        let last = chunk.last;
        let reply = |next, done| {
            let message = PeerMessage::ChunkReply { group: id, last, next, done };
            Action::Send { to: from, message }
        };
        if chunk.term < group.raft.term() {
            return Ok(());
        }
        if last.index <= group.raft.committed() {
            self.snapshots.receiving.remove(&id);
            out.now(reply(0, true));
            return Ok(());
        }
        let known = self.snapshots.receiving.get(&id).is_some_and(|r| r.last == last && r.from == from);
        if !known {
            let flipping = self
                .snapshots
                .queue
                .iter()
                .any(|(work, part)| part.group == id && matches!(work, StoreWork::Flip { .. }));
            if chunk.number > 0 || flipping || self.flipping == Some(id) {
                out.now(reply(0, false));
                return Ok(());
            }
            let generation = self.free_generation(id, store)?;
            self.snapshots
                .queue
                .retain(|(work, part)| part.group != id || !matches!(work, StoreWork::Chunk { .. }));
            let receiving = Receiving {
                from,
                last,
                time: chunk.time,
                generation,
                next: 0,
                checksum: 0,
                storing: 0,
                ended: false,
            };
            self.snapshots.receiving.insert(id, receiving);
        }
        let Some(receiving) = self.snapshots.receiving.get_mut(&id) else { return Ok(()) };
        if chunk.number != receiving.next || receiving.storing >= WINDOW {
            // Word that all of it is there may have been lost.
            let whole = receiving.ended && receiving.storing == 0;
            out.now(reply(receiving.next - receiving.storing, whole));
            return Ok(());
        }
        let checksum = extend(receiving.checksum, &chunk.entries);
        if checksum != chunk.checksum {
            // Not what was sent: all of it again.
            self.snapshots.receiving.remove(&id);
            out.now(reply(u64::MAX, false));
            return Ok(());
        }
        receiving.checksum = checksum;
        receiving.next += 1;
        receiving.storing += 1;
        receiving.ended = chunk.ends;
        let layer: Layer = chunk.entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let part = GroupCheckpoint {
            group: id,
            generation: receiving.generation,
            applied: last.index,
            term: last.term,
            layer,
            root: None,
        };
        self.snapshots.queue.push_back((StoreWork::Chunk { from, last }, part));
        Ok(())
    }

    /// A generation that the store has no key of, and will have none of but this state's.
    fn free_generation(&mut self, id: GroupId, store: &SharedStore) -> Result<u32, Fatal> {
        let live = self.groups.get(&id).map_or(0, |group| group.state.generation());
        let mut found = Vec::new();
        let from = keys::store_key(id, live + 1, &[]);
        let to = keys::store_key(GroupId(id.0 + 1), 0, &[]);
        store
            .scan(Bound::Included(&from), Bound::Excluded(&to), true, 1, &mut found)
            .map_err(|error| Fatal::StateDamaged(error.to_string()))?;
        let greatest = found.first().and_then(|(key, _)| keys::store_generation(key)).unwrap_or(live);
        let given = self.snapshots.generations.entry(id).or_default();
        *given = greatest.max(live).max(*given) + 1;
        Ok(*given)
    }

    /// A store write that was not a checkpoint is durable. `store` shows it.
    pub(super) fn store_work_done(
        &mut self,
        work: StoreWork,
        part: &GroupCheckpoint,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        let id = part.group;
        match work {
            StoreWork::Chunk { from, last } => {
                let Some(receiving) = self.snapshots.receiving.get_mut(&id) else { return Ok(()) };
                if receiving.last != last || receiving.from != from {
                    return Ok(());
                }
                receiving.storing -= 1;
                let whole = receiving.ended && receiving.storing == 0;
                let next = receiving.next - receiving.storing;
                let message = PeerMessage::ChunkReply { group: id, last, next, done: whole };
                out.now(Action::Send { to: from, message });
            }
            StoreWork::Flip { last, configuration, time } => {
                self.flipping = None;
                let seed = super::hash_seed(&self.config);
                let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
                let mut state =
                    State::open(id, seed, store).map_err(|error| Fatal::StateDamaged(error.to_string()))?;
                assert_eq!(state.applied, last.index, "group {id}: the snapshot is not what was announced");
                state.set_partition_groups(self.config.partition_groups());
                let stamp = state.stamp;
                group.state = state;
                group.raft.installed(last, configuration, time, stamp, true);
                self.dirty.insert(id);
                self.publish_all();
                self.snapshots.sweep.push_back(id);
                self.checkpoints.installed(id, last);
                out.now(Action::Trace(Trace::SnapshotInstalled { group: id, index: last.index }));
                self.state_replaced(id, out);
            }
            StoreWork::Sweep => {}
        }
        Ok(())
    }

    /// Raft takes the received state for its own: the flip waits for its turn at the store.
    pub(super) fn install(&mut self, id: GroupId, last: LogId, configuration: Configuration) {
        let whole = |r: &Receiving| r.last == last && r.ended && r.storing == 0;
        let Some(receiving) = self.snapshots.receiving.remove(&id).filter(whole) else {
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.installed(last, configuration, Timestamp::EPOCH, 0, false);
            }
            return;
        };
        let Receiving { generation, time, .. } = receiving;
        let mark = Bytes::from(codec::encode(&last));
        let mut part = GroupCheckpoint {
            group: id,
            generation,
            applied: last.index,
            term: last.term,
            layer: Layer::unit(keys::installed(), Some(mark)),
            root: Some(State::root_of(id, generation, last, time)),
        };
        if bugs::active(Bug::SnapshotNotAtomic) {
            // The root first, and the index with it, while the state is still the old one.
            part.generation = self.groups.get(&id).map_or(generation, |group| group.state.generation());
            part.root = Some(State::root_of(id, part.generation, last, time));
        }
        self.flipping = Some(id);
        self.snapshots.queue.push_back((StoreWork::Flip { last, configuration, time }, part));
    }

    /// The next store write that is not a checkpoint, if there is one to do.
    pub(super) fn next_store_work(
        &mut self,
        store: &SharedStore,
    ) -> Result<Option<(StoreWork, GroupCheckpoint)>, Fatal> {
        if let Some(next) = self.snapshots.queue.pop_front() {
            return Ok(Some(next));
        }
        while let Some(id) = self.snapshots.sweep.front().copied() {
            if let Some(part) = self.sweep(id, store)? {
                return Ok(Some((StoreWork::Sweep, part)));
            }
            self.snapshots.sweep.pop_front();
        }
        Ok(None)
    }

    /// Deletes a slice of what is under generations that are neither live nor coming.
    fn sweep(&self, id: GroupId, store: &SharedStore) -> Result<Option<GroupCheckpoint>, Fatal> {
        let Some(group) = self.groups.get(&id) else { return Ok(None) };
        let live = group.state.generation();
        let coming = self.snapshots.receiving.get(&id).map_or(u32::MAX, |receiving| receiving.generation);
        let bounds = [(1, live), (live + 1, coming)];
        for (from, to) in bounds {
            let mut found = Vec::new();
            let from = keys::store_key(id, from, &[]);
            let to = match to {
                u32::MAX => keys::store_key(GroupId(id.0 + 1), 0, &[]),
                to => keys::store_key(id, to, &[]),
            };
            store
                .scan(Bound::Included(&from), Bound::Excluded(&to), false, SWEEP_SLICE, &mut found)
                .map_err(|error| Fatal::StateDamaged(error.to_string()))?;
            let Some(generation) = found.first().and_then(|(key, _)| keys::store_generation(key)) else {
                continue;
            };
            let doomed = found
                .iter()
                .filter(|(key, _)| keys::store_generation(key) == Some(generation))
                .map(|(key, _)| (key.slice(keys::PREFIX_BYTES..), None));
            return Ok(Some(GroupCheckpoint {
                group: id,
                generation,
                applied: group.state.applied,
                term: group.state.applied_term,
                layer: doomed.collect(),
                root: None,
            }));
        }
        Ok(None)
    }
}

impl Sending {
    fn retry_at(&self) -> Instant {
        self.sent_at.max(self.heard_at) + CHUNK_RETRY
    }

    fn make(&mut self, group: GroupId, term: chronos_proto::Term) -> Result<Chunk, ReadError> {
        let range = keys::KeyRange { start: self.from.clone(), end: Bytes::from_static(&[0xFF]) };
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut ends = true;
        for entry in self.snapshot.scan(&range, false) {
            let (key, value) = entry?;
            if bytes >= CHUNK_BYTES {
                self.from = key;
                ends = false;
                break;
            }
            bytes += key.len() + value.len();
            let kept =
                !bugs::active(Bug::SnapshotWithoutSessions) || key.first() != Some(&keys::tag::REQUEST);
            if kept {
                entries.push((key, value));
            }
        }
        self.checksum = extend(self.checksum, &entries);
        self.ended = ends;
        let number = self.next;
        self.next += 1;
        Ok(Chunk {
            group,
            term,
            last: self.last,
            time: self.snapshot.applied_time,
            number,
            entries,
            checksum: self.checksum,
            ends,
        })
    }
}

fn extend(checksum: u32, entries: &[(Bytes, Bytes)]) -> u32 {
    entries.iter().fold(checksum, |crc, (key, value)| {
        let crc = crc32c::crc32c_append(crc, &(key.len() as u32).to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
    })
}
