//! Rest: a group in which nothing happens sends nothing.
//!
//! A leader that has had nothing to do for a while, and whose followers have all that it has, offers rest with a round of
//! heartbeats ([`Message::Rest`]). A follower that has everything, durably and committed, agrees ([`Message::Resting`]) and
//! stops its election timer; it still gives no vote, since it takes its leader to be there. Once all have agreed to the
//! same log the leader stops its heartbeats and its check of the quorum. One that is behind or silent keeps its group awake.
//!
//! Whatever is asked of the leader wakes it, and its next word wakes the followers. What heartbeats told the members is
//! then told by somebody else: the driver, which knows of many groups at once whether the other node is there and still
//! leads them, must say [`Raft::leader_silent`], [`Raft::wake`] or [`Raft::unreachable`] when that is in doubt. Waking is
//! always safe, and costs an election timer at most.

use super::progress::Pace;
use super::{Index, Instant, Message, NodeId, Raft, Role};
use crate::bugs::{self, Bug};
use serde::{Deserialize, Serialize};

/// How far a member is from rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Rest {
    /// Awake.
    No,
    /// A leader offers rest from this round on.
    Offered(u64),
    /// At rest.
    Yes,
    /// A leader that was at rest takes its timers up at the next tick.
    Waking,
}

impl Raft {
    /// Whether it is at rest: its timers stand still, and somebody else has to look after the other members.
    pub fn is_resting(&self) -> bool {
        self.rest == Rest::Yes
    }

    /// Whom this member at rest relies on: a leader on all its followers, and a follower on its leader.
    pub fn relies_on(&self) -> impl Iterator<Item = NodeId> {
        let resting = self.is_resting();
        let leader = self.leader.filter(|leader| *leader != self.id);
        self.progress.keys().copied().chain(leader).filter(move |_| resting)
    }

    /// Ends rest, if it is at rest: one of the others may not be. A leader sends heartbeats at once.
    pub fn wake(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let oversleeps = self.role == Role::Follower && bugs::active(Bug::RestThroughDeath);
        if self.is_resting() && !oversleeps {
            self.stir();
            self.draw_election();
            self.wake_up();
        }
    }

    /// The leader's node has been silent for an election timeout: a follower at rest soon campaigns.
    pub fn leader_silent(&mut self, now: Instant) {
        self.now = self.now.max(now);
        if self.is_resting() {
            self.stir();
            let wait = self.rng.below(self.settings.election_timeout_us);
            // Not before what a lease rests on.
            self.election_at = Instant(self.now.0 + wait).max(self.sticky_until);
        }
    }

    /// Something happens in the group.
    pub(super) fn stir(&mut self) {
        self.busy_at = self.now;
        self.rest = match (self.role, self.rest) {
            (Role::Leader, Rest::Yes | Rest::Waking) => Rest::Waking,
            _ => Rest::No,
        };
    }

    /// What a message means for one that is at rest. Late answers mean nothing, and who asks for votes is to be told by the
    /// leader that there is one.
    pub(super) fn stirred_by(&mut self, message: &Message) {
        let stirs = match message {
            Message::Rest { .. } | Message::Resting { .. } => false,
            Message::HeartbeatReply { .. } | Message::Appended { .. } => false,
            Message::PreVote { .. } | Message::Vote { .. } => self.role == Role::Leader,
            _ => true,
        };
        if stirs && self.rest != Rest::No {
            self.stir();
            self.draw_election();
        }
    }

    /// Takes up the timers of a leader that was at rest; its followers have an election timeout to answer.
    pub(super) fn wake_up(&mut self) {
        if self.rest == Rest::Waking {
            self.rest = Rest::No;
            self.busy_at = self.now;
            self.quorum_check_at = Instant(self.now.0 + self.settings.election_timeout_us);
            self.progress.values_mut().for_each(|progress| progress.active = false);
            self.beat();
        }
    }

    /// Whether a leader's next round offers rest.
    pub(super) fn offers_rest(&mut self, round: u64) -> bool {
        let after = self.settings.rest_after_us;
        let last = self.log.last().index;
        let quiet = after > 0
            && self.now.micros_since(self.busy_at) >= after
            && self.ready()
            && self.hard.commit == last
            && self.persisted == last
            && self.transfer.is_none()
            && !self.configuration().is_joint()
            && self.reads.is_empty()
            && self.progress.values().all(|p| p.matched == last && p.pace == Pace::Replicate);
        self.rest = match (quiet, self.rest) {
            (true, Rest::Offered(since)) => Rest::Offered(since),
            (true, _) => Rest::Offered(round),
            (false, Rest::Waking) => Rest::Waking,
            (false, _) => Rest::No,
        };
        quiet
    }

    /// The leader offers rest at `last`.
    pub(super) fn rest_offered(&mut self, from: NodeId, last: Index, round: u64) {
        self.commit_to(last.min(self.verified));
        let has_all = self.hard.commit == last
            && self.log.last().index == last
            && self.persisted == last
            && self.doubt.is_none()
            && self.installing.is_none();
        let term = self.hard.term;
        if has_all {
            self.rest = Rest::Yes;
            self.send(from, Message::Resting { term, round });
        } else {
            self.rest = Rest::No;
            self.say_returned(from);
            self.send(from, Message::HeartbeatReply { term, round });
        }
    }

    /// A follower is at rest.
    pub(super) fn rest_agreed(&mut self, from: NodeId, round: u64) {
        self.heartbeat_answered(from, round);
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.rests_from = progress.rests_from.max(round);
        if let Rest::Offered(since) = self.rest
            && self.progress.values().all(|progress| progress.rests_from >= since)
        {
            self.rest = Rest::Yes;
        }
    }
}
