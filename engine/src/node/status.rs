//! What `/status` and `/metrics` show of the engine.

use super::{Group, Node};
use crate::raft::Role;
use chronos_proto::id::{GroupId, NodeId};

/// A node's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// By group.
    pub groups: Vec<GroupStatus>,
    /// Whether cluster time is known: not yet by a new node of a cluster that has heard of none.
    pub has_time: bool,
    /// Timers pending in all, whether in the wheel or beyond its window.
    pub timers_pending: u64,
    /// Timers in the wheel.
    pub timers_near: u64,
    /// Bytes of the overlay.
    pub overlay_bytes: u64,
    /// WAL bytes since the last checkpoint.
    pub wal_bytes: u64,
    /// Bytes of WAL segments that are kept.
    pub wal_kept_bytes: u64,
    /// How often the WAL was over its bound after a checkpoint, and was given up to that.
    pub wal_shortened: u64,
    /// Groups whose leadership is being handed over to another node.
    pub handing_over: u64,
    /// Requests whose write is awaited.
    pub inflight: u64,
    /// Open subscriptions.
    pub subscribers: u64,
    /// How far ahead of due times firings are written now, in microseconds.
    pub fire_ahead_us: i64,
    /// Nodes that are no members any more and that a group has not let go.
    pub leaving: Vec<NodeId>,
    /// This node has nothing, and waits for word of these whether the cluster is there already.
    pub awaits: Vec<NodeId>,
    /// Writes are refused, and why.
    pub refusing: Option<String>,
}

/// One group's part of the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its term.
    pub term: u64,
    /// Whether this node leads it and takes writes.
    pub leader: bool,
    /// Its role.
    pub role: Role,
    /// Who votes; while members change, who will.
    pub voters: Vec<NodeId>,
    /// Who voted before a change that is under way.
    pub outgoing: Vec<NodeId>,
    /// Who follows without a vote.
    pub learners: Vec<NodeId>,
    /// A leader's followers, and up to where the log of each is known to be the same.
    pub followers: Vec<(NodeId, u64)>,
    /// Whether it has no vote.
    pub learns: bool,
    /// It may have lost what it acknowledged: it neither votes nor leads until a leader has caught it up.
    pub doubtful: bool,
    /// Who leads, as far as it knows.
    pub leads: Option<NodeId>,
    /// How often another leader became known here since the start, this node among them.
    pub leader_changes: u64,
    /// Elections that this node won since the start.
    pub elections_won: u64,
    /// The end of its log.
    pub last: u64,
    /// Committed so far.
    pub committed: u64,
    /// Applied so far.
    pub applied: u64,
    /// Sum of the digests of all its state.
    pub digest: u64,
    /// The same without who is in the cluster.
    pub data_digest: u64,
}

impl Node {
    fn group_status(&self, group: &Group) -> GroupStatus {
        let raft = group.raft.status();
        let members = raft.configuration;
        GroupStatus {
            group: group.raft.group(),
            term: raft.term.0,
            leader: group.serves(&self.clock),
            role: raft.role,
            learns: !members.is_voter(self.config.node),
            doubtful: raft.doubtful,
            voters: members.voters.into_iter().collect(),
            outgoing: members.outgoing.into_iter().collect(),
            learners: members.learners.into_iter().collect(),
            followers: match raft.role {
                Role::Leader => raft.followers.into_iter().map(|(node, (at, _))| (node, at.0)).collect(),
                _ => Vec::new(),
            },
            leads: raft.leader,
            leader_changes: group.leader_changes,
            elections_won: group.elections_won,
            last: raft.last.index.0,
            committed: raft.committed.0,
            applied: group.state.applied.0,
            digest: group.state.digests().total(),
            data_digest: group.state.digests().data(),
        }
    }

    /// What an operator may want to know.
    pub fn status(&self) -> Status {
        let sum = |of: &dyn Fn(&super::Group) -> u64| self.groups.values().map(of).sum();
        Status {
            leaving: self.leaving(),
            has_time: self.clock.is_set(),
            awaits: self.awaits(),
            groups: self.groups.values().map(|group| self.group_status(group)).collect(),
            timers_pending: sum(&|group| group.state.timers_pending),
            timers_near: sum(&|group| group.timers.near() as u64),
            overlay_bytes: sum(&|group| group.state.overlay_bytes() as u64),
            wal_bytes: self.wal_bytes(),
            wal_kept_bytes: self.wal.kept(),
            wal_shortened: self.checkpoints.shortened,
            handing_over: sum(&|group| u64::from(group.raft.status().transfer.is_some())),
            inflight: sum(&|group| group.waiting() as u64),
            subscribers: self.delivery.len() as u64,
            fire_ahead_us: self.fire_ahead_us(),
            refusing: self.refusal().map(|refused| refused.to_string()),
        }
    }

    /// The state of a group, for checkers and tools.
    pub fn state(&self, group: GroupId) -> Option<&crate::state::State> {
        self.groups.get(&group).map(|group| &group.state)
    }
}
