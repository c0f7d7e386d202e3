//! The blocks of a snapshot file.

use chronos_engine::proto::id::{ClusterId, GroupId};
use chronos_engine::proto::limits::TRANSACTION_MAX_BYTES;
use chronos_engine::proto::raft::LogId;
use chronos_engine::proto::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of the format that this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

pub(super) const MAGIC: [u8; 8] = *b"CHRONSNP";
/// Magic, version and their checksum.
pub(super) const HEADER_BYTES: usize = 16;
/// Kind, three zeros, length, checksum.
pub(super) const BLOCK_HEADER_BYTES: usize = 12;
/// The most that a block's body has: one value is as large as a transaction at the most.
pub(super) const BLOCK_MAX_BYTES: usize = TRANSACTION_MAX_BYTES + (1 << 20);
/// A block of entries ends once it has so much.
pub(super) const ENTRIES_BYTES: usize = 256 << 10;
/// SHA-256.
pub(super) const SEAL_BYTES: usize = 32;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Head = 1,
    Group = 2,
    Entries = 3,
    GroupEnd = 4,
    Seal = 5,
}

impl Kind {
    pub(super) fn of(number: u8) -> Option<Kind> {
        [Kind::Head, Kind::Group, Kind::Entries, Kind::GroupEnd, Kind::Seal]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The first block: whose state it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The cluster.
    pub cluster: ClusterId,
    /// When it was begun, by cluster time.
    pub time: Timestamp,
    /// The groups in it, ascending.
    pub groups: Vec<GroupId>,
    /// The release that wrote it.
    pub release: String,
}

/// What stands before a group's entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupHead {
    /// The group.
    pub group: GroupId,
    /// The last log entry in its state.
    pub last: LogId,
    /// That entry's time.
    pub time: Timestamp,
    /// The layout of its keys and values.
    pub state_version: u32,
    /// What the ids that clients chose are hashed with.
    pub hash_seed: u64,
}

/// What stands behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEnd {
    /// Keys.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// The digest of the state but for who is in the cluster.
    pub data_digest: u64,
}

/// The checksum of a block at an offset: over its first eight bytes and its body.
pub(super) fn checksum(offset: u64, front: &[u8; 8], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&offset.to_le_bytes()), front);
    crc32c::crc32c_append(crc, body)
}

/// The file's first bytes.
pub(super) fn header(version: u32) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32c::crc32c(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}
