//! Recordings on disk: a directory of files that the simulator replays (`chronos node --record DIR`).
//!
//! ```text
//!  driver thread                              record thread
//!  Driver::turn ── Piece ──> Keeper::keep ──channel──> Writer: NAME-MICROS.chrec, the oldest are removed
//!                                   └── Verdict <── bytes so far, failure
//! ```
//!
//! Each file is a recording by itself: it begins with the node as it was opened, or with an image of its memory. Once a
//! file has a quarter of what all may have together, another begins; the oldest go. What waits for the disk is bounded
//! too: a disk that does not keep up makes a gap, behind which another file begins. Nothing is synced, for a recording
//! promises nothing. An error, a full disk among them, ends the recording with a warning and never the node.

use crate::driver::{Piece, Verdict};
use chronos_engine::record;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Files that the bytes allowed are shared by.
const FILES: u64 = 4;
/// Bytes that may wait for the disk.
const WAITING_MAX: u64 = 64 << 20;
/// The least that all files together may have.
pub const MAX_BYTES_LEAST: u64 = 4 << 20;

/// Where and how much to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The directory; made if absent.
    pub dir: PathBuf,
    /// Bytes of all of the node's recordings in it together.
    pub max_bytes: u64,
}

/// What a node records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordingStatus {
    /// The newest file.
    pub file: Option<PathBuf>,
    /// Bytes written since the node was opened.
    pub written_bytes: u64,
    /// How often a recording ended because the disk did not keep up, or there was no image to begin another with in time.
    pub gaps: u64,
    /// Why nothing is recorded any more, if that is so.
    pub stopped: Option<String>,
}

/// Bytes that wait, and what became of the others.
#[derive(Debug, Default)]
struct Counters {
    waiting: AtomicU64,
    status: Mutex<RecordingStatus>,
}

impl Counters {
    fn status<R>(&self, act: impl FnOnce(&mut RecordingStatus) -> R) -> R {
        act(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A look at what is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Counters>);

impl Watch {
    pub fn status(&self) -> RecordingStatus {
        self.0.status(|status| status.clone())
    }
}

/// The driver's end.
pub(crate) struct Keeper {
    pieces: mpsc::Sender<Piece>,
    counters: Arc<Counters>,
    file_max: u64,
    /// Bytes of the file under way.
    file_bytes: u64,
    /// There is none, until another begins.
    gap: bool,
}

impl Keeper {
    /// Hands a piece over. Never waits.
    pub fn keep(&mut self, piece: Piece) -> Verdict {
        if self.counters.status(|status| status.stopped.is_some()) {
            return Verdict::Stop;
        }
        let (bytes, waiting) = (piece.bytes.len() as u64, self.counters.waiting.load(Ordering::Relaxed));
        if piece.begins {
            (self.file_bytes, self.gap) = (0, false);
        } else if self.gap {
            return if waiting == 0 { Verdict::Anew } else { Verdict::Gap };
        }
        self.file_bytes += bytes;
        // What it begins with is in memory anyway.
        if !piece.begins && (self.file_bytes > 2 * self.file_max || waiting + bytes > WAITING_MAX) {
            self.gap = true;
            self.counters.status(|status| status.gaps += 1);
            return Verdict::Gap;
        }
        self.counters.waiting.fetch_add(bytes, Ordering::Relaxed);
        // A writer that is gone has said why.
        let _ = self.pieces.send(piece);
        if self.file_bytes > self.file_max { Verdict::Anew } else { Verdict::GoOn }
    }

    /// The most bytes that an image may have, so that there is room for something behind it.
    pub fn image_max(&self) -> u64 {
        self.file_max / 2
    }
}

/// The disk's end.
pub(crate) struct Writer {
    pieces: mpsc::Receiver<Piece>,
    counters: Arc<Counters>,
    options: RecordOptions,
    name: String,
    file: Option<File>,
}

/// Both ends of a node's recordings.
pub(crate) fn open(options: RecordOptions, name: &str) -> (Keeper, Writer, Watch) {
    let (send, pieces) = mpsc::channel();
    let counters = Arc::new(Counters::default());
    let file_max = (options.max_bytes.max(MAX_BYTES_LEAST) / FILES).max(1);
    let keeper = Keeper { pieces: send, counters: counters.clone(), file_max, file_bytes: 0, gap: false };
    let watch = Watch(counters.clone());
    (keeper, Writer { pieces, counters, options, name: name.to_owned(), file: None }, watch)
}

impl Writer {
    /// Writes what comes until the driver is gone.
    pub fn run(mut self) {
        while let Ok(piece) = self.pieces.recv() {
            let bytes = piece.bytes.len() as u64;
            let result = self.write(&piece);
            self.counters.waiting.fetch_sub(bytes, Ordering::Relaxed);
            if let Err(error) = result {
                let dir = self.options.dir.display();
                let why = format!("cannot record into {dir}: {error}");
                tracing::warn!("{why}; the node goes on unrecorded");
                return self.counters.status(|status| status.stopped = Some(why));
            }
        }
    }

    fn write(&mut self, piece: &Piece) -> io::Result<()> {
        if piece.begins {
            self.begin(piece.bytes.len() as u64)?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&piece.bytes)?;
        self.counters.status(|status| status.written_bytes += piece.bytes.len() as u64);
        Ok(())
    }

    /// Another file, which is to begin with so many bytes.
    fn begin(&mut self, bytes: u64) -> io::Result<()> {
        self.file = None;
        fs::create_dir_all(&self.options.dir)?;
        let share = self.options.max_bytes / FILES;
        // The new one may grow to twice its share before another begins.
        let room = self.options.max_bytes.saturating_sub((2 * share).max(bytes));
        self.remove_oldest(room)?;
        let micros = crate::clock::Clock::now(&crate::clock::SystemClock).wall.0;
        let path = self.options.dir.join(format!("{}-{micros:020}.{}", self.name, record::EXTENSION));
        // It holds what clients wrote.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.file = Some(file);
        tracing::info!(file = %path.display(), "a recording begins");
        self.counters.status(|status| status.file = Some(path));
        Ok(())
    }

    /// Removes this node's oldest recordings until the rest has at most so many bytes.
    fn remove_oldest(&self, room: u64) -> io::Result<()> {
        let mut kept = 0;
        for path in recordings(&self.options.dir, &self.name)?.into_iter().rev() {
            kept += fs::metadata(&path)?.len();
            if kept > room {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The recordings of a node in a directory, the oldest first.
pub fn recordings(dir: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let number = stem.and_then(|stem| stem.strip_prefix(name)?.strip_prefix('-'));
        let is_number = number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        if is_number && path.extension().is_some_and(|extension| extension == record::EXTENSION) {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}
