//! One process's whole protocol state, and the step that moves it.

use crate::step::{Input, Outputs, Reason};
use crate::store::SharedStore;
use crate::txn::Refused;
use chronos_proto::id::{ClusterId, GroupId, Incarnation, NodeId};
use chronos_proto::time::{Instant, Now};

/// When a WAL write counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// When it is synced. Acknowledged means synced.
    Always,
    /// When it is written; synced every so many microseconds. A power cut loses at most that much.
    Interval(u64),
    /// When it is written; synced by the operating system at its leisure.
    Never,
}

/// What a node is told once, at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Itself.
    pub node: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// Differs after every boot of the machine: the monotonic clock counts from there.
    pub boot: u64,
    /// Seeds the node's generator.
    pub seed: u64,
    /// When a write counts as durable.
    pub fsync: Fsync,
    /// The overlay is frozen for a checkpoint at this many bytes of WAL.
    pub checkpoint_wal_bytes: u64,
    /// Or at this age, in microseconds.
    pub checkpoint_interval_us: u64,
    /// The overlay's budget; near it, writes are refused.
    pub overlay_max_bytes: usize,
    /// The size of a WAL segment.
    pub segment_bytes: u64,
    /// The most requests that may be waiting for their write.
    pub inflight_max: usize,
    /// How far ahead of its due time a timer's firing is written at the most, in microseconds.
    pub fire_ahead_max_us: i64,
    /// How far ahead the wheel holds timers, in microseconds.
    pub wheel_window_us: i64,
    /// How many timers the wheel holds at the most.
    pub wheel_max: usize,
}

/// One process's protocol state.
pub struct Node {
    config: Config,
}

impl Node {
    /// A node over what recovery found in its WAL and its store. Its first effects go to `out`.
    pub fn new(
        config: Config,
        now: Now,
        recovered: crate::wal::Recovered,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<Node, crate::step::Fatal> {
        let _ = (now, recovered, store, out);
        Ok(Node { config })
    }

    /// Takes one input. `store` is the newest durable checkpoint.
    pub fn step(&mut self, now: Now, input: Input, store: &SharedStore, out: &mut Outputs) {
        let _ = (now, input, store, out, &self.config);
    }

    /// When the node next wants a tick, and why.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        None
    }

    /// What an operator may want to know.
    pub fn status(&self) -> Status {
        Status::default()
    }
}

/// What `/status` and `/metrics` show of the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// By group.
    pub groups: Vec<GroupStatus>,
    /// Timers pending in all, whether in the wheel or beyond its window.
    pub timers_pending: u64,
    /// Timers in the wheel.
    pub timers_near: u64,
    /// Bytes of the overlay.
    pub overlay_bytes: u64,
    /// WAL bytes since the last checkpoint.
    pub wal_bytes: u64,
    /// Requests whose write is awaited.
    pub inflight: u64,
    /// Open subscriptions.
    pub subscribers: u64,
    /// Writes are refused, and why.
    pub refusing: Option<String>,
}

/// One group's part of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its term.
    pub term: u64,
    /// Whether this node leads it.
    pub leader: bool,
    /// Applied so far.
    pub applied: u64,
    /// Sum of the digests of all its state.
    pub digest: u64,
}

/// Keeps `Refused` in this module's documentation: what [`Node::step`] answers a commit with.
pub type CommitRefused = Refused;
