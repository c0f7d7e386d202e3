//! What a log entry says. A command is closed and deterministic: applying it needs the state and the entry's own
//! time, never SQL, a clock or a random number, so every replica comes to the same bytes.
//!
//! Puts and deletes of rows carry the digest of what they replace, which the evaluating node read and the resolver
//! guards: replicas keep their set digests right without a read. The other operations are the fixed set of merges
//! done at apply (next rowid, publish with dedup, timer if version): they conflict with reads of what they touch,
//! not with each other.

use crate::id::{GroupId, IndexId, NodeId, RelationId, RequestId};
use crate::membership::{Configuration, Member};
use crate::schedule::{Occurrence, RunFailure, Turn};
use crate::schema::Relation;
use crate::time::Timestamp;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A log entry as the WAL and the peers see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that wrote it.
    pub term: crate::id::Term,
    /// Its position.
    pub index: crate::id::Index,
    /// The group's time at this entry, never below the entry before: the only time that apply knows.
    pub time: Timestamp,
    /// The hybrid logical clock stamp (NTP64) the leader gave it, above every one before it in the group.
    pub stamp: u64,
    /// What it says.
    pub command: std::sync::Arc<Command>,
}

/// What an entry says. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A leader's first entry of its term.
    Noop,
    /// One transaction's writes, all or none.
    Batch {
        /// Its name, for one effect.
        request: RequestId,
        /// The writes, in order.
        ops: Vec<Op>,
    },
    /// Moves the group's time and does nothing else.
    AdvanceTime,
    /// Turns due timers into events. Written a little ahead: `deliver_at` of each is its release time.
    Fire {
        /// In the order (due, sequence).
        timers: Vec<TimerRef>,
    },
    /// One bounded slice of background work, the same at every replica.
    Work(Work),
    /// A consumer group's progress.
    Ack {
        /// The topic.
        topic: RelationId,
        /// The consumer group.
        consumer_group: String,
        /// (partition, offset) pairs that are done.
        offsets: Vec<(u32, u64)>,
    },
    /// An operator's correction of a wrongly adopted clock step: the group's time is set, even back.
    TimeEpoch(Timestamp),
    /// Fixes where a consumer group begins, in each partition where it has no progress yet.
    StartGroup {
        /// The topic.
        topic: RelationId,
        /// The consumer group.
        consumer_group: String,
        /// (partition, offset): everything below counts as done.
        floors: Vec<(u32, u64)>,
    },
    /// The group's members from this entry on; it holds from when it is in a log, committed or not.
    Membership(Configuration),
    /// A node of the cluster, new or changed; group 0 only.
    PutMember(Member),
    /// A node that has left the cluster; group 0 only.
    DropMember(NodeId),
    /// Writes out of another group's outbox, in order. Those that were applied before have no effect.
    Deliver {
        /// Whose outbox.
        origin: GroupId,
        /// The first one's number there.
        first: u64,
        /// The writes.
        ops: Vec<Op>,
    },
    /// Another group has what this one's outbox held for it, up to a number.
    Delivered {
        /// That group.
        target: GroupId,
        /// The last number.
        upto: u64,
    },
    /// Schedules that are due take their turn: what fires, what is passed over, and what is pending then.
    Occur(Vec<Turn>),
    /// Events that were handed out in vain: nacked, not acknowledged in time, or left by who had them.
    Failed {
        /// The topic.
        topic: RelationId,
        /// The consumer group.
        consumer_group: String,
        /// (partition, offset, how often it was handed out).
        offsets: Vec<(u32, u64, u32)>,
    },
    /// Events that a consumer group is given up on go to another topic, and are done.
    DeadLetter {
        /// The topic.
        topic: RelationId,
        /// The consumer group.
        consumer_group: String,
        /// Where they go; each to the partition of its number, which is in this group.
        dead: RelationId,
        /// Which, and why.
        letters: Vec<Letter>,
    },
}

/// An event that a consumer group did not acknowledge, however often it was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: u64,
    /// How often it was handed out.
    pub deliveries: u32,
    /// What became of it the last time.
    pub reason: String,
}

/// Background work that keeps its cursor in the state, so it goes on after a crash or an election.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Fills the next part of a write-only index from the rows that were there before it.
    Backfill {
        /// The table.
        relation: RelationId,
        /// The index.
        index: IndexId,
        /// How many rows at the most.
        limit: u32,
    },
    /// Makes a filled index public.
    PublishIndex {
        /// The table.
        relation: RelationId,
        /// The index.
        index: IndexId,
    },
    /// Deletes the next part of what a dropped relation left.
    Purge {
        /// The dropped relation.
        relation: RelationId,
        /// How many keys at the most.
        limit: u32,
    },
    /// Forgets dedup claims and request outcomes that are past their window.
    Expire {
        /// How many keys at the most.
        limit: u32,
    },
    /// Deletes rows of a table with a TTL: those that have expired when the entry is applied.
    ExpireRows {
        /// The table.
        relation: RelationId,
        /// Encoded primary keys.
        keys: Vec<Bytes>,
    },
}

/// Names one version of one timer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TimerRef {
    /// When it is due.
    pub due: Timestamp,
    /// Its place among timers due at one instant: given when it was (re)scheduled, unique in the group.
    pub sequence: u64,
    /// Its topic.
    pub topic: RelationId,
    /// The partition its event goes to.
    pub partition: u32,
    /// Its id in the topic.
    pub timer_id: String,
}

/// One write. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Writes a row under its primary key.
    PutRow {
        /// The table.
        relation: RelationId,
        /// The encoded primary key.
        key: Bytes,
        /// The encoded row.
        row: Bytes,
        /// Digest of the row it replaces; 0 when there was none.
        replaces: u64,
        /// Index entries that go and come with it.
        indexes: Vec<IndexChange>,
    },
    /// Deletes a row.
    DeleteRow {
        /// The table.
        relation: RelationId,
        /// The encoded primary key.
        key: Bytes,
        /// Digest of the row that goes.
        replaces: u64,
        /// Index entries that go with it.
        indexes: Vec<IndexChange>,
    },
    /// Inserts a row under the table's next hidden rowid.
    AppendRow {
        /// The table.
        relation: RelationId,
        /// The encoded row.
        row: Bytes,
        /// Encoded index columns, to which apply appends the rowid's key.
        indexes: Vec<(IndexId, Bytes)>,
    },
    /// Publishes an event at once.
    Publish {
        /// The topic.
        topic: RelationId,
        /// Its partition.
        partition: u32,
        /// The event.
        event: Event,
        /// Whether its id was the client's, and so is claimed for the dedup window.
        claim: bool,
    },
    /// Publishes an event at a time: a timer, whose id is the event's message id unless given.
    Schedule {
        /// The topic.
        topic: RelationId,
        /// Its partition.
        partition: u32,
        /// The timer's id, unique among the topic's pending timers.
        timer_id: String,
        /// The event.
        event: Event,
        /// When.
        deliver_at: Timestamp,
        /// Whether its id was the client's, and so is claimed for the dedup window.
        claim: bool,
    },
    /// Changes a pending timer.
    Reschedule {
        /// The topic.
        topic: RelationId,
        /// The timer.
        timer_id: String,
        /// Only if it has this version.
        if_version: Option<u64>,
        /// The new time.
        deliver_at: Option<Timestamp>,
        /// The new payload.
        payload: Option<Bytes>,
        /// The new headers, JSON.
        headers: Option<String>,
    },
    /// Cancels a pending timer.
    Cancel {
        /// The topic.
        topic: RelationId,
        /// The timer.
        timer_id: String,
        /// Only if it has this version.
        if_version: Option<u64>,
    },
    /// Makes or changes a relation; its version is one above the old one's, or 1.
    PutRelation(Relation),
    /// Drops a relation: it is gone at once, its data goes in the background.
    DropRelation(RelationId),
    /// Has a schedule occur at once, beside its rule.
    Trigger {
        /// The schedule.
        schedule: RelationId,
        /// The topic that it publishes to, if it does.
        topic: Option<RelationId>,
    },
    /// An occurrence's statement has run, with the writes beside this one; or it has failed.
    Ran {
        /// The schedule.
        schedule: RelationId,
        /// The occurrence.
        occurrence: Occurrence,
        /// Why it came to nothing, if it did.
        failure: Option<RunFailure>,
    },
    /// Publishes a dead letter to its topic again, once: it is then done for the group that redrives.
    Redrive {
        /// The topic of dead letters.
        dead: RelationId,
        /// The partition, of both topics.
        partition: u32,
        /// The letter's offset.
        offset: u64,
        /// The topic that it came from.
        source: RelationId,
    },
}

impl Command {
    /// Its size in memory, roughly, for budgets.
    pub fn bytes(&self) -> usize {
        64 + match self {
            Command::Batch { ops, .. } => ops.iter().map(Op::bytes).sum(),
            Command::Fire { timers } => timers.iter().map(|timer| 64 + timer.timer_id.len()).sum(),
            Command::Ack { offsets, consumer_group, .. }
            | Command::StartGroup { floors: offsets, consumer_group, .. } => {
                consumer_group.len() + offsets.len() * 16
            }
            Command::Membership(configuration) => configuration.members().len() * 16,
            Command::PutMember(member) => member.name.len() + member.address.len(),
            Command::Deliver { ops, .. } => ops.iter().map(Op::bytes).sum(),
            Command::Occur(turns) => turns.iter().map(|turn| 64 + turn.fired.len() * 8).sum(),
            Command::Failed { offsets, consumer_group, .. } => consumer_group.len() + offsets.len() * 24,
            Command::DeadLetter { letters, .. } => letters.iter().map(|l| 64 + l.reason.len()).sum(),
            Command::Noop
            | Command::AdvanceTime
            | Command::Work(_)
            | Command::TimeEpoch(_)
            | Command::DropMember(_)
            | Command::Delivered { .. } => 0,
        }
    }
}

impl Op {
    /// Its size in memory, roughly, for budgets and the limit of a transaction.
    pub fn bytes(&self) -> usize {
        64 + match self {
            Op::PutRow { key, row, indexes, .. } => {
                key.len() + row.len() + indexes.iter().map(|i| i.key.len() + 16).sum::<usize>()
            }
            Op::DeleteRow { key, indexes, .. } => {
                key.len() + indexes.iter().map(|i| i.key.len() + 16).sum::<usize>()
            }
            Op::AppendRow { row, indexes, .. } => {
                row.len() + indexes.iter().map(|(_, columns)| columns.len() + 16).sum::<usize>()
            }
            Op::Publish { event, .. } | Op::Schedule { event, .. } => {
                event.payload.len() + event.message_id.len()
            }
            Op::Reschedule { payload, .. } => payload.as_ref().map_or(0, Bytes::len),
            Op::Cancel { timer_id, .. } => timer_id.len(),
            Op::PutRelation(_) | Op::DropRelation(_) => 1_024,
            Op::Trigger { .. } => 0,
            Op::Ran { failure, .. } => failure.as_ref().map_or(0, |f| f.code.len() + f.message.len()),
            Op::Redrive { .. } => 0,
        }
    }
}

/// One entry of a secondary index that appears or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexChange {
    /// The index.
    pub index: IndexId,
    /// The whole entry: encoded index columns (shortened if long) and the primary key.
    pub key: Bytes,
    /// True if it appears, false if it goes.
    pub present: bool,
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The client's id, or one made by the node that took it.
    pub message_id: String,
    /// Chooses the partition and travels along.
    pub key: Option<String>,
    /// A JSON object, or none.
    pub headers: Option<String>,
    /// The payload.
    pub payload: Bytes,
}

/// What an operation came to, where that is known only at apply. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpOutcome {
    /// Nothing to tell.
    Done,
    /// The hidden rowid that was given.
    Rowid(i64),
    /// The event is at this position.
    Published {
        /// The partition.
        partition: u32,
        /// Its offset there.
        offset: u64,
    },
    /// The timer is pending.
    Scheduled {
        /// Its version.
        version: u64,
    },
    /// The message id was claimed before; nothing was stored.
    Duplicate {
        /// Where the first one is, or none while it is a pending timer.
        position: Option<(u32, u64)>,
    },
    /// The timer is cancelled or changed.
    Changed,
    /// There is no such pending timer: never was, fired, armed or cancelled; or its version differs.
    TooLate,
    /// It is on its way to the group of its partition, and will be there once.
    Sent {
        /// The partition.
        partition: u32,
    },
}
