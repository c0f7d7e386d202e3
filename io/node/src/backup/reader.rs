//! Reading and checking.

use super::format::{
    BLOCK_HEADER_BYTES, BLOCK_MAX_BYTES, FORMAT_VERSION, GroupEnd, GroupHead, HEADER_BYTES, Head, Kind,
    MAGIC, SEAL_BYTES, checksum, header,
};
use bytes::Bytes;
use chronos_engine::keys::{self, tag};
use chronos_engine::proto::codec;
use chronos_engine::state::{Digests, GroupRecord, STATE_VERSION};
use ring::digest::{Context, SHA256};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Why a snapshot file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not what was written.
    #[error("byte {offset}: {what}; the file is damaged or cut: take another one, or copy it again")]
    Damaged {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// It is no snapshot file.
    #[error("it is not a chronos snapshot file")]
    Other,
    /// A newer release wrote it.
    #[error(
        "it has format {found}, this build reads up to {FORMAT_VERSION}: use the release that wrote it, or a newer one"
    )]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The states in it have a layout of another release.
    #[error(
        "its states have layout {found}, this build reads {STATE_VERSION}: use the release that wrote it"
    )]
    Layout {
        /// The layout.
        found: u32,
    },
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What comes next in a file.
#[derive(Debug)]
pub enum Part {
    /// A group begins.
    Group(GroupHead),
    /// Its next keys and values.
    Entries(Vec<(Bytes, Bytes)>),
    /// It ends, and was all there.
    GroupEnd(GroupEnd),
    /// The file ends, and was all there.
    End,
}

/// Reads a file from its beginning to its end, and checks all of it.
pub struct Reader<R> {
    input: R,
    at: u64,
    seal: Context,
    head: Head,
    /// Groups that are to come.
    coming: std::vec::IntoIter<chronos_engine::proto::id::GroupId>,
    group: Option<Group>,
    ended: bool,
}

/// What is known of the group that is being read.
struct Group {
    last_key: Bytes,
    record: Option<GroupRecord>,
    digests: Digests,
    entries: u64,
    bytes: u64,
}

impl<R: Read> Reader<R> {
    /// Begins with a file.
    pub fn open(input: R) -> Result<Reader<R>, ReadError> {
        let nobody = Head {
            cluster: Default::default(),
            time: Default::default(),
            groups: Vec::new(),
            release: String::new(),
        };
        let mut reader = Reader {
            input,
            at: 0,
            seal: Context::new(&SHA256),
            head: nobody,
            coming: Vec::new().into_iter(),
            group: None,
            ended: false,
        };
        let found: [u8; HEADER_BYTES] = reader.array("the header")?;
        let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
        if found[..8] != MAGIC {
            return Err(ReadError::Other);
        }
        if found != header(version) {
            return Err(damaged(0, "the header's checksum does not hold"));
        }
        if version != FORMAT_VERSION {
            return Err(ReadError::Newer { found: version });
        }
        let at = reader.at;
        let head: Head = match reader.block()? {
            (Kind::Head, body) => decode(at, "head", &body)?,
            (kind, _) => return Err(damaged(at, format!("the head is missing, there is {kind:?}"))),
        };
        if !head.groups.is_sorted_by(|a, b| a < b) {
            return Err(damaged(at, "the head's groups are in no order"));
        }
        reader.coming = head.groups.clone().into_iter();
        reader.head = head;
        Ok(reader)
    }

    /// Whose state it is.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// How far it has read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// What comes next; [`Part::End`] once everything was there.
    pub fn next_part(&mut self) -> Result<Part, ReadError> {
        if self.ended {
            return Ok(Part::End);
        }
        let (at, sealed) = (self.at, self.seal.clone());
        let (kind, body) = self.block()?;
        match (kind, &mut self.group) {
            (Kind::Group, None) => {
                let head: GroupHead = decode(at, "group", &body)?;
                if self.coming.next() != Some(head.group) {
                    return Err(damaged(at, format!("group {} is not what comes next", head.group)));
                }
                if head.state_version != STATE_VERSION {
                    return Err(ReadError::Layout { found: head.state_version });
                }
                let (last_key, digests) = (Bytes::new(), Digests::default());
                self.group = Some(Group { last_key, record: None, digests, entries: 0, bytes: 0 });
                Ok(Part::Group(head))
            }
            (Kind::Entries, Some(group)) => {
                let entries = group.entries(&body).map_err(|what| damaged(at, what))?;
                Ok(Part::Entries(entries))
            }
            (Kind::GroupEnd, Some(group)) => {
                let end: GroupEnd = decode(at, "group end", &body)?;
                group.check(&end).map_err(|what| damaged(at, what))?;
                self.group = None;
                Ok(Part::GroupEnd(end))
            }
            (Kind::Seal, None) if self.coming.len() == 0 => {
                if body.len() != SEAL_BYTES || body != sealed.finish().as_ref() {
                    return Err(damaged(at, "the seal is not that of what stands before it"));
                }
                let end = self.at;
                if self.input.read(&mut [0])? != 0 {
                    return Err(damaged(end, "there is something behind the end"));
                }
                self.ended = true;
                Ok(Part::End)
            }
            (kind, _) => Err(damaged(at, format!("{kind:?} is not what comes next"))),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], ReadError> {
        let mut out = [0; N];
        let mut filled = 0;
        while filled < N {
            match self.input.read(&mut out[filled..]) {
                Ok(0) => {
                    let at = self.at + filled as u64;
                    return Err(damaged(at, format!("it ends within {what}")));
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.seal.update(&out);
        self.at += N as u64;
        Ok(out)
    }

    fn block(&mut self) -> Result<(Kind, Vec<u8>), ReadError> {
        let at = self.at;
        let front: [u8; BLOCK_HEADER_BYTES] = self.array("the front of a block")?;
        let [kind, zeros @ .., a, b, c, d, e, f, g, h] = front;
        let length = u32::from_le_bytes([a, b, c, d]);
        let crc = u32::from_le_bytes([e, f, g, h]);
        let kind = Kind::of(kind).filter(|_| zeros == [0; 3]);
        let kind = kind.filter(|_| length as usize <= BLOCK_MAX_BYTES);
        let Some(kind) = kind else { return Err(damaged(at, "no block begins here")) };
        // Grows with what is there, not with what the length says.
        let mut body = Vec::new();
        self.input.by_ref().take(length.into()).read_to_end(&mut body)?;
        if body.len() < length as usize {
            let end = self.at + body.len() as u64;
            return Err(damaged(
                at,
                format!("the file ends at byte {end}, within the block that begins here"),
            ));
        }
        let mut covered = [0; 8];
        covered.copy_from_slice(&front[..8]);
        if checksum(at, &covered, &body) != crc {
            return Err(damaged(at, format!("the checksum of a block of {length} bytes does not hold")));
        }
        self.seal.update(&body);
        self.at += u64::from(length);
        Ok((kind, body))
    }
}

impl Group {
    /// Takes a block apart.
    fn entries(&mut self, body: &[u8]) -> Result<Vec<(Bytes, Bytes)>, String> {
        let body = Bytes::copy_from_slice(body);
        let (mut at, mut out) = (0, Vec::new());
        while at < body.len() {
            let length = |at: usize| {
                let bytes = body.get(at..at + 4)?.try_into().ok()?;
                usize::try_from(u32::from_le_bytes(bytes)).ok()
            };
            let lengths = length(at).zip(length(at + 4));
            let ends = lengths.map(|(key, value)| (at + 8 + key, at + 8 + key + value));
            let Some((key_end, end)) = ends.filter(|(_, end)| *end <= body.len()) else {
                return Err("an entry does not end within its block".into());
            };
            let (key, value) = (body.slice(at + 8..key_end), body.slice(key_end..end));
            self.take(&key, &value)?;
            out.push((key, value));
            at = end;
        }
        Ok(out)
    }

    fn take(&mut self, key: &Bytes, value: &Bytes) -> Result<(), String> {
        if *key <= self.last_key || key[0] == tag::ROOT || key[0] == 0xFF {
            return Err(format!("the key {key:02x?} has no place behind {:02x?}", self.last_key));
        }
        if *key == keys::group_record() {
            self.record = Some(codec::decode("group record", value).map_err(|error| error.to_string())?);
        }
        if keys::is_summed(key) {
            self.digests.replace(key, 0, codec::digest(key, value));
        }
        self.last_key = key.clone();
        self.entries += 1;
        self.bytes += (key.len() + value.len()) as u64;
        Ok(())
    }

    /// Whether all of it was there, and the same.
    fn check(&self, end: &GroupEnd) -> Result<(), String> {
        let Some(record) = &self.record else { return Err("the group has no record".into()) };
        let found = GroupEnd { entries: self.entries, bytes: self.bytes, data_digest: self.digests.data() };
        if found != *end {
            return Err(format!("the group ends with {end:?}, but was {found:?}"));
        }
        match record.digests().differences(&self.digests).first() {
            None => Ok(()),
            Some((tag, relation, bucket)) => Err(format!(
                "the state is not what its own sums say, first in keys {tag:02x}, relation {relation}, bucket {bucket}"
            )),
        }
    }
}

fn damaged(offset: u64, what: impl Into<String>) -> ReadError {
    ReadError::Damaged { offset, what: what.into() }
}

fn decode<T: DeserializeOwned>(at: u64, what: &'static str, body: &[u8]) -> Result<T, ReadError> {
    codec::decode(what, body).map_err(|error| damaged(at, error.to_string()))
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whose state it is.
    pub head: Head,
    /// Its groups.
    pub groups: Vec<(GroupHead, GroupEnd)>,
    /// The length of the file.
    pub bytes: u64,
}

/// Reads and checks all of a file. `progress` is given how much of how much was read.
pub fn check(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Summary, ReadError> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut reader = Reader::open(BufReader::with_capacity(1 << 20, file))?;
    let mut groups = Vec::new();
    let mut begun = None;
    loop {
        match reader.next_part()? {
            Part::Group(head) => begun = Some(head),
            Part::Entries(_) => progress(reader.at(), length),
            Part::GroupEnd(end) => groups.extend(begun.take().map(|head| (head, end))),
            Part::End => break,
        }
    }
    Ok(Summary { head: reader.head().clone(), groups, bytes: reader.at() })
}
