//! Who is in which group: every leader brings its group's members to what the cluster's list of nodes asks for.
//!
//! Group 0 has every node, up to [`VOTERS_MAX`] of them with a vote. In the other groups [`REPLICAS`] nodes have a vote,
//! by rendezvous hashing, so that a node that comes or goes moves as few votes as can be; every other node follows
//! without one, so that it answers reads and knows whom to forward writes to. A node that is wanted becomes a learner
//! first, gets a vote when its log has caught up, and one that is not wanted loses its vote last; one step at a time a
//! group, and each is a log entry, so a new leader goes on where the old one was. A leader lets new learners into at
//! most [`MOVES_MAX`] groups until they have caught up: what moves does not crowd out what is written. Group 0 lets a node
//! go last, for one that leads another group learns from group 0 that it is to go.
//!
//! Not implemented: replacing nodes that are silent for long by themselves.

use super::Node;
use crate::raft::{self, Change, Pace, Raft};
use chronos_proto::codec;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Configuration;
use chronos_proto::peer::PeerHello;
use chronos_proto::time::Instant;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Voters of group 0 at the most: more of them make every write slower and no write safer.
pub const VOTERS_MAX: usize = 7;
/// Voters of every other group.
pub const REPLICAS: usize = 3;
/// How often a leader looks.
pub(super) const PLACE_EVERY: Duration = Duration::from_millis(500);
/// Groups led by one node that catch up new learners at the same time.
pub const MOVES_MAX: usize = 2;
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

fn caught_up(status: &raft::Status, node: &NodeId) -> bool {
    status.followers.get(node).is_some_and(|(matched, pace)| {
        *pace == Pace::Replicate && matched.0 + CAUGHT_UP >= status.last.index.0
    })
}

/// Whether a learner that can be reached is being caught up.
fn moves(raft: &Raft, links: &BTreeMap<NodeId, PeerHello>) -> bool {
    let status = raft.status();
    status.configuration.learners.iter().any(|node| links.contains_key(node) && !caught_up(&status, node))
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
        let links = &self.links;
        let mut moving = self
            .groups
            .values()
            .filter(|group| group.serves(&self.clock) && moves(&group.raft, links))
            .count();
        let elsewhere = self.kept_elsewhere();
        for (id, group) in &mut self.groups {
            if !group.serves(&self.clock) {
                continue;
            }
            let wanted = wanted(*id, &nodes);
            let status = group.raft.status();
            let configuration = &status.configuration;
            let absent = wanted.iter().chain(&nodes).find(|node| !configuration.contains(**node));
            // The list of nodes is kept in group 0: whoever is to be moved to others follows it first.
            let missing = absent.filter(|_| *id == GroupId(0) || moving < MOVES_MAX);
            let learned =
                configuration.learners.iter().find(|node| wanted.contains(node) && caught_up(&status, node));
            let complete = wanted.iter().all(|node| configuration.voters.contains(node));
            let may_go = |node: &NodeId| *id != GroupId(0) || !elsewhere(node);
            let gone = configuration.members().into_iter().find(|node| !nodes.contains(node) && may_go(node));
            let surplus = configuration.voters.iter().find(|node| complete && !wanted.contains(node));
            let change = match (missing, learned, gone, surplus) {
                (Some(node), ..) => Change::AddLearner(*node),
                (None, Some(node), ..) => Change::AddVoter(*node),
                (None, None, Some(node), _) => Change::Remove(node),
                (None, None, None, Some(node)) => Change::AddLearner(*node),
                (None, None, None, None) => continue,
            };
            group.raft.wake(self.now.mono);
            // Refused while another is under way: the next look finds it again.
            if group.raft.change_membership(&[change]).is_ok() {
                moving += usize::from(missing.is_some());
                self.dirty.insert(*id);
            }
        }
    }

    /// Whether a node is in another group than group 0, or may be: this node follows all of them, but not yet if it is new.
    fn kept_elsewhere(&self) -> impl Fn(&NodeId) -> bool + use<> {
        let me = self.config.node;
        let others = self.groups.iter().filter(|(id, _)| **id != GroupId(0));
        let configurations: Vec<Configuration> =
            others.map(|(_, group)| group.raft.configuration().clone()).collect();
        move |node| configurations.iter().any(|c| !c.contains(me) || c.contains(*node))
    }

    pub(super) fn placement_deadline(&self) -> Option<Instant> {
        (!self.config.members.is_empty()).then_some(self.place_at)
    }
}
