#![no_main]
use bytes::Bytes;
use chronos_engine::node::{Config, Node};
use chronos_engine::step::{Action, Input, Outputs, Request, Token};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::Transaction;
use chronos_engine::wal::{Identity, Recovered, SegmentId, WalOp, recover};
use chronos_fuzz::Choices;
use chronos_proto::command::{Entry, Op};
use chronos_proto::id::{ClusterId, GroupId, Incarnation, NodeId, RelationId};
use chronos_proto::time::{Instant, Now, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

const IDENTITY: Identity = Identity { cluster: ClusterId(1), node: NodeId(1), incarnation: Incarnation(1) };

type Segments = BTreeMap<SegmentId, Vec<u8>>;

/// The files of a node that has made some writes of different sizes, and its log.
fn sound() -> &'static (Segments, Vec<Entry>) {
    static SOUND: OnceLock<(Segments, Vec<Entry>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let mut config = Config::new(IDENTITY.cluster, IDENTITY.node, IDENTITY.incarnation, 1, 42);
        config.segment_bytes = 1 << 16;
        let store: SharedStore = Arc::new(MemoryStore::default());
        let now = |step: u64| Now { mono: Instant(step * 1_000), wall: Timestamp(1_700_000_000_000_000) };
        let mut files = Segments::new();
        let mut out = Outputs::default();
        let mut node = Node::new(config, now(0), Recovered::default(), &store, &mut out).expect("it starts");
        for step in 1..400 {
            let mut durable = Vec::new();
            for effect in std::mem::take(&mut out.effects) {
                match effect.action {
                    Action::Wal(WalOp::Create { segment, bytes }) => {
                        files.insert(segment, vec![0; bytes as usize]);
                    }
                    Action::Wal(WalOp::Write { segment, offset, bytes, .. }) => {
                        let file = files.get_mut(&segment).expect("it was made");
                        file[offset as usize..offset as usize + bytes.len()].copy_from_slice(&bytes);
                    }
                    Action::Wal(WalOp::Sync { write, .. } | WalOp::Done { write }) => durable.push(write),
                    Action::Wal(WalOp::Remove { segment }) => drop(files.remove(&segment)),
                    _ => {}
                }
            }
            for write in durable {
                node.step(now(step), Input::WriteDurable(write), &store, &mut out);
            }
            if step % 10 == 0 {
                let row = Bytes::from(vec![step as u8; (step * 37 % 9_000) as usize]);
                let ops = vec![Op::AppendRow { relation: RelationId(99), row, indexes: Vec::new() }];
                let request = Request::Commit(GroupId(0), Transaction { ops, ..Transaction::default() });
                node.step(now(step), Input::Request { token: Token(step), request }, &store, &mut out);
            }
            node.step(now(step), Input::QueueDrained, &store, &mut out);
        }
        let recovered = recover(IDENTITY, &files).expect("the files are sound");
        let entries = recovered.groups[&GroupId(0)].entries.clone();
        assert!(files.len() > 1 && entries.len() > 20, "{} files, {} entries", files.len(), entries.len());
        (files, entries)
    })
}

// Damage to sound files, each of six bytes: whatever is left is a beginning of what was, or the damage is told.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (files, entries) = sound();
    let mut files = files.clone();
    let mut choices = Choices(data);
    while !choices.is_empty() {
        let place = choices.below(files.len());
        let Some((segment, file)) = files.iter_mut().nth(place) else { break };
        let segment = *segment;
        let at = usize::from(choices.short()) * 8 + choices.below(8);
        match choices.byte() {
            0..=199 => {
                let mask = choices.byte();
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= mask;
                }
            }
            200..=229 => {
                let length = 512 * (1 + choices.below(8));
                file.iter_mut().skip(at).take(length).for_each(|byte| *byte = 0);
            }
            230..=244 => file.truncate(at),
            _ => drop(files.remove(&segment)),
        }
    }
    let Ok(found) = recover(IDENTITY, &files) else { return };
    let Some(log) = found.groups.get(&GroupId(0)) else { return };
    for entry in &log.entries {
        let was = entries.iter().find(|was| was.index == entry.index);
        assert_eq!(Some(entry), was, "recovery made something up");
    }
    assert!(log.entries.windows(2).all(|pair| pair[1].index == pair[0].index.next()), "a gap in the log");
});
