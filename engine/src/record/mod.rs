//! Recordings: a node is its inputs, so a file of them is a run that can be stepped through again.
//!
//! ```text
//!   Driver ── Recorder::step ──┬── Tap: what the store answered ──┐
//!                              ├── Now, Input ────────────────────┼──> Entry ──> bytes, for the shell to keep
//!                              └── digest of the effects ─────────┘
//!
//!   bytes ──> Entries ──> Player::step ──> the same effects, or the first step that differs
//! ```
//!
//! A recording begins with an [`Opening`]: the settings with the generator's seed, a reading of the clocks, and what
//! recovery had found in the log, or the memory of a node that ran already: so a long run is recorded in pieces of which
//! each can be replayed by itself. Handles are replaced by what they stand for: the store of a step by its number
//! (one more whenever a checkpoint became durable), and what the engine read there by the answers, each of them kept
//! the first time that it is given. So a recording needs no copy of the store, and no engine but this one.
//!
//! Each step carries the running hash over the effects of all steps so far ([`digest`]). A player comes to the same hash,
//! or the recording is of another build or platform, or the engine looks at something that is not an input: a bug. The
//! input is written before the step, so that one which the engine does not survive is there to be looked at.
//!
//! The layout of the bytes is in `docs/FORMAT.md`. Nothing here opens a file; the shell writes what it is given, and may
//! stop at any time: what is whole of a recording is a shorter recording.
//!
//! Not implemented: recordings without payloads; the engine cannot be stepped without them.

pub mod digest;
mod player;
mod recorder;
mod shared;
mod tap;

pub use player::{Played, Player};
pub use recorder::Recorder;

use crate::node::{Config, Node};
use crate::step::{Fatal, Input, Outputs};
use crate::store::{SharedStore, StoreError};
use crate::wal::Recovered;
use bytes::Bytes;
use chronos_proto::codec::{self, DecodeError};
use chronos_proto::time::Now;
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// Version of everything in a recording.
pub const FORMAT_VERSION: u32 = 2;
/// What the names of recordings end with.
pub const EXTENSION: &str = "chrec";
/// Bytes of a recording before its first entry.
pub const HEADER_BYTES: usize = 16;
/// Bytes of an entry before its payload.
pub const ENTRY_HEADER_BYTES: usize = 8;

const MAGIC: &[u8; 8] = b"CHRONREC";

/// Whose recording it is, for print.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The build that recorded, in its own words. Another build may well do other things.
    pub build: String,
    /// The node's name.
    pub name: String,
}

/// How a recording begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// Whose recording it is.
    pub label: Label,
    /// The settings, the generator's seed among them.
    pub config: Config,
    /// The clocks as the recording began.
    pub now: Now,
    /// What it was made of.
    pub origin: Origin,
}

/// What a node is made of. Append-only: new variants go to the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// It was opened: what recovery had found in the log.
    Recovered(Box<Recovered>),
    /// It ran already: its memory, by [`Node::image`](crate::Node::image).
    Image(Bytes),
}

impl Opening {
    /// The node. Its first effects go to `out`.
    fn make(self, store: &SharedStore, out: &mut Outputs) -> Result<Node, Fatal> {
        match self.origin {
            Origin::Recovered(recovered) => Node::new(self.config, self.now, *recovered, store, out),
            Origin::Image(image) => {
                Node::from_image(&image).map_err(|error| Fatal::StateDamaged(error.to_string()))
            }
        }
    }
}

/// What the store is asked, by its full keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The value under a key.
    Get(Bytes),
    /// Entries between bounds.
    Scan {
        /// The lower bound.
        from: Bound<Bytes>,
        /// The upper bound.
        to: Bound<Bytes>,
        /// From the greatest down.
        reverse: bool,
        /// At most so many.
        limit: usize,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A value, or none.
    Value(Option<Bytes>),
    /// Entries in the order asked for.
    Entries(Vec<(Bytes, Bytes)>),
    /// It could not be read.
    Failed(StoreError),
}

/// One question to the store, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The number of the store: an older one than the step's may still be read.
    pub store: u32,
    /// The question.
    pub query: Query,
    /// The answer.
    pub answer: Answer,
}

/// One entry of a recording. Append-only: new variants go to the end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entry<O = Box<Opening>, I = Input> {
    /// The beginning. The node's first effects follow.
    Opening(O),
    /// A step, as it begins. Its effects follow.
    Input {
        /// The clocks.
        now: Now,
        /// The number of the store that came with it: one more whenever it was another one than with the step before.
        store: u32,
        /// The input.
        input: I,
    },
    /// What came of it.
    Effects(Made),
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// What the store was asked for the first time.
    pub reads: Vec<Read>,
    /// The running hash over the effects of this and all steps before it; none if the step never ended, because the
    /// engine panicked.
    pub hash: Option<u64>,
}

/// One step of the node, as it is read back.
#[derive(Clone, Debug)]
pub struct Step {
    /// The clocks.
    pub now: Now,
    /// The number of the store.
    pub store: u32,
    /// The input.
    pub input: Input,
    /// What came of it.
    pub made: Made,
}

/// The beginning, as it is read back.
#[derive(Clone, Debug)]
pub struct Beginning {
    /// What the node was made of.
    pub opening: Opening,
    /// What came of it.
    pub made: Made,
}

/// Why bytes are not a recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// Not ours at all.
    #[error("not a recording of chronos: it does not begin with CHRONREC and a whole header")]
    Header,
    /// A version that this build does not read.
    #[error(
        "the recording has format version {0}, and this build reads version {FORMAT_VERSION}: replay it with the build that wrote it"
    )]
    Version(u32),
    /// Its first entry is not whole.
    #[error("the recording has no whole beginning: nothing of it can be replayed")]
    NoOpening,
    /// An entry is whole and makes no sense.
    #[error("entry at byte {at}: {why}; replay it with the build that wrote it")]
    Entry {
        /// Where.
        at: usize,
        /// What is wrong.
        why: DecodeError,
    },
    /// A step without a beginning or without its effects, or a second beginning.
    #[error("entry at byte {0} is not where such an entry belongs")]
    Order(usize),
}

/// The first bytes of every recording.
pub fn header() -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Appends an entry's bytes.
pub fn put<O: Serialize, I: Serialize>(entry: &Entry<O, I>, out: &mut Vec<u8>) {
    let payload = codec::encode(entry);
    // An entry holds one input or one recovered log, which are far below 4 GiB; a longer one reads as a torn end.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&length), &payload);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum.to_le_bytes());
    out.extend_from_slice(&payload);
}

/// The entries of a recording, one after the other, up to the first that is not whole.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Entries<'a> {
    /// Those in the bytes of a file.
    pub fn of(bytes: &'a [u8]) -> Result<Entries<'a>, RecordingError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(RecordingError::Header)?;
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if header[..8] != *MAGIC || number(12) != crc32c::crc32c(&header[..12]) {
            return Err(RecordingError::Header);
        }
        match number(8) {
            FORMAT_VERSION => Ok(Entries { bytes, at: HEADER_BYTES }),
            other => Err(RecordingError::Version(other)),
        }
    }

    /// The beginning.
    pub fn beginning(&mut self) -> Result<Beginning, RecordingError> {
        let at = self.at;
        let Some(Entry::Opening(opening)) = self.next().transpose()? else {
            return Err(if self.at == at { RecordingError::NoOpening } else { RecordingError::Order(at) });
        };
        let made = self.made()?.ok_or(RecordingError::NoOpening)?;
        Ok(Beginning { opening: *opening, made })
    }

    /// The next step that is there with its effects; none at the end.
    pub fn step(&mut self) -> Result<Option<Step>, RecordingError> {
        let at = self.at;
        match self.next().transpose()? {
            Some(Entry::Input { now, store, input }) => match self.made()? {
                Some(made) => Ok(Some(Step { now, store, input, made })),
                None => {
                    self.at = at;
                    Ok(None)
                }
            },
            Some(_) => Err(RecordingError::Order(at)),
            None => Ok(None),
        }
    }

    fn made(&mut self) -> Result<Option<Made>, RecordingError> {
        let at = self.at;
        match self.next().transpose()? {
            Some(Entry::Effects(made)) => Ok(Some(made)),
            Some(_) => Err(RecordingError::Order(at)),
            None => Ok(None),
        }
    }

    /// Bytes behind the last whole step: what was being written as the recording ended.
    pub fn rest(&self) -> usize {
        self.bytes.len() - self.at
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (checksum, after) = after.split_first_chunk::<4>()?;
        let payload = after.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        if crc32c::crc32c_append(crc32c::crc32c(length), payload) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let at = self.at;
        self.at += ENTRY_HEADER_BYTES + payload.len();
        Some(codec::decode("entry of a recording", payload).map_err(|why| RecordingError::Entry { at, why }))
    }
}
