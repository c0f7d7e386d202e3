//! What readers get: the state of one group at one applied index, which never changes under them.

use super::overlay::Layer;
use super::{keys, sealed};
use crate::catalog::Catalog;
use crate::store::{SharedStore, StoreError};
use bytes::Bytes;
use chronos_proto::id::{GroupId, Index};
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Entries fetched from the store at a time.
const STORE_BATCH: usize = 256;

/// A consistent view: overlay layers over a checkpoint. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    /// The group.
    pub group: GroupId,
    /// Every entry up to here is in it, and none after.
    pub applied: Index,
    /// The group's time at that entry.
    pub applied_time: Timestamp,
    /// Relations at that entry.
    pub catalog: Arc<Catalog>,
    pub(crate) generation: u32,
    pub(crate) active: Layer,
    pub(crate) frozen: Option<Layer>,
    pub(crate) store: SharedStore,
    /// States of other groups, each at an index of its own.
    pub(crate) others: Option<Arc<BTreeMap<GroupId, Snapshot>>>,
    /// Occurrences of schedules whose statement runs or waits to run.
    pub statements_due: u64,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot(group {} at {})", self.group, self.applied)
    }
}

impl Snapshot {
    /// An empty state, for tests and for a node that has applied nothing.
    pub fn empty(group: GroupId, store: SharedStore) -> Snapshot {
        Snapshot {
            group,
            applied: Index(0),
            applied_time: Timestamp::EPOCH,
            catalog: Arc::new(Catalog::default()),
            generation: 1,
            active: Layer::new(),
            frozen: None,
            store,
            others: None,
            statements_due: 0,
        }
    }

    /// The same, with other groups' states beside it: topics whose partitions are there can be read.
    pub fn with(self, others: BTreeMap<GroupId, Snapshot>) -> Snapshot {
        Snapshot { others: Some(Arc::new(others)), ..self }
    }

    /// The state of a group: this one, or one beside it.
    pub fn of(&self, group: GroupId) -> Option<&Snapshot> {
        if group == self.group { Some(self) } else { self.others.as_ref()?.get(&group) }
    }

    /// The value under a state key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let layered = self.active.get(key).or_else(|| self.frozen.as_ref()?.get(key));
        match layered {
            Some(value) => Ok(value.clone()),
            None => get_stored(&self.store, self.group, self.generation, key),
        }
    }

    /// Changes this copy alone: a transaction reads its own buffered writes so.
    pub fn write(&mut self, key: Bytes, value: Option<Bytes>) {
        self.active.insert(key, value);
    }

    /// The entries of a range, in key order or against it. Lazy: takes what is asked for from the store by batches.
    pub fn scan(&self, range: &keys::KeyRange, reverse: bool) -> Scan<'_> {
        Scan {
            active: layer_range(&self.active, range, reverse),
            frozen: self.frozen.as_ref().map(|layer| layer_range(layer, range, reverse)),
            store: StoreCursor::new(self, range, reverse),
            heads: (None, None, None),
            reverse,
            failed: false,
        }
    }
}

/// Reads and unseals one value of the store.
pub(crate) fn get_stored(
    store: &SharedStore,
    group: GroupId,
    generation: u32,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    let full = keys::store_key(group, generation, key);
    match store.get(&full)? {
        Some(value) => sealed::open(&full, &value).map(Some),
        None => Ok(None),
    }
}

type LayerIter<'a> = Box<dyn Iterator<Item = (&'a Bytes, &'a Option<Bytes>)> + 'a>;

fn layer_range<'a>(layer: &'a Layer, range: &keys::KeyRange, reverse: bool) -> LayerIter<'a> {
    let iter = layer.range::<_, [u8]>(range.bounds());
    if reverse { Box::new(iter.rev()) } else { Box::new(iter) }
}

/// A key and its value, as a scan meets them: in a layer, by reference, or fetched from the store.
pub enum Entry<'a> {
    /// In the overlay.
    Layer(&'a Bytes, &'a Bytes),
    /// Fetched.
    Fetched(Bytes, Bytes),
}

impl Entry<'_> {
    /// The state key.
    pub fn key(&self) -> &Bytes {
        match self {
            Entry::Layer(key, _) => key,
            Entry::Fetched(key, _) => key,
        }
    }

    /// The value.
    pub fn value(&self) -> &Bytes {
        match self {
            Entry::Layer(_, value) => value,
            Entry::Fetched(_, value) => value,
        }
    }
}

/// An ordered merge of the layers and the store; deletions hide what is below them.
pub struct Scan<'a> {
    active: LayerIter<'a>,
    frozen: Option<LayerIter<'a>>,
    store: StoreCursor,
    heads: (LayerHead<'a>, LayerHead<'a>, Option<(Bytes, Bytes)>),
    reverse: bool,
    failed: bool,
}

type LayerHead<'a> = Option<(&'a Bytes, &'a Option<Bytes>)>;

impl Iterator for Scan<'_> {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.next_entry()?.map(|entry| match entry {
            Entry::Layer(key, value) => (key.clone(), value.clone()),
            Entry::Fetched(key, value) => (key, value),
        }))
    }
}

impl<'a> Scan<'a> {
    /// The next entry, without taking a share of what the overlay holds.
    pub fn next_entry(&mut self) -> Option<Result<Entry<'a>, StoreError>> {
        while !self.failed {
            self.fill_heads();
            if self.failed {
                return self.store.error.take().map(Err);
            }
            let (active, frozen, stored) = &self.heads;
            let keys = [
                active.map(|(key, _)| &key[..]),
                frozen.map(|(key, _)| &key[..]),
                stored.as_ref().map(|(key, _)| &key[..]),
            ];
            let present = keys.into_iter().flatten();
            let first = if self.reverse { present.max() } else { present.min() }?;
            // The uppermost layer that has the key says what it is; those below say nothing of it.
            let holds = keys.map(|key| key == Some(first));
            let active = self.heads.0.take_if(|_| holds[0]);
            let frozen = self.heads.1.take_if(|_| holds[1]);
            let stored = self.heads.2.take_if(|_| holds[2]);
            match (active.or(frozen), stored) {
                (Some((key, Some(value))), _) => return Some(Ok(Entry::Layer(key, value))),
                (Some((_, None)), _) => {}
                (None, Some((key, value))) => return Some(Ok(Entry::Fetched(key, value))),
                (None, None) => unreachable!("the first key is one of the heads'"),
            }
        }
        None
    }

    fn fill_heads(&mut self) {
        if self.heads.0.is_none() {
            self.heads.0 = self.active.next();
        }
        if self.heads.1.is_none() {
            self.heads.1 = self.frozen.as_mut().and_then(|frozen| frozen.next());
        }
        if self.heads.2.is_none() {
            self.heads.2 = self.store.next();
            self.failed = self.store.error.is_some();
        }
    }
}

struct StoreCursor {
    store: SharedStore,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    reverse: bool,
    batch: std::vec::IntoIter<(Bytes, Bytes)>,
    batch_size: usize,
    done: bool,
    error: Option<StoreError>,
}

impl StoreCursor {
    fn new(snapshot: &Snapshot, range: &keys::KeyRange, reverse: bool) -> StoreCursor {
        let full = |key: &[u8]| keys::store_key(snapshot.group, snapshot.generation, key).to_vec();
        StoreCursor {
            store: snapshot.store.clone(),
            from: Bound::Included(full(&range.start)),
            to: Bound::Excluded(full(&range.end)),
            reverse,
            batch: Vec::new().into_iter(),
            // The first batch is small: many scans want one entry.
            batch_size: 8,
            done: false,
            error: None,
        }
    }

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        loop {
            if let Some((key, value)) = self.batch.next() {
                return match sealed::open(&key, &value) {
                    Ok(value) => Some((key.slice(keys::PREFIX_BYTES..), value)),
                    Err(error) => {
                        self.error = Some(error);
                        None
                    }
                };
            }
            if self.done {
                return None;
            }
            let mut batch = Vec::with_capacity(self.batch_size);
            let bounds = (as_slice(&self.from), as_slice(&self.to));
            if let Err(error) = self.store.scan(bounds.0, bounds.1, self.reverse, self.batch_size, &mut batch)
            {
                self.error = Some(error);
                return None;
            }
            self.done = batch.len() < self.batch_size;
            if let Some((last, _)) = batch.last() {
                let edge = Bound::Excluded(last.to_vec());
                if self.reverse { self.to = edge } else { self.from = edge }
            }
            self.batch = batch.into_iter();
            self.batch_size = (self.batch_size * 4).min(STORE_BATCH);
        }
    }
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(v) => Bound::Included(v),
        Bound::Excluded(v) => Bound::Excluded(v),
        Bound::Unbounded => Bound::Unbounded,
    }
}
