//! `digest`: the sum that the engine keeps step by step is the sum over its state.

use crate::violation::{Held, Violation};
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{KeyRange, tag};
use chronos_engine::store::StoreError;
use chronos_proto::codec;

/// The sum of the digests of everything in a snapshot that belongs to the state proper.
pub fn of(snapshot: &Snapshot) -> Result<u64, StoreError> {
    let everything =
        KeyRange { start: Bytes::from_static(&[tag::CATALOG]), end: Bytes::from_static(&[0xFF]) };
    let mut sum = 0u64;
    for entry in snapshot.scan(&everything, false) {
        let (key, value) = entry?;
        sum = sum.wrapping_add(codec::digest(&key, &value));
    }
    Ok(sum)
}

/// Whether what the engine says is what its state comes to.
pub fn check(index: u64, claimed: u64, found: u64) -> Held {
    if claimed == found {
        return Ok(());
    }
    let what = format!("at entry {index} the engine's digest is {claimed:016x}, its state's is {found:016x}");
    Err(Violation::safety("digest", what))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_difference_is_seen() {
        assert_eq!(check(1, 7, 7), Ok(()));
        assert!(check(1, 7, 8).is_err());
    }
}
