//! A second reader of WAL writes, by `docs/FORMAT.md` alone: it tells the checkers which entries a write carries.
//! It shares no code with the engine's recovery, so that the two check each other.

use chronos_proto::codec;
use chronos_proto::command::Entry;
use chronos_proto::id::{GroupId, Index, NodeId, Term};
use chronos_proto::raft::LogId;

const WRITE_HEADER: usize = 80;
const RECORD_HEADER: usize = 21;
const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_TRUNCATE: u8 = 3;
const KIND_COMPACTED: u8 = 4;

/// What a record means to a log.
#[derive(Clone, Debug, PartialEq)]
pub enum Logged {
    /// An entry is appended.
    Entry(GroupId, Entry),
    /// A term, and the vote in it.
    Voted(GroupId, Term, Option<NodeId>),
    /// Entries from here on are void.
    Truncated(GroupId, Index),
    /// The log begins behind this entry.
    Compacted(GroupId, LogId),
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}

/// The entries in one WAL write; none if these bytes are not a write (a segment's header, a zeroed rest).
pub fn entries(write: &[u8]) -> Result<Vec<Logged>, String> {
    let mut out = Vec::new();
    if write.get(..4) != Some(b"CWRT") {
        return Ok(out);
    }
    let length = u32_at(write, 12).ok_or("a write without a length")?;
    let count = u32_at(write, 16).ok_or("a write without a count")?;
    let mut rest = write.get(WRITE_HEADER..WRITE_HEADER + length).ok_or("a write shorter than it says")?;
    for _ in 0..count {
        let size = u32_at(rest, 0).ok_or("a record without a length")?;
        let group = GroupId(u32_at(rest, 16).ok_or("a record without a group")? as u32);
        let kind = *rest.get(20).ok_or("a record without a kind")?;
        let payload =
            rest.get(RECORD_HEADER..RECORD_HEADER + size).ok_or("a record longer than its write")?;
        match kind {
            KIND_ENTRY => {
                let entry = codec::decode("entry", payload).map_err(|e| e.to_string())?;
                out.push(Logged::Entry(group, entry));
            }
            KIND_TRUNCATE => {
                let from = codec::decode("truncation", payload).map_err(|e| e.to_string())?;
                out.push(Logged::Truncated(group, from));
            }
            KIND_HARD_STATE => {
                let (term, vote, _commit): (Term, Option<NodeId>, Index) =
                    codec::decode("hard state", payload).map_err(|e| e.to_string())?;
                out.push(Logged::Voted(group, term, vote));
            }
            KIND_COMPACTED => {
                let (index, term): (Index, Term) =
                    codec::decode("compaction", payload).map_err(|e| e.to_string())?;
                out.push(Logged::Compacted(group, LogId { term, index }));
            }
            _ => {}
        }
        rest = &rest[RECORD_HEADER + size..];
    }
    Ok(out)
}
