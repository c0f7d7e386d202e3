//! Writes on their way from one group's outbox to another group.
//!
//! ```text
//! origin's leader                       target's leader
//! outbox ── Outbox { first, ops } ────> Deliver, an entry there: what is new of it, and the last number
//! Delivered, an entry here  <── OutboxReply { upto } ── once that is applied
//! ```
//!
//! Everything may be lost or doubled on the way, and either leader may be another one by now: the origin sends again
//! until it is told, and the target applies by number. One message for a target is under way at a time.

use super::Node;
use crate::bugs::{self, Bug};
use crate::step::{Action, Fatal, Outputs};
use crate::store::SharedStore;
use chronos_proto::command::{Command, Op};
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::peer::PeerMessage;
use chronos_proto::time::Instant;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a target's leader may take before it is asked again.
const SEND_RETRY: Duration = Duration::from_millis(1_000);
/// How long until a leader is looked for again where there is none.
const LEADER_RETRY: Duration = Duration::from_millis(50);

/// One outbox of a group that this node leads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sending {
    /// The target has everything up to here.
    acknowledged: u64,
    /// When it is sent again.
    again: Instant,
}

/// The outboxes of the groups that this node leads, by origin and target.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outboxes {
    sending: BTreeMap<(GroupId, GroupId), Sending>,
    /// Those to be looked at before the step ends.
    wake: BTreeSet<(GroupId, GroupId)>,
}

impl Outboxes {
    pub fn next_deadline(&self) -> Option<Instant> {
        self.sending.values().map(|sending| sending.again).min()
    }
}

impl Node {
    /// Something was put into an outbox.
    pub(super) fn outbox_filled(&mut self, origin: GroupId, target: GroupId) {
        // What is under way is waited for: the answer to it brings the rest.
        if !self.outboxes.sending.contains_key(&(origin, target)) {
            self.outboxes.wake.insert((origin, target));
        }
    }

    /// This node leads a group now, or not any more: it sends what waits there, or nothing.
    pub(super) fn outboxes_of(&mut self, origin: GroupId) {
        self.outboxes.sending.retain(|(from, _), _| *from != origin);
        let Some(group) = self.groups.get(&origin).filter(|group| group.serves(&self.clock)) else { return };
        if bugs::active(Bug::ForgetOutbox) {
            return;
        }
        let targets: Vec<GroupId> = group.state.outbox_targets().collect();
        self.outboxes.wake.extend(targets.into_iter().map(|target| (origin, target)));
    }

    /// Another node leads a group: what is under way to it is sent to that one.
    pub(super) fn outboxes_for(&mut self, target: GroupId) {
        let keys = self.outboxes.sending.keys().filter(|(_, to)| *to == target);
        self.outboxes.wake.extend(keys.copied());
    }

    /// Sends what was put into outboxes, or is to be sent again.
    pub(super) fn send_outboxes(&mut self, store: &SharedStore, out: &mut Outputs) -> Result<(), Fatal> {
        while let Some((origin, target)) = self.outboxes.wake.pop_first() {
            self.send_outbox(origin, target, store, out)?;
        }
        Ok(())
    }

    pub(super) fn tick_outboxes(&mut self) {
        let now = self.now.mono;
        let due = self.outboxes.sending.iter().filter(|(_, sending)| now >= sending.again);
        self.outboxes.wake.extend(due.map(|(key, _)| *key));
    }

    fn send_outbox(
        &mut self,
        origin: GroupId,
        target: GroupId,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        let known = self.outboxes.sending.remove(&(origin, target));
        let acknowledged = known.map_or(0, |sending| sending.acknowledged);
        let Some(group) = self.groups.get(&origin).filter(|group| group.serves(&self.clock)) else {
            return Ok(());
        };
        let damaged = |error: crate::state::ReadError| Fatal::StateDamaged(error.to_string());
        let Some((first, ops)) = group.state.outbox(target, acknowledged, store).map_err(damaged)? else {
            return Ok(());
        };
        let there = self.groups.get(&target).and_then(|group| group.raft.leader());
        let there = there.filter(|node| *node == self.config.node || self.links.contains_key(node));
        let patience = if there.is_some() { SEND_RETRY } else { LEADER_RETRY };
        let again = self.now.mono + patience;
        self.outboxes.sending.insert((origin, target), Sending { acknowledged, again });
        match there {
            Some(node) if node == self.config.node => {
                self.outbox_arrived(node, origin, target, first, ops, out)
            }
            Some(node) => {
                let message = PeerMessage::Outbox { origin, target, first, ops };
                out.now(Action::Send { to: node, message });
            }
            None => {}
        }
        Ok(())
    }

    /// What another group's outbox holds for a group that this node is taken to lead. Where it cannot be taken now
    /// nothing is said: it comes again.
    pub(super) fn outbox_arrived(
        &mut self,
        from: NodeId,
        origin: GroupId,
        target: GroupId,
        first: u64,
        ops: Vec<Op>,
        out: &mut Outputs,
    ) {
        let refused = self.refusal().is_some();
        let Some(group) = self.groups.get_mut(&target).filter(|group| group.serves(&self.clock)) else {
            return;
        };
        let (has, last) = (group.state.inbox(origin), (first + ops.len() as u64).saturating_sub(1));
        if has >= last && !bugs::active(Bug::DeliverAgain) {
            return self.outbox_taken(from, origin, target, has, out);
        }
        if group.delivering.get(&origin).is_some_and(|(upto, _)| *upto >= last) {
            group.delivering.insert(origin, (last, from));
            return;
        }
        if refused || self.propose(target, Command::Deliver { origin, first, ops }).is_err() {
            return;
        }
        if bugs::active(Bug::AcknowledgeProposed) {
            return self.outbox_taken(from, origin, target, last, out);
        }
        if let Some(group) = self.groups.get_mut(&target) {
            group.delivering.insert(origin, (last, from));
        }
    }

    /// Everything up to a number of another group's outbox is applied: its leader is told.
    pub(super) fn outbox_applied(&mut self, target: GroupId, origin: GroupId, upto: u64, out: &mut Outputs) {
        let Some(group) = self.groups.get_mut(&target) else { return };
        let waits = group.delivering.get(&origin).copied();
        if let Some((_, to)) = waits.filter(|(last, _)| *last <= upto) {
            group.delivering.remove(&origin);
            self.outbox_taken(to, origin, target, upto, out);
        }
    }

    fn outbox_taken(&mut self, to: NodeId, origin: GroupId, target: GroupId, upto: u64, out: &mut Outputs) {
        if to == self.config.node {
            return self.outbox_acknowledged(origin, target, upto);
        }
        let message = PeerMessage::OutboxReply { origin, target, upto };
        out.now(Action::Send { to, message });
    }

    /// The target has everything up to a number: that goes out of the outbox, and the rest is sent.
    pub(super) fn outbox_acknowledged(&mut self, origin: GroupId, target: GroupId, upto: u64) {
        let Some(sending) = self.outboxes.sending.get(&(origin, target)).copied() else { return };
        if upto <= sending.acknowledged
            || !self.groups.get(&origin).is_some_and(|group| group.serves(&self.clock))
        {
            return;
        }
        // Not logged now: what was sent is sent again, and answered again.
        if self.propose(origin, Command::Delivered { target, upto }).is_ok() {
            self.outboxes.sending.insert((origin, target), Sending { acknowledged: upto, ..sending });
            self.outboxes.wake.insert((origin, target));
        }
    }
}
