//! How many durable single-row commits a second, and how long one takes: `commits CLIENTS SECONDS [DIR [small]]`.
//! With the small profile checkpoints come soon enough to be part of it.

use bytes::Bytes;
use chronos_engine::proto::command::Op;
use chronos_engine::proto::id::{ColumnId, GroupId, RelationId};
use chronos_engine::proto::schema::{Column, Relation, RelationKind, Table};
use chronos_engine::proto::value::Type;
use chronos_engine::txn::Transaction;
use chronos_node::{Histogram, NodeHandle, Options, Profile};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: u64| args.get(at).map_or(default, |arg| arg.parse().expect("a number"));
    let (clients, seconds) = (number(1, 64), number(2, 5));
    let dir = args.get(3).map_or_else(|| std::env::temp_dir().join("chronos-commits"), Into::into);
    let profile =
        if args.get(4).is_some_and(|arg| arg == "small") { Profile::SMALL } else { Profile::STANDARD };
    let begun = Instant::now();
    let node = chronos_node::open(Options { profile, ..Options::new(&dir) }).expect("opens");
    println!("opened in {:?}", begun.elapsed());
    let first = create(&node);
    let until = Instant::now() + Duration::from_secs(seconds);
    let threads: Vec<_> = (0..clients)
        .map(|client| {
            let node = node.clone();
            std::thread::spawn(move || commit(&node, first + (client << 40), until))
        })
        .collect();
    let mut latency = Histogram::default();
    for thread in threads {
        let one = thread.join().expect("a client");
        latency.merge(&one);
    }
    let status = node.status().expect("runs");
    println!(
        "{clients} clients: {} commits/s, mean {} us, p99 {} us, max {} us; {} syncs, mean {} us; {} checkpoints, the last {:?}",
        latency.count / seconds.max(1),
        latency.sum_us / latency.count.max(1),
        latency.quantile_us(0.99),
        latency.max_us,
        status.wal.syncs,
        status.wal.sync_latency.sum_us / status.wal.syncs.max(1),
        status.store.checkpoints,
        status.store.last_checkpoint_took,
    );
    let begun = Instant::now();
    println!("{:?} in {:?}", node.stop(), begun.elapsed());
}

fn commit(node: &NodeHandle, first: u64, until: Instant) -> Histogram {
    let mut latency = Histogram::default();
    for n in first.. {
        let begun = Instant::now();
        if begun >= until {
            break;
        }
        let read_index = node.published().snapshot.applied;
        let ops = vec![Op::PutRow {
            relation: RelationId(16),
            key: Bytes::copy_from_slice(&n.to_be_bytes()),
            row: Bytes::from_static(&[7; 100]),
            replaces: 0,
            indexes: Vec::new(),
        }];
        node.commit(GroupId(0), Transaction { read_index, ops, ..Transaction::default() }).expect("commits");
        latency.record(begun.elapsed());
    }
    latency
}

/// Makes the table if need be; returns a key that no run used.
fn create(node: &NodeHandle) -> u64 {
    let published = node.published();
    if published.snapshot.catalog.get(RelationId(16)).is_none() {
        let id = Column { id: ColumnId(0), name: "id".into(), ty: Type::Int, not_null: true, default: None };
        let table =
            Table { columns: vec![id], primary_key: vec![ColumnId(0)], next_column: 1, ..Table::default() };
        let relation = Relation {
            id: RelationId(16),
            name: "rows".into(),
            group: GroupId(0),
            version: 1,
            kind: RelationKind::Table(table),
        };
        let ops = vec![Op::PutRelation(relation)];
        let read_index = published.snapshot.applied;
        node.commit(GroupId(0), Transaction { read_index, ops, ..Transaction::default() }).expect("commits");
    }
    published.snapshot.applied.0
}
