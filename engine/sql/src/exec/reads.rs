//! What a transaction has read, as ranges of state keys: the resolver guards them at commit.

use chronos_engine::keys::{self, KeyRange};
use chronos_proto::id::RelationId;

#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    ranges: Vec<KeyRange>,
}

impl Reads {
    pub fn add(&mut self, range: KeyRange) {
        self.ranges.push(range);
        // Loops over one key or one range would pile up copies.
        if self.ranges.len() >= 1024 && self.ranges.len().is_power_of_two() {
            self.compact();
        }
    }

    pub fn point(&mut self, key: bytes::Bytes) {
        self.add(KeyRange::point(key));
    }

    pub fn extend(&mut self, other: Reads) {
        self.ranges.extend(other.ranges);
    }

    /// Anything of a relation: a change of its definition conflicts.
    pub fn relation(&mut self, id: RelationId) {
        self.point(keys::catalog(id));
    }

    fn compact(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup();
    }

    pub fn into_ranges(mut self) -> Vec<KeyRange> {
        if self.ranges.len() > 1 {
            self.compact();
        }
        self.ranges
    }
}
