//! Snapshots for followers that are behind the log.
//!
//! ```text
//! leader                                             follower
//!   the state at its applied index, key by key         generation live+1 in the store
//!     Chunk 0, 1, 2 … (a window of them)  ──────────>    durable, by a write for those that gather, and
//!                                                        with them how far that is
//!     <──────────────  ChunkReply { next }               what it wants next: also after a link was lost
//!     Chunk n, ends   ──────────────────────────────>    all there, checksum right: Raft is told, and one small
//!                                                        write makes the generation live at its applied index
//!                                                        then the log begins anew behind it
//! ```
//!
//! A crash before the small write leaves the old state, and a part of the new one with its progress: who sends, in
//! which term, up to which entry, how many chunks and their checksum. The next run reads that and goes on when a chunk
//! of the same sending arrives, for the leader keeps what it sends for a while when its receiver goes. Anything else
//! begins anew under another generation, and what was there is swept. A crash after the small write leaves the new
//! state. It remembers that it began as a snapshot, so that a log that ends before it is known for what it is.
//!
//! Term, entry and sender name a sending: a state at one entry is the same keys whenever it is read, and is cut into
//! chunks at the same places by one process, so that a sending that was given up and begun again goes on as well. The
//! checksum runs over all chunks from the first on, and is the proof.
//!
//! What a sending keeps (a view of the store, which lets its file grow, and a window of chunks) is bounded by time: it
//! is given up when nothing of it was acknowledged for a minute. It is bounded by number as well while the receiver is
//! away.
//!
//! Not implemented: spooling to a file (the leader pins a view of its store while it sends).

mod receiving;
mod sending;

use super::Node;
use crate::keys;
use crate::step::{Fatal, GroupCheckpoint};
use crate::store::{SharedStore, StoreError};
use bytes::Bytes;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::LogId;
use chronos_proto::time::{Instant, Timestamp};
use receiving::Receiving;
use sending::Sending;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// Chunks under way.
const WINDOW: u64 = 8;
/// Keys deleted by one store write.
const SWEEP_SLICE: usize = 4_096;

/// What the store is asked for besides checkpoints, one at a time.
pub(super) enum StoreWork {
    /// So many parts of an incoming state, one behind the other.
    Chunks(u64),
    /// The incoming state becomes the live one.
    Flip { last: LogId, configuration: Configuration, time: Timestamp },
    /// Keys of generations that are not live go.
    Sweep,
}

/// Snapshots of one node, and the store writes that wait for their turn.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Snapshots {
    #[serde(skip)]
    sending: BTreeMap<(GroupId, NodeId), Sending>,
    receiving: BTreeMap<GroupId, Receiving>,
    #[serde(skip)]
    queue: VecDeque<(StoreWork, GroupCheckpoint)>,
    /// Groups whose store may hold keys of generations that are not live.
    sweep: VecDeque<GroupId>,
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
    /// The next store write that is not a checkpoint, if there is one to do.
    pub(super) fn next_store_work(
        &mut self,
        store: &SharedStore,
    ) -> Result<Option<(StoreWork, GroupCheckpoint)>, Fatal> {
        self.drop_overtaken();
        if let Some(next) = self.next_queued() {
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

    /// A store write that was not a checkpoint is durable. `store` shows it.
    pub(super) fn store_work_done(
        &mut self,
        work: StoreWork,
        part: &GroupCheckpoint,
        store: &SharedStore,
        out: &mut crate::step::Outputs,
    ) -> Result<(), Fatal> {
        match work {
            StoreWork::Chunks(count) => self.chunks_stored(count, part, out),
            StoreWork::Flip { last, configuration, time } => {
                self.flipped(part.group, last, configuration, time, store, out)?;
            }
            StoreWork::Sweep => {}
        }
        Ok(())
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
                .map_err(damaged)?;
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

fn damaged(error: StoreError) -> Fatal {
    Fatal::StateDamaged(error.to_string())
}

fn extend(checksum: u32, entries: &[(Bytes, Bytes)]) -> u32 {
    entries.iter().fold(checksum, |crc, (key, value)| {
        let crc = crc32c::crc32c_append(crc, &(key.len() as u32).to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value)
    })
}
