//! Other nodes: links to them, what they say, and heartbeats of all groups in one message.

use super::{Node, Start};
use crate::raft;
use crate::step::{Action, Fatal, Outputs};
use crate::store::SharedStore;
use chronos_proto::command::Command;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Member;
use chronos_proto::peer::{Beat, BeatReply, PeerHello, PeerMessage};
use chronos_proto::raft::Message;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Beats and answers to them that gather over one step, by peer.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Beats {
    pub(super) out: BTreeMap<NodeId, Beat>,
    replies: BTreeMap<NodeId, BeatReply>,
}

/// Whether a node that calls itself `name` is one of these, and the one it was: its directory was not wiped or replaced
/// meanwhile (P13). Without members there is nobody to take it for.
fn admit(members: &[Member], hello: &PeerHello, name: &str) -> Result<(), String> {
    let Some(member) = members.iter().find(|member| member.node == hello.node) else {
        return Err(format!(
            "node {name} is not a member of the cluster: add it first, with `chronos cluster add`"
        ));
    };
    match member.incarnation {
        Some(known) if known != hello.incarnation => Err(format!(
            "node {name} comes with another store than the cluster knows (incarnation {:016x}, known {:016x}): its data \
             directory was wiped or replaced. It must not vote again as it is: remove it from the cluster, then add it \
             anew",
            hello.incarnation.0, known.0,
        )),
        _ if Start::is_older(hello.boot, member.boot) => Err(format!(
            "node {name} comes with an older state of its store than the cluster has seen (start {}, seen {}): its data \
             directory was put back from a copy. It must not vote again as it is: remove it from the cluster, then add \
             it anew with an empty directory",
            Start::epoch_of(hello.boot),
            Start::epoch_of(member.boot),
        )),
        _ => Ok(()),
    }
}

/// The nodes that a log tells of which nothing is applied of yet: after a start they are better known than what was
/// given. None unless it tells of all that are in the group.
fn noted(raft: &raft::Raft) -> Option<Vec<Member>> {
    let mut noted = BTreeMap::new();
    for entry in raft.log().iter() {
        match &*entry.command {
            Command::PutMember(member) => drop(noted.insert(member.node, member.clone())),
            Command::DropMember(node) => drop(noted.remove(node)),
            _ => {}
        }
    }
    let voters = &raft.configuration().voters;
    let all = !voters.is_empty() && voters.iter().all(|node| noted.contains_key(node));
    all.then(|| noted.into_values().collect())
}

impl Node {
    /// A link stands.
    pub(super) fn peer_up(&mut self, hello: PeerHello, out: &mut Outputs) {
        let peer = hello.node;
        if let Err(why) = self.admit_peer(&hello, &peer.to_string()) {
            self.links.remove(&peer);
            return out.now(Action::Refuse { peer, why });
        }
        self.links.insert(peer, hello);
        self.receiver_up(peer);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in groups {
            self.leader_changed_for_forwards(id, out);
            self.leader_changed_for_reads(id, out);
        }
        self.note_incarnations();
        self.ask_members(out);
    }

    /// A link does not stand any more.
    pub(super) fn peer_down(&mut self, peer: NodeId, out: &mut Outputs) {
        self.links.remove(&peer);
        self.clock.peer_lost(peer);
        self.alive.gone(peer);
        self.wake_relying_on(peer);
        for (id, group) in &mut self.groups {
            group.raft.unreachable(peer);
            self.dirty.insert(*id);
        }
        self.receiver_down(out);
    }

    /// The cluster's nodes as far as this one knows them, committed or not.
    pub(super) fn known_members(&self) -> Vec<Member> {
        let mut members = self.linked.clone();
        // What a restart has in its log and does not know to be committed tells of a wiped node as well.
        if let Some(group) = self.groups.get(&GroupId(0)) {
            let mut index = group.state.applied.next();
            while let Some(entry) = group.raft.log().get(index) {
                if let Command::PutMember(member) = &*entry.command {
                    members.retain(|known| known.node != member.node);
                    members.push(member.clone());
                }
                index = index.next();
            }
        }
        members
    }

    /// Whether a peer that calls itself `name` is taken for the node that it says it is: one that is known, with the store
    /// that it is known by; or any, while no leader is heard.
    pub fn admit_peer(&self, hello: &PeerHello, name: &str) -> Result<(), String> {
        let members = self.known_members();
        // A node that was away, or is about to join, hears of new members from whoever leads now, and that may be one of
        // them: while it hears no leader it listens to everybody whose certificate is the cluster's.
        let now = self.now.mono;
        let led = self.groups.get(&GroupId(0)).is_some_and(|group| group.raft.hears_leader(now));
        if (!led || self.waits_to_join()) && members.iter().all(|member| member.node != hello.node) {
            return Ok(());
        }
        admit(&members, hello, name)
    }

    /// The cluster's nodes: as logged, and before that as given. They are logged one by one, and who is in group 0 is a
    /// node of the cluster from the beginning.
    pub fn members(&self) -> Vec<Member> {
        let Some(group) = self.groups.get(&GroupId(0)) else { return self.config.members.clone() };
        let mut members: Vec<Member> = group.state.members().cloned().collect();
        if members.is_empty() {
            let is_cluster = !self.config.members.is_empty();
            let noted = if is_cluster { noted(&group.raft) } else { None };
            return noted.unwrap_or_else(|| self.config.members.clone());
        }
        let given = self.config.members.iter().filter(|given| {
            group.raft.configuration().contains(given.node)
                && !group.state.has_left(given.node)
                && !group.state.members().any(|logged| logged.node == given.node)
        });
        members.extend(given.cloned());
        members
    }

    /// Says with which nodes to link, if it has changed: the cluster's, and those that are none any more and that a group
    /// has not let go. Their votes may be what it takes to do so.
    pub(super) fn relink(&mut self, out: &mut Outputs) {
        let mut wanted = self.members();
        let held: BTreeSet<NodeId> =
            self.groups.values().flat_map(|group| group.raft.configuration().members()).collect();
        for node in held {
            let known = self.linked.iter().chain(&self.config.members).find(|member| member.node == node);
            if let Some(leaving) = known
                && !wanted.iter().any(|member| member.node == node)
            {
                wanted.push(leaving.clone());
            }
        }
        if wanted != self.linked {
            self.linked.clone_from(&wanted);
            out.now(Action::Members(wanted));
        }
    }

    /// Nodes that are no members any more and that a group has not let go.
    pub(super) fn leaving(&self) -> Vec<NodeId> {
        let members = self.members();
        let stays = |node: &NodeId| members.iter().any(|member| member.node == *node);
        self.linked.iter().map(|member| member.node).filter(|node| !stays(node)).collect()
    }

    /// The leader of group 0 writes down the nodes it was given, and which store each of them has.
    pub(super) fn note_incarnations(&mut self) {
        if self.config.members.is_empty() {
            return;
        }
        let Some(group) = self.groups.get(&GroupId(0)).filter(|group| group.serves(&self.clock)) else {
            return;
        };
        let known: BTreeMap<NodeId, Member> =
            group.state.members().map(|member| (member.node, member.clone())).collect();
        let mut wanted = Vec::new();
        for member in self.members() {
            let seen = match member.node == self.config.node {
                true => Some((self.config.incarnation, self.config.boots)),
                false => self.links.get(&member.node).map(|hello| (hello.incarnation, hello.boot)),
            };
            let noted = Member {
                incarnation: member.incarnation.or(seen.map(|(incarnation, _)| incarnation)),
                boot: member.boot.max(seen.map_or(0, |(_, boot)| boot)),
                ..member
            };
            if known.get(&noted.node) != Some(&noted) && !self.noting.contains_key(&noted.node) {
                wanted.push(noted);
            }
        }
        for member in wanted {
            let node = member.node;
            if let Ok(index) = self.propose(GroupId(0), Command::PutMember(member)) {
                self.noting.insert(node, index);
            }
        }
    }

    /// What another node says.
    pub(super) fn hear(
        &mut self,
        from: NodeId,
        message: PeerMessage,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> Result<(), Fatal> {
        if !self.links.contains_key(&from) {
            return Ok(());
        }
        match message {
            PeerMessage::Raft { group, message } => self.hear_raft(from, group, message),
            PeerMessage::Beat(beat) => {
                self.alive.beat_came(from, self.now.mono);
                let agrees = self.agrees_on_rest(from, &beat);
                let reply = self.beats.replies.entry(from).or_default();
                (reply.sent, reply.agrees) = (Some(beat.sent), agrees);
                if let Some(time) = beat.time {
                    self.hear_time(time, out);
                }
                for (group, term, commit, round) in beat.groups {
                    self.hear_raft(from, group, Message::Heartbeat { term, commit, round });
                }
                for (group, term, last, round) in beat.rest {
                    self.hear_raft(from, group, Message::Rest { term, last, round });
                }
            }
            PeerMessage::BeatReply(reply) => {
                if let Some(sent) = reply.sent {
                    self.alive.answer_came(from, self.now.mono);
                    if !reply.agrees {
                        self.wake_led_with(from);
                    }
                    self.clock.sample(from, self.now, sent, reply.wall);
                    self.observe_clock(out);
                }
                if self.config.raft.leases {
                    // The lease may last longer now.
                    self.publish.extend(reply.groups.iter().chain(&reply.rest).map(|(group, ..)| *group));
                }
                for (group, term, round) in reply.groups {
                    self.hear_raft(from, group, Message::HeartbeatReply { term, round });
                }
                for (group, term, round) in reply.rest {
                    self.hear_raft(from, group, Message::Resting { term, round });
                }
            }
            PeerMessage::Forward(forward) => self.forwarded(from, forward, out),
            PeerMessage::ForwardReply { number, outcome } => self.forward_answered(number, outcome, out),
            PeerMessage::Read { group, number } => self.read_asked(from, group, number, out),
            PeerMessage::ReadReply { number, at } => self.read_answered(number, at, out),
            PeerMessage::AskMembers => self.members_asked(from, out),
            PeerMessage::Members(members) => self.members_told(from, members, out),
            PeerMessage::Outbox { origin, target, first, ops } => {
                self.outbox_arrived(from, origin, target, first, ops, out);
            }
            PeerMessage::OutboxReply { origin, target, upto } => {
                self.outbox_acknowledged(origin, target, upto)
            }
            PeerMessage::Chunk(chunk) => self.chunk(from, chunk, store, out)?,
            PeerMessage::ChunkReply { group, last, next, done } => {
                self.chunk_answered(from, group, last, next, done, out)?;
            }
        }
        Ok(())
    }

    fn hear_raft(&mut self, from: NodeId, id: GroupId, message: Message) {
        // A disk that cannot keep up takes no more entries: the leader sends them again.
        let takes_none = || self.wal.backlog().is_err() || self.wal.is_full() || self.log_is_full();
        if matches!(message, Message::Append { .. }) && takes_none() {
            return;
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.raft.receive(self.now.mono, from, message);
        self.dirty.insert(id);
    }

    /// Sends one message of one group, or lets it travel with others.
    pub(super) fn send_raft(&mut self, group: GroupId, to: NodeId, message: Message, out: &mut Outputs) {
        match message {
            Message::Heartbeat { term, commit, round } => {
                self.beats.out.entry(to).or_default().groups.push((group, term, commit, round));
            }
            Message::HeartbeatReply { term, round } => {
                self.beats.replies.entry(to).or_default().groups.push((group, term, round));
            }
            Message::Rest { term, last, round } => {
                self.beats.out.entry(to).or_default().rest.push((group, term, last, round));
            }
            Message::Resting { term, round } => {
                self.beats.replies.entry(to).or_default().rest.push((group, term, round));
            }
            message => out.now(Action::Send { to, message: PeerMessage::Raft { group, message } }),
        }
    }

    /// What gathered over this step goes out.
    pub(super) fn send_beats(&mut self, out: &mut Outputs) {
        for (to, beat) in std::mem::take(&mut self.beats.out) {
            let mono = self.now.mono;
            let resting = self.resting_digest(to, &beat);
            let beat = Beat { sent: mono, time: self.clock.known(mono), resting, ..beat };
            out.now(Action::Send { to, message: PeerMessage::Beat(beat) });
        }
        for (to, reply) in std::mem::take(&mut self.beats.replies) {
            let reply = BeatReply { wall: self.now.wall, ..reply };
            out.now(Action::Send { to, message: PeerMessage::BeatReply(reply) });
        }
    }

    /// Whether a peer is linked with.
    pub fn is_linked(&self, peer: NodeId) -> bool {
        self.links.contains_key(&peer)
    }

    /// A group's Raft, for checkers and tools.
    pub fn raft(&self, group: GroupId) -> Option<&raft::Raft> {
        self.groups.get(&group).map(|group| &group.raft)
    }
}
