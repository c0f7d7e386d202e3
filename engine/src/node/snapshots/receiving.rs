//! The follower's half: chunks become durable under a generation that is not live, and how far that has come with
//! each of them.

use super::{Node, StoreWork, WINDOW, damaged, extend};
use crate::bugs::{self, Bug};
use crate::keys;
use crate::state::overlay::Layer;
use crate::state::records::Incoming;
use crate::state::{ReadError, State, snapshot};
use crate::step::{Action, Fatal, GroupCheckpoint, Outputs, Trace};
use crate::store::{SharedStore, StoreError};
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Configuration;
use chronos_proto::peer::{Chunk, PeerMessage};
use chronos_proto::raft::LogId;
use chronos_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// A snapshot that comes in.
#[derive(Serialize, Deserialize)]
pub(super) struct Receiving {
    /// What has arrived.
    incoming: Incoming,
    pub(super) generation: u32,
    /// Chunks whose store write is under way or waits.
    storing: u64,
    /// It was read from the store, and nothing has arrived since.
    found: bool,
}

impl Receiving {
    /// The next chunk whose store write is not done.
    fn stored(&self) -> u64 {
        self.incoming.next - self.storing
    }

    fn is_whole(&self) -> bool {
        self.incoming.ended && self.storing == 0
    }

    /// Whether a chunk is of this sending.
    fn is_of(&self, from: NodeId, chunk: &Chunk) -> bool {
        let incoming = &self.incoming;
        (incoming.from, incoming.term, incoming.last) == (from, chunk.term, chunk.last)
    }

    fn record(&self) -> Option<Bytes> {
        Some(Bytes::from(codec::encode(&self.incoming)))
    }
}

impl Node {
    /// Goes on where an earlier run of this node was, if what it stored is there.
    pub(in crate::node) fn find_incoming(&mut self, store: &SharedStore) -> Result<(), Fatal> {
        for (id, group) in &self.groups {
            self.snapshots.sweep.push_back(*id);
            let Some(generation) = newest_generation(*id, group.state.generation(), store)? else { continue };
            let record = match snapshot::get_stored(store, *id, generation, &keys::incoming()) {
                Err(StoreError::Damaged { .. }) => None,
                record => record.map_err(damaged)?,
            };
            let incoming = record.and_then(|bytes| codec::decode::<Incoming>("incoming", &bytes).ok());
            if let Some(incoming) = incoming.filter(|incoming| incoming.last.index > group.raft.committed()) {
                let receiving = Receiving { incoming, generation, storing: 0, found: true };
                self.snapshots.receiving.insert(*id, receiving);
            }
        }
        Ok(())
    }

    /// A part of a state arrives.
    pub(in crate::node) fn chunk(
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
            self.drop_incoming(id);
            out.now(reply(0, true));
            return Ok(());
        }
        if !self.snapshots.receiving.get(&id).is_some_and(|receiving| receiving.is_of(from, &chunk)) {
            let mut queued = self.snapshots.queue.iter().filter(|(_, part)| part.group == id);
            let flipping = queued.any(|(work, _)| matches!(work, StoreWork::Flip { .. }));
            if chunk.number > 0 || flipping || self.flipping == Some(id) {
                out.now(reply(0, false));
                return Ok(());
            }
            self.drop_incoming(id);
            let generation = self.free_generation(id, store)?;
            let incoming = Incoming {
                from,
                term: chunk.term,
                last,
                time: chunk.time,
                next: 0,
                checksum: 0,
                ended: false,
            };
            let receiving = Receiving { incoming, generation, storing: 0, found: false };
            self.snapshots.receiving.insert(id, receiving);
        }
        let Some(receiving) = self.snapshots.receiving.get_mut(&id) else { return Ok(()) };
        if chunk.number != receiving.incoming.next || receiving.storing >= WINDOW {
            // Word that all of it is there may have been lost.
            out.now(reply(receiving.stored(), receiving.is_whole()));
            return Ok(());
        }
        let checksum = extend(receiving.incoming.checksum, &chunk.entries);
        if checksum != chunk.checksum {
            // Not what was sent: all of it again.
            self.drop_incoming(id);
            out.now(reply(u64::MAX, false));
            return Ok(());
        }
        if std::mem::take(&mut receiving.found) {
            let chunk = chunk.number;
            out.now(Action::Trace(Trace::SnapshotResumed { group: id, index: last.index, chunk }));
        }
        receiving.incoming.checksum = checksum;
        receiving.incoming.next += 1;
        receiving.incoming.ended = chunk.ends;
        receiving.storing += 1;
        let mut layer: Layer = chunk.entries.into_iter().map(|(key, value)| (key, Some(value))).collect();
        layer.insert(keys::incoming(), receiving.record());
        let part = GroupCheckpoint {
            group: id,
            generation: receiving.generation,
            applied: last.index,
            term: last.term,
            layer,
            root: None,
        };
        self.snapshots.queue.push_back((StoreWork::Chunks(1), part));
        Ok(())
    }

    /// The store write that is next in the queue. Parts of a state that have gathered while the store was busy are one:
    /// a slow disk is waited for once, and not once for each of them.
    pub(super) fn next_queued(&mut self) -> Option<(StoreWork, GroupCheckpoint)> {
        let queue = &mut self.snapshots.queue;
        let (mut work, mut part) = queue.pop_front()?;
        let ahead = bugs::active(Bug::ProgressAhead);
        while let StoreWork::Chunks(count) = &mut work
            && !ahead
            && let Some((_, next)) = queue.pop_front_if(|(work, next)| {
                matches!(work, StoreWork::Chunks(_))
                    && (next.group, next.generation) == (part.group, part.generation)
            })
        {
            *count += 1;
            // The later one's progress takes the place of the earlier one's; of other keys each part has its own.
            part.layer = next.layer.union(std::mem::take(&mut part.layer));
        }
        if ahead
            && let (StoreWork::Chunks(_), Some(receiving)) =
                (&work, self.snapshots.receiving.get(&part.group))
        {
            part.layer.insert(keys::incoming(), receiving.record());
        }
        Some((work, part))
    }

    /// What is coming in for a group is not wanted any more: its keys go, and nothing of it is written after them.
    fn drop_incoming(&mut self, id: GroupId) {
        if self.snapshots.receiving.remove(&id).is_some() {
            let is_of = |work: &StoreWork, part: &GroupCheckpoint| {
                part.group == id && matches!(work, StoreWork::Chunks(_))
            };
            self.snapshots.queue.retain(|(work, part)| !is_of(work, part));
            self.snapshots.sweep.push_back(id);
        }
    }

    /// Drops what the log has brought meanwhile.
    pub(super) fn drop_overtaken(&mut self) {
        let overtaken = |id: &GroupId, receiving: &Receiving| {
            let group = self.groups.get(id);
            group.is_none_or(|group| receiving.incoming.last.index <= group.raft.committed())
        };
        let ids = self.snapshots.receiving.iter().filter(|(id, receiving)| overtaken(id, receiving));
        let ids: Vec<GroupId> = ids.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.drop_incoming(id));
    }

    /// A generation that the store has no key of, and will have none of but this state's.
    fn free_generation(&mut self, id: GroupId, store: &SharedStore) -> Result<u32, Fatal> {
        let live = self.groups.get(&id).map_or(0, |group| group.state.generation());
        let greatest = newest_generation(id, live, store)?.unwrap_or(live);
        let given = self.snapshots.generations.entry(id).or_default();
        *given = greatest.max(live).max(*given) + 1;
        Ok(*given)
    }

    /// So many parts of an incoming state are durable.
    pub(super) fn chunks_stored(&mut self, count: u64, part: &GroupCheckpoint, out: &mut Outputs) {
        let id = part.group;
        let known = self.snapshots.receiving.get_mut(&id);
        let Some(receiving) = known.filter(|known| known.generation == part.generation) else { return };
        receiving.storing -= count;
        let Incoming { from, last, .. } = receiving.incoming;
        let (next, done) = (receiving.stored(), receiving.is_whole());
        let message = PeerMessage::ChunkReply { group: id, last, next, done };
        out.now(Action::Send { to: from, message });
    }

    /// Raft takes the received state for its own: the flip waits for its turn at the store.
    pub(in crate::node) fn install(&mut self, id: GroupId, last: LogId, configuration: Configuration) {
        let whole = |receiving: &Receiving| receiving.incoming.last == last && receiving.is_whole();
        let Some(receiving) = self.snapshots.receiving.remove(&id).filter(whole) else {
            self.snapshots.sweep.push_back(id);
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.installed(last, configuration, Timestamp::EPOCH, 0, false);
            }
            return;
        };
        let (generation, time) = (receiving.generation, receiving.incoming.time);
        let mark = Bytes::from(codec::encode(&last));
        let mut part = GroupCheckpoint {
            group: id,
            generation,
            applied: last.index,
            term: last.term,
            layer: Layer::from_iter([(keys::installed(), Some(mark)), (keys::incoming(), None)]),
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

    /// The received state is the live one.
    pub(super) fn flipped(
        &mut self,
        id: GroupId,
        last: LogId,
        configuration: Configuration,
        time: Timestamp,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        self.flipping = None;
        let seed = super::super::hash_seed(&self.config);
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let opened = State::open(id, seed, store);
        let mut state = opened.map_err(|error: ReadError| Fatal::StateDamaged(error.to_string()))?;
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
        Ok(())
    }
}

/// The greatest generation above the live one that the store has a key of.
fn newest_generation(id: GroupId, live: u32, store: &SharedStore) -> Result<Option<u32>, Fatal> {
    let mut found = Vec::new();
    let from = keys::store_key(id, live + 1, &[]);
    let to = keys::store_key(GroupId(id.0 + 1), 0, &[]);
    store.scan(Bound::Included(&from), Bound::Excluded(&to), true, 1, &mut found).map_err(damaged)?;
    Ok(found.first().and_then(|(key, _)| keys::store_generation(key)))
}
