//! A WAL of format 1, kept: it must be read for ever, and the writer must not change it unnoticed.

use chronos_engine::node::Fsync;
use chronos_engine::wal::{
    Anchor, Compacted, Config, HardState, Identity, Record, SegmentId, WalOp, Writer, recover,
};
use chronos_proto::command::{Command, Entry, Event, Op};
use chronos_proto::id::{
    ClusterId, GroupId, Incarnation, Index, NodeId, RelationId, RequestId, SessionId, Term,
};
use chronos_proto::time::{Instant, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

const GOLDEN: &[u8] = include_bytes!("golden/wal-v1.bin");
const IDENTITY: Identity =
    Identity { cluster: ClusterId(0x1234_5678), node: NodeId(11), incarnation: Incarnation(12) };
const START: i64 = 1_733_856_000_000_000;
const ANCHOR: Anchor = Anchor { boot: 99, mono: Instant(5_000_000), time: Some(Timestamp(START)) };

fn records() -> Vec<(GroupId, Record)> {
    let entry = |index, command| {
        let time = Timestamp(START + index as i64);
        Record::Entry(Entry {
            term: Term(3),
            index: Index(index),
            time,
            stamp: index << 32,
            command: Arc::new(command),
        })
    };
    let event = Event { message_id: "m1".into(), payload: b"hello".as_slice().into(), ..Event::default() };
    let publish = Op::Publish { topic: RelationId(16), partition: 0, event, claim: true };
    let request = RequestId { session: SessionId(7), sequence: 1, floor: 0 };
    vec![
        (
            GroupId(0),
            Record::HardState(HardState { term: Term(3), vote: Some(NodeId(11)), commit: Index(0) }),
        ),
        (GroupId(0), entry(1, Command::Noop)),
        (GroupId(0), entry(2, Command::Batch { request, ops: vec![publish] })),
        (GroupId(0), entry(3, Command::AdvanceTime)),
        (GroupId(0), Record::Truncate { from: Index(3) }),
        (GroupId(0), Record::Compacted(Compacted { index: Index(1), term: Term(3) })),
        (GroupId(4), entry(1, Command::TimeEpoch(Timestamp(-1)))),
    ]
}

/// The first segment's file.
fn written() -> Vec<u8> {
    let config =
        Config { identity: IDENTITY, segment_bytes: 4096, fsync: Fsync::Always, pending_max_bytes: 1 << 20 };
    let none = recover(IDENTITY, &BTreeMap::<SegmentId, Vec<u8>>::new()).expect("empty");
    let mut ops = Vec::new();
    let (mut writer, opening) = Writer::open(config, &none, ANCHOR, &mut ops);
    writer.on_durable(opening);
    for chunk in records().chunks(3) {
        for (group, record) in chunk {
            writer.append(*group, record);
        }
        let write = writer.cut(ANCHOR, &mut ops).expect("cut");
        writer.on_durable(write);
    }
    let mut file = Vec::new();
    for op in ops {
        match op {
            WalOp::Create { segment: SegmentId(1), bytes } => file = vec![0; bytes as usize],
            WalOp::Write { segment: SegmentId(1), offset, bytes, .. } => {
                file[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
            _ => {}
        }
    }
    file
}

#[test]
fn the_writer_writes_format_1() {
    assert!(
        written() == GOLDEN,
        "the bytes changed: that is a new format version, with a golden file of its own"
    );
}

#[test]
fn format_1_is_read() {
    let found = recover(IDENTITY, &BTreeMap::from([(SegmentId(1), GOLDEN)])).expect("readable");
    assert_eq!(found.anchor, Some(ANCHOR));
    assert_eq!(found.generation, 1);
    let zero = &found.groups[&GroupId(0)];
    assert_eq!(zero.hard_state, HardState { term: Term(3), vote: Some(NodeId(11)), commit: Index(0) });
    assert_eq!(zero.compacted, Compacted { index: Index(1), term: Term(3) });
    let entry = |at: usize| match &records()[at].1 {
        Record::Entry(entry) => entry.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(zero.entries, [entry(2)]);
    assert_eq!(found.groups[&GroupId(4)].entries, [entry(6)]);
}
