//! `delivery`: a consumer group gets every event at least once, one member at a time, and never one that is done;
//! a subscriber without a group gets each once and in order; nobody gets more than it asked for, nor anything that
//! is not released; and nobody is handed an event as often as its topic has it, nor is a count that was logged forgotten.

use crate::violation::{Held, Violation};
use chronos_engine::Snapshot;
use chronos_engine::state::records::ReadError;
use chronos_engine::step::SubscriberId;
use chronos_proto::id::RelationId;
use chronos_proto::schema::Topic;
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "delivery";

/// A topic's partition.
pub type Place = (RelationId, u32);

#[derive(Clone, Debug)]
struct Member {
    /// The machine whose node it is subscribed at.
    at: usize,
    topic: RelationId,
    group: Option<String>,
    credit: u64,
    /// The next offset by partition; without a group only.
    next: BTreeMap<u32, u64>,
    /// Offsets it holds, and until when it may; a group's only.
    held: BTreeMap<(u32, u64), u64>,
}

/// Who holds what. Times are monotonic microseconds of the node.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    members: BTreeMap<SubscriberId, Member>,
    /// Everything that a group was ever handed.
    handed: BTreeMap<(RelationId, String), BTreeSet<(u32, u64)>>,
}

impl Delivery {
    /// The process ended: nobody holds anything.
    pub fn restarted(&mut self) {
        self.members.clear();
    }

    /// A subscriber is here. `next` is where one without a group begins.
    pub fn opened(
        &mut self,
        id: SubscriberId,
        at: usize,
        topic: RelationId,
        group: Option<String>,
        credit: u64,
    ) {
        let member = Member { at, topic, group, credit, next: BTreeMap::new(), held: BTreeMap::new() };
        self.members.insert(id, member);
    }

    /// It takes more.
    pub fn credited(&mut self, id: SubscriberId, credit: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.credit += credit;
        }
    }

    /// It gives an offset back, done or not, at the moment it says so.
    pub fn returned(&mut self, id: SubscriberId, partition: u32, offset: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.held.remove(&(partition, offset));
        }
    }

    /// It is gone.
    pub fn closed(&mut self, id: SubscriberId) {
        self.members.remove(&id);
    }

    /// It is handed an offset. `until` is when its hold ends, `now` the moment; `done` what its group is done with, as
    /// far as the node that hands it out shows.
    pub fn delivered(
        &mut self,
        id: SubscriberId,
        partition: u32,
        offset: u64,
        (now, until): (u64, u64),
        done: Option<&BTreeSet<u64>>,
    ) -> Held {
        let wrong = |what: String| Err(Violation::safety(NAME, what));
        let Some(member) = self.members.get(&id) else {
            return wrong(format!("offset {offset} is handed to {id:?}, who is not here"));
        };
        if member.credit == 0 {
            return wrong(format!("offset {offset} is handed to {id:?}, who takes no more"));
        }
        match member.group.clone() {
            None => {
                let expected = member.next.get(&partition).copied();
                if expected.is_some_and(|expected| expected != offset) {
                    return wrong(format!("{id:?} is handed offset {offset} instead of {expected:?}"));
                }
            }
            Some(group) => {
                if done.is_some_and(|done| done.contains(&offset)) {
                    return wrong(format!(
                        "group {group:?} is handed offset {offset}, which it is done with"
                    ));
                }
                // One that does not know yet that it leads no more may hand out what another does: once at the least.
                let same = |m: &Member| {
                    m.at == member.at && m.topic == member.topic && m.group.as_ref() == Some(&group)
                };
                let holder = self.members.iter().find(|(_, m)| {
                    same(m) && m.held.get(&(partition, offset)).is_some_and(|until| *until > now)
                });
                if let Some((holder, _)) = holder {
                    return wrong(format!(
                        "group {group:?}: {id:?} is handed offset {offset}, which {holder:?} holds"
                    ));
                }
                self.handed.entry((member.topic, group)).or_default().insert((partition, offset));
            }
        }
        let Some(member) = self.members.get_mut(&id) else { return Ok(()) };
        member.credit -= 1;
        match member.group {
            None => {
                member.next.insert(partition, offset + 1);
            }
            Some(_) => {
                member.held.insert((partition, offset), until);
            }
        }
        Ok(())
    }

    /// Whether a group was ever handed an offset.
    pub fn was_handed(&self, topic: RelationId, group: &str, partition: u32, offset: u64) -> bool {
        self.handed.get(&(topic, group.to_owned())).is_some_and(|all| all.contains(&(partition, offset)))
    }

    /// A log that lost its tail gives these offsets to other events.
    pub fn forget(&mut self) {
        self.handed.clear();
    }

    /// The next offset that a subscriber without a group is to get.
    pub fn next(&self, id: SubscriberId, partition: u32) -> Option<u64> {
        self.members.get(&id)?.next.get(&partition).copied()
    }

    /// Who is here, with topic and group.
    pub fn members(&self) -> impl Iterator<Item = (SubscriberId, RelationId, Option<&str>)> + '_ {
        self.members.iter().map(|(id, m)| (*id, m.topic, m.group.as_deref()))
    }
}

/// What a state says of how often an event may be handed out, and was at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    most: u32,
    known: u32,
}

impl Counted {
    /// Reads it.
    pub fn read(
        snapshot: &Snapshot,
        topic: RelationId,
        group: &str,
        partition: u32,
        offset: u64,
    ) -> Result<Counted, ReadError> {
        let settings = snapshot.catalog.get(topic).and_then(|relation| relation.topic());
        let dead = settings.and_then(Topic::dead_letter).and_then(|dead| snapshot.catalog.get(dead));
        let most = settings.and_then(Topic::max_deliveries).filter(|_| dead.is_some());
        let known = snapshot.attempts(topic, group, partition)?.get(&offset).copied();
        Ok(Counted { most: most.unwrap_or(u32::MAX), known: known.unwrap_or(0) })
    }

    /// It is handed out, having been so often before.
    pub fn handed_again(self, offset: u64, before: u32) -> Held {
        if before >= self.most {
            let what = format!(
                "offset {offset} is handed out for the {before}th time again, of {} at the most",
                self.most
            );
            return Err(Violation::safety(NAME, what));
        }
        if before < self.known {
            let what = format!(
                "offset {offset} is said to have been handed out {before} times before, and the log has {}",
                self.known
            );
            return Err(Violation::safety(NAME, what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: RelationId = RelationId(16);
    const A: SubscriberId = SubscriberId(1);
    const B: SubscriberId = SubscriberId(2);

    fn group_of_two() -> Delivery {
        let mut delivery = Delivery::default();
        delivery.opened(A, 0, TOPIC, Some("g".into()), 2);
        delivery.opened(B, 0, TOPIC, Some("g".into()), 2);
        assert_eq!(delivery.delivered(A, 0, 7, (0, 100), None), Ok(()));
        delivery
    }

    #[test]
    fn an_offset_that_another_holds_is_seen_until_its_time_is_up() {
        assert!(group_of_two().delivered(B, 0, 7, (99, 199), None).is_err());
        assert_eq!(group_of_two().delivered(B, 0, 7, (100, 200), None), Ok(()));
        let mut returned = group_of_two();
        returned.returned(A, 0, 7);
        assert_eq!(returned.delivered(B, 0, 7, (50, 150), None), Ok(()));
    }

    #[test]
    fn one_delivery_too_many_and_a_count_that_was_forgotten_are_seen() {
        let counted = Counted { most: 3, known: 1 };
        assert_eq!(counted.handed_again(7, 1), Ok(()));
        assert_eq!(counted.handed_again(7, 2), Ok(()));
        assert!(counted.handed_again(7, 3).is_err());
        assert!(counted.handed_again(7, 0).is_err());
    }

    #[test]
    fn a_done_offset_is_seen() {
        let done = BTreeSet::from([8]);
        assert!(group_of_two().delivered(B, 0, 8, (0, 100), Some(&done)).is_err());
    }

    #[test]
    fn too_many_and_out_of_order_are_seen() {
        let mut delivery = Delivery::default();
        delivery.opened(A, 0, TOPIC, None, 2);
        assert_eq!(delivery.delivered(A, 0, 3, (0, 0), None), Ok(()));
        assert!(delivery.clone().delivered(A, 0, 5, (0, 0), None).is_err(), "a gap");
        assert!(delivery.clone().delivered(A, 0, 3, (0, 0), None).is_err(), "again");
        assert_eq!(delivery.delivered(A, 0, 4, (0, 0), None), Ok(()));
        assert!(delivery.delivered(A, 0, 5, (0, 0), None).is_err(), "no credit");
        assert!(delivery.delivered(B, 0, 0, (0, 0), None).is_err(), "nobody");
    }
}
