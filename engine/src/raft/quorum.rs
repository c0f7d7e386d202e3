//! Majorities, of simple configurations and of joint ones, which need two.

use chronos_proto::id::NodeId;
use chronos_proto::membership::Configuration;
use std::collections::{BTreeMap, BTreeSet};

/// What the votes so far come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum is for it.
    Won,
    /// A quorum can no longer be for it.
    Lost,
    /// Not decided yet.
    Pending,
}

/// The greatest value that a quorum has reached, each voter's being given by `reached`; in a joint configuration the
/// lesser of the two majorities'. The type's default (0) without voters. For log indexes: what may be committed.
pub fn committed_index<T: Ord + Copy + Default>(
    configuration: &Configuration,
    reached: impl Fn(NodeId) -> T,
) -> T {
    let majority = |voters: &BTreeSet<NodeId>| {
        let mut values: Vec<T> = voters.iter().map(|node| reached(*node)).collect();
        values.sort_unstable();
        // Ascending: a majority has at least the value at the end of the lesser half.
        values.get(values.len().wrapping_sub(1) / 2).copied()
    };
    match (majority(&configuration.voters), majority(&configuration.outgoing)) {
        (Some(incoming), Some(outgoing)) => incoming.min(outgoing),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => T::default(),
    }
}

/// What `votes` come to in a configuration; voters that are not in it have not answered.
pub fn vote_result(configuration: &Configuration, votes: &BTreeMap<NodeId, bool>) -> VoteResult {
    let of = |voters: &BTreeSet<NodeId>| {
        let count = |wanted| voters.iter().filter(|node| votes.get(node) == Some(&wanted)).count();
        let quorum = voters.len() / 2 + 1;
        match () {
            () if voters.is_empty() || count(true) >= quorum => VoteResult::Won,
            () if count(false) > voters.len() - quorum => VoteResult::Lost,
            () => VoteResult::Pending,
        }
    };
    if configuration.voters.is_empty() && configuration.outgoing.is_empty() {
        return VoteResult::Pending;
    }
    match (of(&configuration.voters), of(&configuration.outgoing)) {
        (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
        (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
        _ => VoteResult::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::id::Index;

    fn nodes(numbers: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(NodeId).collect()
    }

    #[test]
    fn a_majority_must_have_matched() {
        let of = |matched: &[u64]| {
            let configuration = Configuration::of((0..matched.len() as u64).map(NodeId));
            committed_index(&configuration, |node| Index(matched[node.0 as usize])).0
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[7]), 7);
        assert_eq!(of(&[7, 3]), 3);
        assert_eq!(of(&[7, 3, 5]), 5);
        assert_eq!(of(&[9, 1, 1, 8]), 1);
        assert_eq!(of(&[9, 1, 4, 8, 2]), 4);
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Configuration {
            voters: nodes([1, 2, 3]),
            outgoing: nodes([3, 4, 5]),
            ..Configuration::default()
        };
        let matched = |node: NodeId| Index([0, 9, 9, 9, 2, 3][node.0 as usize]);
        assert_eq!(committed_index(&joint, matched), Index(3));
        let votes = |given: &[(u64, bool)]| given.iter().map(|(node, vote)| (NodeId(*node), *vote)).collect();
        assert_eq!(vote_result(&joint, &votes(&[(1, true), (2, true)])), VoteResult::Pending);
        assert_eq!(
            vote_result(&joint, &votes(&[(1, true), (2, true), (4, true), (5, true)])),
            VoteResult::Won
        );
        assert_eq!(vote_result(&joint, &votes(&[(1, true), (3, true), (5, true)])), VoteResult::Won);
        assert_eq!(
            vote_result(&joint, &votes(&[(1, true), (2, true), (4, false), (5, false)])),
            VoteResult::Lost
        );
    }

    #[test]
    fn an_even_quorum_is_more_than_half_and_half_against_it_decides() {
        let four = Configuration::of((1..=4).map(NodeId));
        let votes = |given: &[(u64, bool)]| given.iter().map(|(node, vote)| (NodeId(*node), *vote)).collect();
        assert_eq!(vote_result(&four, &votes(&[(1, true), (2, true)])), VoteResult::Pending);
        assert_eq!(vote_result(&four, &votes(&[(1, true), (2, true), (3, true)])), VoteResult::Won);
        assert_eq!(vote_result(&four, &votes(&[(1, false), (2, false)])), VoteResult::Lost);
        assert_eq!(vote_result(&Configuration::default(), &votes(&[])), VoteResult::Pending);
        assert_eq!(vote_result(&four, &votes(&[(7, true), (8, true), (9, true)])), VoteResult::Pending);
    }
}
