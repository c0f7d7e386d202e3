//! What the WAL says: one record each, in the order of their lsn.
//!
//! ```text
//! 0   4  length of the payload
//! 4   4  CRC32C over the length and everything from byte 8 on
//! 8   8  lsn
//! 16  4  group
//! 20  1  kind
//! 21  …  payload, postcard
//! ```
//!
//! Integers are little-endian.

use super::segment::{array, extend_crc};
use crate::bugs::{self, Bug};
use bytes::{BufMut, BytesMut};
use chronos_proto::command::Entry;
use chronos_proto::id::{GroupId, Index, Lsn, NodeId, Term};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a Raft member must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// The greatest index it knows to be committed. Need not be synced: it is found again.
    pub commit: Index,
}

/// Where a group's log begins: after this entry, which a checkpoint or a snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// The last entry before the log.
    pub index: Index,
    /// Its term.
    pub term: Term,
}

/// All that the WAL knows of a group besides its entries, as each segment repeats it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The latest hard state.
    pub hard_state: HardState,
    /// The latest compaction mark.
    pub compacted: Compacted,
    /// The last entry; the mark's if there is none after it.
    pub last: Index,
}

/// One thing a group remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A log entry, at the index after the last one.
    Entry(Entry),
    /// Term, vote and commit. Synced in every mode if term or vote change.
    HardState(HardState),
    /// Entries from here on are void.
    Truncate {
        /// The first void one.
        from: Index,
    },
    /// Entries up to here are not needed any more. Synced in every mode.
    Compacted(Compacted),
    /// Nothing: it carries a write header that says what is durable. The writer adds these.
    Mark,
    /// The group as a whole, so that nothing before this segment is needed for it. The writer adds these.
    Base(Base),
}

/// Bytes of a record before its payload.
pub(crate) const RECORD_HEADER: usize = 21;

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const TRUNCATE: u8 = 3;
const COMPACTED: u8 = 4;
const MARK: u8 = 5;
const BASE: u8 = 6;

impl Record {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, lsn: Lsn, group: GroupId, buffer: &mut BytesMut) {
        let start = buffer.len();
        buffer.put_bytes(0, RECORD_HEADER);
        let kind = match self {
            Record::Entry(entry) => put(entry, buffer, ENTRY),
            Record::HardState(state) => put(state, buffer, HARD_STATE),
            Record::Truncate { from } => put(from, buffer, TRUNCATE),
            Record::Compacted(mark) => put(mark, buffer, COMPACTED),
            Record::Mark => MARK,
            Record::Base(base) => put(base, buffer, BASE),
        };
        let record = &mut buffer[start..];
        let length = (record.len() - RECORD_HEADER) as u32;
        record[0..4].copy_from_slice(&length.to_le_bytes());
        record[8..16].copy_from_slice(&lsn.0.to_le_bytes());
        record[16..20].copy_from_slice(&group.0.to_le_bytes());
        record[20] = kind;
        let crc = checksum(record);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Takes the record with this lsn off the front of `bytes`.
    pub(crate) fn decode(lsn: Lsn, bytes: &[u8]) -> Result<Decoded<'_>, String> {
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) else {
            return Err("the record is cut short".into());
        };
        let length = u32::from_le_bytes(array(header, 0)) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return Err("the record is longer than its write".into());
        };
        let matches = checksum(&bytes[..RECORD_HEADER + length]) == u32::from_le_bytes(array(header, 4));
        if !matches && !bugs::active(Bug::ReadUnchecked) {
            return Err("the record does not match its checksum".into());
        }
        let found = u64::from_le_bytes(array(header, 8));
        if found != lsn.0 {
            return Err(format!("the record is lsn {found} where {lsn} belongs"));
        }
        let record = match header[20] {
            ENTRY => Record::Entry(take(payload)?),
            HARD_STATE => Record::HardState(take(payload)?),
            TRUNCATE => Record::Truncate { from: take(payload)? },
            COMPACTED => Record::Compacted(take(payload)?),
            MARK => Record::Mark,
            BASE => Record::Base(take(payload)?),
            kind => return Err(format!("record kind {kind} is unknown to this version")),
        };
        Ok(Decoded { group: GroupId(u32::from_le_bytes(array(header, 16))), record, rest })
    }
}

/// A record and what follows it.
pub(crate) struct Decoded<'a> {
    pub group: GroupId,
    pub record: Record,
    pub rest: &'a [u8],
}

fn checksum(record: &[u8]) -> u32 {
    extend_crc(crc32c::crc32c(&record[0..4]), &record[8..])
}

fn put<T: Serialize>(value: &T, buffer: &mut BytesMut, kind: u8) -> u8 {
    match postcard::serialize_with_flavor(value, Tail(buffer)) {
        Ok(()) => kind,
        Err(error) => unreachable!("a WAL record did not encode: {error}"),
    }
}

fn take<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    chronos_proto::codec::decode("a WAL record", payload).map_err(|error| error.to_string())
}

/// Lets postcard write straight into the pending write.
struct Tail<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Tail<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.put_u8(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
