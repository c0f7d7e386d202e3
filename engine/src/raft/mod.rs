//! Raft, one group's: terms, votes, the log, and what is committed (Ongaro and Ousterhout, "In Search of an
//! Understandable Consensus Algorithm", extended version).
//!
//! [`Raft`] decides and asks; it writes and sends nothing. What it wants durable comes back as [`wal::Record`]s, and it
//! moves on when the caller says that they are: a candidate leads once its own vote is durable, and an entry counts
//! towards a quorum once it is durable where it counts.
//!
//! The chain that always holds: applied ≤ committed ≤ persisted ≤ last. (For a leader with peers committed ≤
//! persisted would not hold, since a quorum may do without the leader's own disk.)
//!
//! Not implemented: peers. A group has one voter, this node; elections, terms, hard state and commit are real, and
//! replication, membership changes, pre-vote, leases and snapshots have their place here.
//!
//! [`wal::Record`]: crate::wal::Record

mod log;
mod quorum;

pub use log::Log;
pub use quorum::committed_index;

use crate::wal::HardState;
use chronos_proto::command::{Command, Entry};
use chronos_proto::id::{GroupId, Index, NodeId, Term};
use chronos_proto::time::Timestamp;
use std::sync::Arc;

/// What a member is in its term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits.
    Follower,
    /// Has voted for itself, and waits for a quorum of votes.
    Candidate,
    /// Won the term's election.
    Leader,
}

/// One member's state in one group.
#[derive(Clone, Debug)]
pub struct Raft {
    group: GroupId,
    id: NodeId,
    voters: Vec<NodeId>,
    hard: HardState,
    role: Role,
    log: Log,
    /// The last index that is durable here. Invariant: committed <= persisted <= last.
    persisted: Index,
    /// The index of this leader's first entry: nothing is committed by counting before it is.
    own_term_from: Index,
}

impl Raft {
    /// A member as its disk left it. `log` begins behind the applied index of the checkpoint.
    pub fn recover(group: GroupId, id: NodeId, hard: HardState, log: Log) -> Raft {
        let persisted = log.last();
        let hard = HardState { commit: hard.commit.max(log.base()), ..hard };
        assert!(hard.commit <= persisted, "commit {} is beyond the recovered log {persisted}", hard.commit);
        Raft {
            group,
            id,
            voters: vec![id],
            hard,
            role: Role::Follower,
            log,
            persisted,
            own_term_from: Index(u64::MAX),
        }
    }

    /// Its group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The current role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The last index of the log, durable or not.
    pub fn last(&self) -> Index {
        self.log.last()
    }

    /// The last entry, if it is in memory.
    pub fn last_entry(&self) -> Option<&Entry> {
        self.log.last_entry()
    }

    /// The commit index.
    pub fn committed(&self) -> Index {
        self.hard.commit
    }

    /// Whether it leads and has committed an entry of its own term: only then it knows all that is committed
    /// (section 8 of the paper).
    pub fn ready(&self) -> bool {
        self.role == Role::Leader && self.hard.commit >= self.own_term_from
    }

    /// The index of this leader's first entry; the greatest index there is before it leads.
    pub fn own_term_from(&self) -> Index {
        self.own_term_from
    }

    /// Starts an election: the new term and the vote for itself must be durable before anything else.
    pub fn campaign(&mut self) -> HardState {
        self.hard.term = self.hard.term.next();
        self.hard.vote = Some(self.id);
        self.role = Role::Candidate;
        self.hard
    }

    /// The hard state of `term` is durable. A candidate that has a quorum of votes, its own counted, leads.
    pub fn hard_state_durable(&mut self, term: Term) -> bool {
        let votes = 1;
        let elected = self.role == Role::Candidate && term == self.hard.term && votes > self.voters.len() / 2;
        if elected {
            self.role = Role::Leader;
            self.own_term_from = self.log.last().next();
        }
        elected
    }

    /// The entry that a command would be; only a leader may. [`Raft::append`] takes it once the WAL has.
    pub fn entry(&self, time: Timestamp, stamp: u64, command: Arc<Command>) -> Entry {
        assert_eq!(self.role, Role::Leader, "only a leader proposes");
        Entry { term: self.hard.term, index: self.log.last().next(), time, stamp, command }
    }

    /// Appends the next entry of the log.
    pub fn append(&mut self, entry: Entry) {
        self.log.push(entry);
    }

    /// Entries up to `index` are durable here. True if more is committed now.
    pub fn entries_durable(&mut self, index: Index) -> bool {
        assert!(index <= self.log.last(), "durable {index} is beyond the last entry {}", self.log.last());
        self.persisted = self.persisted.max(index);
        let matched: Vec<Index> = self.voters.iter().map(|_| self.persisted).collect();
        let committed = committed_index(&matched);
        // Only an entry of the own term commits by counting (figure 8 of the paper).
        let advances =
            self.role == Role::Leader && committed >= self.own_term_from && committed > self.hard.commit;
        if advances {
            self.hard.commit = committed;
        }
        advances
    }

    /// The next committed entry above `applied`.
    pub fn next_committed(&self, applied: Index) -> Option<&Entry> {
        if applied < self.hard.commit { self.log.get(applied.next()) } else { None }
    }

    /// Entries up to `index` are applied and need not be kept in memory.
    pub fn applied(&mut self, index: Index) {
        assert!(index <= self.hard.commit, "applied {index} is beyond the commit index {}", self.hard.commit);
        self.log.forget_through(index);
    }
}
