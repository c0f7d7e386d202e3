//! A queue: the lanes of one topic for one consumer group, or for one subscriber, and how its members share.

use super::lane::{Fate, Lane, Lease};
use super::limit::Failure;
use super::{DELIVERY_MAX, Deadlines, PartitionProgress};
use crate::step::{Delivery, Start, SubscriberId};
use chronos_proto::id::RelationId;
use chronos_proto::time::Instant;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Queue {
    pub(super) topic: RelationId,
    /// None for a subscriber of its own.
    pub(super) consumer_group: Option<String>,
    pub(super) members: Vec<SubscriberId>,
    pub(super) lanes: BTreeMap<u32, Lane>,
    /// When it is forgotten, while it has no members.
    pub(super) idle_until: Option<Instant>,
    /// Moves on with every round, so that the same member and lane are not always first.
    turn: usize,
}

/// What one member gets in a round.
pub(super) struct Share {
    pub(super) member: SubscriberId,
    pub(super) events: u64,
}

impl Queue {
    pub(super) fn new(topic: RelationId, consumer_group: Option<String>) -> Queue {
        Queue {
            topic,
            consumer_group,
            members: Vec::new(),
            lanes: BTreeMap::new(),
            idle_until: None,
            turn: 0,
        }
    }

    /// Splits what is there evenly among the members with credit, in turn. `of` tells a member's credit, and the
    /// partitions that it asked for: all if it names none.
    pub(super) fn shares<'a>(
        &mut self,
        budget: u64,
        of: impl Fn(&SubscriberId) -> (u32, &'a [u32]),
    ) -> Vec<Share> {
        let there = |asked: &[u32]| -> u64 {
            let lanes = self.lanes.iter().filter(|(partition, _)| asks_for(asked, **partition));
            lanes.map(|(_, lane)| lane.available()).sum()
        };
        let mut left = self.lanes.values().map(Lane::available).sum::<u64>().min(budget);
        let first = self.turn % self.members.len().max(1);
        let in_turn = self.members[first..].iter().chain(&self.members[..first]);
        let most = |member: &SubscriberId| {
            let (credit, asked) = of(member);
            (*member, u64::from(credit).min(there(asked)))
        };
        let eager: Vec<_> = in_turn.map(most).filter(|(_, most)| *most > 0).collect();
        let mut shares = Vec::new();
        for (at, (member, most)) in eager.iter().enumerate() {
            let events = left.div_ceil((eager.len() - at) as u64).min(*most);
            if events > 0 {
                shares.push(Share { member: *member, events });
                left -= events;
            }
        }
        if let Some(served) = shares.first() {
            let place = self.members.iter().position(|member| *member == served.member);
            self.turn = place.map_or(0, |place| place + 1);
        }
        shares
    }

    /// Hands out up to `events` of the partitions that were asked for, and tells how many. Fewer, if some of what seemed
    /// there is done already.
    pub(super) fn take(
        &mut self,
        events: u64,
        asked: &[u32],
        (lease, limit): (Lease, u32),
        deadlines: &mut Deadlines,
        out: &mut Vec<Delivery>,
        failures: &mut Vec<Failure>,
    ) -> u64 {
        let shared = self.consumer_group.is_some();
        let mut left = events;
        let mut lanes: Vec<(&u32, &mut Lane)> =
            self.lanes.iter_mut().filter(|(partition, _)| asks_for(asked, **partition)).collect();
        let first = self.turn % lanes.len().max(1);
        lanes.rotate_left(first);
        for (partition, lane) in lanes {
            while left > 0 {
                let (mut offsets, mut dead) = (Vec::new(), Vec::new());
                let most = left.min(DELIVERY_MAX as u64);
                let to = (shared.then_some(lease), limit);
                lane.take(most as usize, to, deadlines, &mut offsets, &mut dead);
                let letter = |(offset, times)| (*partition, offset, Fate::Dead(times));
                failures.extend(dead.into_iter().map(letter));
                if offsets.is_empty() {
                    break;
                }
                left -= offsets.len() as u64;
                let (subscriber, topic) = (lease.to, self.topic);
                out.push(Delivery { subscriber, topic, partition: *partition, offsets });
            }
        }
        events - left
    }
}

fn asks_for(asked: &[u32], partition: u32) -> bool {
    asked.is_empty() || asked.contains(&partition)
}

impl PartitionProgress {
    /// Where a subscription begins here that finds no progress.
    pub(super) fn begin(&self, start: Start) -> u64 {
        match (&self.stored, start) {
            (Some(stored), _) => stored.floor,
            (None, Start::Earliest) => 0,
            (None, Start::Latest) => self.released,
            (None, Start::Offset(offset)) => offset,
        }
    }
}
