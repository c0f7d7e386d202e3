//! Limits of deliveries, and what becomes of events that were handed out in vain.

use super::lane::Fate;
use super::queue::Queue;
use crate::bugs::{self, Bug};
use chronos_proto::command::{Command, Letter};
use chronos_proto::id::RelationId;
use chronos_proto::limits::REASON_MAX_BYTES;
use serde::{Deserialize, Serialize};

/// Dead letters in one entry at the most: each brings an event.
const LETTERS_MAX: usize = 64;

/// Partition and offset of an event that was handed out in vain, and what it comes to.
pub(super) type Failure = (u32, u64, Fate);

/// When events of a topic become dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How often an event is handed out at the most.
    pub deliveries: u32,
    /// The topic that it goes to then.
    pub dead: RelationId,
}

impl Queue {
    /// How often an event is handed out at the most.
    pub(super) fn most(&self, limit: Option<Limit>) -> u32 {
        match limit {
            Some(limit) if !bugs::active(Bug::DeliverPastLimit) => limit.deliveries,
            _ => u32::MAX,
        }
    }

    /// What the log has to know of events that were handed out in vain, for one and the same reason.
    pub(super) fn log_failures(
        &self,
        failures: &[Failure],
        limit: Option<Limit>,
        reason: &str,
        out: &mut Vec<Command>,
    ) {
        let (Some(consumer_group), topic) = (&self.consumer_group, self.topic) else { return };
        let again = |(partition, offset, fate): &Failure| match fate {
            Fate::Again(times) => Some((*partition, *offset, *times)),
            Fate::Dead(_) => None,
        };
        let offsets: Vec<_> = failures.iter().filter_map(again).collect();
        if !offsets.is_empty() {
            out.push(Command::Failed { topic, consumer_group: consumer_group.clone(), offsets });
        }
        let reason = &reason[..reason.floor_char_boundary(REASON_MAX_BYTES)];
        let letter = |(partition, offset, fate): &Failure| match fate {
            Fate::Dead(deliveries) => {
                let (partition, offset, deliveries) = (*partition, *offset, *deliveries);
                Some(Letter { partition, offset, deliveries, reason: reason.to_owned() })
            }
            Fate::Again(_) => None,
        };
        let letters: Vec<_> = failures.iter().filter_map(letter).collect();
        let Some(Limit { dead, .. }) = limit else { return };
        for letters in letters.chunks(LETTERS_MAX) {
            let (consumer_group, letters) = (consumer_group.clone(), letters.to_vec());
            out.push(Command::DeadLetter { topic, consumer_group, dead, letters });
        }
    }
}
