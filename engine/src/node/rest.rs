//! Groups at rest send nothing of their own; that their members are there is told for all of them at once.
//!
//! A node that leads groups at rest beats for all of them, every other heartbeat, with a digest of those that the receiver
//! is in. A follower relies on that: where the digest is not that of the groups which rest here under that leader, or no
//! beat came for an election timeout, or the link went, those groups wake, and their elections are as ever. A leader relies
//! on the answers, and wakes its groups when a follower's stop or say that the digest was another. So a leader that was
//! started anew, one that another has unseated, and one that is gone are all found out as soon as they would be by
//! heartbeats of each group.
//!
//! A node that is down keeps every group awake that it is a member of.

use super::Node;
use crate::bugs::{self, Bug};
use crate::raft::{Raft, Role};
use chronos_proto::codec;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::peer::Beat;
use chronos_proto::time::Instant;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Heartbeats from one beat for groups at rest to the next, if an election timeout has room for three such.
const BEATS: u64 = 2;

/// Who is there, for groups at rest.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Alive {
    /// When a beat of a node came last.
    beats: BTreeMap<NodeId, Instant>,
    /// When its answer to a beat did.
    answers: BTreeMap<NodeId, Instant>,
    /// When this node next says for its groups at rest that it is there.
    tell_at: Instant,
}

impl Alive {
    pub(super) fn beat_came(&mut self, from: NodeId, now: Instant) {
        self.beats.insert(from, now);
    }

    pub(super) fn answer_came(&mut self, from: NodeId, now: Instant) {
        self.answers.insert(from, now);
    }

    pub(super) fn gone(&mut self, peer: NodeId) {
        self.beats.remove(&peer);
        self.answers.remove(&peer);
    }

    /// When the first of those that a group at rest relies on has been silent for too long; the beginning of time if one
    /// was never heard.
    fn until(&self, raft: &Raft, timeout: Duration) -> Option<Instant> {
        let heard = match raft.role() {
            Role::Leader => &self.answers,
            _ if bugs::active(Bug::RestThroughDeath) => return None,
            _ => &self.beats,
        };
        raft.relies_on().map(|peer| heard.get(&peer).map_or(Instant(0), |at| *at + timeout)).min()
    }
}

impl Node {
    fn silence(&self) -> Duration {
        Duration::from_micros(self.config.raft.election_timeout_us)
    }

    pub(super) fn rest_deadline(&self) -> Option<Instant> {
        let timeout = self.silence();
        let deadlines = self.groups.values().filter(|group| group.raft.is_resting()).map(|group| {
            let until = self.alive.until(&group.raft, timeout).unwrap_or(Instant(u64::MAX));
            if group.raft.role() == Role::Leader { until.min(self.alive.tell_at) } else { until }
        });
        deadlines.min()
    }

    /// Wakes groups that rely on a node which is silent, and has those told that rely on this one.
    pub(super) fn tick_rest(&mut self) {
        let (mono, timeout) = (self.now.mono, self.silence());
        let tells = mono >= self.alive.tell_at;
        for (id, group) in self.groups.iter_mut().filter(|(_, group)| group.raft.is_resting()) {
            let leads = group.raft.role() == Role::Leader;
            if self.alive.until(&group.raft, timeout).is_some_and(|until| mono >= until) {
                if leads {
                    group.raft.wake(mono)
                } else {
                    group.raft.leader_silent(mono)
                }
                self.dirty.insert(*id);
            } else if leads && tells {
                for peer in group.raft.relies_on() {
                    self.beats.out.entry(peer).or_default();
                }
            }
        }
        if tells {
            let settings = self.config.raft;
            let beats = (settings.election_timeout_us / 3 / settings.heartbeat_us).clamp(1, BEATS);
            let every = beats * settings.heartbeat_us;
            self.alive.tell_at = Instant((mono.0 / every + 1) * every);
        }
    }

    /// Groups at rest that `leader` leads and `follower` is in, one of them this node, but those that `beat` speaks of; and
    /// their digest.
    fn at_rest(&self, leader: NodeId, follower: NodeId, beat: &Beat) -> (u64, Vec<GroupId>) {
        let named: BTreeSet<GroupId> =
            beat.groups.iter().chain(&beat.rest).map(|(group, ..)| *group).collect();
        let other = if leader == self.config.node { follower } else { leader };
        let rests = |raft: &Raft| raft.leader() == Some(leader) && raft.relies_on().any(|peer| peer == other);
        let mut digest = 0;
        let mut groups = Vec::new();
        for (id, group) in &self.groups {
            if rests(&group.raft) && !named.contains(id) {
                digest ^= codec::keyed_hash(u64::from(id.0), &group.raft.term().0.to_be_bytes()) as u64;
                groups.push(*id);
            }
        }
        (digest, groups)
    }

    /// The digest that goes with a beat.
    pub(super) fn resting_digest(&self, to: NodeId, beat: &Beat) -> u64 {
        self.at_rest(self.config.node, to, beat).0
    }

    /// Whether this node takes the same groups to be at rest as the leader that sent the beat. If not, none is.
    pub(super) fn agrees_on_rest(&mut self, from: NodeId, beat: &Beat) -> bool {
        let (digest, groups) = self.at_rest(from, self.config.node, beat);
        let agrees = digest == beat.resting;
        if !agrees {
            self.wake(groups);
        }
        agrees
    }

    /// Wakes every group that relies on this node here.
    pub(super) fn wake_relying_on(&mut self, peer: NodeId) {
        let relies = |raft: &Raft| raft.relies_on().any(|other| other == peer);
        let groups = self.groups.iter().filter(|(_, group)| relies(&group.raft)).map(|(id, _)| *id).collect();
        self.wake(groups);
    }

    /// Wakes every group at rest that this node leads with that follower.
    pub(super) fn wake_led_with(&mut self, follower: NodeId) {
        let (_, groups) = self.at_rest(self.config.node, follower, &Beat::default());
        self.wake(groups);
    }

    fn wake(&mut self, groups: Vec<GroupId>) {
        for id in groups {
            if let Some(group) = self.groups.get_mut(&id) {
                group.raft.wake(self.now.mono);
                self.dirty.insert(id);
            }
        }
    }
}
