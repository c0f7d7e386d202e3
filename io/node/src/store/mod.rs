//! The store: one LMDB file that holds the last durable checkpoint.
//!
//! ```text
//! checkpoint thread                         readers, any thread
//!   Checkpoint ─> one sorted, durable         Arc<View of checkpoint 7> ─┐   each view has a pool of read
//!                 write transaction           Arc<View of checkpoint 8> ─┴─> transactions of one txn id
//!                 ─> new View
//! ```
//!
//! LMDB is opened with its safe defaults: no `NOSYNC`, `NOMETASYNC`, `WRITEMAP` or `MAPASYNC`. Its map is read-only
//! memory, large and sparse; the quota on the file is ours. LMDB has no checksums, so every value carries a seal
//! that the engine checks, and `pages` can verify a whole file without trusting a byte of it.

pub mod check;
pub mod mark;
pub mod pages;
mod view;

pub use view::{Pin, View};

use chronos_engine::proto::id::{GroupId, Index};
use chronos_engine::step::Checkpoint;
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RwTxn, WithoutTls};
use mark::Mark;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Read transactions of all views together. A view uses up to [`view::READERS_MAX`].
const LMDB_READERS_MAX: u32 = 1024;
/// A superseded view lasts at least this long, and until the next checkpoint wants its pages.
const VIEW_AGE_MAX: Duration = Duration::from_secs(5);
/// How long an opening waits for readers of the last opening in this process.
const CLOSING_PATIENCE: Duration = Duration::from_secs(5);
/// No map is smaller: below it the machine cannot run a node.
const MAP_MIN_BYTES: u64 = 64 << 20;

type Lmdb = Database<'static, Bytes, Bytes>;

/// The store's file, open for checkpoints.
pub struct Store {
    env: Env<WithoutTls>,
    db: Lmdb,
    quota_bytes: u64,
    current: Arc<View>,
    old: Vec<Weak<View>>,
    /// Where each group's state is in the newest checkpoint, for the mark.
    applied: BTreeMap<GroupId, Index>,
}

/// Why a checkpoint was not written. The file is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// No space on the disk, or the quota is reached.
    #[error("{0}")]
    Full(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl Store {
    /// Opens the file in a directory, making it if it is absent. The caller holds the lock of the data directory
    /// and has looked at the file with [`check`].
    pub fn open(dir: &Path, quota_bytes: u64) -> heed::Result<Store> {
        if let Some(closing) = dir.canonicalize().ok().and_then(heed::env_closing_event) {
            // A reader of this process still has the last one: it may be about to end.
            closing.wait_timeout(CLOSING_PATIENCE);
        }
        let env = open_env(dir, quota_bytes)?;
        let txn = env.read_txn()?;
        let opened = env.open_databases_and_commit(txn, |opener, txn| {
            // The unnamed database: there is always one.
            let db = opener.open_database::<Bytes, Bytes>(txn, None)?;
            Ok::<_, heed::Error>(db.map_or(CommitOrAbort::Abort(()), CommitOrAbort::Commit))
        })?;
        let Some(db) = opened.commit() else { return Err(heed::Error::Mdb(MdbError::NotFound)) };
        let current = View::newest(&env, db)?;
        Ok(Store { env, db, quota_bytes, current, old: Vec::new(), applied: BTreeMap::new() })
    }

    /// The view of the newest checkpoint.
    pub fn current(&self) -> &Arc<View> {
        &self.current
    }

    /// Writes a checkpoint in one durable transaction, and makes the view that shows it.
    /// Given up, without effect, when `cancel` is set.
    pub fn write(
        &mut self,
        checkpoint: &Checkpoint,
        cancel: &AtomicBool,
    ) -> Result<Arc<View>, CheckpointError> {
        for old in self.old.iter().filter_map(Weak::upgrade) {
            old.retire(VIEW_AGE_MAX);
        }
        let mut txn = self.env.write_txn().map_err(|error| self.explain(error))?;
        let given_up = || CheckpointError::Failed("given up: the node is stopping".to_owned());
        self.put_entries(&mut txn, checkpoint, cancel).map_err(|error| self.explain(error))?;
        if cancel.load(Ordering::Relaxed) {
            return Err(given_up());
        }
        // Once the commit is through, nobody can open a transaction of the old view.
        self.current.fill();
        if let Err(error) = txn.commit() {
            self.current.keep();
            return Err(self.explain(error));
        }
        let newest = View::newest(&self.env, self.db).map_err(|error| self.explain(error))?;
        let view = self.supersede(newest);
        self.write_mark(&view, checkpoint);
        Ok(view)
    }

    fn write_mark(&mut self, view: &View, checkpoint: &Checkpoint) {
        for group in checkpoint.groups.iter().filter(|group| group.root.is_some()) {
            self.applied.insert(group.group, group.applied);
        }
        let applied = self.applied.iter().map(|(group, index)| (*group, *index)).collect();
        let mark = Mark { txn: view.id() as u64, length: self.file_bytes(), applied };
        // Without it the mark before this one holds: it asks for less.
        let _ = mark.write(self.env.path());
    }

    fn supersede(&mut self, view: Arc<View>) -> Arc<View> {
        let old = std::mem::replace(&mut self.current, view.clone());
        self.old.retain(|view| view.strong_count() > 0);
        self.old.push(Arc::downgrade(&old));
        view
    }

    /// Views of superseded checkpoints that somebody still holds.
    pub fn old_views(&self) -> u64 {
        self.old.iter().filter(|view| view.strong_count() > 0).count() as u64
    }

    fn put_entries(
        &self,
        txn: &mut RwTxn<'_>,
        checkpoint: &Checkpoint,
        cancel: &AtomicBool,
    ) -> heed::Result<()> {
        for group in &checkpoint.groups {
            for (key, value) in group.entries() {
                if cancel.load(Ordering::Relaxed) {
                    return Ok(());
                }
                match value {
                    Some(value) => self.db.put(txn, &key, &value)?,
                    None => {
                        self.db.delete(txn, &key)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn explain(&self, error: heed::Error) -> CheckpointError {
        let file = self.env.path().join("data.mdb");
        let file = file.display();
        match error {
            heed::Error::Mdb(MdbError::MapFull) => CheckpointError::Full(format!(
                "{file} has reached its quota of {} MB: delete data or raise the quota",
                self.quota_bytes >> 20
            )),
            heed::Error::Io(error) if full(&error) || self.is_cut_short(&error) => {
                CheckpointError::Full(format!("{file}: {error}: free disk space"))
            }
            error => CheckpointError::Failed(format!("{file}: {error}")),
        }
    }

    /// Whether a write was cut short for want of space: LMDB says EIO then, and the full disk is the whole cause.
    fn is_cut_short(&self, error: &io::Error) -> bool {
        let free = || rustix::fs::statvfs(self.env.path()).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
            && free().is_ok_and(|bytes| bytes < FULL_BELOW_BYTES)
    }

    /// The length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.env.real_disk_size().unwrap_or(0)
    }

    /// Bytes of the file that were ever used; free pages within are used again.
    pub fn used_bytes(&self) -> u64 {
        let info = self.env.info();
        (info.last_page_number as u64 + 1) * u64::from(self.env.unnamed_database_stat().page_size)
    }
}

/// A disk with less than this is full: a write that failed on it failed for that.
const FULL_BELOW_BYTES: u64 = 256 << 10;

fn full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Opens LMDB with as much of the quota mapped as the machine's address space allows.
fn open_env(dir: &Path, quota_bytes: u64) -> heed::Result<Env<WithoutTls>> {
    let page = rustix::param::page_size() as u64;
    let mut map_bytes = quota_bytes.max(MAP_MIN_BYTES);
    loop {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(usize::try_from(map_bytes / page * page).unwrap_or(usize::MAX / 2));
        options.max_readers(LMDB_READERS_MAX);
        // SAFETY: the data directory's lock keeps other processes away, heed refuses a second open in this one, no
        // flag that weakens LMDB is set, and the file was checked to be as long as its meta pages say.
        match unsafe { options.open(dir) } {
            Err(heed::Error::Io(error))
                if error.kind() == io::ErrorKind::OutOfMemory && map_bytes > MAP_MIN_BYTES =>
            {
                map_bytes = (map_bytes / 2).max(MAP_MIN_BYTES);
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::proto::id::Term;
    use chronos_engine::state::overlay::Layer;
    use chronos_engine::step::{CheckpointId, GroupCheckpoint};
    use chronos_engine::store::{Store as _, StoreError};
    use std::sync::atomic::AtomicBool;

    fn checkpoint(id: u64, entries: &[(&'static [u8], Option<&'static [u8]>)]) -> Checkpoint {
        let entry = |(key, value): &(&'static [u8], Option<&'static [u8]>)| {
            (bytes::Bytes::from_static(key), value.map(bytes::Bytes::from_static))
        };
        let layer: Layer = entries.iter().map(entry).collect();
        let group = GroupCheckpoint {
            group: GroupId(0),
            generation: 1,
            applied: Index(id),
            term: Term(1),
            layer,
            root: Some(bytes::Bytes::from_static(b"root")),
        };
        Checkpoint { id: CheckpointId(id), groups: vec![group] }
    }

    fn value(view: &View, key: &[u8]) -> Result<Option<bytes::Bytes>, StoreError> {
        use chronos_engine::state::{keys, sealed};
        let full = keys::store_key(GroupId(0), 1, key);
        view.get(&full)?.map(|value| sealed::open(&full, &value)).transpose()
    }

    #[test]
    fn views_show_their_checkpoint_until_they_are_retired() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 64 << 20).unwrap();
        let go_on = AtomicBool::new(false);
        let first = store.write(&checkpoint(1, &[(b"a", Some(b"1")), (b"b", Some(b"1"))]), &go_on).unwrap();
        let second = store.write(&checkpoint(2, &[(b"a", Some(b"2")), (b"b", None)]), &go_on).unwrap();
        assert_eq!(store.old_views(), 1);
        assert_eq!(value(&first, b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(value(&first, b"b").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(value(&second, b"a").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(value(&second, b"b").unwrap(), None);
        let pin = View::pin(&first);
        first.retire(Duration::ZERO);
        assert!(value(&first, b"a").is_ok(), "a pinned view stays");
        drop(pin);
        second.retire(Duration::ZERO);
        assert!(value(&second, b"a").is_ok(), "the current view stays");
        first.retire(Duration::ZERO);
        assert_eq!(value(&first, b"a"), Err(StoreError::TooOld));
    }

    #[test]
    fn more_threads_read_a_view_than_it_has_transactions() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 64 << 20).unwrap();
        let go_on = AtomicBool::new(false);
        let old = store.write(&checkpoint(1, &[(b"a", Some(b"1"))]), &go_on).unwrap();
        store.write(&checkpoint(2, &[(b"a", Some(b"2"))]), &go_on).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        assert_eq!(value(&old, b"a").unwrap().as_deref(), Some(&b"1"[..]));
                    }
                });
            }
        });
    }

    #[test]
    fn a_full_quota_and_a_stop_leave_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path(), 64 << 20).unwrap();
        let go_on = AtomicBool::new(false);
        store.write(&checkpoint(1, &[(b"a", Some(b"1"))]), &go_on).unwrap();
        let keys: Vec<&'static [u8]> = (0..30u8).map(|n| &*vec![b'k', n].leak()).collect();
        let large: &'static [u8] = vec![7; 4 << 20].leak();
        let entries: Vec<_> = keys.iter().map(|key| (*key, Some(large))).collect();
        let full = store.write(&checkpoint(2, &entries), &go_on).err();
        assert!(matches!(&full, Some(CheckpointError::Full(why)) if why.contains("quota")), "{full:?}");
        let given_up = store.write(&checkpoint(3, &[(b"a", Some(b"3"))]), &AtomicBool::new(true)).err();
        assert!(matches!(given_up, Some(CheckpointError::Failed(_))), "{given_up:?}");
        assert_eq!(value(store.current(), b"a").unwrap().as_deref(), Some(&b"1"[..]));
        let view = store.write(&checkpoint(4, &[(b"a", Some(b"4"))]), &go_on).unwrap();
        assert_eq!(value(&view, b"a").unwrap().as_deref(), Some(&b"4"[..]));
    }
}
