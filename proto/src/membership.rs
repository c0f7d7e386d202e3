//! Who is in a Raft group, and who a cluster's nodes are.

use crate::id::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The members of a group. While `outgoing` is not empty it is a joint configuration (Ongaro and Ousterhout, section
/// 6): decisions need a majority of `voters` and one of `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who votes; in a joint configuration, who will.
    pub voters: BTreeSet<NodeId>,
    /// Who voted before, until the joint configuration is left.
    pub outgoing: BTreeSet<NodeId>,
    /// Who gets the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

impl Configuration {
    /// A simple configuration without learners.
    pub fn of(voters: impl IntoIterator<Item = NodeId>) -> Configuration {
        Configuration { voters: voters.into_iter().collect(), ..Configuration::default() }
    }

    /// Whether it is between two simple ones.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether a node has a vote in it.
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether a node is in it at all.
    pub fn contains(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Everybody in it, each once, ascending.
    pub fn members(&self) -> BTreeSet<NodeId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Whether one node decides alone.
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&node) && self.outgoing.is_empty()
    }
}

/// A node of the cluster, as group 0 knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Its name, as in its certificate.
    pub name: String,
    /// `host:port` of its peer address (UDP).
    pub address: String,
    /// The life of its store, once it has been seen: another one under this name is refused.
    pub incarnation: Option<Incarnation>,
    /// The greatest number of a start that was seen of that store: an older one comes from a copy.
    pub boot: u64,
}
