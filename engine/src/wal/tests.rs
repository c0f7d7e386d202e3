//! The writer against recovery, over a disk that loses, tears and reorders whatever is not synced.

use super::segment::{SegmentHeader, WriteHeader};
use super::*;
use crate::node::Fsync;
use chronos_proto::command::{Command, Entry};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, Index, Lsn, NodeId, Term};
use chronos_proto::time::{Instant, Timestamp};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

type State = BTreeMap<GroupId, GroupLog>;
type Files = BTreeMap<SegmentId, Vec<u8>>;

const ANCHOR: Anchor = Anchor { boot: 7, mono: Instant(1_000), time: Some(Timestamp(2_000)) };

fn identity() -> Identity {
    Identity { cluster: ClusterId(1), node: NodeId(2), incarnation: Incarnation(3) }
}

fn config(segment_bytes: u64, fsync: Fsync) -> Config {
    Config { identity: identity(), segment_bytes, fsync, pending_max_bytes: 1 << 20 }
}

fn entry(index: u64, size: usize) -> Record {
    let timers = vec![chronos_proto::command::TimerRef {
        due: Timestamp(index as i64),
        sequence: index,
        topic: chronos_proto::RelationId(1),
        partition: 0,
        timer_id: "t".repeat(size),
    }];
    Record::Entry(Entry {
        term: Term(1),
        index: Index(index),
        time: Timestamp(index as i64),
        stamp: index,
        command: Arc::new(Command::Fire { timers }),
    })
}

/// What a group remembers, done the plain way.
fn apply(state: &mut State, group: GroupId, record: &Record) {
    let log = state.entry(group).or_default();
    match record {
        Record::Entry(entry) => log.entries.push(entry.clone()),
        Record::HardState(hard) => log.hard_state = *hard,
        Record::Truncate { from } => log.entries.retain(|entry| entry.index < *from),
        Record::Compacted(mark) => {
            log.compacted = *mark;
            log.entries.retain(|entry| entry.index > mark.index);
        }
        Record::Mark | Record::Base(_) => {}
    }
}

/// A disk whose synced bytes stay, and whose others may.
#[derive(Clone, Default)]
struct Disk {
    synced: Files,
    cached: Files,
}

impl Disk {
    fn perform(&mut self, op: &WalOp) -> Option<WriteId> {
        match op {
            WalOp::Create { segment, bytes } => {
                self.synced.insert(*segment, vec![0; *bytes as usize]);
                self.cached.insert(*segment, vec![0; *bytes as usize]);
                None
            }
            WalOp::Write { segment, offset, bytes, .. } => {
                assert_eq!(*offset % SECTOR as u64, 0);
                assert_eq!(bytes.len() % SECTOR, 0);
                let file = self.cached.get_mut(segment).expect("written before it is created");
                let at = *offset as usize;
                assert!(file[at..at + bytes.len()].iter().all(|byte| *byte == 0), "written twice");
                file[at..at + bytes.len()].copy_from_slice(bytes);
                None
            }
            WalOp::Sync { write, segment } => {
                self.synced.insert(*segment, self.cached[segment].clone());
                Some(*write)
            }
            WalOp::Done { write } => Some(*write),
            WalOp::Remove { segment } => {
                self.synced.remove(segment).expect("removed twice");
                self.cached.remove(segment);
                None
            }
        }
    }

    /// The power fails: each unsynced sector is kept, lost or torn, as the dice say.
    fn cut_power(&mut self, dice: &mut impl FnMut() -> u8) {
        for (segment, synced) in &mut self.synced {
            let cached = &self.cached[segment];
            for at in (0..synced.len()).step_by(SECTOR) {
                let end = (at + SECTOR).min(synced.len());
                if synced[at..end] != cached[at..end] {
                    let kept = match dice() % 4 {
                        0 => SECTOR / 2,
                        1 => 0,
                        _ => SECTOR,
                    };
                    let kept = (at + kept).min(end);
                    synced[at..kept].copy_from_slice(&cached[at..kept]);
                }
            }
        }
        self.cached = self.synced.clone();
    }
}

/// What the groups remembered after a record.
#[derive(Debug)]
struct Written {
    lsn: Lsn,
    write: WriteId,
    state: State,
}

/// A writer on a disk, the operations between them, and all states since the last one that must be kept.
struct World {
    config: Config,
    disk: Disk,
    writer: Writer,
    queue: VecDeque<WalOp>,
    history: Vec<Written>,
    /// Operations until the disk stops answering.
    budget: usize,
}

impl World {
    fn open(config: Config, disk: Disk, mut history: Vec<Written>) -> World {
        let recovered = recover(config.identity, &disk.cached).expect("a log that only crashed");
        let mut out = Vec::new();
        let (writer, opening) = Writer::open(config, &recovered, ANCHOR, &mut out);
        // Until the opening is durable, what was found is no promise.
        history.iter_mut().for_each(|written| written.write = WriteId(0));
        history.last_mut().expect("never empty").write = opening;
        World { config, disk, writer, queue: out.into(), history, budget: usize::MAX }
    }

    fn new(config: Config) -> World {
        World::open(
            config,
            Disk::default(),
            vec![Written { lsn: Lsn(0), write: WriteId(0), state: State::new() }],
        )
    }

    fn append(&mut self, group: GroupId, record: Record) -> (Lsn, WriteId) {
        let appended = self.writer.append(group, &record);
        let mut state = self.state().clone();
        apply(&mut state, group, &record);
        let (lsn, write) = appended;
        self.history.push(Written { lsn, write, state });
        appended
    }

    fn state(&self) -> &State {
        &self.history.last().expect("never empty").state
    }

    /// Performs the next operation.
    fn step(&mut self) -> bool {
        if self.budget == 0 {
            return false;
        }
        let Some(op) = self.queue.pop_front() else { return false };
        self.budget -= 1;
        if let Some(write) = self.disk.perform(&op) {
            self.writer.on_durable(write);
            let synced = self.writer.durable();
            let always = self.config.fsync == Fsync::Always;
            let kept = |written: &Written| written.lsn <= synced || always && written.write <= write;
            let kept = self.history.iter().rposition(kept).unwrap_or(0);
            self.history.drain(..kept);
        }
        true
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn cut(&mut self) {
        let mut out = Vec::new();
        self.writer.cut(ANCHOR, &mut out);
        self.queue.extend(out);
    }

    fn mark(&mut self) {
        let mut out = Vec::new();
        self.writer.mark(ANCHOR, &mut out);
        self.queue.extend(out);
    }

    fn sync_now(&mut self) {
        let mut out = Vec::new();
        self.writer.sync_now(ANCHOR, &mut out);
        self.queue.extend(out);
    }

    fn release(&mut self) {
        let mut out = Vec::new();
        self.writer.release(&mut out);
        self.queue.extend(out);
    }

    /// Writes, syncs and marks everything.
    fn rest(&mut self) {
        self.settle();
        self.cut();
        self.settle();
        self.sync_now();
        self.settle();
        self.mark();
        self.settle();
    }

    /// The process dies, and the power too if there are dice. Recovery must find a state that was written, and not
    /// lose one that was durable.
    fn crash(mut self, dice: Option<&mut dyn FnMut() -> u8>) -> World {
        if let Some(mut dice) = dice {
            self.disk.cut_power(&mut dice);
        }
        let found = recover(self.config.identity, &self.disk.cached).expect("a crash is not damage").groups;
        let Some(at) = self.history.iter().rposition(|written| written.state == found) else {
            let (first, segments) = (self.history.first(), self.disk.cached.keys());
            panic!("found {found:?}\nwhere at least {first:?}\nbelongs, in {segments:?}");
        };
        self.history.truncate(at + 1);
        World::open(self.config, self.disk, self.history)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Entry(u8, u16),
    Vote(u8),
    Commit(u8),
    Truncate(u8, u8),
    Compact(u8, u8),
    Cut,
    Perform(u8),
    Mark,
    SyncNow,
    Release,
    Settle,
    Kill,
    CutPower,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3u8, prop_oneof![4 => 0..200u16, 1 => 200..6000u16]).prop_map(|(g, n)| Step::Entry(g, n)),
        1 => (0..3u8).prop_map(Step::Vote),
        2 => (0..3u8).prop_map(Step::Commit),
        1 => (0..3u8, any::<u8>()).prop_map(|(g, n)| Step::Truncate(g, n)),
        2 => (0..3u8, any::<u8>()).prop_map(|(g, n)| Step::Compact(g, n)),
        8 => Just(Step::Cut),
        8 => (1..5u8).prop_map(Step::Perform),
        3 => Just(Step::Mark),
        2 => Just(Step::SyncNow),
        2 => Just(Step::Release),
        2 => Just(Step::Settle),
        1 => Just(Step::Kill),
        2 => Just(Step::CutPower),
    ]
}

/// The world at rest after these steps, and the dice.
fn run(mut world: World, steps: Vec<Step>, dice: Vec<u8>) -> (World, impl FnMut() -> u8) {
    let mut dice = dice.into_iter().cycle();
    let mut dice = move || dice.next().unwrap_or(0);
    for step in steps {
        match step {
            Step::Entry(g, size) => {
                let group = GroupId(u32::from(g));
                let next = world.writer.last(group).next();
                world.append(group, entry(next.0, size.into()));
            }
            Step::Vote(g) | Step::Commit(g) => {
                let group = GroupId(u32::from(g));
                let log = world.state().get(&group).cloned().unwrap_or_default();
                let mut hard = log.hard_state;
                match step {
                    Step::Vote(_) => hard.term = hard.term.next(),
                    _ => hard.commit = log.last(),
                }
                world.append(group, Record::HardState(hard));
            }
            Step::Truncate(g, n) | Step::Compact(g, n) => {
                let group = GroupId(u32::from(g));
                let log = world.state().get(&group).cloned().unwrap_or_default();
                let at = log.compacted.index.0 + u64::from(n) % (log.entries.len() as u64 + 1);
                let record = match step {
                    Step::Truncate(..) => Record::Truncate { from: Index(at + 1) },
                    _ => Record::Compacted(Compacted { index: Index(at), term: Term(1) }),
                };
                world.append(group, record);
            }
            Step::Cut => world.cut(),
            Step::Perform(n) => (0..n).for_each(|_| {
                world.step();
            }),
            Step::Mark => world.mark(),
            Step::SyncNow => world.sync_now(),
            Step::Release => world.release(),
            Step::Settle => world.settle(),
            Step::Kill => world = world.crash(None),
            Step::CutPower => world = world.crash(Some(&mut dice)),
        }
    }
    world.rest();
    (world, dice)
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Zero,
    Cut,
    Remove,
    Copy(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (0..8u8).prop_map(Damage::Flip),
        3 => Just(Damage::Zero),
        2 => Just(Damage::Cut),
        1 => Just(Damage::Remove),
        2 => any::<prop::sample::Index>().prop_map(Damage::Copy),
    ]
}

fn apply_damage(files: &mut Files, what: &Damage, file: prop::sample::Index, at: prop::sample::Index) {
    let id = *file.get(&files.keys().copied().collect::<Vec<_>>());
    let bytes = files.get_mut(&id).expect("listed");
    let at = at.index(bytes.len());
    let sector = at / SECTOR * SECTOR;
    match what {
        Damage::Flip(bit) => bytes[at] ^= 1 << bit,
        Damage::Zero => bytes[sector..sector + SECTOR].fill(0),
        Damage::Cut => bytes.truncate(at),
        Damage::Remove => drop(files.remove(&id)),
        // A misdirected write.
        Damage::Copy(from) => {
            let from = from.index(bytes.len()) / SECTOR * SECTOR;
            bytes.copy_within(from..from + SECTOR, sector);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_crash_loses_nothing_durable(
        steps in proptest::collection::vec(step(), 1..120),
        dice in proptest::collection::vec(any::<u8>(), 1..64),
        segment in prop_oneof![Just(2048u64), Just(8192), Just(65536)],
        fsync in prop_oneof![3 => Just(Fsync::Always), 1 => Just(Fsync::Interval(1)), 1 => Just(Fsync::Never)],
    ) {
        let (world, mut dice) = run(World::new(config(segment, fsync)), steps, dice);
        world.crash(Some(&mut dice));
    }

    #[test]
    fn damage_at_rest_is_detected_or_harmless(
        steps in proptest::collection::vec(step(), 1..60),
        dice in proptest::collection::vec(any::<u8>(), 1..64),
        hits in proptest::collection::vec((damage(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 20),
    ) {
        let (world, _) = run(World::new(config(4096, Fsync::Always)), steps, dice);
        for (what, file, at) in hits {
            let mut files = world.disk.synced.clone();
            apply_damage(&mut files, &what, file, at);
            if let Ok(found) = rows(&files) {
                prop_assert!(found == *world.state(), "wrong data after {what:?} in {:?}", world.disk.synced.keys());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(
        files in proptest::collection::btree_map(
            (0..4u64).prop_map(SegmentId),
            proptest::collection::vec(any::<u8>(), 0..3000),
            0..3,
        ),
    ) {
        let _ = recover(identity(), &files).map(|recovered| assert!(recovered.groups.is_empty()));
    }
}

/// What a power cut does, from all lost to all kept.
const POWER: [[u8; 5]; 4] = [[1; 5], [2; 5], [1, 2, 1, 2, 0], [2, 1, 2, 0, 1]];

fn dice(throws: [u8; 5]) -> impl FnMut() -> u8 {
    let mut throws = throws.into_iter().cycle();
    move || throws.next().unwrap_or_default()
}

/// Opens, rolls over several segments, compacts and releases.
fn life(world: &mut World) {
    world.settle();
    let next = world.writer.last(GroupId(0)).0 + 1;
    for index in next..next + 4 {
        world.append(GroupId(0), entry(index, 600));
        world.cut();
        world.settle();
    }
    world.mark();
    world.settle();
    world.append(GroupId(0), Record::Compacted(Compacted { index: Index(next + 2), term: Term(1) }));
    world.rest();
    world.release();
    world.settle();
}

#[test]
fn a_crash_at_every_operation_of_two_lives_is_recovered() {
    let first = |budget: usize| {
        let mut world = World::new(config(2048, Fsync::Always));
        world.budget = budget;
        life(&mut world);
        world
    };
    let all = usize::MAX - first(usize::MAX).budget;
    assert!(all > 20, "only {all} operations");
    for stop in 0..=all {
        for throws in POWER {
            // The second life begins on a page cache that outlived the first, or on what a power cut left.
            let reborn = || match throws[0] {
                2 => first(stop).crash(None),
                _ => first(stop).crash(Some(&mut dice(throws))),
            };
            let mut whole = reborn();
            life(&mut whole);
            for second in 0..=usize::MAX - whole.budget {
                let mut world = reborn();
                world.budget = second;
                life(&mut world);
                world.crash(Some(&mut dice(throws)));
            }
        }
    }
}

/// A small log at rest: four segments and a spare, three groups, everything durable and marked.
fn at_rest(mark: bool) -> World {
    let mut world = World::new(config(4096, Fsync::Always));
    world.rest();
    for index in 1..=14 {
        world.append(GroupId(0), entry(index, 300));
        world.append(GroupId(2), entry(index, 20));
        if index % 4 == 0 {
            let hard = HardState { term: Term(index), vote: Some(NodeId(2)), commit: Index(index) };
            world.append(GroupId(1), Record::HardState(hard));
            world.append(GroupId(2), Record::Truncate { from: Index(index) });
            world.append(GroupId(2), entry(index, 30));
        }
        world.cut();
        world.settle();
    }
    if mark {
        world.rest();
    }
    world
}

/// The state before its last write.
fn without_last(world: &World) -> State {
    let mut state = world.state().clone();
    for group in [GroupId(0), GroupId(2)] {
        state.get_mut(&group).expect("written").entries.pop();
    }
    state
}

fn rows(files: &Files) -> Result<State, Row> {
    recover(identity(), files).map(|recovered| recovered.groups).map_err(|damage| damage.row)
}

#[test]
fn every_flipped_bit_is_detected_or_harmless() {
    let world = at_rest(true);
    let mut seen = BTreeMap::<String, u32>::new();
    for segment in world.disk.synced.keys() {
        for at in 0..world.disk.synced[segment].len() {
            let mut files = world.disk.synced.clone();
            files.get_mut(segment).expect("listed")[at] ^= 1 << (at % 8);
            let outcome = match rows(&files) {
                Ok(state) => {
                    assert_eq!(state, *world.state(), "wrong data for byte {at} of {segment}");
                    "harmless".to_owned()
                }
                Err(row) => row.to_string(),
            };
            *seen.entry(outcome).or_default() += 1;
        }
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["K", "L", "N", "harmless"], "{seen:?}");
}

#[test]
fn without_a_mark_only_the_last_write_can_be_lost_unnoticed() {
    let world = at_rest(false);
    let before = without_last(&world);
    let mut lost = 0;
    for segment in world.disk.synced.keys() {
        for at in 0..world.disk.synced[segment].len() {
            let mut files = world.disk.synced.clone();
            files.get_mut(segment).expect("listed")[at] ^= 1 << (at % 8);
            if let Ok(state) = rows(&files).map(|state| state != *world.state()) {
                lost += u32::from(state);
                assert!(
                    !state || rows(&files) == Ok(before.clone()),
                    "wrong data for byte {at} of {segment}"
                );
            }
        }
    }
    assert!(lost > 0, "the residue that the essay states is gone: say so there");
}

/// Damage to whole files and sectors of a log at rest: each is refused or changes nothing.
#[test]
fn lost_and_swapped_sectors_are_detected_or_harmless() {
    let world = at_rest(true);
    let whole = &world.disk.synced;
    let check = |files: &Files, what: String| match rows(files) {
        Ok(state) => assert_eq!(state, *world.state(), "wrong data after {what}"),
        Err(row) => assert!(row >= Row::C, "{row} after {what}"),
    };
    let spare = *whole.keys().next_back().expect("a spare");
    for (segment, bytes) in whole {
        let mut files = whole.clone();
        files.remove(segment);
        check(&files, format!("removing {segment}"));
        assert!(*segment == spare || rows(&files).is_err(), "{segment} is not missed");
        files.insert(*segment, Vec::new());
        check(&files, format!("emptying {segment}"));
        assert!(*segment == spare || rows(&files).is_err(), "{segment} is not missed");
        files.insert(*segment, vec![0; bytes.len()]);
        check(&files, format!("zeroing {segment}"));
        assert!(*segment == spare || rows(&files).is_err(), "{segment} is not missed");
        for at in (0..bytes.len()).step_by(SECTOR) {
            files.insert(*segment, bytes[..at].to_vec());
            check(&files, format!("cutting {segment} to {at} bytes"));
            let mut zeroed = bytes.clone();
            zeroed[at..at + SECTOR].fill(0);
            files.insert(*segment, zeroed);
            check(&files, format!("zeroing {segment} at {at}"));
            for other in (0..at).step_by(SECTOR) {
                let mut swapped = bytes.clone();
                swapped[at..at + SECTOR].copy_from_slice(&bytes[other..other + SECTOR]);
                swapped[other..other + SECTOR].copy_from_slice(&bytes[at..at + SECTOR]);
                files.insert(*segment, swapped);
                check(&files, format!("swapping {segment} at {other} and {at}"));
            }
        }
        for other in whole.keys().filter(|other| *other != segment) {
            files.insert(*segment, whole[other].clone());
            assert_eq!(rows(&files), Err(Row::F), "{segment} replaced by {other}");
        }
    }
}

/// One test a row of the recovery table, for the rows that refuse.
#[test]
fn each_row_is_told() {
    let world = at_rest(true);
    let whole = &world.disk.synced;
    let ids: Vec<SegmentId> = whole.keys().copied().collect();
    let (first, middle, spare) = (ids[0], ids[2], ids[ids.len() - 1]);
    let current = ids[ids.len() - 2];
    let told = |change: &dyn Fn(&mut Files)| {
        let mut files = whole.clone();
        change(&mut files);
        recover(identity(), &files)
            .map(|_| ())
            .map_err(|damage| (damage.row, damage.segment, damage.to_string()))
    };
    let header = |files: &mut Files, segment: SegmentId, edit: &dyn Fn(&mut SegmentHeader)| {
        let file = files.get_mut(&segment).expect("listed");
        let mut header = SegmentHeader::decode(file).expect("whole");
        edit(&mut header);
        file[..SECTOR].copy_from_slice(&header.encode());
    };
    let expect = |row: Row, segment: SegmentId, words: &str, change: &dyn Fn(&mut Files)| {
        let (found, at, message) = told(change).expect_err("refused");
        assert_eq!((found, at), (row, segment), "{message}");
        assert!(message.starts_with(&segment.to_string()) && message.contains(words), "{message}");
    };
    assert_eq!(told(&|_| ()), Ok(()));
    expect(Row::D, spare, "format 2", &|files| header(files, spare, &|header| header.version = 2));
    expect(Row::E, middle, "belongs to node 9", &|files| {
        header(files, middle, &|header| header.identity.node = NodeId(9))
    });
    expect(Row::F, spare, "holds segment", &|files| {
        let bytes = files[&middle].clone();
        files.insert(spare, bytes);
    });
    expect(Row::G, current, "4095 bytes of 4096", &|files| {
        files.get_mut(&current).expect("listed").truncate(4095)
    });
    expect(Row::K, middle, "chronos verify", &|files| {
        files.get_mut(&middle).expect("listed")[SECTOR * 3 + 100] ^= 1
    });
    expect(Row::L, middle, "chronos verify", &|files| {
        files.get_mut(&middle).expect("listed")[SECTOR + 100] ^= 1
    });
    expect(Row::L, current, "chronos verify", &|files| files.get_mut(&current).expect("listed").clear());
    expect(Row::M, middle, "missing", &|files| {
        files.remove(&middle);
    });
    expect(Row::N, ids[1], "needs entry 1", &|files| {
        files.remove(&first);
    });
    expect(Row::O, first, "kind 99 is unknown", &|files| {
        let file = files.get_mut(&first).expect("listed");
        let seed = identity().seed(first, SECTOR as u64);
        let mut write = WriteHeader::decode(seed, &file[SECTOR..]).expect("whole");
        let end = SECTOR + write.span();
        let records =
            &mut file[SECTOR + segment::WRITE_HEADER..SECTOR + segment::WRITE_HEADER + write.length as usize];
        records[20] = 99;
        let crc = segment::extend_crc(crc32c::crc32c(&records[0..4]), &records[8..]);
        records[4..8].copy_from_slice(&crc.to_le_bytes());
        write.length = records.len() as u32;
        let length = segment::WRITE_HEADER + records.len();
        write.seal(seed, &mut file[SECTOR..end][..length]);
    });
}

#[test]
fn a_released_segment_is_not_missed_and_an_idle_group_pins_none() {
    let mut world = at_rest(true);
    let before = world.disk.synced.len();
    for group in [GroupId(0), GroupId(2)] {
        let mark = Compacted { index: Index(12), term: Term(1) };
        world.append(group, Record::Compacted(mark));
    }
    world.release();
    assert!(world.queue.is_empty(), "released before the compaction was durable");
    world.rest();
    world.release();
    assert!(world.queue.len() > 1);
    // A crash may come after each removal.
    while world.step() {
        assert_eq!(rows(&world.disk.synced), Ok(world.state().clone()));
    }
    assert!(world.disk.synced.len() < before);
    assert_eq!(world.state()[&GroupId(1)].hard_state.term, Term(12));
}

#[test]
fn the_old_tail_stays_until_its_copy_is_known_durable() {
    let mut world = at_rest(false).crash(None);
    world.settle();
    world.release();
    assert!(world.queue.is_empty(), "{:?}", world.queue);
    world.mark();
    world.settle();
    world.release();
    assert!(matches!(world.queue[0], WalOp::Remove { .. }), "{:?}", world.queue);
}

#[test]
fn truncated_entries_pin_no_segment() {
    let mut world = World::new(config(4096, Fsync::Always));
    world.settle();
    for index in 1..=9 {
        world.append(GroupId(0), entry(index, 700));
        world.cut();
        world.settle();
    }
    world.append(GroupId(0), Record::Truncate { from: Index(2) });
    world.append(GroupId(0), entry(2, 10));
    world.append(GroupId(0), Record::Compacted(Compacted { index: Index(1), term: Term(1) }));
    world.rest();
    world.release();
    world.settle();
    assert!(world.disk.synced.len() <= 2, "{:?}", world.disk.synced.keys());
    world.crash(None);
}

#[test]
fn a_tail_that_is_appended_again_pins_no_segment_and_is_never_missed() {
    for crash_at in 0..40 {
        let mut world = World::new(config(4096, Fsync::Always));
        world.settle();
        // A group that commits nothing more, beside one that goes on.
        for index in 1..=3 {
            world.append(GroupId(1), entry(index, 300));
        }
        world.append(GroupId(1), Record::Compacted(Compacted { index: Index(1), term: Term(1) }));
        for index in 1..=12 {
            world.append(GroupId(0), entry(index, 700));
            world.cut();
            world.settle();
        }
        world.append(GroupId(0), Record::Compacted(Compacted { index: Index(12), term: Term(1) }));
        world.rest();
        world.release();
        world.settle();
        assert_eq!(world.writer.pinned_from(GroupId(0)), None);
        assert_eq!(world.writer.pinned_from(GroupId(1)), Some(Index(2)));
        let before = world.disk.synced.len();
        assert!(before > 2, "{:?}", world.disk.synced.keys());
        let tail = world.state()[&GroupId(1)].entries.clone();
        assert_eq!(tail.len(), 2);
        world.writer.append_again(GroupId(1), &tail);
        assert_eq!(world.writer.pinned_from(GroupId(1)), None);
        world.budget = crash_at;
        world.rest();
        world.release();
        world.settle();
        if crash_at == 39 {
            assert!(world.disk.synced.len() <= 3, "{before}: {:?}", world.disk.synced.keys());
        }
        // Whenever the power fails, both groups have what they had.
        let expected = world.state().clone();
        let mut throws = dice([1, 2, 3, 0, 1]);
        world.disk.cut_power(&mut throws);
        assert_eq!(rows(&world.disk.synced), Ok(expected), "cut after {crash_at} operations");
    }
}

#[test]
fn a_write_that_found_no_space_comes_again() {
    let mut world = at_rest(true);
    let (_, write) = world.append(GroupId(0), entry(15, 9000));
    let mut ops = Vec::new();
    assert_eq!(world.writer.cut(ANCHOR, &mut ops), Some(write));
    assert!(matches!(ops[0], WalOp::Create { bytes, .. } if bytes > 9000), "{ops:?}");
    world.writer.on_full(write);
    assert!(world.writer.is_full());
    world.append(GroupId(0), entry(16, 10));
    assert_eq!(world.writer.cut(ANCHOR, &mut Vec::new()), None);
    let mut again = Vec::new();
    assert_eq!(world.writer.retry(&mut again), Some(write));
    assert_eq!(again, ops);
    world.queue.extend(again);
    world.rest();
    world.crash(None);
}

#[test]
fn a_spare_goes_before_the_write_that_may_find_no_space() {
    let mut world = World::new(config(65536, Fsync::Always));
    world.settle();
    world.append(GroupId(0), entry(1, 40000));
    world.cut();
    assert!(world.queue.len() == 2, "a spare behind a write: {:?}", world.queue);
    world.settle();
    let (_, write) = world.append(GroupId(0), entry(2, 10));
    let mut ops = Vec::new();
    assert_eq!(world.writer.cut(ANCHOR, &mut ops), Some(write));
    assert!(matches!(ops[..], [WalOp::Create { .. }, .., WalOp::Sync { write: last, .. }] if last == write));
    let spare = ops.split_off(3);
    let spare = std::mem::replace(&mut ops, spare);
    assert!(matches!(spare[2], WalOp::Sync { write: number, .. } if number < write), "{spare:?}");
    world.queue.extend(spare);
    world.settle();
    world.writer.on_full(write);
    assert!(world.writer.is_full());
    let mut again = Vec::new();
    assert_eq!(world.writer.retry(&mut again), Some(write));
    assert_eq!(again, ops);
    world.queue.extend(again);
    world.settle();
    world.append(GroupId(0), entry(3, 40000));
    world.rest();
    world.crash(Some(&mut || 1));
}

#[test]
fn a_spare_without_space_is_not_asked_for_until_segments_go() {
    let mut world = World::new(config(4096, Fsync::Always));
    world.settle();
    let mut ops = Vec::new();
    let write = world.writer.mark(ANCHOR, &mut ops).expect("a mark and a spare");
    assert_eq!(ops.iter().filter(|op| matches!(op, WalOp::Create { .. })).count(), 1, "{ops:?}");
    world.queue.extend(ops.into_iter().take(2));
    world.settle();
    world.writer.on_full(write);
    assert!(!world.writer.is_full() && !world.writer.wants_mark());
    for index in 1..12 {
        world.append(GroupId(0), entry(index, 400));
        world.cut();
        world.settle();
    }
    world.crash(None);
}

#[test]
fn a_backlog_refuses_entries_alone() {
    let bound = Config { pending_max_bytes: 1000, ..config(4096, Fsync::Always) };
    let mut world = World::new(bound);
    world.append(GroupId(0), entry(1, 5000));
    let refused = world.writer.backlog().expect_err("full");
    assert!(refused.pending > 5000 && refused.limit == 1000, "{refused}");
    world.append(GroupId(0), Record::HardState(HardState { term: Term(3), ..HardState::default() }));
    world.rest();
    world.append(GroupId(0), entry(2, 10));
    world.rest();
    world.crash(None);
}

#[test]
fn weak_modes_still_sync_term_and_vote() {
    let mut world = World::new(config(4096, Fsync::Never));
    world.rest();
    world.append(GroupId(0), entry(1, 10));
    let mut ops = Vec::new();
    world.writer.cut(ANCHOR, &mut ops);
    assert!(matches!(ops[..], [WalOp::Write { .. }, WalOp::Done { .. }]), "{ops:?}");
    world.queue.extend(ops);
    world.settle();
    assert!(world.writer.is_unsynced());
    world.append(GroupId(0), Record::HardState(HardState { term: Term(1), ..HardState::default() }));
    let mut ops = Vec::new();
    world.writer.cut(ANCHOR, &mut ops);
    assert!(matches!(ops[..], [WalOp::Write { .. }, WalOp::Sync { .. }]), "{ops:?}");
    world.queue.extend(ops);
    world.settle();
    assert!(!world.writer.is_unsynced());
    world.crash(Some(&mut || 1));
}

#[test]
fn the_last_anchor_and_all_numbers_go_on() {
    let world = at_rest(true);
    let found = recover(identity(), &world.disk.synced).expect("whole");
    assert_eq!(found.anchor, Some(ANCHOR));
    let generation = found.generation;
    let world = world.crash(None);
    assert_eq!(world.writer.generation(), generation + 1);
    let torn = world.crash(Some(&mut || 1));
    assert_eq!(torn.writer.generation(), generation + 1, "an opening that was lost leaves no trace");
}

/// The planted mistakes are seen here already.
#[cfg(feature = "planted-bugs")]
mod planted {
    use super::*;
    use crate::bugs::{Bug, plant};

    #[test]
    #[should_panic(expected = "belongs, in")]
    fn ack_before_sync() {
        plant(Some(Bug::AckBeforeSync));
        at_rest(false).crash(Some(&mut || 1));
    }

    #[test]
    #[should_panic(expected = "wrong data")]
    fn cut_damaged_middle() {
        plant(Some(Bug::CutDamagedMiddle));
        lost_and_swapped_sectors_are_detected_or_harmless();
    }
}
