//! The checkpoint store: an ordered map that is replaced as a whole when a checkpoint is durable, so a crash in the
//! middle of one leaves the old one.

use crate::rng::Rng;
use bytes::Bytes;
use chronos_engine::step::Checkpoint;
use chronos_engine::store::{Store, StoreError};
use imbl::OrdMap;
use std::ops::Bound;

/// One durable checkpoint. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    entries: OrdMap<Bytes, Bytes>,
    /// A damaged entry: key, damaged value, good value.
    rotten: Option<(Bytes, Bytes, Bytes)>,
}

impl SimStore {
    /// This store with a checkpoint on top.
    pub fn with(&self, checkpoint: &Checkpoint) -> SimStore {
        let mut store = self.clone();
        for group in &checkpoint.groups {
            for (key, value) in group.entries() {
                match value {
                    Some(value) => store.entries.insert(key, value),
                    None => store.entries.remove(&key),
                };
            }
        }
        store
    }

    /// This store with one bit of one value flipped, and the key it is under. None if there is nothing to damage.
    pub fn rotten(&self, rng: &mut Rng) -> Option<(SimStore, Bytes)> {
        let place = rng.below(self.entries.len() as u64) as usize;
        let (key, good) = self.entries.iter().nth(place)?;
        let mut damaged = good.to_vec();
        let at = rng.below(damaged.len() as u64) as usize;
        *damaged.get_mut(at)? ^= 1 << rng.below(8);
        let (key, damaged) = (key.clone(), Bytes::from(damaged));
        let rotten = Some((key.clone(), damaged.clone(), good.clone()));
        Some((SimStore { entries: self.entries.update(key.clone(), damaged), rotten }, key))
    }

    /// Puts the good value back, unless the damaged one was replaced since.
    pub fn repair(&mut self) {
        if let Some((key, damaged, good)) = self.rotten.take()
            && self.entries.get(&key) == Some(&damaged)
        {
            self.entries.insert(key, good);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Store for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.entries.get(key).cloned())
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        let range = self.entries.range::<_, [u8]>((from, to)).map(|(k, v)| (k.clone(), v.clone()));
        if reverse {
            out.extend(range.rev().take(limit))
        } else {
            out.extend(range.take(limit))
        }
        Ok(())
    }
}
