//! Linearizable reads on any node: the group's leader is asked from where on a state may answer, and the answer is given
//! to the reader once this node's own published state is there.

use super::Node;
use crate::bugs::{self, Bug};
use crate::rng::Rng;
use crate::step::{Action, Outputs, ReadAt, Reply, Token};
use crate::txn::Refused;
use chronos_proto::id::{GroupId, Index, NodeId, Term};
use chronos_proto::peer::PeerMessage;
use chronos_proto::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a read waits for a leader and its answer.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// How long a leader may take before it is asked again.
const READ_RETRY: Duration = Duration::from_millis(300);

/// Who reads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Reader {
    Client(Token),
    /// A node, by its own number.
    Peer(NodeId, u64),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Stage {
    /// Nobody could be asked yet.
    Waiting,
    /// Another node was asked then.
    Asked(Instant),
    /// This node leads, and asks its quorum: there will be an answer, or an end of its office.
    Confirming,
    /// Waits for the state to be there.
    Applying(Index, Timestamp),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Read {
    reader: Reader,
    group: GroupId,
    stage: Stage,
    until: Instant,
}

/// The reads of one node, each under a number of its own.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Reads {
    next: u64,
    reads: BTreeMap<u64, Read>,
}

impl Reads {
    /// None, and numbers that no earlier run of this node used: answers to those may still be on their way.
    pub fn new(rng: &mut Rng) -> Reads {
        Reads { next: rng.next_u64() >> 1, ..Reads::default() }
    }

    /// Nobody waits longer than this.
    pub fn hurry(&mut self, until: Instant) {
        self.reads.values_mut().for_each(|read| read.until = read.until.min(until));
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let at = |read: &Read| match read.stage {
            Stage::Asked(at) => read.until.min(at + READ_RETRY),
            Stage::Waiting | Stage::Confirming | Stage::Applying(..) => read.until,
        };
        self.reads.values().map(at).min()
    }
}

impl Node {
    /// A client wants to read.
    pub(super) fn read(&mut self, token: Token, group: GroupId, out: &mut Outputs) {
        if !self.groups.contains_key(&group) || self.reads.reads.len() >= self.config.inflight_max {
            let refused = match self.groups.contains_key(&group) {
                true => Refused::Overloaded(self.reads.reads.len()),
                false => Refused::NotLeader,
            };
            return self.replies.push((token, Reply::Read(Err(refused))));
        }
        self.begin_read(Reader::Client(token), group, out);
    }

    /// Another node wants to read, and takes this one for the leader.
    pub(super) fn read_asked(&mut self, from: NodeId, group: GroupId, number: u64, out: &mut Outputs) {
        let leads = self.groups.get(&group).is_some_and(|g| g.raft.role() == crate::raft::Role::Leader);
        if !leads || self.reads.reads.len() >= self.config.inflight_max {
            let message = PeerMessage::ReadReply { number, at: None };
            return out.now(Action::Send { to: from, message });
        }
        self.begin_read(Reader::Peer(from, number), group, out);
    }

    fn begin_read(&mut self, reader: Reader, group: GroupId, out: &mut Outputs) {
        let number = self.reads.next;
        self.reads.next += 1;
        let until = self.now.mono + READ_PATIENCE;
        self.reads.reads.insert(number, Read { reader, group, stage: Stage::Waiting, until });
        self.ask(number, out);
    }

    fn ask(&mut self, number: u64, out: &mut Outputs) {
        let Some(read) = self.reads.reads.get_mut(&number) else { return };
        let Some(group) = self.groups.get_mut(&read.group) else { return };
        if group.raft.read(number) {
            read.stage = Stage::Confirming;
            self.dirty.insert(read.group);
        } else if let Some(leader) = group.raft.leader().filter(|leader| self.links.contains_key(leader)) {
            read.stage = Stage::Asked(self.now.mono);
            let message = PeerMessage::Read { group: read.group, number };
            out.now(Action::Send { to: leader, message });
        } else {
            read.stage = Stage::Waiting;
        }
    }

    /// Another node's answer.
    pub(super) fn read_answered(
        &mut self,
        number: u64,
        at: Option<(Term, Index, Timestamp)>,
        out: &mut Outputs,
    ) {
        if let (Some(read), Some((term, index, _))) = (self.reads.reads.get(&number), at)
            && let Some(group) = self.groups.get_mut(&read.group)
        {
            group.raft.learn_committed(term, index);
            self.dirty.insert(read.group);
        }
        self.read_at(number, at.map(|(_, index, time)| (index, time)), out);
    }

    /// The leader's answer, be it this node or another.
    pub(super) fn read_at(&mut self, number: u64, at: Option<(Index, Timestamp)>, out: &mut Outputs) {
        let Some(read) = self.reads.reads.get_mut(&number) else { return };
        match at {
            Some((index, time)) => {
                if let Reader::Peer(to, number_there) = read.reader {
                    // The other waits for its own state.
                    let term =
                        self.groups.get(&read.group).map(|group| group.raft.term()).unwrap_or_default();
                    self.reads.reads.remove(&number);
                    let message =
                        PeerMessage::ReadReply { number: number_there, at: Some((term, index, time)) };
                    return out.now(Action::Send { to, message });
                }
                read.stage = Stage::Applying(index, time);
                let group = read.group;
                self.reads_applied(group);
            }
            None => {
                if let Reader::Peer(to, number_there) = read.reader {
                    self.reads.reads.remove(&number);
                    let message = PeerMessage::ReadReply { number: number_there, at: None };
                    return out.now(Action::Send { to, message });
                }
                read.stage = Stage::Waiting;
            }
        }
    }

    /// The group's leader is another one, or known at last.
    pub(super) fn leader_changed_for_reads(&mut self, group: GroupId, out: &mut Outputs) {
        let waiting = |read: &Read| read.group == group && !matches!(read.stage, Stage::Applying(..));
        let numbers: Vec<u64> =
            self.reads.reads.iter().filter(|(_, read)| waiting(read)).map(|(number, _)| *number).collect();
        numbers.into_iter().for_each(|number| self.ask(number, out));
    }

    /// More of a group is applied: what waited for that is answered.
    pub(super) fn reads_applied(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let applied = group.state.applied;
        let there = |read: &Read| match read.stage {
            Stage::Applying(index, _) => {
                read.group == id && (index <= applied || bugs::active(Bug::ReadBeforeApplied))
            }
            _ => false,
        };
        let numbers: Vec<u64> =
            self.reads.reads.iter().filter(|(_, read)| there(read)).map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(read) = self.reads.reads.remove(&number) else { continue };
            if let (Reader::Client(token), Stage::Applying(index, time)) = (read.reader, read.stage) {
                self.replies.push((token, Reply::Read(Ok(ReadAt { index, time }))));
            }
        }
    }

    pub(super) fn tick_reads(&mut self, out: &mut Outputs) {
        let now = self.now.mono;
        let numbers: Vec<u64> = self.reads.reads.keys().copied().collect();
        for number in numbers {
            let Some(read) = self.reads.reads.get(&number) else { continue };
            if now >= read.until {
                match read.reader {
                    Reader::Client(token) => {
                        self.replies.push((token, Reply::Read(Err(Refused::NotLeader))));
                    }
                    Reader::Peer(to, number) => {
                        out.now(Action::Send { to, message: PeerMessage::ReadReply { number, at: None } });
                    }
                }
                self.reads.reads.remove(&number);
            } else if let Stage::Asked(at) = read.stage
                && now >= at + READ_RETRY
            {
                self.ask(number, out);
            }
        }
    }
}
