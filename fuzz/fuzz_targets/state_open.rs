#![no_main]
use bytes::Bytes;
use chronos_engine::keys;
use chronos_engine::state::{State, sealed};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_fuzz::Choices;
use chronos_proto::id::{GroupId, Index, RelationId, Term};
use chronos_proto::raft::LogId;
use chronos_proto::time::Timestamp;
use std::sync::Arc;

const GROUP: GroupId = GroupId(0);

// A store, as a snapshot or a checkpoint leaves it, whose checksums are right and whose contents are not.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let mut store = MemoryStore::default();
    let root_key = keys::root(GROUP);
    let root = match choices.byte() {
        0..=127 => State::root_of(GROUP, 1, LogId { term: Term(1), index: Index(9) }, Timestamp(9)),
        _ => {
            let length = choices.below(120);
            sealed::seal(&root_key, &choices.take(length))
        }
    };
    store.0.insert(root_key, root);
    while !choices.is_empty() {
        let (key_bytes, value_bytes) = (choices.below(24), choices.below(80));
        let key = keys::store_key(GROUP, 1, &choices.take(key_bytes));
        let value = sealed::seal(&key, &choices.take(value_bytes));
        store.0.insert(key, value);
    }
    let store: SharedStore = Arc::new(store);
    let Ok(state) = State::open(GROUP, 7, &store) else { return };
    let _ = state.recompute_digests(&store);
    let snapshot = state.snapshot(&store);
    let mut scan =
        snapshot.scan(&keys::KeyRange { start: Bytes::new(), end: Bytes::from_static(&[0xff]) }, false);
    while let Some(Ok(_)) = scan.next_entry() {}
    for relation in (0..4).map(RelationId) {
        let _ = snapshot.partition(relation, 0);
        let _ = snapshot.events(relation, 0, 0, 100, Timestamp(i64::MAX));
        let _ = snapshot.timers(relation).count();
    }
});
