//! Segment bytes in, the state that was written out.

use super::segment::{Anchor, Link};
use super::{Base, Compacted, HardState, Record, SegmentId};
use chronos_proto::command::Entry;
use chronos_proto::id::{GroupId, Index, Lsn};
use std::collections::BTreeMap;

/// What recovery found. The default is an empty log's.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// By group.
    pub groups: BTreeMap<GroupId, GroupLog>,
    /// Of the last write that was read.
    pub anchor: Option<Anchor>,
    /// The greatest generation seen.
    pub generation: u64,
    /// The greatest lsn seen, even in what was cut: no lsn is used twice.
    pub last_lsn: Lsn,
    /// The end of the last write known to be durable: the next generation follows it and takes the rest along.
    pub(crate) floor: Link,
    /// Records after the floor, in order.
    pub(crate) tail: Vec<(GroupId, Record)>,
    /// Segments that hold the chain up to the floor, oldest first.
    pub(crate) kept: Vec<Kept>,
    /// Segments that hold nothing of it.
    pub(crate) void: Vec<SegmentId>,
    /// No segment had this number or one above it.
    pub(crate) next_segment: SegmentId,
}

/// One group's log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupLog {
    /// The latest hard state.
    pub hard_state: HardState,
    /// Where the log begins: after this entry.
    pub compacted: Compacted,
    /// Every entry after it, without a gap.
    pub entries: Vec<Entry>,
}

/// A segment that the chain goes through.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub id: SegmentId,
    pub bytes: u64,
    /// The last entry of each group up to the floor.
    pub last: BTreeMap<GroupId, Index>,
}

impl GroupLog {
    /// The last entry; the compaction mark's if there is none after it.
    pub fn last(&self) -> Index {
        self.entries.last().map_or(self.compacted.index, |entry| entry.index)
    }
}

impl Recovered {
    /// What the writer repeats of each group.
    pub(crate) fn bases(&self) -> BTreeMap<GroupId, Base> {
        let base =
            |log: &GroupLog| Base { hard_state: log.hard_state, compacted: log.compacted, last: log.last() };
        self.groups.iter().map(|(group, log)| (*group, base(log))).collect()
    }
}
