//! What the members of one Raft group say to each other.

use crate::command::Entry;
use crate::id::{Index, Term};
use crate::membership::Configuration;
use serde::{Deserialize, Serialize};

/// An entry's place: equal places hold equal entries, and all before them are equal (log matching).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogId {
    /// The entry's term.
    pub term: Term,
    /// Its index.
    pub index: Index,
}

impl LogId {
    /// Whether a log that ends here is at least as up to date as one that ends at `other` (section 5.4.1).
    pub fn is_up_to_date(self, other: LogId) -> bool {
        (self.term, self.index) >= (other.term, other.index)
    }
}

/// One message between two members of a group. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Would you vote for me in this term, which I have not begun?
    PreVote {
        /// The term to come.
        term: Term,
        /// The end of the sender's log.
        last: LogId,
    },
    /// The answer; nothing was promised.
    PreVoteReply {
        /// The term that was asked about if granted, else the voter's own.
        term: Term,
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The candidate's term.
        term: Term,
        /// The end of its log.
        last: LogId,
        /// The leader asked for this election: a voter that hears the leader votes all the same.
        transfer: bool,
    },
    /// The vote, durable.
    VoteReply {
        /// The voter's term.
        term: Term,
        /// Whether it was given.
        granted: bool,
    },
    /// Entries behind `previous`, or none, to find out where the logs agree.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry before the first of `entries`.
        previous: LogId,
        /// In order, without a gap.
        entries: Vec<Entry>,
        /// What the leader knows to be committed.
        commit: Index,
    },
    /// The log agrees with the leader's up to here, durably.
    Appended {
        /// The follower's term.
        term: Term,
        /// The greatest index that agrees and is durable.
        matched: Index,
    },
    /// The log has no such entry as `previous`.
    AppendRejected {
        /// The follower's term.
        term: Term,
        /// The index that was asked for.
        previous: Index,
        /// A place in the follower's log at or below which the two may agree.
        hint: LogId,
    },
    /// The leader is there.
    Heartbeat {
        /// Its term.
        term: Term,
        /// What is committed, no more than what the follower is known to hold.
        commit: Index,
        /// Names the round, ascending in a term: answers to it confirm the leader for reads that came before.
        round: u64,
    },
    /// The follower follows.
    HeartbeatReply {
        /// Its term.
        term: Term,
        /// The round that it answers.
        round: u64,
    },
    /// Campaign at once: the leader hands over.
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// The state at `last` in place of the log up to there; the state itself travels beside.
    Snapshot {
        /// The leader's term.
        term: Term,
        /// The last entry that is in it.
        last: LogId,
        /// The members at that entry.
        configuration: Configuration,
    },
    /// The sender may have lost the end of its log: what it acknowledged before counts no more.
    Returned {
        /// The follower's term.
        term: Term,
    },
    /// The answer: the follower's promises count again once its log agrees up to here.
    Readmit {
        /// The leader's term.
        term: Term,
        /// What was committed when the leader heard of the return.
        index: Index,
    },
    /// The leader is there, and wants to rest with a log that ends at `last` and is committed.
    Rest {
        /// Its term.
        term: Term,
        /// The end of its log.
        last: Index,
        /// As in a heartbeat.
        round: u64,
    },
    /// The follower has all of that, and rests.
    Resting {
        /// Its term.
        term: Term,
        /// The round that it answers.
        round: u64,
    },
}

impl Message {
    /// The term it speaks of.
    pub fn term(&self) -> Term {
        match self {
            Message::PreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::Vote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Append { term, .. }
            | Message::Appended { term, .. }
            | Message::AppendRejected { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::HeartbeatReply { term, .. }
            | Message::TimeoutNow { term }
            | Message::Snapshot { term, .. }
            | Message::Returned { term }
            | Message::Readmit { term, .. }
            | Message::Rest { term, .. }
            | Message::Resting { term, .. } => *term,
        }
    }

    /// Its name, for traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Message::PreVote { .. } => "PreVote",
            Message::PreVoteReply { .. } => "PreVoteReply",
            Message::Vote { .. } => "Vote",
            Message::VoteReply { .. } => "VoteReply",
            Message::Append { .. } => "Append",
            Message::Appended { .. } => "Appended",
            Message::AppendRejected { .. } => "AppendRejected",
            Message::Heartbeat { .. } => "Heartbeat",
            Message::HeartbeatReply { .. } => "HeartbeatReply",
            Message::TimeoutNow { .. } => "TimeoutNow",
            Message::Snapshot { .. } => "Snapshot",
            Message::Returned { .. } => "Returned",
            Message::Readmit { .. } => "Readmit",
            Message::Rest { .. } => "Rest",
            Message::Resting { .. } => "Resting",
        }
    }
}
