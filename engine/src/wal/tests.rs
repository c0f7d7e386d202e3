//! The writer against recovery, over a disk that loses, tears and reorders whatever is not synced.

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

const ANCHOR: Anchor = Anchor { boot: 7, mono: Instant(1_000), time: Timestamp(2_000) };

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

/// A writer on a disk, the operations between them, and all states since the last one that must be kept.
struct World {
    config: Config,
    disk: Disk,
    writer: Writer,
    queue: VecDeque<WalOp>,
    history: Vec<(Lsn, State)>,
    opening: WriteId,
    opened: bool,
}

impl World {
    fn open(config: Config, disk: Disk, history: Vec<(Lsn, State)>) -> World {
        let recovered = recover(config.identity, &disk.cached).expect("a log that only crashed");
        let mut out = Vec::new();
        let (writer, opening) = Writer::open(config, &recovered, ANCHOR, &mut out);
        World { config, disk, writer, queue: out.into(), history, opening, opened: false }
    }

    fn new(config: Config) -> World {
        World::open(config, Disk::default(), vec![(Lsn(0), State::new())])
    }

    fn append(&mut self, group: GroupId, record: Record) -> (Lsn, WriteId) {
        let appended = self.writer.append(group, &record).expect("within the bound");
        let mut state = self.history.last().expect("never empty").1.clone();
        apply(&mut state, group, &record);
        self.history.push((appended.0, state));
        appended
    }

    fn state(&self) -> &State {
        &self.history.last().expect("never empty").1
    }

    /// Performs the next operation.
    fn step(&mut self) -> bool {
        let Some(op) = self.queue.pop_front() else { return false };
        if let Some(write) = self.disk.perform(&op) {
            self.writer.on_durable(write);
            self.opened |= write >= self.opening;
            let durable = self.writer.durable();
            let kept = self.history.iter().rposition(|(lsn, _)| *lsn <= durable).unwrap_or(0);
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
        let Some(at) = self.history.iter().rposition(|(_, state)| *state == found) else {
            let (first, segments) = (self.history.first(), self.disk.cached.keys());
            panic!("found {found:?}\nwhere at least {first:?}\nbelongs, in {segments:?}");
        };
        // Until the next opening is durable, what was found is no promise.
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

fn run(mut world: World, steps: Vec<Step>, dice: Vec<u8>) {
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
            Step::Release if world.opened => world.release(),
            Step::Release => {}
            Step::Settle => world.settle(),
            Step::Kill => world = world.crash(None),
            Step::CutPower => world = world.crash(Some(&mut dice)),
        }
    }
    world.rest();
    world.crash(Some(&mut dice));
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
        run(World::new(config(segment, fsync)), steps, dice);
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
