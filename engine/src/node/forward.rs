//! Writes that this node took for groups that others lead.
//!
//! Each goes to the leader under a request id and is asked again, under the same id, until there is an answer: so it
//! has one effect, whatever is lost and whoever leads by then. Only the last asking's refusal is one: while it is under
//! way it may have an effect that an earlier one was denied. When the time is over the client is told that nothing
//! was done if the write never left, and that the outcome is unknown if it did.

use super::Node;
use super::group::Waiter;
use crate::rng::Rng;
use crate::state::{SESSION_IDLE_US, Sessions};
use crate::step::{Action, Outputs, Reply, Token};
use crate::txn::{Committed, Refused, Transaction};
use chronos_proto::id::{GroupId, NodeId, RequestId, SessionId, Term};
use chronos_proto::peer::{Forward, ForwardOutcome, PeerMessage};
use chronos_proto::time::Instant;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a write is tried before its client is told.
pub(super) const FORWARD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a leader may take before it is asked again.
const FORWARD_RETRY: Duration = Duration::from_millis(1_000);
/// How long a leader is left alone that could not take a write.
const FORWARD_PAUSE: Duration = Duration::from_millis(50);
/// The lower bits of a number on the wire say which asking of a write it is; the others say which write.
const ASKING: u64 = 0xff;
/// A session that nobody used for so long is replaced before the leader forgets it.
const SESSION_FRESH_US: i64 = SESSION_IDLE_US / 4;

/// A write that waits for another node.
#[derive(Serialize, Deserialize)]
struct Pending {
    token: Token,
    group: GroupId,
    transaction: Transaction,
    /// To whom it went last, in which term, and from when on it is sent again to the same.
    sent: Option<(NodeId, Term, Instant)>,
    until: Instant,
    /// How often it was sent.
    asked: u32,
}

/// A write that is committed, and that this node's own state does not show yet.
#[derive(Serialize, Deserialize)]
struct Applying {
    token: Token,
    committed: Committed,
    until: Instant,
}

/// The writes of one node.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Forwards {
    next_number: u64,
    pending: BTreeMap<u64, Pending>,
    session: Option<(SessionId, i64)>,
    next_sequence: u64,
    /// Committed, and not applied here yet.
    applying: BTreeMap<GroupId, Vec<Applying>>,
    /// Sequences of the session of now that are not answered, by number of the write.
    open: BTreeMap<u64, u64>,
}

impl Forwards {
    /// None, and numbers that no earlier run of this node used: answers to those may still be on their way.
    pub fn new(rng: &mut Rng) -> Forwards {
        Forwards { next_number: (rng.next_u64() >> 1) & !ASKING, ..Forwards::default() }
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Nobody waits longer than this.
    pub fn hurry(&mut self, until: Instant) {
        self.pending.values_mut().for_each(|pending| pending.until = pending.until.min(until));
        let applying = self.applying.values_mut().flatten();
        applying.for_each(|write| write.until = write.until.min(until));
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = |pending: &Pending| match pending.sent {
            Some((_, _, again)) => pending.until.min(again),
            None => pending.until,
        };
        let applying = self.applying.values().flatten().map(|write| write.until);
        self.pending.values().map(retry).chain(applying).min()
    }
}

impl Forwards {
    /// A write that is settled: it is not asked again, and its name is free.
    fn take(&mut self, number: u64) -> Option<Pending> {
        self.open.remove(&number);
        self.pending.remove(&number)
    }
}

/// What a client is told of a write that was sent `earlier` times before this result. One that has expired had no effect
/// if it was never sent before; otherwise an earlier asking may have had one that is forgotten by now.
fn told(earlier: u32, result: Result<Committed, Refused>) -> Reply {
    match result {
        Err(Refused::Expired(_)) if earlier > 0 => {
            Reply::Unknown("the outcome is no longer kept: it was asked for again too late".to_owned())
        }
        result => Reply::Commit(result),
    }
}

impl Node {
    /// Takes a transaction for a group that another node leads, or nobody yet.
    pub(super) fn forward(
        &mut self,
        group: GroupId,
        token: Token,
        mut transaction: Transaction,
        out: &mut Outputs,
    ) {
        if self.forwards.len() >= self.config.inflight_max {
            let refused = Refused::Overloaded(self.forwards.len());
            return self.replies.push((token, Reply::Commit(Err(refused))));
        }
        // What is named at no time would be born long ago, and expired.
        if !self.clock.is_set() {
            return self.replies.push((token, Reply::Commit(Err(Refused::NotLeader))));
        }
        let number = self.forwards.next_number;
        self.forwards.next_number += ASKING + 1;
        if transaction.request.session == SessionId(0) {
            transaction.request = self.name_request(number);
        }
        let until = self.now.mono + FORWARD_PATIENCE;
        self.forwards
            .pending
            .insert(number, Pending { token, group, transaction, sent: None, until, asked: 0 });
        self.send_forward(number, out);
    }

    /// A name in this node's own session, for a client that has none.
    fn name_request(&mut self, number: u64) -> RequestId {
        let now = self.clock.time(self.now.mono).0;
        let forwards = &mut self.forwards;
        let (session, last_used) = match forwards.session {
            Some((session, used)) if now - used < SESSION_FRESH_US => (session, used),
            _ => {
                // What is open keeps the name that it has.
                forwards.open.clear();
                forwards.next_sequence = 1;
                let birth = chronos_proto::Timestamp(now);
                (Sessions::id(birth, self.rng.next_u64()), now)
            }
        };
        forwards.session = Some((session, last_used.max(now)));
        let sequence = forwards.next_sequence;
        forwards.next_sequence += 1;
        forwards.open.insert(number, sequence);
        let floor = forwards.open.values().copied().min().unwrap_or(sequence);
        RequestId { session, sequence, floor }
    }

    fn send_forward(&mut self, number: u64, out: &mut Outputs) {
        let Some(pending) = self.forwards.pending.get_mut(&number) else { return };
        let Some(group) = self.groups.get(&pending.group) else { return };
        let Some(leader) = group.raft.leader().filter(|leader| *leader != self.config.node) else { return };
        if !self.links.contains_key(&leader) || u64::from(pending.asked) > ASKING {
            return;
        }
        let number = number | u64::from(pending.asked);
        let term = group.raft.term();
        pending.asked += 1;
        pending.sent = Some((leader, term, self.now.mono + FORWARD_RETRY));
        let Transaction { request, read_index, reads, valid_until, ops } = pending.transaction.clone();
        let reads = reads.into_iter().map(|range| (range.start, range.end)).collect();
        let forward =
            Forward { number, group: pending.group, term, request, read_index, reads, valid_until, ops };
        out.now(Action::Send { to: leader, message: PeerMessage::Forward(forward) });
    }

    /// A write that another node took for a group that it believes led by this one.
    pub(super) fn forwarded(&mut self, from: NodeId, forward: Forward, out: &mut Outputs) {
        let Forward { number, group, term, request, read_index, reads, valid_until, ops } = forward;
        let leads = self
            .groups
            .get(&group)
            .is_some_and(|group| group.serves(&self.clock) && group.raft.term() == term);
        if !leads {
            let outcome = ForwardOutcome::NotLeader;
            return out
                .now(Action::Send { to: from, message: PeerMessage::ForwardReply { number, outcome } });
        }
        let reads = reads.into_iter().map(|(start, end)| crate::keys::KeyRange { start, end }).collect();
        let transaction = Transaction { request, read_index, reads, valid_until, ops };
        let waiter = Waiter::Peer(from, number);
        if let Some(result) = self.commit(group, waiter, transaction) {
            self.answer(group, waiter, result);
        }
    }

    /// Another node says what became of a write.
    pub(super) fn forward_answered(&mut self, number: u64, outcome: ForwardOutcome, out: &mut Outputs) {
        let (number, asking) = (number & !ASKING, number & ASKING);
        let Some(pending) = self.forwards.pending.get_mut(&number) else { return };
        let is_last = asking + 1 == u64::from(pending.asked);
        if !is_last && !matches!(outcome, ForwardOutcome::Committed { .. }) {
            return;
        }
        let request = pending.transaction.request;
        let result = match outcome {
            ForwardOutcome::Committed { term, index, time, outcomes } => {
                return self.forward_committed(number, term, Committed { index, time, outcomes });
            }
            ForwardOutcome::NotLeader | ForwardOutcome::Unknown => {
                // A later leader is asked at once; the same one in a moment, however often it says so.
                let soon = self.now.mono + FORWARD_PAUSE;
                pending.sent = pending.sent.map(|(node, term, again)| (node, term, again.min(soon)));
                return self.retry_forward(number, out);
            }
            ForwardOutcome::Conflict => Err(Refused::Conflict),
            ForwardOutcome::Expired => {
                // What comes next is not named by a session that is forgotten.
                self.forwards.session.take_if(|(session, _)| *session == request.session);
                Err(Refused::Expired(request))
            }
            ForwardOutcome::Full(why) => Err(Refused::Full(why)),
            ForwardOutcome::Overloaded(waiting) => Err(Refused::Overloaded(waiting as usize)),
            ForwardOutcome::TooLarge(bytes, limit) => {
                Err(Refused::TooLarge { bytes: bytes as usize, limit: limit as usize })
            }
            ForwardOutcome::Stopping => Err(Refused::NotLeader),
        };
        if let Some(pending) = self.forwards.take(number) {
            self.replies.push((pending.token, told(pending.asked.saturating_sub(1), result)));
        }
    }

    /// The write is committed. Its client is told once this node's own state shows it: it reads what it wrote.
    fn forward_committed(&mut self, number: u64, term: Term, committed: Committed) {
        let Some(Pending { token, group: id, .. }) = self.forwards.take(number) else { return };
        if let Some(group) = self.groups.get_mut(&id) {
            group.raft.learn_committed(term, committed.index);
            self.dirty.insert(id);
        }
        let until = self.now.mono + FORWARD_PATIENCE;
        self.forwards.applying.entry(id).or_default().push(Applying { token, committed, until });
        self.forwards_applied(id);
    }

    /// More of a group is applied: clients whose writes are in it are told.
    pub(super) fn forwards_applied(&mut self, id: GroupId) {
        let (Some(group), Some(waiting)) = (self.groups.get(&id), self.forwards.applying.get_mut(&id)) else {
            return;
        };
        let (applied, now) = (group.state.applied, self.now.mono);
        // One that has waited long enough is told all the same: it is committed, only not seen here.
        let ready = |write: &mut Applying| write.committed.index <= applied || now >= write.until;
        for Applying { token, committed, .. } in waiting.extract_if(.., ready) {
            self.replies.push((token, Reply::Commit(Ok(committed))));
        }
    }

    /// Asks again if the leader, or its term, is another than the one asked last.
    fn retry_forward(&mut self, number: u64, out: &mut Outputs) {
        let Some(pending) = self.forwards.pending.get(&number) else { return };
        let Some(group) = self.groups.get(&pending.group) else { return };
        let term = group.raft.term();
        if group.raft.leader().is_some() && pending.sent.is_none_or(|(_, asked, _)| asked < term) {
            self.send_forward(number, out);
        }
    }

    /// The leader of a group is known, or is this node.
    pub(super) fn leader_changed_for_forwards(&mut self, id: GroupId, out: &mut Outputs) {
        let numbers: Vec<u64> =
            self.forwards.pending.iter().filter(|(_, p)| p.group == id).map(|(number, _)| *number).collect();
        let serves = self.groups.get(&id).is_some_and(|group| group.serves(&self.clock));
        for number in numbers {
            if !serves {
                self.retry_forward(number, out);
                continue;
            }
            // This node leads now: it looks the request up itself.
            let Some(Pending { token, transaction, asked, .. }) = self.forwards.take(number) else {
                continue;
            };
            if let Some(result) = self.commit(id, Waiter::Client(token), transaction) {
                self.replies.push((token, told(asked, result)));
            }
        }
    }

    /// Asks again what was not answered, and gives up what has waited too long.
    pub(super) fn tick_forwards(&mut self, out: &mut Outputs) {
        let groups: Vec<GroupId> = self.forwards.applying.keys().copied().collect();
        groups.into_iter().for_each(|id| self.forwards_applied(id));
        let now = self.now.mono;
        let numbers: Vec<u64> = self.forwards.pending.keys().copied().collect();
        for number in numbers {
            let Some(pending) = self.forwards.pending.get(&number) else { continue };
            if now >= pending.until {
                let reply = match pending.asked {
                    0 => Reply::Commit(Err(Refused::NotLeader)),
                    _ => Reply::Unknown(format!(
                        "the write was sent to the leader of group {}, and no answer came in {} s",
                        pending.group,
                        FORWARD_PATIENCE.as_secs()
                    )),
                };
                self.replies.push((pending.token, reply));
                self.forwards.take(number);
            } else if pending.sent.is_none_or(|(_, _, again)| now >= again) {
                self.send_forward(number, out);
                // If nobody can be asked now, it is tried again in a while, not at once.
                if let Some((_, _, again)) =
                    self.forwards.pending.get_mut(&number).and_then(|pending| pending.sent.as_mut())
                {
                    *again = (*again).max(now + FORWARD_PAUSE);
                }
            }
        }
    }
}

/// What a leader tells the node that took a write.
pub(super) fn outcome(term: Term, result: Result<Committed, Refused>) -> ForwardOutcome {
    match result {
        Ok(Committed { index, time, outcomes }) => ForwardOutcome::Committed { term, index, time, outcomes },
        Err(Refused::Conflict) => ForwardOutcome::Conflict,
        Err(Refused::Expired(_)) => ForwardOutcome::Expired,
        Err(Refused::NotLeader) => ForwardOutcome::NotLeader,
        Err(Refused::Full(why)) => ForwardOutcome::Full(why),
        Err(Refused::Overloaded(waiting)) => ForwardOutcome::Overloaded(waiting as u64),
        Err(Refused::TooLarge { bytes, limit }) => ForwardOutcome::TooLarge(bytes as u64, limit as u64),
        Err(Refused::Stopping) => ForwardOutcome::Stopping,
    }
}
