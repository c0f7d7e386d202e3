//! Changes of a group's members, by joint consensus (section 6 of the paper).
//!
//! A change of voters goes through a joint configuration, in which both the old and the new majority must agree, and
//! leaves it by a second entry that the leader writes as soon as the first is committed. Changes of learners alone
//! take one entry. A configuration holds from when it is in the log, and goes with its entry if that is cut off.

use crate::bugs::{self, Bug};
use chronos_proto::id::{Index, NodeId};
use chronos_proto::membership::Configuration;
use serde::{Deserialize, Serialize};

/// One step of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Gives the node a vote: a learner, or one that is new.
    AddVoter(NodeId),
    /// Lets the node follow without a vote; a voter loses its own.
    AddLearner(NodeId),
    /// Takes the node out.
    Remove(NodeId),
}

/// Why a change is refused. Nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This member does not lead.
    #[error("this member does not lead the group: ask its leader")]
    NotLeader,
    /// The leader has not committed an entry of its own term (Ongaro, raft-dev, 2015).
    #[error("the leader has not committed an entry in its term yet: try again in a moment")]
    NotReady,
    /// Another change is under way.
    #[error("another membership change is under way: one at a time")]
    Pending,
    /// The group would be without voters.
    #[error("node {0} is the last voter: a group needs one")]
    LastVoter(NodeId),
    /// The node is not in the group.
    #[error("node {0} is not a member of the group")]
    Unknown(NodeId),
    /// Nothing would change.
    #[error("the group has these members already")]
    Unchanged,
}

/// The configuration that a change leads to from `current`: joint if voters change. Pure; `current` must be simple.
pub fn apply_change(current: &Configuration, changes: &[Change]) -> Result<Configuration, ChangeError> {
    if current.is_joint() {
        return Err(ChangeError::Pending);
    }
    let mut next = current.clone();
    let mut removed = None;
    for change in changes {
        match *change {
            Change::AddVoter(node) => {
                next.learners.remove(&node);
                next.voters.insert(node);
            }
            Change::AddLearner(node) => {
                removed = next.voters.take(&node).or(removed);
                next.learners.insert(node);
            }
            Change::Remove(node) => {
                if !next.voters.remove(&node) && !next.learners.remove(&node) {
                    return Err(ChangeError::Unknown(node));
                }
                removed = Some(node);
            }
        }
    }
    if next.voters.is_empty() {
        return Err(ChangeError::LastVoter(removed.unwrap_or_default()));
    }
    if next == *current {
        return Err(ChangeError::Unchanged);
    }
    if next.voters != current.voters && !bugs::active(Bug::SingleStepChange) {
        next.outgoing = current.voters.clone();
    }
    Ok(next)
}

/// The simple configuration behind a joint one.
pub fn leave_joint(joint: &Configuration) -> Configuration {
    Configuration { outgoing: Default::default(), ..joint.clone() }
}

/// Configurations by the index they hold from, ascending; never empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Memberships(Vec<(Index, Configuration)>);

impl Memberships {
    /// What holds at `index`.
    pub fn new(index: Index, configuration: Configuration) -> Memberships {
        Memberships(vec![(index, configuration)])
    }

    /// The newest, which is the one in force.
    pub fn current(&self) -> &Configuration {
        match self.0.last() {
            Some((_, configuration)) => configuration,
            None => unreachable!("there is always one"),
        }
    }

    /// From where the newest holds.
    pub fn since(&self) -> Index {
        self.0.last().map_or(Index(0), |(index, _)| *index)
    }

    /// Whether a node has a vote in the newest or in any that it would fall back to, were what is not committed cut.
    pub fn may_need(&self, node: NodeId, commit: Index) -> bool {
        let settled = self.0.partition_point(|(at, _)| *at <= commit).saturating_sub(1);
        self.0.iter().skip(settled).any(|(_, configuration)| configuration.is_voter(node))
    }

    pub fn push(&mut self, index: Index, configuration: Configuration) {
        assert!(index > self.since() || self.0.len() == 1, "configurations come in the order of the log");
        self.0.push((index, configuration));
    }

    /// Entries from `from` on are gone.
    pub fn truncate(&mut self, from: Index) {
        while self.0.len() > 1 && self.since() >= from {
            self.0.pop();
        }
    }

    /// Nothing at or below `index` will be cut.
    pub fn settle(&mut self, index: Index) {
        let settled = self.0.partition_point(|(at, _)| *at <= index);
        self.0.drain(..settled.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: [NodeId; 5] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5)];

    #[test]
    fn voters_change_through_a_joint_configuration_and_learners_do_not() {
        let three = Configuration::of(N[..3].iter().copied());
        let joint = apply_change(&three, &[Change::AddVoter(N[3]), Change::Remove(N[0])]).unwrap();
        assert!(joint.is_joint());
        assert_eq!(joint.outgoing, three.voters);
        assert_eq!(leave_joint(&joint), Configuration::of(N[1..4].iter().copied()));
        assert_eq!(apply_change(&joint, &[Change::AddVoter(N[4])]), Err(ChangeError::Pending));
        let learning = apply_change(&three, &[Change::AddLearner(N[4])]).unwrap();
        assert!(!learning.is_joint() && learning.learners.contains(&N[4]));
        let promoted = apply_change(&learning, &[Change::AddVoter(N[4])]).unwrap();
        assert!(promoted.is_joint() && promoted.learners.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let one = Configuration::of([N[0]]);
        assert_eq!(apply_change(&one, &[Change::Remove(N[0])]), Err(ChangeError::LastVoter(N[0])));
        assert_eq!(apply_change(&one, &[Change::AddLearner(N[0])]), Err(ChangeError::LastVoter(N[0])));
        assert_eq!(apply_change(&one, &[Change::Remove(N[1])]), Err(ChangeError::Unknown(N[1])));
        assert_eq!(apply_change(&one, &[Change::AddVoter(N[0])]), Err(ChangeError::Unchanged));
    }

    #[test]
    fn one_that_is_taken_out_is_needed_until_that_is_committed() {
        let mut memberships = Memberships::new(Index(0), Configuration::of([N[0]]));
        memberships.push(Index(5), Configuration::of([N[1]]));
        assert!(memberships.may_need(N[0], Index(4)) && memberships.may_need(N[1], Index(4)));
        assert!(!memberships.may_need(N[0], Index(5)) && memberships.may_need(N[1], Index(5)));
    }

    #[test]
    fn a_cut_takes_its_configurations_along() {
        let mut memberships = Memberships::new(Index(0), Configuration::of([N[0]]));
        memberships.push(Index(5), Configuration::of([N[1]]));
        memberships.push(Index(9), Configuration::of([N[2]]));
        memberships.truncate(Index(9));
        assert_eq!(memberships.current(), &Configuration::of([N[1]]));
        memberships.settle(Index(7));
        memberships.truncate(Index(1));
        assert_eq!(memberships.since(), Index(5));
    }
}
