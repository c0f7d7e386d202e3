//! Whether a node with an empty store may begin the cluster that it was told of.
//!
//! Nothing on its own disk tells a node that starts for the first time from one whose directory was wiped, and a wiped
//! majority would elect a leader and begin anew beside those who remember. So a node that was told whom the cluster
//! begins with, and whose store is empty, neither votes nor campaigns before it has asked every one of them: if all
//! have nothing, they begin; if one knows a cluster, and this very store as a part of it, the node takes part in that.
//! One that knows it with another store refuses its links, by name, so a wiped node waits for ever, and says for whom.

use super::Node;
use crate::step::{Action, Outputs, Trace};
use chronos_proto::id::{GroupId, Index, NodeId};
use chronos_proto::membership::Member;
use chronos_proto::peer::PeerMessage;
use std::collections::BTreeSet;

/// No more nodes are believed than a cluster can have.
const MEMBERS_MAX: usize = 256;

impl Node {
    /// Those of whom it is not known yet whether they know the cluster: none if this node takes part.
    pub(super) fn awaits(&self) -> Vec<NodeId> {
        let unfounded = self.groups.get(&GroupId(0)).is_some_and(|group| group.raft.is_unfounded());
        if unfounded { self.awaited_founders.iter().copied().collect() } else { Vec::new() }
    }

    /// This node was told to wait until it is taken in, and has not applied who the others are.
    pub(super) fn waits_to_join(&self) -> bool {
        let group = self.groups.get(&GroupId(0));
        self.config.joins && group.is_some_and(|group| group.state.members().next().is_none())
    }

    /// Asks all, until it is known whether there is a cluster; a node that joins asks for all the others too.
    pub(super) fn ask_members(&mut self, out: &mut Outputs) {
        // Who had nothing when it was asked may know the cluster by now.
        if !self.waits_to_join() && self.awaits().is_empty() {
            return;
        }
        for to in self.links.keys() {
            out.now(Action::Send { to: *to, message: PeerMessage::AskMembers });
        }
    }

    /// A node with an empty store asks.
    pub(super) fn members_asked(&mut self, from: NodeId, out: &mut Outputs) {
        let group = self.groups.get(&GroupId(0));
        let nothing = group.is_none_or(|group| group.raft.log().last().index == Index(0));
        let members = if nothing { Vec::new() } else { self.known_members() };
        out.now(Action::Send { to: from, message: PeerMessage::Members(members) });
    }

    /// The answer.
    pub(super) fn members_told(&mut self, from: NodeId, members: Vec<Member>, out: &mut Outputs) {
        if members.len() > MEMBERS_MAX {
            return;
        }
        if self.waits_to_join() {
            let known: BTreeSet<NodeId> = self.config.members.iter().map(|member| member.node).collect();
            self.config.members.extend(members.into_iter().filter(|member| !known.contains(&member.node)));
            return self.relink(out);
        }
        if self.awaits().is_empty() {
            return;
        }
        let (node, incarnation) = (self.config.node, self.config.incarnation);
        let known = members.iter().find(|member| member.node == node);
        let before = self.awaited_founders.len();
        let counted = known.is_some_and(|known| known.incarnation.is_none_or(|known| known == incarnation));
        if counted {
            self.awaited_founders.clear();
        } else if members.is_empty() {
            self.awaited_founders.remove(&from);
        }
        if self.awaited_founders.len() < before {
            out.now(Action::Trace(Trace::Awaits(self.awaits())));
        }
        if self.awaited_founders.is_empty() {
            for (id, group) in &mut self.groups {
                group.raft.found();
                self.dirty.insert(*id);
            }
        }
    }
}
