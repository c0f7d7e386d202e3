//! One node on a disk that does at once what it is told: what a client sees of a write, a timer, a request asked
//! twice, an index that fills, a checkpoint.

#[path = "support/relations.rs"]
mod relations;
#[path = "support/world.rs"]
mod world;

use bytes::Bytes;
use chronos_engine::state::{Sessions, keys};
use chronos_engine::step::{Input, Start, SubscriberId, SubscriberInput, Subscription};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_proto::codec;
use chronos_proto::command::{Event, IndexChange, Op, OpOutcome};
use chronos_proto::id::{ColumnId, Index, IndexId, RequestId};
use chronos_proto::schema::{IndexState, Relation, RelationKind, SecondaryIndex};
use chronos_proto::time::{Instant, Timestamp};
use relations::{GROUP, TABLE, TOPIC, primary_key, put};
use world::{START, World};

impl World {
    fn submit(&mut self, transaction: Transaction) -> Result<Committed, Refused> {
        self.commit(GROUP, transaction)
    }

    fn write(&mut self, ops: Vec<Op>) -> Committed {
        let read_index = self.published().snapshot.applied;
        self.submit(Transaction { read_index, ops, ..Transaction::default() }).expect("a write")
    }

    fn make_relations(&mut self) {
        self.write(relations::make_relations());
    }

    fn offsets(&self) -> Vec<(u64, String)> {
        let published = self.published();
        let read_time = published.clock.at(Instant(self.mono));
        let events = published.snapshot.events(TOPIC, 0, 0, 1_000, read_time).expect("events");
        events.into_iter().map(|e| (e.offset, e.stored.event.message_id)).collect()
    }

    /// The sums that were kept along the way are those of what is there.
    fn check_digests(&self) {
        let state = self.node.state(GROUP).expect("the group");
        let differences = state.digests().differences(&state.recompute_digests(&self.shared).expect("state"));
        assert_eq!(differences, [], "digests differ at (tag, relation, bucket)");
    }
}

/// The table with an index on its second column, which is yet to be filled.
fn indexed(world: &World) -> Relation {
    let mut relation = Relation::clone(world.published().snapshot.catalog.get(TABLE).expect("the table"));
    let RelationKind::Table(table) = &mut relation.kind else { panic!("a table") };
    table.indexes.push(SecondaryIndex {
        id: IndexId(1),
        name: "t_x".into(),
        columns: vec![ColumnId(2)],
        state: IndexState::WriteOnly,
    });
    table.next_index = 2;
    relation.version += 1;
    relation
}

fn schedule(id: &str, at: Timestamp) -> Op {
    Op::Schedule {
        topic: TOPIC,
        partition: 0,
        timer_id: id.into(),
        event: Event { message_id: id.into(), payload: Bytes::from_static(b"hello"), ..Event::default() },
        deliver_at: at,
        claim: true,
    }
}

fn publish(id: &str) -> Op {
    let event = Event { message_id: id.into(), ..Event::default() };
    Op::Publish { topic: TOPIC, partition: 0, event, claim: true }
}

#[test]
fn a_row_is_readable_once_its_commit_is_answered() {
    let mut world = World::new();
    world.make_relations();
    let committed = world.write(vec![put(1, 10)]);
    let snapshot = &world.published().snapshot;
    assert!(snapshot.applied >= committed.index);
    assert!(snapshot.get(&keys::row(TABLE, &primary_key(1))).expect("a read").is_some());
    world.check_digests();
}

#[test]
fn a_transaction_whose_reads_were_overwritten_conflicts() {
    let mut world = World::new();
    world.make_relations();
    let read_index = world.published().snapshot.applied;
    world.write(vec![put(1, 10)]);
    let reads = vec![keys::KeyRange::point(keys::row(TABLE, &primary_key(1)))];
    let stale =
        Transaction { read_index, reads: reads.clone(), ops: vec![put(2, 20)], ..Transaction::default() };
    assert_eq!(world.submit(stale), Err(Refused::Conflict));
    let read_index = world.published().snapshot.applied;
    let fresh = Transaction { read_index, reads, ops: vec![put(2, 20)], ..Transaction::default() };
    world.submit(fresh).expect("nothing it read has changed");
}

#[test]
fn a_request_asked_twice_has_one_effect_and_one_answer() {
    let mut world = World::new();
    world.make_relations();
    let session = Sessions::id(START, 9);
    let request = RequestId { session, sequence: 1, floor: 1 };
    let read_index = world.published().snapshot.applied;
    let transaction = Transaction { request, read_index, ops: vec![publish("a")], ..Transaction::default() };
    let first = world.submit(transaction.clone()).expect("the first");
    assert_eq!(world.submit(transaction.clone()).expect("the second"), first);
    assert_eq!(world.offsets(), [(0, "a".into())]);
    let next = RequestId { session, sequence: 2, floor: 2 };
    world
        .submit(Transaction { request: next, ops: vec![publish("b")], ..transaction.clone() })
        .expect("the next");
    assert_eq!(world.submit(transaction), Err(Refused::Expired(request)));
    world.check_digests();
}

#[test]
fn a_timer_fires_once_at_its_time_and_not_before() {
    let mut world = World::new();
    world.make_relations();
    let due = START + std::time::Duration::from_micros(2_000_500);
    world.write(vec![schedule("t1", due)]);
    world.pass(1_990_000);
    assert_eq!(world.offsets(), []);
    assert_eq!(world.node.status().timers_pending, 1);
    world.pass(10_400);
    assert_eq!(world.offsets(), [], "armed or not, nobody sees it before it is due");
    world.pass(2_000);
    assert_eq!(world.offsets(), [(0, "t1".into())]);
    assert_eq!(world.node.status().timers_pending, 0);
    world.pass(10_000_000);
    assert_eq!(world.offsets().len(), 1);
    world.check_digests();
}

#[test]
fn a_cancelled_timer_never_fires_and_a_fired_one_cannot_be_cancelled() {
    let mut world = World::new();
    world.make_relations();
    let after = |us| START + std::time::Duration::from_micros(us);
    world.write(vec![schedule("a", after(1_000_000)), schedule("b", after(1_000_000))]);
    let cancel = |id: &str| Op::Cancel { topic: TOPIC, timer_id: id.into(), if_version: None };
    assert_eq!(world.write(vec![cancel("a")]).outcomes, [OpOutcome::Changed]);
    world.pass(1_100_000);
    assert_eq!(world.offsets(), [(0, "b".into())]);
    assert_eq!(world.write(vec![cancel("b")]).outcomes, [OpOutcome::TooLate]);
}

#[test]
fn timers_beyond_the_window_come_when_it_moves_on() {
    let mut world = World::new();
    world.make_relations();
    let after = |us| START + std::time::Duration::from_micros(us);
    let far: Vec<u64> = vec![400_000_000, 59_999_999, 60_000_000, 60_000_001, 90_000_000, 3_600_000_000];
    let ops = far.iter().map(|us| schedule(&format!("t{us}"), after(*us))).collect();
    world.write(ops);
    world.pass(3_700_000_000);
    let fired: Vec<String> = world.offsets().into_iter().map(|(_, id)| id).collect();
    let mut expected = far.clone();
    expected.sort_unstable();
    assert_eq!(fired, expected.iter().map(|us| format!("t{us}")).collect::<Vec<_>>());
}

#[test]
fn a_message_id_is_stored_once_within_its_window_and_again_after_it() {
    let mut world = World::new();
    world.make_relations();
    assert_eq!(world.write(vec![publish("m")]).outcomes, [OpOutcome::Published { partition: 0, offset: 0 }]);
    let duplicate = OpOutcome::Duplicate { position: Some((0, 0)) };
    assert_eq!(world.write(vec![publish("m")]).outcomes, std::slice::from_ref(&duplicate));
    world.input(Input::Checkpoint);
    world.pass(30_000_000);
    assert_eq!(world.write(vec![publish("m")]).outcomes, [duplicate]);
    world.pass(31_000_000);
    assert_eq!(world.write(vec![publish("m")]).outcomes, [OpOutcome::Published { partition: 0, offset: 1 }]);
    world.check_digests();
}

#[test]
fn an_index_on_a_filled_table_becomes_public_with_every_row_in_it() {
    let mut world = World::new();
    world.make_relations();
    for chunk in 0..10 {
        world.write((0..100).map(|i| put(chunk * 100 + i, i)).collect());
    }
    world.input(Input::Checkpoint);
    world.write(vec![Op::PutRelation(indexed(&world))]);
    world.pass(1_000_000);
    let snapshot = world.published().snapshot.clone();
    let table = snapshot.catalog.get(TABLE).and_then(|r| r.table().cloned()).expect("the table");
    assert_eq!(table.indexes[0].state, IndexState::Public);
    assert_eq!(snapshot.scan(&keys::index_entries(TABLE, IndexId(1)), false).count(), 1_000);
    world.check_digests();
}

#[test]
fn a_dropped_table_leaves_nothing_behind() {
    let mut world = World::new();
    world.make_relations();
    world.write((0..1_000).map(|i| put(i, i)).collect());
    world.write(
        (0..100).map(|i| schedule(&format!("s{i}"), START + std::time::Duration::from_secs(100))).collect(),
    );
    world.write(vec![Op::DropRelation(TABLE), Op::DropRelation(TOPIC)]);
    world.pass(1_000_000);
    let snapshot = &world.published().snapshot;
    let everything =
        keys::KeyRange { start: Bytes::from_static(&[keys::tag::CATALOG]), end: Bytes::from_static(&[0xFF]) };
    assert_eq!(snapshot.scan(&everything, false).count(), 0);
    assert_eq!(world.node.status().timers_pending, 0);
    world.check_digests();
}

/// `cargo sim --seed 0x4a4b26d290a82b9` found that the index's entries were taken out of the sums twice.
#[test]
fn an_index_and_its_table_dropped_at_once_are_counted_once() {
    let mut world = World::new();
    world.make_relations();
    world.write((0..100).map(|i| put(i, i)).collect());
    let mut relation = indexed(&world);
    world.write(vec![Op::PutRelation(relation.clone())]);
    world.pass(1_000_000);
    let RelationKind::Table(table) = &mut relation.kind else { panic!("a table") };
    table.indexes.clear();
    relation.version += 2;
    world.write(vec![Op::PutRelation(relation), Op::DropRelation(TABLE)]);
    world.pass(1_000_000);
    world.check_digests();
    assert_eq!(world.published().snapshot.scan(&keys::index_entries(TABLE, IndexId(1)), false).count(), 0);
}

#[test]
fn a_checkpoint_holds_the_state_and_readers_see_no_difference() {
    let mut world = World::new();
    world.make_relations();
    world.write((0..500).map(|i| put(i, i)).collect());
    let before: Vec<_> =
        world.published().snapshot.scan(&keys::rows(TABLE), false).map(Result::unwrap).collect();
    world.input(Input::Checkpoint);
    assert!(world.store.0.len() > 500);
    let after: Vec<_> =
        world.published().snapshot.scan(&keys::rows(TABLE), false).map(Result::unwrap).collect();
    assert_eq!(before, after);
    let backwards: Vec<_> =
        world.published().snapshot.scan(&keys::rows(TABLE), true).map(Result::unwrap).collect();
    assert!(backwards.iter().rev().eq(&after));
    let old = codec::digest(&after[0].0, &after[0].1);
    let gone = IndexChange { index: IndexId(9), key: Bytes::from_static(b"unused"), present: true };
    assert!(gone.present && old != 0);
    world.write(vec![Op::DeleteRow {
        relation: TABLE,
        key: primary_key(0),
        replaces: old,
        indexes: Vec::new(),
    }]);
    assert_eq!(world.published().snapshot.scan(&keys::rows(TABLE), false).count(), 499);
    world.check_digests();
}

#[test]
fn a_subscriber_gets_what_is_released_and_not_what_it_acknowledged() {
    let mut world = World::new();
    world.make_relations();
    world.write(vec![publish("a")]);
    let subscription = Subscription {
        topic: TOPIC,
        partitions: Vec::new(),
        consumer_group: Some("g".into()),
        start: Start::Earliest,
        credit: 10,
        ack_timeout_ms: 30_000,
    };
    let open =
        |id| Input::Subscriber { id: SubscriberId(id), event: SubscriberInput::Open(subscription.clone()) };
    world.input(open(1));
    world.write(vec![publish("b"), schedule("c", START + std::time::Duration::from_millis(50))]);
    world.pass(100_000);
    let offsets = |world: &World| -> Vec<u64> {
        world.deliveries.iter().flat_map(|d| d.offsets.iter().map(|(offset, _)| *offset)).collect()
    };
    assert_eq!(offsets(&world), [0, 1, 2]);
    let ack = Input::Subscriber { id: SubscriberId(1), event: SubscriberInput::Ack(vec![(0, 0), (0, 2)]) };
    world.input(ack);
    world.input(Input::QueueDrained);
    world.input(Input::Subscriber { id: SubscriberId(1), event: SubscriberInput::Close });
    world.deliveries.clear();
    world.input(open(2));
    assert_eq!(offsets(&world), [1]);
    assert_eq!(world.published().snapshot.consumer(TOPIC, "g", 0).expect("progress").floor, 1);
    assert_eq!(world.published().snapshot.applied, Index(world.node.status().groups[0].applied));
    world.check_digests();
}

/// A node whose clock is ahead shows a firing before this one does: what was read of it there is of the future here.
#[test]
fn a_transaction_that_saw_a_release_before_its_time_conflicts() {
    let mut world = World::new();
    world.make_relations();
    let due = START + std::time::Duration::from_millis(1_000);
    world.write(vec![schedule("t1", due)]);
    let next = |world: &World| world.published().snapshot.partition(TOPIC, 0).expect("the partition").next;
    while next(&world) == 0 {
        world.pass(100);
    }
    assert_eq!(world.offsets(), [], "it is fired ahead and not released");
    let published = world.published();
    let read_index = published.snapshot.applied;
    let reads = vec![keys::KeyRange::point(keys::partition(TOPIC, 0))];
    let unreleased = Transaction {
        read_index,
        reads,
        valid_until: Some(due),
        ops: vec![put(1, 1)],
        ..Transaction::default()
    };
    let released = Transaction { valid_until: None, ..unreleased.clone() };
    assert_eq!(world.submit(released.clone()), Err(Refused::Conflict));
    world.submit(unreleased).expect("it saw what is there now");
    world.pass(100_000);
    assert_eq!(world.offsets().len(), 1);
    let released = Transaction { ops: vec![put(2, 2)], ..released };
    world.submit(released).expect("now it is there");
}
