//! Sums of digests per (tag, relation, bucket): equal states have equal sums, and a difference names its place.

use chronos_proto::codec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const BUCKETS: u64 = 16;

/// Wrapping sums, by (tag, relation, key bucket). Keys without a relation have relation 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests(BTreeMap<(u8, u32, u8), u64>);

impl Digests {
    /// Takes the digest `old` out and `new` in; zero is nothing.
    pub fn replace(&mut self, key: &[u8], old: u64, new: u64) {
        let place = self.0.entry(place(key)).or_default();
        *place = place.wrapping_sub(old).wrapping_add(new);
    }

    /// The sum over everything.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, digest| sum.wrapping_add(*digest))
    }

    /// The sum over everything but who is in the cluster: what a restored copy has in common with its original.
    pub fn data(&self) -> u64 {
        use super::keys::tag;
        let data = self.0.iter().filter(|((tag, ..), _)| !matches!(*tag, tag::MEMBERSHIP | tag::MEMBER));
        data.fold(0, |sum, (_, digest)| sum.wrapping_add(*digest))
    }

    /// Places whose sums differ, sums of zero being nothing.
    pub fn differences(&self, other: &Digests) -> Vec<(u8, u32, u8)> {
        let at = |digests: &Digests, place| digests.0.get(place).copied().unwrap_or(0);
        let places: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        places.into_iter().filter(|p| at(self, p) != at(other, p)).copied().collect()
    }

    pub(super) fn to_stored(&self) -> Vec<(u8, u32, u8, u64)> {
        let nonzero = self.0.iter().filter(|(_, digest)| **digest != 0);
        nonzero.map(|((tag, relation, bucket), digest)| (*tag, *relation, *bucket, *digest)).collect()
    }

    pub(super) fn from_stored(stored: &[(u8, u32, u8, u64)]) -> Digests {
        Digests(
            stored
                .iter()
                .map(|(tag, relation, bucket, digest)| ((*tag, *relation, *bucket), *digest))
                .collect(),
        )
    }
}

fn place(key: &[u8]) -> (u8, u32, u8) {
    use super::keys::tag;
    let tag = key.first().copied().unwrap_or(0);
    let relation = match tag {
        tag::DUE | tag::REQUEST | tag::SESSION | tag::MEMBER => 0,
        _ => super::keys::relation(key).map_or(0, |relation| relation.0),
    };
    (tag, relation, (codec::digest(key, &[]) % BUCKETS) as u8)
}
