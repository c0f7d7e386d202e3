//! Elections: who asks, who votes, who wins, and when a leader gives up.

use super::progress::Progress;
use super::quorum::{VoteResult, committed_index, vote_result};
use super::{Index, Instant, LogId, Makes, Message, NodeId, Raft, Record, Role, Term, TransferError};
use crate::bugs::{self, Bug};
use chronos_proto::command::Command;

impl Raft {
    pub(super) fn draw_election(&mut self) {
        let timeout = self.settings.election_timeout_us;
        self.election_at = Instant(self.now.0 + timeout + self.rng.below(timeout));
    }

    /// Whether it has a vote, now or were the uncommitted end of its log cut: a learner or stranger never asks. One that
    /// is taken out by an entry that only it has must lead once more, or nobody ever will (dissertation, 4.2.2).
    pub(super) fn may_campaign(&self) -> bool {
        self.installing.is_none()
            && self.may_promise()
            && self.memberships.may_need(self.id, self.hard.commit)
    }

    /// Whether what it holds is all that it ever promised, as far as that can be known.
    fn may_promise(&self) -> bool {
        self.doubt.is_none() && !self.is_unfounded()
    }

    /// Asks for an election now, as if the leader had not been heard for long; of a group of one, it leads as soon as
    /// its vote is durable. Nothing happens if it has no vote, if it leads, while a snapshot is being put in place, or,
    /// where leases are on, for an election timeout after it heard a leader or started: that is what a lease rests on.
    pub fn campaign(&mut self, now: Instant) {
        self.now = self.now.max(now);
        let promised = self.settings.leases && self.now < self.sticky_until;
        if self.role != Role::Leader && self.may_campaign() && !promised {
            self.draw_election();
            self.pre_campaign();
        }
    }

    pub(super) fn pre_campaign(&mut self) {
        if self.configuration().is_alone(self.id) {
            return self.begin_term(false);
        }
        self.set_role(Role::PreCandidate, None);
        self.votes = [(self.id, true)].into();
        let message = Message::PreVote { term: self.hard.term.next(), last: self.log.last() };
        self.ask_voters(&message);
    }

    /// A new term with a vote for itself; the others are asked once that is durable.
    fn begin_term(&mut self, transferred: bool) {
        self.hard.term = self.hard.term.next();
        self.hard.vote = Some(self.id);
        self.transferred = transferred;
        self.forget_leader();
        self.set_role(Role::Candidate, None);
        let makes = Makes::Vote { term: self.hard.term, to: self.id };
        self.persist(Record::HardState(self.hard), makes);
    }

    fn ask_voters(&mut self, message: &Message) {
        for voter in self.configuration().members() {
            if voter != self.id && self.configuration().is_voter(voter) {
                self.send(voter, message.clone());
            }
        }
    }

    /// The leader hands over to this member.
    pub(super) fn timeout_now(&mut self) {
        if self.may_campaign() && self.role != Role::Leader {
            self.draw_election();
            self.begin_term(true);
        }
    }

    /// What a message's term means before the message itself does. False if it is not to be read on.
    pub(super) fn heed_term(&mut self, from: NodeId, message: &Message) -> bool {
        let term = message.term();
        if term > self.hard.term {
            let (asks, transfer) = match message {
                Message::PreVote { .. } => (true, false),
                Message::Vote { transfer, .. } => (true, *transfer),
                _ => (false, false),
            };
            if asks && !transfer && self.is_sticky() && self.leader != Some(from) {
                return false;
            }
            match message {
                // Nobody has begun that term yet.
                Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. } => {}
                _ => self.step_down(term),
            }
            return true;
        }
        if term < self.hard.term {
            match message {
                // One that is stuck in an older term learns of this one: a leader steps down, a candidate gives up.
                Message::Append { .. }
                | Message::Heartbeat { .. }
                | Message::Rest { .. }
                | Message::Snapshot { .. } => {
                    let term = self.hard.term;
                    self.send(from, Message::HeartbeatReply { term, round: 0 });
                }
                Message::PreVote { .. } => {
                    let term = self.hard.term;
                    self.send(from, Message::PreVoteReply { term, granted: false });
                }
                Message::Vote { .. } => {
                    let term = self.hard.term;
                    self.send(from, Message::VoteReply { term, granted: false });
                }
                _ => {}
            }
            return false;
        }
        true
    }

    /// Hears a leader, or is one: no vote for anybody else.
    fn is_sticky(&self) -> bool {
        self.role == Role::Leader || self.is_resting() || self.now < self.sticky_until
    }

    /// Follows nobody yet, in `term`.
    pub(super) fn step_down(&mut self, term: Term) {
        let was_leader = self.role == Role::Leader;
        if term > self.hard.term {
            self.hard.term = term;
            self.hard.vote = None;
            // The term is durable with the next promise that it matters for: hard state and entries keep their order.
            self.persist(Record::HardState(self.hard), Makes::Other);
        }
        self.set_role(Role::Follower, None);
        self.forget_leader();
        if was_leader {
            self.progress.clear();
            self.own_term_from = Index(u64::MAX);
            self.transfer = None;
            self.reads.fail(&mut self.outputs);
        }
        self.draw_election();
    }

    /// Only what is committed is sure to agree with the next leader's log.
    fn forget_leader(&mut self) {
        self.verified = self.hard.commit;
        self.owes_appended = false;
        self.votes.clear();
    }

    /// The sender leads this term.
    pub(super) fn follow(&mut self, leader: NodeId) {
        assert!(
            self.role != Role::Leader,
            "two leaders in term {}: {leader} and {}",
            self.hard.term,
            self.id
        );
        // One that only asked whether it would win is in the term still, and so is what it knows of this leader's log.
        if !matches!(self.role, Role::Follower | Role::PreCandidate) {
            self.forget_leader();
        }
        self.votes.clear();
        self.set_role(Role::Follower, Some(leader));
        self.sticky_until = Instant(self.now.0 + self.settings.election_timeout_us);
        self.draw_election();
    }

    /// Somebody asks for a vote (`transfer` is given) or whether there would be one (it is not).
    pub(super) fn vote_asked(&mut self, from: NodeId, term: Term, last: LogId, transfer: Option<bool>) {
        let real = transfer.is_some();
        let up_to_date = last.is_up_to_date(self.log.last()) || bugs::active(Bug::VoteForShorterLog);
        let free = self.hard.vote == Some(from)
            || self.hard.vote.is_none() && self.leader.is_none()
            || !real && term > self.hard.term;
        let sticky = transfer != Some(true) && self.is_sticky() && self.leader != Some(from);
        let granted = up_to_date && free && !sticky && self.may_promise() && self.role != Role::Leader;
        match (real, granted) {
            (false, _) => {
                let term = if granted { term } else { self.hard.term };
                self.send(from, Message::PreVoteReply { term, granted });
            }
            (true, false) => {
                let term = self.hard.term;
                self.send(from, Message::VoteReply { term, granted: false });
            }
            (true, true) => {
                self.draw_election();
                self.hard.vote = Some(from);
                if bugs::active(Bug::VoteNotDurable) {
                    return self.send(from, Message::VoteReply { term, granted: true });
                }
                self.persist(Record::HardState(self.hard), Makes::Vote { term, to: from });
            }
        }
    }

    /// The vote that was promised to `to` is on the medium, if it still holds.
    pub(super) fn vote_durable(&mut self, term: Term, to: NodeId) {
        if term != self.hard.term || self.hard.vote != Some(to) {
            return;
        }
        if to != self.id {
            return self.send(to, Message::VoteReply { term, granted: true });
        }
        if self.role == Role::Candidate {
            let message = Message::Vote { term, last: self.log.last(), transfer: self.transferred };
            self.ask_voters(&message);
            self.vote_given(self.id, true, Role::Candidate);
        }
    }

    /// An answer to what a (pre-)candidate asked.
    pub(super) fn vote_given(&mut self, from: NodeId, granted: bool, asked_as: Role) {
        if self.role != asked_as {
            return;
        }
        self.votes.entry(from).or_insert(granted);
        match (vote_result(self.configuration(), &self.votes), asked_as) {
            (VoteResult::Won, Role::PreCandidate) => self.begin_term(false),
            (VoteResult::Won, _) => self.lead(),
            (VoteResult::Lost, _) => self.set_role(Role::Follower, None),
            (VoteResult::Pending, _) => {}
        }
    }

    fn lead(&mut self) {
        let last = self.log.last().index;
        self.own_term_from = last.next();
        self.progress.clear();
        self.votes.clear();
        self.transfer = None;
        self.set_role(Role::Leader, Some(self.id));
        self.quorum_check_at = Instant(self.now.0 + self.settings.election_timeout_us);
        // Its first entry commits what others left, and opens the term for reads and changes.
        self.append_of_its_own(Command::Noop);
        self.sync_progress();
        self.reads.restart();
        self.beat();
    }

    /// A follower for each member but itself, and none for others.
    pub(super) fn sync_progress(&mut self) {
        let members = self.configuration().members();
        self.progress.retain(|node, _| members.contains(node));
        let last = self.log.last().index;
        for node in members.into_iter().filter(|node| *node != self.id) {
            // Its first append tells it that there is a group, and asks where the logs agree.
            self.progress.entry(node).or_insert_with(|| Progress::new(Index(last.0.saturating_sub(1))));
        }
        self.fresh = true;
    }

    pub(super) fn tick_leader(&mut self) {
        if self.transfer.take_if(|(_, until)| self.now >= *until).is_some() {
            self.fresh = true;
        }
        if self.now >= self.quorum_check_at {
            self.quorum_check_at = Instant(self.now.0 + self.settings.election_timeout_us);
            if !self.hears_quorum() || self.disk_hangs() {
                return self.step_down(self.hard.term);
            }
            self.progress.values_mut().for_each(|progress| progress.active = false);
        }
        if self.now >= self.heartbeat_at {
            self.beat();
        }
    }

    fn hears_quorum(&self) -> bool {
        let hears =
            |node| node == self.id || self.progress.get(&node).is_some_and(|progress| progress.active);
        // A leader that is no voter any more leads until its removal is committed.
        committed_index(self.configuration(), |node| u8::from(hears(node))) > 0
    }

    /// Its own writes have not come back for an election timeout.
    fn disk_hangs(&self) -> bool {
        let alone = self.configuration().is_alone(self.id);
        let oldest = self.writing.front().map(|writing| self.now.micros_since(writing.asked_at));
        !alone && oldest.is_some_and(|age| age >= self.settings.election_timeout_us)
    }

    /// Hands leadership to another voter: it is brought up to date, then told to campaign. Proposals are refused
    /// meanwhile, for an election timeout at the most.
    pub fn transfer(&mut self, to: NodeId) -> Result<(), TransferError> {
        if self.role != Role::Leader {
            return Err(TransferError::NotLeader);
        }
        if to == self.id || !self.configuration().voters.contains(&to) || !self.progress.contains_key(&to) {
            return Err(TransferError::NotVoter(to));
        }
        if let Some((other, _)) = self.transfer {
            return if other == to { Ok(()) } else { Err(TransferError::Pending(other)) };
        }
        self.stir();
        self.transfer = Some((to, Instant(self.now.0 + self.settings.election_timeout_us)));
        self.hand_over();
        Ok(())
    }

    /// Tells the successor to campaign once its log is complete.
    pub(super) fn hand_over(&mut self) {
        let Some((to, _)) = self.transfer else { return };
        let complete = self.progress.get(&to).is_some_and(|p| p.matched == self.log.last().index);
        if complete {
            let term = self.hard.term;
            self.send(to, Message::TimeoutNow { term });
            // However late that arrives, the other will be voted for.
            if !bugs::active(Bug::LeaseAfterTransfer) {
                self.reads.no_more_leases();
            }
        }
    }
}
