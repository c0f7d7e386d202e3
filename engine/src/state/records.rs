//! The stored shapes of events and timers, and how a snapshot reads them.

use super::keys::{self, KeyRange};
use super::snapshot::Snapshot;
use crate::store::StoreError;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::id::{NodeId, RelationId, Term};
use chronos_proto::raft::LogId;
use chronos_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

/// An event in a topic's log. Its offset is the block's first plus its place in the block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEvent {
    /// The event as it was published.
    pub event: chronos_proto::Event,
    /// The group's time when it was published or scheduled.
    pub published_at: Timestamp,
    /// When it was to be delivered, if a time was asked for.
    pub deliver_at: Option<Timestamp>,
    /// The release time that its firing fixed; none if it was published at once. Before it, nobody sees the event
    /// nor anything behind it.
    pub fired_at: Option<Timestamp>,
}

impl StoredEvent {
    /// From when readers see it.
    pub fn released_at(&self) -> Timestamp {
        self.fired_at.unwrap_or(Timestamp(i64::MIN))
    }
}

/// An event with its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionedEvent {
    /// The partition.
    pub partition: u32,
    /// The offset in it, from 0.
    pub offset: u64,
    /// The event.
    pub stored: StoredEvent,
}

/// How far a snapshot has come that a node is being sent: what is in the store with this record and before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incoming {
    /// Who sends it.
    pub from: NodeId,
    /// The term that it leads in.
    pub term: Term,
    /// The entry whose state it is.
    pub last: LogId,
    /// That entry's time.
    pub time: Timestamp,
    /// The number of the chunk that comes next.
    pub next: u64,
    /// CRC32C over the keys and values of all chunks before that.
    pub checksum: u32,
    /// Whether there is none any more.
    pub ended: bool,
}

/// The record of a topic's partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// The offset that the next event gets.
    pub next: u64,
    /// (offset, release time, timer id) of events that had fired but were not released at the last write here.
    pub armed: Vec<(u64, Timestamp, String)>,
}

/// A pending timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerRecord {
    /// When it is due.
    pub deliver_at: Timestamp,
    /// Its place among timers due at one instant.
    pub sequence: u64,
    /// Counts its changes, from 1.
    pub version: u64,
    /// The partition its event goes to.
    pub partition: u32,
    /// The group's time when it was scheduled.
    pub scheduled_at: Timestamp,
    /// What will be published.
    pub event: chronos_proto::Event,
    /// Whether its message id was claimed for the dedup window when it was scheduled.
    pub claimed: bool,
}

/// A consumer group's progress in a partition: everything below `floor` is done, and so are the gaps' opposites.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerRecord {
    /// The first offset that is not known to be done.
    pub floor: u64,
    /// Offsets above the floor that are done, ascending.
    pub done: Vec<u64>,
}

impl ConsumerRecord {
    /// Whether an offset is done.
    pub fn is_done(&self, offset: u64) -> bool {
        offset < self.floor || self.done.binary_search(&offset).is_ok()
    }

    /// Takes note of offsets that are done; idempotent.
    pub fn ack(&mut self, offsets: &[u64]) {
        for offset in offsets.iter().filter(|o| **o >= self.floor) {
            if let Err(place) = self.done.binary_search(offset) {
                self.done.insert(place, *offset);
            }
        }
        let run = self.done.iter().zip(self.floor..).take_while(|(done, next)| **done == *next).count();
        self.done.drain(..run);
        self.floor += run as u64;
    }
}

/// How often events of a partition that a consumer group is not done with were handed out in vain.
pub type Attempts = std::collections::BTreeMap<u64, u32>;

/// Why state could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value does not decode.
    #[error(transparent)]
    Decode(#[from] codec::DecodeError),
}

impl Snapshot {
    /// Decodes the record under `key`, if there is one.
    pub fn record<T: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        key: &[u8],
    ) -> Result<Option<T>, ReadError> {
        Ok(match self.get(key)? {
            Some(value) => Some(codec::decode(what, &value)?),
            None => None,
        })
    }

    /// A topic's partition.
    pub fn partition(&self, topic: RelationId, partition: u32) -> Result<PartitionRecord, ReadError> {
        Ok(self.record("partition", &keys::partition(topic, partition))?.unwrap_or_default())
    }

    /// Up to `limit` events from `offset` on that are released at `read_time`, stopping at the first that is not.
    pub fn events(
        &self,
        topic: RelationId,
        partition: u32,
        offset: u64,
        limit: usize,
        read_time: Timestamp,
    ) -> Result<Vec<PositionedEvent>, ReadError> {
        let mut out = Vec::new();
        let all = KeyRange::prefix(&keys::events(topic, partition, 0)[..9]);
        let here = keys::events(topic, partition, offset);
        let before = KeyRange { start: all.start, end: KeyRange::point(here.clone()).end };
        let start = match self.scan(&before, true).next() {
            Some(entry) => entry?.0,
            None => here,
        };
        for entry in self.scan(&KeyRange { start, end: all.end }, false) {
            let (key, value) = entry?;
            let Some(first) = keys::events_first_offset(&key) else { continue };
            let block: Vec<StoredEvent> = codec::decode("event block", &value)?;
            for (at, stored) in (first..).zip(block) {
                if out.len() == limit || stored.released_at() > read_time {
                    return Ok(out);
                }
                if at >= offset {
                    out.push(PositionedEvent { partition, offset: at, stored });
                }
            }
        }
        Ok(out)
    }

    /// A pending timer, by topic and id.
    pub fn timer(&self, topic: RelationId, timer_id: &str) -> Result<Option<TimerRecord>, ReadError> {
        self.record("timer", &keys::timer(topic, timer_id))
    }

    /// Pending timers of a topic, in the order of their ids.
    pub fn timers(
        &self,
        topic: RelationId,
    ) -> impl Iterator<Item = Result<(String, TimerRecord), ReadError>> + '_ {
        let scan = self.scan(&keys::timers(topic), false);
        scan.map(|entry| {
            let (key, value): (Bytes, Bytes) = entry?;
            let id = String::from_utf8_lossy(keys::timer_id(&key)).into_owned();
            Ok((id, codec::decode("timer", &value)?))
        })
    }

    /// A consumer group's progress, if it has any.
    pub fn consumer_if_any(
        &self,
        topic: RelationId,
        consumer_group: &str,
        partition: u32,
    ) -> Result<Option<ConsumerRecord>, ReadError> {
        self.record("consumer group", &keys::consumer(topic, consumer_group, partition))
    }

    /// How often a consumer group was handed events in vain that it is not done with. At the least: what was under way
    /// when a leader was lost is not counted.
    pub fn attempts(
        &self,
        topic: RelationId,
        consumer_group: &str,
        partition: u32,
    ) -> Result<Attempts, ReadError> {
        Ok(self.record("attempts", &keys::attempts(topic, consumer_group, partition))?.unwrap_or_default())
    }

    /// A consumer group's progress.
    pub fn consumer(
        &self,
        topic: RelationId,
        consumer_group: &str,
        partition: u32,
    ) -> Result<ConsumerRecord, ReadError> {
        Ok(self.consumer_if_any(topic, consumer_group, partition)?.unwrap_or_default())
    }
}
