//! What a transaction has read, as ranges of state keys: the resolver guards them at commit.

use chronos_engine::keys::{self, KeyRange};
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;

#[derive(Clone, Debug, Default)]
pub(crate) struct Reads {
    ranges: Vec<KeyRange>,
    until: Option<Timestamp>,
    /// Something was read in another group, which no commit guards.
    foreign: bool,
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
        self.foreign |= other.foreign;
        other.until.into_iter().for_each(|time| self.until(time));
    }

    /// From this time on something else would be read, though nothing is written.
    pub fn until(&mut self, time: Timestamp) {
        self.until = Some(self.until.map_or(time, |until| until.min(time)));
    }

    /// Something is read in another group than the transaction's.
    pub fn elsewhere(&mut self) {
        self.foreign = true;
    }

    /// Whether something was read in another group.
    pub fn is_elsewhere(&self) -> bool {
        self.foreign
    }

    /// Whether nothing but relations' definitions was read.
    pub fn is_catalog_alone(&self) -> bool {
        let catalog = keys::catalog_all();
        self.until.is_none() && self.ranges.iter().all(|r| r.is_point() && catalog.contains(&r.start))
    }

    /// Anything of a relation: a change of its definition conflicts.
    pub fn relation(&mut self, id: RelationId) {
        self.point(keys::catalog(id));
    }

    fn compact(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup();
    }

    pub fn into_parts(mut self) -> (Vec<KeyRange>, Option<Timestamp>) {
        if self.ranges.len() > 1 {
            self.compact();
        }
        (self.ranges, self.until)
    }
}
