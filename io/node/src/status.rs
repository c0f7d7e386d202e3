//! What an operator may want to know of a node.

use crate::link::{LinkState, LinkStatus};
use crate::options::Fsync;
use crate::recording::RecordingStatus;
use chronos_engine::proto::id::{ClusterId, Incarnation, NodeId};
use chronos_engine::proto::membership::Member;
use chronos_engine::proto::time::Timestamp;
use chronos_engine::{node, raft};
use std::path::PathBuf;
use std::time::Duration;

/// Said of a node with an empty store.
pub(crate) const AWAITS: &str = "this node has nothing, and cannot tell whether the cluster is there already: it neither votes nor leads until it has heard every node that the cluster begins with";

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// Where its files are.
    pub data_dir: PathBuf,
    /// When an acknowledged write is on the medium. Weaker than `always` is to be shown.
    pub fsync: Fsync,
    /// How long it has been open.
    pub uptime: Duration,
    /// What the engine says.
    pub engine: node::Status,
    /// Group 0's term.
    pub term: u64,
    /// Group 0's role.
    pub role: Role,
    /// The nodes of the cluster, as this one knows them; empty for a node alone.
    pub members: Vec<Member>,
    /// Links to them.
    pub links: Vec<LinkStatus>,
    /// `host:port` of this node's HTTP listener, as its peers are told.
    pub http: Option<String>,
    /// The WAL's files.
    pub wal: WalStatus,
    /// The store's file.
    pub store: StoreStatus,
    /// Clocks.
    pub clock: ClockStatus,
    /// What is recorded; none if nothing was to be.
    pub recording: Option<RecordingStatus>,
    /// What the opening found and did that an operator should read: a torn tail that was cut, a store rebuilt.
    pub notices: Vec<String>,
    /// Set once the node must stop: what happened.
    pub fatal: Option<String>,
}

/// A node's role in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Leader,
    /// Follows a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
}

impl NodeStatus {
    /// Whom this node, which has nothing, waits for before it takes part, and what is known of them.
    pub fn waits_for(&self) -> Option<String> {
        let awaited = |node: &NodeId| {
            let link = self.links.iter().find(|link| link.peer == *node);
            let name = self.members.iter().find(|member| member.node == *node);
            let name = name.map_or_else(|| format!("{:016x}", node.0), |member| member.name.clone());
            match link.map(|link| &link.state) {
                Some(LinkState::Refused { why } | LinkState::Connecting { why: Some(why) }) => {
                    format!("{name} ({why})")
                }
                _ => name,
            }
        };
        let names: Vec<String> = self.engine.awaits.iter().map(awaited).collect();
        (!names.is_empty()).then(|| format!("{AWAITS}: {}", names.join(", ")))
    }

    /// Whether somebody leads group 0, as far as this node knows, and what time it is is known too.
    pub fn has_leader(&self) -> bool {
        let leads = |group: &node::GroupStatus| group.leader || group.leads.is_some_and(|l| l != self.node);
        self.engine.has_time && self.engine.groups.first().is_some_and(leads)
    }

    /// Whether this node leads group 0 and serves.
    pub fn leads(&self) -> bool {
        self.engine.has_time && self.engine.groups.first().is_some_and(|group| group.leader)
    }

    /// Who leads group 0, as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.engine.groups.first().and_then(|group| group.leads)
    }
}

impl Role {
    /// The role in a group that `status` tells of.
    pub(crate) fn of(status: &node::GroupStatus, this: NodeId) -> Role {
        match status.role {
            raft::Role::Leader => Role::Leader,
            raft::Role::PreCandidate | raft::Role::Candidate => Role::Candidate,
            raft::Role::Follower if status.learns && status.leads != Some(this) => Role::Learner,
            raft::Role::Follower => Role::Follower,
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What the WAL thread did since the node was opened.
#[derive(Clone, Debug, Default)]
pub struct WalStatus {
    /// Syncs done.
    pub syncs: u64,
    /// How long they took.
    pub sync_latency: Histogram,
    /// Bytes written.
    pub written_bytes: u64,
    /// Segment files that exist.
    pub segments: u64,
    /// Writes that met a full disk.
    pub full: u64,
}

/// What is known of the store.
#[derive(Clone, Debug, Default)]
pub struct StoreStatus {
    /// The length of its file.
    pub file_bytes: u64,
    /// Bytes of it in use.
    pub used_bytes: u64,
    /// Checkpoints written since the node was opened.
    pub checkpoints: u64,
    /// Checkpoints that met a full disk or quota.
    pub checkpoints_full: u64,
    /// How long the last one took.
    pub last_checkpoint_took: Duration,
    /// When the last one ended; none if none did since the node was opened.
    pub last_checkpoint_at: Option<Timestamp>,
    /// Views of superseded checkpoints that readers still hold: they keep the file from shrinking its use.
    pub old_views: u64,
    /// The verification of the whole file.
    pub verify: VerifyState,
}

/// How far the whole file has been verified since the node was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum VerifyState {
    /// Not begun.
    #[default]
    Pending,
    /// Going on in the background.
    Running {
        /// Pages read.
        pages: u64,
        /// Pages to read.
        of: u64,
    },
    /// All of it is well.
    Verified,
    /// Damage was found: what and where.
    Damaged(String),
}

/// The node's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockStatus {
    /// Cluster time now.
    pub cluster: Timestamp,
    /// The wall clock now.
    pub wall: Timestamp,
    /// Whether the operating system says that its clock is synchronised.
    pub synchronised: bool,
    /// Steps of the wall clock that were noticed since the node was opened.
    pub steps: u64,
    /// The last of them.
    pub last_step: Option<ClockStep>,
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStep {
    /// Microseconds, positive if forward.
    pub micros: i64,
    /// Whether cluster time follows it.
    pub adopted: bool,
}

/// Counts of durations by power of two of microseconds: bucket `i` holds what took up to `1 << i` microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Counts; the last bucket takes everything above.
    pub buckets: [u64; 26],
    /// How many in all.
    pub count: u64,
    /// Their sum, in microseconds.
    pub sum_us: u64,
    /// The longest, in microseconds.
    pub max_us: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.buckets[bucket.min(self.buckets.len() - 1)] += 1;
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        self.max_us = self.max_us.max(us);
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Histogram) {
        for (here, there) in self.buckets.iter_mut().zip(other.buckets) {
            *here += there;
        }
        self.count += other.count;
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The upper edge, in microseconds, of the bucket that holds quantile `q` (0 to 1).
    pub fn quantile_us(&self, q: f64) -> u64 {
        let wanted = (self.count as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (i, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return (1 << i).min(self.max_us);
            }
        }
        self.max_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_buckets_are_upper_edges() {
        let mut h = Histogram::default();
        for us in [0, 1, 2, 3, 4, 5, 1_000_000_000] {
            h.record(Duration::from_micros(us));
        }
        assert_eq!(h.buckets[..4], [2, 1, 2, 1]);
        assert_eq!(h.buckets[25], 1);
        assert_eq!((h.count, h.max_us), (7, 1_000_000_000));
        assert_eq!(h.quantile_us(0.5), 4);
        assert_eq!(h.quantile_us(1.0), 1 << 25);
    }
}
