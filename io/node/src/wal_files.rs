//! The WAL's segment files, and the one who works on them.
//!
//! A segment is written with zeros to its full size and synced before its first use, so that a later `fdatasync`
//! has no metadata to write. The next one is prepared ahead in the background, so that a change of segment costs the
//! hot path a rename.

use chronos_engine::wal::{SegmentId, Segments, WalOp, WriteId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a WAL's bytes go. The simulator's disk, a test's, or files.
pub trait Disk: Send {
    /// Makes a segment of this size, zeroed, allocated and durable with its name. One that is there is replaced.
    fn create(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()>;
    /// Writes at an offset.
    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self, segment: SegmentId) -> io::Result<()>;
    /// Removes a segment, durably.
    fn remove(&mut self, segment: SegmentId) -> io::Result<()>;
    /// Makes everything durable, in every segment.
    fn sync_all(&mut self) -> io::Result<()>;
    /// How many segments there are.
    fn segments(&self) -> u64;
}

impl<D: Disk + ?Sized> Disk for Box<D> {
    fn create(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        (**self).create(segment, bytes)
    }
    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).write(segment, offset, bytes)
    }
    fn sync(&mut self, segment: SegmentId) -> io::Result<()> {
        (**self).sync(segment)
    }
    fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
        (**self).remove(segment)
    }
    fn sync_all(&mut self) -> io::Result<()> {
        (**self).sync_all()
    }
    fn segments(&self) -> u64 {
        (**self).segments()
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WalEvent {
    /// It and everything before it is durable, as far as the mode asks.
    Durable(WriteId),
    /// There was no space; nothing of it counts.
    Full(WriteId),
    /// It failed: fatal.
    Failed(WriteId, String),
}

/// What the worker did, for the status.
#[derive(Clone, Debug, Default)]
pub struct WalCounters {
    /// One sync's duration each.
    pub syncs: crate::status::Histogram,
    /// Bytes written.
    pub written_bytes: u64,
    /// Writes that met a full disk.
    pub full: u64,
}

/// Performs WAL operations in order. After a failure that is not a full disk it does nothing more.
#[derive(Debug)]
pub struct WalWorker<D> {
    disk: D,
    /// There was no space for an operation: the rest of its write is skipped, and its last one tells.
    full: bool,
    failed: bool,
    /// For the status.
    pub counters: WalCounters,
}

impl<D: Disk> WalWorker<D> {
    /// A worker on a disk.
    pub fn new(disk: D) -> WalWorker<D> {
        WalWorker { disk, full: false, failed: false, counters: WalCounters::default() }
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Makes durable what a weak mode left to the operating system.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.failed { Ok(()) } else { self.disk.sync_all() }
    }

    /// Performs one operation; a write's last one gives its event.
    pub fn perform(&mut self, op: WalOp) -> Option<WalEvent> {
        if self.failed {
            return None;
        }
        match op {
            WalOp::Create { segment, bytes } => {
                let result = self.disk.create(segment, bytes);
                self.part(WriteId(0), result)
            }
            WalOp::Write { .. } if self.full => None,
            WalOp::Write { write, segment, offset, bytes } => {
                let result = self.disk.write(segment, offset, &bytes);
                self.counters.written_bytes += bytes.len() as u64;
                self.part(write, result)
            }
            WalOp::Sync { write, .. } | WalOp::Done { write } if self.full => {
                self.full = false;
                self.counters.full += 1;
                Some(WalEvent::Full(write))
            }
            WalOp::Sync { write, segment } => {
                let begun = std::time::Instant::now();
                match self.disk.sync(segment) {
                    Ok(()) => {
                        self.counters.syncs.record(begun.elapsed());
                        Some(WalEvent::Durable(write))
                    }
                    // A sync that finds no space has lost pages like any other that fails.
                    Err(error) => self.fail(write, error),
                }
            }
            WalOp::Done { write } => Some(WalEvent::Durable(write)),
            WalOp::Remove { segment } => match self.disk.remove(segment) {
                Ok(()) => None,
                Err(error) => self.fail(WriteId(0), error),
            },
        }
    }

    /// One operation of a write, not its last.
    fn part(&mut self, write: WriteId, result: io::Result<()>) -> Option<WalEvent> {
        match result {
            Ok(()) => None,
            Err(error) if is_full(&error) => {
                self.full = true;
                None
            }
            Err(error) => self.fail(write, error),
        }
    }

    fn fail(&mut self, write: WriteId, error: io::Error) -> Option<WalEvent> {
        self.failed = true;
        Some(WalEvent::Failed(write, error.to_string()))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Segment files in a directory.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    open: BTreeMap<SegmentId, File>,
    spare: Option<Spare>,
}

/// The next segment, on its way.
#[derive(Debug)]
struct Spare {
    bytes: u64,
    thread: std::thread::JoinHandle<io::Result<File>>,
}

const SPARE: &str = "spare.tmp";
/// Zeros are written in pieces of this size, with a pause between them when nobody waits for the segment.
const ZEROS_BYTES: usize = 1 << 20;
const SPARE_PAUSE: Duration = Duration::from_millis(5);

impl FileDisk {
    /// The segments in a directory; what an interrupted creation left is removed.
    pub fn open(dir: &Path) -> io::Result<FileDisk> {
        let mut open = BTreeMap::new();
        for segment in list(dir)? {
            open.insert(segment, OpenOptions::new().read(true).write(true).open(path(dir, segment))?);
        }
        for leftover in [SPARE, "new.tmp"] {
            match fs::remove_file(dir.join(leftover)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(FileDisk { dir: dir.to_owned(), open, spare: None })
    }

    fn file(&self, segment: SegmentId) -> io::Result<&File> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no segment {:016x}", segment.0));
        self.open.get(&segment).ok_or_else(missing)
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// The prepared file if there is one of this size, else a fresh one.
    fn take_prepared(&mut self, bytes: u64) -> io::Result<(File, PathBuf)> {
        if let Some(spare) = self.spare.take() {
            let prepared = spare.thread.join();
            if let (true, Ok(Ok(file))) = (spare.bytes == bytes, prepared) {
                return Ok((file, self.dir.join(SPARE)));
            }
        }
        let temporary = self.dir.join("new.tmp");
        Ok((zeroed(&temporary, bytes, Duration::ZERO)?, temporary))
    }

    fn prepare_spare(&mut self, bytes: u64) {
        let temporary = self.dir.join(SPARE);
        let work = move || zeroed(&temporary, bytes, SPARE_PAUSE);
        let thread = std::thread::Builder::new().name("chronos-spare".to_owned()).spawn(work);
        // Without the thread the next segment is made when it is wanted.
        self.spare = thread.ok().map(|thread| Spare { bytes, thread });
    }
}

impl Disk for FileDisk {
    fn create(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
        let (file, temporary) = self.take_prepared(bytes)?;
        fs::rename(temporary, path(&self.dir, segment))?;
        self.sync_dir()?;
        self.open.insert(segment, file);
        self.prepare_spare(bytes);
        Ok(())
    }

    fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(segment)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, segment: SegmentId) -> io::Result<()> {
        self.file(segment)?.sync_data()
    }

    fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
        self.open.remove(&segment);
        match fs::remove_file(path(&self.dir, segment)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.sync_dir(),
        }
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.open.values().try_for_each(File::sync_all)
    }

    fn segments(&self) -> u64 {
        self.open.len() as u64
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        if let Some(spare) = self.spare.take() {
            // The file is removed at the next start whatever became of it.
            let _ = spare.thread.join();
        }
    }
}

/// The segment files of a directory, for recovery: read whole, one at a time.
#[derive(Debug)]
pub struct FileSegments {
    dir: PathBuf,
    ids: Vec<SegmentId>,
}

impl FileSegments {
    /// Those that are there now.
    pub fn open(dir: &Path) -> io::Result<FileSegments> {
        Ok(FileSegments { dir: dir.to_owned(), ids: list(dir)? })
    }

    /// Their numbers, as in their names.
    pub fn names(&self) -> BTreeSet<String> {
        self.ids.iter().map(|segment| format!("{:016x}", segment.0)).collect()
    }
}

impl Segments for FileSegments {
    fn ids(&self) -> Vec<SegmentId> {
        self.ids.clone()
    }

    fn read(&self, segment: SegmentId) -> Result<Cow<'_, [u8]>, String> {
        fs::read(path(&self.dir, segment)).map(Cow::Owned).map_err(|error| error.to_string())
    }
}

/// The name of a segment's file.
pub fn path(dir: &Path, segment: SegmentId) -> PathBuf {
    dir.join(format!("{:016x}.seg", segment.0))
}

/// The segments in a directory, ascending.
pub fn list(dir: &Path) -> io::Result<Vec<SegmentId>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        let number = number.filter(|n| n.len() == 16).and_then(|n| u64::from_str_radix(n, 16).ok());
        segments.extend(number.map(SegmentId));
    }
    segments.sort_unstable();
    Ok(segments)
}

fn zeroed(path: &Path, bytes: u64, pause: Duration) -> io::Result<File> {
    let make = || {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        if bytes > 0 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = 0;
        while at < bytes {
            let piece = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all_at(&zeros[..piece], at)?;
            at += piece as u64;
            if !pause.is_zero() {
                // Each piece goes out by itself: one large sync would hold up the log's own.
                file.sync_data()?;
                std::thread::sleep(pause);
            }
        }
        file.sync_all()?;
        Ok(file)
    };
    make().inspect_err(|_| {
        // What is left of it is in the way of others.
        let _ = fs::remove_file(path);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn write(write: u64, segment: u64, offset: u64, bytes: &'static [u8]) -> WalOp {
        WalOp::Write {
            write: WriteId(write),
            segment: SegmentId(segment),
            offset,
            bytes: Bytes::from_static(bytes),
        }
    }

    fn sync(write: u64, segment: u64) -> WalOp {
        WalOp::Sync { write: WriteId(write), segment: SegmentId(segment) }
    }

    #[test]
    fn segments_are_zeroed_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = WalWorker::new(FileDisk::open(dir.path()).unwrap());
        let create = |s| WalOp::Create { segment: SegmentId(s), bytes: 3 << 20 };
        for (i, segment) in [1, 2, 0x1f].into_iter().enumerate() {
            let id = i as u64 + 1;
            assert_eq!(worker.perform(create(segment)), None);
            assert_eq!(worker.perform(write(id, segment, 4096, b"hello")), None);
            assert_eq!(worker.perform(sync(id, segment)), Some(WalEvent::Durable(WriteId(id))));
        }
        assert_eq!(worker.perform(WalOp::Remove { segment: SegmentId(1) }), None);
        assert_eq!(worker.disk().segments(), 2);
        drop(worker);
        assert_eq!(list(dir.path()).unwrap(), [SegmentId(2), SegmentId(0x1f)]);
        let bytes = fs::read(dir.path().join("000000000000001f.seg")).unwrap();
        assert_eq!(bytes.len(), 3 << 20);
        assert_eq!(&bytes[4096..4101], b"hello");
        assert!(bytes[..4096].iter().chain(&bytes[4101..]).all(|&b| b == 0));
        FileDisk::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the spare is removed");
    }

    /// Fails as it is told.
    struct Faulty {
        create: Option<io::ErrorKind>,
        write: Option<io::ErrorKind>,
        sync: Option<io::ErrorKind>,
        done: Vec<&'static str>,
    }

    impl Disk for Faulty {
        fn create(&mut self, _: SegmentId, _: u64) -> io::Result<()> {
            self.done.push("create");
            self.create.map_or(Ok(()), |kind| Err(kind.into()))
        }
        fn write(&mut self, _: SegmentId, _: u64, _: &[u8]) -> io::Result<()> {
            self.done.push("write");
            self.write.map_or(Ok(()), |kind| Err(kind.into()))
        }
        fn sync(&mut self, _: SegmentId) -> io::Result<()> {
            self.done.push("sync");
            self.sync.map_or(Ok(()), |kind| Err(kind.into()))
        }
        fn remove(&mut self, _: SegmentId) -> io::Result<()> {
            Ok(())
        }
        fn sync_all(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn segments(&self) -> u64 {
            0
        }
    }

    fn faulty() -> WalWorker<Faulty> {
        WalWorker::new(Faulty { create: None, write: None, sync: None, done: Vec::new() })
    }

    #[test]
    fn a_full_disk_is_reported_once_a_write_and_passes() {
        let mut worker = faulty();
        worker.disk.create = Some(io::ErrorKind::StorageFull);
        assert_eq!(worker.perform(WalOp::Create { segment: SegmentId(1), bytes: 1 }), None);
        assert_eq!(worker.perform(write(1, 1, 0, b"a")), None);
        assert_eq!(worker.perform(write(1, 1, 1, b"b")), None);
        assert_eq!(worker.perform(sync(1, 1)), Some(WalEvent::Full(WriteId(1))));
        worker.disk.create = None;
        assert_eq!(worker.perform(WalOp::Create { segment: SegmentId(1), bytes: 1 }), None);
        assert_eq!(worker.perform(write(1, 1, 0, b"a")), None);
        assert_eq!(worker.perform(sync(1, 1)), Some(WalEvent::Durable(WriteId(1))));
        worker.disk.write = Some(io::ErrorKind::StorageFull);
        assert_eq!(worker.perform(write(3, 1, 0, b"a")), None);
        assert_eq!(worker.perform(WalOp::Done { write: WriteId(3) }), Some(WalEvent::Full(WriteId(3))));
        assert_eq!(worker.disk.done, ["create", "create", "write", "sync", "write"]);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_done() {
        let mut worker = faulty();
        worker.disk.sync = Some(io::ErrorKind::Other);
        assert_eq!(worker.perform(write(1, 1, 0, b"a")), None);
        assert!(matches!(worker.perform(sync(1, 1)), Some(WalEvent::Failed(WriteId(1), _))));
        worker.disk.sync = None;
        assert_eq!(worker.perform(write(2, 1, 0, b"a")), None);
        assert_eq!(worker.perform(sync(2, 1)), None, "the second sync would lie");
        assert_eq!(worker.disk.done, ["write", "sync"]);
    }
}
