//! The leader's half: a state is cut into chunks, and a window of them is under way.

use super::{Node, WINDOW, extend};
use crate::bugs::{self, Bug};
use crate::keys;
use crate::state::ReadError;
use crate::state::snapshot::Snapshot;
use crate::step::{Action, Fatal, Outputs, Trace};
use crate::store::{Pin, SharedStore};
use bytes::Bytes;
use chronos_proto::Term;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Configuration;
use chronos_proto::peer::{Chunk, PeerMessage};
use chronos_proto::raft::{LogId, Message};
use chronos_proto::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// Without an answer for so long, what is under way is sent again.
const CHUNK_RETRY: Duration = Duration::from_millis(500);
/// Without an answer over a link that stands for so long, the snapshot is given up.
const CHUNK_PATIENCE: Duration = Duration::from_secs(10);
/// With nothing new acknowledged for so long it is given up in any case: a receiver that restarts takes less.
const GAIN_PATIENCE: Duration = Duration::from_secs(60);
/// Snapshots that are kept for receivers that are away; beyond it the one that stands still for longest is given up.
const AWAY_MAX: usize = 4;

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
    /// The number of the next new chunk, and the first that is not acknowledged. The first is below the second while
    /// this sending makes what its receiver has of an earlier one.
    next: u64,
    acknowledged: u64,
    /// Chunks that are not acknowledged.
    window: VecDeque<Chunk>,
    ended: bool,
    sent_at: Instant,
    /// When the last answer came, or the link.
    heard_at: Instant,
    /// When something new was acknowledged.
    gained_at: Instant,
}

impl Node {
    /// Raft wants a follower to get the state.
    pub(in crate::node) fn send_snapshot(
        &mut self,
        id: GroupId,
        to: NodeId,
        store: &SharedStore,
        out: &mut Outputs,
    ) {
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
            gained_at: self.now.mono,
        };
        self.snapshots.sending.insert((id, to), sending);
        out.now(Action::Trace(Trace::SnapshotSent { group: id, to, index: last.index, done: false }));
        self.send_chunks(id, to, out);
    }

    /// Makes up to a window of chunks, and sends those that the receiver does not have.
    fn send_chunks(&mut self, id: GroupId, to: NodeId, out: &mut Outputs) {
        let term = self.groups.get(&id).map(|group| group.raft.term()).unwrap_or_default();
        let bytes = self.config.snapshot_chunk_bytes;
        let Some(sending) = self.snapshots.sending.get_mut(&(id, to)) else { return };
        sending.sent_at = self.now.mono;
        for _ in 0..WINDOW {
            if sending.ended || sending.next >= sending.acknowledged + WINDOW {
                break;
            }
            let chunk = match sending.make(id, term, bytes) {
                Ok(chunk) => chunk,
                Err(error) => return self.give_up_sending(id, to, out, &error.to_string()),
            };
            if chunk.number >= sending.acknowledged {
                out.now(Action::Send { to, message: PeerMessage::Chunk(chunk.clone()) });
                sending.window.push_back(chunk);
            }
        }
        if sending.ended && sending.next < sending.acknowledged {
            self.give_up_sending(id, to, out, "its receiver has more than there is");
        }
    }

    /// The follower says what it wants next.
    pub(in crate::node) fn chunk_answered(
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
        if next == 0 && sending.acknowledged > 0 || next == u64::MAX {
            // It lost what it had, or cannot use it: from the beginning.
            self.end_sending(id, from, None, out);
            return Ok(());
        }
        // An answer to a chunk that was sent twice tells nothing new.
        if next > sending.acknowledged {
            sending.acknowledged = next;
            sending.gained_at = self.now.mono;
        }
        let next = sending.acknowledged;
        while sending.window.front().is_some_and(|chunk| chunk.number < next) {
            sending.window.pop_front();
        }
        self.send_chunks(id, from, out);
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
    pub(in crate::node) fn stop_sending(&mut self, id: GroupId) {
        self.snapshots.sending.retain(|(group, _), _| *group != id);
    }

    /// A receiver may have come back: it has its time to answer.
    pub(in crate::node) fn receiver_up(&mut self, peer: NodeId) {
        let now = self.now.mono;
        let to_it = self.snapshots.sending.iter_mut().filter(|((_, to), _)| *to == peer);
        to_it.for_each(|(_, sending)| sending.heard_at = now);
    }

    /// A receiver is away: what it has not got is kept for it, unless too much is.
    pub(in crate::node) fn receiver_down(&mut self, out: &mut Outputs) {
        let links = &self.links;
        let away = self.snapshots.sending.iter().filter(|((_, to), _)| !links.contains_key(to));
        let mut away: Vec<_> = away.map(|(key, sending)| (sending.gained_at, *key)).collect();
        away.sort();
        for (_, (id, to)) in away.iter().take(away.len().saturating_sub(AWAY_MAX)) {
            self.give_up_sending(*id, *to, out, "too many wait for nodes that are away");
        }
    }

    pub(in crate::node) fn tick_snapshots(&mut self, out: &mut Outputs) {
        let now = self.now.mono;
        let due = self.snapshots.sending.iter().filter(|(_, sending)| now >= sending.retry_at());
        let due: Vec<(GroupId, NodeId)> = due.map(|(key, _)| *key).collect();
        for (id, to) in due {
            let linked = self.links.contains_key(&to);
            let Some(sending) = self.snapshots.sending.get_mut(&(id, to)) else { continue };
            if linked && now >= sending.heard_at + CHUNK_PATIENCE {
                self.give_up_sending(id, to, out, "no answer came");
            } else if now >= sending.gained_at + GAIN_PATIENCE {
                self.give_up_sending(id, to, out, "its receiver got no further");
            } else if sending.is_behind() {
                self.send_chunks(id, to, out);
            } else {
                sending.sent_at = now;
                for chunk in sending.window.iter().filter(|_| linked) {
                    out.now(Action::Send { to, message: PeerMessage::Chunk(chunk.clone()) });
                }
            }
        }
    }
}

impl Sending {
    pub(super) fn retry_at(&self) -> Instant {
        if self.is_behind() { self.sent_at } else { self.sent_at.max(self.heard_at) + CHUNK_RETRY }
    }

    /// Whether it makes what its receiver has already.
    fn is_behind(&self) -> bool {
        self.next < self.acknowledged
    }

    fn make(&mut self, group: GroupId, term: Term, bytes_max: usize) -> Result<Chunk, ReadError> {
        let range = keys::KeyRange { start: self.from.clone(), end: Bytes::from_static(&[0xFF]) };
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut ends = true;
        for entry in self.snapshot.scan(&range, false) {
            let (key, value) = entry?;
            if bytes >= bytes_max {
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
