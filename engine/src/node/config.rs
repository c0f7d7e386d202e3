//! What a node is told once, at its start.

use crate::raft;
use crate::wal::{self, Identity};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, NodeId};
use chronos_proto::membership::{Configuration, Member};
use serde::{Deserialize, Serialize};

/// A group rests after so long without anything to do, in microseconds.
pub const REST_AFTER_US: u64 = 1_000_000;

/// When a WAL write counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fsync {
    /// When it is synced. Acknowledged means synced.
    Always,
    /// When it is written; synced every so many microseconds. A power cut loses at most that much.
    Interval(u64),
    /// When it is written; synced by the operating system at its leisure.
    Never,
}

/// A node's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// The groups it hosts.
    pub groups: Vec<GroupId>,
    /// The nodes that the cluster began with, this one among them; empty for a node that is alone.
    pub members: Vec<Member>,
    /// The cluster is there already: this node waits to be taken in, and asks for no election before it is.
    pub joins: bool,
    /// Raft's times and bounds.
    pub raft: raft::Settings,
    /// Differs after every boot of the machine: the monotonic clock counts from there.
    pub boot: u64,
    /// The number of this start of the store: see [`Start`](super::Start).
    pub boots: u64,
    /// Seeds the node's generator. Another one at every start: requests of clients that name none are named by it.
    pub seed: u64,
    /// When a write counts as durable.
    pub fsync: Fsync,
    /// The last run was in a weak fsync mode and did not end cleanly: what it acknowledged may be lost, so this node
    /// neither votes nor leads until a leader has caught it up.
    pub doubtful: bool,
    /// The overlay is frozen for a checkpoint at this many bytes of WAL.
    pub checkpoint_wal_bytes: u64,
    /// Or at this age, in microseconds.
    pub checkpoint_interval_us: u64,
    /// The overlay's budget; over it, writes are refused until a checkpoint made room.
    pub overlay_max_bytes: usize,
    /// The WAL is kept below this many bytes: checkpoints come in time for that. Past it writes are refused until the
    /// running one is done, and entries that only followers and a damaged checkpoint may still want are given up.
    pub wal_max_bytes: u64,
    /// The size of a WAL segment.
    pub segment_bytes: u64,
    /// The most requests that may be waiting for their write.
    pub inflight_max: usize,
    /// Writes are refused while this many bytes wait for the WAL.
    pub pending_max_bytes: usize,
    /// Bytes of keys and values in one chunk of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// How many recent writes the resolver remembers, by key.
    pub resolver_keys: usize,
    /// How far ahead of its due time a timer's firing is written at the most, in microseconds.
    pub fire_ahead_max_us: i64,
    /// How far ahead the wheel holds timers, in microseconds.
    pub wheel_window_us: i64,
    /// How many timers the wheel loads at the most; it holds twice as many before it starts over.
    pub wheel_max: usize,
}

impl Config {
    /// The settings of a server with memory to spare, for one group.
    pub fn new(cluster: ClusterId, node: NodeId, incarnation: Incarnation, boot: u64, seed: u64) -> Config {
        Config {
            cluster,
            node,
            incarnation,
            groups: vec![GroupId(0)],
            members: Vec::new(),
            joins: false,
            boots: 0,
            raft: raft::Settings { rest_after_us: REST_AFTER_US, ..raft::Settings::default() },
            boot,
            seed,
            fsync: Fsync::Always,
            doubtful: false,
            checkpoint_wal_bytes: 256 << 20,
            checkpoint_interval_us: 600_000_000,
            overlay_max_bytes: 1 << 30,
            wal_max_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            inflight_max: 16_384,
            pending_max_bytes: 64 << 20,
            snapshot_chunk_bytes: 256 << 10,
            resolver_keys: 1 << 18,
            fire_ahead_max_us: 20_000,
            wheel_window_us: 60_000_000,
            wheel_max: 1 << 18,
        }
    }

    /// Smaller bounds, for a small machine with an SD card.
    pub fn small(self) -> Config {
        Config {
            checkpoint_wal_bytes: 32 << 20,
            overlay_max_bytes: 128 << 20,
            wal_max_bytes: 128 << 20,
            segment_bytes: 8 << 20,
            resolver_keys: 1 << 15,
            wheel_max: 1 << 15,
            ..self
        }
    }

    /// Groups beside group 0, for the partitions of topics.
    pub(super) fn partition_groups(&self) -> u32 {
        self.groups.iter().map(|group| group.0).max().unwrap_or(0)
    }

    /// The members of a group at its beginning.
    pub(super) fn first_configuration(&self) -> Configuration {
        match (self.joins, self.members.is_empty()) {
            (true, _) => Configuration::default(),
            (false, true) => Configuration::of([self.node]),
            (false, false) => Configuration::of(self.members.iter().map(|member| member.node)),
        }
    }

    pub(super) fn wal(&self) -> wal::Config {
        wal::Config {
            identity: Identity { cluster: self.cluster, node: self.node, incarnation: self.incarnation },
            segment_bytes: self.segment_bytes,
            fsync: self.fsync,
            pending_max_bytes: self.pending_max_bytes,
        }
    }
}
