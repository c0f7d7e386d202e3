//! Segment bytes in, the state that was written out. The table of rows is in the room's essay (`mod.rs`).
//!
//! Two passes over the segments. The survey looks at every sector and finds what each segment is, which writes open a
//! segment and what is known durable. The walk follows the chain and reads its records.

use super::segment::{Anchor, FORMAT_VERSION, Identity, Link, SECTOR, SegmentHeader, WriteHeader};
use super::{Base, Compacted, HardState, Record, SegmentId};
use crate::bugs::{self, Bug};
use chronos_proto::command::Entry;
use chronos_proto::id::{GroupId, Index, Lsn};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// The segment files of one WAL. Each is read twice, one at a time.
pub trait Segments {
    /// Those that exist, in any order.
    fn ids(&self) -> Vec<SegmentId>;

    /// The whole file, or the operating system's words.
    fn read(&self, segment: SegmentId) -> Result<Cow<'_, [u8]>, String>;
}

impl<B: AsRef<[u8]>> Segments for BTreeMap<SegmentId, B> {
    fn ids(&self) -> Vec<SegmentId> {
        self.keys().copied().collect()
    }

    fn read(&self, segment: SegmentId) -> Result<Cow<'_, [u8]>, String> {
        self.get(&segment).map(|bytes| Cow::Borrowed(bytes.as_ref())).ok_or_else(|| "no such file".to_owned())
    }
}

/// What recovery found. The default is an empty log's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recovered {
    /// By group.
    pub groups: BTreeMap<GroupId, GroupLog>,
    /// Of the last write that was read.
    pub anchor: Option<Anchor>,
    /// The greatest generation seen.
    pub generation: u64,
    /// The greatest lsn seen, even in what was cut: no lsn is used twice.
    pub last_lsn: Lsn,
    /// What was cut off the end: writes that were under way when the last run stopped.
    pub cut: Option<Cut>,
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupLog {
    /// The latest hard state.
    pub hard_state: HardState,
    /// Where the log begins: after this entry.
    pub compacted: Compacted,
    /// Every entry after it, without a gap.
    pub entries: Vec<Entry>,
}

/// Where a torn tail was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The segment.
    pub segment: SegmentId,
    /// Where in it.
    pub offset: u64,
    /// The first lsn that is not there.
    pub lsn: Lsn,
}

/// A segment that the chain goes through.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub id: SegmentId,
    pub bytes: u64,
    /// The last entry of each group up to the floor.
    pub last: BTreeMap<GroupId, Index>,
}

/// A row of the recovery table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// A segment whose opening write reads.
    A,
    /// A segment whose opening write does not read, or never was.
    B,
    /// A file without a whole segment header.
    C,
    /// A segment of a newer format.
    D,
    /// A segment of another log.
    E,
    /// A segment under another's name.
    F,
    /// A segment whose file is too short.
    G,
    /// A file that the medium does not give.
    H,
    /// The chain ends, and nothing lies beyond.
    I,
    /// The chain ends, and what lies beyond was never known durable.
    J,
    /// The chain breaks at a write that was durable.
    K,
    /// The chain breaks at a segment whose opening was durable.
    L,
    /// The chain breaks where a segment is missing.
    M,
    /// The chain holds, and entries that a group needs are not in it.
    N,
    /// The chain holds, and a record in it makes no sense.
    O,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why the log is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalDamage {
    /// The row of the recovery table.
    pub row: Row,
    /// The segment.
    pub segment: SegmentId,
    /// Where in it.
    pub offset: u64,
    /// The first lsn that cannot be read, where it is known.
    pub lsn: Option<Lsn>,
    /// What was found.
    pub what: String,
}

impl std::error::Error for WalDamage {}

impl fmt::Display for WalDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.segment, self.offset)?;
        if let Some(lsn) = self.lsn {
            write!(f, ", lsn {lsn}")?;
        }
        let hint = match self.row {
            Row::D => "start it with a version of chronos that knows this format",
            Row::E | Row::F => "put the right file back, or start on this log's own data directory",
            _ => {
                "run `chronos verify` on the data directory; \
                 nothing was changed, so a copy of the file can still be put back"
            }
        };
        write!(f, ": {} (row {}); {hint}", self.what, self.row)
    }
}

/// Reads a WAL. What was durable is returned whole or not at all: damage is never cut.
pub fn recover(identity: Identity, segments: &impl Segments) -> Result<Recovered, WalDamage> {
    let mut ids = segments.ids();
    ids.sort_unstable();
    let mut survey = Survey::default();
    for id in &ids {
        survey.add(identity, *id, &read(segments, *id)?)?;
    }
    let mut walk = Walk::new(&survey);
    walk.run(identity, segments)?;
    walk.finish()
}

/// Whether a hole at `missing` is damage: it was durable. Anything above was under way, and is cut.
fn is_damage(missing: Lsn, durable: Lsn) -> bool {
    missing <= durable && !bugs::active(Bug::CutDamagedMiddle)
}

fn read(segments: &impl Segments, id: SegmentId) -> Result<Cow<'_, [u8]>, WalDamage> {
    segments.read(id).map_err(|error| WalDamage {
        row: Row::H,
        segment: id,
        offset: 0,
        lsn: None,
        what: format!("the file cannot be read: {error}"),
    })
}

/// What the first pass finds.
#[derive(Default)]
struct Survey {
    files: Vec<File>,
    /// Greatest lsn that any write or segment of ours says is durable.
    durable: Lsn,
    last_lsn: Lsn,
    generation: u64,
}

/// One segment file.
struct File {
    id: SegmentId,
    row: Row,
    bytes: u64,
    /// Its opening write, where that reads.
    opening: Option<WriteHeader>,
    /// Something is in it besides its header.
    used: bool,
}

impl Survey {
    fn add(&mut self, identity: Identity, id: SegmentId, file: &[u8]) -> Result<(), WalDamage> {
        let header = SegmentHeader::decode(file);
        let opening = whole(identity, id, file, SECTOR).map(|(write, _)| write);
        let row = classify(identity, id, file, header.as_ref(), opening.as_ref());
        let refuse = |what: String| Err(WalDamage { row, segment: id, offset: 0, lsn: None, what });
        match (row, header) {
            (Row::A | Row::B | Row::C, _) | (_, None) => {}
            (Row::D, Some(header)) => {
                let version = header.version;
                return refuse(format!(
                    "the segment has format {version}, this version reads {FORMAT_VERSION}"
                ));
            }
            (Row::E, Some(header)) => {
                let Identity { cluster, node, incarnation } = header.identity;
                return refuse(format!(
                    "the segment belongs to node {node} (incarnation {incarnation}) of cluster {cluster:032x}, \
                     not to node {} (incarnation {}) of cluster {:032x}",
                    identity.node,
                    identity.incarnation,
                    identity.cluster.0,
                    cluster = cluster.0,
                ));
            }
            (Row::F, Some(header)) => return refuse(format!("the file holds segment {}", header.segment)),
            (_, Some(header)) => {
                return refuse(format!(
                    "the file has {} bytes of {}: it was cut off",
                    file.len(),
                    header.bytes
                ));
            }
        }
        let header = header.filter(|_| row != Row::C);
        if let Some(header) = header {
            self.durable = self.durable.max(header.durable);
            self.generation = self.generation.max(header.generation);
        }
        let mut at = SECTOR;
        while let Some(rest) = file.get(at..).filter(|rest| !rest.is_empty()) {
            let found = WriteHeader::decode(identity.seed(id, at as u64), rest);
            at += SECTOR;
            // A write that does not read whole still says what was durable before it.
            if let Some(write) = found {
                self.durable = self.durable.max(write.durable);
                self.last_lsn = self.last_lsn.max(write.last());
                self.generation = self.generation.max(write.generation);
                if write.records(rest).is_some() {
                    at += write.span() - SECTOR;
                }
            }
        }
        self.files.push(File {
            id,
            row,
            bytes: header.map_or(file.len() as u64, |header| header.bytes),
            opening: opening.filter(|_| row == Row::A),
            used: file.get(SECTOR..).is_some_and(is_dirty),
        });
        Ok(())
    }

    /// The chain begins too late for a group.
    fn gap(&self, group: GroupId, missing: Index) -> WalDamage {
        let unread = self.files.first().filter(|file| file.row != Row::A);
        let first = unread.or(self.files.first()).map_or_else(SegmentId::default, |file| file.id);
        let what = match unread {
            Some(_) => "the segment's header or first write does not read",
            None => "the log begins here, and the segment before it is missing",
        };
        let what = format!("{what}, but group {group} still needs entry {missing}");
        WalDamage { row: Row::N, segment: first, offset: 0, lsn: None, what }
    }

    /// The segment whose opening follows `link`: of the newest generation, since that takes along what it replaces.
    fn successor(&self, link: Link) -> Option<usize> {
        let follows = |index: &usize| self.files[*index].opening.is_some_and(|write| write.before == link);
        let newest = |index: &usize| self.files[*index].opening.map(|write| write.generation);
        (0..self.files.len()).filter(follows).max_by_key(newest)
    }
}

/// Exactly one of rows A to G holds of a file that was read.
fn classify(
    identity: Identity,
    id: SegmentId,
    file: &[u8],
    header: Option<&SegmentHeader>,
    opening: Option<&WriteHeader>,
) -> Row {
    let known = header.is_some_and(|header| header.version <= FORMAT_VERSION);
    let ours = header.is_some_and(|header| header.identity == identity);
    let named = header.is_some_and(|header| header.segment == id);
    let long = header.is_some_and(|header| header.bytes <= file.len() as u64);
    let opened = opening.is_some_and(|write| header.is_some_and(|h| h.generation == write.generation));
    only([
        (Row::A, known && ours && named && long && opened),
        (Row::B, known && ours && named && long && !opened),
        (Row::C, header.is_none()),
        (Row::D, header.is_some() && !known),
        (Row::E, known && !ours),
        (Row::F, known && ours && !named),
        (Row::G, known && ours && named && !long),
    ])
}

fn only<const N: usize>(rows: [(Row, bool); N]) -> Row {
    let mut held = rows.iter().filter(|(_, holds)| *holds);
    match (held.next(), held.next()) {
        (Some((row, _)), None) => *row,
        _ => unreachable!("of the recovery table, exactly one row holds: {rows:?}"),
    }
}

/// The write at `at` in a segment's file and its records, if all of it is there.
fn whole(identity: Identity, id: SegmentId, file: &[u8], at: usize) -> Option<(WriteHeader, &[u8])> {
    let bytes = file.get(at..)?;
    let write = WriteHeader::decode(identity.seed(id, at as u64), bytes)?;
    Some((write, write.records(bytes)?))
}

fn is_dirty(bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR).any(|chunk| chunk != &[0; SECTOR][..chunk.len()])
}

/// The second pass.
struct Walk<'a> {
    survey: &'a Survey,
    link: Link,
    generation: u64,
    floor: Link,
    anchor: Option<Anchor>,
    groups: BTreeMap<GroupId, Replay>,
    tail: Vec<(GroupId, Record)>,
    kept: Vec<Kept>,
    cut: Option<Cut>,
}

impl<'a> Walk<'a> {
    fn new(survey: &'a Survey) -> Walk<'a> {
        Walk {
            survey,
            link: Link::default(),
            generation: 0,
            floor: Link::default(),
            anchor: None,
            groups: BTreeMap::new(),
            tail: Vec::new(),
            kept: Vec::new(),
            cut: None,
        }
    }

    fn run(&mut self, identity: Identity, segments: &impl Segments) -> Result<(), WalDamage> {
        let survey = self.survey;
        let oldest = survey.files.iter().find_map(|file| file.opening);
        self.link = oldest.map(|write| write.before).unwrap_or_default();
        self.floor = self.link;
        let mut next = survey.successor(self.link);
        let Some(_) = next else { return self.end(None, &[], 0) };
        while let Some(index) = next {
            let file = &survey.files[index];
            let bytes = read(segments, file.id)?;
            let mut at = SECTOR;
            loop {
                let write = whole(identity, file.id, &bytes, at);
                let Some((write, records)) = write.filter(|(write, _)| self.follows(write, at)) else {
                    return self.end(Some(index), bytes.get(at..).unwrap_or_default(), at);
                };
                self.take(file, at, &write, records)?;
                at += write.span();
                next = survey.successor(self.link).filter(|next| *next > index);
                if next.is_some() {
                    break;
                }
            }
        }
        unreachable!("a walk ends where the chain does")
    }

    fn follows(&self, write: &WriteHeader, at: usize) -> bool {
        let runs_on = write.generation == self.generation && write.first == self.link.lsn.next();
        let opens = write.generation > self.generation && at == SECTOR;
        write.before == self.link && (runs_on || opens)
    }

    fn take(&mut self, file: &File, at: usize, write: &WriteHeader, records: &[u8]) -> Result<(), WalDamage> {
        let durable = write.last() <= self.survey.durable;
        if durable && self.kept.last().is_none_or(|kept| kept.id != file.id) {
            self.kept.push(Kept { id: file.id, bytes: file.bytes, last: BTreeMap::new() });
        }
        let mut rest = records;
        for lsn in (write.first.0..=write.last().0).map(Lsn) {
            let offset = at as u64 + (super::segment::WRITE_HEADER + records.len() - rest.len()) as u64;
            let damage = |what| WalDamage { row: Row::O, segment: file.id, offset, lsn: Some(lsn), what };
            let decoded = Record::decode(lsn, rest).map_err(damage)?;
            rest = decoded.rest;
            if decoded.record != Record::Mark {
                self.groups.entry(decoded.group).or_default().apply(&decoded.record);
            }
            match self.kept.last_mut().filter(|_| durable) {
                Some(kept) => kept.note(decoded.group, &decoded.record),
                None if matches!(decoded.record, Record::Mark | Record::Base(_)) => {}
                None => self.tail.push((decoded.group, decoded.record)),
            }
        }
        self.link = write.link();
        self.generation = write.generation;
        self.anchor = Some(write.anchor);
        if durable {
            self.floor = self.link;
        }
        Ok(())
    }

    /// The chain goes no further than `at` in this segment, of which `rest` is left. Exactly one of rows I to M holds.
    fn end(&mut self, index: Option<usize>, rest: &[u8], at: usize) -> Result<(), WalDamage> {
        let files = &self.survey.files;
        let lsn = self.link.lsn.next();
        let lost = is_damage(lsn, self.survey.durable);
        let here = index.map(|index| &files[index]);
        let next = files.get(index.map_or(0, |index| index + 1));
        let dirty = is_dirty(rest);
        let beyond = dirty || self.survey.last_lsn >= lsn || next.is_some_and(|next| next.used);
        let gap = here.is_some_and(|here| next.is_none_or(|next| next.id.0 > here.id.0 + 1));
        let broken = next.is_some_and(|next| next.row == Row::C || next.row == Row::B && next.used);
        let row = only([
            (Row::I, !lost && !beyond),
            (Row::J, !lost && beyond),
            (Row::K, lost && (dirty || !gap && !broken)),
            (Row::L, lost && !dirty && !gap && broken),
            (Row::M, lost && !dirty && gap),
        ]);
        let segment = match (row, here, next) {
            (Row::L, _, Some(next)) => next.id,
            (Row::M, Some(here), _) => SegmentId(here.id.0 + 1),
            (_, Some(here), _) => here.id,
            (_, None, next) => next.map_or_else(SegmentId::default, |next| next.id),
        };
        let offset = if matches!(row, Row::L | Row::M) { 0 } else { at as u64 };
        let what = match row {
            Row::I => return Ok(()),
            Row::J => {
                self.cut = Some(Cut { segment, offset, lsn });
                return Ok(());
            }
            Row::L => "the segment's header or first write does not read",
            Row::M => "the segment is missing",
            _ => "the write that belongs here does not read",
        };
        let what = format!("{what}, and lsn {} was durable", self.survey.durable);
        Err(WalDamage { row, segment, offset, lsn: Some(lsn), what })
    }

    fn finish(self) -> Result<Recovered, WalDamage> {
        let mut groups = BTreeMap::new();
        for (group, replay) in self.groups {
            let log = replay.finish().map_err(|missing| self.survey.gap(group, missing))?;
            groups.insert(group, log);
        }
        let files = &self.survey.files;
        let is_void = |id: &SegmentId| self.kept.iter().all(|kept| kept.id != *id);
        Ok(Recovered {
            groups,
            anchor: self.anchor,
            generation: self.survey.generation,
            last_lsn: self.survey.last_lsn.max(self.link.lsn),
            cut: self.cut,
            floor: self.floor,
            tail: self.tail,
            void: files.iter().map(|file| file.id).filter(is_void).collect(),
            next_segment: files.last().map_or_else(SegmentId::default, |file| SegmentId(file.id.0 + 1)),
            kept: self.kept,
        })
    }
}

impl Kept {
    fn note(&mut self, group: GroupId, record: &Record) {
        if let Record::Entry(entry) = record {
            self.last.insert(group, entry.index);
        }
    }
}

/// One group's log as the walk comes along.
#[derive(Default)]
struct Replay {
    base: Base,
    /// Without a gap; not from the compaction mark on if the walk began later.
    entries: VecDeque<Entry>,
}

impl Replay {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => {
                self.truncate(entry.index);
                if self.entries.back().is_some_and(|back| back.index.next() != entry.index) {
                    self.entries.clear();
                }
                self.entries.push_back(entry.clone());
                self.base.last = entry.index;
            }
            Record::HardState(state) => self.base.hard_state = *state,
            Record::Truncate { from } => self.truncate(*from),
            Record::Compacted(mark) => self.compact(*mark),
            Record::Mark => {}
            Record::Base(base) => {
                self.base.hard_state = base.hard_state;
                self.compact(base.compacted);
                self.truncate(base.last.next());
                self.base.last = base.last;
            }
        }
    }

    fn truncate(&mut self, from: Index) {
        while self.entries.back().is_some_and(|entry| entry.index >= from) {
            self.entries.pop_back();
        }
        self.base.last = self.base.last.min(Index(from.0.saturating_sub(1))).max(self.base.compacted.index);
    }

    fn compact(&mut self, mark: Compacted) {
        self.base.compacted = mark;
        self.base.last = self.base.last.max(mark.index);
        while self.entries.front().is_some_and(|entry| entry.index <= mark.index) {
            self.entries.pop_front();
        }
    }

    /// The log, or the first entry that is missing in it.
    fn finish(self) -> Result<GroupLog, Index> {
        let Base { hard_state, compacted, last } = self.base;
        let mut expected = compacted.index;
        for entry in &self.entries {
            expected = expected.next();
            if entry.index != expected {
                return Err(expected);
            }
        }
        if expected != last {
            return Err(expected.next());
        }
        Ok(GroupLog { hard_state, compacted, entries: self.entries.into() })
    }
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
