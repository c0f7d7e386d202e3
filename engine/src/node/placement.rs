//! Who is in which group: every leader brings its group's members to what the cluster's list of nodes asks for.
//!
//! Group 0 has every node, up to [`VOTERS_MAX`] of them with a vote. The other groups have [`REPLICAS`] of them each, by
//! rendezvous hashing, so that a node that comes or goes moves as little as can be. A node that is wanted becomes a
//! learner first, gets a vote when its log has caught up, and one that is not wanted goes last; one step at a time a
//! group, and each is a log entry, so a new leader goes on where the old one was.
//!
//! Not implemented: replacing nodes that are silent for long by themselves.

use super::Node;
use crate::raft::{Change, Pace};
use chronos_proto::codec;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::time::Instant;
use std::collections::BTreeSet;
use std::time::Duration;

/// Voters of group 0 at the most: more of them make every write slower and no write safer.
pub const VOTERS_MAX: usize = 7;
/// Members of every other group.
pub const REPLICAS: usize = 3;
/// How often a leader looks.
pub(super) const PLACE_EVERY: Duration = Duration::from_millis(500);
/// A learner this close behind has caught up.
const CAUGHT_UP: u64 = 1_000;

/// The voters that a group should have among `nodes`.
pub fn wanted(group: GroupId, nodes: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let most = if group == GroupId(0) { VOTERS_MAX } else { REPLICAS };
    let mut ranked: Vec<(u128, NodeId)> =
        nodes.iter().map(|node| (codec::keyed_hash(node.0, &group.0.to_be_bytes()), *node)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(most).map(|(_, node)| node).collect()
}

impl Node {
    /// Looks at every group that this node leads.
    pub(super) fn place(&mut self) {
        self.place_at = self.now.mono + PLACE_EVERY;
        let nodes: BTreeSet<NodeId> = match self.groups.get(&GroupId(0)) {
            Some(group) => group.state.members().map(|member| member.node).collect(),
            None => return,
        };
        // Before the first leader has logged them there is nothing to go by.
        if nodes.is_empty() || self.stopping {
            return;
        }
        for (id, group) in &mut self.groups {
            if !group.serves() {
                continue;
            }
            let wanted = wanted(*id, &nodes);
            let status = group.raft.status();
            let configuration = &status.configuration;
            let caught_up = |node: &NodeId| {
                status.followers.get(node).is_some_and(|(matched, pace)| {
                    *pace == Pace::Replicate && matched.0 + CAUGHT_UP >= status.last.index.0
                })
            };
            let missing = wanted.iter().find(|node| !configuration.contains(**node));
            let learned = configuration.learners.iter().find(|node| wanted.contains(node) && caught_up(node));
            let complete = wanted.iter().all(|node| configuration.voters.contains(node));
            let surplus = configuration.members().into_iter().find(|node| !wanted.contains(node));
            let gone = surplus.filter(|node| complete || !nodes.contains(node));
            let change = match (missing, learned, gone) {
                (Some(node), ..) => Change::AddLearner(*node),
                (None, Some(node), _) => Change::AddVoter(*node),
                (None, None, Some(node)) => Change::Remove(node),
                (None, None, None) => continue,
            };
            // Refused while another is under way: the next look finds it again.
            if group.raft.change_membership(&[change]).is_ok() {
                self.dirty.insert(*id);
            }
        }
    }

    pub(super) fn placement_deadline(&self) -> Option<Instant> {
        (!self.config.members.is_empty()).then_some(self.place_at)
    }
}
