//! How a segment file is laid out: a header in its first sector, then writes, each from a sector's start.
//!
//! ```text
//! segment header (sector 0)              write header (80 bytes, then its records, then zeros to the sector's end)
//! 0    8  "CHRONWAL"                     0   4  "CWRT"
//! 8    4  format version                 4   4  CRC32C, seeded, over bytes 8 to 80
//! 12   4  CRC32C over the sector         8   4  CRC32C over the records
//! 16  16  cluster                        12  4  bytes of records
//! 32   8  node                           16  4  number of records, at least 1
//! 40   8  incarnation                    20  4  checksum (byte 4) of the write before it
//! 48   8  segment                        24  8  generation
//! 56   8  bytes of the file              32  8  lsn of its first record
//! 64   8  generation                     40  8  last lsn of the write before it
//! 72   8  greatest lsn known durable     48  8  greatest lsn known durable
//! 80   …  zeros                          56  8  boot
//!                                        64  8  monotonic time, µs since boot
//!                                        72  8  cluster time, µs since 1970
//! ```
//!
//! Integers are little-endian. Magic, version and checksum of the segment header keep their places in every version.
//! The write header's checksum is seeded with cluster, node, incarnation, segment and offset, so that a stray copy of
//! another write, or a client's payload that looks like one, is not taken for the write of this place.

use super::SegmentId;
use crate::bugs::{self, Bug};
use chronos_proto::id::{ClusterId, Incarnation, Lsn, NodeId};
use chronos_proto::time::{Instant, Timestamp};
use serde::{Deserialize, Serialize};

/// The unit in which a medium loses or keeps unsynced bytes.
pub const SECTOR: usize = 512;

/// The version of everything in a segment.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a write before its records.
pub(crate) const WRITE_HEADER: usize = 80;

const SEGMENT_MAGIC: &[u8; 8] = b"CHRONWAL";
const WRITE_MAGIC: &[u8; 4] = b"CWRT";

/// Whose log it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
}

impl Identity {
    /// What the checksum of a write header at this place begins with.
    pub(crate) fn seed(&self, segment: SegmentId, offset: u64) -> u32 {
        let mut crc = crc32c::crc32c(&self.cluster.0.to_le_bytes());
        for part in [self.node.0, self.incarnation.0, segment.0, offset] {
            crc = extend_crc(crc, &part.to_le_bytes());
        }
        crc
    }
}

/// Ties cluster time to one boot's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Names the boot.
    pub boot: u64,
    /// The monotonic reading.
    pub mono: Instant,
    /// Cluster time then; none if it was not known. On disk that is 0.
    pub time: Option<Timestamp>,
}

/// A place in the chain: the end of one write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Link {
    /// The write's last lsn; 0 before the first write of all.
    pub lsn: Lsn,
    /// The write's checksum.
    pub crc: u32,
}

/// The first sector of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub version: u32,
    pub identity: Identity,
    pub segment: SegmentId,
    pub bytes: u64,
    pub generation: u64,
    pub durable: Lsn,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SECTOR] {
        let mut sector = [0; SECTOR];
        sector[0..8].copy_from_slice(SEGMENT_MAGIC);
        sector[8..12].copy_from_slice(&self.version.to_le_bytes());
        sector[16..32].copy_from_slice(&self.identity.cluster.0.to_le_bytes());
        sector[32..40].copy_from_slice(&self.identity.node.0.to_le_bytes());
        sector[40..48].copy_from_slice(&self.identity.incarnation.0.to_le_bytes());
        sector[48..56].copy_from_slice(&self.segment.0.to_le_bytes());
        sector[56..64].copy_from_slice(&self.bytes.to_le_bytes());
        sector[64..72].copy_from_slice(&self.generation.to_le_bytes());
        sector[72..80].copy_from_slice(&self.durable.0.to_le_bytes());
        let crc = Self::checksum(&sector);
        sector[12..16].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// None if the sector is not a whole segment header of any version.
    pub fn decode(file: &[u8]) -> Option<SegmentHeader> {
        let sector = file.get(..SECTOR)?;
        if &sector[0..8] != SEGMENT_MAGIC || Self::checksum(sector) != u32::from_le_bytes(array(sector, 12)) {
            return None;
        }
        Some(SegmentHeader {
            version: u32::from_le_bytes(array(sector, 8)),
            identity: Identity {
                cluster: ClusterId(u128::from_le_bytes(array(sector, 16))),
                node: NodeId(u64::from_le_bytes(array(sector, 32))),
                incarnation: Incarnation(u64::from_le_bytes(array(sector, 40))),
            },
            segment: SegmentId(u64::from_le_bytes(array(sector, 48))),
            bytes: u64::from_le_bytes(array(sector, 56)),
            generation: u64::from_le_bytes(array(sector, 64)),
            durable: Lsn(u64::from_le_bytes(array(sector, 72))),
        })
    }

    fn checksum(sector: &[u8]) -> u32 {
        extend_crc(crc32c::crc32c(&sector[0..12]), &sector[16..])
    }
}

/// What a write says of itself and of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteHeader {
    /// Of this header; it covers the records' too.
    pub crc: u32,
    pub records_crc: u32,
    pub length: u32,
    pub count: u32,
    pub generation: u64,
    pub first: Lsn,
    pub before: Link,
    pub durable: Lsn,
    pub anchor: Anchor,
}

impl WriteHeader {
    /// Fills the head of `write`, whose records stand in it already, and returns the header's checksum.
    pub fn seal(mut self, seed: u32, write: &mut [u8]) -> u32 {
        let (head, records) = write.split_at_mut(WRITE_HEADER);
        self.records_crc = crc32c::crc32c(records);
        head[0..4].copy_from_slice(WRITE_MAGIC);
        head[8..12].copy_from_slice(&self.records_crc.to_le_bytes());
        head[12..16].copy_from_slice(&self.length.to_le_bytes());
        head[16..20].copy_from_slice(&self.count.to_le_bytes());
        head[20..24].copy_from_slice(&self.before.crc.to_le_bytes());
        head[24..32].copy_from_slice(&self.generation.to_le_bytes());
        head[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        head[40..48].copy_from_slice(&self.before.lsn.0.to_le_bytes());
        head[48..56].copy_from_slice(&self.durable.0.to_le_bytes());
        head[56..64].copy_from_slice(&self.anchor.boot.to_le_bytes());
        head[64..72].copy_from_slice(&self.anchor.mono.0.to_le_bytes());
        head[72..80].copy_from_slice(&self.anchor.time.map_or(0, |time| time.0).to_le_bytes());
        let crc = extend_crc(seed, &head[8..]);
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// None if there is no whole write header of the seed's place at `at`.
    pub fn decode(seed: u32, at: &[u8]) -> Option<WriteHeader> {
        let head = at.get(..WRITE_HEADER)?;
        let crc = u32::from_le_bytes(array(head, 4));
        if &head[0..4] != WRITE_MAGIC || extend_crc(seed, &head[8..]) != crc {
            return None;
        }
        let header = WriteHeader {
            crc,
            records_crc: u32::from_le_bytes(array(head, 8)),
            length: u32::from_le_bytes(array(head, 12)),
            count: u32::from_le_bytes(array(head, 16)),
            generation: u64::from_le_bytes(array(head, 24)),
            first: Lsn(u64::from_le_bytes(array(head, 32))),
            before: Link {
                lsn: Lsn(u64::from_le_bytes(array(head, 40))),
                crc: u32::from_le_bytes(array(head, 20)),
            },
            durable: Lsn(u64::from_le_bytes(array(head, 48))),
            anchor: Anchor {
                boot: u64::from_le_bytes(array(head, 56)),
                mono: Instant(u64::from_le_bytes(array(head, 64))),
                time: match i64::from_le_bytes(array(head, 72)) {
                    0 => None,
                    time => Some(Timestamp(time)),
                },
            },
        };
        let last = header.first.0.checked_add(u64::from(header.count))?;
        (header.count > 0 && last < u64::MAX && header.before.lsn < header.first).then_some(header)
    }

    /// The records that follow the header at `at`, if they match it.
    pub fn records<'a>(&self, at: &'a [u8]) -> Option<&'a [u8]> {
        let records = at.get(WRITE_HEADER..WRITE_HEADER + self.length as usize)?;
        let matches = crc32c::crc32c(records) == self.records_crc || bugs::active(Bug::ReadUnchecked);
        matches.then_some(records)
    }

    /// The lsn of its last record.
    pub fn last(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.count) - 1)
    }

    /// Its end, as the next write names it.
    pub fn link(&self) -> Link {
        Link { lsn: self.last(), crc: self.crc }
    }

    /// Bytes from its start to the next write's.
    pub fn span(&self) -> usize {
        (WRITE_HEADER + self.length as usize).next_multiple_of(SECTOR)
    }
}

/// `crc32c` carried on.
pub(crate) fn extend_crc(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// Bytes at a fixed place, which the caller knows to be there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
