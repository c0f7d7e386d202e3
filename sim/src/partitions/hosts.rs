//! A computer of this stage: its disk, clocks and store, and the node on it.

use super::Knobs;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::rng::Rng;
use crate::store::SimStore;
use chronos_engine::Node;
use chronos_engine::node::Config;
use chronos_engine::raft::{Role, Settings};
use chronos_engine::step::{CheckpointId, Effect, Input, Published};
use chronos_engine::store::SharedStore;
use chronos_engine::wal::{Identity, WalOp, WriteId};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, NodeId};
use chronos_proto::membership::Member;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Nodes in traces.
pub(super) const NAMES: [&str; 6] = ["n1", "n2", "n3", "n4", "n5", "n6"];

pub(super) struct Host {
    pub number: usize,
    pub clock: Clock,
    pub disk: Disk,
    pub store: SimStore,
    pub shared: SharedStore,
    pub up: Option<Up>,
    /// Counts starts of the process.
    pub run: u64,
    /// It was told to wait until it is taken in.
    pub joins: bool,
    /// It is no member any more.
    pub left: bool,
}

/// A running process.
pub(super) struct Up {
    pub node: Node,
    pub inbox: VecDeque<Input>,
    pub driving: bool,
    pub waiting: Vec<Effect>,
    pub durable: Option<WriteId>,
    pub ops: VecDeque<WalOp>,
    pub busy: bool,
    pub checkpoint: Option<(CheckpointId, SimStore)>,
    pub published: BTreeMap<GroupId, Published>,
    pub deadline: u64,
}

impl Host {
    pub fn new(number: usize, knobs: &Knobs, rng: &mut Rng) -> Host {
        let store = SimStore::default();
        Host {
            number,
            clock: Clock::new(*rng.pick(&[-50, 0, 50]), *rng.pick(&[-20_000, 0, 20_000]), true),
            disk: Disk::default(),
            shared: Arc::new(store.clone()),
            store,
            up: None,
            run: 0,
            joins: number >= knobs.nodes,
            left: false,
        }
    }

    pub fn id(&self) -> NodeId {
        id(self.number)
    }

    pub fn identity(&self) -> Identity {
        Identity { cluster: ClusterId(7), node: self.id(), incarnation: Incarnation(1) }
    }

    pub fn config(&self, knobs: &Knobs) -> Config {
        let Identity { cluster, node, incarnation } = self.identity();
        let members = if knobs.nodes == 1 { Vec::new() } else { (0..knobs.nodes).map(member).collect() };
        Config {
            groups: (0..=knobs.groups).map(GroupId).collect(),
            members,
            joins: self.joins,
            boots: self.run,
            segment_bytes: 256 << 10,
            checkpoint_wal_bytes: knobs.checkpoint_bytes,
            raft: Settings { kept_bytes_max: knobs.kept_bytes, ..Settings::default() },
            ..Config::new(cluster, node, incarnation, self.clock.boot, knobs.seed ^ self.run ^ node.0 << 32)
        }
    }

    /// Its term in a group that it leads.
    pub fn leads(&self, group: GroupId) -> Option<u64> {
        let raft = self.up.as_ref()?.node.raft(group)?;
        (raft.role() == Role::Leader).then(|| raft.term().0)
    }
}

/// The node of a host.
pub(super) fn id(host: usize) -> NodeId {
    NodeId(host as u64 + 1)
}

/// The host of a node.
pub(super) fn of(node: NodeId) -> usize {
    node.0 as usize - 1
}

pub(super) fn member(host: usize) -> Member {
    let name = NAMES[host].to_owned();
    Member { node: id(host), address: format!("{name}:8000"), name, incarnation: None, boot: 0 }
}
