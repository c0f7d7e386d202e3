//! The write-ahead log as pure step functions.

use bytes::Bytes;

/// Names one WAL write in one run, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Names a segment file: `wal/%016x.seg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// One operation on the WAL's files, performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalOp {
    /// Make a segment file of this size, zeroed and allocated, and sync file and directory.
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

/// What recovery found. See `wal::recovery`.
#[derive(Clone, Debug, Default)]
pub struct Recovered {}
