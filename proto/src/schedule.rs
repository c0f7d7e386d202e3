//! Recurring schedules as the catalogue stores them.
//!
//! An *occurrence* is named by the time that the rule gives for it, its *nominal* time; it is *due* a little later where
//! the schedule has a jitter. Both follow from the definition, so every node names the same occurrences.

use crate::codec;
use crate::id::RelationId;
use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Keys the hash that spreads due times.
const JITTER_SEED: u64 = 0x6A69_7474;

/// A schedule: when it occurs, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// When it occurs.
    pub rule: Rule,
    /// Nothing occurs before; the first occurrence of [`Rule::Every`].
    pub starting: Timestamp,
    /// Nothing occurs from here on.
    pub ending: Option<Timestamp>,
    /// It has ended after so many runs.
    pub count: Option<u64>,
    /// An occurrence is due up to so many microseconds after its nominal time.
    pub jitter_micros: u64,
    /// What becomes of occurrences that nobody fired in time.
    pub misfire: Misfire,
    /// Whether an occurrence runs while an earlier one still does.
    pub overlap: bool,
    /// Nothing occurs until it is resumed.
    pub paused: bool,
    /// What an occurrence does.
    pub action: ScheduleAction,
    /// Who made it: a statement runs under this name.
    pub owner: String,
    /// The nominal time at which this version of the definition begins, worked out by the node that took the statement:
    /// replicas evaluate no rule.
    pub next: Option<Timestamp>,
}

/// When a schedule occurs. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Rule {
    /// In steps of elapsed time from the schedule's start on, in microseconds.
    Every(u64),
    /// By the clock of a time zone.
    Cron {
        /// Five fields, or six with seconds.
        expression: String,
        /// The name of the zone.
        zone: String,
    },
}

/// What becomes of occurrences that were not fired in time. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Misfire {
    /// They are passed over.
    Skip,
    /// The last of them is made up for, the others are passed over.
    FireOnce,
    /// All are made up for, of those that were due within so many microseconds if that is said.
    FireAll(Option<u64>),
}

/// What an occurrence does. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ScheduleAction {
    /// Publishes an event whose message id is the occurrence's.
    Publish {
        /// The topic.
        topic: RelationId,
        /// The event's key.
        key: Option<String>,
        /// Its headers, a JSON object.
        headers: Option<String>,
        /// Its payload.
        payload: Bytes,
    },
    /// Runs a statement.
    Statement(String),
}

impl Schedule {
    /// When an occurrence is due: up to the jitter after its nominal time, the same at every node.
    pub fn due(&self, schedule: RelationId, nominal: Timestamp) -> Timestamp {
        if self.jitter_micros == 0 {
            return nominal;
        }
        let name = [&schedule.0.to_be_bytes()[..], &nominal.0.to_be_bytes()].concat();
        let spread = codec::keyed_hash(JITTER_SEED, &name) % (u128::from(self.jitter_micros) + 1);
        Timestamp(nominal.0.saturating_add(i64::try_from(spread).unwrap_or(i64::MAX)))
    }

    /// The topic that it publishes to, if it does.
    pub fn topic(&self) -> Option<RelationId> {
        match &self.action {
            ScheduleAction::Publish { topic, .. } => Some(*topic),
            ScheduleAction::Statement(_) => None,
        }
    }
}

/// One occurrence of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Occurrence {
    /// Its nominal time; that of the entry if it was asked for by hand.
    pub nominal: Timestamp,
    /// Counts those that were asked for by hand, from 1; 0 if the rule gave it.
    pub by_hand: u64,
}

impl Occurrence {
    /// Its id: the schedule's name and number, which is never given again, and its nominal time in microseconds since
    /// 1970.
    pub fn id(&self, name: &str, schedule: RelationId) -> String {
        match self.by_hand {
            0 => format!("{name}/{}/{}", schedule.0, self.nominal.0),
            n => format!("{name}/{}/by-hand-{n}", schedule.0),
        }
    }
}

/// What the leader decided about a schedule that is due: fixed in the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The schedule.
    pub schedule: RelationId,
    /// Names the pending occurrence that it is about: where another is pending by now, nothing happens.
    pub sequence: u64,
    /// The topic that it publishes to, if it does.
    pub topic: Option<RelationId>,
    /// Nominal times of the occurrences that fire, in order.
    pub fired: Vec<Timestamp>,
    /// Occurrences that are passed over.
    pub missed: u64,
    /// The nominal time that is pending from now on; none if the schedule has ended.
    pub next: Option<Timestamp>,
}

/// Why an occurrence came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFailure {
    /// The SQLSTATE.
    pub code: String,
    /// What happened.
    pub message: String,
}
