//! The writer: records in, [`WalOp`]s out.
//!
//! Records gather in the pending write until [`Writer::cut`] hands it out, one at a time. Writing is in three places
//! at once: the pending write (not cut), the flight (cut, not reported durable) and the segments (durable).

use super::recovery::{Kept, Recovered};
use super::segment::{
    Anchor, FORMAT_VERSION, Identity, Link, SECTOR, SegmentHeader, WRITE_HEADER, WriteHeader,
};
use super::{Base, Compacted, Record, SegmentId, WalOp, WriteId};
use crate::bugs::{self, Bug};
use crate::node::Fsync;
use bytes::{Bytes, BytesMut};
use chronos_proto::command::{Command, Entry};
use chronos_proto::id::{GroupId, Index, Lsn};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// What the writer is told once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Whose log it is.
    pub identity: Identity,
    /// The size of a segment file; a write that is larger gets one of its own.
    pub segment_bytes: u64,
    /// When a write counts as durable.
    pub fsync: Fsync,
    /// Entries are refused while this many bytes wait to be cut.
    pub pending_max_bytes: usize,
}

/// Too much waits to be cut: the disk is slower than the writers. Nothing was appended; try again after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pending} bytes wait for the WAL, whose limit is {limit}: the disk is slow or full; retry later")]
pub struct Backlog {
    /// Bytes that wait.
    pub pending: usize,
    /// The limit.
    pub limit: usize,
}

/// Appends to the log of all groups of one node.
#[derive(Debug, Serialize, Deserialize)]
pub struct Writer {
    config: Config,
    generation: u64,
    groups: BTreeMap<GroupId, Base>,
    pending: Pending,
    flight: VecDeque<Flight>,
    /// The last write cut, and its end.
    cut: WriteId,
    end: Link,
    /// Everything up to here is synced.
    durable: Lsn,
    /// What the last write cut says of `durable`.
    claimed: Lsn,
    /// The last lsn cut that is more than a mark.
    substance: Lsn,
    /// The last compaction or truncation: segments go only once it is synced.
    pruned: Lsn,
    /// The last lsn of the generation's opening write.
    opening: Lsn,
    current: Segment,
    /// Older segments, oldest first.
    sealed: VecDeque<Segment>,
    /// Segments that recovery found off the chain.
    void: Vec<SegmentId>,
    spare: Option<SegmentId>,
    /// The number kept for making a spare, at the next cut.
    spare_due: Option<WriteId>,
    /// There was no space for a spare: not asked for again until segments were released.
    spare_full: bool,
    next_segment: SegmentId,
    written: u64,
}

/// What was appended and not cut.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    write: WriteId,
    /// Room for a write header, then records.
    buffer: BytesMut,
    first: Lsn,
    count: u32,
    /// The last entry of each group in it.
    last: BTreeMap<GroupId, Index>,
    substance: bool,
    sync: bool,
}

/// A segment file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Segment {
    id: SegmentId,
    bytes: u64,
    used: u64,
    /// The last lsn of its first write.
    opening: Lsn,
    /// The last entry of each group that it holds: it is needed until all of them are compacted.
    last: BTreeMap<GroupId, Index>,
}

/// A write that was cut and not yet reported.
#[derive(Debug, Serialize, Deserialize)]
struct Flight {
    write: WriteId,
    /// Everything up to here is synced when it is reported.
    synced: Option<Lsn>,
    /// Makes this segment, ahead of its use.
    spare: Option<SegmentId>,
    ops: Vec<WalOp>,
    full: bool,
}

impl Writer {
    /// Opens a generation over what recovery found: a fresh segment takes the recovered tail and every group's base.
    /// Nothing may be promised before the write that is named here is durable.
    pub fn open(
        config: Config,
        recovered: &Recovered,
        anchor: Anchor,
        out: &mut Vec<WalOp>,
    ) -> (Writer, WriteId) {
        let write = WriteId(1);
        let segment = recovered.next_segment;
        let first = recovered.last_lsn.next();
        let mut writer = Writer {
            config,
            generation: recovered.generation + 1,
            groups: recovered.bases(),
            pending: Pending::new(write, BytesMut::new(), first),
            flight: VecDeque::new(),
            cut: WriteId(0),
            end: recovered.floor,
            durable: recovered.floor.lsn,
            claimed: recovered.floor.lsn,
            substance: recovered.floor.lsn,
            pruned: Lsn(0),
            opening: Lsn(0),
            current: Segment { id: segment, bytes: 0, used: 0, opening: Lsn(0), last: BTreeMap::new() },
            sealed: VecDeque::new(),
            void: recovered.void.clone(),
            spare: None,
            spare_due: None,
            spare_full: false,
            next_segment: segment,
            written: 0,
        };
        for kept in &recovered.kept {
            let Kept { id, bytes, last } = kept.clone();
            writer.sealed.push_back(Segment { id, bytes, used: bytes, opening: Lsn(0), last });
        }
        for (group, record) in &recovered.tail {
            writer.pending.push(*group, record);
        }
        writer.pending.push(GroupId(0), &Record::Mark);
        writer.pending.sync = true;
        writer.issue(anchor, out);
        let end = writer.end.lsn;
        (writer.opening, writer.pruned, writer.substance) = (end, end, end);
        (writer, write)
    }

    /// Whether so much waits to be cut that no entries should be added: ask before there is one.
    pub fn backlog(&self) -> Result<(), Backlog> {
        let limit = self.config.pending_max_bytes;
        let pending = self.pending.buffer.len();
        if self.pending.count > 0 && pending >= limit { Err(Backlog { pending, limit }) } else { Ok(()) }
    }

    /// Adds a record to the pending write. Its lsn and the write to wait for come back; the write is cut by
    /// [`Writer::cut`].
    pub fn append(&mut self, group: GroupId, record: &Record) -> (Lsn, WriteId) {
        let lsn = self.pending.next();
        let base = self.groups.entry(group).or_default();
        match record {
            Record::Entry(entry) => {
                assert_eq!(entry.index, base.last.next(), "group {group}: an entry out of order");
                base.last = entry.index;
                // Who is in the group is known after any stop, in the weak modes too.
                self.pending.sync |= matches!(&*entry.command, Command::Membership(_));
            }
            Record::HardState(state) => {
                let old = std::mem::replace(&mut base.hard_state, *state);
                self.pending.sync |= (old.term, old.vote) != (state.term, state.vote);
            }
            Record::Truncate { from } => {
                let Compacted { index, .. } = base.compacted;
                assert!(*from > index, "group {group}: truncated from {from}, but compacted through {index}");
                base.last = base.last.min(Index(from.0 - 1));
                self.pruned = lsn;
                for segment in self.sealed.iter_mut().chain([&mut self.current]) {
                    clamp(&mut segment.last, group, base.last);
                }
            }
            Record::Compacted(mark) => {
                let old = base.compacted.index;
                assert!(mark.index >= old, "group {group}: compaction moved back, {old} -> {}", mark.index);
                base.compacted = *mark;
                base.last = base.last.max(mark.index);
                self.pruned = lsn;
                self.pending.sync = true;
            }
            Record::Mark | Record::Base(_) => unreachable!("only the writer adds {record:?}"),
        }
        self.pending.push(group, record);
        (lsn, self.pending.write)
    }

    /// A group's compaction mark.
    pub fn compacted(&self, group: GroupId) -> Compacted {
        self.groups.get(&group).map(|base| base.compacted).unwrap_or_default()
    }

    /// Hands out the pending write, if there is something in it and no other is under way.
    pub fn cut(&mut self, anchor: Anchor, out: &mut Vec<WalOp>) -> Option<WriteId> {
        if !self.flight.is_empty() {
            return None;
        }
        // A spare goes before the write that is cut with it, in its number too: should that write find no space, its
        // number must not be reported durable with a greater one.
        let fits = self.current.used + self.pending.span() <= self.current.bytes;
        if let Some(write) = self.spare_due.take_if(|_| fits) {
            self.make_spare(write, out);
        }
        if self.pending.count == 0 {
            return None;
        }
        let write = self.issue(anchor, out);
        if self.current.used * 2 > self.current.bytes && self.spare_due.is_none() && self.wants_spare() {
            self.spare_due = Some(self.pending.take_id());
        }
        Some(write)
    }

    /// Syncs what is not yet: the heartbeat of `--fsync interval`. None if all is synced, or if a write is under way.
    pub fn sync_now(&mut self, anchor: Anchor, out: &mut Vec<WalOp>) -> Option<WriteId> {
        if !self.flight.is_empty() || !self.is_unsynced() {
            return None;
        }
        if self.pending.count > 0 {
            self.pending.sync = true;
            return Some(self.issue(anchor, out));
        }
        let write = self.pending.take_id();
        let ops = vec![WalOp::Sync { write, segment: self.current.id }];
        self.launch(Flight { write, synced: Some(self.end.lsn), spare: None, ops, full: false }, out);
        Some(write)
    }

    /// When idle: writes down that the last write is durable, so that damage to it is known for damage, and makes
    /// the next segment ahead of its use. None if there is nothing to do.
    pub fn mark(&mut self, anchor: Anchor, out: &mut Vec<WalOp>) -> Option<WriteId> {
        if !self.wants_mark() {
            return None;
        }
        let write = (self.claimed < self.substance).then(|| {
            self.pending.push(GroupId(0), &Record::Mark);
            self.issue(anchor, out)
        });
        self.spare_due = None;
        if !self.wants_spare() {
            return write;
        }
        let spare = self.pending.take_id();
        self.make_spare(spare, out);
        Some(spare)
    }

    /// Whether [`Writer::mark`] would do something.
    pub fn wants_mark(&self) -> bool {
        let idle = self.flight.is_empty() && self.pending.count == 0 && self.durable == self.end.lsn;
        idle && (self.claimed < self.substance || self.wants_spare())
    }

    /// Whether anything appended is not known to be synced.
    pub fn is_unsynced(&self) -> bool {
        self.pending.count > 0 || self.durable < self.end.lsn
    }

    /// A write was reported durable (in a weak mode: done).
    pub fn on_durable(&mut self, write: WriteId) {
        self.flight.retain(|flight| {
            let reported = flight.write <= write && !flight.full;
            if reported {
                self.durable = self.durable.max(flight.synced.unwrap_or_default());
                self.spare = flight.spare.or(self.spare);
            }
            !reported
        });
    }

    /// There was no space for a write, and nothing of it was done: [`Writer::retry`] asks for it again.
    pub fn on_full(&mut self, write: WriteId) {
        for flight in self.flight.iter_mut().filter(|flight| flight.write == write) {
            flight.full = true;
            self.spare_full |= flight.spare.is_some();
        }
        // A spare can wait: the roll that needs it makes another.
        self.flight.retain(|flight| !flight.full || flight.spare.is_none());
    }

    /// Asks again for the write that found no space.
    pub fn retry(&mut self, out: &mut Vec<WalOp>) -> Option<WriteId> {
        let flight = self.flight.iter_mut().find(|flight| flight.full)?;
        flight.full = false;
        out.extend(flight.ops.iter().cloned());
        Some(flight.write)
    }

    /// Whether a write waits for space.
    pub fn is_full(&self) -> bool {
        self.flight.iter().any(|flight| flight.full)
    }

    /// Gives up segments that hold nothing after the groups' compaction marks, once these are synced.
    pub fn release(&mut self, out: &mut Vec<WalOp>) {
        // Not before a write behind the opening is durable: it is the proof that the opening was.
        if self.durable > self.opening {
            out.extend(self.void.drain(..).map(|segment| WalOp::Remove { segment }));
        }
        if self.durable < self.pruned || !self.void.is_empty() {
            return;
        }
        while let Some(oldest) = self.sealed.front() {
            let compacted = |group| self.groups.get(group).map_or(Index(0), |base| base.compacted.index);
            let heir = self.sealed.get(1).unwrap_or(&self.current);
            if oldest.last.iter().any(|(group, last)| *last > compacted(group)) || self.durable < heir.opening
            {
                return;
            }
            out.push(WalOp::Remove { segment: oldest.id });
            self.sealed.pop_front();
            self.spare_full = false;
        }
    }

    /// The first entry of a group that keeps a segment other than the newest; none if none does.
    pub fn pinned_from(&self, group: GroupId) -> Option<Index> {
        let needed = self.groups.get(&group)?.compacted.index;
        let pins = |segment: &Segment| segment.last.get(&group).is_some_and(|last| *last > needed);
        self.sealed.iter().any(pins).then(|| needed.next())
    }

    /// Appends again what a group needs from its compaction mark on, all of it, so that it keeps no older segment. It
    /// replaces what it repeats in one write: a crash finds the one or the other.
    pub fn append_again<'a>(&mut self, group: GroupId, entries: impl IntoIterator<Item = &'a Entry>) {
        let base = self.groups.entry(group).or_default();
        let (from, last) = (base.compacted.index.next(), base.last);
        self.append(group, &Record::Truncate { from });
        for entry in entries {
            self.append(group, &Record::Entry(entry.clone()));
        }
        let now = self.last(group);
        assert_eq!(now, last, "group {group}: what was appended again ends elsewhere");
    }

    /// Bytes cut since the writer was opened: two readings tell how much lies between them.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Bytes of segment files that are kept, the spare's not counted.
    pub fn kept(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + self.current.bytes
    }

    /// The greatest lsn known to be synced.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// The last entry of a group; its compaction mark if there is none after it.
    pub fn last(&self, group: GroupId) -> Index {
        self.groups.get(&group).map_or(Index(0), |base| base.last)
    }

    /// The generation: one above the last run's.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Cuts the pending write, into a new segment if the current one has no room.
    fn issue(&mut self, anchor: Anchor, out: &mut Vec<WalOp>) -> WriteId {
        let mut ops = Vec::new();
        if self.current.used + self.pending.span() > self.current.bytes {
            self.roll(&mut ops);
        }
        let seed = self.config.identity.seed(self.current.id, self.current.used);
        let header = WriteHeader {
            crc: 0,
            records_crc: 0,
            length: u32::try_from(self.pending.buffer.len() - WRITE_HEADER).expect("a write is below 4 GiB"),
            count: self.pending.count,
            generation: self.generation,
            first: self.pending.first,
            before: self.end,
            durable: self.durable,
            anchor,
        };
        let crc = header.seal(seed, &mut self.pending.buffer);
        let cut = self.pending.take();
        let (write, segment, offset) = (cut.write, self.current.id, self.current.used);
        self.cut = write;
        self.end = Link { lsn: header.last(), crc };
        self.claimed = self.durable;
        if cut.substance {
            self.substance = self.end.lsn;
        }
        for (group, index) in cut.last {
            let last = self.current.last.entry(group).or_default();
            *last = index.max(*last);
        }
        self.current.used += cut.bytes.len() as u64;
        self.written += cut.bytes.len() as u64;
        ops.push(WalOp::Write { write, segment, offset, bytes: cut.bytes });
        let sync = must_sync(self.config.fsync, cut.sync);
        ops.push(if sync { WalOp::Sync { write, segment } } else { WalOp::Done { write } });
        let synced = sync.then_some(self.end.lsn);
        self.launch(Flight { write, synced, spare: None, ops, full: false }, out);
        write
    }

    /// Turns to the next segment. The pending write, its first, takes every group's base along.
    fn roll(&mut self, ops: &mut Vec<WalOp>) {
        for (group, base) in &self.groups {
            self.pending.push(*group, &Record::Base(*base));
        }
        if self.durable < self.end.lsn && self.current.bytes > 0 {
            ops.push(WalOp::Sync { write: self.cut, segment: self.current.id });
        }
        let need = self.pending.span() + SECTOR as u64;
        let bytes = need.max(self.config.segment_bytes);
        let id = match self.spare.take() {
            Some(spare) if bytes == self.config.segment_bytes => spare,
            small => {
                self.void.extend(small);
                self.create(bytes, self.pending.write, ops)
            }
        };
        let opening = Lsn(self.pending.next().0 - 1);
        let next = Segment { id, bytes, used: SECTOR as u64, opening, last: BTreeMap::new() };
        let full = std::mem::replace(&mut self.current, next);
        if full.bytes > 0 {
            self.sealed.push_back(full);
        }
    }

    /// Makes the next segment ahead of its use. Its header says what was durable then: a witness for this segment.
    fn make_spare(&mut self, write: WriteId, out: &mut Vec<WalOp>) {
        if !self.wants_spare() {
            return;
        }
        let mut ops = Vec::new();
        let segment = self.create(self.config.segment_bytes, write, &mut ops);
        ops.push(WalOp::Sync { write, segment });
        self.launch(Flight { write, synced: None, spare: Some(segment), ops, full: false }, out);
    }

    /// Not before the current segment's opening is durable: the spare's header is the witness of that.
    fn wants_spare(&self) -> bool {
        let made = self.spare.is_some() || self.flight.iter().any(|flight| flight.spare.is_some());
        !made && !self.spare_full && self.durable >= self.current.opening
    }

    fn create(&mut self, bytes: u64, write: WriteId, ops: &mut Vec<WalOp>) -> SegmentId {
        let segment = self.next_segment;
        self.next_segment = SegmentId(segment.0 + 1);
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            identity: self.config.identity,
            segment,
            bytes,
            generation: self.generation,
            durable: self.durable,
        };
        ops.push(WalOp::Create { segment, bytes });
        ops.push(WalOp::Write { write, segment, offset: 0, bytes: Bytes::copy_from_slice(&header.encode()) });
        segment
    }

    fn launch(&mut self, flight: Flight, out: &mut Vec<WalOp>) {
        out.extend(flight.ops.iter().cloned());
        self.flight.push_back(flight);
    }
}

/// Whether a write is durable only once it is synced.
fn must_sync(fsync: Fsync, asked: bool) -> bool {
    (fsync == Fsync::Always || asked) && !bugs::active(Bug::AckBeforeSync)
}

fn clamp(last: &mut BTreeMap<GroupId, Index>, group: GroupId, to: Index) {
    if let Some(index) = last.get_mut(&group) {
        *index = to.min(*index);
    }
}

/// The pending write, cut.
struct Cut {
    write: WriteId,
    bytes: Bytes,
    last: BTreeMap<GroupId, Index>,
    substance: bool,
    sync: bool,
}

impl Pending {
    fn new(write: WriteId, mut buffer: BytesMut, first: Lsn) -> Pending {
        buffer.resize(WRITE_HEADER, 0);
        Pending { write, buffer, first, count: 0, last: BTreeMap::new(), substance: false, sync: false }
    }

    fn next(&self) -> Lsn {
        Lsn(self.first.0 + u64::from(self.count))
    }

    fn push(&mut self, group: GroupId, record: &Record) {
        record.encode(self.next(), group, &mut self.buffer);
        self.count += 1;
        self.substance |= !matches!(record, Record::Mark);
        match record {
            Record::Entry(entry) => {
                self.last.insert(group, entry.index);
            }
            Record::Truncate { from } => clamp(&mut self.last, group, Index(from.0.saturating_sub(1))),
            _ => {}
        }
    }

    /// Bytes it takes in a segment.
    fn span(&self) -> u64 {
        self.buffer.len().next_multiple_of(SECTOR) as u64
    }

    /// Its id, for a write without records; it gets the next.
    fn take_id(&mut self) -> WriteId {
        assert_eq!(self.count, 0, "the id of {:?} is promised to its records", self.write);
        let write = self.write;
        self.write = WriteId(write.0 + 1);
        write
    }

    fn take(&mut self) -> Cut {
        self.buffer.resize(self.span() as usize, 0);
        let bytes = self.buffer.split().freeze();
        let next = Pending::new(WriteId(self.write.0 + 1), std::mem::take(&mut self.buffer), self.next());
        let old = std::mem::replace(self, next);
        Cut { write: old.write, bytes, last: old.last, substance: old.substance, sync: old.sync }
    }
}
