//! A view of one checkpoint: a pool of read transactions that all see it.
//!
//! A read transaction serves one thread at a time, so a view keeps several. They can be opened only until the next
//! checkpoint commits: up to then a view opens more as they are wanted, and just before it the pool is filled.
//!
//! A view keeps the pages of its checkpoint from being used again, so it does not last: once it is superseded and
//! old, it is retired when the next checkpoint wants its pages, and readers that still hold it are told so.

use super::Lmdb;
use bytes::Bytes;
use chronos_engine::store::{Store, StoreError};
use heed::{Env, RoTxn, WithoutTls};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most readers of one view at a time; more wait for one to end.
pub(super) const READERS_MAX: usize = 32;
/// The least that a superseded view has.
const READERS_KEPT: usize = 4;

/// A read-only view of one checkpoint. It keeps its pages from being used again: hold it briefly.
pub struct View {
    env: Env<WithoutTls>,
    db: Lmdb,
    id: usize,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<RoTxn<'static, WithoutTls>>,
    opened: usize,
    /// Since when a newer checkpoint is durable: no more can be opened.
    superseded: Option<Instant>,
    retired: bool,
    pins: usize,
    /// Readers that wait for one to be returned.
    waiting: usize,
}

/// Keeps a view from being retired.
pub struct Pin(Arc<View>);

impl std::ops::Deref for Pin {
    type Target = Arc<View>;

    fn deref(&self) -> &Arc<View> {
        &self.0
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.lock().pins -= 1;
    }
}

impl View {
    /// A view of the newest checkpoint; called where none can be committed meanwhile.
    pub(super) fn newest(env: &Env<WithoutTls>, db: Lmdb) -> heed::Result<Arc<View>> {
        let first = env.clone().static_read_txn()?;
        let id = first.id();
        let pool = Pool { idle: vec![first], opened: 1, ..Pool::default() };
        Ok(Arc::new(View { env: env.clone(), db, id, pool: Mutex::new(pool), returned: Condvar::new() }))
    }

    /// LMDB's number of the transaction that wrote this checkpoint.
    pub fn id(&self) -> usize {
        self.id
    }

    /// Opens what a superseded view is to have, and no more after that.
    pub(super) fn fill(&self) {
        let mut pool = self.lock();
        while pool.opened < READERS_KEPT {
            match self.env.clone().static_read_txn() {
                Ok(txn) if txn.id() == self.id => {
                    pool.idle.push(txn);
                    pool.opened += 1;
                }
                _ => break,
            }
        }
        pool.superseded = Some(Instant::now());
        drop(pool);
        self.returned.notify_all();
    }

    /// The commit that [`View::fill`] was for failed: this is the newest checkpoint still, and the engine reads it.
    pub(super) fn keep(&self) {
        self.lock().superseded = None;
        self.returned.notify_all();
    }

    /// Keeps this view for as long as the pin lives, whatever grows.
    pub fn pin(self: &Arc<View>) -> Pin {
        self.lock().pins += 1;
        Pin(self.clone())
    }

    /// Gives up the view if it has been superseded for this long: reads of it fail from now on.
    pub(super) fn retire(&self, age: Duration) {
        let mut pool = self.lock();
        if pool.pins == 0 && pool.superseded.is_some_and(|since| since.elapsed() >= age) {
            pool.retired = true;
            let idle = std::mem::take(&mut pool.idle);
            drop(pool);
            drop(idle);
            self.returned.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // The pool is whole even if a reader panicked: its transaction came back as it unwound.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Result<Reader<'_>, StoreError> {
        let mut pool = self.lock();
        loop {
            if pool.retired {
                return Err(StoreError::TooOld);
            }
            if let Some(txn) = pool.idle.pop() {
                return Ok(Reader { view: self, txn: Some(txn) });
            }
            if pool.superseded.is_some() || pool.opened >= READERS_MAX {
                pool.waiting += 1;
                pool = self.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
                pool.waiting -= 1;
                continue;
            }
            // `fill` takes the same lock before a commit begins, so this sees the view's own checkpoint.
            let txn = self.env.clone().static_read_txn().map_err(io)?;
            if txn.id() == self.id {
                pool.opened += 1;
                return Ok(Reader { view: self, txn: Some(txn) });
            }
            pool.superseded = Some(Instant::now());
        }
    }
}

impl Store for View {
    fn pin(self: Arc<Self>) -> Option<chronos_engine::store::Pin> {
        Some(Box::new(View::pin(&self)))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let reader = self.reader()?;
        Ok(self.db.get(reader.txn(), key).map_err(io)?.map(Bytes::copy_from_slice))
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        if empty(from, to) {
            return Ok(());
        }
        let reader = self.reader()?;
        let range = (from, to);
        let copied = |entry: heed::Result<(&[u8], &[u8])>| {
            entry.map(|(k, v)| (Bytes::copy_from_slice(k), Bytes::copy_from_slice(v))).map_err(io)
        };
        if reverse {
            for entry in self.db.rev_range(reader.txn(), &range).map_err(io)?.take(limit) {
                out.push(copied(entry)?);
            }
        } else {
            for entry in self.db.range(reader.txn(), &range).map_err(io)?.take(limit) {
                out.push(copied(entry)?);
            }
        }
        Ok(())
    }
}

/// Bounds that hold nothing: LMDB is not asked for those.
fn empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
        _ => false,
    }
}

fn io(error: heed::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

struct Reader<'a> {
    view: &'a View,
    txn: Option<RoTxn<'static, WithoutTls>>,
}

impl Reader<'_> {
    fn txn(&self) -> &RoTxn<'static, WithoutTls> {
        match &self.txn {
            Some(txn) => txn,
            None => unreachable!("a reader has its transaction until it is dropped"),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = self.view.lock();
        // A transaction of a retired view ends here.
        if let Some(txn) = self.txn.take_if(|_| !pool.retired) {
            pool.idle.push(txn);
            // Most reads find nobody waiting, and a wake-up costs a system call.
            let wanted = pool.waiting > 0;
            drop(pool);
            if wanted {
                self.view.returned.notify_one();
            }
        }
    }
}
