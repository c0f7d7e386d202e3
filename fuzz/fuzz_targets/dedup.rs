#![no_main]
#[path = "../../engine/tests/support/world.rs"]
mod world;

use bytes::Bytes;
use chronos_engine::step::Input;
use chronos_engine::txn::Transaction;
use chronos_fuzz::Choices;
use chronos_proto::OpOutcome;
use chronos_proto::command::{Event, Op};
use chronos_proto::id::GroupId;
use chronos_proto::schema::{Relation, RelationKind, Topic};
use chronos_proto::value::Type;
use std::collections::BTreeMap;

const WINDOW_US: u64 = 10_000_000;

// Message ids claimed on a topic beside a map of when each was: one effect within the window, checkpoints or not.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let mut world = world::World::new();
    world.pass(1_000_000);
    let topic = world.published().snapshot.catalog.next_id();
    let kind = RelationKind::Topic(Topic { partitions: 1, dedup_micros: WINDOW_US, payload: Type::Bytes, settings: Vec::new() });
    let relation = Relation { id: topic, name: "t".into(), group: GroupId(0), version: 1, kind };
    let create = Transaction { ops: vec![Op::PutRelation(relation)], ..Transaction::default() };
    world.commit(GroupId(0), create).expect("a topic");
    let mut claims: BTreeMap<u8, (i64, u64)> = BTreeMap::new();
    let mut end = 0;
    while !choices.is_empty() {
        match choices.byte() {
            0..=9 => world.input(Input::Checkpoint),
            10..=79 => world.pass(u64::from(choices.short()) * 100),
            80..=99 => world.pass(WINDOW_US / 8 * (1 + choices.below(10) as u64)),
            _ => {
                let id = choices.byte() % 16;
                let event =
                    Event { message_id: format!("m{id}"), key: None, headers: None, payload: Bytes::new() };
                let ops = vec![Op::Publish { topic, partition: 0, event, claim: true }];
                let done = world.commit(GroupId(0), Transaction { ops, ..Transaction::default() });
                let done = done.expect("nothing stands in its way");
                let since = done.time.0 - WINDOW_US as i64;
                let expected = match claims.get(&id) {
                    Some((at, offset)) if *at >= since => {
                        OpOutcome::Duplicate { position: Some((0, *offset)) }
                    }
                    _ => {
                        claims.insert(id, (done.time.0, end));
                        end += 1;
                        OpOutcome::Published { partition: 0, offset: end - 1 }
                    }
                };
                assert_eq!(done.outcomes, [expected], "m{id} at {}", done.time);
            }
        }
    }
});
