//! The overlay: everything applied since the last checkpoint, in memory.
//!
//! An ordered persistent map, cloned in O(1), so that readers hold a snapshot while writes go on. At most two
//! layers exist: the active one, and one that is frozen while the store writes it.

use bytes::Bytes;
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

/// State keys to values; none marks a deletion that hides the store's value.
pub type Layer = OrdMap<Bytes, Option<Bytes>>;

/// What an entry costs in memory beside its bytes, for the budget.
const ENTRY_OVERHEAD_BYTES: usize = 96;

/// The layers over the store, with an account of their size.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overlay {
    /// Takes writes.
    pub active: Layer,
    /// Being written to the store.
    pub frozen: Option<Layer>,
    active_bytes: usize,
    frozen_bytes: usize,
}

impl Overlay {
    /// What this overlay says of `key`: a value, a deletion, or nothing.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.active.get(key).or_else(|| self.frozen.as_ref()?.get(key))
    }

    /// Writes a value, or a deletion.
    pub fn put(&mut self, key: Bytes, value: Option<Bytes>) {
        let size = |v: &Option<Bytes>| v.as_ref().map_or(0, Bytes::len);
        let (key_bytes, added) = (key.len() + ENTRY_OVERHEAD_BYTES, size(&value));
        match self.active.insert(key, value) {
            Some(old) => self.active_bytes = self.active_bytes + added - size(&old),
            None => self.active_bytes += key_bytes + added,
        }
    }

    /// Bytes held, both layers.
    pub fn bytes(&self) -> usize {
        self.active_bytes + self.frozen_bytes
    }

    /// Bytes held by the active layer.
    pub fn active_bytes(&self) -> usize {
        self.active_bytes
    }

    /// Freezes the active layer for a checkpoint. None if one is frozen already.
    pub fn freeze(&mut self) -> Option<Layer> {
        if self.frozen.is_some() {
            return None;
        }
        let layer = std::mem::take(&mut self.active);
        self.frozen_bytes = std::mem::take(&mut self.active_bytes);
        self.frozen = Some(layer.clone());
        Some(layer)
    }

    /// Drops the frozen layer: the store has it.
    pub fn thaw(&mut self) {
        self.frozen = None;
        self.frozen_bytes = 0;
    }
}
