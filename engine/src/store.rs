//! The last durable checkpoint, as the engine sees it: ordered bytes, read-only.
//!
//! Keys carry the (group, generation) prefix of `state::keys`; values are sealed (`state::sealed`) with a checksum
//! over key and value, which the engine checks, so that a store without checksums of its own is still safe to read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::sync::Arc;

/// A read failed below the engine. The node stops serving that range and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The medium did not answer.
    #[error("the store could not be read: {0}")]
    Io(String),
    /// The view was kept for too long: its pages are wanted for newer checkpoints. Nothing is wrong with the data.
    #[error("snapshot too old: take a new one and try again")]
    TooOld,
    /// A value does not match its checksum.
    #[error("damaged value under key {key:02x?}: run `chronos verify`")]
    Damaged {
        /// The full key.
        key: Vec<u8>,
    },
}

/// A read-only view of one durable checkpoint. It never changes: a newer checkpoint is another view.
pub trait Store: Send + Sync {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Appends to `out` up to `limit` entries between the bounds, ascending, or descending if `reverse`.
    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError>;

    /// Keeps the view readable for as long as what is returned lives, whatever that costs; none where every view is.
    fn pin(self: Arc<Self>) -> Option<Pin> {
        None
    }
}

/// Keeps a view readable; see [`Store::pin`].
pub type Pin = Box<dyn Send + Sync>;

/// A store that snapshots share.
pub type SharedStore = Arc<dyn Store>;

/// A store in memory: the simulator's, the tests', and an empty node's.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(pub std::collections::BTreeMap<Bytes, Bytes>);

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        let range = self.0.range::<[u8], _>((from, to)).map(|(k, v)| (k.clone(), v.clone()));
        if reverse {
            out.extend(range.rev().take(limit))
        } else {
            out.extend(range.take(limit))
        }
        Ok(())
    }
}
