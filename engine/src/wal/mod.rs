//! The write-ahead log as pure step functions: [`Writer`] turns records into [`WalOp`]s, and recovery turns segment
//! bytes back into every group's log.

mod record;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use record::{Base, Compacted, HardState, Record};
pub use recovery::{Cut, GroupLog, Recovered, Row, Segments, WalDamage, recover};
pub use segment::{Anchor, FORMAT_VERSION, Identity, SECTOR};
pub use writer::{Backlog, Config, Writer};

use bytes::Bytes;
use std::fmt;

/// Names one WAL write in one run, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Names a segment file: `wal/%016x.seg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wal/{:016x}.seg", self.0)
    }
}

impl Default for SegmentId {
    /// The first of all.
    fn default() -> SegmentId {
        SegmentId(1)
    }
}

/// One operation on the WAL's files, performed in order.
///
/// The operations of one write end with its `Sync` or `Done`; a `Create` belongs to the write whose operations follow
/// it. If one of them finds no space, the rest of that write is left undone and `WriteFull` names it; all of them
/// come again. A `Sync` may name a write that was reported before: it is reported again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalOp {
    /// Make a segment file of this size, zeroed and allocated, and sync file and directory. What is there under its
    /// name, from an attempt that found no space, is replaced.
    Create {
        /// The segment.
        segment: SegmentId,
        /// Its size.
        bytes: u64,
    },
    /// Write at an offset.
    Write {
        /// Part of this write.
        write: WriteId,
        /// The segment.
        segment: SegmentId,
        /// Where in it.
        offset: u64,
        /// What.
        bytes: Bytes,
    },
    /// Sync the segment's data; then the write is durable.
    Sync {
        /// The write that is durable then.
        write: WriteId,
        /// The segment.
        segment: SegmentId,
    },
    /// In the weak modes: the write counts as done without a sync.
    Done {
        /// The write.
        write: WriteId,
    },
    /// Remove a segment file and sync the directory.
    Remove {
        /// The segment.
        segment: SegmentId,
    },
}
