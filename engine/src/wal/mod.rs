//! The write-ahead log as pure step functions: [`Writer`] turns records into [`WalOp`]s, [`recover`] turns segment bytes
//! back into every group's log.
//!
//! # The chain
//!
//! All groups of a node share one log, so one sync covers them all. Records gather in the pending write; a write is cut
//! when none is under way, and begins at a sector's start. A write names its generation (one above that of the run
//! before), the checksum of the write before it, and the greatest lsn known durable when it was cut:
//!
//! ```text
//!  segment 5, generation 1                              segment 6, generation 2          segment 7, made ahead
//!  ┌────────┬─────────┬─────────┬─────────┬ ─ ─ ┐       ┌────────┬─────────┬─────────┐   ┌────────┬ ─ ─ ─ ─ ┐
//!  │ header │ 1…6     │ 7…8     │ 9…10    │ torn        │ header │ 12…15   │ 16      │   │ header │
//!  │ of 5   │ known 0 │ known 6 │ known 8 │             │ of 6   │ known 8 │ known 15│   │known 15│
//!  └────────┴────▲────┴─▲──▲────┴────▲────┴ ─ ─ ┘       └────────┴────┬────┴────┬────┘   └────────┴ ─ ─ ─ ─ ┘
//!                └──────┘  ├─────────┘  (9…10 is replaced)           │    ▲    │
//!                          └──────────────────────────────────────────┘    └────┘
//! ```
//!
//! Here the first run died during its fourth write. Recovery read through 10, knew 8 durable, and the second run took 9
//! and 10 along in the opening write of a fresh segment, which follows 8. Reading them back is no proof that they are on
//! the medium (the page cache may have answered), and syncing the old file again is none either once a sync has failed; a
//! fresh copy that is synced is. If the power fails before that, either the copy is whole, and replaces the old tail
//! because its generation is greater, or it is not, and the old tail is what it was. Nothing before the last known
//! durable write is copied: its segments stay, and go as checkpoints release them. No lsn is used twice.
//!
//! Each segment opens with every group's [`Base`] (hard state, compaction mark, last index), so a segment can be removed
//! once the entries in it are compacted, the compaction is synced and the segment after it has opened durably. A mark
//! ([`Writer::mark`]) is cut when idle, so that the last write, too, is known durable, and the next segment is made ahead
//! with a header that says so of the current one.
//!
//! # Torn tail or damage?
//!
//! Unsynced sectors reach the medium in any order, so a checksum that fails says nothing by itself. Recovery looks at
//! every sector for write headers and takes the greatest lsn that any of them, or a segment's header, knows durable. It
//! then follows the chain to the first write that is not there. If the lsn that is missing was durable, this is damage,
//! and the log is refused as it stands. Otherwise it is the tail: it is cut, even if whole writes lie behind the hole,
//! since whatever waited for them waited for the hole too.
//!
//! # The recovery table
//!
//! Of each file that can be read exactly one of A to G holds, and where the chain ends exactly one of I to M. H, N and O
//! are found on the way. ✗ refuses the log with [`WalDamage`], which names file, offset and lsn.
//!
//! | row | segment header | opening write | besides | then |
//! |-----|----------------|---------------|---------|------|
//! | A   | whole, ours    | whole         |         | read |
//! | B   | whole, ours    | not whole     |         | made ahead, or torn as it was opened: a witness, not read |
//! | C   | not whole      |               |         | not read; its write headers are still witnesses |
//! | D   | whole          |               | newer format | ✗ |
//! | E   | whole          |               | another cluster, node or incarnation | ✗ |
//! | F   | whole, ours    |               | another segment's number | ✗ |
//! | G   | whole, ours    |               | the file is shorter than it says | ✗ |
//! | H   |                |               | the medium does not give the file | ✗ |
//!
//! | row | missing lsn was durable | at the hole | the next segment | then |
//! |-----|-------------------------|-------------|------------------|------|
//! | I   | no  | zeros, and nothing later anywhere  |               | the end |
//! | J   | no  | anything else                      |               | the torn tail is cut |
//! | K   | yes | bytes; or zeros, and L and M are not it |          | ✗ the write is damaged |
//! | L   | yes | zeros or the segment's end         | C, or B with bytes in it | ✗ its opening is damaged |
//! | M   | yes | zeros or the segment's end         | not there     | ✗ it is missing |
//! | N   |     | the chain holds, but begins after entries that a group needs | | ✗ an older segment is missing or damaged |
//! | O   |     | the chain holds, but a record in it makes no sense           | | ✗ |
//!
//! # What cannot be detected
//!
//! - Damage to the last write of all, if no mark followed it durably: it looks like a write that was under way. That is
//!   the last write before a crash under load, or within the moment between a write and its mark. In the weak modes of
//!   `--fsync` it is everything since the last sync that a later write knew of.
//! - The loss of the newest segment together with the one made ahead, or of all segments: nothing is left to miss them.
//!   (The engine compares the log with the store's applied index.)
//! - A whole directory put back to an earlier state.
//!
//! It is assumed that a sector of [`SECTOR`] bytes is the least unit that a write can damage: what is synced stays while
//! its neighbours are written.
//!
//! # Not implemented
//!
//! Group membership in [`Base`]; repair of a damaged log from
//! peers (a damaged log is refused); a mark of a clean stop, which the weak modes will need once there are peers.

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
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names one WAL write in one run, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId(pub u64);

/// Names a segment file: `wal/%016x.seg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
