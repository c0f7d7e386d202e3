#![no_main]
use bytes::Bytes;
use chronos_engine::keys::KeyRange;
use chronos_engine::txn::resolver::Resolver;
use chronos_engine::txn::{Refused, Transaction};
use chronos_fuzz::Choices;
use chronos_proto::id::Index;

fn key(choices: &mut Choices<'_>) -> Bytes {
    let length = 1 + choices.below(3);
    Bytes::from((0..length).map(|_| choices.byte() % 6).collect::<Vec<u8>>())
}

// The resolver beside a list of all writes: it never lets a stale read pass, and refuses without reason only below its
// floor.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let mut resolver = Resolver::new(2 + 2 * choices.below(20));
    let mut writes: Vec<(Index, Bytes)> = Vec::new();
    let mut index = Index(0);
    while !choices.is_empty() {
        match choices.byte() % 8 {
            0..=3 => {
                index = index.next();
                let keys: Vec<Bytes> = (0..1 + choices.below(4)).map(|_| key(&mut choices)).collect();
                writes.extend(keys.iter().map(|key| (index, key.clone())));
                resolver.record(index, keys);
            }
            4 if choices.byte() < 16 => {
                index = index.next();
                resolver.reset(index);
            }
            _ => {
                let read_index = Index(index.0.saturating_sub(choices.below(12) as u64));
                let reads = (0..choices.below(4)).map(|_| match choices.byte() % 3 {
                    0 => KeyRange::point(key(&mut choices)),
                    1 => KeyRange::prefix(&key(&mut choices)),
                    _ => KeyRange { start: key(&mut choices), end: key(&mut choices) },
                });
                let transaction =
                    Transaction { read_index, reads: reads.collect(), ..Transaction::default() };
                let stale = writes.iter().any(|(at, key)| {
                    *at > read_index && transaction.reads.iter().any(|range| range.contains(key))
                });
                match resolver.check(&transaction) {
                    Ok(()) => assert!(!stale, "a stale read passes: {transaction:?} over {writes:?}"),
                    Err(Refused::Conflict) => {
                        let forgotten = read_index < resolver.floor();
                        assert!(stale || forgotten, "no reason: {transaction:?} over {writes:?}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
});
