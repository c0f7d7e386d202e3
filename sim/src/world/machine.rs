//! A computer of the world: its disk, its clocks, its store, and the process that runs on it, if one does.

use super::faults::Ills;
use super::shell::Up;
use crate::checker::clock::ClusterTime;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::knobs::Knobs;
use crate::rng::Rng;
use crate::store::SimStore;
use chronos_engine::node::Start;
use chronos_engine::store::SharedStore;
use chronos_engine::wal::Identity;
use chronos_proto::id::{ClusterId, Incarnation, NodeId};
use chronos_proto::membership::Member;
use std::sync::Arc;

/// Nodes in traces, by machine.
pub(super) const NAMES: [&str; 9] = ["n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"];
/// What a machine's disk is told, in traces.
pub(super) const WALS: [&str; 9] = ["wal1", "wal2", "wal3", "wal4", "wal5", "wal6", "wal7", "wal8", "wal9"];
/// What becomes of it.
pub(super) const DISKS: [&str; 9] =
    ["disk1", "disk2", "disk3", "disk4", "disk5", "disk6", "disk7", "disk8", "disk9"];

const CLUSTER: ClusterId = ClusterId(7);

/// A data directory as it once was.
#[derive(Clone)]
pub(super) struct Copy {
    pub(super) disk: Disk,
    pub(super) store: SimStore,
    pub(super) begun: Option<Start>,
}

/// A computer.
pub(super) struct Machine {
    number: usize,
    pub(super) incarnation: Incarnation,
    /// Its node was told to wait until it is taken in.
    pub(super) joins: bool,
    /// Its data directory was wiped, or put back from a copy: it is no member any more, though it may believe so.
    pub(super) wiped: bool,
    /// It was put back from a copy.
    pub(super) put_back: bool,
    /// A copy of its data directory.
    pub(super) copy: Option<Box<Copy>>,
    pub(super) clock: Clock,
    pub(super) disk: Disk,
    pub(super) store: SimStore,
    pub(super) shared: SharedStore,
    pub(super) up: Option<Up>,
    /// Counts starts and ends of processes.
    pub(super) run: u64,
    /// The number that the store was last started with, as its directory keeps it.
    pub(super) begun: Option<Start>,
    /// The process is stopped until then.
    pub(super) paused_until: u64,
    /// Parts of a snapshot came in.
    pub(super) receiving: bool,
    pub(super) ills: Ills,
    pub(super) cluster_time: ClusterTime,
}

impl Machine {
    pub(super) fn new(number: usize, knobs: &Knobs, rng: &mut Rng) -> Machine {
        let store = SimStore::default();
        let (drift, offset) = match knobs.solo() {
            true => (knobs.drift_ppm, knobs.wall_offset),
            false => (
                if rng.chance(500) { knobs.drift_ppm } else { -knobs.drift_ppm },
                *rng.pick(&[0, knobs.wall_offset, -knobs.wall_offset]),
            ),
        };
        Machine {
            number,
            incarnation: Incarnation(1),
            joins: number >= knobs.nodes,
            wiped: false,
            put_back: false,
            copy: None,
            clock: Clock::new(drift, offset, knobs.synchronised),
            disk: Disk::default(),
            shared: Arc::new(store.clone()),
            store,
            up: None,
            run: 0,
            begun: None,
            paused_until: 0,
            receiving: false,
            ills: Ills::default(),
            cluster_time: ClusterTime::default(),
        }
    }

    pub(super) fn id(&self) -> NodeId {
        id(self.number)
    }

    /// The start of its store, as peers are told of it.
    pub(super) fn start_number(&self) -> u64 {
        self.begun.map_or(0, |begun| begun.number)
    }

    pub(super) fn identity(&self) -> Identity {
        Identity { cluster: CLUSTER, node: self.id(), incarnation: self.incarnation }
    }
}

/// The node on a machine.
pub(super) fn id(machine: usize) -> NodeId {
    NodeId(machine as u64 + 1)
}

/// A node in traces.
pub(super) fn named(node: NodeId) -> String {
    NAMES[of(node)].to_owned()
}

/// The machine of a node.
pub(super) fn of(node: NodeId) -> usize {
    node.0 as usize - 1
}

/// What the cluster is told of the node on a machine.
pub(super) fn member(machine: usize) -> Member {
    let name = NAMES[machine].to_owned();
    Member { node: id(machine), address: format!("{name}:8000"), name, incarnation: None, boot: 0 }
}
