//! Recordings: their bytes are as `docs/FORMAT.md` has them, what is torn is a shorter recording, and a player makes what
//! the recorded node made or names the step that differs.

// Tests may read files and the environment; the crate may not.
#![allow(clippy::disallowed_methods)]

use bytes::Bytes;
use chronos_engine::node::{Config, Node};
use chronos_engine::record::{
    self, Answer, Entries, Entry, Label, Made, Opening, Origin, Player, Query, Read, Recorder,
    RecordingError, Step,
};
use chronos_engine::step::{
    Action, Input, Outputs, Request, Start, SubscriberId, SubscriberInput, Subscription, Token,
};
use chronos_engine::store::{MemoryStore, SharedStore, StoreError};
use chronos_engine::txn::Transaction;
use chronos_engine::wal::{Recovered, WalOp, WriteId};
use chronos_proto::command::Op;
use chronos_proto::id::{ClusterId, GroupId, Incarnation, NodeId, RelationId};
use chronos_proto::peer::PeerHello;
use chronos_proto::time::{Instant, Now, Timestamp};
use std::collections::VecDeque;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

const WALL: i64 = 1_733_856_000_000_000;

fn now(mono: u64) -> Now {
    Now { mono: Instant(mono), wall: Timestamp(WALL + mono as i64) }
}

fn config() -> Config {
    Config::new(ClusterId(1), NodeId(2), Incarnation(3), 4, 5)
}

fn label() -> Label {
    Label { build: "chronos 0.1.0".to_owned(), name: "node1".to_owned() }
}

fn commit(token: u64) -> Input {
    let ops = vec![Op::DropRelation(RelationId(99))];
    let transaction = Transaction { ops, ..Transaction::default() };
    Input::Request { token: Token(token), request: Request::Commit(GroupId(0), transaction) }
}

/// One of each kind of entry, and inputs of each kind.
fn made_by_hand() -> Vec<u8> {
    let origin = Origin::Recovered(Box::default());
    let opening = Opening { label: label(), config: config(), now: now(1), origin };
    let scan = Query::Scan {
        from: Bound::Included(Bytes::from_static(b"a")),
        to: Bound::Unbounded,
        reverse: true,
        limit: 2,
    };
    let entries = vec![(Bytes::from_static(b"b"), Bytes::from_static(b"c"))];
    let reads = vec![
        Read { store: 0, query: Query::Get(Bytes::from_static(b"k")), answer: Answer::Value(None) },
        Read { store: 0, query: scan, answer: Answer::Entries(entries) },
        Read {
            store: 0,
            query: Query::Get(Bytes::from_static(b"d")),
            answer: Answer::Failed(StoreError::TooOld),
        },
    ];
    let subscription = Subscription {
        topic: RelationId(17),
        partitions: vec![0],
        consumer_group: Some("g".to_owned()),
        start: Start::Offset(7),
        credit: 8,
        ack_timeout_ms: 9,
    };
    let hello = PeerHello { node: NodeId(6), incarnation: Incarnation(7), boot: 8 };
    let inputs = [
        Input::Tick,
        Input::QueueDrained,
        Input::WriteDurable(WriteId(1)),
        Input::WriteFailed { write: WriteId(2), error: "EIO".to_owned() },
        commit(3),
        Input::Subscriber { id: SubscriberId(4), event: SubscriberInput::Open(subscription) },
        Input::PeerUp(hello),
        Input::PeerDown(NodeId(6)),
        Input::ClockSynchronised(true),
        Input::Checkpoint,
        Input::Stop,
    ];
    let mut bytes = record::header().to_vec();
    let put = |entry: Entry, bytes: &mut Vec<u8>| record::put(&entry, bytes);
    put(Entry::Opening(Box::new(opening)), &mut bytes);
    put(Entry::Effects(Made { reads, hash: Some(1) }), &mut bytes);
    for (at, input) in inputs.into_iter().enumerate() {
        put(Entry::Input { now: now(2 + at as u64), store: at as u32, input }, &mut bytes);
        put(Entry::Effects(Made { reads: Vec::new(), hash: (at < 10).then_some(at as u64) }), &mut bytes);
    }
    bytes
}

#[test]
fn a_recording_is_written_as_it_was() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/recording-v2.bin");
    let written = made_by_hand();
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(&path, &written).expect("the golden folder takes files");
    }
    let stored = std::fs::read(&path).unwrap_or_default();
    assert!(stored == written, "an input or a setting has another layout: raise record::FORMAT_VERSION");
    let mut entries = Entries::of(&stored).unwrap();
    let beginning = entries.beginning().unwrap();
    assert_eq!((beginning.opening.label, beginning.made.reads.len()), (label(), 3));
    let mut steps = 0;
    while let Some(step) = entries.step().unwrap() {
        assert_eq!((step.now, step.store), (now(2 + steps), steps as u32));
        assert_eq!(step.made.hash, (steps < 10).then_some(steps));
        steps += 1;
    }
    assert_eq!((steps, entries.rest()), (11, 0));
}

#[test]
fn what_is_torn_or_damaged_is_a_shorter_recording_and_other_bytes_are_refused() {
    let whole = made_by_hand();
    let count = |bytes: &[u8]| -> Result<usize, RecordingError> {
        let mut entries = Entries::of(bytes)?;
        entries.beginning()?;
        let mut steps = 0;
        while entries.step()?.is_some() {
            steps += 1;
        }
        Ok(steps)
    };
    let mut before = 0;
    for length in 0..whole.len() {
        match count(&whole[..length]) {
            Ok(steps) => {
                assert!(steps == before || steps == before + 1, "{steps} steps in {length} bytes");
                before = steps;
            }
            Err(error) => assert!(matches!(error, RecordingError::Header | RecordingError::NoOpening)),
        }
    }
    assert_eq!((before, count(&whole)), (10, Ok(11)));
    for at in record::HEADER_BYTES..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        assert!(!matches!(count(&bytes), Ok(11)), "byte {at}");
    }
    let mut newer = whole;
    newer[8] = 3;
    let checksum = crc32c::crc32c(&newer[..12]).to_le_bytes();
    newer[12..16].copy_from_slice(&checksum);
    assert_eq!(count(&newer), Err(RecordingError::Version(3)));
    assert_eq!(count(b"CHRONOS?"), Err(RecordingError::Header));
}

/// A node alone whose disk does at once what it is asked.
struct Run {
    node: Node,
    recorder: Recorder,
    store: SharedStore,
    content: MemoryStore,
    mono: u64,
    inputs: VecDeque<Input>,
}

impl Run {
    fn begin() -> Run {
        let content = MemoryStore::default();
        let store: SharedStore = Arc::new(content.clone());
        let mut out = Outputs::default();
        let (node, recorder) =
            Recorder::open(label(), config(), now(0), Recovered::default(), &store, &mut out);
        let mut run = Run { node: node.unwrap(), recorder, store, content, mono: 0, inputs: VecDeque::new() };
        run.perform(out);
        run
    }

    fn perform(&mut self, out: Outputs) {
        for effect in out.effects {
            match effect.action {
                Action::Wal(WalOp::Sync { write, .. }) => self.inputs.push_back(Input::WriteDurable(write)),
                Action::Checkpoint(checkpoint) => {
                    for (key, value) in checkpoint.groups.iter().flat_map(|group| group.entries()) {
                        match value {
                            Some(value) => self.content.0.insert(key, value),
                            None => self.content.0.remove(&key),
                        };
                    }
                    self.inputs.push_back(Input::CheckpointDurable(checkpoint.id));
                }
                _ => {}
            }
        }
    }

    fn give(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            if matches!(input, Input::CheckpointDurable(_)) {
                self.store = Arc::new(self.content.clone());
            }
            for input in [input, Input::QueueDrained] {
                self.mono += 1_000;
                let mut out = Outputs::default();
                self.recorder.step(&mut self.node, now(self.mono), input, &self.store, &mut out);
                self.perform(out);
            }
        }
    }
}

fn steps(bytes: &[u8]) -> (record::Beginning, Vec<Step>) {
    let mut entries = Entries::of(bytes).unwrap();
    let beginning = entries.beginning().unwrap();
    (beginning, std::iter::from_fn(|| entries.step().unwrap()).collect())
}

/// The first step that differs, or whose question has no answer.
fn differs(beginning: record::Beginning, steps: Vec<Step>) -> Option<usize> {
    let mut out = Outputs::default();
    let recorded = beginning.made.hash;
    let (player, played) = Player::open(beginning, &mut out);
    let mut player = player.expect("the node begins");
    assert_eq!((recorded, played.unanswered), (Some(played.hash), None), "the beginning");
    steps.into_iter().position(|step| {
        let recorded = step.made.hash;
        let played = player.step(step, &mut out);
        recorded != Some(played.hash) || played.unanswered.is_some()
    })
}

#[test]
fn a_player_makes_the_same_effects_from_the_beginning_and_from_an_image_or_names_the_step_that_differs() {
    let mut run = Run::begin();
    for token in 0..5 {
        run.give(commit(token));
    }
    run.give(Input::Checkpoint);
    run.give(commit(5));
    let whole = run.recorder.take();
    let anew = Recorder::anew(label(), &run.node, &run.store).expect("nothing is under way");
    run.recorder = anew;
    run.give(commit(6));
    run.give(Input::Checkpoint);
    let image = run.recorder.take();

    let (beginning, all) = steps(&whole);
    assert!(all.len() > 20 && all.iter().any(|step| step.store == 1), "{} steps", all.len());
    assert_eq!(differs(beginning.clone(), all.clone()), None);
    let (second, more) = steps(&image);
    assert!(matches!(second.opening.origin, Origin::Image(_)) && more.len() > 4);
    assert_eq!(differs(second, more), None);

    let request = all.iter().position(|step| matches!(step.input, Input::Request { .. })).unwrap();
    let mut other = all.clone();
    other[request].input = commit(99);
    assert_eq!(differs(beginning.clone(), other), Some(request), "another token is another reply");
    let read = all.iter().position(|step| !step.made.reads.is_empty()).unwrap();
    let mut unread = all;
    unread[read].made.reads.clear();
    assert_eq!(differs(beginning, unread), Some(read), "a question without an answer");
}
