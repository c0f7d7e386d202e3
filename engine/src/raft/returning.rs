//! A member whose disk may have lost the end of its log comes back.
//!
//! Where writes count before they are synced, a power cut takes entries that were acknowledged, and with them the proof
//! that they were committed: with the votes of members that forgot it, a log without them would win. So such a member
//! gives no vote and asks for none. It tells the first leader that it hears ([`Message::Returned`]). The leader counts
//! nothing that the member acknowledged before, finds out anew where the logs agree, and names what is committed by then
//! ([`Message::Readmit`]): whatever the member may have helped to commit is in there. Once its log agrees up to that, it
//! is as if nothing had been lost. Terms, votes and configurations are synced in every mode.

use super::{Index, Message, NodeId, Output, Raft, Role, Term};
use serde::{Deserialize, Serialize};

/// How far a member that may have lost something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Doubt {
    /// No leader has answered yet.
    Untold,
    /// This term's leader wants its log to agree up to here.
    Until(Term, Index),
}

impl Raft {
    /// Tells the leader, until it has answered.
    pub(super) fn say_returned(&mut self, leader: NodeId) {
        let term = self.hard.term;
        let asks = match self.doubt {
            None => false,
            Some(Doubt::Untold) => true,
            Some(Doubt::Until(told, _)) => told != term,
        };
        if asks {
            self.send(leader, Message::Returned { term });
        }
    }

    /// A follower may have lost what it acknowledged. Before this leader knows what earlier ones committed it has no
    /// answer: it is asked again.
    pub(super) fn returned(&mut self, from: NodeId) {
        if !self.ready() {
            return;
        }
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.active = true;
        progress.forget(self.log.last().index);
        self.fresh = true;
        let (term, index) = (self.hard.term, self.hard.commit);
        self.send(from, Message::Readmit { term, index });
    }

    pub(super) fn readmitted(&mut self, term: Term, index: Index) {
        if self.doubt.is_some() && self.role == Role::Follower {
            self.doubt = Some(Doubt::Until(term, index));
        }
    }

    /// Whether it has, durably, what its leader wanted it to have.
    pub(super) fn settle_doubt(&mut self) {
        let Some(Doubt::Until(term, index)) = self.doubt else { return };
        if term == self.hard.term && self.role == Role::Follower && self.verified.min(self.persisted) >= index
        {
            self.doubt = None;
            self.draw_election();
            self.outputs.push(Output::Trusted);
        }
    }
}
